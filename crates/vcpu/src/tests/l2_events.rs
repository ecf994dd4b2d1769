//! Events while L2 runs, and when they wait for it: SDM 3C 26.2 "Other Causes of VM Exits" and 27.7 "Special Features of VM
//! Entry".

use nested::Which;
use vmcs::controls::{ExitControls, PinBased, PrimaryBased};
use vmcs::fields::*;
use vmcs::{Access, EventInfo, ExitReason};

use super::fakes::{Bench, of_length};
use crate::*;

const INTERRUPT_WINDOW: u32 = PrimaryBased::INTERRUPT_WINDOW_EXITING.bits();
const NMI_WINDOW: u32 = PrimaryBased::NMI_WINDOW_EXITING.bits();
const EXTERNAL_INTERRUPT_EXITING: u32 = PinBased::EXTERNAL_INTERRUPT_EXITING.bits();
const HLT: u32 = 1;
const WAIT_FOR_SIPI: u32 = 3;

/// What L1's VMCS says of the last exit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) reason: ExitReason,
    pub(super) qualification: u64,
    pub(super) interruption: EventInfo,
}

/// An L1 that is about to execute VMLAUNCH, with an APIC that is on and interrupts that are off.
pub(super) fn about_to_launch(change: impl FnOnce(&mut testkit::FakeVmcs)) -> Bench {
    let mut bench = Bench::with_vmx(0, change).with_interrupts();
    bench.cpu.vmcs.write(GUEST_RFLAGS, 2);
    bench.cpu.exit(ExitReason::VMLAUNCH, of_length(3));
    bench
}

fn without(pin: u32) -> impl FnOnce(&mut testkit::FakeVmcs) {
    move |vmcs12| vmcs12.write(PIN_BASED_VM_EXEC_CONTROL, vmcs12.read(PIN_BASED_VM_EXEC_CONTROL) & !pin)
}

/// Nothing happens but that the time that L0 gave L2 is over, which was none.
pub(super) fn at_once(bench: &mut Bench) {
    bench.cpu.exit(ExitReason::PREEMPTION_TIMER, |_, _| {});
}

fn seen(bench: &mut Bench) -> Seen {
    let nested = bench.vcpu.nested.as_mut().expect("L1 has VMX");
    let mut read = |field: u32| nested.vmread(&mut bench.cpu, field.into()).expect("a field that exists");
    let low = |value: u64| u32::try_from(value).expect("a 32-bit field");
    Seen {
        reason: ExitReason(u16::try_from(read(EXIT_REASON.encoding().0)).expect("no failed entry")),
        qualification: read(EXIT_QUALIFICATION.encoding().0),
        interruption: EventInfo(low(read(VM_EXIT_INTERRUPTION_INFO.encoding().0))),
    }
}

/// Runs to the end of the script, where L1 runs; which VMCSs ran, and what L1 saw last.
pub(super) fn run(bench: &mut Bench) -> (Vec<Which>, Seen) {
    let order = bench.run_script().iter().map(|entry| entry.which).collect();
    (order, seen(bench))
}

pub(super) const TO_L2_AND_BACK: [Which; 3] = [Which::Vmcs01, Which::Vmcs02, Which::Vmcs01];

/// An interrupt that waits makes L2 exit before its first instruction, whatever the RFLAGS.IF of L1 and of L2: the exit
/// brings the vector, as L1 asked for that.
#[test]
fn interrupt_makes_l2_exit_and_is_acknowledged() {
    for flags in [2, 0x202] {
        let mut bench = about_to_launch(|vmcs12| vmcs12.write(GUEST_RFLAGS, flags));
        bench.world.mailbox.post(0x55, false);
        at_once(&mut bench);
        let (order, seen) = run(&mut bench);
        assert_eq!(order, TO_L2_AND_BACK);
        assert_eq!(bench.cpu.entries[1].timer, 0, "L2 executes nothing");
        let interruption = EventInfo::external(0x55);
        assert_eq!(seen, Seen { reason: ExitReason::EXTERNAL_INTERRUPT, qualification: 0, interruption });
        assert_eq!(bench.cpu.entries[2].primary & INTERRUPT_WINDOW, 0, "it is in service already");
    }
}

