//! What other processors post to a vCPU, without a lock.
//!
//! The first 64 bytes are laid out as a posted-interrupt descriptor (SDM 3C "Posted-Interrupt Processing", table
//! "Format of Posted-Interrupt Descriptor"): 256 request bits, then a word whose bit 0 is the outstanding-notification
//! bit. Processors change nothing else of that word. Its other bits used here are ones that neither processors nor
//! remapping hardware use, so one load tells whether anything at all is waiting.
//!
//! Level-triggered vectors have bits of their own: their trigger mode must go to TMR with them, which a
//! posted-interrupt descriptor cannot say, and one bit that says both cannot be taken halfway.
//!
//! # Ordering
//!
//! A poster sets its bit first and then the control word's; the owner clears the control word first and then takes
//! the bits. The read-modify-writes of the control word are totally ordered. If a poster found it set, the owner's
//! clearing comes later and sees the poster's bit; if not, the poster made it set again and reports that the target
//! must be kicked. So no post is lost; a control word that announces nothing is possible and harmless. The control
//! word is accessed sequentially consistently, which x86 gives for nothing with locked instructions, so that a target
//! may also announce that it goes to sleep and then look here once more.

use core::sync::atomic::{AtomicU64, Ordering};

use arch::apic::{DeliveryMode, Message};

use crate::events::Events;
use crate::priority::FIRST_VECTOR;
use crate::vectors::VectorSet;

/// Outstanding notification: request bits may be set.
const NOTIFICATION: u64 = 1 << 0;
const NMI: u64 = 1 << 2;
const INIT: u64 = 1 << 3;
const STARTUP: u64 = 1 << 4;
const SMI: u64 = 1 << 5;
const EXTINT: u64 = 1 << 6;
const LEVEL: u64 = 1 << 7;
/// Lowest of the eight bits of the start-up vector.
const STARTUP_VECTOR: u32 = 8;
const ILLEGAL_VECTOR: u64 = 1 << 24;
/// Everything above, but for the outstanding notification all that a processor does not take in by itself.
const MAIL: u64 = NOTIFICATION | NMI | INIT | STARTUP | SMI | EXTINT | LEVEL | 0xff << STARTUP_VECTOR | ILLEGAL_VECTOR;
/// A notification for the vCPU's own guest. The processor may have acted on it already, so it says nothing about whether the
/// target has been told of anything else.
const FOR_L2: u64 = 1 << 25;

/// The mailbox of one vCPU: any processor posts, the processor that runs the vCPU takes.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Mailbox {
    requests: [AtomicU64; VectorSet::WORDS],
    control: AtomicU64,
    /// The vector of the notification for L2, plus 256; 0 for none.
    for_l2: AtomicU64,
    unused: [u64; 2],
    level: [AtomicU64; VectorSet::WORDS],
}

const _: () = assert!(core::mem::offset_of!(Mailbox, requests) == 0, "request bit V is bit V of the descriptor");
const _: () = assert!(core::mem::offset_of!(Mailbox, control) == 32, "the notification bit is bit 256");
const _: () = assert!(core::mem::offset_of!(Mailbox, level) == 64, "the descriptor has 64 bytes for itself");

