//! Instructions that exit: what they do to registers, and that RIP moves or not.

use arch::{Gpr, Msr, Vector};
use vmcs::controls::SecondaryBased;
use vmcs::fields::*;
use vmcs::{Access, EventInfo, ExitReason};

use super::fakes::{Bench, of_length};
use crate::*;

const START: u64 = 0x10_0000;

/// CPUID costs six VMREADs: reason, CR4 for OSXSAVE, then length, RIP, interruptibility and RFLAGS.
#[test]
fn cpuid_reads_six_fields() {
    let mut bench = Bench::new(0);
    bench.cpu.exit(ExitReason::CPUID, |vmcs, regs| {
        regs.set(Gpr::Rax, 1);
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
    });
    // The second exit forgets the reads of the first only after the entry between them.
    let reads = std::rc::Rc::new(std::cell::RefCell::new(0));
    let seen = reads.clone();
    bench.cpu.exit(ExitReason::TRIPLE_FAULT, move |vmcs, _| *seen.borrow_mut() = vmcs.reads().len());
    bench.run_script();
    // The fake's own five reads at the entry come on top.
    assert_eq!(*reads.borrow(), 6 + 5);
    assert_eq!(bench.cpu.entries[1].rip, START + 2);
    assert_ne!(bench.vcpu.regs.get(Gpr::Rcx) & 1 << 31, 0, "a hypervisor answers");
}

/// A loop of PAUSEs lets another vCPU have the processor, once, and the loop goes on behind the PAUSE. L2 keeps those that L1 asked
/// for: the control is vmcs01's.
#[test]
fn spinning_leaves_the_processor() {
    let mut bench = Bench::new(0);
    let machine = vmcs::Capabilities::read(testkit::capability_msrs);
    bench.vcpu.notice_spinning(&mut bench.cpu, &machine);
    let secondary = SecondaryBased::from_bits_retain(bench.cpu.vmcs.read(SECONDARY_VM_EXEC_CONTROL));
    assert!(secondary.contains(SecondaryBased::PAUSE_LOOP_EXITING | SecondaryBased::ENABLE_EPT));
    assert!(bench.cpu.vmcs.read(PLE_GAP) < bench.cpu.vmcs.read(PLE_WINDOW));
    bench.cpu.exit(ExitReason::PAUSE, of_length(2));
    assert_eq!(bench.run(), Left::Spins);
    assert_eq!(bench.run_script()[1].rip, START + 2);
}

/// RFLAGS.TF owes a single-step trap after an emulated instruction, with DR6.BS.
#[test]
fn single_step_traps_after_an_emulated_instruction() {
    let mut bench = Bench::new(0);
    bench.cpu.exit(ExitReason::CPUID, |vmcs, _| {
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
        vmcs.write(GUEST_RFLAGS, 0x102);
    });
    let entry = bench.run_script()[1];
    assert_eq!((entry.event, entry.rip), (EventInfo::hardware_exception(Vector::DB, false), START + 2));
    assert_ne!(bench.cpu.dr6 & 1 << 14, 0);
}

/// A debugger that steps through REP OUTSB stops after every byte, not after those that L0 did in one go: RIP stays, RCX
/// counts, and RF holds a breakpoint at the instruction back (SDM 3B 18.3.1.4 "Single-Step Exception Condition").
#[test]
fn single_step_traps_after_each_iteration() {
    const TF: u64 = 1 << 8;
    const RF: u64 = 1 << 16;
    let bytes_to_port_0x21_with_rep = 0x21_0000 | 1 << 5 | 1 << 4;
    for (flags, left, rip, expected) in
        [(TF, 2, START, EventInfo::hardware_exception(Vector::DB, false)), (0, 0, START + 2, EventInfo(0))]
    {
        let mut bench = Bench::new(0);
        bench.cpu.exit(ExitReason::IO, move |vmcs, regs| {
            regs.set(Gpr::Rcx, 3);
            regs.set(Gpr::Rsi, 0x1000);
            // Address size 32 bits, segment DS.
            vmcs.write(VM_EXIT_INSTRUCTION_INFO, 1 << 7 | 3 << 15);
            vmcs.write(EXIT_QUALIFICATION, bytes_to_port_0x21_with_rep);
            vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
            vmcs.write(GUEST_RFLAGS, 2 | flags);
        });
        let entry = bench.run_script()[1];
        assert_eq!((entry.event, entry.rip, bench.vcpu.regs.get(Gpr::Rcx)), (expected, rip, left));
        assert_eq!(bench.cpu.vmcs.read(GUEST_RFLAGS) & RF != 0, left != 0);
    }
}

