//! VMLAUNCH and VMRESUME: what they can come to, and what an entry that fails leaves (SDM 3C chapter 27 "VM Entries").

use arch::Msr;
use nested::{Abort, Entry, Outcome, Which};
use testkit::{Flush, NestedBench};
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, EventInfo, ExitReason, InstructionError};

const VPID: u32 = SecondaryBased::ENABLE_VPID.bits();
const EPT: u32 = SecondaryBased::ENABLE_EPT.bits();
const UNRESTRICTED: u32 = SecondaryBased::UNRESTRICTED_GUEST.bits();

fn ready() -> NestedBench {
    NestedBench::new(false).with_valid_vmcs12()
}

/// A list of MSRs in L1's memory.
fn list(bench: &NestedBench, at: u64, entries: &[(u64, u64)]) {
    for (at, &(msr, value)) in (at..).step_by(16).zip(entries) {
        bench.ram.set(at, msr);
        bench.ram.set(at + 8, value);
    }
}

/// The launch state: VMLAUNCH needs a clear VMCS, VMRESUME a launched one; an entry that fails launches nothing.
#[test]
fn launch_state() {
    let mut bench = ready();
    let failed = |error| Entry::Failed(Outcome::FailValid(error));
    assert_eq!(bench.enter(false), failed(InstructionError::VMRESUME_NOT_LAUNCHED));
    bench.write(GUEST_RFLAGS, 0);
    assert_eq!(bench.enter(true), Entry::Exited);
    bench.write(GUEST_RFLAGS, 2);
    assert_eq!(bench.enter(false), failed(InstructionError::VMRESUME_NOT_LAUNCHED));
    bench.launch();
    bench.exit(ExitReason::CPUID, |_| ());
    assert_eq!(bench.enter(true), failed(InstructionError::VMLAUNCH_NOT_CLEAR));
    assert_eq!(bench.read(VM_INSTRUCTION_ERROR), 4);
    bench.resume();
}

/// Blocking by MOV SS comes before the launch state, no current VMCS before everything (SDM 3C 27.1 "Basic VM-Entry Checks").
#[test]
fn order_of_the_basic_checks() {
    let mut bench = ready();
    bench.cpu.vmcs_of_mut(Which::Vmcs01).write(GUEST_INTERRUPTIBILITY_INFO, 2);
    let blocked = Entry::Failed(Outcome::FailValid(InstructionError::BLOCKED_BY_MOV_SS));
    assert_eq!((bench.enter(true), bench.enter(false)), (blocked, blocked));
    bench.vmclear(NestedBench::VMCS);
    assert_eq!(
        (bench.enter(true), bench.enter(false)),
        (Entry::Failed(Outcome::FailInvalid), Entry::Failed(Outcome::FailInvalid))
    );
    // Blocking by STI does not count.
    let mut bench = ready();
    bench.cpu.vmcs_of_mut(Which::Vmcs01).write(GUEST_INTERRUPTIBILITY_INFO, 1);
    bench.launch();
}

