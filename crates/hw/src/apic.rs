//! The machine's local APICs, as L0 uses them: EOI, IPIs, the timer. xAPIC and x2APIC machines.
//!
//! SDM 3A, chapter "Advanced Programmable Interrupt Controller (APIC)". x2APIC mode is switched on wherever the processor
//! has it: its registers need no mapping and an IPI is one write.

use core::arch::{asm, global_asm};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arch::apic::Register;
use arch::{HostPhys, Msr, PAGE_SIZE};
use volatile::VolatilePtr;

use crate::interrupts::{ERROR, KICK, SPURIOUS, TIMER};
use crate::{control, cpuid, msr, percpu, physmem, tsc};

const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const ICR_NMI: u32 = 4 << 8;
const ICR_INIT: u32 = 5 << 8;
const ICR_STARTUP: u32 = 6 << 8;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ASSERT: u32 = 1 << 14;
const SVR_ENABLE: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
const LVT_NMI: u32 = 4 << 8;
const LVT_TSC_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0xb;

static X2APIC: AtomicBool = AtomicBool::new(false);
static KICKS_ARE_NMIS: AtomicBool = AtomicBool::new(false);
static PAGE: AtomicU64 = AtomicU64::new(0);
/// Timer ticks in 2^32 TSC ticks; 0 where the timer takes a TSC deadline.
static TIMER_RATE: AtomicU64 = AtomicU64::new(0);

/// Physical address of the xAPIC register page: to be mapped as device memory unless [`cpuid::has_x2apic`].
#[must_use]
pub fn register_page() -> HostPhys {
    // SAFETY: every processor with a local APIC has the register.
    HostPhys(unsafe { msr::read(Msr::APIC_BASE) } & BASE_ADDRESS)
}

/// Sets this processor's local APIC up: enabled, PIC and timer masked, nothing in service.
///
/// # Safety
/// L0's IDT is loaded; on an xAPIC machine the register page is mapped in the direct map. The boot processor comes first.
pub unsafe fn init() {
    // SAFETY: every processor with a local APIC has the register.
    let mut base = unsafe { msr::read(Msr::APIC_BASE) } | BASE_ENABLE;
    if cpuid::has_x2apic() {
        // From xAPIC mode to x2APIC mode is a legal step (SDM 3A, "x2APIC State Transitions").
        base |= BASE_X2APIC;
        X2APIC.store(true, Ordering::Relaxed);
    } else {
        PAGE.store(base & BASE_ADDRESS, Ordering::Relaxed);
    }
    // SAFETY: nothing of L0 depends on the mode before.
    unsafe { msr::write(Msr::APIC_BASE, base) };
    percpu::set_apic_id(id());
    write(Register::TPR, 0);
    write(Register::SVR, SVR_ENABLE | u32::from(SPURIOUS));
    write(Register::LVT_LINT0, LVT_MASKED);
    write(Register::LVT_LINT1, LVT_NMI);
    write(Register::LVT_ERROR, u32::from(ERROR));
    write(Register::LVT_TIMER, LVT_MASKED | u32::from(TIMER));
    write(Register::INITIAL_COUNT, 0);
    // What firmware left in service would hold back our vectors, which are above it; eight EOIs end any nesting.
    for _ in 0..8 {
        eoi();
    }
}

/// Makes the timer ready. The boot processor does so after the TSC was calibrated; the others take over what it found.
pub fn init_timer() {
    write(Register::DIVIDE, DIVIDE_BY_1);
    if cpuid::has_tsc_deadline() {
        write(Register::LVT_TIMER, LVT_TSC_DEADLINE | u32::from(TIMER));
        return;
    }
    if TIMER_RATE.load(Ordering::Relaxed) == 0 {
        write(Register::LVT_TIMER, LVT_MASKED | u32::from(TIMER));
        let ticks = tsc::frequency() / 1000;
        let start = tsc::now();
        write(Register::INITIAL_COUNT, u32::MAX);
        while tsc::now() - start < ticks {
            control::pause();
        }
        let count = u64::from(u32::MAX - read(Register::CURRENT_COUNT));
        let elapsed = (tsc::now() - start).max(1);
        write(Register::INITIAL_COUNT, 0);
        TIMER_RATE.store(((count << 32) / elapsed).max(1), Ordering::Relaxed);
    }
    write(Register::LVT_TIMER, u32::from(TIMER));
}

/// Makes this processor's timer fire when the TSC reaches `deadline`, or at once if it has. One deadline at a time.
pub fn arm(deadline: u64) {
    let rate = TIMER_RATE.load(Ordering::Relaxed);
    if rate == 0 {
        // SAFETY: the timer is in TSC-deadline mode; 0 would disarm it.
        unsafe { msr::write(Msr::TSC_DEADLINE, deadline.max(1)) };
        return;
    }
    let ticks = deadline.saturating_sub(tsc::now());
    let count = (u128::from(ticks) * u128::from(rate)) >> 32;
    // A deadline further off than the counter reaches fires early, and the caller arms it again.
    write(Register::INITIAL_COUNT, u32::try_from(count).unwrap_or(u32::MAX).max(1));
}