/// Without "acknowledge interrupt on exit" the exit brings no vector, and L1 gets the interrupt as it opens its window.
#[test]
fn interrupt_that_is_not_acknowledged_stays_pending() {
    let acknowledge = ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits();
    let mut bench =
        about_to_launch(|vmcs12| vmcs12.write(VM_EXIT_CONTROLS, vmcs12.read(VM_EXIT_CONTROLS) & !acknowledge));
    bench.world.mailbox.post(0x55, false);
    at_once(&mut bench);
    bench.cpu.exit(ExitReason::INTERRUPT_WINDOW, |vmcs, _| vmcs.write(GUEST_RFLAGS, 0x202));
    let (_, seen) = run(&mut bench);
    let interruption = EventInfo::NONE;
    assert_eq!(seen, Seen { reason: ExitReason::EXTERNAL_INTERRUPT, qualification: 0, interruption });
    let entries = &bench.cpu.entries;
    assert!(entries[2].which == Which::Vmcs01 && entries[2].primary & INTERRUPT_WINDOW != 0);
    assert_eq!(entries[3].event, EventInfo::external(0x55));
}

/// Where L1 lets L2 take interrupts, L2's own RFLAGS.IF decides: on, the interrupt goes into L2; off, L0 waits for L2's
/// window, of which L1 sees nothing.
#[test]
fn interrupt_goes_into_l2() {
    let mut bench = about_to_launch(without(EXTERNAL_INTERRUPT_EXITING));
    bench.world.mailbox.post(0x55, false);
    at_once(&mut bench);
    bench.run_script();
    assert!(bench.cpu.entries[2].which == Which::Vmcs02 && bench.cpu.entries[2].event == EventInfo::external(0x55));

    let mut bench = about_to_launch(|vmcs12| {
        without(EXTERNAL_INTERRUPT_EXITING)(vmcs12);
        vmcs12.write(GUEST_RFLAGS, 2);
    });
    bench.world.mailbox.post(0x55, false);
    at_once(&mut bench);
    bench.cpu.exit(ExitReason::INTERRUPT_WINDOW, |vmcs, _| vmcs.write(GUEST_RFLAGS, 0x202));
    let (order, seen) = run(&mut bench);
    assert_eq!(order[1..4], [Which::Vmcs02; 3]);
    let entries = &bench.cpu.entries;
    assert!(!entries[2].event.is_valid() && entries[2].primary & INTERRUPT_WINDOW != 0);
    assert!(entries[3].event == EventInfo::external(0x55) && entries[3].primary & INTERRUPT_WINDOW == 0);
    assert_eq!(seen.reason, ExitReason::TRIPLE_FAULT, "that of L2, at the end of the script");
}

/// "An interrupt for L2 counted as a wake event by L1's RFLAGS.IF: hang." L2 in HLT wakes if *L2* takes interrupts, or if
/// they make it exit; L1's flag, which is off here, and on in the second round, says nothing.
#[test]
fn halted_l2_wakes_by_its_own_flags() {
    for l1_flags in [2, 0x202] {
        for (exits, l2_flags, wakes) in [(true, 2, true), (true, 0x202, true), (false, 0x202, true), (false, 2, false)]
        {
            let mut bench = Bench::with_vmx(0, |vmcs12| {
                without(if exits { 0 } else { EXTERNAL_INTERRUPT_EXITING })(vmcs12);
                vmcs12.write(GUEST_ACTIVITY_STATE, HLT);
                vmcs12.write(GUEST_RFLAGS, l2_flags);
            })
            .with_interrupts();
            bench.cpu.exit(ExitReason::VMLAUNCH, move |vmcs, _| {
                vmcs.write(VM_EXIT_INSTRUCTION_LEN, 3);
                vmcs.write(GUEST_RFLAGS, l1_flags);
            });
            assert_eq!(bench.run(), Left::Halted { deaf: !exits && l2_flags == 2 });
            bench.world.mailbox.post(0x55, false);
            let which = |bench: &Bench| bench.cpu.entries[1].which;
            match bench.run() {
                Left::Stop(Stop::TripleFault) if wakes && exits => assert_eq!(which(&bench), Which::Vmcs01),
                Left::Stop(Stop::TripleFault) if wakes => {
                    assert!(which(&bench) == Which::Vmcs02 && bench.cpu.entries[1].event == EventInfo::external(0x55));
                }
                left => assert!(!wakes && left == Left::Halted { deaf: true }, "{left:?}"),
            }
        }
    }
}

