//! VMX instructions with any operands: instruction information, registers, page tables, and what lies where they lead.
#![no_main]
#![allow(dead_code, reason = "the fakes of the vCPU's tests, of which this needs a part")]

#[path = "../../../crates/vcpu/src/tests/fakes.rs"]
mod fakes;

use std::cell::RefCell;

use arbitrary::Arbitrary;
use arch::Gpr;
use fakes::{Bench, start_64_bit};
use libfuzzer_sys::fuzz_target;
use testkit::Ram;
use vcpu::*;
use vmcs::fields::*;
use vmcs::{Access, ExitReason};

#[derive(Arbitrary, Debug)]
struct Input {
    registers: [u64; 16],
    fs_base: u32,
    compatibility: bool,
    user: bool,
    /// Words of L1's memory, 8 bytes each, in the first MiB.
    memory: Vec<(u16, u64)>,
    instructions: Vec<Instruction>,
}

#[derive(Arbitrary, Clone, Debug)]
struct Instruction {
    which: u8,
    information: u32,
    displacement: u64,
    register: u8,
    value: Value,
}

/// What a register gets before the instruction.
#[derive(Arbitrary, Clone, Debug)]
enum Value {
    Any(u64),
    Field(u8),
    Small(u16),
}

const INSTRUCTIONS: [ExitReason; 13] = [
    ExitReason::VMCLEAR,
    ExitReason::VMPTRLD,
    ExitReason::VMPTRST,
    ExitReason::VMREAD,
    ExitReason::VMWRITE,
    ExitReason::VMREAD,
    ExitReason::VMWRITE,
    ExitReason::VMXON,
    ExitReason::VMXOFF,
    ExitReason::INVEPT,
    ExitReason::INVVPID,
    ExitReason::VMLAUNCH,
    ExitReason::VMRESUME,
];

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::with_vmx(0, |_| ()));
}

/// Starts over: VMXOFF, VMXON and VMPTRLD, with the pointers at 0x7000 and 0x7008.
fn start_over(bench: &mut Bench) {
    bench.world.memory = Ram::new();
    let memory = &bench.world.memory;
    // Everything is where it is: one 1-GiB page.
    for (at, word) in [(0x1000, 0x2007), (0x2000, 0x87), (0x7000, 0x5_0000), (0x7008, 0x5_1000)] {
        memory.set(at, word);
    }
    for region in [0x5_0000, 0x5_1000, 0x5_2000] {
        memory.set(region, nested::REVISION.into());
    }
    start_64_bit(&mut bench.cpu.vmcs);
    for (reason, pointer) in [(ExitReason::VMXOFF, 0), (ExitReason::VMXON, 0x7000), (ExitReason::VMPTRLD, 0x7008)] {
        exit(bench, reason, 1 << 22 | 1 << 27 | 2 << 7 | 3 << 15, pointer);
    }
}

fn exit(bench: &mut Bench, reason: ExitReason, information: u32, qualification: u64) {
    bench.cpu.exit(reason, move |vmcs, _| {
        vmcs.write(VM_EXIT_INSTRUCTION_LEN, 4);
        vmcs.write(VM_EXIT_INSTRUCTION_INFO, information);
        vmcs.write(EXIT_QUALIFICATION, qualification);
    });
}

fuzz_target!(|input: Input| {
    BENCH.with_borrow_mut(|bench| {
        start_over(bench);
        for &(word, value) in &input.memory {
            let at = u64::from(word) * 8;
            if Ram::has(at) {
                bench.world.memory.set(at, value);
            }
        }
        let (fs_base, compatibility, user) = (input.fs_base, input.compatibility, input.user);
        bench.cpu.exit(ExitReason::VMXOFF, move |vmcs, regs| {
            vmcs.write(VM_EXIT_INSTRUCTION_LEN, 3);
            for (number, value) in (0..16).zip(input.registers) {
                if Gpr::from_number(number) != Gpr::Rsp {
                    regs.set(Gpr::from_number(number), value);
                }
            }
            vmcs.write(GUEST_FS_BASE, fs_base.into());
            if compatibility {
                vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
                vmcs.write(GUEST_RIP, 0x1000);
            }
            if user {
                for field in [GUEST_CS_ACCESS_RIGHTS, GUEST_SS_ACCESS_RIGHTS] {
                    let rights = vmcs.read(field);
                    vmcs.write(field, rights | 0x60);
                }
                vmcs.write(GUEST_CS_SELECTOR, 0x0b);
                vmcs.write(GUEST_SS_SELECTOR, 0x13);
            }
        });
        exit(bench, ExitReason::VMXON, 1 << 22 | 1 << 27 | 2 << 7 | 3 << 15, 0x7000);
        exit(bench, ExitReason::VMPTRLD, 1 << 22 | 1 << 27 | 2 << 7 | 3 << 15, 0x7008);
        for instruction in input.instructions.iter().take(16).cloned() {
            let reason = INSTRUCTIONS[usize::from(instruction.which) % INSTRUCTIONS.len()];
            bench.cpu.exit(reason, move |vmcs, regs| {
                vmcs.write(VM_EXIT_INSTRUCTION_LEN, 4);
                vmcs.write(VM_EXIT_INSTRUCTION_INFO, instruction.information);
                vmcs.write(EXIT_QUALIFICATION, instruction.displacement);
                let value = match instruction.value {
                    Value::Any(value) => value,
                    Value::Small(value) => value.into(),
                    Value::Field(field) => FIELDS[usize::from(field) % FIELDS.len()].encoding.0.into(),
                };
                let register = Gpr::from_number(instruction.register & 15);
                if register != Gpr::Rsp {
                    regs.set(register, value);
                }
            });
        }
        // The script ends in a triple fault of whoever runs.
        let left = bench.run();
        bench.cpu.script.clear();
        bench.cpu.entries.clear();
        bench.world.reports.borrow_mut().clear();
        match left {
            Left::Stop(Stop::TripleFault) => {}
            // L2 was made to wait, or L1's VMX shut down.
            Left::Halted { .. } | Left::WaitsForSipi | Left::Stop(Stop::VmxAbort(_)) => {
                *bench = Bench::with_vmx(0, |_| ());
            }
            other => panic!("{other:?}"),
        }
    });
});
