//! What vmcs02 holds for what vmcs12 asks: each control, and the fields that follow from it.

use nested::Which;
use testkit::{FakeVmcs, NestedBench, Ram};
use vmcs::controls::{ControlWord, EntryControls, ExitControls, PinBased, PrimaryBased as P, SecondaryBased as S};
use vmcs::field::{Field, W32};
use vmcs::fields::*;
use vmcs::{Access, Capabilities};

fn with(change: impl FnOnce(&mut NestedBench)) -> NestedBench {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    change(&mut bench);
    bench.launch();
    bench
}

fn vmcs02(bench: &NestedBench) -> &FakeVmcs {
    bench.vmcs(Which::Vmcs02)
}

/// The word in vmcs02 for one in vmcs12 with `bit` off and on; other controls are set with it where it needs them.
fn words<C: ControlWord>(field: Field<W32>, bit: u32, needs: &[(Field<W32>, u32)]) -> [C; 2] {
    [0, 1 << bit].map(|value| {
        let bench = with(|l1| {
            for &(field, bits) in needs {
                let word = l1.read(field);
                l1.write(field, word | bits);
            }
            let word = l1.read(field) & !(1 << bit);
            l1.write(field, word | value);
        });
        C::from_bits_truncated(vmcs02(&bench).read(field).into())
    })
}

/// What becomes of a control in vmcs02.
#[derive(Clone, Copy, Debug, PartialEq)]
enum In02 {
    /// As in vmcs12.
    Same,
    /// 1: L0 needs it.
    On,
    /// 0: L0 does for L2 what it does.
    Off,
}

fn check<C: ControlWord>(field: Field<W32>, control: C, expected: In02, needs: &[(Field<W32>, u32)]) {
    let bit = control.to_bits().trailing_zeros();
    let got = words::<C>(field, bit, needs).map(|word| word.to_bits() >> bit & 1);
    let wanted = match expected {
        In02::Same => [0, 1],
        In02::On => [1, 1],
        In02::Off => [0, 0],
    };
    assert_eq!(got, wanted, "{control:?}, which is to be {expected:?}");
}

/// Pin-based controls: external interrupts and NMIs are the machine's, and its timer is L0's too.
#[test]
fn pin_based() {
    // What needs it goes with it.
    check(PIN_BASED_VM_EXEC_CONTROL, PinBased::EXTERNAL_INTERRUPT_EXITING, In02::On, &[]);
    check(PIN_BASED_VM_EXEC_CONTROL, PinBased::VIRTUAL_NMIS, In02::On, &[]);
    check(PIN_BASED_VM_EXEC_CONTROL, PinBased::ACTIVATE_PREEMPTION_TIMER, In02::On, &[]);
}

/// Primary controls, each.
#[test]
fn primary() {
    use In02::{Off, On, Same};
    for (control, expected) in [
        (P::INTERRUPT_WINDOW_EXITING, Same),
        (P::USE_TSC_OFFSETTING, On),
        (P::HLT_EXITING, On),
        (P::INVLPG_EXITING, Same),
        (P::MWAIT_EXITING, On),
        (P::RDPMC_EXITING, On),
        (P::RDTSC_EXITING, Same),
        (P::CR3_LOAD_EXITING, Same),
        (P::CR3_STORE_EXITING, Same),
        // The TPR shadow of the valid VMCS is on: CR8 is the virtual-APIC page's.
        (P::CR8_LOAD_EXITING, Same),
        (P::CR8_STORE_EXITING, Same),
        (P::NMI_WINDOW_EXITING, Same),
        (P::MOV_DR_EXITING, Same),
        (P::UNCONDITIONAL_IO_EXITING, On),
        (P::USE_IO_BITMAPS, Off),
        (P::MONITOR_TRAP_FLAG, Same),
        (P::USE_MSR_BITMAPS, Same),
        (P::MONITOR_EXITING, On),
        (P::PAUSE_EXITING, Same),
    ] {
        check(CPU_BASED_VM_EXEC_CONTROL, control, expected, &[]);
    }
    // Without a TPR shadow of L1's, CR8 is L0's.
    let bench = with(|l1| {
        let word = l1.read(CPU_BASED_VM_EXEC_CONTROL);
        l1.write(CPU_BASED_VM_EXEC_CONTROL, word & !P::USE_TPR_SHADOW.bits());
    });
    let word = P::from_bits_retain(vmcs02(&bench).read(CPU_BASED_VM_EXEC_CONTROL));
    assert!(word.contains(P::CR8_LOAD_EXITING | P::CR8_STORE_EXITING) && !word.contains(P::USE_TPR_SHADOW));
    // EPT, VPID and unrestricted guest run L2 also if L1 activates no secondary controls.
    let bench = with(|l1| {
        let word = l1.read(CPU_BASED_VM_EXEC_CONTROL);
        l1.write(CPU_BASED_VM_EXEC_CONTROL, word & !P::ACTIVATE_SECONDARY_CONTROLS.bits());
    });
    let vmcs02 = vmcs02(&bench);
    assert_eq!(vmcs02.read(SECONDARY_VM_EXEC_CONTROL), (S::ENABLE_EPT | S::ENABLE_VPID).bits());
    assert_eq!(vmcs02.read(EPT_POINTER), bench.base().eptp, "L2's physical addresses are L1's");
}

