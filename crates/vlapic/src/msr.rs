//! The APIC's MSRs: x2APIC's registers, IA32_APIC_BASE, IA32_TSC_DEADLINE.

use arch::apic::Register;
use arch::{Fault, Msr};

use crate::bus::Bus;
use crate::identity::Mode;
use crate::local_apic::LocalApic;
use crate::registers::{Access, access};

const GP: Fault = Fault::Gp(0);

/// The register behind an MSR of 0x800 to 0x8ff.
fn register(msr: Msr) -> Option<Register> {
    let index = msr.0.checked_sub(Msr::X2APIC_FIRST.0)?;
    u8::try_from(index).ok().map(|index| Register(u16::from(index) << 4))
}

impl LocalApic {
    /// RDMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC MSR (0x800 to 0x8ff), at time `now` (the guest's TSC).
    ///
    /// #GP(0) for an x2APIC MSR outside x2APIC mode, one that is reserved or write-only there (SDM 3A 11.12.1.2
    /// "x2APIC Register Address Space"), and for any other MSR.
    pub fn read_msr(&mut self, msr: Msr, now: u64) -> Result<u64, Fault> {
        match msr {
            Msr::APIC_BASE => Ok(self.apic_base),
            Msr::TSC_DEADLINE => {
                self.tick(now);
                Ok(self.timer.deadline_msr())
            }
            _ => {
                let register = register(msr).filter(|_| self.mode == Mode::X2apic).ok_or(GP)?;
                match access(register, true) {
                    Access::ReadOnly | Access::ReadWrite => {}
                    Access::WriteOnly | Access::Reserved => return Err(GP),
                }
                let low = u64::from(self.read_register(register, now));
                Ok(if register == Register::ICR { u64::from(self.icr_high) << 32 | low } else { low })
            }
        }
    }

    /// WRMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC MSR (0x800 to 0x8ff), at time `now` (the guest's TSC).
    ///
    /// #GP(0) for an x2APIC MSR outside x2APIC mode, one that is reserved or read-only there, a reserved bit
    /// (SDM 3A 11.12.1.3 "Reserved Bit Checking"), an IA32_APIC_BASE that the manual forbids, and for any other MSR.
    pub fn write_msr(&mut self, msr: Msr, value: u64, now: u64, bus: &impl Bus) -> Result<(), Fault> {
        match msr {
            Msr::APIC_BASE => self.set_apic_base(value, bus),
            Msr::TSC_DEADLINE => {
                self.tick(now);
                self.timer.set_deadline_msr(value);
                Ok(())
            }
            _ => {
                let register = register(msr).filter(|_| self.mode == Mode::X2apic).ok_or(GP)?;
                match access(register, true) {
                    Access::WriteOnly | Access::ReadWrite => {}
                    Access::ReadOnly | Access::Reserved => return Err(GP),
                }
                let low = (value & 0xffff_ffff) as u32;
                let high = (value >> 32) as u32;
                if low & self.x2apic_reserved_bits(register) != 0 || high != 0 && register != Register::ICR {
                    return Err(GP);
                }
                if register == Register::ICR {
                    self.icr_high = high;
                }
                self.write_register(register, low, now, bus);
                Ok(())
            }
        }
    }
}
