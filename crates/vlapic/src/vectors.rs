//! Sets of interrupt vectors: what IRR, ISR, TMR and a mailbox hold.

/// A set of the 256 interrupt vectors, in the bit order of the APIC's 256-bit registers.
///
/// Source: SDM 3A 11.8.4 "Interrupt Acceptance for Fixed Interrupts" (bit N stands for vector N).
#[derive(Clone, Copy, Debug, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VectorSet([u64; Self::WORDS]);

/// Without a branch, which the compiler would make a call that compares bytes one by one.
impl PartialEq for VectorSet {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |different, (a, b)| different | a ^ b) == 0
    }
}

impl VectorSet {
    /// Number of 64-bit words in [`Self::words`].
    pub const WORDS: usize = 4;

    /// The set without vectors.
    pub const EMPTY: Self = Self([0; Self::WORDS]);

    /// The set whose vector `64 * i + b` is bit `b` of `words[i]`: the layout of a posted-interrupt request field.
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        Self(words)
    }

    /// The inverse of [`Self::from_words`].
    pub const fn words(&self) -> [u64; Self::WORDS] {
        self.0
    }

    /// Adds `vector`.
    #[inline]
    pub fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector >> 6)] |= 1 << (vector & 63);
    }

    /// Takes `vector` out.
    #[inline]
    pub fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector >> 6)] &= !(1 << (vector & 63));
    }

    /// Whether `vector` is in the set.
    #[inline]
    pub fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] & 1 << (vector & 63) != 0
    }

    /// The highest vector, the one of highest priority.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        (0u8..4).rev().find_map(|index| {
            let word = self.0[usize::from(index)];
            word.checked_ilog2().map(|bit| index << 6 | (bit & 63) as u8)
        })
    }

    /// Vectors `32 * index` to `32 * index + 31`, as one of the eight 32-bit registers that a guest reads; 0 for an
    /// `index` above 7.
    pub fn register(&self, index: usize) -> u32 {
        let word = self.0.get(index / 2).copied().unwrap_or(0);
        (word >> (32 * (index & 1)) & 0xffff_ffff) as u32
    }
}