/// Secondary controls, each: those of APIC virtualization are vmcs12's alone; page-modification logging and VMCS shadowing
/// are never on.
#[test]
fn secondary() {
    use In02::{Off, On, Same};
    let external = PinBased::EXTERNAL_INTERRUPT_EXITING.bits();
    for (control, expected) in [
        (S::VIRTUALIZE_APIC_ACCESSES, Same),
        (S::DESCRIPTOR_TABLE_EXITING, Same),
        (S::ENABLE_RDTSCP, Same),
        (S::VIRTUALIZE_X2APIC_MODE, Same),
        (S::ENABLE_VPID, On),
        (S::WBINVD_EXITING, Same),
        (S::UNRESTRICTED_GUEST, Same),
        (S::APIC_REGISTER_VIRTUALIZATION, Same),
        (S::VIRTUAL_INTERRUPT_DELIVERY, Same),
        (S::PAUSE_LOOP_EXITING, Same),
        (S::RDRAND_EXITING, Same),
        (S::ENABLE_INVPCID, Same),
        (S::ENABLE_VM_FUNCTIONS, Same),
        (S::VMCS_SHADOWING, Off),
        (S::RDSEED_EXITING, Same),
        (S::ENABLE_PML, Off),
        (S::ENABLE_XSAVES_XRSTORS, Same),
        (S::MODE_BASED_EXECUTE_CONTROL_FOR_EPT, Same),
    ] {
        check(SECONDARY_VM_EXEC_CONTROL, control, expected, &[(PIN_BASED_VM_EXEC_CONTROL, external)]);
    }
    // EPT of L1's is another table for the same control.
    for (on, own) in [(S::ENABLE_EPT | S::UNRESTRICTED_GUEST, false), (S::empty(), true)] {
        let bench = with(|l1| l1.write(SECONDARY_VM_EXEC_CONTROL, on.bits()));
        assert!(vmcs02(&bench).read(SECONDARY_VM_EXEC_CONTROL) & S::ENABLE_EPT.bits() != 0);
        assert_eq!(vmcs02(&bench).read(EPT_POINTER) == bench.base().eptp, own);
    }
}

/// VM-exit controls are L0's, whatever L1's are; of the VM-entry controls the guest's mode is L2's.
#[test]
fn exit_and_entry() {
    let bench = with(|l1| {
        let exit = l1.read(VM_EXIT_CONTROLS);
        let some =
            ExitControls::SAVE_IA32_PAT | ExitControls::LOAD_IA32_PAT | ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT;
        l1.write(VM_EXIT_CONTROLS, exit ^ some.bits());
        let entry = l1.read(VM_ENTRY_CONTROLS);
        l1.write(VM_ENTRY_CONTROLS, entry & !EntryControls::LOAD_IA32_PAT.bits());
    });
    assert_eq!(vmcs02(&bench).read(VM_EXIT_CONTROLS), bench.base().exit.bits());
    let entry = bench.base().entry | EntryControls::IA32E_MODE_GUEST;
    assert_eq!(vmcs02(&bench).read(VM_ENTRY_CONTROLS), entry.bits());
    for count in [VM_EXIT_MSR_STORE_COUNT, VM_EXIT_MSR_LOAD_COUNT, VM_ENTRY_MSR_LOAD_COUNT] {
        assert_eq!(vmcs02(&bench).read(count), 0, "lists are software's");
    }
    assert_eq!(vmcs02(&bench).read(VMCS_LINK_POINTER), u64::MAX);
}

/// Exceptions: both want what they want. Of page faults L0 wants none, so that L1's mask and match count as they are.
#[test]
fn exceptions() {
    let bench = with(|l1| {
        l1.write(EXCEPTION_BITMAP, 0x4040);
        l1.write(PAGE_FAULT_ERROR_CODE_MASK, 0x11);
        l1.write(PAGE_FAULT_ERROR_CODE_MATCH, 0x10);
    });
    assert_eq!(bench.base().exceptions & 1 << 14, 0);
    assert_eq!(vmcs02(&bench).read(EXCEPTION_BITMAP), 0x4040 | bench.base().exceptions);
    let word = vmcs02(&bench);
    assert_eq!((word.read(PAGE_FAULT_ERROR_CODE_MASK), word.read(PAGE_FAULT_ERROR_CODE_MATCH)), (0x11, 0x10));
}