/// One row for each class of outcomes; of several mistakes the first in the manual's order counts.
#[test]
fn outcomes() {
    type Change = fn(&mut NestedBench);
    const CONTROLS: Change = |l1| l1.write(VIRTUAL_PROCESSOR_ID, 0);
    const HOST: Change = |l1| l1.write(HOST_TR_SELECTOR, 0);
    const GUEST: Change = |l1| l1.write(GUEST_RFLAGS, 0);
    const PDPTES: Change = |l1| {
        // A guest with PAE paging: not in IA-32e mode.
        let entry = l1.read(VM_ENTRY_CONTROLS);
        l1.write(VM_ENTRY_CONTROLS, entry & !EntryControls::IA32E_MODE_GUEST.bits());
        l1.write(GUEST_IA32_EFER, 0);
        l1.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
        l1.write(GUEST_PDPTE2, 3);
    };
    const NMI: Change = |l1| {
        l1.write(GUEST_INTERRUPTIBILITY_INFO, 1);
        l1.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::nmi().0);
    };
    const LINK: Change = |l1| l1.write(VMCS_LINK_POINTER, 0x1001);
    const MSR: Change = |l1| {
        list(l1, 0x6_0000, &[(0x277, 0x0606), (0xc000_0100, 0)]);
        l1.write(VM_ENTRY_MSR_LOAD_COUNT, 2);
        l1.write(VM_ENTRY_MSR_LOAD_ADDR, 0x6_0000);
    };
    let vmfail = |error| Entry::Failed(Outcome::FailValid(error));
    for (changes, entry, seen) in [
        (&[CONTROLS][..], vmfail(InstructionError::INVALID_CONTROL_FIELDS), (7, 0, 0)),
        (&[HOST], vmfail(InstructionError::INVALID_HOST_STATE), (8, 0, 0)),
        (&[GUEST], Entry::Exited, (0, 0x8000_0021, 0)),
        (&[PDPTES], Entry::Exited, (0, 0x8000_0021, 2)),
        (&[NMI], Entry::Exited, (0, 0x8000_0021, 3)),
        (&[LINK], Entry::Exited, (0, 0x8000_0021, 4)),
        (&[MSR], Entry::Exited, (0, 0x8000_0022, 2)),
        (&[HOST, CONTROLS, GUEST], vmfail(InstructionError::INVALID_CONTROL_FIELDS), (7, 0, 0)),
        (&[GUEST, HOST, MSR], vmfail(InstructionError::INVALID_HOST_STATE), (8, 0, 0)),
        (&[MSR, LINK], Entry::Exited, (0, 0x8000_0021, 4)),
    ] {
        for shadowing in [false, true] {
            let mut bench = NestedBench::new(shadowing).with_valid_vmcs12();
            changes.iter().for_each(|change| change(&mut bench));
            assert_eq!(bench.enter(true), entry);
            assert_eq!(bench.cpu.current(), Which::Vmcs01);
            let (error, reason, qualification) = seen;
            let read = (bench.read(VM_INSTRUCTION_ERROR), bench.read(EXIT_REASON), bench.read(EXIT_QUALIFICATION));
            assert_eq!(read, (error, reason, qualification));
        }
    }
}

/// A failed instruction changes nothing but the error field: L1 goes on where it was.
#[test]
fn failed_instruction_changes_nothing() {
    let mut bench = ready();
    bench.write(HOST_TR_SELECTOR, 0);
    let before: Vec<_> = bench.vmcs(Which::Vmcs01).values().collect();
    let mut expected = bench.vmcs12();
    expected.write(VM_INSTRUCTION_ERROR, 8);
    bench.enter(true);
    assert_eq!(bench.vmcs(Which::Vmcs01).values().collect::<Vec<_>>(), before);
    assert!(bench.vmcs12().values().eq(expected.values()));
}

/// An entry that fails as an exit saves nothing of the guest's state, changes no other exit information, clears no event, and
/// loads the host's state (SDM 3C 27.8 "VM-Entry Failures During or After Loading Guest State").
#[test]
fn failed_entry_saves_nothing() {
    for shadowing in [false, true] {
        for with_msr in [false, true] {
            let mut bench = NestedBench::new(shadowing).with_valid_vmcs12();
            bench.launch();
            bench.exit(ExitReason::EPT_VIOLATION, |vmcs02| {
                vmcs02.write(GUEST_CR3, 0x77_7000);
                vmcs02.write(VM_EXIT_INSTRUCTION_LEN, 5);
            });
            bench.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::external(0x31).0);
            if with_msr {
                list(&bench, 0x6_0000, &[(0x176, 0x4444), (0x277, 0x0606), (0xffff, 0)]);
                bench.write(VM_ENTRY_MSR_LOAD_COUNT, 3);
                bench.write(VM_ENTRY_MSR_LOAD_ADDR, 0x6_0000);
            } else {
                bench.write(GUEST_RFLAGS, 0x200);
            }
            let mut expected = bench.vmcs12();
            let reason = if with_msr { 0x8000_0022 } else { 0x8000_0021 };
            expected.write(EXIT_REASON, reason);
            expected.write(EXIT_QUALIFICATION, if with_msr { 3 } else { 0 });
            assert_eq!(bench.enter(false), Entry::Exited);
            assert!(bench.vmcs12().values().eq(expected.values()), "shadowing {shadowing}, reason {reason:#x}");
            assert_eq!(bench.vmcs(Which::Vmcs01).read(GUEST_RIP), 0xffff_8000_0000_5000, "the host's RIP");
            assert_eq!(bench.nested.transitions.failed_entries, 1);
        }
    }
}

