//! Random numbers that are the same in the guest and on the host.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): each round starts its own
/// sequence, so that one round can be repeated without those before it.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The sequence of round `round` under `seed`.
    pub(crate) fn new(seed: u32, round: u32) -> Self {
        let mut rng = Self(u64::from(seed) << 32 | u64::from(round));
        // One step apart, neighbouring rounds would share their sequences but for the first number.
        rng.0 = rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    /// A number from 0 to `limit` - 1. The slight preference of a remainder does not matter here.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`, which must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap_or(0)]
    }

    /// A number with one bit set, below bit `limit`.
    pub(crate) fn bit(&mut self, limit: u64) -> u64 {
        1 << self.below(limit)
    }
}
