//! The current VMCS, reached by one VMREAD or VMWRITE for each field.

use core::arch::asm;

use vmcs::field::Area;
use vmcs::fields::FIELDS;
use vmcs::{Access, Capabilities, Encoding};

/// The current VMCS of this processor. A field that does not exist stops the guest with its name; where a failure is what
/// is looked for, see [`super::instructions`].
#[derive(Clone, Copy, Debug)]
pub struct Current;

impl Access for Current {
    #[inline(always)]
    fn read_raw(&self, encoding: Encoding) -> u64 {
        let value;
        // SAFETY: VMREAD changes its operand and flags only; when it fails it goes to a function that does not return and
        // expects the encoding in RDI.
        unsafe {
            asm!(
                "vmread {value}, rdi",
                "jbe {failed}",
                value = out(reg) value,
                in("rdi") u64::from(encoding.0),
                failed = sym failed,
            );
        }
        value
    }

    #[inline(always)]
    fn write_raw(&mut self, encoding: Encoding, value: u64) {
        // SAFETY: as above.
        unsafe {
            asm!(
                "vmwrite rdi, {value}",
                "jbe {failed}",
                value = in(reg) value,
                in("rdi") u64::from(encoding.0),
                failed = sym failed,
            );
        }
    }
}

extern "sysv64" fn failed(encoding: u64) -> ! {
    crate::println!("guest stopped: no access to {:?}", Encoding(encoding as u32));
    crate::exit(103)
}

/// Writes 0 to every field that can be written: what VMCLEAR leaves in a new VMCS is the processor's own affair.
pub(super) fn zero(capabilities: &Capabilities) {
    let writable = |field: &&vmcs::FieldInfo| field.encoding.area() != Area::ReadOnly && capabilities.has_field(field);
    for field in FIELDS.iter().filter(writable) {
        // A field may be missing although its control is there; nobody misses it here.
        let _ = super::instructions::vmwrite(field.encoding, 0);
    }
}