/// What was in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Mail {
    /// Edge-triggered vectors, all 16 or above.
    pub edge: VectorSet,
    /// Level-triggered vectors, all 16 or above.
    pub level: VectorSet,
    /// Everything else that reaches the processor.
    pub events: Events,
    /// A vector below 16 was posted.
    pub illegal_vector: bool,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Mailbox {
    /// An empty mailbox.
    pub const fn new() -> Self {
        Self {
            requests: [const { AtomicU64::new(0) }; VectorSet::WORDS],
            control: AtomicU64::new(0),
            for_l2: AtomicU64::new(0),
            unused: [0; 2],
            level: [const { AtomicU64::new(0) }; VectorSet::WORDS],
        }
    }

    /// The request bits of the posted-interrupt descriptor.
    pub const fn requests(&self) -> &[AtomicU64; VectorSet::WORDS] {
        &self.requests
    }

    /// Whether nothing is waiting: one load.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.control.load(Ordering::SeqCst) & (MAIL | FOR_L2) == 0
    }

    /// Posts an interrupt. True when the target must be told (this holds for every post): when the mailbox was empty, and
    /// for what a processor does not take out of a posted-interrupt descriptor by itself also when only such interrupts
    /// waited, as the notification of these need not end the guest's run.
    /// A vector below 16 arrives as the receive-illegal-vector error.
    pub fn post(&self, vector: u8, level_triggered: bool) -> bool {
        if vector < FIRST_VECTOR {
            return self.announce(ILLEGAL_VECTOR);
        }
        let (bits, flag) = if level_triggered { (&self.level, LEVEL) } else { (&self.requests, NOTIFICATION) };
        bits[usize::from(vector >> 6)].fetch_or(1 << (vector & 63), Ordering::Release);
        self.announce(flag)
    }

    /// Posts a non-maskable interrupt.
    pub fn post_nmi(&self) -> bool {
        self.announce(NMI)
    }

    /// Posts an INIT. A start-up that still waits came before it and is void.
    pub fn post_init(&self) -> bool {
        self.change(|control| control & !(STARTUP | 0xff << STARTUP_VECTOR) | INIT)
    }

    /// Posts a start-up IPI. Of several that wait the first counts: it starts the processor, and a running processor
    /// ignores the others.
    pub fn post_startup(&self, vector: u8) -> bool {
        self.change(|control| match control & STARTUP {
            0 => control | STARTUP | u64::from(vector) << STARTUP_VECTOR,
            _ => control,
        })
    }

    /// Posts a system-management interrupt.
    pub fn post_smi(&self) -> bool {
        self.announce(SMI)
    }

    /// Posts an interrupt whose vector the PIC supplies.
    pub fn post_extint(&self) -> bool {
        self.announce(EXTINT)
    }

    /// Posts `message`, by its delivery mode. The reserved mode posts nothing and is false.
    pub fn deliver(&self, message: &Message) -> bool {
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => self.post(message.vector, message.level_triggered),
            DeliveryMode::Smi => self.post_smi(),
            DeliveryMode::Reserved => false,
            DeliveryMode::Nmi => self.post_nmi(),
            DeliveryMode::Init => self.post_init(),
            DeliveryMode::StartUp => self.post_startup(message.vector),
            DeliveryMode::ExtInt => self.post_extint(),
        }
    }

    /// Posts the interrupt that tells the target's L2 of interrupts posted to it. The target must be told each time. False if
    /// another such vector waits: this one is then an interrupt like others.
    pub fn post_for_l2(&self, vector: u8) -> bool {
        let value = 1 << 8 | u64::from(vector);
        let before = self.for_l2.compare_exchange(0, value, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|it| it);
        if before != 0 && before != value {
            return false;
        }
        self.control.fetch_or(FOR_L2, Ordering::SeqCst);
        true
    }

    /// Takes what [`Self::post_for_l2`] posted. Only the processor that runs the vCPU calls it.
    #[inline(always)]
    pub fn take_for_l2(&self) -> Option<u8> {
        if self.control.load(Ordering::SeqCst) & FOR_L2 == 0 { None } else { self.take_vector_for_l2() }
    }

    #[inline(never)]
    fn take_vector_for_l2(&self) -> Option<u8> {
        self.control.fetch_and(!FOR_L2, Ordering::SeqCst);
        let [vector, is_there, ..] = self.for_l2.swap(0, Ordering::SeqCst).to_le_bytes();
        (is_there != 0).then_some(vector)
    }

    /// Empties the mailbox, but for the notification of L2. Only the processor that runs the vCPU calls it.
    pub fn take(&self) -> Mail {
        let control = self.control.fetch_and(!MAIL, Ordering::SeqCst);
        let startup = (control & STARTUP != 0).then_some((control >> STARTUP_VECTOR & 0xff) as u8);
        Mail {
            edge: take_bits(&self.requests, control & NOTIFICATION != 0),
            level: take_bits(&self.level, control & LEVEL != 0),
            events: Events {
                nmi: control & NMI != 0,
                init: control & INIT != 0,
                startup,
                smi: control & SMI != 0,
                extint: control & EXTINT != 0,
            },
            illegal_vector: control & ILLEGAL_VECTOR != 0,
        }
    }

    fn announce(&self, flag: u64) -> bool {
        must_tell(self.control.fetch_or(flag, Ordering::SeqCst), flag)
    }

    fn change(&self, change: impl Fn(u64) -> u64) -> bool {
        let mut seen = self.control.load(Ordering::SeqCst);
        loop {
            match self.control.compare_exchange_weak(seen, change(seen), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return must_tell(seen, INIT),
                Err(current) => seen = current,
            }
        }
    }
}

/// Whether the target must be told of `flag`, with the control word as it was `before`.
const fn must_tell(before: u64, flag: u64) -> bool {
    let told = if flag == NOTIFICATION { MAIL } else { MAIL & !NOTIFICATION };
    before & told == 0
}

/// Takes all bits, if there may be any: four exchanges are dear on a path that mostly carries one kind.
fn take_bits(bits: &[AtomicU64; VectorSet::WORDS], announced: bool) -> VectorSet {
    let mut words = [0; VectorSet::WORDS];
    if announced {
        for (word, bits) in words.iter_mut().zip(bits) {
            // A plain load is enough to pass over an empty word: a bit that comes later announces itself again.
            if bits.load(Ordering::Relaxed) != 0 {
                *word = bits.swap(0, Ordering::AcqRel);
            }
        }
    }
    VectorSet::from_words(words)
}
