//! Time as those who compete for a processor see it.

use core::cmp::Ordering;

/// A point of virtual time, in 2^-24 ticks for a weight of 1.
///
/// It wraps. Two points that are compared are never more than 2^62 apart: whoever is ready is within a few requests of the others, or as much
/// further as a decision was late; whoever is gone is looked at before the others are that far away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct VirtualTime(u64);

/// A weight: how fast virtual time goes by for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    weight: u64,
    /// 2^48 / weight, rounded down: a decision divides nothing. This is off by less than 2^-32.
    inverse: u64,
}

const SHIFT: u32 = 24;
const INVERSE_SHIFT: u32 = 48;

impl Pace {
    /// No weight: time stands still.
    pub(crate) const NONE: Self = Self { weight: 0, inverse: 0 };

    pub(crate) const fn new(weight: u32) -> Self {
        let weight = weight as u64;
        let inverse = match (1_u64 << INVERSE_SHIFT).checked_div(weight) {
            Some(inverse) => inverse,
            None => 0,
        };
        Self { weight, inverse }
    }

    /// At most [`crate::MAX_WEIGHT`].
    #[inline]
    pub(crate) const fn weight(self) -> i64 {
        self.weight.cast_signed()
    }

    /// The virtual time of `ticks`, rounded down. Like all virtual time it may wrap.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "virtual time wraps")]
    pub(crate) const fn span(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.inverse as u128) >> (INVERSE_SHIFT - SHIFT)) as u64
    }

    /// How many whole ticks a stretch of virtual time is.
    #[expect(clippy::cast_possible_truncation, reason = "it is at most a slice")]
    pub(crate) const fn ticks(self, span: u64) -> u64 {
        ((span as u128 * self.weight as u128) >> SHIFT) as u64
    }
}

impl VirtualTime {
    /// Where a queue's clock begins.
    pub(crate) const ZERO: Self = Self(0);

    /// The point `span` later.
    #[inline]
    pub(crate) const fn after(self, span: u64) -> Self {
        Self(self.0.wrapping_add(span))
    }

    /// The point `span` earlier.
    #[inline]
    pub(crate) const fn before(self, span: u64) -> Self {
        Self(self.0.wrapping_sub(span))
    }

    /// From `other` until here; when this is the earlier one, a length of more than 2^63.
    #[inline]
    pub(crate) const fn since(self, other: Self) -> u64 {
        self.0.wrapping_sub(other.0)
    }

    /// The last multiple of 2^`bits` up to here.
    pub(crate) const fn floor(self, bits: u32) -> Self {
        Self(self.0 >> bits << bits)
    }
}

impl Ord for VirtualTime {
    fn cmp(&self, other: &Self) -> Ordering {
        self.since(*other).cast_signed().cmp(&0)
    }
}

impl PartialOrd for VirtualTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }

    // The decision's path compares: one subtraction instead of three outcomes.
    #[inline]
    fn lt(&self, other: &Self) -> bool {
        self.since(*other).cast_signed() < 0
    }

    #[inline]
    fn gt(&self, other: &Self) -> bool {
        other < self
    }

    #[inline]
    fn le(&self, other: &Self) -> bool {
        !self.gt(other)
    }
}
