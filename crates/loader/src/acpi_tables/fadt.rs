//! The FADT: power management as fixed hardware (ACPI 6.5, 5.2.9 "Fixed ACPI Description Table (FADT)").

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::{PM_TIMER_PORT, PM1A_CONTROL_PORT, PM1A_EVENT_PORT, RESET_PORT, RESET_VALUE, SCI_IRQ};
use crate::error::LoadError;
use crate::writer::Writer;

/// ACPI 4.0's FADT, 244 bytes: the last before the sleep registers, which only reduced hardware has.
pub(crate) const REVISION: u8 = 4;

/// IAPC_BOOT_ARCH: there are legacy devices (serial port, PIC, PIT, RTC).
const LEGACY_DEVICES: u16 = 1 << 0;
/// IAPC_BOOT_ARCH: do not probe for VGA.
const VGA_NOT_PRESENT: u16 = 1 << 2;

/// Flags (table "Fixed ACPI Description Table Fixed Feature Flags"): WBINVD works.
const WBINVD: u32 = 1 << 0;
/// C1, HLT, works on all processors.
const PROC_C1: u32 = 1 << 2;
/// No power button as fixed hardware.
const PWR_BUTTON: u32 = 1 << 4;
/// No sleep button as fixed hardware.
const SLP_BUTTON: u32 = 1 << 5;
/// RESET_REG may be used.
const RESET_REG_SUP: u32 = 1 << 10;

/// A register by address space (5.2.3.2 "Generic Address Structure").
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Register {
    space: u8,
    bits: u8,
    offset: u8,
    access_size: u8,
    address: U64,
}

/// Access sizes of a generic address.
#[derive(Clone, Copy)]
enum AccessSize {
    Byte = 1,
    Word = 2,
    Dword = 3,
}

impl Register {
    fn port(port: u16, bits: u8, access_size: AccessSize) -> Self {
        const SYSTEM_IO: u8 = 1;
        Self { space: SYSTEM_IO, bits, offset: 0, access_size: access_size as u8, address: u64::from(port).into() }
    }
}

/// The FADT behind its header; the names are the specification's.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Body {
    firmware_ctrl: U32,
    dsdt: U32,
    reserved_44: u8,
    preferred_pm_profile: u8,
    sci_int: U16,
    smi_cmd: U32,
    acpi_enable: u8,
    acpi_disable: u8,
    s4bios_req: u8,
    pstate_cnt: u8,
    pm1a_evt_blk: U32,
    pm1b_evt_blk: U32,
    pm1a_cnt_blk: U32,
    pm1b_cnt_blk: U32,
    pm2_cnt_blk: U32,
    pm_tmr_blk: U32,
    gpe0_blk: U32,
    gpe1_blk: U32,
    pm1_evt_len: u8,
    pm1_cnt_len: u8,
    pm2_cnt_len: u8,
    pm_tmr_len: u8,
    gpe0_blk_len: u8,
    gpe1_blk_len: u8,
    gpe1_base: u8,
    cst_cnt: u8,
    p_lvl2_lat: U16,
    p_lvl3_lat: U16,
    flush_size: U16,
    flush_stride: U16,
    duty_offset: u8,
    duty_width: u8,
    day_alrm: u8,
    mon_alrm: u8,
    century: u8,
    iapc_boot_arch: U16,
    reserved_111: u8,
    flags: U32,
    reset_reg: Register,
    reset_value: u8,
    reserved_129: [u8; 3],
    x_firmware_ctrl: U64,
    x_dsdt: U64,
    x_pm1a_evt_blk: Register,
    x_pm1b_evt_blk: Register,
    x_pm1a_cnt_blk: Register,
    x_pm1b_cnt_blk: Register,
    x_pm2_cnt_blk: Register,
    x_pm_tmr_blk: Register,
    x_gpe0_blk: Register,
    x_gpe1_blk: Register,
}

const _: () = {
    use core::mem::offset_of;
    const HEADER: usize = 36;
    assert!(HEADER + size_of::<Body>() == 244);
    assert!(HEADER + offset_of!(Body, pm_tmr_blk) == 76);
    assert!(HEADER + offset_of!(Body, iapc_boot_arch) == 109);
    assert!(HEADER + offset_of!(Body, reset_reg) == 116);
    assert!(HEADER + offset_of!(Body, x_dsdt) == 140);
    assert!(HEADER + offset_of!(Body, x_pm_tmr_blk) == 208);
};

/// Writes the FADT's contents; `facs` and `dsdt` are the addresses of those tables.
pub(super) fn write(to: &mut Writer<'_>, facs: u32, dsdt: u32) -> Result<(), LoadError> {
    let none = Register::default();
    let body = Body {
        firmware_ctrl: facs.into(),
        dsdt: dsdt.into(),
        reserved_44: 0,
        preferred_pm_profile: 0,
        sci_int: u16::from(SCI_IRQ).into(),
        // No SMI command port: the machine is in ACPI mode from the start and cannot leave it.
        smi_cmd: 0.into(),
        acpi_enable: 0,
        acpi_disable: 0,
        s4bios_req: 0,
        pstate_cnt: 0,
        pm1a_evt_blk: u32::from(PM1A_EVENT_PORT).into(),
        pm1b_evt_blk: 0.into(),
        pm1a_cnt_blk: u32::from(PM1A_CONTROL_PORT).into(),
        pm1b_cnt_blk: 0.into(),
        pm2_cnt_blk: 0.into(),
        pm_tmr_blk: u32::from(PM_TIMER_PORT).into(),
        gpe0_blk: 0.into(),
        gpe1_blk: 0.into(),
        pm1_evt_len: 4,
        pm1_cnt_len: 2,
        pm2_cnt_len: 0,
        pm_tmr_len: 4,
        gpe0_blk_len: 0,
        gpe1_blk_len: 0,
        gpe1_base: 0,
        cst_cnt: 0,
        // Above 100 and 1000 microseconds: no C2, no C3.
        p_lvl2_lat: 0xfff.into(),
        p_lvl3_lat: 0xfff.into(),
        flush_size: 0.into(),
        flush_stride: 0.into(),
        duty_offset: 0,
        duty_width: 0,
        day_alrm: 0,
        mon_alrm: 0,
        century: 0,
        iapc_boot_arch: (LEGACY_DEVICES | VGA_NOT_PRESENT).into(),
        reserved_111: 0,
        flags: (WBINVD | PROC_C1 | PWR_BUTTON | SLP_BUTTON | RESET_REG_SUP).into(),
        reset_reg: Register::port(RESET_PORT, 8, AccessSize::Byte),
        reset_value: RESET_VALUE,
        reserved_129: [0; 3],
        // "If the X_FIRMWARE_CTRL field contains a non-zero value ... the FIRMWARE_CTRL field must be zero."
        x_firmware_ctrl: 0.into(),
        x_dsdt: u64::from(dsdt).into(),
        x_pm1a_evt_blk: Register::port(PM1A_EVENT_PORT, 32, AccessSize::Word),
        x_pm1b_evt_blk: none,
        x_pm1a_cnt_blk: Register::port(PM1A_CONTROL_PORT, 16, AccessSize::Word),
        x_pm1b_cnt_blk: none,
        x_pm2_cnt_blk: none,
        x_pm_tmr_blk: Register::port(PM_TIMER_PORT, 32, AccessSize::Dword),
        x_gpe0_blk: none,
        x_gpe1_blk: none,
    };
    to.put(body.as_bytes())?;
    Ok(())
}
