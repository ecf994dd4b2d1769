//! The virtual-APIC page of an L2, as its hypervisor sees it. SDM 3C 30.1 "Virtual APIC State".

use core::fmt;

use arch::apic::Register;
use vmcs::Access;
use vmcs::controls::SecondaryBased;
use vmcs::fields::{GUEST_INTERRUPT_STATUS, VIRTUAL_APIC_PAGE_ADDR};

use super::{Current, pages, setup};
use crate::memory;

/// A virtual-APIC page. It prints as what is requested and in service, and what the processor made of that.
#[derive(Clone, Copy, Debug)]
pub struct VirtualApic {
    /// Its address.
    pub page: u64,
}

impl VirtualApic {
    /// A new page, which the current VMCS names from here on.
    pub fn for_current() -> Self {
        let page = pages::take();
        Current.write(VIRTUAL_APIC_PAGE_ADDR, page);
        Self { page }
    }

    /// A register.
    pub fn read(self, register: Register) -> u32 {
        memory::read_register(self.page + u64::from(register.0))
    }

    /// Writes a register, as memory.
    pub fn write(self, register: Register, value: u32) {
        memory::write_register(self.page + u64::from(register.0), value);
    }

    /// Each register holds its own offset, with ones above.
    pub fn fill(self) {
        for offset in (0..0x1000).step_by(4) {
            memory::write_register(self.page + offset, 0xffff_0000 | offset as u32);
        }
    }

    /// Whether `vector`'s bit is set in one of the three 256-bit registers.
    pub fn has(self, register: Register, vector: u8) -> bool {
        self.read(Register(register.0 + u16::from(vector / 32) * 16)) & 1 << (vector % 32) != 0
    }

    /// All registers are 0, but one vector is requested and one is in service (0: none), as the current VMCS says too.
    pub fn set(self, requested: u8, in_service: u8) {
        for offset in (0..0x1000).step_by(4) {
            memory::write_register(self.page + offset, 0);
        }
        for (register, vector) in [(Register::IRR, requested), (Register::ISR, in_service)] {
            if vector != 0 {
                self.write(Register(register.0 + u16::from(vector / 32) * 16), 1 << (vector % 32));
            }
        }
        // The field is there only where interrupts can be delivered.
        if setup::capabilities().secondary.supports(SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY) {
            Current.write(GUEST_INTERRUPT_STATUS, u16::from_le_bytes([requested, in_service]));
        }
    }
}

impl fmt::Display for VirtualApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rvi, svi] = Current.read(GUEST_INTERRUPT_STATUS).to_le_bytes();
        write!(f, "RVI {rvi:x}, SVI {svi:x}, VPPR {:x}", self.read(Register::PPR))?;
        for (what, register) in [("requested", Register::IRR), ("in service", Register::ISR)] {
            write!(f, ", {what}")?;
            for vector in (0..=255).filter(|&vector| self.has(register, vector)) {
                write!(f, " {vector:x}")?;
            }
        }
        Ok(())
    }
}
