//! Physical memory through the direct map.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use arch::{HostPhys, OutsideMemory};
use boot::{PhysMemory, Unreadable};

use crate::layout::{DIRECT_MAP, word};

/// Where the direct map shows `at`. Making the pointer is harmless; using it takes a reason why the memory is RAM
/// that the direct map shows, and whose it is.
#[inline(always)]
#[must_use]
pub const fn pointer<T>(at: HostPhys) -> *mut T {
    core::ptr::with_exposed_provenance_mut(word(DIRECT_MAP + at.0))
}

/// The physical address of what lies at `pointer` in the direct map or in the image.
#[must_use]
pub fn physical<T>(pointer: *const T) -> HostPhys {
    let linear = pointer.expose_provenance() as u64;
    HostPhys(if linear >= DIRECT_MAP { linear - DIRECT_MAP } else { linear })
}

/// Fills `bytes` from `at` on with zeros.
///
/// # Safety
/// The direct map shows the memory, and no reference to any of it exists.
pub unsafe fn zero(at: HostPhys, bytes: u64) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::write_bytes(pointer::<u8>(at), 0, word(bytes)) };
}

/// The memory as bytes that never change.
///
/// # Safety
/// The direct map shows the memory, and nobody writes to it from now on.
#[must_use]
pub unsafe fn bytes(at: HostPhys, length: u64) -> &'static [u8] {
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(pointer::<u8>(at), word(length)) }
}

/// The machine's first 4 GiB as the page tables of the first moments show them: for boot information and ACPI tables.
#[derive(Debug)]
pub struct AtBoot {
    _made_by_promise: (),
}

impl AtBoot {
    /// # Safety
    /// While the value lives, the page tables are those of [`crate::boot`], and nothing is read from it that L0 writes.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self { _made_by_promise: () }
    }
}

impl PhysMemory for AtBoot {
    fn read(&self, at: HostPhys, into: &mut [u8]) -> Result<(), Unreadable> {
        let end = at.0.checked_add(into.len() as u64).ok_or(Unreadable)?;
        if end > crate::paging::REACHABLE_AT_BOOT {
            return Err(Unreadable);
        }
        // SAFETY: the page tables show the first 4 GiB, and what firmware left there does not change.
        unsafe { copy(pointer(at), into.as_mut_ptr(), into.len()) };
        Ok(())
    }
}

/// RAM that L0 shares with a guest or a device: reached by copying only, never by reference.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    base: HostPhys,
    length: u64,
}

impl Shared {
    /// The `length` bytes from `base` on.
    ///
    /// # Safety
    /// It is RAM that the direct map shows for as long as the machine runs, and no reference to any of it exists or will: L0
    /// reaches it through values of this type only. `base` and `length` are multiples of 8.
    #[must_use]
    pub const unsafe fn new(base: HostPhys, length: u64) -> Self {
        Self { base, length }
    }

    /// First byte.
    #[must_use]
    pub const fn base(&self) -> HostPhys {
        self.base
    }

    /// Number of bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The pointer to `length` bytes at `offset`, all of them inside.
    #[inline]
    fn at(&self, offset: u64, length: usize) -> Result<*mut u8, OutsideMemory> {
        let end = offset.checked_add(length as u64).ok_or(OutsideMemory)?;
        if end > self.length { Err(OutsideMemory) } else { Ok(pointer(self.base.add(offset))) }
    }

