//! Who is addressed by a message.
//!
//! Sources: SDM 3A 11.6.2 "Determining IPI Destination" and 11.12.10 "Determining IPI Destination in x2APIC Mode".

use core::sync::atomic::{AtomicU64, Ordering};

use arch::apic::{DeliveryMode, Message, Shorthand};
use bit_field::BitField;

use crate::identity::{Identity, Mode, logical_x2apic_id};

/// What all vCPUs of a VM published about their APICs, by vCPU index 0 to `N - 1`; `N` is at most 256.
///
/// Each vCPU's identity is one atomic word, so a reader never sees half a change. Readers take no lock.
#[derive(Debug)]
pub struct Directory<const N: usize> {
    words: [AtomicU64; N],
}

impl<const N: usize> Default for Directory<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Directory<N> {
    /// Nobody has published anything: no message reaches anyone.
    pub const fn new() -> Self {
        const { assert!(N <= TargetSet::CAPACITY, "a TargetSet has room for 256 vCPUs") };
        Self { words: [const { AtomicU64::new(0) }; N] }
    }

    /// Records what vCPU `index` published. An index from `N` up has no place and is ignored.
    pub fn publish(&self, index: usize, identity: Identity) {
        if let Some(word) = self.words.get(index) {
            word.store(pack(identity), Ordering::Release);
        }
    }

    /// What vCPU `index` published last; a disabled APIC if nothing.
    pub fn identity(&self, index: usize) -> Identity {
        unpack(self.words.get(index).map_or(0, |word| word.load(Ordering::Acquire)))
    }

    /// Whether vCPU `index` shares its APIC id with another: a message to that id then reaches both. Disabled APICs have none.
    pub fn is_aliased(&self, index: usize) -> bool {
        let own = self.identity(index);
        let is_same = |other: Identity| other.mode != Mode::Disabled && other.id == own.id;
        own.mode != Mode::Disabled && (0..N).any(|other| other != index && is_same(self.identity(other)))
    }

    /// The vCPUs that `message` reaches. `from` is the sender of an IPI, `None` for an IOAPIC or MSI; without it,
    /// the shorthand for "myself" reaches nobody.
    ///
    /// A globally disabled APIC receives nothing. Where two vCPUs share an id, both are reached. A lowest-priority
    /// message goes to one of the enabled APICs addressed: the one of lowest task priority, the lowest index of equals. `priority`
    /// knows it better than [`Identity::priority`] where a guest changes it unnoticed.
    pub fn targets(&self, message: &Message, from: Option<usize>, priority: impl Fn(usize) -> Option<u8>) -> TargetSet {
        let mut targets = TargetSet::EMPTY;
        let mut lowest: Option<(u8, usize)> = None;
        for (index, word) in self.words.iter().enumerate() {
            let identity = unpack(word.load(Ordering::Acquire));
            if identity.mode == Mode::Disabled || !addresses(message, &identity, from == Some(index)) {
                continue;
            }
            if message.mode != DeliveryMode::LowestPriority {
                targets.insert(index);
            } else if identity.software_enabled {
                let own = priority(index).unwrap_or(identity.priority);
                if lowest.is_none_or(|(least, _)| own < least) {
                    lowest = Some((own, index));
                }
            }
        }
        if let Some((_, index)) = lowest {
            targets.insert(index);
        }
        targets
    }
}

fn addresses(message: &Message, identity: &Identity, is_sender: bool) -> bool {
    match message.shorthand {
        Shorthand::Myself => is_sender,
        Shorthand::AllIncludingSelf => true,
        Shorthand::AllExcludingSelf => !is_sender,
        Shorthand::None if is_broadcast(message) => true,
        Shorthand::None if message.logical => matches_logical(message.destination, identity),
        Shorthand::None => message.destination == identity.id,
    }
}

/// All ones in the width of the destination, in physical and in logical mode.
fn is_broadcast(message: &Message) -> bool {
    message.destination == if message.xapic_destination { 0xff } else { u32::MAX }
}

fn matches_logical(destination: u32, identity: &Identity) -> bool {
    let logical_id = u32::from(identity.logical_id);
    match identity.mode {
        Mode::Disabled => false,
        Mode::X2apic => {
            let own = logical_x2apic_id(identity.id);
            destination >> 16 == own >> 16 && destination & own & 0xffff != 0
        }
        // A destination beyond 8 bits comes from an x2APIC and names no xAPIC.
        Mode::Xapic if destination > 0xff => false,
        Mode::Xapic if identity.cluster => destination >> 4 == logical_id >> 4 && destination & logical_id & 0xf != 0,
        Mode::Xapic => destination & logical_id != 0,
    }
}

/// An identity in 64 bits; a disabled APIC with id 0 is 0.
fn pack(identity: Identity) -> u64 {
    let mut word = u64::from(identity.id);
    word.set_bits(32..40, u64::from(identity.logical_id))
        .set_bits(40..48, u64::from(identity.priority))
        .set_bits(48..50, identity.mode as u64)
        .set_bit(50, identity.cluster)
        .set_bit(51, identity.software_enabled);
    word
}

fn unpack(word: u64) -> Identity {
    Identity {
        id: (word & 0xffff_ffff) as u32,
        logical_id: (word >> 32 & 0xff) as u8,
        priority: (word >> 40 & 0xff) as u8,
        mode: match word.get_bits(48..50) {
            1 => Mode::Xapic,
            2 => Mode::X2apic,
            _ => Mode::Disabled,
        },
        cluster: word.get_bit(50),
        software_enabled: word.get_bit(51),
    }
}

/// A set of vCPUs by index, 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TargetSet([u64; 4]);

impl TargetSet {
    /// How many vCPUs it has room for.
    pub const CAPACITY: usize = 256;

    /// Nobody.
    pub const EMPTY: Self = Self([0; 4]);

    /// Adds vCPU `index`; ignored from [`Self::CAPACITY`] up.
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Whether vCPU `index` is in the set.
    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// The vCPUs in the set, lowest index first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(index, word)| {
            core::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)))
                .take_while(|&word| word != 0)
                .map(move |word| index * 64 + word.trailing_zeros() as usize)
        })
    }
}
