//! Events that cannot be injected: SDM 3C 27.2.1.3 "VM-Entry Control Fields".

use guests::println;
use guests::vmx::{L2, setup};
use vmcs::Access;
use vmcs::fields::{VM_ENTRY_EXCEPTION_ERROR_CODE, VM_ENTRY_INSTRUCTION_LEN, VM_ENTRY_INTERRUPTION_INFO};

use crate::row;

const VALID: u32 = 1 << 31;
const ERROR: u32 = 1 << 11;

/// An event of this type (bits 10:8) and vector.
const fn event(kind: u32, vector: u32) -> u32 {
    VALID | kind << 8 | vector
}

pub(crate) fn all(l2: &mut L2) {
    println!("event injection");
    let is_free = setup::capabilities().basic.has_free_error_codes();
    for (what, info, error, length) in [
        ("type 1", event(1, 0x20), 0, 0),
        ("other event 1", event(7, 1), 0, 0),
        ("NMI with vector 3", event(2, 3), 0, 0),
        ("exception 32", event(3, 32), 0, 0),
        ("#UD with an error code", event(3, 6) | ERROR, 0, 0),
        ("#GP without an error code", event(3, 13), 0, 0),
        ("interrupt with an error code", event(0, 0x20) | ERROR, 0, 0),
        ("NMI with an error code", event(2, 2) | ERROR, 0, 0),
        ("bit 12", event(3, 6) | 1 << 12, 0, 0),
        ("bit 30", event(3, 6) | 1 << 30, 0, 0),
        ("#GP with bit 16 of the error code", event(3, 13) | ERROR, 1 << 16, 0),
        ("#GP with bit 31 of the error code", event(3, 13) | ERROR, 1 << 31, 0),
        ("INT with length 16", event(4, 0x20), 0, 16),
        ("INT3 with length 16", event(6, 3), 0, 16),
        ("INT1 with length 16", event(5, 1), 0, 16),
        ("bits of nothing, not valid", event(1, 0x20) & !VALID | 1 << 12, 1 << 31, 99),
    ] {
        // Where error codes are software's own business it says which exceptions have one; Bochs lets it say that of all events.
        if is_free && error == 0 && (info & ERROR != 0 || info == event(3, 13)) {
            println!(" {what}: skip, the machine may allow it");
            continue;
        }
        row(l2, what, |_, c| {
            c.write(VM_ENTRY_INTERRUPTION_INFO, info);
            c.write(VM_ENTRY_EXCEPTION_ERROR_CODE, error);
            c.write(VM_ENTRY_INSTRUCTION_LEN, length);
        });
    }
}
