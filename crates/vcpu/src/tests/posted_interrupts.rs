//! Interrupts that L1 posts for its L2: SDM 3C 30.6 "Posted-Interrupt Processing".

use nested::Which;
use vmcs::controls::{PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, EventInfo, ExitReason};

use super::fakes::{Bench, of_length};
use crate::*;

pub(super) const VIRTUAL_APIC: u64 = 0x6_0000;
/// 64 bytes are its alignment, and no more.
pub(super) const DESCRIPTOR: u64 = 0x6_1040;
pub(super) const NOTIFICATION: u8 = 0x55;
const HLT: u32 = 1;

/// An L1 that is about to execute VMLAUNCH of an L2 to which interrupts are posted, of which `posted` is.
pub(super) fn about_to_launch(posted: u8, change: impl FnOnce(&mut testkit::FakeVmcs)) -> Bench {
    let mut bench = Bench::with_vmx(0, |vmcs12| {
        let pin = PinBased::EXTERNAL_INTERRUPT_EXITING | PinBased::PROCESS_POSTED_INTERRUPTS;
        vmcs12.write(PIN_BASED_VM_EXEC_CONTROL, vmcs12.read(PIN_BASED_VM_EXEC_CONTROL) | pin.bits());
        let primary = PrimaryBased::USE_TPR_SHADOW | PrimaryBased::ACTIVATE_SECONDARY_CONTROLS;
        vmcs12.write(CPU_BASED_VM_EXEC_CONTROL, vmcs12.read(CPU_BASED_VM_EXEC_CONTROL) | primary.bits());
        let secondary = SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY | SecondaryBased::APIC_REGISTER_VIRTUALIZATION;
        vmcs12.write(SECONDARY_VM_EXEC_CONTROL, vmcs12.read(SECONDARY_VM_EXEC_CONTROL) | secondary.bits());
        vmcs12.write(VIRTUAL_APIC_PAGE_ADDR, VIRTUAL_APIC);
        vmcs12.write(POSTED_INTR_DESC_ADDR, DESCRIPTOR);
        vmcs12.write(POSTED_INTR_NV, NOTIFICATION.into());
        vmcs12.write(GUEST_RFLAGS, 0x202);
        change(vmcs12);
    })
    .with_interrupts();
    bench.cpu.vmcs.write(GUEST_RFLAGS, 2);
    bench.world.memory.set(DESCRIPTOR + u64::from(posted / 64) * 8, 1 << (posted % 64));
    // Outstanding notification; software's own bits beside it stay.
    bench.world.memory.set(DESCRIPTOR + 32, 0xab01);
    bench.cpu.exit(ExitReason::VMLAUNCH, of_length(3));
    bench
}

/// Nothing happens but that the time that L0 gave L2 is over.
fn time_is_over(bench: &mut Bench) {
    bench.cpu.exit(ExitReason::PREEMPTION_TIMER, |_, _| {});
}

pub(super) fn order(bench: &mut Bench) -> Vec<Which> {
    bench.run_script().iter().map(|entry| entry.which).collect()
}

pub(super) fn status_of_l2(bench: &mut Bench) -> u64 {
    let nested = bench.vcpu.nested.as_mut().expect("L1 has VMX");
    nested.vmread(&mut bench.cpu, GUEST_INTERRUPT_STATUS.encoding().0.into()).expect("a field that exists")
}

/// Whether the interrupt arrived where the processor looks for it, and was taken from where it was posted.
pub(super) fn assert_processed(bench: &mut Bench, posted: u8) {
    let memory = &bench.world.memory;
    let requests = VIRTUAL_APIC + 0x200 + u64::from(posted / 32) * 16;
    assert_eq!(memory.get(requests), 1 << (posted % 32), "VIRR");
    assert_eq!(memory.get(DESCRIPTOR + u64::from(posted / 64) * 8), 0, "posted once");
    assert_eq!(memory.get(DESCRIPTOR + 32), 0xab00, "the notification is not outstanding any more");
    let apic = bench.vcpu.apic.registers();
    assert_eq!((apic.highest_requested(), apic.highest_in_service()), (None, None), "L1's APIC is done with it");
}

