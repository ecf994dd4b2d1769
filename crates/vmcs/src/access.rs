//! The seam: how the fields of one VMCS are read and written.

use crate::field::{Encoding, Field, Width};

/// One VMCS, whatever holds it: the processor (VMREAD and VMWRITE of the current VMCS), a vmcs12 in memory, or a map in
/// a test.
///
/// The typed [`read`](Access::read) and [`write`](Access::write) are what everybody uses. They are on the exit path and
/// compile to the implementation's one VMREAD or VMWRITE: the field's encoding is a constant there.
pub trait Access {
    /// The field's value, zero-extended to 64 bits. Of a high half: bits 63:32 of its field, in the low bits.
    fn read_raw(&self, encoding: Encoding) -> u64;

    /// Sets the field; bits of `value` above the field's width are ignored.
    fn write_raw(&mut self, encoding: Encoding, value: u64);

    /// The field's value.
    #[inline(always)]
    fn read<W: Width>(&self, field: Field<W>) -> W::Value {
        W::from_raw(self.read_raw(field.encoding()))
    }

    /// Sets the field.
    #[inline(always)]
    fn write<W: Width>(&mut self, field: Field<W>, value: W::Value) {
        self.write_raw(field.encoding(), W::to_raw(value));
    }
}
