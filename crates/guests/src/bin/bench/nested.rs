//! What a hypervisor pays that is a guest: VMX instructions, and the way from its L2 to it and back.

use core::sync::atomic::{AtomicU64, Ordering};

use arch::Gpr;
use guests::vmx::ept::{self, Ept};
use guests::vmx::instructions::must;
use guests::vmx::{Current, DONE, L2, call, instructions, setup};
use guests::{cpu, exit, memory, port, println};
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::{
    EPT_POINTER, EXIT_QUALIFICATION, GUEST_LDTR_BASE, GUEST_PHYSICAL_ADDRESS, GUEST_RIP, VIRTUAL_PROCESSOR_ID,
    VM_EXIT_INSTRUCTION_LEN,
};
use vmcs::{Access, Capabilities, EptVpid, ExitReason};

use crate::{ROUNDS, WARM_UP, average, measure};

const INSTRUCTIONS: [&str; 10] = [
    "vmread_unshadowed",
    "vmwrite_unshadowed",
    "vmread_shadowed",
    "vmread_vmwrite_shadowed",
    "vmptrst",
    "vmptrld_same",
    "vmclear_vmptrld",
    "invept",
    "invvpid",
    "vmread_unsupported",
];
const ROUND_TRIPS: [&str; 6] =
    ["l2_cpuid", "l2_cpuid_dirty", "l2_vmcall", "l2_port_in", "l2_port_in_direct", "l2_ept_violation"];

/// What L2 measured.
static TICKS: AtomicU64 = AtomicU64::new(0);
/// Pages that L2 touches and that its EPT does not map until then.
const UNMAPPED: u64 = 64 << 20;

pub(crate) fn all() {
    if !setup::is_offered() {
        INSTRUCTIONS.iter().chain(&ROUND_TRIPS).for_each(|name| println!("bench-skip {name}"));
        return;
    }
    setup::on();
    let capabilities = setup::capabilities();
    vmx_instructions(&capabilities);
    round_trips();
    must("VMXOFF", instructions::vmxoff());
}

/// Reads a field and lets nobody drop the read.
#[inline(always)]
fn read(field: vmcs::Field<vmcs::field::Natural>) {
    core::hint::black_box(Current.read(field));
}

/// How many round trips [`only_round_trips`] makes.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// `rounds` times CPUID in L2, for an L1 that does the least.
pub(crate) fn only_round_trips(rounds: u64) {
    if !setup::is_offered() {
        return;
    }
    setup::on();
    LEFT.store(rounds, Ordering::Relaxed);
    let code = || (0..LEFT.load(Ordering::Relaxed)).for_each(|_| _ = cpu::cpuid(0, 0));
    run(&mut L2::new(|| {}), code, || {}, map_nothing);
    must("VMXOFF", instructions::vmxoff());
}

fn vmx_instructions(capabilities: &Capabilities) {
    let l2 = L2::new(|| {});
    let other = setup::region();
    measure(INSTRUCTIONS[0], || read(GUEST_LDTR_BASE));
    measure(INSTRUCTIONS[1], || Current.write(GUEST_LDTR_BASE, 0));
    measure(INSTRUCTIONS[2], || read(GUEST_RIP));
    measure(INSTRUCTIONS[3], || {
        let rip = Current.read(GUEST_RIP);
        Current.write(GUEST_RIP, rip);
    });
    measure(INSTRUCTIONS[4], || _ = instructions::vmptrst());
    measure(INSTRUCTIONS[5], || _ = instructions::vmptrld(l2.region));
    measure(INSTRUCTIONS[6], || {
        let _ = instructions::vmclear(other);
        let _ = instructions::vmptrld(other);
    });
    let _ = instructions::vmclear(other);
    l2.load();
    // All contexts, as that needs no EPTP or VPID that is in use.
    if capabilities.ept_vpid.contains(EptVpid::INVEPT | EptVpid::INVEPT_ALL_CONTEXT) {
        measure(INSTRUCTIONS[7], || _ = instructions::invept(2, [0, 0]));
    } else {
        println!("bench-skip {}", INSTRUCTIONS[7]);
    }
    if capabilities.ept_vpid.contains(EptVpid::INVVPID | EptVpid::INVVPID_SINGLE_CONTEXT) {
        measure(INSTRUCTIONS[8], || _ = instructions::invvpid(1, [1, 0]));
    } else {
        println!("bench-skip {}", INSTRUCTIONS[8]);
    }
    measure(INSTRUCTIONS[9], || _ = instructions::vmread(vmcs::Encoding(0x6ffe)));
    let _ = instructions::vmclear(l2.region);
}

