//! Memory-type range registers of L1: stored and checked, without effect (EPT decides the memory type of RAM).
//!
//! SDM 3A 12.11 "Memory Type Range Registers (MTRRs)".

use arch::{Fault, Msr};

const VARIABLE: usize = 8;

/// The MTRRs of one vCPU.
#[derive(Clone, Debug)]
pub(crate) struct Mtrrs {
    default_type: u64,
    fixed: [u64; 11],
    variable: [u64; 2 * VARIABLE],
    physical_address_bits: u8,
}

impl Mtrrs {
    /// As firmware leaves them: on, everything write-back but the gigabyte below 4 GiB, where the devices are, and
    /// the legacy video and ROM area.
    pub(crate) const fn new(physical_address_bits: u8) -> Self {
        const WRITE_BACK: u64 = 0x0606_0606_0606_0606;
        let mut fixed = [WRITE_BACK; 11];
        fixed[2] = 0;
        let mut variable = [0; 2 * VARIABLE];
        variable[0] = 0xc000_0000;
        variable[1] = (((1 << physical_address_bits) - 1) & !0x3fff_ffff) | 1 << 11;
        Self { default_type: 0xc06, fixed, variable, physical_address_bits }
    }

    /// IA32_MTRRCAP: eight variable ranges, fixed ranges, write-combining.
    pub(crate) const CAPABILITIES: u64 = VARIABLE as u64 | 1 << 8 | 1 << 10;

    /// RDMSR of one of these registers; `None` if `msr` is none of them.
    pub(crate) fn read(&self, msr: Msr) -> Option<u64> {
        match msr {
            Msr::MTRRCAP => Some(Self::CAPABILITIES),
            Msr::MTRR_DEF_TYPE => Some(self.default_type),
            _ => variable_index(msr).map(|i| self.variable[i]).or_else(|| fixed_index(msr).map(|i| self.fixed[i])),
        }
    }

    /// WRMSR of one of these registers; `None` if `msr` is none of them.
    ///
    /// # Errors
    /// #GP(0) for reserved bits, reserved memory types, and any write of IA32_MTRRCAP.
    pub(crate) fn write(&mut self, msr: Msr, value: u64) -> Option<Result<(), Fault>> {
        let gp = Some(Err(Fault::Gp(0)));
        if msr == Msr::MTRRCAP {
            return gp;
        }
        if msr == Msr::MTRR_DEF_TYPE {
            if value & !0xcff != 0 || !is_type(value & 0xff) {
                return gp;
            }
            self.default_type = value;
        } else if let Some(i) = variable_index(msr) {
            let beyond_width = value >> self.physical_address_bits != 0;
            let bad = if i % 2 == 0 { !is_type(value & 0xfff) } else { value & 0x7ff != 0 };
            if beyond_width || bad {
                return gp;
            }
            self.variable[i] = value;
        } else if let Some(i) = fixed_index(msr) {
            if !value.to_le_bytes().iter().all(|&kind| is_type(u64::from(kind))) {
                return gp;
            }
            self.fixed[i] = value;
        } else {
            return None;
        }
        Some(Ok(()))
    }
}

/// UC, WC, WT, WP, WB: the types an MTRR may hold (table "Memory Types That Can Be Encoded in MTRRs").
const fn is_type(kind: u64) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6)
}

const fn variable_index(msr: Msr) -> Option<usize> {
    let index = msr.0.wrapping_sub(Msr::MTRR_PHYSBASE0.0) as usize;
    if index < 2 * VARIABLE { Some(index) } else { None }
}

const fn fixed_index(msr: Msr) -> Option<usize> {
    match msr {
        Msr::MTRR_FIX64K_00000 => Some(0),
        Msr::MTRR_FIX16K_80000 => Some(1),
        Msr::MTRR_FIX16K_A0000 => Some(2),
        Msr(number @ 0x268..=0x26f) => Some((number - 0x268) as usize + 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each register reads back what was written, and refuses what SDM 3A 12.11.2 reserves.
    #[test]
    fn keeps_good_values_and_refuses_reserved_ones() {
        let gp = Some(Err(Fault::Gp(0)));
        for (msr, value, outcome) in [
            (Msr::MTRR_DEF_TYPE, 0xc06, Some(Ok(()))),
            (Msr::MTRR_DEF_TYPE, 0x806, Some(Ok(()))),
            (Msr::MTRR_DEF_TYPE, 0x807, gp),
            (Msr::MTRR_DEF_TYPE, 0x1806, gp),
            (Msr::MTRRCAP, 0x508, gp),
            (Msr::MTRR_PHYSBASE0, 0x8000_0006, Some(Ok(()))),
            (Msr::MTRR_PHYSBASE0, 0x8000_0002, gp),
            (Msr::MTRR_PHYSBASE0, 0x8000_0106, gp),
            (Msr::MTRR_PHYSBASE0, 1 << 40, gp),
            (Msr::MTRR_PHYSMASK0, 0x80_8000_0800, Some(Ok(()))),
            (Msr::MTRR_PHYSMASK0, 0x400, gp),
            (Msr(0x20f), 0x800, Some(Ok(()))),
            (Msr(0x210), 0x800, None),
            (Msr::MTRR_FIX64K_00000, 0x0606_0606_0606_0606, Some(Ok(()))),
            (Msr::MTRR_FIX4K_F8000, 0x0606_0206_0606_0606, gp),
            (Msr(0x26a), 0x0505_0404_0101_0000, Some(Ok(()))),
        ] {
            let mut mtrrs = Mtrrs::new(40);
            assert_eq!(mtrrs.write(msr, value), outcome, "{msr:?} := {value:#x}");
            if outcome == Some(Ok(())) {
                assert_eq!(mtrrs.read(msr), Some(value), "{msr:?}");
            }
        }
    }
}