    /// Fills `into` from `offset` on. An aligned access of 1, 2, 4 or 8 bytes is one access.
    #[inline]
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), OutsideMemory> {
        let from = self.at(offset, into.len())?;
        macro_rules! load {
            ($atomic:ty) => {{
                // SAFETY: `at` checked the bounds, the match the alignment; the memory is reached by atomics and copies only.
                let value = unsafe { <$atomic>::from_ptr(from.cast()) }.load(Ordering::Relaxed);
                into.copy_from_slice(&value.to_le_bytes());
            }};
        }
        match into.len() {
            1 => load!(AtomicU8),
            2 if from.addr() % 2 == 0 => load!(AtomicU16),
            4 if from.addr() % 4 == 0 => load!(AtomicU32),
            8 if from.addr() % 8 == 0 => load!(AtomicU64),
            // SAFETY: `at` checked the bounds, and `into` is as long.
            length => unsafe { copy(from, into.as_mut_ptr(), length) },
        }
        Ok(())
    }

    /// The aligned 64-bit word at `offset`.
    #[inline(always)]
    pub fn read_u64(&self, offset: u64) -> Result<u64, OutsideMemory> {
        self.word(offset).map(|word| word.load(Ordering::Relaxed))
    }

    /// The aligned 64-bit word at `offset`.
    #[inline(always)]
    fn word(&self, offset: u64) -> Result<&AtomicU64, OutsideMemory> {
        if offset & 7 != 0 || offset >= self.length {
            return Err(OutsideMemory);
        }
        // SAFETY: base, length and offset are multiples of 8, so that all of the word lies inside; the memory is reached by
        // atomics and copies only.
        Ok(unsafe { AtomicU64::from_ptr(pointer(self.base.add(offset))) })
    }

    /// Writes `from` to `offset`. An aligned access of 1, 2, 4 or 8 bytes is one access.
    #[inline]
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutsideMemory> {
        let to = self.at(offset, from.len())?;
        macro_rules! store {
            ($atomic:ty, $value:ty) => {{
                let mut value = [0; size_of::<$value>()];
                value.copy_from_slice(from);
                // SAFETY: `at` checked the bounds, the match the alignment; the memory is reached by atomics and copies only.
                unsafe { <$atomic>::from_ptr(to.cast()) }.store(<$value>::from_le_bytes(value), Ordering::Relaxed);
            }};
        }
        match from.len() {
            1 => store!(AtomicU8, u8),
            2 if to.addr() % 2 == 0 => store!(AtomicU16, u16),
            4 if to.addr() % 4 == 0 => store!(AtomicU32, u32),
            8 if to.addr() % 8 == 0 => store!(AtomicU64, u64),
            // SAFETY: `at` checked the bounds, and `from` is as long.
            length => unsafe { copy(from.as_ptr(), to, length) },
        }
        Ok(())
    }

    /// Fills `length` bytes from `offset` on with `byte`.
    pub fn fill(&self, offset: u64, length: u64, byte: u8) -> Result<(), OutsideMemory> {
        let to = self.at(offset, word(length))?;
        // SAFETY: `at` checked the bounds; STOSB writes those bytes and nothing else.
        unsafe {
            asm!("rep stosb", inout("rdi") to => _, inout("rcx") length => _, in("al") byte, options(nostack, preserves_flags));
        }
        Ok(())
    }

    /// The page at `offset` as words; `None` if it is not aligned or not inside.
    #[inline]
    #[must_use]
    pub fn words(&self, offset: u64) -> Option<&'static [AtomicU64; 512]> {
        let page = self.at(offset, 4096).ok()?;
        // SAFETY: `at` checked the bounds and this line the alignment; the memory is reached by atomics and copies only.
        page.addr().is_multiple_of(4096).then(|| unsafe { &*page.cast() })
    }

    /// Replaces the aligned 64-bit word at `offset` by `new` if it still is `current`; `Ok(false)` when it was not.
    #[inline]
    pub fn compare_exchange(&self, offset: u64, current: u64, new: u64) -> Result<bool, OutsideMemory> {
        Ok(self.word(offset)?.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).is_ok())
    }
}

/// Copies bytes that others may change meanwhile. In assembly because the compiler may assume of its own copies that nobody
/// does.
///
/// # Safety
/// Both ends are valid for `length` bytes; what is written to is not referenced.
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's promise; the direction flag is clear everywhere in Rust code.
    unsafe {
        asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") length => _, options(nostack, preserves_flags));
    }
}
