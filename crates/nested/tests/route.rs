//! Whose an exit of L2 is: for each exit reason, with the control that decides off and on (SDM 3C 26.1 "Instructions That
//! Cause VM Exits" and 26.2 "Other Causes of VM Exits").

use arch::{Gpr, GuestRegs, Vector};
use nested::{Route, Which};
use testkit::NestedBench;
use vmcs::controls::{PinBased, PrimaryBased as P, SecondaryBased as S};
use vmcs::fields::*;
use vmcs::{Access, EventInfo, ExitReason as R};

/// L2 runs under the valid VMCS with these primary and secondary controls on or off.
fn running(primary: (P, bool), secondary: (S, bool)) -> NestedBench {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    let word = bench.read(CPU_BASED_VM_EXEC_CONTROL);
    bench.write(CPU_BASED_VM_EXEC_CONTROL, word & !primary.0.bits() | if primary.1 { primary.0.bits() } else { 0 });
    let word = bench.read(SECONDARY_VM_EXEC_CONTROL);
    bench.write(
        SECONDARY_VM_EXEC_CONTROL,
        word & !secondary.0.bits() | if secondary.1 { secondary.0.bits() } else { 0 },
    );
    bench.launch();
    bench
}

fn plain() -> NestedBench {
    running((P::empty(), false), (S::empty(), false))
}

fn route(bench: &mut NestedBench, reason: R) -> Route {
    bench.route(reason, &GuestRegs::default())
}

/// What exits whatever the controls say, or only because a control of L1's says so, is L1's.
#[test]
fn always_l1s() {
    let mut bench = plain();
    for reason in [
        R::TRIPLE_FAULT,
        R::TASK_SWITCH,
        R::CPUID,
        R::GETSEC,
        R::INVD,
        R::VMCALL,
        R::VMCLEAR,
        R::VMLAUNCH,
        R::VMPTRLD,
        R::VMPTRST,
        R::VMREAD,
        R::VMRESUME,
        R::VMWRITE,
        R::VMXOFF,
        R::VMXON,
        R::MONITOR_TRAP_FLAG,
        R::TPR_BELOW_THRESHOLD,
        R::APIC_ACCESS,
        R::VIRTUALIZED_EOI,
        R::INVEPT,
        R::INVVPID,
        R::XSETBV,
        R::APIC_WRITE,
        R::RDRAND,
        R::RDSEED,
        R::INVPCID,
        R::XSAVES,
        R::XRSTORS,
        R::ENTRY_FAILURE_GUEST_STATE,
        R::ENTRY_FAILURE_MSR_LOADING,
    ] {
        assert_eq!(route(&mut bench, reason), Route::L1, "{reason:?}");
    }
}

/// What is the machine's business is L0's, whatever L1 asked for.
#[test]
fn always_l0s() {
    let mut bench = plain();
    assert_eq!(route(&mut bench, R::EXTERNAL_INTERRUPT), Route::L0);
    assert_eq!(route(&mut bench, R::ENTRY_FAILURE_MACHINE_CHECK), Route::L0);
    for event in [EventInfo::nmi(), EventInfo::hardware_exception(Vector::MC, false)] {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        bench.write(EXCEPTION_BITMAP, u32::MAX);
        bench.launch();
        bench.run_l2(R::EXCEPTION_OR_NMI, |vmcs02| vmcs02.write(VM_EXIT_INTERRUPTION_INFO, event.0));
        assert_eq!(route(&mut bench, R::EXCEPTION_OR_NMI), Route::L0, "{event:?}");
    }
}

