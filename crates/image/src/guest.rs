//! Makes a VM: memory, devices, kernel, vCPUs.

use core::fmt::Write as _;

use arch::{HostPhys, PAGE_SIZE};
use config::vm::MAX_NAME;
use config::{SelfTest, Vm as Description};
use devices::{Platform, PlatformConfig};
use heapless::String;
use hw::frames::{FRAMES, zeroed_frame};
use hw::physmem;
use loader::e820::MIB;
use loader::{EntryState, Images, MemoryLayout, ModuleImage};
use vcpu::{Controls, FlatStart, Pages};
use vlapic::{Assist, Frequencies, Hardware, Mode};
use vmcs::Capabilities;

use crate::guest_memory::GuestRam;
use crate::machine::Machine;
use crate::memory::{Memory, make_memory};
use crate::vm::{Numbers, Post, Vm};

/// A sentence for the user that says why a guest cannot be made.
pub(crate) type Sentence = String<256>;

/// A VM that is ready to run, and what its vCPUs need to start.
pub(crate) struct Guest {
    /// Its name in the log.
    pub name: String<MAX_NAME>,
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
    /// L1 has VMX.
    pub has_vmx: bool,
    /// The bitmaps of VMCS shadowing, where it is used: for VMREAD and VMWRITE.
    pub shadowing: Option<(HostPhys, HostPhys)>,
    /// The MSR bitmap of all its vmcs01s.
    pub msr_bitmap_words: &'static [u64; 512],
    /// What helps its APICs, but for the pages of each vCPU.
    pub apic: Apic,
    /// The machine is Bochs: some of its errors need help.
    pub on_bochs: bool,
    /// Its APIC ids can be changed in xAPIC mode.
    pub writable_xapic_ids: bool,
    /// A failure on purpose.
    pub self_test: Option<SelfTest>,
    /// The machine has other processors.
    pub gets_kicks: bool,
}

/// What all APICs of a VM have for the processor to help them.
#[derive(Clone, Copy)]
pub(crate) struct Apic {
    /// What the processor can do.
    pub hardware: Hardware,
    /// EPT pointer with the APIC-access page.
    pub eptp: u64,
    /// The APIC-access page.
    pub access: HostPhys,
    /// MSR bitmaps in which no x2APIC MSR passes, TPR, and all that the processor virtualizes.
    pub msr_bitmaps: [HostPhys; 3],
}

/// Bytes of a page, as a length.
const PAGE_BYTES: usize = 4096;

/// The embedded guest, packed by the build script.
static DEMO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo.deflate"));
/// Its bytes when it is unpacked.
const DEMO_LENGTH: usize = include!(concat!(env!("OUT_DIR"), "/demo_length"));

