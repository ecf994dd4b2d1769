//! VMLAUNCH of L1 through the vCPU: where L1 goes on, and what its author is told.

use arch::{GuestMemory, GuestPhys};
use nested::Which;
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, EventInfo, ExitReason};

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

/// Another processor of L1 lowers VTPR below the threshold between our check and the entry, which the processor then refuses:
/// L1 gets the exit by the threshold, and the event that was to be injected as interrupted by it.
#[test]
fn threshold_is_passed_behind_the_check() {
    const PAGE: u64 = 0x6_0000;
    let vmcs12 = |vmcs12: &mut testkit::FakeVmcs| {
        let primary = vmcs12.read(CPU_BASED_VM_EXEC_CONTROL) | PrimaryBased::USE_TPR_SHADOW.bits();
        vmcs12.write(CPU_BASED_VM_EXEC_CONTROL, primary);
        let without = SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY
            | SecondaryBased::VIRTUALIZE_APIC_ACCESSES
            | SecondaryBased::APIC_REGISTER_VIRTUALIZATION
            | SecondaryBased::VIRTUALIZE_X2APIC_MODE;
        vmcs12.write(SECONDARY_VM_EXEC_CONTROL, vmcs12.read(SECONDARY_VM_EXEC_CONTROL) & !without.bits());
        vmcs12.write(VIRTUAL_APIC_PAGE_ADDR, PAGE);
        vmcs12.write(TPR_THRESHOLD, 3);
        vmcs12.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::external(0x55).0);
        vmcs12.write(GUEST_RFLAGS, 0x202);
    };
    let mut bench = Bench::with_vmx(0, vmcs12);
    bench.world.memory = std::mem::take(&mut bench.world.memory).lasting();
    bench.world.memory.set(PAGE + 0x80, 0x30);
    let page = bench.world.memory.lasting_page(GuestPhys(PAGE)).expect("it lasts");
    let lower = Box::new(move || page[0x80 / 8].store(0x20, std::sync::atomic::Ordering::Relaxed));
    bench.cpu.refusal = Some((0, lower));
    bench.cpu.exit(ExitReason::VMLAUNCH, of_length(3));
    let entries = bench.run_script();
    let order: Vec<_> = entries.iter().map(|entry| (entry.which, entry.event.is_valid())).collect();
    assert_eq!(order, [(Which::Vmcs01, false); 2], "L2 does not run");
    assert_eq!(entries[1].rip, 0xffff_8000_0000_5000, "the host's RIP");
    let nested = bench.vcpu.nested.as_mut().unwrap();
    let mut read = |field: vmcs::Encoding| nested.vmread(&mut bench.cpu, field.0.into());
    assert_eq!(read(EXIT_REASON.encoding()), Ok(ExitReason::TPR_BELOW_THRESHOLD.0.into()));
    assert_eq!(read(IDT_VECTORING_INFO.encoding()), Ok(EventInfo::external(0x55).0.into()));
    assert_eq!(read(VM_ENTRY_INTERRUPTION_INFO.encoding()).map(|info| info >> 31), Ok(0));
}

/// Without such a reason it is a bug of L0's, and the VM stops.
#[test]
fn refusal_without_a_reason_stops() {
    let mut bench = Bench::with_vmx(0, |_| ());
    bench.cpu.refusal = Some((0, Box::new(|| ())));
    bench.cpu.exit(ExitReason::VMLAUNCH, of_length(3));
    assert_eq!(bench.run(), Left::Stop(Stop::EntryFailed));
}