/// One primary control decides.
#[test]
fn by_primary_control() {
    for (control, reasons) in [
        (P::INTERRUPT_WINDOW_EXITING, &[R::INTERRUPT_WINDOW][..]),
        (P::NMI_WINDOW_EXITING, &[R::NMI_WINDOW]),
        (P::HLT_EXITING, &[R::HLT]),
        (P::INVLPG_EXITING, &[R::INVLPG]),
        (P::MWAIT_EXITING, &[R::MWAIT]),
        (P::RDPMC_EXITING, &[R::RDPMC]),
        (P::RDTSC_EXITING, &[R::RDTSC, R::RDTSCP]),
        (P::MOV_DR_EXITING, &[R::DEBUG_REGISTER]),
        (P::MONITOR_EXITING, &[R::MONITOR]),
        (P::PAUSE_EXITING, &[R::PAUSE]),
    ] {
        for (on, expected) in [(false, Route::L0), (true, Route::L1)] {
            let mut bench = running((control, on), (S::empty(), false));
            for &reason in reasons {
                assert_eq!(route(&mut bench, reason), expected, "{reason:?} with {control:?} {on}");
            }
        }
    }
}

/// One secondary control decides, if "activate secondary controls" is 1.
#[test]
fn by_secondary_control() {
    for (control, reasons) in [
        (S::DESCRIPTOR_TABLE_EXITING, &[R::GDTR_IDTR_ACCESS, R::LDTR_TR_ACCESS][..]),
        (S::WBINVD_EXITING, &[R::WBINVD]),
        (S::PAUSE_LOOP_EXITING, &[R::PAUSE]),
    ] {
        for (active, on, expected) in [(true, false, Route::L0), (true, true, Route::L1), (false, true, Route::L0)] {
            let mut bench = NestedBench::new(false).with_valid_vmcs12();
            let word = bench.read(SECONDARY_VM_EXEC_CONTROL);
            bench.write(SECONDARY_VM_EXEC_CONTROL, if on { word | control.bits() } else { word });
            if !active {
                let word = bench.read(CPU_BASED_VM_EXEC_CONTROL);
                bench.write(CPU_BASED_VM_EXEC_CONTROL, word & !P::ACTIVATE_SECONDARY_CONTROLS.bits());
            }
            bench.launch();
            for &reason in reasons {
                assert_eq!(route(&mut bench, reason), expected, "{reason:?} with {control:?} {on}, active {active}");
            }
        }
    }
}

/// An exception is L1's if its bit is set; a page fault that exits is always L1's, as L0 asks for none.
#[test]
fn exceptions() {
    for vector in 0..32 {
        for (bitmap, expected) in [(0, Route::L0), (1 << vector, Route::L1), (!(1 << vector), Route::L0)] {
            let expected = match Vector(vector) {
                Vector::PF => Route::L1,
                Vector::MC => Route::L0,
                _ => expected,
            };
            let mut bench = NestedBench::new(false).with_valid_vmcs12();
            bench.write(EXCEPTION_BITMAP, bitmap);
            bench.launch();
            let event = EventInfo::hardware_exception(Vector(vector), false);
            bench.run_l2(R::EXCEPTION_OR_NMI, |vmcs02| vmcs02.write(VM_EXIT_INTERRUPTION_INFO, event.0));
            assert_eq!(route(&mut bench, R::EXCEPTION_OR_NMI), expected, "vector {vector}, bitmap {bitmap:#x}");
        }
    }
}

/// A fault that L0 finds for L2 is L1's by the same bits, a page fault by mask and match too (SDM 3C 26.2, "Exceptions").
#[test]
fn faults_found_by_l0() {
    let page_fault = arch::Fault::Pf { address: 0x1234, error: 0b10 };
    for (bit, mask, matches, exits) in [
        (true, 0, 0, true),
        (false, 0, 0, false),
        (true, 0b10, 0b10, true),
        (true, 0b10, 0, false),
        (false, 0b10, 0, true),
        (false, 0b10, 0b10, false),
        (true, 0, 1, false),
        (false, 0, 1, true),
    ] {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        bench.write(EXCEPTION_BITMAP, if bit { 1 << 14 } else { 0 });
        bench.write(PAGE_FAULT_ERROR_CODE_MASK, mask);
        bench.write(PAGE_FAULT_ERROR_CODE_MATCH, matches);
        bench.launch();
        let exit = bench.nested.exit_for_fault(bench.vmcs(Which::Vmcs02), page_fault);
        assert_eq!(exit.is_some(), exits, "bit {bit}, mask {mask:#b}, match {matches:#b}");
        if let Some(exit) = exit {
            let event = EventInfo::hardware_exception(Vector::PF, true);
            assert_eq!((exit.reason, exit.qualification, exit.interruption, exit.error_code), (0, 0x1234, event, 2));
        }
    }
}

