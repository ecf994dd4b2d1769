//! The log: defmt frames in a ring for each processor, drained by [`crate::console::pump`].
//!
//! Writing a message never waits: it goes into the processor's own ring, and becomes visible to the reader when it is
//! complete. A message that does not fit is dropped as a whole and counted; the reader reports the count.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use hw::layout::MAX_PROCESSORS;
use hw::{percpu, tsc};

/// Bytes of a ring, with its bookkeeping a page.
const BYTES: usize = 4096 - 64;

/// One processor's messages, waiting to be sent. Written by its processor, read by whoever holds the drain.
pub(crate) struct Ring {
    bytes: UnsafeCell<[u8; BYTES]>,
    /// Bytes ever written in complete frames, and bytes ever read; positions are these modulo the ring's length.
    written: AtomicUsize,
    read: AtomicUsize,
    lost: AtomicU32,
    frame: UnsafeCell<Frame>,
}

/// The frame that its processor is writing.
struct Frame {
    encoder: defmt::Encoder,
    /// Bytes written with those of this frame.
    end: usize,
    /// How many messages are open: an NMI can come while one is written. Only the outermost is kept.
    depth: u32,
    overflow: bool,
}

// SAFETY: `frame` and the bytes behind `written` belong to the ring's processor, the bytes from `read` to `written` to the
// holder of the drain's lock; the two counters hand bytes over with release and acquire.
unsafe impl Sync for Ring {}

impl Ring {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: UnsafeCell::new([0; BYTES]),
            written: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            lost: AtomicU32::new(0),
            frame: UnsafeCell::new(Frame { encoder: defmt::Encoder::new(), end: 0, depth: 0, overflow: false }),
        }
    }

    /// The oldest byte that has not been read. Called by the holder of the drain's lock.
    pub(crate) fn pop(&self) -> Option<u8> {
        let read = self.read.load(Ordering::Relaxed);
        if read == self.written.load(Ordering::Acquire) {
            return None;
        }
        let at = self.bytes.get().cast::<u8>().wrapping_add(read % BYTES);
        // SAFETY: the byte lies in the ring, and between `read` and `written` only the reader looks.
        let byte = unsafe { at.read() };
        self.read.store(read.wrapping_add(1), Ordering::Release);
        Some(byte)
    }

    /// Whether there is something to read.
    pub(crate) fn has_bytes(&self) -> bool {
        self.read.load(Ordering::Relaxed) != self.written.load(Ordering::Acquire)
    }

    /// Messages dropped since this was last asked.
    pub(crate) fn take_lost(&self) -> u32 {
        if self.lost.load(Ordering::Relaxed) == 0 { 0 } else { self.lost.swap(0, Ordering::Relaxed) }
    }

    /// Bytes that a frame begun now would find.
    pub(crate) fn room(&self) -> usize {
        BYTES - self.written.load(Ordering::Relaxed).wrapping_sub(self.read.load(Ordering::Acquire))
    }

    fn put(&self, end: &mut usize, overflow: &mut bool, bytes: &[u8]) {
        for &byte in bytes {
            if end.wrapping_sub(self.read.load(Ordering::Acquire)) >= BYTES {
                *overflow = true;
                return;
            }
            let at = self.bytes.get().cast::<u8>().wrapping_add(*end % BYTES);
            // SAFETY: the byte lies in the ring, and from `written` to a ring's length behind `read` only the writer looks.
            unsafe { at.write(byte) };
            *end = end.wrapping_add(1);
        }
    }
}

/// The boot processor's ring: it logs before there is an allocator.
static BOOT_RING: Ring = Ring::new();

static RINGS: [AtomicPtr<Ring>; MAX_PROCESSORS] = {
    let mut rings = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_PROCESSORS];
    rings[0] = AtomicPtr::new((&raw const BOOT_RING).cast_mut());
    rings
};

/// Processors from this number on have no ring.
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// All rings, with their processors' numbers.
pub(crate) fn rings() -> impl Iterator<Item = (usize, &'static Ring)> + Clone {
    (0..COUNT.load(Ordering::Acquire)).filter_map(|number| Some((number, ring(number)?)))
}

/// The ring of processor `number`, if it has one.
pub(crate) fn ring(number: usize) -> Option<&'static Ring> {
    let ring = RINGS.get(number)?.load(Ordering::Acquire);
    // SAFETY: what is stored came from a `&'static Ring`.
    unsafe { ring.as_ref() }
}

/// Gives processor `number` its ring, before it starts.
pub(crate) fn set_ring(number: u32, ring: &'static Ring) {
    if let Some(slot) = RINGS.get(number as usize) {
        slot.store(core::ptr::from_ref(ring).cast_mut(), Ordering::Release);
        COUNT.fetch_max(number as usize + 1, Ordering::Release);
    }
}

/// Drops what this processor was writing: a panic came in the middle of it, and wants to speak.
pub(crate) fn abandon_frame() {
    if let Some(ring) = ring(percpu::number() as usize) {
        // SAFETY: the frame belongs to this processor, and whoever was writing it never comes back.
        let frame = unsafe { &mut *ring.frame.get() };
        frame.depth = 0;
        frame.encoder = defmt::Encoder::new();
    }
}

#[defmt::global_logger]
struct Logger;

/// Calls `with` with this processor's ring and the frame it writes.
fn with_frame(with: impl FnOnce(&Ring, &mut Frame)) {
    if let Some(ring) = ring(percpu::number() as usize) {
        // SAFETY: the frame belongs to this processor, and interrupt handlers touch it only between two of these calls: an
        // NMI's handler does not log.
        with(ring, unsafe { &mut *ring.frame.get() });
    }
}

// SAFETY: each processor has its own ring and frame, so no two writers meet; a message within a message is left out.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        with_frame(|ring, frame| {
            frame.depth += 1;
            if frame.depth != 1 {
                ring.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            frame.end = ring.written.load(Ordering::Relaxed);
            frame.overflow = false;
            let Frame { encoder, end, overflow, .. } = frame;
            encoder.start_frame(|bytes| ring.put(end, overflow, bytes));
        });
    }

    unsafe fn flush() {
        crate::console::flush();
    }

    unsafe fn release() {
        with_frame(|ring, frame| {
            if frame.depth == 1 {
                let Frame { encoder, end, overflow, .. } = frame;
                encoder.end_frame(|bytes| ring.put(end, overflow, bytes));
                if *overflow {
                    ring.lost.fetch_add(1, Ordering::Relaxed);
                } else {
                    ring.written.store(*end, Ordering::Release);
                }
            }
            frame.depth = frame.depth.saturating_sub(1);
        });
    }

    unsafe fn write(bytes: &[u8]) {
        with_frame(|ring, frame| {
            if frame.depth == 1 {
                let Frame { encoder, end, overflow, .. } = frame;
                encoder.write(bytes, |bytes| ring.put(end, overflow, bytes));
            }
        });
    }
}

defmt::timestamp!("{=u64:us} cpu{=u32}", tsc::micros(), percpu::number());
