//! Everything a VMCS says, for the log of a failed entry or a panic.

use crate::access::Access;
use crate::capabilities::Capabilities;
use crate::field::{FieldInfo, Group};
use crate::fields::FIELDS;

/// Reads every field that `exists` lets through and hands it to `line`, group by group in the order of [`Group::ALL`].
///
/// `exists` is asked before a field is read: VMREAD of a field that the processor lacks fails. [`dump_existing`] asks the
/// capabilities.
pub fn dump(vmcs: &impl Access, exists: impl Fn(&FieldInfo) -> bool, mut line: impl FnMut(&'static FieldInfo, u64)) {
    for group in Group::ALL {
        for field in FIELDS.iter().filter(|field| field.group == group && exists(field)) {
            line(field, vmcs.read_raw(field.encoding));
        }
    }
}

/// [`dump`] of the fields that a processor with `capabilities` has.
pub fn dump_existing(vmcs: &impl Access, capabilities: &Capabilities, line: impl FnMut(&'static FieldInfo, u64)) {
    dump(vmcs, |field| capabilities.has_field(field), line);
}