/// MOV to CR0 and CR4 exits for bits that L0 owns too: L1's are those that differ from its read shadow under its mask. All
/// other accesses to control registers exit only because L1 asked, but for CR8 without a TPR shadow.
#[test]
fn control_registers() {
    const TO_CR0: u64 = 0;
    const TO_CR4: u64 = 4;
    const RSP: u64 = 4 << 8;
    for (qualification, value, expected) in [
        (TO_CR0, 0x8001_0033, Route::L0),
        (TO_CR0, 0x8001_003b, Route::L1),
        (TO_CR0, 0xe001_0033, Route::L0),
        (TO_CR4, 0x2020, Route::L0),
        (TO_CR4, 0x20, Route::L1),
        (TO_CR4, 0x2060, Route::L0),
        (TO_CR0 | RSP, 0x8001_003b, Route::L1),
        (TO_CR0 | RSP, 0x8001_0033, Route::L0),
        // MOV to CR3, from CR3, CLTS, LMSW.
        (3, 0, Route::L1),
        (1 << 4 | 3, 0, Route::L1),
        (2 << 4, 0, Route::L1),
        (3 << 4, 0, Route::L1),
    ] {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        bench.write(CR0_GUEST_HOST_MASK, 0x8);
        bench.write(CR0_READ_SHADOW, 0);
        bench.write(CR4_GUEST_HOST_MASK, 0x2000);
        bench.write(CR4_READ_SHADOW, 0x2000);
        bench.launch();
        bench.run_l2(R::CONTROL_REGISTER, |vmcs02| {
            vmcs02.write(EXIT_QUALIFICATION, qualification);
            vmcs02.write(GUEST_RSP, if qualification & RSP == 0 { 0 } else { value });
        });
        let mut regs = GuestRegs::default();
        regs.set(Gpr::Rax, if qualification & RSP == 0 { value } else { 0 });
        assert_eq!(bench.route(R::CONTROL_REGISTER, &regs), expected, "{qualification:#x} of {value:#x}");
    }
    for (control, qualification) in [(P::CR8_LOAD_EXITING, 8), (P::CR8_STORE_EXITING, 1 << 4 | 8)] {
        for (on, expected) in [(false, Route::L0), (true, Route::L1)] {
            let mut bench = running((control, on), (S::empty(), false));
            bench.run_l2(R::CONTROL_REGISTER, |vmcs02| vmcs02.write(EXIT_QUALIFICATION, qualification));
            assert_eq!(route(&mut bench, R::CONTROL_REGISTER), expected, "{control:?}");
        }
    }
}