/// "Nested entry with a failing MSR load left half of L2's state in L1: corrupted L1." What the entry loaded before it failed,
/// into fields that L1's own VMCS has too, is gone: L1 has its host state, and the next entry what vmcs12 says.
#[test]
fn failing_msr_load_leaves_nothing_behind() {
    let mut bench = ready();
    list(&bench, 0x6_0000, &[(0x277, 0x0606), (0x176, 0x4444), (0xffff, 0)]);
    bench.write(VM_ENTRY_MSR_LOAD_COUNT, 3);
    bench.write(VM_ENTRY_MSR_LOAD_ADDR, 0x6_0000);
    bench.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::external(0x31).0);
    bench.write(HOST_IA32_SYSENTER_EIP, 0x1111);
    assert_eq!(bench.enter(true), Entry::Exited);
    let vmcs01 = bench.vmcs(Which::Vmcs01);
    assert_eq!((vmcs01.read(GUEST_IA32_PAT), vmcs01.read(GUEST_SYSENTER_EIP)), (0x0007_0406_0007_0406, 0x1111));
    assert_eq!(vmcs01.read(GUEST_CR3), 0x3_0000);
    bench.write(VM_ENTRY_MSR_LOAD_COUNT, 0);
    bench.write(VM_ENTRY_INTERRUPTION_INFO, 0);
    bench.launch();
    let vmcs02 = bench.vmcs(Which::Vmcs02);
    assert_eq!((vmcs02.read(GUEST_IA32_PAT), vmcs02.read(GUEST_SYSENTER_EIP)), (0x0007_0406_0007_0406, 0));
    assert!(!EventInfo(vmcs02.read(VM_ENTRY_INTERRUPTION_INFO)).is_valid(), "the event that was never injected");
}

/// A register that the entry does not load is L1's in vmcs02, where L2's last value of it may still wait for L1 to read it. An
/// entry that fails after that has saved nothing: L1 reads what the last exit saved.
#[test]
fn failing_msr_load_keeps_what_the_last_exit_saved() {
    let mut bench = ready();
    let entry = bench.read(VM_ENTRY_CONTROLS);
    bench.write(VM_ENTRY_CONTROLS, entry & !EntryControls::LOAD_IA32_EFER.bits());
    bench.launch();
    bench.exit(ExitReason::CPUID, |vmcs02| vmcs02.write(GUEST_IA32_EFER, 0x501));
    list(&bench, 0x6_0000, &[(0xffff, 0)]);
    bench.write(VM_ENTRY_MSR_LOAD_COUNT, 1);
    bench.write(VM_ENTRY_MSR_LOAD_ADDR, 0x6_0000);
    assert_eq!(bench.enter(false), Entry::Exited);
    assert_eq!(bench.read(GUEST_IA32_EFER), 0x501);
}

