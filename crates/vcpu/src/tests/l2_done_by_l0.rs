//! What L0 does for L2 ends as if the processor had done it: SDM 3C 26.5.2 "Monitor Trap Flag", 25.6.3 "Exception Bitmap", 28.4
//! "Saving MSRs".

use arch::Fault;
use nested::Which;
use vmcs::controls::PrimaryBased;
use vmcs::fields::*;
use vmcs::{Access, EventInfo, ExitReason};

use super::fakes::{Bench, of_length};
use super::l2_events::{Seen, TO_L2_AND_BACK, about_to_launch, at_once, run};
use crate::Left;
use crate::state::Injection;

/// OUT 80, AL of L2's, of 2 bytes at 0x1000, which exits to L0 only.
fn out(bench: &mut Bench, flags: u64) {
    bench.cpu.exit(ExitReason::IO, move |vmcs, _| {
        vmcs.write(EXIT_QUALIFICATION, 0x80 << 16 | 1 << 6);
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
        vmcs.write(GUEST_RIP, 0x1000);
        vmcs.write(GUEST_RFLAGS, flags);
    });
}

/// An instruction that L0 executes for L2 ends with the exit of the monitor trap flag, as one of the processor's does; the
/// single step that it owes is pending meanwhile (SDM 3C 26.5.2 "Monitor Trap Flag").
#[test]
fn monitor_trap_follows_what_l0_executes() {
    const MTF: u32 = PrimaryBased::MONITOR_TRAP_FLAG.bits();
    const BS: u64 = 1 << 14;
    for (primary, flags) in [(0, 2), (0, 0x102), (MTF, 2), (MTF, 0x102)] {
        let mut bench = about_to_launch(|vmcs12| {
            vmcs12.write(CPU_BASED_VM_EXEC_CONTROL, vmcs12.read(CPU_BASED_VM_EXEC_CONTROL) | primary);
        });
        out(&mut bench, flags);
        if primary == 0 {
            at_once(&mut bench);
        }
        let (order, seen) = run(&mut bench);
        if primary == 0 {
            assert_eq!(order[..3], [Which::Vmcs01, Which::Vmcs02, Which::Vmcs02]);
        } else {
            assert_eq!((order.as_slice(), seen.reason), (&TO_L2_AND_BACK[..], ExitReason::MONITOR_TRAP_FLAG));
        }
        let nested = bench.vcpu.nested.as_mut().unwrap();
        let mut read = |encoding: vmcs::Encoding| nested.vmread(&mut bench.cpu, encoding.0.into()).unwrap();
        assert_eq!(read(GUEST_RIP.encoding()), 0x1002);
        let pending = if flags & 0x100 == 0 { 0 } else { BS };
        assert_eq!(read(GUEST_PENDING_DBG_EXCEPTIONS.encoding()), pending);
    }
}

/// What interrupts L2 executes nothing, and owes no exit.
#[test]
fn monitor_trap_follows_nothing_else() {
    let mut bench = about_to_launch(|vmcs12| {
        let mtf = PrimaryBased::MONITOR_TRAP_FLAG.bits();
        vmcs12.write(CPU_BASED_VM_EXEC_CONTROL, vmcs12.read(CPU_BASED_VM_EXEC_CONTROL) | mtf);
    });
    bench.cpu.exit(ExitReason::EXTERNAL_INTERRUPT, |vmcs, _| {
        vmcs.write(VM_EXIT_INTERRUPTION_INFO, EventInfo::external(0xf0).0);
    });
    at_once(&mut bench);
    let (order, _) = run(&mut bench);
    assert_eq!(order[..3], [Which::Vmcs01, Which::Vmcs02, Which::Vmcs02]);
}

/// A fault that L0 finds in L2 is an exit if L1 intercepts it, and L2's own otherwise.
#[test]
fn l1_intercepts_what_l0_finds() {
    for bitmap in [0, 1 << 13] {
        let mut bench = about_to_launch(|vmcs12| {
            vmcs12.write(EXCEPTION_BITMAP, bitmap);
            // All pass.
            let bitmaps = PrimaryBased::USE_MSR_BITMAPS.bits();
            vmcs12.write(CPU_BASED_VM_EXEC_CONTROL, vmcs12.read(CPU_BASED_VM_EXEC_CONTROL) | bitmaps);
            vmcs12.write(MSR_BITMAP, 0x6_0000);
        });
        bench.cpu.exit(ExitReason::RDMSR, |vmcs, regs| {
            regs.set(arch::Gpr::Rcx, 0x1fff);
            vmcs.write(VM_EXIT_INSTRUCTION_LEN, 2);
        });
        if bitmap == 0 {
            at_once(&mut bench);
            bench.run_script();
            assert_eq!(bench.cpu.entries[2].event, EventInfo::hardware_exception(arch::Vector(13), true));
            continue;
        }
        let (order, seen) = run(&mut bench);
        assert_eq!(order, TO_L2_AND_BACK);
        let interruption = EventInfo::hardware_exception(arch::Vector(13), true);
        assert_eq!(seen, Seen { reason: ExitReason::EXCEPTION_OR_NMI, qualification: 0, interruption });
    }
}

/// IA32_TIME_STAMP_COUNTER in the list that an exit stores is L1's: vmcs12's offset is for what L2 executes (SDM 3C 28.4 "Saving
/// MSRs", 25.6.5 "Time-Stamp Counter Offset and Multiplier").
#[test]
fn stored_tsc_is_l1s() {
    const LIST: u64 = 0x6_0000;
    const OFFSET: u64 = 1 << 40;
    let mut bench = about_to_launch(|vmcs12| {
        let offsetting = PrimaryBased::USE_TSC_OFFSETTING.bits();
        vmcs12.write(CPU_BASED_VM_EXEC_CONTROL, vmcs12.read(CPU_BASED_VM_EXEC_CONTROL) | offsetting);
        vmcs12.write(TSC_OFFSET, OFFSET);
        vmcs12.write(VM_EXIT_MSR_STORE_ADDR, LIST);
        vmcs12.write(VM_EXIT_MSR_STORE_COUNT, 1);
    });
    bench.world.memory.set(LIST, arch::Msr::TSC.0.into());
    bench.cpu.exit(ExitReason::CPUID, of_length(2));
    bench.run_script();
    let l1 = bench.cpu.vmcs.read(TSC_OFFSET);
    assert!(bench.world.memory.get(LIST + 8).wrapping_sub(l1) < OFFSET);
}

/// An exit for such a fault tells of the event that it cut short; L1 does not get that event itself.
#[test]
fn event_cut_short_does_not_reach_l1() {
    let mut bench = about_to_launch(|vmcs12| {
        vmcs12.write(EXCEPTION_BITMAP, 1 << 13);
        // L2 is where it stays.
        vmcs12.write(GUEST_ACTIVITY_STATE, 1);
    });
    assert!(matches!(bench.run(), Left::Halted { .. }));
    bench.vcpu.injection = Some(Injection::without_details(EventInfo::external(0x55)));
    bench.vcpu.inject_fault(&mut bench.cpu, Fault::Gp(0));
    assert!(bench.vcpu.injection.is_none());
    let exit = bench.vcpu.exit_of_l2.expect("L1 intercepts #GP");
    assert_eq!(exit.interruption, EventInfo::hardware_exception(arch::Vector(13), true));
}