/// Ports: no bitmaps, the bits at both ends of both, an access across the border, one that wraps around, and bitmaps where
/// there is no memory (SDM 3C 25.6.4 "I/O-Bitmap Addresses").
#[test]
fn ports() {
    let unconditional = P::UNCONDITIONAL_IO_EXITING;
    for (bitmaps, always, expected) in [(false, false, Route::L0), (false, true, Route::L1), (true, true, Route::L0)] {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        let word = bench.read(CPU_BASED_VM_EXEC_CONTROL) & !(unconditional | P::USE_IO_BITMAPS).bits();
        let word =
            word | if bitmaps { P::USE_IO_BITMAPS.bits() } else { 0 } | if always { unconditional.bits() } else { 0 };
        bench.write(CPU_BASED_VM_EXEC_CONTROL, word);
        bench.launch();
        assert_eq!(port(&mut bench, 0x70, 1), expected, "bitmaps {bitmaps}, unconditional {always}");
    }
    for (set, port_number, width, expected) in [
        (0x0000, 0x0000, 1, Route::L1),
        (0x0000, 0x0001, 1, Route::L0),
        (0x0003, 0x0000, 4, Route::L1),
        (0x0004, 0x0000, 4, Route::L0),
        (0x7fff, 0x7fff, 1, Route::L1),
        (0x8000, 0x7fff, 1, Route::L0),
        (0x8000, 0x7fff, 2, Route::L1),
        (0x8000, 0x8000, 1, Route::L1),
        (0xffff, 0xffff, 1, Route::L1),
        (0xffff, 0xfffe, 2, Route::L1),
        (0x1234, 0xfffe, 4, Route::L1),
        (0x1234, 0xfffc, 4, Route::L0),
    ] {
        let mut bench = plain();
        let at = 0x1_0000 + (set / 64) * 8;
        bench.ram.set(at, 1 << (set % 64));
        assert_eq!(
            port(&mut bench, port_number, width),
            expected,
            "port {port_number:#x}, {width} bytes, bit {set:#x}"
        );
    }
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    bench.write(IO_BITMAP_A, 0xa_0000);
    bench.launch();
    assert_eq!((port(&mut bench, 0x70, 1), port(&mut bench, 0x8070, 1)), (Route::L1, Route::L0));
}

fn port(bench: &mut NestedBench, port: u64, bytes: u64) -> Route {
    bench.run_l2(R::IO, |vmcs02| vmcs02.write(EXIT_QUALIFICATION, port << 16 | (bytes - 1)));
    route(bench, R::IO)
}

/// RDMSR and WRMSR: no bitmap, the bits at the ends of the four parts, MSRs outside, a bitmap where there is no memory
/// (SDM 3C 25.6.9 "MSR-Bitmap Address").
#[test]
fn msrs() {
    let bitmap = 0x1_2000u64;
    for (set, msr, write, expected) in [
        (0, 0, false, Route::L1),
        (0, 0, true, Route::L0),
        (0, 1, false, Route::L0),
        (0x1fff, 0x1fff, false, Route::L1),
        (0x2000, 0xc000_0000, false, Route::L1),
        (0x3fff, 0xc000_1fff, false, Route::L1),
        (0x4000, 0, true, Route::L1),
        (0x5fff, 0x1fff, true, Route::L1),
        (0x6000, 0xc000_0000, true, Route::L1),
        (0x7fff, 0xc000_1fff, true, Route::L1),
        (0x7fff, 0xc000_1fff, false, Route::L0),
        // In no part: always an exit.
        (0, 0x2000, false, Route::L1),
        (0, 0xbfff_ffff, true, Route::L1),
        (0, 0xc000_2000, false, Route::L1),
        (0, 0xffff_ffff, true, Route::L1),
        (0, 0x4000_0000, true, Route::L1),
    ] {
        let mut bench = plain();
        bench.ram.set(bitmap + set / 64 * 8, 1 << (set % 64));
        assert_eq!(msr_access(&mut bench, msr, write), expected, "MSR {msr:#x}, write {write}, bit {set:#x}");
    }
    let mut bench = running((P::USE_MSR_BITMAPS, false), (S::empty(), false));
    assert_eq!(msr_access(&mut bench, 0x10, false), Route::L1);
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    bench.write(MSR_BITMAP, 0xa_0000);
    bench.launch();
    assert_eq!(msr_access(&mut bench, 0x10, false), Route::L1);
}

fn msr_access(bench: &mut NestedBench, msr: u64, write: bool) -> Route {
    let mut regs = GuestRegs::default();
    // RCX has garbage above ECX.
    regs.set(Gpr::Rcx, 0xdead_0000_0000_0000 | msr);
    bench.route(if write { R::WRMSR } else { R::RDMSR }, &regs)
}