/// The entries of a list that may not be there (SDM 3C 27.4 "Loading MSRs"), and where the list may not be.
#[test]
fn lists_at_entry() {
    let good = (0x277, 0x0606);
    for (entries, position) in [
        (&[good, (0xc000_0100, 0)][..], 2),
        (&[(0xc000_0101, 0)], 1),
        (&[good, good, (0x808, 0)], 3),
        (&[(0x8ff, 0)], 1),
        (&[(1 << 32 | 0x277, 0x0606)], 1),
        (&[(0x1234, 0)], 1),
    ] {
        let mut bench = ready();
        list(&bench, 0x6_0000, entries);
        bench.write(VM_ENTRY_MSR_LOAD_COUNT, u32::try_from(entries.len()).unwrap());
        bench.write(VM_ENTRY_MSR_LOAD_ADDR, 0x6_0000);
        assert_eq!(bench.enter(true), Entry::Exited);
        assert_eq!(bench.read(EXIT_QUALIFICATION), position, "{entries:x?}");
        assert!(bench.refused.iter().all(Option::is_none), "no rule is broken");
    }
    // A list that runs into the hole; one in it; one that is longer than any may be, in RAM that repeats a good entry.
    for (at, count, position) in [(0x9_fff0, 2, 2), (0xa_0000, 1, 1), (0x10_0000, 4097, 4097)] {
        let mut bench = ready();
        for entry in 0..4097u64 {
            if testkit::Ram::has(at + 16 * entry) {
                list(&bench, at + 16 * entry, &[good]);
            }
        }
        bench.write(VM_ENTRY_MSR_LOAD_COUNT, count);
        bench.write(VM_ENTRY_MSR_LOAD_ADDR, at);
        assert_eq!(bench.enter(true), Entry::Exited);
        assert_eq!(bench.read(EXIT_QUALIFICATION), position, "list at {at:#x}");
    }
}

/// A list that can be loaded is loaded, in order.
#[test]
fn list_is_loaded() {
    let mut bench = ready();
    bench.msrs.values.insert(Msr::LSTAR.0, 0);
    list(&bench, 0x6_0000, &[(Msr::LSTAR.0.into(), 1), (0x277, 0x0505), (Msr::LSTAR.0.into(), 2)]);
    bench.write(VM_ENTRY_MSR_LOAD_COUNT, 3);
    bench.write(VM_ENTRY_MSR_LOAD_ADDR, 0x6_0000);
    bench.launch();
    assert_eq!((bench.msrs.values[&Msr::LSTAR.0], bench.vmcs(Which::Vmcs02).read(GUEST_IA32_PAT)), (2, 0x0505));
}

/// A host-state list that cannot be loaded is a VMX abort, also after an entry that failed; the indicator is in the region.
#[test]
fn abort_after_a_failed_entry() {
    let mut bench = ready();
    list(&bench, 0x6_0000, &[(0xffff, 0)]);
    bench.write(VM_EXIT_MSR_LOAD_COUNT, 1);
    bench.write(VM_EXIT_MSR_LOAD_ADDR, 0x6_0000);
    bench.write(GUEST_RFLAGS, 0);
    assert_eq!(bench.enter(true), Entry::Aborted(Abort::LoadingHostMsrs));
    assert_eq!(bench.ram.get(NestedBench::VMCS) >> 32, 4);
}

/// The activity state in which L2 starts; an injected event makes it active (SDM 3C 27.7.2 "Activity State").
#[test]
fn activity() {
    let event = EventInfo::external(0x31).0;
    for (state, event, activity) in [(0, 0, 0), (1, 0, 1), (3, 0, 3), (0, event, 0), (1, event, 0)] {
        let mut bench = ready();
        bench.write(GUEST_ACTIVITY_STATE, state);
        bench.write(VM_ENTRY_INTERRUPTION_INFO, event);
        assert_eq!(bench.enter(true), Entry::Entered { activity });
        assert_eq!(bench.vmcs(Which::Vmcs02).read(GUEST_ACTIVITY_STATE), 0, "L0 keeps it");
    }
}

