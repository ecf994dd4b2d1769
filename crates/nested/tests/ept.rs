//! EPT exits of L2 under L1's EPT: what L0 resolves by itself, and what L1 gets, with which qualification (SDM 3C 28.2.1
//! "Basic VM-Exit Information", table "Exit Qualification for EPT Violations").

use arch::GuestPhys;
use nested::EptOutcome;
use testkit::{Flush, NestedBench};
use vmcs::controls::SecondaryBased;
use vmcs::fields::*;
use vmcs::qualification::{EptQualification, EptViolation};
use vmcs::{Access, EventInfo, ExitReason};

const READ: u64 = 1;
const WRITE: u64 = 2;
const FETCH: u64 = 4;
/// A linear address, and the access was to its translation.
const LINEAR: u64 = 0x180;

/// L2's pages by L1's tables: 0x1000 anything, 0x2000 read, 0x3000 absent, 0x4000 misconfigured, 0x5000 where L1 has no RAM,
/// 0x6000 read and execute; all write-back.
fn running(eptp: u64) -> NestedBench {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    for (at, entry) in [
        (0x2_0000, 0x2_1007),
        (0x2_1000, 0x2_2007),
        (0x2_2000, 0x2_3007),
        (0x2_3008, 0x6_0037),
        (0x2_3010, 0x6_1031),
        (0x2_3020, 0x6_2032),
        (0x2_3028, 0xa_0037),
        (0x2_3030, 0x6_3035),
    ] {
        bench.ram.set(at, entry);
    }
    bench.write(EPT_POINTER, eptp);
    bench.launch();
    bench
}

fn violation(bench: &mut NestedBench, at: u64, qualification: u64) -> EptOutcome {
    bench.run_l2(ExitReason::EPT_VIOLATION, |vmcs02| {
        vmcs02.write(EXIT_QUALIFICATION, qualification);
        vmcs02.write(GUEST_PHYSICAL_ADDRESS, at);
        vmcs02.write(GUEST_LINEAR_ADDRESS, 0x1234);
    });
    let violation = EptViolation {
        qualification: EptQualification::from_bits_retain(qualification),
        guest_physical: GuestPhys(at),
        linear: None,
    };
    bench.nested.ept_violation(&mut bench.cpu, &bench.ram, &violation)
}

/// What L1's tables allow L0 maps, where L1 has RAM; elsewhere it is a device of L1's.
#[test]
fn allowed() {
    let mut bench = running(0x2_001e);
    for (at, access) in [(0x1000, READ), (0x1008, WRITE), (0x1ff0, FETCH), (0x2000, READ), (0x6000, FETCH)] {
        assert_eq!(violation(&mut bench, at, LINEAR | access), EptOutcome::Resolved, "{at:#x}");
    }
    assert_eq!(violation(&mut bench, 0x5008, LINEAR | WRITE), EptOutcome::Device(GuestPhys(0xa_0008)));
}

/// What they do not allow is L1's exit: the access as the machine says, the permissions as L1's tables have them, whatever
/// EPT02 had by then.
#[test]
fn denied() {
    for (at, machine, qualification) in [
        (0x2000, LINEAR | WRITE, LINEAR | WRITE | READ << 3),
        (0x2000, LINEAR | FETCH, LINEAR | FETCH | READ << 3),
        // EPT02 had it mapped for reading, or not at all.
        (0x2000, LINEAR | WRITE | READ << 3, LINEAR | WRITE | READ << 3),
        (0x3000, LINEAR | READ, LINEAR | READ),
        (0x3000, 0x80 | READ, 0x80 | READ),
        (0x6000, LINEAR | WRITE | 0x38, LINEAR | WRITE | (READ | FETCH) << 3),
        (0x3000, 0x1000 | LINEAR | READ, 0x1000 | LINEAR | READ),
    ] {
        let mut bench = running(0x2_001e);
        let EptOutcome::Exit(exit) = violation(&mut bench, at, machine) else { panic!("{at:#x} is not allowed") };
        assert_eq!((exit.reason, exit.qualification), (48, qualification), "{at:#x}, {machine:#x}");
        assert_eq!(bench.synthesize(exit), Ok(()));
        assert_eq!((bench.read(GUEST_PHYSICAL_ADDRESS), bench.read(GUEST_LINEAR_ADDRESS)), (at, 0x1234));
    }
}