/// Makes the VM that `description` describes, out of boot modules that `module` finds by name. Inlined it was twice as large.
#[inline(never)]
pub(crate) fn make(
    description: &Description,
    numbers: Numbers,
    on: &Machine,
    module: impl Fn(&str) -> Option<&'static [u8]>,
) -> Result<Guest, Sentence> {
    let machine = on.capabilities;
    let controls = Controls::choose(&machine).map_err(|missing| sentence(format_args!("{missing}")))?;
    if numbers.vm == 0 {
        log_controls(&controls);
    }
    let cpus = description.cpus as usize;
    let layout = MemoryLayout::new(u64::from(description.memory_mib) * MIB, description.cpus);
    let Memory { ram, ept, ept_with_apic, apic_access, table_bytes } = make_memory(&layout, &machine)?;
    let entry = load(description, &ram, &layout, module)?;

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
    let posts = posts(cpus)?;
    let vm: &'static Vm = leak_one(Vm::new(ram, posts, numbers, platform))?;

    let has_rdtscp = controls.secondary.chosen.contains(vmcs::controls::SecondaryBased::ENABLE_RDTSCP);
    let has_vmx = description.nested;
    let shadowing = if has_vmx && on.vmcs_shadowing && can_shadow(&machine) {
        let (vmread, vmwrite) = (page()?, page()?);
        nested::fill_shadowing_bitmaps(&machine, vmread, vmwrite);
        Some((physmem::physical(vmread), physmem::physical(vmwrite)))
    } else {
        None
    };
    let (msr_bitmap, io_bitmap_a, io_bitmap_b) = (page()?, page()?, page()?);
    vcpu::fill_msr_bitmap(msr_bitmap, has_rdtscp);
    let (tpr_bitmap, x2apic_bitmap) = (page()?, page()?);
    let hardware = vcpu::apic_hardware(&machine);
    for (bitmap, inhibited) in [(&mut *tpr_bitmap, true), (&mut *x2apic_bitmap, false)] {
        bitmap.copy_from_slice(msr_bitmap);
        vcpu::pass_x2apic_msrs(bitmap, Assist::of(hardware, Mode::X2apic, inhibited));
    }
    let apic = Apic {
        hardware,
        eptp: ept_with_apic.eptp(),
        access: apic_access,
        msr_bitmaps: [physmem::physical(msr_bitmap), physmem::physical(tpr_bitmap), physmem::physical(x2apic_bitmap)],
    };
    vcpu::fill_io_bitmaps(io_bitmap_a, io_bitmap_b);
    let pages = Pages {
        eptp: ept.eptp(),
        msr_bitmap: physmem::physical(msr_bitmap),
        io_bitmap_a: physmem::physical(io_bitmap_a),
        io_bitmap_b: physmem::physical(io_bitmap_b),
        shadowing,
        vpid: numbers.first_vcpu + 1,
    };
    // The APIC timer of the machine counts at the bus frequency; L1 gets the same, as far as CPUID tells, else the TSC's.
    let frequencies = Frequencies { tsc_hz, bus_hz: tsc_hz };
    Ok(Guest {
        name: description.name.clone(),
        vm,
        start: flat_start(&entry),
        pages,
        controls,
        machine,
        frequencies,
        table_bytes,
        has_vmx,
        shadowing,
        // SAFETY: the page is 4096 bytes, aligned, and nobody writes to it from now on.
        msr_bitmap_words: unsafe { &*core::ptr::from_mut(msr_bitmap).cast() },
        apic,
        on_bochs: on.on_bochs,
        self_test: on.self_test.filter(|_| numbers.vm == 0),
        gets_kicks: on.processors > 1,
        writable_xapic_ids: on.writable_xapic_ids,
    })
}

/// Whether L1's VMREAD and VMWRITE can be spared exits: the processor shadows, and L0 can write exit information into a VMCS.
fn can_shadow(machine: &Capabilities) -> bool {
    machine.secondary.supports(vmcs::controls::SecondaryBased::VMCS_SHADOWING) && machine.misc.can_write_all_fields()
}

/// The refusal when even small things find no room.
#[cold]
#[inline(never)]
pub(crate) fn no_memory_for_tables() -> Sentence {
    sentence(format_args!("there is no memory left for the guest's page tables: give the machine more memory"))
}

