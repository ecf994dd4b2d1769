//! Makes a VM: memory, devices, kernel, vCPUs.

use core::fmt::Write as _;

use arch::{GuestPhys, PAGE_SIZE};
use config::{SelfTest, Vm as Description};
use devices::{Platform, PlatformConfig};
use ept::{Ept, Invalidation, MemoryType, PageSize, Permissions};
use heapless::String;
use hw::frames::FRAMES;
use hw::physmem::{self, Shared};
use loader::e820::{GIB, MIB, VIDEO_START};
use loader::{EntryState, Images, MemoryLayout, ModuleImage};
use vcpu::{Controls, FlatStart, Pages};
use vlapic::Frequencies;
use vmcs::{Capabilities, EptVpid};

use crate::guest_memory::GuestRam;
use crate::tables::TableFrames;
use crate::vm::{MAX_VCPUS, Post, Vm};

/// A sentence for the user that says why a guest cannot be made.
pub(crate) type Sentence = String<256>;

/// A VM that is ready to run, and what its vCPUs need to start.
pub(crate) struct Guest {
    /// The VM.
    pub vm: &'static Vm,
    /// How its first vCPU starts.
    pub start: FlatStart,
    /// Pages that all its VMCSs point to.
    pub pages: Pages,
    /// The controls that all its VMCSs have.
    pub controls: Controls,
    /// What this machine offers.
    pub machine: Capabilities,
    /// TSC and APIC timer.
    pub frequencies: Frequencies,
    /// Bytes of its EPT.
    pub table_bytes: u64,
    /// A failure on purpose.
    pub self_test: Option<SelfTest>,
    /// The processors that share its vCPUs: numbers 0 up to this.
    pub processors: u32,
}

/// The legacy region that is no RAM: video memory up to the option ROMs.
const ROMS_START: u64 = 0xc_0000;

/// Bytes of a page, as a length.
const PAGE_BYTES: usize = 4096;

/// The embedded guest.
static DEMO: &[u8] = include_bytes!(env!("NESTLING_DEMO"));

/// Makes the VM that `description` describes, out of boot modules that `module` finds by name.
pub(crate) fn make(
    description: &Description,
    machine: Capabilities,
    module: impl Fn(&str) -> Option<&'static [u8]>,
) -> Result<Guest, Sentence> {
    let controls = Controls::choose(&machine).map_err(|missing| sentence(format_args!("{missing}")))?;
    log_controls(&controls);
    let cpus = description.cpus as usize;
    if cpus > MAX_VCPUS {
        return Err(sentence(format_args!(
            "the guest has {cpus} processors and Nestling gives at most {MAX_VCPUS}: give it fewer"
        )));
    }
    let layout = MemoryLayout::new(u64::from(description.memory_mib) * MIB, description.cpus);
    let (memory, ept, tables) = make_memory(&layout, &machine)?;
    let entry = load(description, &memory, &layout, module)?;

    let tsc_hz = hw::tsc::frequency();
    let now = hw::tsc::now();
    let platform = Platform::new(PlatformConfig {
        tsc_hz,
        memory_below_4g: layout.below_4g,
        memory_above_4g: layout.above_4g,
        unix_time: hw::cmos::unix_time(),
        cpus: description.cpus,
        now,
    });
    let posts = leak(cpus, |_| Post::new())?;
    let vm: &'static Vm = leak_one(Vm::new(memory, posts, platform))?;

    let has_rdtscp = controls.secondary.chosen.contains(vmcs::controls::SecondaryBased::ENABLE_RDTSCP);
    let (msr_bitmap, io_bitmap_a, io_bitmap_b) = (page()?, page()?, page()?);
    vcpu::fill_msr_bitmap(msr_bitmap, has_rdtscp);
    vcpu::fill_io_bitmaps(io_bitmap_a, io_bitmap_b);
    let pages = Pages {
        eptp: ept.eptp(),
        msr_bitmap: physmem::physical(msr_bitmap),
        io_bitmap_a: physmem::physical(io_bitmap_a),
        io_bitmap_b: physmem::physical(io_bitmap_b),
        vpid: 1,
    };
    // The APIC timer of the machine counts at the bus frequency; L1 gets the same, as far as CPUID tells, else the TSC's.
    let frequencies = Frequencies { tsc_hz, bus_hz: tsc_hz };
    Ok(Guest {
        vm,
        start: flat_start(&entry),
        pages,
        controls,
        machine,
        frequencies,
        table_bytes: tables.taken() * PAGE_SIZE,
        processors: 1,
        self_test: None,
    })
}

