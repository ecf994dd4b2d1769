//! Operands of VMX instructions through L1's segments and page tables: what they mean, and the fault where there is none.
//! SDM 3C 28.2.5 "Information for VM Exits Due to Instruction Execution", tables of the VM-exit instruction information.

use arch::{Gpr, GuestRegs, Vector};
use vmcs::fields::*;
use vmcs::{Access, ExitReason};

use super::fakes::Bench;

/// Address size of 64 bits, no index, no base: the displacement alone.
const ABSOLUTE: u32 = 2 << 7 | 1 << 22 | 1 << 27;
const DS: u32 = 3 << 15;
const SS: u32 = 2 << 15;
const FS: u32 = 4 << 15;
const BASE_RBX: u32 = 3 << 23;
const INDEX_RCX: u32 = 1 << 18;
const SCALE_4: u32 = 2;
const NO_INDEX: u32 = 1 << 22;
const NO_BASE: u32 = 1 << 27;

/// L1 has its first 1 MiB as supervisor pages of 2 MiB, and nothing else.
fn bench() -> Bench {
    let bench = Bench::with_vmx(0, |_| ());
    for (at, entry) in [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83), (0x7000, 0x5_1000)] {
        bench.world.memory.set(at, entry);
    }
    bench
}

fn exit(
    bench: &mut Bench,
    reason: ExitReason,
    information: u32,
    displacement: u64,
    change: impl FnOnce(&mut testkit::FakeVmcs, &mut GuestRegs) + 'static,
) {
    bench.cpu.exit(reason, move |vmcs, regs| {
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 4);
        vmcs.write(VM_EXIT_INSTRUCTION_INFO, information);
        vmcs.write(EXIT_QUALIFICATION, displacement);
        vmcs.write(GUEST_FS_BASE, 0x6000);
        regs.set(Gpr::Rbx, 0x6000);
        regs.set(Gpr::Rcx, 0x400);
        change(vmcs, regs);
    });
}

/// Base, index with its scale, displacement, segment base, and how wide the sum is: all of these name 0x7000.
#[test]
fn addresses() {
    for (information, displacement) in [
        (ABSOLUTE | DS, 0x7000),
        (2 << 7 | NO_INDEX | BASE_RBX | DS, 0x1000),
        (2 << 7 | INDEX_RCX | NO_BASE | DS, 0x6c00),
        (2 << 7 | INDEX_RCX | SCALE_4 | BASE_RBX | DS, 0),
        (2 << 7 | INDEX_RCX | SCALE_4 | BASE_RBX | FS, 0u64.wrapping_sub(0x6000)),
        (ABSOLUTE | FS, 0x1000),
        // 32-bit addresses wrap.
        (1 << 7 | NO_INDEX | BASE_RBX | DS, 0xffff_ffff_0000_1000),
        // So do 16-bit ones.
        (NO_INDEX | BASE_RBX | DS, 0x1_1000),
    ] {
        let mut bench = bench();
        exit(&mut bench, ExitReason::VMPTRLD, information, displacement, |_, _| ());
        let entry = bench.run_script()[1];
        assert!(!entry.event.is_valid(), "{information:#x}, {displacement:#x}: {:?}", entry.event);
        assert_eq!(bench.cpu.vmcs.read(GUEST_RFLAGS) & 0x8d5, 0);
        assert_eq!(bench.vcpu.nested.as_ref().unwrap().vmptrst(), 0x5_1000);
    }
}

/// The faults that the manual names: a page that is not there, or not for writing or users; an address that is not
/// canonical, in the stack segment or another.
#[test]
fn faults() {
    for (reason, information, displacement, fault) in [
        (ExitReason::VMPTRLD, ABSOLUTE | DS, 0x20_0000, (Vector::PF, 0, 0x20_0000)),
        (ExitReason::VMPTRLD, ABSOLUTE | DS, 0x1f_fffc, (Vector::PF, 0, 0x20_0000)),
        (ExitReason::VMPTRST, ABSOLUTE | DS, 0x20_0000, (Vector::PF, 2, 0x20_0000)),
        (ExitReason::VMREAD, ABSOLUTE | DS, 0x20_0000, (Vector::PF, 2, 0x20_0000)),
        (ExitReason::VMWRITE, ABSOLUTE | DS, 0x20_0000, (Vector::PF, 0, 0x20_0000)),
        (ExitReason::INVEPT, ABSOLUTE | DS, 0x1f_fff8, (Vector::PF, 0, 0x20_0000)),
        (ExitReason::VMCLEAR, ABSOLUTE | DS, 1 << 47, (Vector::GP, 0, 0)),
        (ExitReason::VMCLEAR, ABSOLUTE | SS, 1 << 47, (Vector::SS, 0, 0)),
        (ExitReason::VMPTRLD, ABSOLUTE | FS, 0x7fff_ffff_f000, (Vector::GP, 0, 0)),
    ] {
        let mut bench = bench();
        let rip = bench.cpu.vmcs.read(GUEST_RIP);
        exit(&mut bench, reason, information, displacement, |_, regs| {
            regs.set(Gpr::Rax, GUEST_RSP.encoding().0.into())
        });
        let entry = bench.run_script()[1];
        let (vector, error_code, address) = fault;
        assert_eq!(
            (entry.event.vector(), entry.error_code, entry.rip),
            (vector, error_code, rip),
            "{reason:?} {displacement:#x}"
        );
        assert_eq!(bench.cpu.cr2, address);
    }
}

