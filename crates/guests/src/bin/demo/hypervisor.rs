//! The demo as a hypervisor: a guest of its own, what it does, and how often that came to us.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use arch::Gpr;
use guests::vmx::ept::{ALL, Ept, WRITE_BACK};
use guests::vmx::{Current, L2, Report, instructions, setup};
use guests::{cpu, memory, port, print, println};
use vmcs::controls::{PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::{EPT_POINTER, GUEST_PHYSICAL_ADDRESS, VMX_PREEMPTION_TIMER_VALUE};
use vmcs::{Access, EptVpid, ExitReason};

/// A port that no machine has; our guest's console.
const CONSOLE: u16 = 0xe9;
/// Memory of ours that our guest finds missing at first.
const MISSING: u64 = 16 << 20;
/// What our guest reads there.
const TREASURE: u64 = 0x7ea5_04e5;
/// Ticks of the preemption timer that our guest has to itself.
const SLICE: u32 = 10_000;

/// Says to our guest that its time was up once.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub(crate) fn show() {
    if !setup::is_offered() {
        println!("There is no VMX here, so this guest runs no guests of its own.");
        return;
    }
    println!("There is VMX here: this guest is a hypervisor now, and runs a guest of its own.");
    setup::on();
    let mut l2 = L2::new(guest);
    l2.control(|controls| controls.primary |= PrimaryBased::HLT_EXITING | PrimaryBased::UNCONDITIONAL_IO_EXITING);
    let tables = Ept::identity();
    if l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_EPT) {
        Current.write(EPT_POINTER, tables.pointer());
        memory::write(MISSING, TREASURE);
        memory::write(tables.entry(MISSING, 1), 0_u64);
        if l2.capabilities.ept_vpid.contains(EptVpid::INVEPT) {
            let _ = instructions::invept(2, [0, 0]);
        }
    }
    if l2.control(|controls| controls.pin |= PinBased::ACTIVATE_PREEMPTION_TIMER) {
        Current.write(VMX_PREEMPTION_TIMER_VALUE, SLICE);
    } else {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let mut counts = [0_u32; ExitReason::COUNT];
    loop {
        let report = l2.run();
        let Some(reason) = report.reason() else { return println!("  VM entry failed: {report}") };
        if let Some(count) = counts.get_mut(usize::from(reason.0)) {
            *count += 1;
        }
        if report.is_done() {
            break;
        }
        if !handle(&mut l2, tables, &report) {
            return println!("  our guest stopped: {report}");
        }
    }
    let _ = instructions::vmclear(l2.region);
    let _ = instructions::vmxoff();
    println!("Our guest has ended. Why it came back to us:");
    for (number, count) in counts.into_iter().enumerate().filter(|(_, count)| *count != 0) {
        println!("  {count:5}  {}", ExitReason(number as u16).name());
    }
}

/// Does what our guest left for; false when nobody knows what that is.
fn handle(l2: &mut L2, tables: Ept, report: &Report) -> bool {
    match report.reason() {
        Some(ExitReason::EPT_VIOLATION) => {
            let page = Current.read(GUEST_PHYSICAL_ADDRESS) & !0xfff;
            memory::write(tables.entry(page, 1), page | ALL | WRITE_BACK);
            return true;
        }
        Some(ExitReason::PREEMPTION_TIMER) => {
            INTERRUPTED.store(true, Ordering::Relaxed);
            l2.control(|controls| controls.pin -= PinBased::ACTIVATE_PREEMPTION_TIMER);
            return true;
        }
        Some(ExitReason::CPUID) => {
            let answer = cpu::cpuid(l2.regs.eax(), l2.regs.ecx());
            l2.regs.set(Gpr::Rax, answer.eax.into());
            l2.regs.set(Gpr::Rbx, answer.ebx.into());
            l2.regs.set(Gpr::Rcx, answer.ecx.into());
            l2.regs.set(Gpr::Rdx, answer.edx.into());
        }
        // The port's number is bits 31:16, the value AL: SDM 3C "Exit Qualification for I/O Instructions".
        Some(ExitReason::IO) if report.qualification() >> 16 == u64::from(CONSOLE) => {
            print!("{}", char::from(l2.regs.eax() as u8));
        }
        Some(ExitReason::HLT) => {}
        _ => return false,
    }
    l2.skip();
    true
}

fn say(text: &str) {
    text.bytes().for_each(|byte| port::out8(CONSOLE, byte));
}

/// What runs in the guest of the guest.
fn guest() {
    say("  | Hello from the guest of the guest.\n");
    for leaf in 0..4 {
        cpu::cpuid(leaf, 0);
    }
    if memory::read::<u64>(MISSING) == TREASURE {
        say("  | A page was missing, and came when it was touched.\n");
    }
    // SAFETY: our hypervisor goes on behind it.
    unsafe { asm!("hlt", options(nostack)) };
    say("  | Halted, and was woken.\n");
    while !INTERRUPTED.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
    say("  | Counted to many, and was interrupted.\n");
}