/// CR0 and CR4: who owns a bit, and what L2 reads there. L1 before L0, where both own it.
#[test]
fn control_registers() {
    const CD: u64 = 1 << 30;
    const NE: u64 = 1 << 5;
    const TS: u64 = 1 << 3;
    const VMXE: u64 = 1 << 13;
    const MCE: u64 = 1 << 6;
    for (mask, shadow, cr0, seen) in [
        (0, 0, 0x8001_0033, 0x8001_0033),
        (TS, TS, 0x8001_0033, 0x8001_003b),
        (TS, 0, 0x8001_003b, 0x8001_0033),
        (NE, 0, 0x8001_0033, 0x8001_0013),
        // CD is what it was in L1, which is 0 here, unless L1 shows something else.
        (0, 0, 0x8001_0033 | CD, 0x8001_0033),
        (CD, CD, 0x8001_0033, 0x8001_0033 | CD),
        (u64::MAX, 0x11, 0x8001_0033, 0x11),
    ] {
        let bench = with(|l1| {
            l1.write(CR0_GUEST_HOST_MASK, mask);
            l1.write(CR0_READ_SHADOW, shadow);
            l1.write(GUEST_CR0, cr0);
        });
        let vmcs02 = vmcs02(&bench);
        let (real, owned) = (vmcs02.read(GUEST_CR0), vmcs02.read(CR0_GUEST_HOST_MASK));
        assert_eq!(owned, mask | bench.base().cr0_owned);
        assert_eq!(real & (CD | NE), NE, "the machine's caches stay on");
        assert_eq!(real & !owned | vmcs02.read(CR0_READ_SHADOW) & owned, seen, "mask {mask:#x}, shadow {shadow:#x}");
    }
    for (mask, shadow, seen) in [(0, 0, 0x20a0), (VMXE, 0, 0xa0), (MCE, MCE, 0x20e0), (0x80, 0, 0x2020)] {
        let bench = with(|l1| {
            l1.write(CR4_GUEST_HOST_MASK, mask);
            l1.write(CR4_READ_SHADOW, shadow);
            l1.write(GUEST_CR4, 0x20a0);
        });
        let vmcs02 = vmcs02(&bench);
        let (real, owned) = (vmcs02.read(GUEST_CR4), vmcs02.read(CR4_GUEST_HOST_MASK));
        assert_eq!(owned, mask | bench.base().cr4_owned);
        assert_eq!(real & (VMXE | MCE), VMXE | MCE, "L0 needs both");
        assert_eq!(real & !owned | vmcs02.read(CR4_READ_SHADOW) & owned, seen, "mask {mask:#x}, shadow {shadow:#x}");
    }
}

/// Pages that L1 names are L1's own, at the machine's addresses.
#[test]
fn pages() {
    let bench = with(|l1| {
        l1.write(VIRTUAL_APIC_PAGE_ADDR, 0x6_0000);
        l1.write(APIC_ACCESS_ADDR, 0x6_1000);
        let word = l1.read(SECONDARY_VM_EXEC_CONTROL);
        l1.write(SECONDARY_VM_EXEC_CONTROL, word | S::VIRTUALIZE_APIC_ACCESSES.bits());
    });
    assert_eq!(vmcs02(&bench).read(VIRTUAL_APIC_PAGE_ADDR), Ram::HOST_OFFSET + 0x6_0000);
    assert_eq!(vmcs02(&bench).read(APIC_ACCESS_ADDR), Ram::HOST_OFFSET + 0x6_1000);
}