/// What of L1's registers an entry keeps where vmcs12 does not load it.
#[test]
fn kept_registers() {
    let mut bench = ready();
    let entry = bench.read(VM_ENTRY_CONTROLS);
    let loads = EntryControls::LOAD_DEBUG_CONTROLS | EntryControls::LOAD_IA32_PAT | EntryControls::LOAD_IA32_EFER;
    bench.write(VM_ENTRY_CONTROLS, entry & !loads.bits());
    bench.write(GUEST_DR7, 0x403);
    bench.write(GUEST_IA32_PAT, 0x0606);
    bench.write(GUEST_IA32_EFER, 0xd01);
    let vmcs01 = bench.cpu.vmcs_of_mut(Which::Vmcs01);
    vmcs01.write(GUEST_DR7, 0x455);
    vmcs01.write(GUEST_IA32_DEBUGCTL, 1);
    vmcs01.write(GUEST_IA32_PAT, 0x0505);
    vmcs01.write(GUEST_IA32_EFER, 0xd00);
    vmcs01.write(CR0_READ_SHADOW, 0xc001_0033);
    bench.launch();
    let vmcs02 = bench.vmcs(Which::Vmcs02);
    assert_eq!((vmcs02.read(GUEST_DR7), vmcs02.read(GUEST_IA32_DEBUGCTL)), (0x455, 1));
    assert_eq!((vmcs02.read(GUEST_IA32_PAT), vmcs02.read(GUEST_IA32_EFER)), (0x0505, 0xd00));
    assert_eq!(vmcs02.read(CR0_READ_SHADOW) & 0x6000_0000, 0x4000_0000, "CR0.CD is L1's");
    assert_eq!(vmcs02.read(GUEST_CR0) & 0x6000_0000, 0, "and never the machine's");
}

/// Cached translations: without VPIDs of L1's each transition drops them; with them, those of L2 go where another VPID
/// takes over vmcs02's tag (SDM 3C 29.4.3.1 "Operations that Invalidate Cached Mappings").
#[test]
fn flushes() {
    let mut bench = ready();
    bench.launch();
    bench.exit(ExitReason::CPUID, |_| ());
    bench.cpu.flushes.clear();
    bench.resume();
    bench.exit(ExitReason::CPUID, |_| ());
    assert_eq!(bench.cpu.flushes, [], "the VPID is the same");
    bench.write(VIRTUAL_PROCESSOR_ID, 7);
    bench.resume();
    bench.exit(ExitReason::CPUID, |_| ());
    assert_eq!(bench.cpu.flushes, [Flush::L2]);
    bench.cpu.flushes.clear();
    bench.write(SECONDARY_VM_EXEC_CONTROL, EPT | UNRESTRICTED);
    for _ in 0..2 {
        bench.resume();
        bench.exit(ExitReason::CPUID, |_| ());
    }
    assert_eq!(bench.cpu.flushes, [Flush::L2, Flush::L1, Flush::L2, Flush::L1]);
    // Back with VPID 7: what ran without has used the tag.
    bench.cpu.flushes.clear();
    bench.write(SECONDARY_VM_EXEC_CONTROL, EPT | UNRESTRICTED | VPID);
    bench.resume();
    assert_eq!(bench.cpu.flushes, [Flush::L2]);
}

/// INVVPID drops what vmcs02's tag stands for, and nothing for VPIDs that have nothing cached.
#[test]
fn invvpid_is_precise() {
    for (kind, vpid, flushed) in [
        (0, 1, &[Flush::L2Address(0x1000)][..]),
        (0, 9, &[]),
        (1, 1, &[Flush::L2]),
        (1, 9, &[]),
        (2, 0, &[Flush::L2]),
        (3, 1, &[Flush::L2]),
        (3, 9, &[]),
    ] {
        let mut bench = ready();
        bench.launch();
        bench.exit(ExitReason::CPUID, |_| ());
        bench.cpu.flushes.clear();
        assert_eq!(bench.nested.invvpid(&mut bench.cpu, kind, [vpid, 0x1000]), Outcome::Succeed);
        assert_eq!(bench.cpu.flushes, flushed, "type {kind}, VPID {vpid}");
    }
}