/// The RFLAGS that a fault saves have RF, those that a trap saves have not: a breakpoint at the instruction that faulted
/// would otherwise hit again when the handler returns to it.
#[test]
fn faults_save_the_resume_flag() {
    for (flags, resume) in [(0x2, true), (0x102, false)] {
        let mut bench = Bench::new(0);
        let faults = resume;
        bench.cpu.exit(if faults { ExitReason::RDPMC } else { ExitReason::CPUID }, move |vmcs, _| {
            vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
            vmcs.write(GUEST_RFLAGS, flags);
        });
        assert!(bench.run_script()[1].event.is_valid());
        assert_eq!(bench.cpu.vmcs.read(GUEST_RFLAGS) & 1 << 16 != 0, resume);
    }
}

/// Outside 64-bit mode RIP wraps at 4 GiB.
#[test]
fn rip_wraps_in_32_bit_mode() {
    let mut bench = Bench::new(0);
    bench.cpu.exit(ExitReason::CPUID, |vmcs, _| {
        vmcs.write(GUEST_RIP, 0xffff_ffff);
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
    });
    assert_eq!(bench.run_script()[1].rip, 1);
}

/// A register that L1's machine does not have: #GP(0) at the instruction, and a report.
#[test]
fn unknown_msr_faults_and_is_reported() {
    for reason in [ExitReason::RDMSR, ExitReason::WRMSR] {
        let mut bench = Bench::new(0);
        bench.cpu.exit(reason, |vmcs, regs| {
            regs.set(Gpr::Rcx, 0x1234_5678);
            vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
        });
        let entry = bench.run_script()[1];
        assert_eq!((entry.event, entry.error_code), (EventInfo::hardware_exception(Vector::GP, true), 0));
        assert_eq!(entry.rip, START, "a fault points at its instruction");
        let write = reason == ExitReason::WRMSR;
        assert_eq!(*bench.world.reports.borrow(), [Report::UnknownMsr { msr: Msr(0x1234_5678), write }]);
    }
}

/// Writing the TSC moves the offset, and IA32_TSC_ADJUST by as much.
#[test]
fn tsc_write_moves_offset_and_adjust() {
    let mut bench = Bench::new(0);
    bench.cpu.exit(ExitReason::WRMSR, |vmcs, regs| {
        regs.set(Gpr::Rcx, 0x10);
        regs.set_edx_eax(0x5_0000_0000);
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
    });
    bench.cpu.exit(ExitReason::RDMSR, |vmcs, regs| {
        regs.set(Gpr::Rcx, 0x3b);
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
    });
    bench.run_script();
    // The write happened at TSC 1010.
    let offset = 0x5_0000_0000 - 1010;
    assert_eq!(bench.cpu.vmcs.read(TSC_OFFSET), offset);
    assert_eq!(bench.vcpu.regs.edx_eax(), offset);
}

/// MOV to CR0 that changes CD: checked, put into the shadow, and executed again by the guest itself.
#[test]
fn cr0_owned_bits_go_to_the_shadow() {
    let mut bench = Bench::new(0);
    let mov_to_cr0_from_rax = 0;
    bench.cpu.exit(ExitReason::CONTROL_REGISTER, move |vmcs, regs| {
        regs.set(Gpr::Rax, 0x4000_0011);
        vmcs.write(EXIT_QUALIFICATION, mov_to_cr0_from_rax);
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 3);
    });
    bench.cpu.exit(ExitReason::CONTROL_REGISTER, move |vmcs, regs| {
        // NW without CD.
        regs.set(Gpr::Rax, 0x2000_0011);
        vmcs.write(EXIT_QUALIFICATION, mov_to_cr0_from_rax);
    });
    let entries = bench.run_script();
    assert_eq!((entries[1].rip, entries[1].event.is_valid()), (START, false));
    assert_eq!(entries[2].event, EventInfo::hardware_exception(Vector::GP, true));
    assert_eq!(bench.cpu.vmcs.read(CR0_READ_SHADOW) & 0x6000_0000, 0x4000_0000);
}