/// The page-directory-pointer-table entries of an L2 without EPT of L1's: entry loads them from L1's memory, and with EPT
/// they are vmcs12's (SDM 3C 27.3.2.4 "Loading Page-Directory-Pointer-Table Entries").
#[test]
fn pdptes() {
    let pending_mtf = 0x8000_0700;
    for (ept, event) in [(false, 0), (true, 0), (false, pending_mtf), (true, pending_mtf)] {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        bench.write(VM_ENTRY_INTERRUPTION_INFO, event);
        let word = bench.read(SECONDARY_VM_EXEC_CONTROL) & !S::UNRESTRICTED_GUEST.bits();
        bench.write(SECONDARY_VM_EXEC_CONTROL, if ept { word } else { word & !S::ENABLE_EPT.bits() });
        let entry = bench.read(VM_ENTRY_CONTROLS);
        bench.write(VM_ENTRY_CONTROLS, entry & !EntryControls::IA32E_MODE_GUEST.bits());
        bench.write(GUEST_IA32_EFER, 0);
        bench.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
        bench.write(GUEST_CR3, 0x6_0020);
        for (field, value) in
            [(GUEST_PDPTE0, 0x1001), (GUEST_PDPTE1, 0x2001), (GUEST_PDPTE2, 0x3001), (GUEST_PDPTE3, 0)]
        {
            bench.write(field, value);
        }
        for (at, value) in (0x6_0020..).step_by(8).zip([0x5001, 0, 0x6001, 0x7001]) {
            bench.ram.set(at, value);
        }
        bench.launch();
        let vmcs02 = vmcs02(&bench);
        let values = [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3].map(|field| vmcs02.read(field));
        assert_eq!(values, if ept { [0x1001, 0x2001, 0x3001, 0] } else { [0x5001, 0, 0x6001, 0x7001] });
        // Without EPT they are read anew by each entry, and judged anew.
        bench.exit(vmcs::ExitReason::CPUID, |_| ());
        bench.ram.set(0x6_0028, 0x8007);
        let entered = matches!(bench.enter(false), nested::Entry::Entered { .. });
        assert_eq!(entered, ept, "reserved bits in memory count without EPT");
    }
}

/// VMFUNC: EPTP switching takes an EPTP of L1's list, if it is one that VM entry would take (SDM 3C 26.5.6.3 "EPTP
/// Switching").
#[test]
fn vm_functions() {
    let functions = |l1: &mut NestedBench, control| {
        let word = l1.read(SECONDARY_VM_EXEC_CONTROL);
        l1.write(SECONDARY_VM_EXEC_CONTROL, word | S::ENABLE_VM_FUNCTIONS.bits());
        l1.write(VM_FUNCTION_CONTROL, control);
        l1.write(EPTP_LIST_ADDRESS, 0x6_0000);
        l1.ram.set(0x6_0008, 0x2_101e);
        l1.ram.set(0x6_0010, 0x2_1006);
    };
    for (control, eax, ecx, done) in [
        (1, 0, 1, true),
        (1, 0, 2, false),
        (1, 0, 0, false),
        (1, 0, 512, false),
        (1, 1, 1, false),
        (0, 0, 1, false),
        (1, 0, u32::MAX, false),
    ] {
        let mut bench = with(|l1| functions(l1, control));
        assert_eq!(vmcs02(&bench).read(VM_FUNCTION_CONTROL), 0, "L0 executes them");
        let before = vmcs02(&bench).read(EPT_POINTER);
        assert_eq!(bench.nested.vm_function(&mut bench.cpu, &bench.ram, eax, ecx), done, "EAX {eax}, ECX {ecx}");
        assert_eq!(vmcs02(&bench).read(EPT_POINTER) != before, done);
        bench.run_l2(vmcs::ExitReason::CPUID, |_| ());
        assert_eq!(bench.reflect(), Ok(()));
        assert_eq!(bench.read(EPT_POINTER), if done { 0x2_101e } else { 0x2_001e }, "L1 sees the switch");
    }
}

/// INVEPT and other EPTPs choose another EPT02; the same EPTP comes back to its own.
#[test]
fn ept02_follows_the_eptp() {
    let mut bench = with(|_| ());
    let mut eptps = Vec::new();
    for eptp in [0x2_001e, 0x2_101e, 0x2_001e, 0x2_005e] {
        if bench.nested.in_l2() {
            bench.exit(vmcs::ExitReason::CPUID, |_| ());
        }
        bench.write(EPT_POINTER, eptp);
        bench.resume();
        eptps.push(vmcs02(&bench).read(EPT_POINTER));
    }
    assert_eq!(eptps[0], eptps[2]);
    assert!(eptps[0] != eptps[1] && eptps[1] != eptps[3]);
    assert_ne!(eptps[0] & 0x40, eptps[3] & 0x40, "accessed and dirty flags are L1's choice");
}

/// The capability MSRs on a lesser machine: what it lacks is not offered, and the valid VMCS without it runs.
#[test]
fn lesser_machines() {
    for lacks in [S::ENABLE_VPID, S::ENABLE_PML, S::USE_TSC_SCALING, S::VMCS_SHADOWING, S::ENABLE_VM_FUNCTIONS] {
        let machine = Capabilities::read(|msr| match msr {
            arch::Msr::VMX_PROCBASED_CTLS2 => testkit::capability_msrs(msr) & !(u64::from(lacks.bits()) << 32),
            msr => testkit::capability_msrs(msr),
        });
        let mut bench = NestedBench::on(&machine, false).with_valid_vmcs12();
        assert!(!bench.offered().secondary.supports(lacks));
        bench.launch();
        bench.exit(vmcs::ExitReason::CPUID, |_| ());
    }
}
