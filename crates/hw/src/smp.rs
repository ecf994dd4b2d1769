//! Starting the other processors, one after the other.
//!
//! SDM 3A, "Multiple-Processor (MP) Initialization": INIT, 10 ms, start-up IPI, and a second one if nothing happens. The
//! processor begins in real mode at the start of a page below 1 MiB, goes to 64-bit mode on the boot page tables, takes the
//! final ones, its stack and its data, and calls the image.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arch::{HostPhys, PAGE_SIZE};

use crate::frames::Frames;
use crate::layout::word;
use crate::paging::{OutOfFrames, PageTables};
use crate::percpu::{self, PerCpu};
use crate::stacks::Stacks;
use crate::{apic, delay, gdt, idt, physmem};

global_asm!(
    r#"
    .section .rodata.trampoline, "a"
    .code16
trampoline:
    cli
    cld
    mov ax, cs
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16        // lgdt with a 32-bit base, from here
    .short trampoline_gdt - trampoline
    mov eax, 0x20                       // CR4: PAE
    mov cr4, eax
    .byte 0x66, 0xa1                    // mov eax, from here
    .short trampoline_cr3 - trampoline
    mov cr3, eax
    mov ecx, 0xc0000080                 // EFER: LME, NXE
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, 0x80010031                 // CR0: PG, WP, NE, ET, PE; caches on
    mov cr0, eax
    .byte 0x66, 0xea                    // jmp 0x08:processor_entry
    .long processor_entry
    .short 0x08
    .balign 4
trampoline_gdt:
    .short 23
    .long boot_gdt
    .balign 4
trampoline_cr3:
    .long boot_level4
trampoline_end:

    .section .text.trampoline, "ax"
    .code64
processor_entry:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lldt ax
    mov rax, [{tables}]
    mov cr3, rax
    mov rsp, [{stack}]
    xor ebp, ebp
    call {started}
    ud2
"#,
    tables = sym TABLES,
    stack = sym STACK,
    started = sym started,
);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
}

/// What the processor that is being started takes: CR3, its stack, its data, and where the image goes on.
static TABLES: AtomicU64 = AtomicU64::new(0);
static STACK: AtomicU64 = AtomicU64::new(0);
static PERCPU: AtomicUsize = AtomicUsize::new(0);
static MAIN: Shared<Option<Starting>> = Shared(UnsafeCell::new(None));

struct Shared<T>(UnsafeCell<T>);

// SAFETY: written by the boot processor only while no other processor is being started; read by the one that is.
unsafe impl<T> Sync for Shared<T> {}

#[derive(Clone, Copy)]
struct Starting {
    stacks: Stacks,
    main: fn() -> !,
}

/// Makes the data of processor `number`.
fn new_percpu(frames: &mut Frames, number: u32, apic_id: u32) -> Result<&'static PerCpu, OutOfFrames> {
    const { assert!(size_of::<PerCpu>() <= word(PAGE_SIZE)) };
    let frame = frames.zeroed_frame().ok_or(OutOfFrames)?;
    let pointer = physmem::pointer::<PerCpu>(frame);
    // SAFETY: the frame is fresh, aligned and large enough.
    unsafe { pointer.write(PerCpu::new(number, apic_id)) };
    // SAFETY: it was just written, and nobody takes the frame back.
    Ok(unsafe { &*pointer })
}

/// A processor that has all it needs to be started.
#[derive(Clone, Copy)]
pub struct Prepared {
    tables: HostPhys,
    stacks: Stacks,
    data: &'static PerCpu,
}

impl core::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "processor {}, APIC id {:#x}", self.data.number(), self.data.apic_id())
    }
}

/// Makes stacks and data for the processor with APIC id `apic_id`, which becomes processor `number`.
pub fn prepare(
    tables: &mut PageTables,
    frames: &mut Frames,
    number: u32,
    apic_id: u32,
) -> Result<Prepared, OutOfFrames> {
    let stacks = Stacks::new(tables, frames, number, None)?;
    Ok(Prepared { tables: tables.root(), stacks, data: new_percpu(frames, number, apic_id)? })
}

/// Starts a processor. It loads its tables and calls `main`, which must call [`percpu::set_online`] within a second;
/// returns whether it did.
///
/// # Safety
/// `page` is a page of RAM below 640 KiB that nobody uses; the tables it was prepared with are those that the boot
/// processor runs on; the processor runs nothing of L0. Processors are started one at a time, by the boot processor.
pub unsafe fn start(prepared: Prepared, page: HostPhys, main: fn() -> !) -> bool {
    let Prepared { tables, stacks, data } = prepared;
    let code = &raw const trampoline;
    let length = (&raw const trampoline_end).addr() - code.addr();
    // SAFETY: the caller's promise about the page; the code is shorter than a page and lies in the image.
    unsafe { core::ptr::copy_nonoverlapping(code, physmem::pointer::<u8>(page), length) };
    TABLES.store(tables.0, Ordering::Relaxed);
    STACK.store(stacks.main_top, Ordering::Relaxed);
    PERCPU.store(core::ptr::from_ref(data).expose_provenance(), Ordering::Relaxed);
    // SAFETY: no other processor is being started.
    unsafe { *MAIN.0.get() = Some(Starting { stacks, main }) };
    core::sync::atomic::fence(Ordering::SeqCst);

    #[expect(clippy::cast_possible_truncation, reason = "the page lies below 1 MiB")]
    let vector = (page.0 / PAGE_SIZE) as u8;
    // SAFETY: the caller's promise.
    unsafe { apic::send_init(data.apic_id()) };
    delay::micros(10_000);
    // The second one is for processors that lost the first; one that took the first ignores it.
    [10_000, 1_000_000].into_iter().any(|patience| {
        // SAFETY: the start-up code was just copied there.
        unsafe { apic::send_startup(data.apic_id(), vector) };
        delay::until(patience, || data.is_online())
    })
}

/// The first Rust of a started processor: on its own stack and the final page tables, without GS base, GDT and IDT.
extern "sysv64" fn started() -> ! {
    let data = core::ptr::with_exposed_provenance::<PerCpu>(PERCPU.load(Ordering::Relaxed));
    // SAFETY: `start` stored the address of a `&'static PerCpu` for this processor.
    let data = unsafe { &*data };
    // SAFETY: it is this processor's alone.
    unsafe { percpu::install(data) };
    // SAFETY: `start` wrote it for this processor and waits.
    let starting = unsafe { *MAIN.0.get() };
    // SAFETY: the table was filled by the boot processor.
    unsafe { idt::load() };
    if let Some(Starting { stacks, main }) = starting {
        // SAFETY: the stacks are this processor's, and this is the first time.
        unsafe { gdt::load(&stacks) };
        main();
    }
    crate::halt::forever()
}