/// Stops this processor's timer.
pub fn disarm() {
    if TIMER_RATE.load(Ordering::Relaxed) == 0 {
        // SAFETY: the timer is in TSC-deadline mode.
        unsafe { msr::write(Msr::TSC_DEADLINE, 0) };
    } else {
        write(Register::INITIAL_COUNT, 0);
    }
    // It may just have fired.
    take_late();
}

/// Whether this processor's local APIC is in x2APIC mode before [`init`]: firmware that remaps interrupts leaves it so.
#[must_use]
pub fn firmware_chose_x2apic() -> bool {
    const EXTD: u64 = 1 << 10;
    msr::try_read(Msr::APIC_BASE).is_ok_and(|base| base & EXTD != 0)
}

/// Whether the local APICs are in x2APIC mode.
#[must_use]
pub fn is_x2apic() -> bool {
    X2APIC.load(Ordering::Relaxed)
}

/// The id of this processor's local APIC.
#[must_use]
pub fn id() -> u32 {
    if is_x2apic() { read(Register::ID) } else { read(Register::ID) >> 24 }
}

/// Ends the interrupt in service.
#[inline]
pub fn eoi() {
    write(Register::EOI, 0);
}

/// Sends a fixed interrupt to the processor with APIC id `destination`.
pub fn send(destination: u32, vector: u8) {
    command(destination, ICR_ASSERT | u32::from(vector));
}

/// From now on kicks are NMIs: for Bochs, on which an interrupt that arrives in a guest with RFLAGS.IF clear delivers the virtual
/// interrupt that waits there, if one does. False where the APIC is not in x2APIC mode: an NMI between the two halves of a
/// command could not send its own.
#[must_use]
pub fn kick_by_nmi() -> bool {
    KICKS_ARE_NMIS.store(is_x2apic(), Ordering::Relaxed);
    is_x2apic()
}

/// Makes processor `number` look around: it leaves its guest or its halt, and [`crate::halt::take`] there says why.
pub fn kick(number: u32) {
    if let Some(other) = percpu::of(number) {
        let how = if KICKS_ARE_NMIS.load(Ordering::Relaxed) { ICR_NMI } else { u32::from(KICK) };
        command(other.apic_id(), ICR_ASSERT | how);
    }
}

/// Of what a processor is told that takes in posted interrupts by itself.
pub struct Notice<'a> {
    vector: u8,
    requests: &'a [AtomicU64; 4],
    virtual_apic: *const u8,
    state: &'a AtomicU32,
    expected: u32,
}

impl<'a> Notice<'a> {
    /// The notification has this `vector`; the descriptor these `requests`, which go to this page. It is for the guest that runs
    /// while `state` is `expected`.
    pub const fn new<T>(
        vector: u8,
        requests: &'a [AtomicU64; 4],
        virtual_apic: &'a T,
        state: &'a AtomicU32,
        expected: u32,
    ) -> Self {
        const { assert!(size_of::<T>() as u64 == PAGE_SIZE) };
        Self { vector, requests, virtual_apic: core::ptr::from_ref(virtual_apic).cast(), state, expected }
    }
}

/// The same for interrupts that were posted to the guest that runs there: a processor that can takes them in without leaving
/// its guest. False if it had to be a kick.
pub fn notify(number: u32, notice: &Notice<'_>) -> bool {
    let Some(other) = percpu::of(number) else { return false };
    let notification = ICR_ASSERT | u32::from(notice.vector);
    if KICKS_ARE_NMIS.load(Ordering::Relaxed) {
        core::sync::atomic::fence(Ordering::SeqCst);
        let &Notice { requests, virtual_apic, state, expected, .. } = notice;
        // SAFETY: it reads what it is given, of the page less than there is, and writes the ICR, as `command` does; the APIC is
        // in x2APIC mode.
        unsafe {
            notify_or_kick(requests, virtual_apic, other.apic_id(), notification, state, expected) == notification
        }
    } else {
        command(other.apic_id(), notification);
        true
    }
}

// On Bochs a notification does the same harm as a kick when an interrupt waits in the page, or when another guest runs, and
// delivers vector 255 when no request is left in the descriptor: then it is a kick. Bochs turns to another processor only behind a stretch of code without
// a jump, of at most 32 instructions within a page, so that nothing comes between look and send.
global_asm!(
    r#"
    .section .text.notify, "ax"
    .balign 128
notify_or_kick:
    mov r10d, {kick}
    cmp [r8], r9d
    cmovne ecx, r10d
    mov eax, [rsi + 0x200]
    or eax, [rsi + 0x210]
    or eax, [rsi + 0x220]
    or eax, [rsi + 0x230]
    or eax, [rsi + 0x240]
    or eax, [rsi + 0x250]
    or eax, [rsi + 0x260]
    or eax, [rsi + 0x270]
    cmovnz ecx, r10d
    mov rax, [rdi]
    or rax, [rdi + 8]
    or rax, [rdi + 16]
    or rax, [rdi + 24]
    cmovz ecx, r10d
    mov eax, ecx
    mov ecx, {icr}
    wrmsr
    ret
    "#,
    kick = const ICR_ASSERT | ICR_NMI,
    icr = const Msr::X2APIC_FIRST.0 + Register::ICR.0 as u32 / 16,
);