/// VMREAD and VMWRITE of registers: 64 bits in 64-bit mode; memory operands of 8 bytes; an encoding with high bits is none.
#[test]
fn registers_and_fields() {
    // The value in RDX, the field in RAX.
    const REGISTERS: u32 = 2 << 3 | 1 << 10;
    let field = u64::from(GUEST_SYSENTER_EIP.encoding().0);
    let mut bench = bench();
    exit(&mut bench, ExitReason::VMWRITE, REGISTERS, 0, move |_, regs| {
        regs.set(Gpr::Rax, field);
        regs.set(Gpr::Rdx, 0xffff_8000_1234_5678);
    });
    exit(&mut bench, ExitReason::VMREAD, ABSOLUTE | DS, 0x7008, |_, regs| regs.set(Gpr::Rdx, 0));
    exit(&mut bench, ExitReason::VMREAD, REGISTERS, 0, |_, _| ());
    bench.run_script();
    assert_eq!(bench.world.memory.get(0x7008), 0xffff_8000_1234_5678);
    assert_eq!(bench.vcpu.regs.get(Gpr::Rdx), 0xffff_8000_1234_5678);
    let mut bench = self::bench();
    exit(&mut bench, ExitReason::VMREAD, REGISTERS, 0, move |_, regs| regs.set(Gpr::Rax, 1 << 32 | field));
    bench.run_script();
    assert_eq!(bench.cpu.vmcs.read(GUEST_RFLAGS) & 0x8d5, 0x40, "VMfailValid");
    // Outside 64-bit mode the operand has 32 bits, whatever the high half holds.
    let mut bench = self::bench();
    exit(&mut bench, ExitReason::VMREAD, REGISTERS, 0, move |vmcs, regs| {
        // 32-bit code: L 0, D 1.
        vmcs.write(GUEST_CS_ACCESS_RIGHTS, vmcs.read(GUEST_CS_ACCESS_RIGHTS) & !(1 << 13) | 1 << 14);
        regs.set(Gpr::Rax, 1 << 32 | field);
    });
    bench.run_script();
    assert_eq!(bench.cpu.vmcs.read(GUEST_RFLAGS) & 0x8d5, 0, "VMsucceed");
}

/// VMPTRST to 0x7000 by a 64-bit kernel; what comes after it.
fn store_pointer(bench: &mut Bench) -> super::fakes::Entry {
    exit(bench, ExitReason::VMPTRST, ABSOLUTE | DS, 0x7000, |_, _| ());
    *bench.run_script().last().unwrap()
}

/// The page of the last operand is remembered, and no longer as soon as any of the entries that lead there has changed.
#[test]
fn remembered_page_follows_the_entries() {
    const POINTER: u64 = 0x5_1000;
    let mut bench = bench();
    bench.world.memory = std::mem::take(&mut bench.world.memory).lasting();
    // Accessed and dirty: nothing to write on the way.
    for (at, entry) in [(0x1000, 0x2023), (0x2000, 0x3023), (0x3000, 0xe3)] {
        bench.world.memory.set(at, entry);
    }
    let changes: [(&[(u64, u64)], u64); 6] = [
        (&[], 0x7000),
        // The same once more: this is what was remembered.
        (&[], 0x7000),
        // A page directory with a page table.
        (&[(0x4038, 0x9063), (0x3000, 0x4023)], 0x9000),
        // Another page in it.
        (&[(0x4038, 0xa063)], 0xa000),
        // Another page table.
        (&[(0xb038, 0x9063), (0x3000, 0xb023)], 0x9000),
        // Another page directory, with a page of 2 MiB.
        (&[(0x8000, 0xe3), (0x2000, 0x8023)], 0x7000),
    ];
    for (change, target) in changes {
        for &(at, entry) in change {
            bench.world.memory.set(at, entry);
        }
        for at in [0x7000, 0x9000, 0xa000] {
            bench.world.memory.set(at, 0);
        }
        assert_ne!(store_pointer(&mut bench).event.vector(), Vector::PF, "after {change:x?}");
        let stored = [0x7000, 0x9000, 0xa000].map(|at| (at, bench.world.memory.get(at)));
        let expected = [0x7000, 0x9000, 0xa000].map(|at| (at, if at == target { POINTER } else { 0 }));
        assert_eq!(stored, expected, "after {change:x?}");
        assert!(bench.vcpu.operand.is_some(), "this is the frequent case");
    }
    // Read-only at the highest level.
    bench.world.memory.set(0x1000, 0x2021);
    assert_eq!(store_pointer(&mut bench).event.vector(), Vector::PF);
}

/// L2's operand lies in L2's memory, though L2 may have L1's CR3 and linear address, and L1's entries still be what they were.
#[test]
fn remembered_page_is_l1s_alone() {
    let mut bench = bench();
    bench.world.memory = std::mem::take(&mut bench.world.memory).lasting();
    let l2 = testkit::Ram::new();
    for (at, entry) in [(0x1000, 0x2023), (0x2000, 0x3023), (0x3000, 0xe3)] {
        bench.world.memory.set(at, entry);
        l2.set(at, entry);
    }
    store_pointer(&mut bench);
    assert!(bench.vcpu.operand.is_some());
    bench.world.memory.set(0x7000, 0);
    bench.cpu.vmcs.write(EXIT_QUALIFICATION, 0x7000);
    bench.vcpu.in_l2 = true;
    let information = vmcs::InstructionInfo(ABSOLUTE | DS);
    let stored = crate::exits::vmx_operand::store(&mut bench.vcpu, &mut bench.cpu, &l2, information, 0x1234);
    assert_eq!(stored, Ok(()));
    assert_eq!((l2.get(0x7000), bench.world.memory.get(0x7000)), (0x1234, 0));
}