fn round_trips() {
    let mut l2 = L2::new(|| {});
    let has_ept = l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_EPT);
    let tables = Ept::identity();
    if has_ept {
        Current.write(EPT_POINTER, tables.pointer());
    }
    if l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_VPID) {
        Current.write(VIRTUAL_PROCESSOR_ID, 1);
    }
    let nothing = run(&mut l2, || keep(average(|| {})), || {}, map_nothing);
    let measure = |l2: &mut L2, name: &str, code: fn(), at_exit: fn()| {
        println!("bench {name} {}", run(l2, code, at_exit, map_nothing).saturating_sub(nothing));
    };
    measure(&mut l2, ROUND_TRIPS[0], || keep(average(|| _ = cpu::cpuid(0, 0))), || {});
    // One field that few L1s ever write, with another value each time.
    measure(
        &mut l2,
        ROUND_TRIPS[1],
        || keep(average(|| _ = cpu::cpuid(0, 0))),
        || {
            static ROUND: AtomicU64 = AtomicU64::new(0);
            Current.write(GUEST_LDTR_BASE, ROUND.fetch_add(1, Ordering::Relaxed));
        },
    );
    measure(&mut l2, ROUND_TRIPS[2], || keep(average(|| _ = call(0))), || {});
    l2.control(|controls| controls.primary |= PrimaryBased::UNCONDITIONAL_IO_EXITING);
    measure(&mut l2, ROUND_TRIPS[3], || keep(average(|| _ = port::in8(0x21))), || {});
    l2.control(|controls| controls.primary -= PrimaryBased::UNCONDITIONAL_IO_EXITING);
    // L1 does not ask for this exit; a hypervisor below it may.
    measure(&mut l2, ROUND_TRIPS[4], || keep(average(|| _ = port::in8(0x21))), || {});
    if !has_ept {
        println!("bench-skip {}", ROUND_TRIPS[5]);
        return;
    }
    for page in 0..WARM_UP + ROUNDS {
        memory::write(tables.entry(UNMAPPED + 4096 * page, 1), 0_u64);
    }
    let _ = instructions::invept(2, [0, 0]);
    let touch = || {
        let mut at = UNMAPPED;
        keep(average(|| {
            memory::read_register(at);
            at += 4096;
        }));
    };
    let map = |address| memory::write(tables.entry(address, 1), address & !0xfff | ept::ALL | ept::WRITE_BACK);
    println!("bench {} {}", ROUND_TRIPS[5], run(&mut l2, touch, || {}, map).saturating_sub(nothing));
}

fn keep(ticks: u64) {
    TICKS.store(ticks, Ordering::Relaxed);
}

fn map_nothing(address: u64) {
    println!("guest stopped: an EPT violation at {address:#x}");
    exit(103);
}

/// The ticks that `code` measures in L2. At each exit L1 does what the usual small one does, and `at_exit`, and goes on behind
/// the instruction; an EPT violation is answered by `map` alone.
fn run(l2: &mut L2, code: fn(), at_exit: impl Fn(), map: impl Fn(u64)) -> u64 {
    let mut current = Current;
    l2.restart(code);
    loop {
        must("VM entry", l2.enter());
        let reason = ExitReason::read(&current);
        core::hint::black_box(current.read(EXIT_QUALIFICATION));
        if reason == ExitReason::EPT_VIOLATION {
            map(current.read(GUEST_PHYSICAL_ADDRESS));
            continue;
        }
        let rip = current.read(GUEST_RIP);
        let length = current.read(VM_EXIT_INSTRUCTION_LEN);
        if reason == ExitReason::VMCALL && l2.regs.get(Gpr::Rax) == DONE {
            return TICKS.load(Ordering::Relaxed);
        }
        at_exit();
        current.write(GUEST_RIP, rip + u64::from(length));
    }
}
