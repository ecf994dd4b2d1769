//! VMLAUNCH of L1 through the vCPU: where L1 goes on, and what its author is told.

use nested::Which;
use vmcs::fields::*;
use vmcs::{Access, ExitReason};

use super::fakes::{Bench, of_length};
use crate::*;

/// An entry that fails as an instruction: RFLAGS.ZF, and on behind it; the report says why.
#[test]
fn failed_instruction() {
    let mut bench = Bench::with_vmx(0, |vmcs12| vmcs12.write(VIRTUAL_PROCESSOR_ID, 0));
    bench.cpu.vmcs.write(GUEST_RFLAGS, 0x8d7);
    let rip = bench.cpu.vmcs.read(GUEST_RIP);
    bench.cpu.exit(ExitReason::VMLAUNCH, of_length(3));
    let entries = bench.run_script();
    assert_eq!((entries.len(), entries[1].which, entries[1].rip), (2, Which::Vmcs01, rip + 3));
    assert_eq!(bench.cpu.vmcs.read(GUEST_RFLAGS), 0x42, "ZF alone of the six flags");
    let reports = bench.world.reports.borrow();
    let [Report::EntryOfL1Failed(explanation)] = reports[..] else { panic!("{reports:?}") };
    let text = explanation.to_string();
    let first = "entry of L1 failed: VMfailValid, VM entry found invalid control fields (VM-instruction error 7)";
    assert_eq!(text.lines().next(), Some(first));
    assert_eq!(text.lines().last(), Some("VIRTUAL_PROCESSOR_ID is 0x0"));
}

/// An entry that fails as an exit: L1 goes on at the host's RIP.
#[test]
fn failed_entry() {
    let mut bench = Bench::with_vmx(0, |vmcs12| vmcs12.write(GUEST_RFLAGS, 0));
    bench.cpu.exit(ExitReason::VMLAUNCH, of_length(3));
    let entries = bench.run_script();
    assert_eq!((entries.len(), entries[1].which, entries[1].rip), (2, Which::Vmcs01, 0xffff_8000_0000_5000));
    assert_eq!(bench.world.reports.borrow().len(), 1);
}

/// Without VMX, and in user mode, the instruction faults, and nothing else happens.
#[test]
fn faults_come_first() {
    let mut bench = Bench::with_vmx(0, |_| ());
    bench.cpu.exit(ExitReason::VMLAUNCH, |vmcs, _| {
        for field in [GUEST_CS_ACCESS_RIGHTS, GUEST_SS_ACCESS_RIGHTS] {
            vmcs.write(field, vmcs.read(field) | 0x60);
        }
        vmcs.write(GUEST_CS_SELECTOR, 0x0b);
        vmcs.write(GUEST_SS_SELECTOR, 0x13);
    });
    let entry = bench.run_script()[1];
    assert_eq!((entry.which, entry.event.vector(), entry.error_code), (Which::Vmcs01, arch::Vector::GP, 0));
    let mut bench = Bench::new(0);
    bench.cpu.exit(ExitReason::VMLAUNCH, of_length(3));
    assert_eq!(bench.run_script()[1].event.vector(), arch::Vector::UD);
}
