//! Where vmcs12 keeps a field: a number for each row of the field table.

use vmcs::fields::FIELDS;
use vmcs::{Encoding, FieldInfo};

/// How many fields there are.
pub(crate) const COUNT: usize = FIELDS.len();

/// Length of arrays by slot: one for each value of a slot's byte, so that no index needs a check.
pub(crate) const ROOM: usize = 256;

/// What [`SLOT_OF`] says of an encoding that is no field's.
const NONE: u8 = u8::MAX;
const _: () = assert!(COUNT < NONE as usize, "a slot's number fits into a byte");

/// Width, area and index of an encoding in ten bits.
const fn key(encoding: Encoding) -> usize {
    let bits = encoding.0;
    ((bits >> 13 & 3) << 8 | (bits >> 10 & 3) << 6 | (bits >> 1 & 0x3f)) as usize
}

static SLOT_OF: [u8; 1024] = {
    let mut slots = [NONE; 1024];
    let mut slot = 0;
    while slot < COUNT {
        let encoding = FIELDS[slot].encoding;
        assert!(encoding.index() < 64, "the key has six bits for the index");
        #[expect(clippy::cast_possible_truncation, reason = "fewer fields than NONE, asserted above")]
        let number = slot as u8;
        slots[key(encoding)] = number;
        slot += 1;
    }
    slots
};

/// Fields by encoding, those only that a processor has: for VMREAD and VMWRITE, where nothing else is known of an encoding.
#[derive(Clone, Debug)]
pub(crate) struct Lookup([u8; Self::PLACES]);

impl Lookup {
    const PLACES: usize = 2048;

    /// The fields of `some`.
    pub(crate) fn new(some: &SlotSet) -> Self {
        let mut lookup = Self([NONE; Self::PLACES]);
        Slot::all().filter(|&slot| some.contains(slot)).for_each(|slot| {
            lookup.0[Self::place(slot.info().encoding.0.into())] = slot.0;
        });
        lookup
    }

    /// Bits 14:10 and 6:1 of a full encoding.
    #[inline(always)]
    const fn place(encoding: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "11 bits")]
        let place = (encoding >> 4 & 0x7c0 | encoding >> 1 & 0x3f) as usize;
        place
    }

    /// The field whose full encoding this is. All bits of the register count.
    #[inline(always)]
    pub(crate) fn full(&self, encoding: u64) -> Option<Slot> {
        // Bits that can be set: width, area, and an index below 64.
        if encoding & !0x6c7e != 0 {
            return None;
        }
        match self.0[Self::place(encoding) % Self::PLACES] {
            NONE => None,
            slot => Some(Slot(slot)),
        }
    }
}

/// The place of one field in vmcs12, below [`COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u8);

impl Slot {
    /// The field's slot; `None` when the table has no such field. The high half of a field has the field's slot.
    #[inline(always)]
    pub(crate) fn of(encoding: Encoding) -> Option<Self> {
        if !encoding.is_well_formed() || encoding.index() >= 64 {
            return None;
        }
        match SLOT_OF[key(encoding) & 1023] {
            NONE => None,
            slot => Some(Self(slot)),
        }
    }

    /// The slot of a field that is in the table, as every constant of [`vmcs::fields`] is.
    #[inline(always)]
    pub(crate) fn known(encoding: Encoding) -> Self {
        Self(SLOT_OF[key(encoding) & 1023])
    }

    /// The slot as a number below [`COUNT`].
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The row of the field table.
    #[inline(always)]
    pub(crate) fn info(self) -> &'static FieldInfo {
        &FIELDS[self.index()]
    }

    /// All slots.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..NONE).take(COUNT).map(Self)
    }
}

const WORDS: usize = ROOM / 64;
/// Words that a field can be in.
const USED: usize = COUNT.div_ceil(64);

/// A set of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct SlotSet([u64; WORDS]);

impl SlotSet {
    /// No field.
    pub(crate) const EMPTY: Self = Self([0; WORDS]);

    /// The fields for which `has` holds.
    pub(crate) fn of(has: impl Fn(&FieldInfo) -> bool) -> Self {
        let mut set = Self::EMPTY;
        Slot::all().filter(|slot| has(slot.info())).for_each(|slot| set.insert(slot));
        set
    }

    /// Adds a field.
    #[inline(always)]
    pub(crate) const fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / 64] |= 1 << (slot.index() % 64);
    }

    /// Takes a field out.
    #[inline(always)]
    pub(crate) const fn remove(&mut self, slot: Slot) {
        self.0[slot.index() / 64] &= !(1 << (slot.index() % 64));
    }

    /// Whether a field is in the set.
    #[inline(always)]
    pub(crate) const fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index() / 64] >> (slot.index() % 64) & 1 != 0
    }

    /// Whether no field is.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0[..USED].iter().fold(0, |all, word| all | word) == 0
    }

    /// The fields of both.
    #[must_use]
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, other)| *mine &= other);
        self
    }

    /// The fields of this set that the other lacks.
    #[must_use]
    pub(crate) fn without(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, other)| *mine &= !other);
        self
    }

    /// The fields, lowest slot first.
    #[inline(always)]
    pub(crate) fn for_each(&self, mut act: impl FnMut(Slot)) {
        let mut first = 0;
        for &word in &self.0[..USED] {
            let mut rest = word;
            while rest != 0 {
                #[expect(clippy::cast_possible_truncation, reason = "below 64")]
                act(Slot(first + rest.trailing_zeros() as u8));
                rest &= rest - 1;
            }
            first += 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the table has a slot of its own, by its full encoding and by its high half.
    #[test]
    fn every_field_has_a_slot() {
        for (slot, field) in Slot::all().zip(FIELDS) {
            assert_eq!(Slot::of(field.encoding), Some(slot), "{}", field.name);
            if let Some(high) = field.encoding.high_half() {
                assert_eq!(Slot::of(high), Some(slot), "{}", field.name);
            }
        }
    }

    /// What the table lacks has no slot, also where the key's ten bits are those of a field.
    #[test]
    fn unknown_encodings_have_none() {
        let known = |encoding: u32| FIELDS.iter().any(|field| field.encoding.0 == encoding & !1);
        for encoding in (0..0x8000).chain([0x8000_681e, 0x1_681e, 0x781e, u32::MAX]) {
            let is_field = known(encoding) && Encoding(encoding).is_well_formed();
            assert_eq!(Slot::of(Encoding(encoding)).is_some(), is_field, "{encoding:#x}");
        }
    }
}