/// The merged bitmap lets through what L0 lets through and L1 does too, and follows L1's memory at each entry.
#[test]
fn merged_msr_bitmap() {
    const SYSENTER_EIP: (usize, u32) = (0x176 / 64, 0x176 % 64);
    let mut bench = plain();
    let passes = |bench: &NestedBench, write: usize| {
        bench.nested.pages().msr_bitmap.words[SYSENTER_EIP.0 + write] >> SYSENTER_EIP.1 & 1 == 0
    };
    assert!(passes(&bench, 0) && passes(&bench, 256), "both let it through");
    let others = bench.nested.pages().msr_bitmap.words.iter().map(|word| word.count_zeros()).sum::<u32>();
    assert_eq!(others, 6, "SYSENTER's three, read and write, and none of which L0 says otherwise");
    bench.exit(R::CPUID, |_| ());
    bench.ram.set(0x1_2000 + 2048 + 0x176 / 64 * 8, 1 << SYSENTER_EIP.1);
    bench.resume();
    assert!(passes(&bench, 0) && !passes(&bench, 256), "L1 wants the writes now");
}

/// With "virtualize x2APIC mode" L1 decides about the MSRs that the processor then virtualizes, and only those (SDM 3C 30.5
/// "Virtualizing MSR-Based APIC Accesses"); without it none may reach the machine's APIC.
#[test]
fn x2apic_msrs() {
    let all = S::VIRTUALIZE_X2APIC_MODE | S::APIC_REGISTER_VIRTUALIZATION | S::VIRTUAL_INTERRUPT_DELIVERY;
    for (secondary, reads, writes) in [
        (S::empty(), &[][..], &[][..]),
        (S::VIRTUALIZE_X2APIC_MODE, &[0x808], &[0x808]),
        (S::VIRTUALIZE_X2APIC_MODE | S::VIRTUAL_INTERRUPT_DELIVERY, &[0x808], &[0x808, 0x80b, 0x83f]),
        (all, &[0x802, 0x808, 0x80b, 0x8ff], &[0x808, 0x80b, 0x83f]),
    ] {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        let word = bench.read(SECONDARY_VM_EXEC_CONTROL);
        bench.write(SECONDARY_VM_EXEC_CONTROL, word | secondary.bits());
        bench.launch();
        let words = &bench.nested.pages().msr_bitmap.words;
        let passes = |msr: usize, base: usize| words[base + msr / 64] >> (msr % 64) & 1 == 0;
        for &msr in reads {
            assert!(passes(msr, 0), "RDMSR of {msr:#x} with {secondary:?}");
        }
        let written: Vec<usize> = (0x800..0x900).filter(|&msr| passes(msr, 256)).collect();
        assert_eq!(written, writes, "WRMSR with {secondary:?}");
        // And back: the next VMCS may be without.
        bench.exit(R::CPUID, |_| ());
        bench.write(SECONDARY_VM_EXEC_CONTROL, word);
        bench.resume();
        let words = &bench.nested.pages().msr_bitmap.words;
        assert!([32, 33, 34, 35, 288, 289, 290, 291].iter().all(|&word| words[word] == u64::MAX));
    }
}

/// EPT exits are L0's to look at by L1's tables, if L1 has some. VMFUNC is L0's to execute.
#[test]
fn ept_and_vmfunc() {
    for (on, expected) in [(true, Route::Ept), (false, Route::L0)] {
        let mut bench = running((P::empty(), false), (S::ENABLE_EPT | S::UNRESTRICTED_GUEST, on));
        assert_eq!(route(&mut bench, R::EPT_VIOLATION), expected);
        assert_eq!(route(&mut bench, R::EPT_MISCONFIGURATION), expected);
        assert_eq!(route(&mut bench, R::VMFUNC), Route::VmFunction);
    }
}

