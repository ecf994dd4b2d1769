//! Where L1's RAM comes from: free memory of the machine, in as few and as large pieces as there are, mapped by EPT.

use arch::{GuestPhys, HostPhys, PAGE_SIZE};
use ept::{Ept, Invalidation, MemoryType, PageSize, Permissions};
use hw::frames::FRAMES;
use hw::physmem::Shared;
use loader::MemoryLayout;
use loader::e820::{ABOVE_4G_START, GIB, MIB, VIDEO_START};
use vmcs::{Capabilities, EptVpid};

use crate::guest::{Sentence, no_memory_for_tables, sentence};
use crate::guest_memory::GuestRam;
use crate::tables::TableFrames;

/// Where RAM goes on behind the video window.
const ROMS_START: u64 = 0xc_0000;
/// Pieces are mapped with 2-MiB pages at least.
const LARGE_PAGE: u64 = 2 * MIB;

/// A guest's memory.
pub(crate) struct Memory {
    /// Its RAM.
    pub(crate) ram: GuestRam,
    /// What maps it.
    pub(crate) ept: Ept,
    /// The same, with the APIC-access page where an APIC has its registers.
    pub(crate) ept_with_apic: Ept,
    /// The APIC-access page: never read or written, as the processor recognizes accesses by its address.
    pub(crate) apic_access: HostPhys,
    /// Bytes that the map takes.
    pub(crate) table_bytes: u64,
}

/// Takes RAM for a guest with this layout, and maps it with the largest pages there are.
pub(crate) fn make_memory(layout: &MemoryLayout, machine: &Capabilities) -> Result<Memory, Sentence> {
    let largest = if machine.ept_vpid.contains(EptVpid::PAGES_1G) { PageSize::Size1G } else { PageSize::Size2M };
    let mut tables = TableFrames::default();
    let mut ept = Ept::new(&mut tables, largest, false).ok_or_else(no_memory_for_tables)?;
    let mut ept_with_apic = Ept::new(&mut tables, largest, false).ok_or_else(no_memory_for_tables)?;
    let mut ram = GuestRam::new();
    for (start, bytes) in [(0, layout.below_4g), (ABOVE_4G_START, layout.above_4g)] {
        let (mut at, end) = (start, start + bytes);
        while at < end {
            let (host, taken) = take(end - at)?;
            // Below 1 MiB the video window is a device's; the rest is RAM, also where firmware has its tables.
            let holes = if at == 0 { [(0, VIDEO_START), (ROMS_START, taken)] } else { [(0, taken), (taken, taken)] };
            for (from, to) in holes.into_iter().filter(|(from, to)| from < to) {
                let host = host.add(from);
                // SAFETY: the frames were free RAM that the direct map shows; from here on only the guest and `GuestRam`
                // use them. All bounds are whole pages.
                let shared = unsafe { Shared::new(host, to - from) };
                ram.add(GuestPhys(at + from), shared).map_err(|_| {
                    sentence(format_args!(
                        "the machine's free memory is in too many pieces: give the guest less memory"
                    ))
                })?;
                // No processor has used these tables yet, so nothing of them is cached.
                for ept in [&mut ept, &mut ept_with_apic] {
                    let _: Invalidation = ept
                        .map(
                            &mut tables,
                            GuestPhys(at + from),
                            host,
                            to - from,
                            Permissions::all(),
                            MemoryType::WriteBack,
                        )
                        .map_err(|_| no_memory_for_tables())?;
                }
            }
            at += taken;
        }
    }
    let apic_access = FRAMES.lock().zeroed_frame().ok_or_else(no_memory_for_tables)?;
    // Not to be executed: a jump there is an EPT violation, as it is where nothing is mapped.
    let (at, data) = (GuestPhys(arch::apic::DEFAULT_BASE), Permissions::READ | Permissions::WRITE);
    let _: Invalidation = ept_with_apic
        .map(&mut tables, at, apic_access, PAGE_SIZE, data, MemoryType::WriteBack)
        .map_err(|_| no_memory_for_tables())?;
    Ok(Memory { ram, ept, ept_with_apic, apic_access, table_bytes: tables.taken() * PAGE_SIZE })
}

/// Takes `bytes`, or as much of it as there is in one piece: where it is and how long.
fn take(bytes: u64) -> Result<(HostPhys, u64), Sentence> {
    let mut frames = FRAMES.lock();
    for align in [GIB, LARGE_PAGE].into_iter().filter(|align| bytes >= *align || *align == LARGE_PAGE) {
        if let Some(host) = frames.allocate(bytes, align) {
            return Ok((host, bytes));
        }
    }
    // What remains of the largest piece behind the first boundary of a page.
    let piece = frames.largest().saturating_sub(LARGE_PAGE) & !(LARGE_PAGE - 1);
    let found = if piece == 0 { None } else { frames.allocate(piece.min(bytes), LARGE_PAGE) };
    found.map(|host| (host, piece.min(bytes))).ok_or_else(|| {
        sentence(format_args!(
            "the guest needs {} MiB of memory more than the machine has: give the guest less memory or the machine more",
            bytes.div_ceil(MIB)
        ))
    })
}