/// A window that is open ends L2's HLT, before the NMI or the interrupt that it comes before.
#[test]
fn windows_of_l1_end_hlt() {
    const BY_NMI: u32 = 8;
    for (window, l2_flags, blocking, reason) in [
        (PrimaryBased::NMI_WINDOW_EXITING, 2, 0, Some(ExitReason::NMI_WINDOW)),
        (PrimaryBased::NMI_WINDOW_EXITING, 0x202, BY_NMI, None),
        (PrimaryBased::INTERRUPT_WINDOW_EXITING, 0x202, BY_NMI, Some(ExitReason::INTERRUPT_WINDOW)),
        (PrimaryBased::INTERRUPT_WINDOW_EXITING, 2, 0, None),
    ] {
        for has_interrupt in [false, true] {
            let mut bench = about_to_launch(|vmcs12| {
                vmcs12.write(GUEST_ACTIVITY_STATE, HLT);
                vmcs12.write(GUEST_RFLAGS, l2_flags);
                vmcs12.write(GUEST_INTERRUPTIBILITY_INFO, blocking);
                let pin = PinBased::NMI_EXITING | PinBased::VIRTUAL_NMIS;
                vmcs12.write(PIN_BASED_VM_EXEC_CONTROL, vmcs12.read(PIN_BASED_VM_EXEC_CONTROL) | pin.bits());
                vmcs12.write(CPU_BASED_VM_EXEC_CONTROL, vmcs12.read(CPU_BASED_VM_EXEC_CONTROL) | window.bits());
            });
            if has_interrupt {
                bench.world.mailbox.post(0x55, false);
            }
            let reason = reason.or(has_interrupt.then_some(ExitReason::EXTERNAL_INTERRUPT));
            let Some(reason) = reason else {
                assert!(matches!(bench.run(), Left::Halted { .. }), "{window:?}");
                continue;
            };
            let (order, seen) = run(&mut bench);
            assert_eq!((order.as_slice(), seen.reason), (&[Which::Vmcs01; 2][..], reason), "{window:?}");
        }
    }
}

/// An exit out of HLT says that L2 was halted, so that L1 can enter it again as it was.
#[test]
fn activity_state_is_saved() {
    let mut bench = about_to_launch(|vmcs12| vmcs12.write(GUEST_ACTIVITY_STATE, HLT));
    bench.world.mailbox.post(0x55, false);
    let (order, seen) = run(&mut bench);
    assert_eq!((order.as_slice(), seen.reason), (&[Which::Vmcs01; 2][..], ExitReason::EXTERNAL_INTERRUPT));
    let nested = bench.vcpu.nested.as_mut().unwrap();
    assert_eq!(nested.vmread(&mut bench.cpu, GUEST_ACTIVITY_STATE.encoding().0.into()), Ok(HLT.into()));
}

/// An NMI makes L2 exit, and blocks further ones in L1, as the exit delivered it.
#[test]
fn nmi_makes_l2_exit() {
    let mut bench = about_to_launch(|_| ());
    bench.cpu.vmcs.write(GUEST_INTERRUPTIBILITY_INFO, 8);
    bench.world.mailbox.post_nmi();
    at_once(&mut bench);
    let (order, seen) = run(&mut bench);
    assert_eq!(order, TO_L2_AND_BACK);
    let interruption = EventInfo::nmi();
    assert_eq!(seen, Seen { reason: ExitReason::EXCEPTION_OR_NMI, qualification: 0, interruption });
    assert_eq!(bench.cpu.vmcs.read(GUEST_INTERRUPTIBILITY_INFO), 8);
}

/// Without "NMI exiting" the NMI goes into L2. If L2 handles one already, L0 waits for its IRET, of which L1 sees nothing.
#[test]
fn nmi_goes_into_l2() {
    let nmi = (PinBased::NMI_EXITING | PinBased::VIRTUAL_NMIS).bits();
    for blocked in [false, true] {
        let mut bench = about_to_launch(|vmcs12| {
            without(nmi)(vmcs12);
            vmcs12.write(GUEST_INTERRUPTIBILITY_INFO, if blocked { 8 } else { 0 });
        });
        bench.cpu.vmcs.write(GUEST_INTERRUPTIBILITY_INFO, 8);
        bench.world.mailbox.post_nmi();
        at_once(&mut bench);
        if blocked {
            bench.cpu.exit(ExitReason::NMI_WINDOW, |vmcs, _| vmcs.write(GUEST_INTERRUPTIBILITY_INFO, 0));
        }
        bench.run_script();
        let entries = &bench.cpu.entries;
        let last = entries[if blocked { 3 } else { 2 }];
        assert!(last.which == Which::Vmcs02 && last.event == EventInfo::nmi(), "{entries:#?}");
        assert_eq!(blocked, entries[2].primary & NMI_WINDOW != 0);
    }
}