/// The timer of vmcs02 is both L0's and L1's: the exit is L1's if L1's has run down.
#[test]
fn preemption_timer() {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    let pin = bench.read(PIN_BASED_VM_EXEC_CONTROL);
    bench.write(PIN_BASED_VM_EXEC_CONTROL, pin | PinBased::ACTIVATE_PREEMPTION_TIMER.bits());
    bench.write(VMX_PREEMPTION_TIMER_VALUE, 10);
    bench.launch();
    let deadline = bench.nested.timer_deadline();
    for (now, expected) in [(deadline - 1, Route::L0), (deadline, Route::L1), (deadline + 99, Route::L1)] {
        bench.cpu.tsc = now;
        assert_eq!(route(&mut bench, R::PREEMPTION_TIMER), expected);
    }
    assert_eq!(route(&mut plain(), R::PREEMPTION_TIMER), Route::L0, "L1 has none");
}

/// VMREAD and VMWRITE of L2 act on the shadow VMCS that L1 gave it, if its bitmaps say so (SDM 3C 25.6.15 "VMCS Shadowing
/// Bitmap Addresses"); the accesses have the error numbers that L1's would have.
#[test]
fn shadow_vmcs_of_l2() {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    let word = bench.read(SECONDARY_VM_EXEC_CONTROL);
    bench.write(SECONDARY_VM_EXEC_CONTROL, word | S::VMCS_SHADOWING.bits());
    bench.write(VMREAD_BITMAP, 0x6_0000);
    bench.write(VMWRITE_BITMAP, 0x6_1000);
    bench.write(VMCS_LINK_POINTER, NestedBench::SHADOW);
    // The bit of GUEST_RSP, 0x681c, makes VMWRITE exit.
    bench.ram.set(0x6_1000 + 0x681c / 64 * 8, 1 << (0x681c % 64));
    bench.launch();
    let mut regs = GuestRegs::default();
    for (reason, encoding, expected) in [
        (R::VMREAD, 0x681c, Route::ShadowAccess),
        (R::VMWRITE, 0x681c, Route::L1),
        (R::VMWRITE, 0x681e, Route::ShadowAccess),
        (R::VMREAD, 0x8000, Route::L1),
        (R::VMREAD, 1 << 32 | 0x681c, Route::L1),
    ] {
        bench.run_l2(reason, |vmcs02| vmcs02.write(VM_EXIT_INSTRUCTION_INFO, 1 << 10 | 3 << 28));
        regs.set(Gpr::Rbx, encoding);
        assert_eq!(bench.route(reason, &regs), expected, "{reason:?} of {encoding:#x}");
    }
    let (nested, ram) = (&mut bench.nested, &bench.ram);
    use nested::Outcome::{FailValid, Succeed};
    use vmcs::InstructionError as E;
    assert_eq!(nested.vmwrite_by_l2(ram, 0x681e, 0x1234), Succeed);
    assert_eq!(nested.vmread_by_l2(ram, 0x681e), Ok(0x1234));
    assert_eq!(nested.vmwrite_by_l2(ram, 0x2011, 0x5), Succeed);
    assert_eq!((nested.vmread_by_l2(ram, 0x2010), nested.vmread_by_l2(ram, 0x2011)), (Ok(5 << 32), Ok(5)));
    assert_eq!(nested.vmread_by_l2(ram, 0x7ffe), Err(FailValid(E::UNSUPPORTED_FIELD)));
    assert_eq!(nested.vmwrite_by_l2(ram, 0x4402, 0), FailValid(E::READ_ONLY_FIELD));
    assert_eq!(nested.vmread_by_l2(ram, VM_INSTRUCTION_ERROR.encoding().0.into()), Ok(0));
    // L1 finds what L2 wrote, and why it failed.
    bench.run_l2(R::CPUID, |_| ());
    assert_eq!(bench.reflect(), Ok(()));
    assert_eq!(bench.read(VM_INSTRUCTION_ERROR), E::READ_ONLY_FIELD.0);
    assert_eq!(bench.vmptrld(NestedBench::SHADOW), Succeed);
    assert_eq!(bench.read(GUEST_RIP), 0x1234);
}
