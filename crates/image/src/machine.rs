//! The boot processor's part of bring-up: what the machine is, its memory, page tables, and the other processors.

use core::sync::atomic::{AtomicU64, Ordering};

use arch::{HostPhys, PAGE_SIZE};
use boot::acpi::PmTimer;
use boot::memory::LOW_MEMORY_END;
use boot::{BootError, BootInfo, FreeMemory, MemoryKind, MemoryMap, PhysMemory};
use config::{SelfTest, SerialPort};
use hw::framebuffer::{self, Framebuffer};
use hw::frames::{FRAMES, Frames, PAGE_1G};
use hw::layout::{self, DIRECT_MAP, DIRECT_MAP_BYTES, MAX_PROCESSORS};
use hw::paging::{OutOfFrames, PageTables, REACHABLE_AT_BOOT, Use};
use hw::physmem::{self, AtBoot};
use hw::stacks::Stacks;
use hw::{apic, control, cpuid, gdt, msr, percpu, smp, tsc};
use vmcs::Capabilities;

use crate::end::refuse;
use crate::kept;
use crate::log::{self, Ring};
use crate::run;

/// What the rest of the image needs to know of the machine.
pub(crate) struct Machine {
    /// What the boot loader told.
    pub(crate) boot: BootInfo,
    /// VMX of the boot processor; the others have the same.
    pub(crate) capabilities: Capabilities,
    /// The command line says that the machine is Bochs (`end=bochs`).
    pub(crate) on_bochs: bool,
    /// Serial ports that L0 uses itself.
    pub(crate) ports: [Option<SerialPort>; 2],
    /// VMCS shadowing is to be used where the processors have it.
    pub(crate) vmcs_shadowing: bool,
    /// The processors are to help the guests' APICs where they can.
    pub(crate) apicv: bool,
    /// Guests can change their APIC ids in xAPIC mode.
    pub(crate) writable_xapic_ids: bool,
    /// A failure on purpose.
    pub(crate) self_test: Option<SelfTest>,
    /// How many processors run, this one included: their numbers count from 0.
    pub(crate) processors: u32,
}

/// Each processor's VMXON region, by number.
static VMXON_REGIONS: [AtomicU64; MAX_PROCESSORS] = [const { AtomicU64::new(0) }; MAX_PROCESSORS];

/// Reads the loader's information. `magic` and `info` are what it left in EAX and EBX.
///
/// # Safety
/// The page tables are those of the first moments.
pub(crate) unsafe fn boot_information(magic: u32, info: u32, memory: &AtBoot) -> Result<BootInfo, BootError> {
    let at = HostPhys(u64::from(info));
    if magic == boot::MULTIBOOT2_MAGIC {
        // SAFETY: the loader left the block there, beginning with its size; the page tables show the first 4 GiB.
        let size = unsafe { physmem::pointer::<u32>(at).read_unaligned() };
        // SAFETY: as above, and nothing writes to it.
        BootInfo::from_multiboot2(unsafe { physmem::bytes(at, u64::from(size)) })
    } else if magic == boot::MULTIBOOT1_MAGIC {
        BootInfo::from_multiboot1(memory, at)
    } else {
        refuse(format_args!(
            "the boot loader is not a multiboot one (it left {magic:#x} in EAX): use GRUB, iPXE or qemu -kernel"
        ))
    }
}

/// Where the log is kept: RAM that the boot loader put nothing into.
pub(crate) fn place_of_kept_log(boot: &BootInfo) -> Option<HostPhys> {
    let map = MemoryMap::normalise(&boot.memory).ok()?;
    let is_free = |place: &HostPhys| {
        FreeMemory::of(&map, place.0..place.0 + kept::BYTES).is_ok_and(|mut free| {
            boot.modules.iter().all(|module| free.reserve(module.start, module.len).is_ok())
                && free.total() == kept::BYTES
        })
    };
    kept::PLACES.into_iter().find(is_free)
}

/// Finds out what of the memory is free, and hands that to the frame allocator.
pub(crate) fn take_memory(boot: &BootInfo, map: &MemoryMap, kept: Option<HostPhys>) -> Result<(), BootError> {
    let mut free = FreeMemory::of(map, LOW_MEMORY_END..DIRECT_MAP_BYTES)?;
    let image = layout::image_start_address();
    free.reserve(image, layout::image_end_address().0 - image.0)?;
    if let Some(place) = kept {
        free.reserve(place, kept::BYTES)?;
    }
    for module in &boot.modules {
        free.reserve(module.start, module.len)?;
    }
    // SAFETY: the firmware says that it is RAM, and image and modules are taken out. The direct map shows all of it once the
    // page tables are loaded; until then, page tables come from below 4 GiB, which the first ones show.
    unsafe { FRAMES.lock().take_over(free) };
    Ok(())
}