/// MOV to CR4 with a bit that CPUID does not offer: #GP(0).
#[test]
fn cr4_refuses_what_is_not_offered() {
    let mut bench = Bench::new(0);
    bench.cpu.exit(ExitReason::CONTROL_REGISTER, |vmcs, regs| {
        regs.set(Gpr::Rax, 1 << 13);
        vmcs.write(EXIT_QUALIFICATION, 4);
    });
    assert_eq!(bench.run_script()[1].event, EventInfo::hardware_exception(Vector::GP, true));
}

/// CR8 is the upper half of the task priority; a lower one lets a waiting interrupt through at once.
#[test]
fn cr8_opens_the_way() {
    let mut bench = Bench::new(0).with_interrupts();
    bench.vcpu.apic.registers().set_cr8(6, &bench.world).expect("6 is a priority");
    bench.world.mailbox.post(0x55, false);
    let mov_to_cr8_from_rax = 8;
    bench.cpu.exit(ExitReason::CONTROL_REGISTER, move |vmcs, regs| {
        regs.set(Gpr::Rax, 4);
        vmcs.write(EXIT_QUALIFICATION, mov_to_cr8_from_rax);
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 4);
    });
    let entries = bench.run_script();
    assert!(!entries[0].event.is_valid());
    assert_eq!((entries[1].event, entries[1].rip), (EventInfo::external(0x55), START + 4));
}

/// IN of a byte leaves the rest of RAX alone; of a double word it clears the upper half.
#[test]
fn in_changes_what_it_should() {
    for (qualification, expected) in [(0x3f8_0008u64, 0x1122_3344_5566_77ab), (0x3f8_000b, 0x0000_0000_1234_56ab)] {
        let mut bench = Bench::new(0);
        bench.world.ports.borrow_mut().insert(0x3f8, 0x1234_56ab);
        bench.cpu.exit(ExitReason::IO, move |vmcs, regs| {
            regs.set(Gpr::Rax, 0x1122_3344_5566_7788);
            vmcs.write(EXIT_QUALIFICATION, qualification);
            vmcs.write(VM_EXIT_INSTRUCTION_LEN, 1);
        });
        bench.run_script();
        assert_eq!(bench.vcpu.regs.get(Gpr::Rax), expected);
    }
}

/// XSETBV loads what is legal and refuses the rest with #GP(0).
#[test]
fn xsetbv_is_checked() {
    for (ecx, value, legal) in [(0, 7, true), (0, 5, false), (1, 7, false)] {
        let mut bench = Bench::new(0);
        bench.cpu.exit(ExitReason::XSETBV, move |vmcs, regs| {
            regs.set(Gpr::Rcx, ecx);
            regs.set_edx_eax(value);
            vmcs.write(VM_EXIT_INSTRUCTION_LEN, 3);
        });
        let entry = bench.run_script()[1];
        assert_eq!(entry.event.is_valid(), !legal);
        assert_eq!(bench.cpu.xcr0, if legal { 7 } else { 1 });
    }
}

/// What L0 did not ask for stops the VM with its reason: nothing is ignored.
#[test]
fn unexpected_exit_stops_the_vm() {
    let mut bench = Bench::new(0);
    bench.cpu.exit(ExitReason::INVLPG, |_, _| {});
    assert_eq!(bench.run(), Left::Stop(Stop::UnexpectedExit(ExitReason::INVLPG.0)));
}

/// APIC registers over a device or nothing are found there; over RAM they would not be, so the VM stops with a sentence
/// rather than go on with a page that is not what the guest believes.
#[test]
fn apic_over_memory_stops_the_vm() {
    for (base, stop) in [(0xfeb0_0000, Stop::TripleFault), (0x8_0000, Stop::ApicOverMemory(arch::GuestPhys(0x8_0000)))]
    {
        let mut bench = Bench::new(0);
        bench.cpu.exit(ExitReason::WRMSR, move |vmcs, regs| {
            regs.set(Gpr::Rcx, 0x1b);
            regs.set_edx_eax(base | 0x900);
            vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
        });
        assert_eq!(bench.run(), Left::Stop(stop));
    }
}
