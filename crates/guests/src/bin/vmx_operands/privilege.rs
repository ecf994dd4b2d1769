//! Ring 3 and compatibility mode. SDM 3C, "VMX Instruction Reference": all that is refused there.

use core::arch::asm;
use core::sync::atomic::AtomicU64;

use guests::entry::{CODE32, USER_CODE64, USER_DATA};
use guests::vmx::instructions;
use guests::{Fault, cpu, expect_fault, interrupts, memory, println};

/// A page below 1 MiB for the code, which the kernel's 2 MiB do not hold, and the end of its stack.
const CODE: u64 = 0x9000;
const STACK: u64 = 0xb000;

unsafe extern "C" {
    static boot_pml4: u8;
    static boot_pdpt: u8;
    static boot_pd: u8;
}

/// The stack that exceptions of ring 3 start on.
#[repr(align(16))]
struct Stack {
    _words: [AtomicU64; 1024],
}
static KERNEL_STACK: Stack = Stack { _words: [const { AtomicU64::new(0) }; 1024] };

/// Each instruction; where it has memory as its operand, at EAX.
const INSTRUCTIONS: [(&str, &[u8]); 14] = [
    ("VMXON", &[0xf3, 0x0f, 0xc7, 0x30]),
    ("VMCLEAR", &[0x66, 0x0f, 0xc7, 0x30]),
    ("VMPTRLD", &[0x0f, 0xc7, 0x30]),
    ("VMPTRST", &[0x0f, 0xc7, 0x38]),
    ("VMREAD", &[0x0f, 0x78, 0xc0]),
    ("VMWRITE", &[0x0f, 0x79, 0xc0]),
    ("VMREAD, memory", &[0x0f, 0x78, 0x08]),
    ("VMLAUNCH", &[0x0f, 0x01, 0xc2]),
    ("VMRESUME", &[0x0f, 0x01, 0xc3]),
    ("INVEPT", &[0x66, 0x0f, 0x38, 0x80, 0x08]),
    ("INVVPID", &[0x66, 0x0f, 0x38, 0x81, 0x08]),
    ("VMCALL", &[0x0f, 0x01, 0xc1]),
    ("VMFUNC", &[0x0f, 0x01, 0xd4]),
    ("VMXOFF", &[0x0f, 0x01, 0xc4]),
];

/// Puts `mov eax, 0x9800`, `instruction` and UD2 where the code runs.
fn place(instruction: &[u8]) {
    let code = [0xb8, 0x00, 0x98, 0x00, 0x00].iter().chain(instruction).chain(&[0x0f, 0x0b]);
    for (offset, byte) in code.enumerate() {
        memory::write(CODE + offset as u64, *byte);
    }
}

/// Prints how each ends that is run by `run`, and whether the fault was the instruction's own.
fn each(run: fn() -> Option<Fault>) {
    each_but(&[], run);
}

/// The same without some.
fn each_but(left_out: &[&str], run: fn() -> Option<Fault>) {
    for (name, code) in INSTRUCTIONS.into_iter().filter(|(name, _)| !left_out.contains(name)) {
        place(code);
        match run() {
            Some(fault) if fault.rip == CODE + 5 => println!(" {name}: {fault}"),
            Some(fault) => println!(" {name}: done, then {fault}"),
            None => println!(" {name}: done"),
        }
    }
}

pub(crate) fn all() {
    println!("compatibility mode");
    each(compatibility);
    println!("ring 3");
    set_user(4);
    interrupts::set_ring0_stack(&raw const KERNEL_STACK as u64 + 8192);
    each(user);
    println!("ring 3, outside VMX operation");
    let _ = instructions::vmxoff();
    // Outside VMX operation VMCALL is a hypervisor's to answer, where there is one.
    each_but(&["VMCALL"], user);
    set_user(0);
}

/// Runs the code in a 32-bit code segment of ring 0.
fn compatibility() -> Option<Fault> {
    expect_fault(|| {
        // SAFETY: the code ends in an exception, which is expected.
        unsafe {
            asm!("push {segment}", "push {code}", "retfq", segment = in(reg) u64::from(CODE32), code = in(reg) CODE);
        }
    })
}

/// Runs the code in ring 3.
fn user() -> Option<Fault> {
    expect_fault(|| {
        // SAFETY: as above.
        unsafe {
            asm!(
                "push {data}",
                "push {stack}",
                "push 2",
                "push {segment}",
                "push {code}",
                "iretq",
                data = in(reg) u64::from(USER_DATA),
                stack = in(reg) STACK,
                segment = in(reg) u64::from(USER_CODE64),
                code = in(reg) CODE,
            );
        }
    })
}

fn set_user(bit: u64) {
    for table in [&raw const boot_pml4, &raw const boot_pdpt, &raw const boot_pd] {
        memory::write(table as u64, memory::read::<u64>(table as u64) & !4 | bit);
    }
    cpu::write_cr3(cpu::cr3());
}