/// A misconfiguration has no qualification; nothing of the machine's violation is left in it.
#[test]
fn misconfigured() {
    let mut bench = running(0x2_001e);
    let EptOutcome::Exit(exit) = violation(&mut bench, 0x4000, LINEAR | WRITE) else { panic!("it is misconfigured") };
    assert_eq!((exit.reason, exit.qualification, exit.guest_physical), (49, 0, Some(0x4000)));
}

/// The event that was being delivered to L2 is in the exit's IDT-vectoring information.
#[test]
fn event_on_its_way() {
    let mut bench = running(0x2_001e);
    let event = EventInfo::hardware_exception(arch::Vector::PF, true);
    bench.run_l2(ExitReason::EPT_VIOLATION, |vmcs02| {
        vmcs02.write(IDT_VECTORING_INFO, event.0);
        vmcs02.write(IDT_VECTORING_ERROR_CODE, 6);
    });
    let violation = EptViolation {
        qualification: EptQualification::from_bits_retain(0x80 | READ),
        guest_physical: GuestPhys(0x3000),
        linear: None,
    };
    let outcome = bench.nested.ept_violation(&mut bench.cpu, &bench.ram, &violation);
    let EptOutcome::Exit(exit) = outcome else { panic!("{outcome:?}") };
    assert_eq!(bench.synthesize(exit), Ok(()));
    assert_eq!((bench.read(IDT_VECTORING_INFO), bench.read(IDT_VECTORING_ERROR_CODE)), (event.0, 6));
}

/// Page-modification logging for L1: a write that sets a dirty flag is logged, and the index in vmcs12 goes down; a full log
/// is an exit before anything is set (SDM 3C 29.3.6 "Page-Modification Logging").
#[test]
fn modification_log() {
    for shadowing in [false, true] {
        let mut bench = NestedBench::new(shadowing).with_valid_vmcs12();
        for (at, entry) in [
            (0x2_0000, 0x2_1007),
            (0x2_1000, 0x2_2007),
            (0x2_2000, 0x2_3007),
            (0x2_3008, 0x6_0037),
            (0x2_3010, 0x6_1037),
        ] {
            bench.ram.set(at, entry);
        }
        let word = bench.read(SECONDARY_VM_EXEC_CONTROL);
        bench.write(SECONDARY_VM_EXEC_CONTROL, word | SecondaryBased::ENABLE_PML.bits());
        bench.write(EPT_POINTER, 0x2_005e);
        bench.write(PML_ADDRESS, 0x7_0000);
        bench.write(GUEST_PML_INDEX, 0);
        bench.launch();
        assert_eq!(violation(&mut bench, 0x1234, LINEAR | WRITE), EptOutcome::Resolved);
        assert_eq!(bench.ram.get(0x7_0000), 0x1000, "the page");
        assert_eq!(bench.ram.get(0x2_3008) & 0x300, 0x300, "accessed and dirty");
        let EptOutcome::Exit(exit) = violation(&mut bench, 0x2000, LINEAR | WRITE) else { panic!("the log is full") };
        assert_eq!((exit.reason, exit.qualification, exit.guest_physical), (62, 0, None));
        assert_eq!(bench.ram.get(0x2_3010) & 0x300, 0, "nothing was set");
        assert_eq!(bench.synthesize(exit), Ok(()));
        assert_eq!(bench.read(GUEST_PML_INDEX), 0xffff);
    }
}

/// INVEPT: what L1's tables said is forgotten, of the context it names, or of all; the processor's caches go with the next
/// entry that uses the tables.
#[test]
fn invept() {
    for (kind, eptp, forgets) in [(1, 0x2_001e, true), (1, 0x8_001e, false), (2, 0, true)] {
        let mut bench = running(0x2_001e);
        assert_eq!(violation(&mut bench, 0x1000, LINEAR | READ), EptOutcome::Resolved);
        bench.run_l2(ExitReason::CPUID, |_| ());
        assert_eq!(bench.reflect(), Ok(()));
        bench.cpu.flushes.clear();
        assert_eq!(bench.nested.invept(&mut bench.cpu, kind, eptp), nested::Outcome::Succeed);
        bench.resume();
        let flushed = bench.cpu.flushes.iter().any(|flush| matches!(flush, Flush::Ept(_)));
        assert_eq!(flushed, forgets, "type {kind}, EPTP {eptp:#x}");
    }
}
