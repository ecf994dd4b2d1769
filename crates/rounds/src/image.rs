//! The fields of the VMCS that a round enters with.

use vmcs::fields::FIELDS;
use vmcs::{Access, Encoding};

/// One slot for each encoding that can be: width and area in bits 9:6, the index of the field in bits 5:0.
const SLOTS: usize = 1024;

/// Fields and their values.
#[derive(Clone, Debug)]
pub struct Image {
    values: [u64; SLOTS],
    is_written: [bool; SLOTS],
}

impl Image {
    /// No field.
    pub(crate) const EMPTY: Self = Self { values: [0; SLOTS], is_written: [false; SLOTS] };

    /// Each field that is written, with its value.
    pub fn fields(&self) -> impl Iterator<Item = (Encoding, u64)> + '_ {
        let written = FIELDS.iter().map(|field| field.encoding).filter(|field| self.is_written[slot(*field)]);
        written.map(|field| (field, self.values[slot(field)]))
    }
}

const fn slot(encoding: Encoding) -> usize {
    let (width, area) = (encoding.0 >> 13 & 3, encoding.0 >> 10 & 3);
    (width << 8 | area << 6 | encoding.index() & 0x3f) as usize
}

/// No field has an index above 63, so that no two share a slot.
const _: () = {
    let mut i = 0;
    while i < FIELDS.len() {
        assert!(FIELDS[i].encoding.index() < 64);
        i += 1;
    }
};

impl Access for Image {
    /// 0 for a field that is not written: the processor has none, or it counts for nothing.
    fn read_raw(&self, encoding: Encoding) -> u64 {
        self.values[slot(encoding)]
    }

    fn write_raw(&mut self, encoding: Encoding, value: u64) {
        self.values[slot(encoding)] = encoding.truncate(value);
        self.is_written[slot(encoding)] = true;
    }
}