unsafe extern "sysv64" {
    /// The third argument, in EDX, is the high half of the command, the destination; the low half, `notification` or a kick, is
    /// returned.
    fn notify_or_kick(
        requests: &[AtomicU64; 4],
        virtual_apic: *const u8,
        destination: u32,
        notification: u32,
        state: &AtomicU32,
        expected: u32,
    ) -> u32;
}

/// Where kicks are NMIs: takes the notification of posts that L0 has just taken out of the descriptor, which must not find it
/// empty in a guest. True if a kick came with it: there may be more to look at.
#[inline(always)]
pub fn take_late() -> bool {
    KICKS_ARE_NMIS.load(Ordering::Relaxed) && take_pending()
}

#[cold]
fn take_pending() -> bool {
    let kicks = || percpu::this().kicks.load(Ordering::Relaxed);
    let before = kicks();
    // SAFETY: handlers set flags of this processor only.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) };
    kicks() != before
}

/// Whether kicks are NMIs, as on Bochs.
pub fn kicks_are_nmis() -> bool {
    KICKS_ARE_NMIS.load(Ordering::Relaxed)
}

/// An NMI came while L0 ran, which may have been a kick: it must still end a halt that is about to begin. It does not end a
/// guest's run that is about to begin, as only an interrupt could: one that is pending when Bochs enters a guest with interrupts
/// off delivers what waits for that guest. Runs are short enough there.
pub(crate) fn keep_kick() {
    if KICKS_ARE_NMIS.load(Ordering::Relaxed) {
        let this = percpu::this();
        this.kicks.fetch_add(1, Ordering::Release);
        this.kicked.store(true, Ordering::Release);
        if this.halting.load(Ordering::SeqCst) {
            send(id(), KICK);
        }
    }
}

/// Sends INIT to the processor with APIC id `destination`.
///
/// # Safety
/// The processor loses its state: nothing of L0 runs on it.
pub unsafe fn send_init(destination: u32) {
    command(destination, ICR_INIT | ICR_ASSERT);
}

/// Sends a start-up IPI: a processor that waits for one begins in real mode at `page` times 4 KiB.
///
/// # Safety
/// There is start-up code at that address.
pub unsafe fn send_startup(destination: u32, page: u8) {
    command(destination, ICR_STARTUP | ICR_ASSERT | u32::from(page));
}

#[inline(never)]
fn command(destination: u32, command: u32) {
    if is_x2apic() {
        let value = u64::from(destination) << 32 | u64::from(command);
        // In x2APIC mode the write to the ICR is not ordered behind earlier stores; the receiver must see them.
        core::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: an ICR write with reserved bits clear; the callers say what it does.
        unsafe { msr::write(Msr(Msr::X2APIC_FIRST.0 + u32::from(Register::ICR.0) / 16), value) };
    } else {
        write(Register::ICR_HIGH, destination << 24);
        write(Register::ICR, command);
        while read(Register::ICR) & ICR_PENDING != 0 {
            control::pause();
        }
    }
}

#[inline]
fn read(register: Register) -> u32 {
    if is_x2apic() {
        // SAFETY: the APIC is in x2APIC mode, where the registers that this module reads exist.
        let value = unsafe { msr::read(Msr(Msr::X2APIC_FIRST.0 + u32::from(register.0) / 16)) };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "all but the ICR, which is not read in this mode, have 32 bits"
        )]
        return value as u32;
    }
    in_page(register).read()
}

/// A register in the xAPIC's page.
#[inline]
fn in_page(register: Register) -> VolatilePtr<'static, u32> {
    let at = HostPhys(PAGE.load(Ordering::Relaxed)).add(u64::from(register.0));
    // SAFETY: the direct map does not begin at 0.
    let pointer = unsafe { NonNull::new_unchecked(physmem::pointer::<u32>(at)) };
    // SAFETY: `init` was promised that the page is mapped, and nothing but this module refers to it.
    unsafe { VolatilePtr::new(pointer) }
}

#[inline]
fn write(register: Register, value: u32) {
    if is_x2apic() {
        // SAFETY: the APIC is in x2APIC mode, where the registers that this module writes exist and take these values.
        unsafe { msr::write(Msr(Msr::X2APIC_FIRST.0 + u32::from(register.0) / 16), u64::from(value)) };
        return;
    }
    in_page(register).write(value);
}
