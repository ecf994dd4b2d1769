//! The log kept in memory over a warm reset: what a run sent, for the next one to send again if this one did not end.
//!
//! Two halves of its memory take turns, so that the earlier run's log lies still while it is sent. Neither firmware nor boot
//! loader promises to leave the memory alone: a checksum says whether they did.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use arch::HostPhys;
use hw::layout;
use hw::physmem;

/// Bytes of a half, bookkeeping included.
const HALF: u64 = 32 << 10;
/// Bytes in all.
pub(crate) const BYTES: u64 = 2 * HALF;
/// Where the memory may lie; the first place counts that is RAM and holds no boot module, so that every run of a machine
/// takes the same. Neither GRUB on BIOS or UEFI nor iPXE uses them: they were seen to write below 24 MiB, and to the top of
/// the memory.
pub(crate) const PLACES: [HostPhys; 3] = [HostPhys(24 << 20), HostPhys(256 << 20), HostPhys(1 << 30)];
const TEXT: usize = 2048;
const FRAMES: usize = 28 << 10;
const MAGIC: u64 = u64::from_le_bytes(*b"NestLog1");

const _: () = assert!(size_of::<Half>() as u64 <= HALF);

#[repr(C)]
struct Half {
    magic: u64,
    /// Which image wrote it: another one's frames cannot be read.
    image: u64,
    /// Counts runs: of two good halves the later one is the last run's.
    run: u64,
    /// Whether the run came to its end.
    ended: u64,
    /// Bytes ever kept; positions are these modulo the lengths.
    text_written: u64,
    frames_written: u64,
    /// Of all bytes there are.
    sum: u64,
    text: [u8; TEXT],
    frames: [u8; FRAMES],
}

/// This run's half; null where the memory is not there.
static CURRENT: AtomicPtr<Half> = AtomicPtr::new(core::ptr::null_mut());
/// The half of a run that did not end; null when there is none.
static BEFORE: AtomicPtr<Half> = AtomicPtr::new(core::ptr::null_mut());
/// How much of it has been sent.
static SENT: AtomicU64 = AtomicU64::new(0);

/// What the run before this one left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing: the machine was off, or the memory did not last.
    Nothing,
    /// A run that ended.
    Ended,
    /// A run that did not.
    StoodStill,
}

/// Looks for the run before, and begins to keep this one's.
///
/// # Safety
/// Called once, by the boot processor, before anything is logged; `place` is one of [`PLACES`], and RAM that nobody uses.
pub(crate) unsafe fn begin(place: HostPhys) -> Before {
    let halves = [0, HALF].map(|offset| physmem::pointer::<Half>(place.add(offset)));
    let image = image_sum();
    let run = |half: *mut Half| {
        // SAFETY: the caller's promise; any bytes are a `Half`.
        let half = unsafe { &*half };
        half.is_good(image).then_some(half.run)
    };
    let [first, second] = halves.map(run);
    let (before, current) = if first >= second { (halves[0], halves[1]) } else { (halves[1], halves[0]) };
    let last = first.max(second);
    // SAFETY: the caller's promise: nobody else looks at it, and `before` is the other half.
    unsafe { current.write_bytes(0, 1) };
    // SAFETY: as above; zeros are a `Half`.
    let half = unsafe { &mut *current };
    (half.magic, half.image, half.run) = (MAGIC, image, last.unwrap_or(0) + 1);
    CURRENT.store(current, Ordering::Release);
    if last.is_none() {
        return Before::Nothing;
    }
    // SAFETY: it is good, and nobody writes to it.
    if unsafe { (*before).ended } != 0 {
        return Before::Ended;
    }
    BEFORE.store(before, Ordering::Release);
    Before::StoodStill
}

/// A number that another image would hardly have: its code and constants, texts of the log aside.
fn image_sum() -> u64 {
    let start = layout::image_start_address();
    // SAFETY: the image lies there, and this part of it is never written.
    let bytes = unsafe { physmem::bytes(start, layout::rodata_end_address().0 - start.0) };
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |sum: u64, word| sum.rotate_left(5).wrapping_add(u64::from_le_bytes(*word)))
}

impl Half {
    fn is_good(&self, image: u64) -> bool {
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        self.magic == MAGIC && self.image == image && self.sum == sum(&self.text) + sum(&self.frames)
    }
}

/// Puts a byte into a ring that begins at its oldest byte.
fn put(ring: &mut [u8], written: &mut u64, sum: &mut u64, byte: u8) {
    let at = usize::try_from(*written % ring.len() as u64).unwrap_or_default();
    *sum = sum.wrapping_add(u64::from(byte)).wrapping_sub(u64::from(ring[at]));
    ring[at] = byte;
    *written += 1;
}

/// Calls `with` with this run's half. Callers hold the lock of the lines.
fn current(with: impl FnOnce(&mut Half)) {
    let half = CURRENT.load(Ordering::Acquire);
    if !half.is_null() {
        // SAFETY: this run's half is reached from here only, under the lock of the lines.
        with(unsafe { &mut *half });
    }
}

/// Keeps a byte of the log's frames.
pub(crate) fn keep_frame(byte: u8) {
    current(|half| put(&mut half.frames, &mut half.frames_written, &mut half.sum, byte));
}

/// Keeps plain text.
pub(crate) fn keep_text(text: &str) {
    current(|half| {
        text.bytes().for_each(|byte| put(&mut half.text, &mut half.text_written, &mut half.sum, byte));
    });
}

/// Notes that the run has come to its end.
pub(crate) fn ended() {
    current(|half| half.ended = 1);
}

/// The half of a run that did not end.
fn before() -> Option<&'static Half> {
    // SAFETY: nobody writes to the half of the run before.
    unsafe { BEFORE.load(Ordering::Acquire).as_ref() }
}

/// The next byte of the run before, until all has been taken. Callers hold the lock of the lines.
pub(crate) fn next_before() -> Option<u8> {
    let half = before()?;
    let sent = SENT.load(Ordering::Relaxed);
    let kept = half.frames_written.min(FRAMES as u64);
    let first = half.frames_written - kept;
    if sent > kept {
        return None;
    }
    SENT.store(sent + 1, Ordering::Relaxed);
    if sent == kept {
        // Its last frame may have been cut.
        return Some(0);
    }
    Some(half.frames[usize::try_from((first + sent) % FRAMES as u64).unwrap_or_default()])
}

/// Calls `show` with the last plain text of the run before, if that did not end.
pub(crate) fn text_before(mut show: impl FnMut(u8)) {
    let Some(half) = before() else { return };
    let kept = half.text_written.min(TEXT as u64);
    for at in half.text_written - kept..half.text_written {
        show(half.text[usize::try_from(at % TEXT as u64).unwrap_or_default()]);
    }
}
