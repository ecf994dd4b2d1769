//! Pages for what the processor wants in pages of their own: VMXON regions, VMCSs, bitmaps, tables.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many there are.
const COUNT: usize = 512;

#[repr(align(4096))]
struct Page {
    _words: [AtomicU64; 512],
}

static PAGES: [Page; COUNT] = [const { Page { _words: [const { AtomicU64::new(0) }; 512] } }; COUNT];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The address of a page of zeros that nobody else has. None comes back.
pub fn take() -> u64 {
    take_several(1)
}

/// The address of the first of `count` pages in a row.
pub fn take_several(count: usize) -> u64 {
    let first = TAKEN.fetch_add(count, Ordering::Relaxed);
    assert!(first + count <= COUNT, "no pages left");
    &raw const PAGES[first] as u64
}