/// Builds L0's page tables and goes over to them, to this processor's descriptor tables and to its stacks for NMI, double
/// fault and machine check.
///
/// # Safety
/// Called once, by the boot processor, on the boot stack.
pub(crate) unsafe fn own_page_tables(
    map: &MemoryMap,
    screen: Option<(HostPhys, u64)>,
) -> Result<PageTables, OutOfFrames> {
    let mut frames = FRAMES.lock();
    let mut tables = PageTables::new(&mut frames)?;
    map_image(&mut tables, &mut frames)?;
    for range in map.ranges() {
        if matches!(range.kind, MemoryKind::Usable | MemoryKind::AcpiReclaimable | MemoryKind::AcpiNvs) {
            map_ram(&mut tables, &mut frames, range.start.0, range.start.0 + range.len)?;
        }
    }
    if let Some((start, bytes)) = screen {
        tables.map(&mut frames, DIRECT_MAP + start.0, start, bytes, Use::Device)?;
    }
    if !cpuid::has_x2apic() {
        let page = apic::register_page();
        tables.map(&mut frames, DIRECT_MAP + page.0, page, PAGE_SIZE, Use::Device)?;
    }
    let stacks = Stacks::new(&mut tables, &mut frames, 0, Some(layout::boot_stack_top_address().0))?;
    let efer = control::efer() | arch::control::Efer::NXE;
    // SAFETY: the processor has execute-disable pages, which was checked; the tables in force do not use the bit.
    unsafe { msr::write(arch::Msr::EFER, efer.bits()) };
    // SAFETY: image, boot stack and RAM are mapped as they are in use.
    unsafe { tables.load() };
    // SAFETY: the boot processor's data was installed; the stacks are its own.
    unsafe { gdt::load(&stacks) };
    Ok(tables)
}

/// The image at its physical address, each part with its rights; the page under the boot stack stays out.
fn map_image(tables: &mut PageTables, frames: &mut Frames) -> Result<(), OutOfFrames> {
    let parts = [
        (layout::image_start_address(), layout::text_end_address(), Use::Code),
        (layout::text_end_address(), layout::rodata_end_address(), Use::ReadOnly),
        (layout::rodata_end_address(), layout::boot_stack_guard_address(), Use::Data),
        (layout::boot_stack_bottom_address(), layout::image_end_address(), Use::Data),
    ];
    parts.into_iter().try_for_each(|(start, end, usage)| tables.map(frames, start.0, start, end.0 - start.0, usage))
}

/// RAM in the direct map, but for the image.
fn map_ram(tables: &mut PageTables, frames: &mut Frames, start: u64, end: u64) -> Result<(), OutOfFrames> {
    let (image_start, image_end) = (layout::image_start_address().0, layout::image_end_address().0);
    let end = end.min(DIRECT_MAP_BYTES);
    for (from, to) in [(start, end.min(image_start)), (start.max(image_end), end)] {
        if from < to {
            tables.map(frames, DIRECT_MAP + from, HostPhys(from), to - from, Use::Data)?;
        }
    }
    Ok(())
}

/// Starts the processors with these APIC ids, this one being among them, at most `limit`. Returns how many run.
///
/// # Safety
/// Called once, by the boot processor, which has its own tables and is in VMX root operation.
pub(crate) unsafe fn start_processors(
    tables: &mut PageTables,
    map: &MemoryMap,
    apic_ids: impl Iterator<Item = u32>,
    limit: usize,
) -> u32 {
    let low = FreeMemory::of(map, PAGE_SIZE..LOW_MEMORY_END).ok();
    let Some(page) = low.and_then(|mut low| low.carve(PAGE_SIZE, PAGE_SIZE, 0..0xa_0000)) else {
        defmt::warn!("no memory below 640 KiB is free: the other processors stay off");
        return 1;
    };
    let mut next = 1;
    for apic_id in apic_ids.filter(|id| *id != percpu::this().apic_id()).take(limit.min(MAX_PROCESSORS) - 1) {
        let Ok(prepared) = prepare(tables, next, apic_id) else {
            refuse(format_args!("too little memory: there is none for the stacks of processor {next}"))
        };
        // SAFETY: the page is free RAM, the processor has not run anything of L0, and they come one after the other.
        if unsafe { smp::start(prepared, page, run::processor_main) } {
            next += 1;
        } else {
            // It may still come up and use its number: the next one gets another.
            defmt::warn!("the processor with APIC id {=u32:#x} did not start within a second: it is left out", apic_id);
            break;
        }
    }
    next
}