/// "Interrupt-window request taken from vmcs02's controls: spurious window exits." L0's request in vmcs02 is not L1's: the
/// exit is L1's if and only if vmcs12 asks for it.
#[test]
fn window_belongs_to_who_asked_for_it() {
    let mut bench = about_to_launch(|vmcs12| {
        let primary = vmcs12.read(CPU_BASED_VM_EXEC_CONTROL);
        vmcs12.write(CPU_BASED_VM_EXEC_CONTROL, primary | INTERRUPT_WINDOW);
    });
    bench.cpu.exit(ExitReason::INTERRUPT_WINDOW, |_, _| {});
    let (order, seen) = run(&mut bench);
    assert_eq!((order.as_slice(), seen.reason), (&TO_L2_AND_BACK[..], ExitReason::INTERRUPT_WINDOW));
    assert_eq!(bench.cpu.entries[2].primary & INTERRUPT_WINDOW, 0, "L1 itself waits for none");
}

/// VMX root operation blocks INIT; the L2 that L1 enters meets it, before its first instruction.
#[test]
fn init_waits_for_l2() {
    let mut bench = about_to_launch(|_| ());
    bench.world.mailbox.post_init();
    at_once(&mut bench);
    let (order, seen) = run(&mut bench);
    assert_eq!(order, TO_L2_AND_BACK);
    assert_eq!(seen, Seen { reason: ExitReason::INIT, qualification: 0, interruption: EventInfo::NONE });
}

/// "INIT pending at nested exit: processor bring-up hangs." L2 exits for something of its own with INIT pending: L2's next entry
/// meets it.
#[test]
fn init_outlives_an_exit() {
    let mut bench = about_to_launch(|_| ());
    bench.world.mailbox.post_init();
    bench.cpu.exit(ExitReason::CPUID, of_length(2));
    bench.cpu.exit(ExitReason::VMRESUME, of_length(3));
    at_once(&mut bench);
    let (order, seen) = run(&mut bench);
    assert_eq!(order, [Which::Vmcs01, Which::Vmcs02, Which::Vmcs01, Which::Vmcs02, Which::Vmcs01]);
    assert_eq!(seen.reason, ExitReason::INIT);
}

/// "INIT pending at VMXOFF: processor bring-up hangs." It is taken when VMXOFF ends the blocking.
#[test]
fn init_waits_for_vmxoff() {
    let mut bench = Bench::with_vmx(1, |_| ());
    bench.world.mailbox.post_startup(0);
    assert_eq!(bench.run(), Left::Stop(Stop::TripleFault), "it runs, in real mode");
    super::fakes::start_64_bit(&mut bench.cpu.vmcs);
    bench.world.mailbox.post_init();
    bench.cpu.exit(ExitReason::CPUID, of_length(2));
    bench.cpu.exit(ExitReason::VMXOFF, of_length(3));
    let before = bench.cpu.entries.len();
    assert_eq!(bench.run(), Left::WaitsForSipi);
    assert_eq!(bench.cpu.entries.len(), before + 2, "not before VMXOFF");
}

/// L2 in wait-for-SIPI meets the start-up IPI as an exit with its vector; interrupts and NMIs do not reach it.
#[test]
fn startup_ipi_is_an_exit() {
    let mut bench = about_to_launch(|vmcs12| vmcs12.write(GUEST_ACTIVITY_STATE, WAIT_FOR_SIPI));
    bench.world.mailbox.post(0x55, false);
    assert_eq!(bench.run(), Left::WaitsForSipi);
    bench.world.mailbox.post_startup(0x9a);
    let (order, seen) = run(&mut bench);
    assert_eq!(order, [Which::Vmcs01; 2], "L2 did not run");
    assert_eq!(seen, Seen { reason: ExitReason::SIPI, qualification: 0x9a, interruption: EventInfo::NONE });
}