/// Loads the kernel, its initrd and its modules.
#[inline(never)]
fn load(
    description: &Description,
    memory: &GuestRam,
    layout: &MemoryLayout,
    module: impl Fn(&str) -> Option<&'static [u8]>,
) -> Result<EntryState, Sentence> {
    let find =
        |name: &str| module(name).ok_or_else(|| sentence(format_args!("the boot medium has no file \"{name}\"")));
    let (kernel, kernel_name) = match &description.kernel {
        Some(file) => (find(file)?, description.kernel_name.as_str()),
        None => (unpack_demo()?, "demo"),
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

/// The embedded guest's ELF file.
fn unpack_demo() -> Result<&'static [u8], Sentence> {
    let demo = leak(DEMO_LENGTH, |_| 0)?;
    // It was packed from as many bytes. Should it fail nevertheless, the loader says what is wrong with what there is.
    let _ = loader::inflate(DEMO, demo);
    Ok(demo)
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
#[inline(never)]
fn page() -> Result<&'static mut [u8; PAGE_BYTES], Sentence> {
    let frame = zeroed_frame().ok_or_else(no_memory_for_tables)?;
    // SAFETY: the frame was free RAM that the direct map shows; this is the only reference to it.
    Ok(unsafe { &mut *physmem::pointer(frame) })
}

/// Where the vCPUs are reached: nothing posted, without a processor. They are too large to
/// be made on a stack.
fn posts(count: usize) -> Result<&'static [Post], Sentence> {
    let bytes = (size_of::<Post>() * count) as u64;
    let frames = FRAMES.lock().allocate(bytes, PAGE_SIZE).ok_or_else(no_memory_for_tables)?;
    let first = physmem::pointer::<Post>(frames);
    // SAFETY: the frames are free RAM, page-aligned, large enough, and nobody else's from now on.
    unsafe { first.write_bytes(0, count) };
    // SAFETY: zeros are an empty mailbox, no processor and an empty page; from now on they are only shared.
    Ok(unsafe { core::slice::from_raw_parts(first, count) })
}

/// Makes `count` values where they stay for the rest of the run.
pub(crate) fn leak<T>(count: usize, mut make: impl FnMut(usize) -> T) -> Result<&'static mut [T], Sentence> {
    let first = physmem::pointer::<T>(frames(size_of::<T>().saturating_mul(count))?);
    for index in 0..count {
        // SAFETY: the frames are free RAM, page-aligned, large enough, and nobody else's from now on.
        let place = unsafe { first.add(index) };
        // SAFETY: as above.
        unsafe { place.write(make(index)) };
    }
    // SAFETY: all `count` were just written, and this is the only reference.
    Ok(unsafe { core::slice::from_raw_parts_mut(first, count) })
}

#[inline(never)]
fn frames(bytes: usize) -> Result<HostPhys, Sentence> {
    FRAMES.lock().allocate(bytes as u64, PAGE_SIZE).ok_or_else(no_memory_for_tables)
}

/// Puts `value` where it stays for the rest of the run.
pub(crate) fn leak_one<T>(value: T) -> Result<&'static mut T, Sentence> {
    let place = physmem::pointer::<T>(frames(size_of::<T>())?);
    // SAFETY: the frames are free RAM, page-aligned, large enough, and nobody else's from now on.
    unsafe { place.write(value) };
    // SAFETY: it was just written, and this is the only reference.
    Ok(unsafe { &mut *place })
}

/// A sentence, cut where it is too long to keep.
#[cold]
#[inline(never)]
pub(crate) fn sentence(text: core::fmt::Arguments<'_>) -> Sentence {
    let mut sentence = Sentence::new();
    // What does not fit is cut off; the beginning says what matters.
    let _ = sentence.write_fmt(text);
    sentence
}

/// The control words as "wanted, allowed, chosen".
#[inline(never)]
fn log_controls(controls: &Controls) {
    macro_rules! words {
        ($choice:expr) => {
            [$choice.required, $choice.wanted, $choice.allowed0, $choice.allowed1, $choice.chosen]
                .map(|word| word.bits())
        };
    }
    for (name, [required, wanted, allowed0, allowed1, chosen]) in [
        ("pin-based", words!(controls.pin)),
        ("primary", words!(controls.primary)),
        ("secondary", words!(controls.secondary)),
        ("exit", words!(controls.exit)),
        ("entry", words!(controls.entry)),
    ] {
        defmt::info!(
            "{=str} controls: required {=u32:#x}, wanted {=u32:#x}, must be 1 {=u32:#x}, may be 1 {=u32:#x}, chosen {=u32:#x}",
            name,
            required,
            wanted,
            allowed0,
            allowed1,
            chosen
        );
    }
}
