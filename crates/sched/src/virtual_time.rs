//! Time as those who compete for a processor see it.

use core::cmp::Ordering;

/// A point of virtual time, in 2^-24 ticks for a weight of 1.
///
/// It wraps. Two points that are compared are never more than 2^62 apart: whoever competes is within a few requests of
/// the queue's own virtual time, and whoever does not compete has no point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct VirtualTime(u64);

/// A weight, of one or of all who compete: how fast virtual time goes by for it.
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

    pub(crate) const fn new(weight: u64) -> Self {
        let inverse = match (1_u64 << INVERSE_SHIFT).checked_div(weight) {
            Some(inverse) => inverse,
            None => 0,
        };
        Self { weight, inverse }
    }

    #[inline]
    pub(crate) const fn weight(self) -> u64 {
        self.weight
    }

    /// The virtual time of `ticks`, rounded down. Like all virtual time it may wrap.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "virtual time wraps")]
    pub(crate) const fn span(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.inverse as u128) >> (INVERSE_SHIFT - SHIFT)) as u64
    }

    /// The virtual time of a stretch of `work`, rounded down.
    #[expect(clippy::cast_possible_truncation, reason = "virtual time wraps")]
    pub(crate) const fn span_of(self, work: Work) -> u64 {
        (work.0.wrapping_mul(self.inverse as u128) >> INVERSE_SHIFT) as u64
    }

    /// The work of `span`.
    pub(crate) const fn work(self, span: u64) -> Work {
        Work(span as u128 * self.weight as u128)
    }
}

/// Time of the processor, in 2^-24 ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Work(u128);

impl Work {
    /// `ticks` of it.
    pub(crate) const fn of(ticks: u64) -> Self {
        Self((ticks as u128) << SHIFT)
    }

    /// What is left when `other` is done; `None` when there is not enough.
    pub(crate) const fn without(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(left) => Some(Self(left)),
            None => None,
        }
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

    /// How far this is ahead of `other`; 0 when it is not.
    pub(crate) fn ahead_of(self, other: Self) -> u64 {
        if self > other { self.0.wrapping_sub(other.0) } else { 0 }
    }
}

impl Ord for VirtualTime {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.wrapping_sub(other.0).cast_signed().cmp(&0)
    }
}

impl PartialOrd for VirtualTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }

    // The decision's path compares: one subtraction instead of three outcomes.
    #[inline]
    fn lt(&self, other: &Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() < 0
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
