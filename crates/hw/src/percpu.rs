//! What each processor has for itself, reached through its GS base.
//!
//! GS base points at the processor's [`PerCpu`] from before its first line of Rust on; VM exits load it from the VMCS.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arch::{HostPhys, Msr};

use crate::gdt::Tables;
use crate::layout::MAX_PROCESSORS;
use crate::msr;

/// One processor's own data. Others read it and set its flags; they never write the rest.
#[repr(C)]
pub struct PerCpu {
    /// Its own linear address: what `gs:[0]` gives.
    this: AtomicUsize,
    number: u32,
    apic_id: AtomicU32,
    /// Address of the `GuestRegs` with which the current VMCS was last launched here; 0 when its next entry is not
    /// a plain VMRESUME with them. See [`crate::enter`].
    pub(crate) entered: AtomicU64,
    /// Somebody wants this processor to look around: set before the kick is sent.
    pub(crate) kicked: AtomicBool,
    /// It is about to halt, or halts.
    pub(crate) halting: AtomicBool,
    /// The processor's timer fired.
    pub(crate) timer_fired: AtomicBool,
    /// The processor runs and has finished its bring-up.
    pub(crate) online: AtomicBool,
    /// Interrupts by L0's own vectors, and others.
    pub(crate) kicks: AtomicU32,
    pub(crate) timers: AtomicU32,
    pub(crate) strays: AtomicU32,
    pub(crate) nmis: AtomicU32,
    /// The VMXON region, 0 while outside VMX operation.
    pub(crate) vmxon_region: AtomicU64,
    /// Physical address of the current VMCS; 0 for none.
    pub(crate) current_vmcs: AtomicU64,
    /// Descriptor table and task-state segment: written by their processor at bring-up, read by its hardware after.
    pub(crate) tables: UnsafeCell<Tables>,
}

// SAFETY: all fields but `tables` are atomic or never written after `new`; `tables` is written by its own processor only.
unsafe impl Sync for PerCpu {}

impl PerCpu {
    /// Data of processor `number`, not yet running.
    pub(crate) const fn new(number: u32, apic_id: u32) -> Self {
        Self {
            this: AtomicUsize::new(0),
            number,
            apic_id: AtomicU32::new(apic_id),
            entered: AtomicU64::new(0),
            kicked: AtomicBool::new(false),
            halting: AtomicBool::new(false),
            timer_fired: AtomicBool::new(false),
            online: AtomicBool::new(false),
            kicks: AtomicU32::new(0),
            timers: AtomicU32::new(0),
            strays: AtomicU32::new(0),
            nmis: AtomicU32::new(0),
            vmxon_region: AtomicU64::new(0),
            current_vmcs: AtomicU64::new(0),
            tables: UnsafeCell::new(Tables::new()),
        }
    }

    /// Number of the processor: 0 for the boot processor, then in the order of the firmware's table.
    #[inline(always)]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The local APIC's id.
    pub fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Whether the processor runs and has finished its bring-up.
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    /// How often the processor was interrupted: by kicks, by its timer, by vectors that nobody asked for, by NMIs.
    pub fn interrupt_counts(&self) -> [u32; 4] {
        [&self.kicks, &self.timers, &self.strays, &self.nmis].map(|count| count.load(Ordering::Relaxed))
    }
}

/// The boot processor's.
static BOOT: PerCpu = PerCpu::new(0, 0);

/// Every processor's, by number.
static ALL: [AtomicUsize; MAX_PROCESSORS] = [const { AtomicUsize::new(0) }; MAX_PROCESSORS];

/// Makes `percpu` the data of the processor that executes this.
///
/// # Safety
/// No other processor has it.
pub(crate) unsafe fn install(percpu: &'static PerCpu) {
    let address = core::ptr::from_ref(percpu).addr();
    percpu.this.store(address, Ordering::Relaxed);
    // SAFETY: nothing but this module uses the GS base.
    unsafe { msr::write(Msr::GS_BASE, address as u64) };
    if let Some(slot) = ALL.get(percpu.number as usize) {
        slot.store(address, Ordering::Release);
    }
}

/// Gives the boot processor its data.
///
/// # Safety
/// Called once, first of all, on the boot processor.
pub unsafe fn install_boot() {
    // SAFETY: called once, so nobody else has it.
    unsafe { install(&BOOT) };
}

pub(crate) fn set_apic_id(apic_id: u32) {
    this().apic_id.store(apic_id, Ordering::Relaxed);
}

/// The data of the processor that executes this.
#[inline(always)]
pub fn this() -> &'static PerCpu {
    let pointer: *const PerCpu;
    // SAFETY: GS base points at this processor's data since `install`; `this` lies at offset 0 and never changes again.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) pointer, options(pure, readonly, nostack, preserves_flags));
    }
    // SAFETY: `install` took a `&'static PerCpu`.
    unsafe { &*pointer }
}

/// Number of the processor that executes this.
#[inline(always)]
pub fn number() -> u32 {
    let number: u32;
    // SAFETY: as in `this`; the number never changes.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) number, const offset_of!(PerCpu, number), options(pure, readonly, nostack, preserves_flags));
    }
    number
}

/// [`PerCpu::entered`] of the processor that executes this.
#[inline(always)]
pub(crate) fn entered() -> u64 {
    let entered;
    // SAFETY: GS base points at this processor's data.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) entered, const offset_of!(PerCpu, entered), options(readonly, nostack, preserves_flags));
    }
    entered
}

/// [`PerCpu::current_vmcs`] and [`PerCpu::entered`] from now on.
#[inline(always)]
pub(crate) fn set_current_vmcs(region: u64, entered: u64) {
    // SAFETY: GS base points at this processor's data, of which nobody else writes these.
    unsafe {
        asm!(
            "mov gs:[{current_offset}], {region}",
            "mov gs:[{entered_offset}], {entered}",
            current_offset = const offset_of!(PerCpu, current_vmcs),
            entered_offset = const offset_of!(PerCpu, entered),
            region = in(reg) region,
            entered = in(reg) entered,
            options(nostack, preserves_flags),
        );
    }
}

/// The data of processor `number`, if it has been started.
pub fn of(number: u32) -> Option<&'static PerCpu> {
    let address = ALL.get(number as usize)?.load(Ordering::Acquire);
    // SAFETY: an address in `ALL` came from a `&'static PerCpu`.
    (address != 0).then(|| unsafe { &*core::ptr::with_exposed_provenance(address) })
}

/// How many kicks processor `number` has taken; 0 before it is started.
pub fn kicks(number: u32) -> u32 {
    of(number).map_or(0, |other| other.kicks.load(Ordering::Acquire))
}

/// Says that this processor has finished its bring-up.
pub fn set_online() {
    this().online.store(true, Ordering::Release);
}

/// Physical address of the current VMCS, if there is one.
pub fn current_vmcs() -> Option<HostPhys> {
    match this().current_vmcs.load(Ordering::Relaxed) {
        0 => None,
        address => Some(HostPhys(address)),
    }
}
