//! Interrupts that L1 posts for its L2 and the processor takes in by itself: SDM 3C 30.6 "Posted-Interrupt Processing".

use std::sync::mpsc;

use arch::apic::Register;
use arch::{GuestPhys, Vector, Width};
use nested::{Posted, Which};
use vmcs::controls::PinBased;
use vmcs::fields::*;
use vmcs::{Access, EventInfo, ExitReason};

use super::fakes::{Bench, POSTING, of_length};
use super::posted_interrupts::{
    DESCRIPTOR, NOTIFICATION, VIRTUAL_APIC, about_to_launch, assert_processed, order, status_of_l2,
};
use crate::*;

/// What vmcs02 says, if the processor has the descriptor, and what others know meanwhile.
type Seen = (Option<(u16, u64)>, Option<Posted>);

/// Lets L2 run until its slice is over.
fn while_l2_runs(bench: &mut Bench) -> Seen {
    let (tell, told) = mpsc::channel();
    bench.cpu.exit(ExitReason::PREEMPTION_TIMER, move |vmcs, _| {
        let has = vmcs.read(PIN_BASED_VM_EXEC_CONTROL) & PinBased::PROCESS_POSTED_INTERRUPTS.bits() != 0;
        let seen = has.then(|| (vmcs.read(POSTED_INTR_NV), vmcs.read(POSTED_INTR_DESC_ADDR)));
        tell.send(seen).expect("the test listens");
    });
    let slice_end = bench.cpu.tsc + 5;
    assert_eq!(bench.vcpu.run(&mut bench.cpu, &bench.world, slice_end), Left::SliceOver);
    (told.recv().expect("L2 ran"), bench.world.l2_takes_posts.get())
}

/// The guest exits; meanwhile, the vCPU is notified.
fn exit_with_notification(bench: &mut Bench, reason: ExitReason, vector: u8) {
    let mailbox = bench.world.mailbox;
    bench.cpu.exit(reason, move |vmcs, _| {
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
        vmcs.write(VM_EXIT_INTERRUPTION_INFO, EventInfo::external(0xf0).0);
        assert!(mailbox.post_for_l2(vector));
    });
}

/// L2's processor has the descriptor, with L0's notification instead of L1's, and others know as long as L2 runs.
#[test]
fn the_processor_has_the_descriptor_while_l2_runs() {
    let mut bench = about_to_launch(0x60, |_| {});
    let (vmcs02, known) = while_l2_runs(&mut bench);
    assert_eq!(vmcs02, Some((POSTING.notification.into(), DESCRIPTOR + testkit::Ram::HOST_OFFSET)));
    let virtual_apic = GuestPhys(VIRTUAL_APIC);
    assert_eq!(known, Some(Posted { notification: NOTIFICATION, descriptor: GuestPhys(DESCRIPTOR), virtual_apic }));
    assert_eq!(bench.run_script().last().expect("an entry").which, Which::Vmcs01);
    assert_eq!(bench.world.l2_takes_posts.get(), None);
}

/// Where the processor cannot write, it has none; nor where L1 asks for none.
#[test]
fn the_processor_has_no_descriptor_where_there_is_none() {
    let hole = testkit::Ram::HOLE.start;
    let off = !PinBased::PROCESS_POSTED_INTERRUPTS.bits();
    let changes: [fn(&mut testkit::FakeVmcs, u64, u32); 3] = [
        |vmcs12, hole, _| vmcs12.write(POSTED_INTR_DESC_ADDR, hole),
        |vmcs12, hole, _| vmcs12.write(VIRTUAL_APIC_PAGE_ADDR, hole),
        |vmcs12, _, off| vmcs12.write(PIN_BASED_VM_EXEC_CONTROL, vmcs12.read(PIN_BASED_VM_EXEC_CONTROL) & off),
    ];
    for change in changes {
        let mut bench = about_to_launch(0x60, |vmcs12| change(vmcs12, hole, off));
        assert_eq!(while_l2_runs(&mut bench), (None, None));
    }
}

/// A notification that L1's APIC would hold back must not reach the processor, which knows nothing of that APIC.
#[test]
fn l1_s_task_priority_holds_the_notification_back() {
    for (priority, known) in [(0x40, true), (0x50, false), (0x60, false)] {
        let mut bench = about_to_launch(0x60, |_| {});
        bench.vcpu.apic.registers().write_mmio(Register::TPR.0, Width::Dword, priority, 0, &bench.world);
        assert_eq!(while_l2_runs(&mut bench).1.is_some(), known, "TPR {priority:#x}");
    }
}

/// Whether the processor was quicker than the exit or not, the notification was L2's: it is over when L1 runs.
#[test]
fn an_exit_comes_behind_the_notification() {
    for reason in [ExitReason::CPUID, ExitReason::VMCALL] {
        let mut bench = about_to_launch(0x60, |_| {});
        exit_with_notification(&mut bench, reason, NOTIFICATION);
        assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs01]);
        assert_processed(&mut bench, 0x60);
        assert_eq!(status_of_l2(&mut bench), 0x60);

        let mut bench = about_to_launch(0x60, |_| {});
        bench.world.memory.set(DESCRIPTOR + 8, 0);
        exit_with_notification(&mut bench, reason, NOTIFICATION);
        assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs01]);
        assert_eq!(bench.vcpu.apic.registers().highest_requested(), None);
        assert_eq!(status_of_l2(&mut bench), 0);
    }
}

/// One that arrives in L0 is taken in before L2 runs on.
#[test]
fn the_notification_comes_while_l0_runs() {
    let mut bench = about_to_launch(0x60, |_| {});
    exit_with_notification(&mut bench, ExitReason::EXTERNAL_INTERRUPT, NOTIFICATION);
    bench.cpu.exit(ExitReason::CPUID, of_length(2));
    assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs02, Which::Vmcs01]);
    assert_processed(&mut bench, 0x60);
}

/// Whoever notified saw L2 run, but it runs no more: L1 has an interrupt.
#[test]
fn the_notification_comes_too_late_for_l2() {
    let mut bench = about_to_launch(0x60, |_| {});
    bench.cpu.exit(ExitReason::CPUID, of_length(2));
    exit_with_notification(&mut bench, ExitReason::EXTERNAL_INTERRUPT, NOTIFICATION);
    bench.run_script();
    assert_eq!(bench.vcpu.apic.registers().highest_requested(), Some(Vector(NOTIFICATION)));
    assert_eq!(bench.world.memory.get(DESCRIPTOR + 32), 0xab01, "nobody touched the descriptor");
}

/// The same if L1 has chosen another vector meanwhile.
#[test]
fn the_notification_has_another_vector() {
    let mut bench = about_to_launch(0x60, |_| {});
    exit_with_notification(&mut bench, ExitReason::EXTERNAL_INTERRUPT, NOTIFICATION + 1);
    assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs01]);
    assert_eq!(bench.world.memory.get(DESCRIPTOR + 32), 0xab01, "nobody touched the descriptor");
}

/// An L2 in HLT has no processor that could take anything in.
#[test]
fn the_notification_ends_hlt() {
    let mut bench = about_to_launch(0x60, |vmcs12| vmcs12.write(GUEST_ACTIVITY_STATE, 1));
    assert_eq!(bench.run(), Left::Halted { deaf: false });
    assert!(bench.world.mailbox.post_for_l2(NOTIFICATION));
    assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs01]);
    assert_processed(&mut bench, 0x60);
}