/// "Posted interrupt for L2 delivered as an exit instead of being processed: wrong vector path." L2 goes on, with the
/// interrupt in VIRR and in RVI, and L1 sees neither an exit nor an interrupt.
#[test]
fn notification_is_processed_while_l2_runs() {
    for posted in [0x31, 0x60, 0xff] {
        let mut bench = about_to_launch(posted, |_| {});
        bench.cpu.exit(ExitReason::EXTERNAL_INTERRUPT, |vmcs, _| {
            vmcs.write(VM_EXIT_INTERRUPTION_INFO, EventInfo::external(0xf0).0);
        });
        // It arrives with a kick while L2 runs.
        bench.world.mailbox.post(NOTIFICATION, false);
        time_is_over(&mut bench);
        assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs02, Which::Vmcs02, Which::Vmcs01]);
        assert_processed(&mut bench, posted);
        assert_eq!(status_of_l2(&mut bench), posted.into());
    }
}

/// What is requested already and higher stays RVI; what is in service stays SVI.
#[test]
fn the_highest_request_counts() {
    let mut bench = about_to_launch(0x60, |vmcs12| vmcs12.write(GUEST_INTERRUPT_STATUS, 0x4170));
    bench.world.mailbox.post(NOTIFICATION, false);
    time_is_over(&mut bench);
    bench.run_script();
    assert_processed(&mut bench, 0x60);
    assert_eq!(status_of_l2(&mut bench), 0x4170);
}

/// A notification of nothing requests nothing; Bochs then requests vector 255.
#[test]
fn a_notification_of_nothing_requests_nothing() {
    let mut bench = about_to_launch(0x60, |vmcs12| vmcs12.write(GUEST_INTERRUPT_STATUS, 0x4130));
    bench.world.memory.set(DESCRIPTOR + 8, 0);
    bench.world.mailbox.post(NOTIFICATION, false);
    time_is_over(&mut bench);
    bench.run_script();
    assert_eq!(status_of_l2(&mut bench), 0x4130);
}

/// Another vector is an exit, though interrupts are posted; and so is the notification's while nothing is processed: L1 asks
/// for neither.
#[test]
fn other_vectors_exit() {
    let mut bench = about_to_launch(0x60, |_| {});
    bench.world.mailbox.post(NOTIFICATION + 1, false);
    time_is_over(&mut bench);
    assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs01]);
    let off = PinBased::PROCESS_POSTED_INTERRUPTS.bits();
    let mut bench = about_to_launch(0x60, |vmcs12| {
        vmcs12.write(PIN_BASED_VM_EXEC_CONTROL, vmcs12.read(PIN_BASED_VM_EXEC_CONTROL) & !off);
    });
    bench.world.mailbox.post(NOTIFICATION, false);
    time_is_over(&mut bench);
    assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs01]);
    assert_eq!(bench.world.memory.get(DESCRIPTOR + 32), 0xab01, "nobody touched the descriptor");
}

/// "Pending posted interrupt not seen as a nested event: L2 stays in HLT." It wakes L2 if L2 can take it: by its flag, its task
/// priority, and what it has in service.
#[test]
fn posted_interrupt_ends_hlt() {
    for (flags, vtpr, svi, wakes) in [
        (0x202, 0, 0, true),
        (2, 0, 0, false),
        (0x202, 0x60, 0, false),
        (0x202, 0, 0x61, false),
        (0x202, 0x5f, 0x51, true),
    ] {
        let mut bench = about_to_launch(0x60, |vmcs12| {
            vmcs12.write(GUEST_ACTIVITY_STATE, HLT);
            vmcs12.write(GUEST_RFLAGS, flags);
            vmcs12.write(GUEST_INTERRUPT_STATUS, svi << 8);
        });
        bench.world.memory.set(VIRTUAL_APIC + 0x80, vtpr);
        assert_eq!(bench.run(), Left::Halted { deaf: false });
        assert_eq!(bench.cpu.entries.len(), 1, "L2 sleeps");
        bench.world.mailbox.post(NOTIFICATION, false);
        let left = bench.run();
        assert_processed(&mut bench, 0x60);
        if wakes {
            assert_eq!(left, Left::Stop(Stop::TripleFault), "the end of the script");
            assert_eq!(bench.cpu.entries[1].which, Which::Vmcs02);
        } else {
            assert_eq!((left, bench.cpu.entries.len()), (Left::Halted { deaf: false }, 1));
        }
    }
}

