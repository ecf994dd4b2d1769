//! Stacks of each processor, a guard page under each: an overflow is a fault, not a corruption of something else.
//!
//! ```text
//! slot of a processor, 128 KiB:   guard | main 48 KiB | guard | NMI 4 KiB | guard | double fault 8 KiB | guard | machine check 8 KiB
//! ```

use arch::PAGE_SIZE;

use crate::frames::Frames;
use crate::layout::{self, MAX_PROCESSORS, STACKS};
use crate::paging::{OutOfFrames, PageTables, Use};

const SLOT: u64 = 128 << 10;
/// Making a vCPU with its VMX takes most of it.
const MAIN: u64 = 48 << 10;
/// The handler counts and returns.
const NMI: u64 = 4 << 10;
/// These two end the run with a dump, which needs room.
const FATAL: u64 = 8 << 10;
const _: () = assert!(MAIN + NMI + 2 * FATAL + 4 * PAGE_SIZE <= SLOT);

/// Bytes of RAM that one processor's stacks take.
pub const BYTES: u64 = MAIN + NMI + 2 * FATAL;

/// Where a processor's stacks begin: their highest addresses, for they grow down.
#[derive(Clone, Copy, Debug)]
pub struct Stacks {
    /// Everything but what follows.
    pub main_top: u64,
    /// Non-maskable interrupts.
    pub nmi_top: u64,
    /// Double faults.
    pub double_fault_top: u64,
    /// Machine checks.
    pub machine_check_top: u64,
}

impl Stacks {
    /// Makes the stacks of processor `number`; `main_top` is the main stack of one that has it already.
    pub fn new(
        tables: &mut PageTables,
        frames: &mut Frames,
        number: u32,
        main_top: Option<u64>,
    ) -> Result<Self, OutOfFrames> {
        let mut next = STACKS + u64::from(number) * SLOT;
        let mut stack = |bytes: u64, existing: Option<u64>| {
            let bottom = next + PAGE_SIZE;
            next = bottom + bytes;
            if let Some(top) = existing {
                return Ok(top);
            }
            let memory = frames.allocate(bytes, PAGE_SIZE).ok_or(OutOfFrames)?;
            tables.map(frames, bottom, memory, bytes, Use::Data)?;
            Ok(next)
        };
        Ok(Self {
            main_top: stack(MAIN, main_top)?,
            nmi_top: stack(NMI, None)?,
            double_fault_top: stack(FATAL, None)?,
            machine_check_top: stack(FATAL, None)?,
        })
    }
}

/// Whether `linear` lies in a guard page: what an access beyond the end of a stack hits.
#[must_use]
pub fn is_guard(linear: u64) -> bool {
    let boot_guard = layout::boot_stack_guard_address().0;
    if (boot_guard..boot_guard + PAGE_SIZE).contains(&linear) {
        return true;
    }
    let Some(offset) = linear.checked_sub(STACKS).filter(|offset| *offset < SLOT * MAX_PROCESSORS as u64) else {
        return false;
    };
    let mut guard = 0;
    [MAIN, NMI, FATAL, FATAL].iter().any(|bytes| {
        let hit = (guard..guard + PAGE_SIZE).contains(&(offset % SLOT));
        guard += PAGE_SIZE + bytes;
        hit
    })
}