/// The VMX-preemption timer: when it ends, what an exit saves of it, and that it is off without its control. It counts when
/// bit 5 of the TSC changes here, and 0 is over at once (SDM 3C 26.5.1 "VMX-Preemption Timer").
#[test]
fn preemption_timer() {
    for shadowing in [false, true] {
        let mut bench = NestedBench::new(shadowing).with_valid_vmcs12();
        bench.launch();
        assert_eq!(bench.nested.timer_deadline(), u64::MAX);
        bench.exit(ExitReason::CPUID, |_| ());
        let pin = bench.read(PIN_BASED_VM_EXEC_CONTROL);
        bench.write(PIN_BASED_VM_EXEC_CONTROL, pin | PinBased::ACTIVATE_PREEMPTION_TIMER.bits());
        for (saves, now, value, later, left) in [
            (true, 1000, 10, 1000, 10),
            (true, 1000, 10, 1023, 10),
            (true, 1000, 10, 1024, 9),
            (true, 1000, 10, 1000 + 320, 0),
            (true, 1000, 10, 9000, 0),
            (true, 1000, 0, 1000, 0),
            (true, 1000, u32::MAX, 1024, u32::MAX - 1),
            (false, 1000, 10, 1200, 10),
        ] {
            let exit = bench.read(VM_EXIT_CONTROLS) & !ExitControls::SAVE_PREEMPTION_TIMER_VALUE.bits();
            let save = if saves { ExitControls::SAVE_PREEMPTION_TIMER_VALUE.bits() } else { 0 };
            bench.write(VM_EXIT_CONTROLS, exit | save);
            bench.write(VMX_PREEMPTION_TIMER_VALUE, value);
            bench.cpu.tsc = now;
            bench.resume();
            if value == 0 {
                assert_eq!(bench.nested.timer_deadline(), now);
            }
            bench.cpu.tsc = later;
            bench.exit(ExitReason::CPUID, |_| ());
            assert_eq!(bench.read(VMX_PREEMPTION_TIMER_VALUE), left, "{value} from {now} to {later}");
            assert_eq!(bench.nested.timer_deadline(), u64::MAX);
        }
    }
}

/// Pages that vmcs12 names where L1 has no memory: bitmaps read as all ones, so that everything exits, and a virtual-APIC or
/// APIC-access page is one of L0's, never the memory of the machine that has this address ("a page of L1 used by vmcs12
/// outside L1's memory").
#[test]
fn pages_outside_l1s_memory() {
    let nowhere = [0xa_0000, testkit::Ram::END, 1 << 45];
    for at in nowhere {
        let mut bench = ready();
        let secondary = bench.read(SECONDARY_VM_EXEC_CONTROL);
        bench.write(SECONDARY_VM_EXEC_CONTROL, secondary | SecondaryBased::VIRTUALIZE_APIC_ACCESSES.bits());
        for field in [MSR_BITMAP, VIRTUAL_APIC_PAGE_ADDR, APIC_ACCESS_ADDR, IO_BITMAP_A, IO_BITMAP_B] {
            bench.write(field, at);
        }
        bench.launch();
        let pages = bench.nested.pages();
        assert!(pages.msr_bitmap.words.iter().all(|&word| word == u64::MAX), "every access exits");
        let (nowhere, own) = (pages.nowhere.at.get(), pages.msr_bitmap.at.get());
        let vmcs02 = bench.vmcs(Which::Vmcs02);
        assert_eq!(vmcs02.read(VIRTUAL_APIC_PAGE_ADDR), nowhere);
        assert_eq!(vmcs02.read(APIC_ACCESS_ADDR), nowhere);
        assert_eq!(vmcs02.read(MSR_BITMAP), own);
        assert_eq!(vmcs02.read(CPU_BASED_VM_EXEC_CONTROL) & PrimaryBased::USE_IO_BITMAPS.bits(), 0);
    }
}