/// RAM for the guest, and the EPT that maps it with the largest pages there are.
fn make_memory(layout: &MemoryLayout, machine: &Capabilities) -> Result<(GuestRam, Ept, TableFrames), Sentence> {
    let largest = if machine.ept_vpid.contains(EptVpid::PAGES_1G) { PageSize::Size1G } else { PageSize::Size2M };
    let mut tables = TableFrames::default();
    let mut ept = Ept::new(&mut tables, largest, false).ok_or_else(no_memory_for_tables)?;
    let mut ram = GuestRam::new();
    for (guest, bytes) in [(0, layout.below_4g), (4 * GIB, layout.above_4g)] {
        if bytes == 0 {
            continue;
        }
        let align = if bytes >= GIB && largest == PageSize::Size1G { GIB } else { 2 * MIB };
        let free = FRAMES.lock().largest();
        let host = {
            let mut frames = FRAMES.lock();
            frames.allocate(bytes, align).or_else(|| frames.allocate(bytes, 2 * MIB))
        };
        let host = host.ok_or_else(|| {
            sentence(format_args!(
                "the guest needs {} MiB of memory in one piece and the machine has {} MiB left: give the guest less memory or the machine more",
                bytes / MIB,
                free / MIB
            ))
        })?;
        let end = guest + bytes;
        // Below 1 MiB the video window is a device's; the rest is RAM, also where firmware has its tables.
        let parts = if guest == 0 { [(0, VIDEO_START), (ROMS_START, end)] } else { [(guest, end), (end, end)] };
        for (start, end) in parts.into_iter().filter(|(start, end)| start < end) {
            let at = host.add(start - guest);
            // SAFETY: the frames were free RAM that the direct map shows; from here on only the guest and `GuestRam` use them.
            let shared = unsafe { Shared::new(at, end - start) };
            ram.add(GuestPhys(start), shared)
                .map_err(|_| sentence(format_args!("the guest's memory is in too many pieces")))?;
            // No processor has used these tables yet, so nothing of them is cached.
            let _: Invalidation = ept
                .map(&mut tables, GuestPhys(start), at, end - start, Permissions::all(), MemoryType::WriteBack)
                .map_err(|_| no_memory_for_tables())?;
        }
    }
    Ok((ram, ept, tables))
}

fn no_memory_for_tables() -> Sentence {
    sentence(format_args!("there is no memory left for the guest's page tables: give the machine more memory"))
}

/// Loads the kernel, its initrd and its modules.
fn load(
    description: &Description,
    memory: &GuestRam,
    layout: &MemoryLayout,
    module: impl Fn(&str) -> Option<&'static [u8]>,
) -> Result<EntryState, Sentence> {
    let find = |name: &str| {
        module(name).ok_or_else(|| {
            sentence(format_args!("the boot medium has no file \"{name}\" that the configuration names"))
        })
    };
    let (kernel, kernel_name) = match &description.kernel {
        Some(file) => (find(file)?, description.kernel_name.as_str()),
        None => (DEMO, "demo"),
    };
    let initrd = description.initrd.as_ref().map(|file| find(file)).transpose()?;
    let mut modules = heapless::Vec::<ModuleImage<'_>, { config::vm::MAX_MODULES }>::new();
    for entry in &description.modules {
        let image = ModuleImage { bytes: find(&entry.file)?, command_line: &entry.command_line };
        // The description has room for no more than this vector.
        let _ = modules.push(image);
    }
    let images = Images { kernel, kernel_name, initrd, modules: &modules, command_line: &description.command_line };
    loader::load(&images, memory, layout).map_err(|error| sentence(format_args!("{error}")))
}

fn flat_start(entry: &EntryState) -> FlatStart {
    FlatStart {
        eip: entry.rip,
        esp: entry.esp,
        eax: entry.eax,
        ebx: entry.ebx,
        esi: entry.esi,
        code: entry.code,
        data: entry.data,
        gdt_base: entry.gdt_base,
        gdt_limit: entry.gdt_limit,
    }
}

/// A page of zeros that stays for the rest of the run.
fn page() -> Result<&'static mut [u8; PAGE_BYTES], Sentence> {
    let frame = FRAMES.lock().zeroed_frame().ok_or_else(no_memory_for_tables)?;
    // SAFETY: the frame was free RAM that the direct map shows; this is the only reference to it.
    Ok(unsafe { &mut *physmem::pointer(frame) })
}

/// Makes `count` values where they stay for the rest of the run.
pub(crate) fn leak<T>(count: usize, mut make: impl FnMut(usize) -> T) -> Result<&'static mut [T], Sentence> {
    let bytes = size_of::<T>().saturating_mul(count) as u64;
    let frames = FRAMES.lock().allocate(bytes, PAGE_SIZE).ok_or_else(no_memory_for_tables)?;
    let first = physmem::pointer::<T>(frames);
    for index in 0..count {
        // SAFETY: the frames are free RAM, page-aligned, large enough, and nobody else's from now on.
        let place = unsafe { first.add(index) };
        // SAFETY: as above.
        unsafe { place.write(make(index)) };
    }
    // SAFETY: all `count` were just written, and this is the only reference.
    Ok(unsafe { core::slice::from_raw_parts_mut(first, count) })
}

/// Puts `value` where it stays for the rest of the run.
pub(crate) fn leak_one<T>(value: T) -> Result<&'static mut T, Sentence> {
    let mut value = Some(value);
    let made = leak(1, |_| value.take())?;
    made.first_mut().and_then(Option::as_mut).ok_or_else(no_memory_for_tables)
}

/// A sentence, cut where it is too long to keep.
pub(crate) fn sentence(text: core::fmt::Arguments<'_>) -> Sentence {
    let mut sentence = Sentence::new();
    // What does not fit is cut off; the beginning says what matters.
    let _ = sentence.write_fmt(text);
    sentence
}

/// The control words as "wanted, allowed, chosen".
fn log_controls(controls: &Controls) {
    macro_rules! log {
        ($name:literal, $choice:expr) => {
            defmt::info!($name, $choice.required, $choice.wanted, $choice.allowed0, $choice.allowed1, $choice.chosen);
        };
    }
    log!("pin-based controls: required {}, wanted {}, must be 1 {}, may be 1 {}, chosen {}", controls.pin);
    log!("primary controls: required {}, wanted {}, must be 1 {}, may be 1 {}, chosen {}", controls.primary);
    log!("secondary controls: required {}, wanted {}, must be 1 {}, may be 1 {}, chosen {}", controls.secondary);
    log!("exit controls: required {}, wanted {}, must be 1 {}, may be 1 {}, chosen {}", controls.exit);
    log!("entry controls: required {}, wanted {}, must be 1 {}, may be 1 {}, chosen {}", controls.entry);
}