/// Memory of the processor `number`.
fn prepare(tables: &mut PageTables, number: u32, apic_id: u32) -> Result<smp::Prepared, OutOfFrames> {
    let mut frames = FRAMES.lock();
    let prepared = smp::prepare(tables, &mut frames, number, apic_id)?;
    let ring = frames.allocate(size_of::<Ring>() as u64, PAGE_SIZE).ok_or(OutOfFrames)?;
    let ring = physmem::pointer::<Ring>(ring);
    // SAFETY: the memory is fresh, large enough and aligned to a page.
    unsafe { ring.write(Ring::new()) };
    // SAFETY: it was just written, and nobody takes it back.
    log::set_ring(number, unsafe { &*ring });
    give_vmxon_region(number, &mut frames)?;
    Ok(prepared)
}

/// Gives processor `number` its VMXON region.
pub(crate) fn give_vmxon_region(number: u32, frames: &mut Frames) -> Result<(), OutOfFrames> {
    let region = frames.zeroed_frame().ok_or(OutOfFrames)?;
    VMXON_REGIONS[number as usize].store(region.0, Ordering::Release);
    Ok(())
}

/// Brings this processor's local APIC and VMX up; it has its own descriptor tables. Returns its VMX capabilities.
///
/// # Safety
/// Called once on each processor, after [`give_vmxon_region`] for it; on the boot processor first.
pub(crate) unsafe fn this_processor() -> Capabilities {
    // SAFETY: the IDT is loaded; the register page is mapped where there is one.
    unsafe { apic::init() };
    apic::init_timer();
    let region = HostPhys(VMXON_REGIONS[percpu::number() as usize].load(Ordering::Acquire));
    // SAFETY: the region is this processor's for good, and it is not in VMX operation yet.
    match unsafe { hw::vmx::on(region) } {
        Ok(capabilities) => {
            percpu::set_online();
            capabilities
        }
        Err(refusal) => refuse(format_args!("processor {}: {}", percpu::number(), refusal.sentence())),
    }
}

/// The screen, opened, and the memory that it needs mapped: where the boot loader says that there is one, and on a PC that
/// says nothing (`has_bios`) where the BIOS has left it in text mode.
///
/// # Safety
/// The page tables are those of the first moments.
pub(crate) unsafe fn open_screen(boot: &BootInfo, has_bios: bool, memory: &AtBoot) -> Option<(HostPhys, u64)> {
    /// The BIOS's note of the current video mode; 3 is text in colours.
    const MODE: HostPhys = HostPhys(0x449);
    let mut mode = [0];
    let mut in_text_mode = || has_bios && memory.read(MODE, &mut mode).is_ok() && mode == [3];
    let screen = boot.framebuffer.or_else(|| in_text_mode().then_some(framebuffer::TEXT_MODE))?;
    let (start, bytes) = framebuffer::pages(&screen);
    let last = start.0.checked_add(bytes)? - 1;
    let is_above = last >= REACHABLE_AT_BOOT;
    // SAFETY: the page tables are those of the first moments, and the screen's memory lies there.
    if is_above && (start.0 / PAGE_1G != last / PAGE_1G || !unsafe { hw::boot::show_gigabyte(start) }) {
        defmt::warn!("the screen's memory at {=u64:#x} is out of reach", start.0);
        return None;
    }
    // SAFETY: the boot loader or the BIOS has set it up, the page tables show it, and L0's own will.
    crate::screen::open(unsafe { Framebuffer::new(&screen) }?);
    Some((start, bytes))
}

/// Finds the frequency of the time-stamp counter; without a clock the machine is refused.
pub(crate) fn calibrate(pm_timer: Option<PmTimer>) -> (u64, tsc::Source) {
    tsc::calibrate(pm_timer).unwrap_or_else(|| {
        refuse(format_args!(
            "this machine has neither a PIT nor an ACPI timer that counts: Nestling cannot tell the time"
        ))
    })
}