/// An L2 that is entered in HLT with a virtual interrupt that it can take does not sleep (SDM 3C 27.3.2.5 "Updating
/// Non-Register State": the entry evaluates what is pending). Bochs does.
#[test]
fn virtual_interrupt_ends_hlt_at_entry() {
    let mut bench = about_to_launch(0x60, |vmcs12| {
        vmcs12.write(GUEST_ACTIVITY_STATE, HLT);
        vmcs12.write(GUEST_INTERRUPT_STATUS, 0x70);
    });
    assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs01]);
}

/// The same of an L2 that executes HLT right behind STI: HLT ends the blocking.
#[test]
fn virtual_interrupt_ends_hlt_behind_sti() {
    let mut bench = about_to_launch(0x60, |vmcs12| {
        let primary = vmcs12.read(CPU_BASED_VM_EXEC_CONTROL) & !PrimaryBased::HLT_EXITING.bits();
        vmcs12.write(CPU_BASED_VM_EXEC_CONTROL, primary);
    });
    bench.cpu.exit(ExitReason::HLT, |vmcs, _| {
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 1);
        vmcs.write(GUEST_INTERRUPTIBILITY_INFO, 1);
        vmcs.write(GUEST_INTERRUPT_STATUS, 0x70);
    });
    assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs02, Which::Vmcs01]);
}

/// A descriptor or a virtual-APIC page where L1 has no memory: ones are read there, nothing is written anywhere, and L0 is well.
#[test]
fn no_memory_for_descriptor_or_page() {
    let hole = testkit::Ram::HOLE.start;
    for (field, rvi) in [(POSTED_INTR_DESC_ADDR, 0xff), (VIRTUAL_APIC_PAGE_ADDR, 0x60)] {
        for at in [hole, testkit::Ram::END, 0xfee0_0000] {
            let mut bench = about_to_launch(0x60, |vmcs12| vmcs12.write(field, at));
            bench.world.mailbox.post(NOTIFICATION, false);
            time_is_over(&mut bench);
            assert_eq!(order(&mut bench), [Which::Vmcs01, Which::Vmcs02, Which::Vmcs02, Which::Vmcs01]);
            assert_eq!(status_of_l2(&mut bench), rvi);
        }
    }
}

/// An exit of L0's own cuts the delivery of a virtual interrupt short, and Bochs tells of the #UD that came before: L0 delivers
/// the interrupt, which is in service. With interrupts off, or nothing in service, what is told is true.
#[test]
fn virtual_interrupt_cut_short_is_injected() {
    let ud = EventInfo::hardware_exception(arch::Vector(6), false);
    for (flags, svi, again) in [(0x202, 0x61, EventInfo::external(0x61)), (2, 0x61, ud), (0x202, 0, ud)] {
        let mut bench = about_to_launch(0x60, |_| {});
        bench.cpu.exit(ExitReason::EXTERNAL_INTERRUPT, move |vmcs, _| {
            vmcs.write(VM_EXIT_INTERRUPTION_INFO, EventInfo::external(0xf0).0);
            vmcs.write(IDT_VECTORING_INFO, ud.0);
            vmcs.write(GUEST_RFLAGS, flags);
            vmcs.write(GUEST_INTERRUPT_STATUS, svi << 8);
        });
        assert_eq!(bench.run_script()[2].event, again);
    }
}
