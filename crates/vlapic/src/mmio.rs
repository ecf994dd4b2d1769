//! Accesses to xAPIC's register page.

use arch::Width;
use arch::apic::Register;

use crate::bus::Bus;
use crate::errors::ILLEGAL_REGISTER;
use crate::identity::Mode;
use crate::local_apic::LocalApic;
use crate::registers::{Access, access};

impl LocalApic {
    /// Reads `width` at `offset` (0 to 0xfff) of the register page, at time `now` (the guest's TSC).
    ///
    /// Registers are the low four bytes of 16-byte slots, to be accessed with aligned 32-bit accesses; the manual
    /// leaves everything else undefined (SDM 3A 11.4.1 "The Local APIC Block Diagram"). Here a read returns the bytes
    /// it names, of which bytes 4 to 15 of a slot, and any of the next slot, are 0. A reserved register reads 0 and
    /// is the illegal-register-address error; a write-only one just reads 0. (The comparison machine also returns the
    /// named bytes of an access within 32 bits; it repeats the register in bytes 4 to 15.)
    ///
    /// Outside xAPIC mode nothing is here: all ones.
    pub fn read_mmio(&mut self, offset: u16, width: Width, now: u64) -> u64 {
        if self.mode != Mode::Xapic {
            return width.mask();
        }
        let register = Register(offset & 0xff0);
        let value = match access(register, false) {
            Access::ReadOnly | Access::ReadWrite => self.read_register(register, now),
            Access::WriteOnly => 0,
            Access::Reserved => {
                self.error(ILLEGAL_REGISTER);
                0
            }
        };
        u64::from(value).checked_shr(8 * u32::from(offset & 0xf)).unwrap_or(0) & width.mask()
    }

    /// Writes the low `width` of `value` at `offset` (0 to 0xfff) of the register page, at time `now` (the guest's
    /// TSC).
    ///
    /// Only an aligned 32-bit write does anything; the manual leaves the others undefined. A write to a reserved
    /// register is the illegal-register-address error; to a read-only one it is ignored. Outside xAPIC mode nothing
    /// is here.
    pub fn write_mmio(&mut self, offset: u16, width: Width, value: u64, now: u64, bus: &impl Bus) {
        if self.mode != Mode::Xapic || width != Width::Dword || offset & 0xf != 0 {
            return;
        }
        let register = Register(offset & 0xff0);
        match access(register, false) {
            Access::WriteOnly | Access::ReadWrite => {
                self.write_register(register, (value & 0xffff_ffff) as u32, now, bus);
            }
            Access::ReadOnly => {}
            Access::Reserved => self.error(ILLEGAL_REGISTER),
        }
    }
}