/// The VMX-preemption timer of vmcs12: 0 ends L2 before its first instruction; what is far away does not end it at once.
#[test]
fn preemption_timer_of_l1() {
    for value in [0, 1000] {
        let mut bench = about_to_launch(|vmcs12| {
            let pin = vmcs12.read(PIN_BASED_VM_EXEC_CONTROL);
            vmcs12.write(PIN_BASED_VM_EXEC_CONTROL, pin | PinBased::ACTIVATE_PREEMPTION_TIMER.bits());
            vmcs12.write(VMX_PREEMPTION_TIMER_VALUE, value);
        });
        if value == 0 {
            at_once(&mut bench);
            let (order, seen) = run(&mut bench);
            assert_eq!((order.as_slice(), seen.reason), (&TO_L2_AND_BACK[..], ExitReason::PREEMPTION_TIMER));
        } else {
            bench.run_script();
            // The shift is 5, and ten ticks of the TSC pass with each run of the fake processor.
            assert!((990..=1000).contains(&bench.cpu.entries[1].timer), "{:?}", bench.cpu.entries[1]);
        }
    }
}

/// SDM 3A table 6-2: INIT, then the timer, then NMI, then the interrupt; the exits follow each other as L1 resumes L2.
#[test]
fn events_have_an_order() {
    let mut bench = about_to_launch(|vmcs12| {
        let pin = vmcs12.read(PIN_BASED_VM_EXEC_CONTROL);
        vmcs12.write(PIN_BASED_VM_EXEC_CONTROL, pin | PinBased::ACTIVATE_PREEMPTION_TIMER.bits());
        vmcs12.write(VMX_PREEMPTION_TIMER_VALUE, 0);
    });
    bench.cpu.vmcs.write(GUEST_INTERRUPTIBILITY_INFO, 8);
    bench.world.mailbox.post_init();
    bench.world.mailbox.post_nmi();
    bench.world.mailbox.post(0x55, false);
    let mut reasons = Vec::new();
    for round in 0..4 {
        if round > 0 {
            // Blocking by NMI, of L1, lasts until an IRET that it does not execute here.
            bench.cpu.vmcs.write(GUEST_INTERRUPTIBILITY_INFO, 8);
            bench.cpu.exit(ExitReason::VMRESUME, of_length(3));
        }
        at_once(&mut bench);
        assert_eq!(bench.run(), Left::Stop(Stop::TripleFault));
        reasons.push(seen(&mut bench).reason);
        let timer_off = 0x16 | 0x29;
        let nested = bench.vcpu.nested.as_mut().unwrap();
        if round == 1 {
            nested.vmwrite(&mut bench.cpu, PIN_BASED_VM_EXEC_CONTROL.encoding().0.into(), timer_off);
        }
    }
    let expected =
        [ExitReason::INIT, ExitReason::PREEMPTION_TIMER, ExitReason::EXCEPTION_OR_NMI, ExitReason::EXTERNAL_INTERRUPT];
    assert_eq!(reasons, expected);
}

/// An exit of L0's own cuts the delivery of an event short: L0 injects it again, and L1 sees nothing.
#[test]
fn event_cut_short_is_injected_again() {
    let mut bench = about_to_launch(|_| ());
    let event = EventInfo::hardware_exception(arch::Vector::PF, true);
    bench.cpu.exit(ExitReason::EXTERNAL_INTERRUPT, move |vmcs, _| {
        vmcs.write(VM_EXIT_INTERRUPTION_INFO, EventInfo::external(0x31).0);
        vmcs.write(IDT_VECTORING_INFO, event.0);
        vmcs.write(IDT_VECTORING_ERROR_CODE, 2);
    });
    bench.run_script();
    assert_eq!(bench.cpu.interrupts, [0x31], "the machine's interrupt is L0's");
    let again = bench.cpu.entries[2];
    assert_eq!((again.which, again.event, again.error_code), (Which::Vmcs02, event, 2));
}

/// An event that L1 injects comes before an interrupt that waits, which follows at once.
#[test]
fn injected_event_comes_first() {
    let mut bench = about_to_launch(|vmcs12| vmcs12.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::external(0x42).0));
    bench.world.mailbox.post(0x55, false);
    at_once(&mut bench);
    let (order, seen) = run(&mut bench);
    assert_eq!(order, TO_L2_AND_BACK);
    assert_eq!(bench.cpu.entries[1].event, EventInfo::external(0x42));
    assert_eq!((seen.reason, seen.interruption), (ExitReason::EXTERNAL_INTERRUPT, EventInfo::external(0x55)));
}
