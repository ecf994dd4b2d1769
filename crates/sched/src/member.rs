//! A vCPU as the run queues know it.

/// vCPUs of the whole machine at most: their numbers are bits of a word.
pub const MAX_VCPUS: usize = 64;
/// Processors at most, for the same reason.
pub const MAX_PROCESSORS: usize = 64;
/// The greatest weight; the least is 1.
pub const MAX_WEIGHT: u32 = 1000;

/// A set of processors, or of vCPUs, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Set(pub u64);

impl Set {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everybody.
    pub const ALL: Self = Self(u64::MAX);

    /// The numbers from 0 up to `count`, at most 64.
    #[must_use]
    pub const fn first(count: u32) -> Self {
        Self(if count < 64 { (1 << count) - 1 } else { u64::MAX })
    }

    /// Whether `number`, below 64, is in it.
    #[inline]
    #[must_use]
    pub const fn has(self, number: u16) -> bool {
        self.0 & bit(number) != 0
    }

    /// The members, least first.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let number = u16::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
            left &= left - 1;
            Some(number)
        })
    }
}

#[inline]
pub(crate) const fn bit(number: u16) -> u64 {
    1 << (number & 63)
}

/// A vCPU, and what it may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Member {
    /// Its number on the machine, below [`MAX_VCPUS`].
    pub vcpu: u16,
    /// Its virtual machine: within one, a vCPU that spins lends its time.
    pub vm: u16,
    /// Its share against the others', from 1 to [`MAX_WEIGHT`]. Always the same.
    pub weight: u32,
    /// The processors on which it may run.
    pub allowed: Set,
}

/// What a vCPU is up to, apart from whether it is the one on the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum State {
    /// It could run, or is running.
    Ready,
    /// It waits for an interrupt.
    Halted,
    /// It waits for a start-up IPI.
    WaitsForSipi,
    /// It never runs again; wakes do not reach it.
    Stopped,
}

/// What became of a vCPU so far. Times in TSC ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counters {
    /// It had a processor.
    pub ran: u64,
    /// It was ready and had none.
    pub waited: u64,
    /// It was made ready so often.
    pub wakes: u64,
    /// From a wake until it ran, all of them.
    pub wake_latency: u64,
    /// The longest of these.
    pub longest_wake: u64,
    /// It got a processor from somebody else, or from nobody.
    pub switches: u64,
    /// It came from another processor.
    pub migrations: u64,
}

/// A vCPU on its way from one processor to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "nobody runs it until it is added to a queue"]
pub struct Migrant {
    /// Who.
    pub member: Member,
    /// Its past.
    pub counters: Counters,
    /// When it was woken, if it has not run since.
    pub woken_at: Option<u64>,
}

/// A number below 256 that is known to be one.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "it is below 256")]
pub(crate) const fn small(number: usize) -> u8 {
    (number % 256) as u8
}
