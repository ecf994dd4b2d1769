//! The FADT: power management (ACPI 6.5, 5.2.9 "Fixed ACPI Description Table (FADT)").

use arch::HostPhys;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::table::Table;
use super::{AcpiError, s5};
use crate::phys_memory::PhysMemory;

/// How to power off, reset and measure time. What a machine lacks is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PowerManagement {
    /// Port of the PM1a control register, 16 bits.
    pub pm1a_cnt: Option<u16>,
    /// Port of the PM1b control register, 16 bits.
    pub pm1b_cnt: Option<u16>,
    /// The power-management timer, 3.579545 MHz.
    pub pm_timer: Option<PmTimer>,
    /// How to reset the machine.
    pub reset: Option<ResetRegister>,
    /// SLP_TYP values that mean power off. `None` also when the DSDT is bad or computes them.
    pub s5: Option<SleepTypes>,
    /// SMI command port, and the value that switches the machine to ACPI mode. `None` when it always is.
    pub acpi_enable: Option<(u16, u8)>,
}

/// The power-management timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PmTimer {
    /// Its port, 32 bits wide.
    pub port: u16,
    /// Bits that count: 24 or 32.
    pub width: u8,
}

/// A register that resets the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ResetRegister {
    /// Where it is; 8 bits wide.
    pub register: Register,
    /// What to write.
    pub value: u8,
}

/// A register's place (5.2.3.2 "Generic Address Structure").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Register {
    /// In I/O space.
    Port(u16),
    /// In memory.
    Memory(HostPhys),
    /// In the configuration space of a function on bus 0.
    Pci {
        /// Device number.
        device: u8,
        /// Function number.
        function: u8,
        /// Offset in configuration space.
        offset: u16,
    },
}

/// SLP_TYPa and SLP_TYPb, 3 bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SleepTypes {
    /// For the PM1a control register.
    pub a: u8,
    /// For the PM1b control register.
    pub b: u8,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct GenericAddress {
    space: u8,
    bits: u8,
    offset: u8,
    access_size: u8,
    address: U64,
}

/// The FADT from its start, up to the last field that is used. The names are the specification's.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Fadt {
    header: [u8; 36],
    firmware_ctrl: U32,
    dsdt: U32,
    reserved_44: [u8; 4],
    smi_cmd: U32,
    acpi_enable: u8,
    reserved_53: [u8; 11],
    pm1a_cnt_blk: U32,
    pm1b_cnt_blk: U32,
    pm2_cnt_blk: U32,
    pm_tmr_blk: U32,
    reserved_80: [u8; 11],
    pm_tmr_len: u8,
    reserved_92: [u8; 20],
    flags: U32,
    reset_reg: GenericAddress,
    reset_value: u8,
    reserved_129: [u8; 11],
    x_dsdt: U64,
    x_pm1_evt_blks: [GenericAddress; 2],
    x_pm1a_cnt_blk: GenericAddress,
    x_pm1b_cnt_blk: GenericAddress,
    x_pm2_cnt_blk: GenericAddress,
    x_pm_tmr_blk: GenericAddress,
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Fadt, smi_cmd) == 48);
    assert!(offset_of!(Fadt, pm1a_cnt_blk) == 64);
    assert!(offset_of!(Fadt, pm_tmr_blk) == 76);
    assert!(offset_of!(Fadt, pm_tmr_len) == 91);
    assert!(offset_of!(Fadt, flags) == 112);
    assert!(offset_of!(Fadt, reset_reg) == 116);
    assert!(offset_of!(Fadt, x_dsdt) == 140);
    assert!(offset_of!(Fadt, x_pm1a_cnt_blk) == 172);
    assert!(offset_of!(Fadt, x_pm_tmr_blk) == 208);
};

/// ACPI 1.0's FADT ends behind its flags; what a table does not have reads as zero, which means absent.
const SHORTEST: u32 = 116;
/// Flag TMR_VAL_EXT: the timer counts 32 bits.
const TMR_VAL_EXT: u32 = 1 << 8;
/// Flag RESET_REG_SUP: RESET_REG may be used.
const RESET_REG_SUP: u32 = 1 << 10;

/// Reads the FADT, and of the DSDT what powers off.
pub(super) fn read(memory: &impl PhysMemory, table: &Table) -> Result<PowerManagement, AcpiError> {
    if table.len() < SHORTEST {
        return Err(table.malformed());
    }
    let mut fadt = Fadt::new_zeroed();
    table.read_up_to(memory, 0, fadt.as_mut_bytes())?;

    let timer = port(&fadt.x_pm_tmr_blk, fadt.pm_tmr_blk).filter(|_| fadt.pm_tmr_len == 4);
    let flags = fadt.flags.get();
    let dsdt = match fadt.x_dsdt.get() {
        0 => u64::from(fadt.dsdt.get()),
        wide => wide,
    };
    Ok(PowerManagement {
        pm1a_cnt: port(&fadt.x_pm1a_cnt_blk, fadt.pm1a_cnt_blk),
        pm1b_cnt: port(&fadt.x_pm1b_cnt_blk, fadt.pm1b_cnt_blk),
        pm_timer: timer.map(|port| PmTimer { port, width: if flags & TMR_VAL_EXT == 0 { 24 } else { 32 } }),
        reset: if flags & RESET_REG_SUP == 0 {
            None
        } else {
            register(&fadt.reset_reg).map(|register| ResetRegister { register, value: fadt.reset_value })
        },
        s5: Table::open(memory, HostPhys(dsdt), *b"DSDT").ok().and_then(|dsdt| s5::find(memory, &dsdt)),
        acpi_enable: u16::try_from(fadt.smi_cmd.get())
            .ok()
            .filter(|port| *port != 0 && fadt.acpi_enable != 0)
            .map(|port| (port, fadt.acpi_enable)),
    })
}

/// The port of a register that is named twice: the wide field counts when it is not zero.
fn port(wide: &GenericAddress, narrow: U32) -> Option<u16> {
    match register(wide) {
        Some(Register::Port(port)) => Some(port),
        Some(_) => None,
        None => u16::try_from(narrow.get()).ok().filter(|port| *port != 0),
    }
}

/// A register's place; `None` when there is none, or in an address space that L0 does not reach.
fn register(address: &GenericAddress) -> Option<Register> {
    let at = address.address.get();
    match address.space {
        _ if at == 0 => None,
        0 => Some(Register::Memory(HostPhys(at))),
        1 => u16::try_from(at).ok().map(Register::Port),
        2 => {
            // Table "Address Space Format" for PCI: device in bits 47:32, function in 31:16, offset in 15:0.
            let field = |shift: u32| (at >> shift) & 0xffff;
            Some(Register::Pci {
                device: u8::try_from(field(32)).ok().filter(|device| *device < 32)?,
                function: u8::try_from(field(16)).ok().filter(|function| *function < 8)?,
                offset: u16::try_from(field(0)).ok()?,
            })
        }
        _ => None,
    }
}
