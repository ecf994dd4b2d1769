//! Ring 3: what it may not do, and the two ways into the kernel.

use core::arch::{asm, global_asm};
use core::sync::atomic::AtomicU64;

use arch::msr::Msr;
use guests::entry::{CODE64, USER_CODE64, USER_DATA};
use guests::{Fault, cpu, interrupts, memory, msr, println};

use crate::outcome;

/// A page below 1 MiB for the code of ring 3, and its stack's end. The kernel is not in the same 2 MiB.
const CODE: u64 = 0x9000;
const STACK: u64 = 0xb000;

unsafe extern "C" {
    static boot_pml4: u8;
    static boot_pdpt: u8;
    static boot_pd: u8;
    fn system_call_entry();
}

/// The stack that interrupts of ring 3 start on.
#[repr(align(16))]
struct Stack([AtomicU64; 1024]);
static KERNEL_STACK: Stack = Stack([const { AtomicU64::new(0) }; 1024]);

global_asm!(
    r#"
    // SYSCALL comes here with the user's stack; the breakpoint ends the attempt in the kernel.
    .global system_call_entry
system_call_entry:
    int3
    "#
);

/// Runs `code` in ring 3 until it faults, with these flags.
fn run(code: &[u8], flags: u64) -> Option<Fault> {
    for (offset, byte) in code.iter().chain(&[0x0f, 0x0b]).enumerate() {
        memory::write(CODE + offset as u64, *byte);
    }
    guests::expect_fault(|| {
        // SAFETY: whatever the code does ends in an exception, which is expected.
        unsafe {
            asm!(
                "push {data}",
                "push {stack}",
                "push {flags}",
                "push {code}",
                "push {address}",
                "iretq",
                data = in(reg) u64::from(USER_DATA),
                stack = in(reg) STACK,
                flags = in(reg) flags | 2,
                code = in(reg) u64::from(USER_CODE64),
                address = in(reg) CODE,
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

pub(crate) fn all() {
    println!("ring 3");
    set_user(4);
    interrupts::set_ring0_stack(KERNEL_STACK.0.as_ptr() as u64 + 8192);
    outcome("UD2", run(&[], 0));
    outcome("HLT", run(&[0xf4], 0));
    outcome("CLI", run(&[0xfa], 0));
    outcome("IN", run(&[0xe4, 0x21], 0));
    outcome("OUT", run(&[0xe6, 0x80], 0));
    outcome("IN with IOPL 3", run(&[0xe4, 0x21], 3 << 12));
    outcome("CLI with IOPL 3", run(&[0xfa], 3 << 12));
    outcome("RDMSR", run(&[0x0f, 0x32], 0));
    outcome("MOV CR0", run(&[0x0f, 0x20, 0xc0], 0));
    outcome("MOV CR8", run(&[0x44, 0x0f, 0x20, 0xc0], 0));
    outcome("INVLPG", run(&[0x0f, 0x01, 0x38], 0));
    outcome("WBINVD", run(&[0x0f, 0x09], 0));
    outcome("LGDT", run(&[0x0f, 0x01, 0x10], 0));
    outcome("SWAPGS", run(&[0x0f, 0x01, 0xf8], 0));
    outcome("XSETBV without OSXSAVE", run(&[0x0f, 0x01, 0xd1], 0));
    outcome("VMCALL", run(&[0x0f, 0x01, 0xc1], 0).filter(|fault| fault.vector.0 != 6));
    outcome("CPUID", run(&[0x31, 0xc0, 0x0f, 0xa2], 0));
    outcome("RDTSC", run(&[0x0f, 0x31], 0));
    cpu::write_cr4(cpu::cr4() | 1 << 2);
    outcome("RDTSC with TSD", run(&[0x0f, 0x31], 0));
    cpu::write_cr4(cpu::cr4() & !(1 << 2));
    outcome("RDPMC", run(&[0x31, 0xc9, 0x0f, 0x33], 0));
    outcome("INT 80, a gate of ring 0", run(&[0xcd, 0x80], 0));
    outcome("INT3, a gate of ring 0", run(&[0xcc], 0));
    // mov eax, [0x200000]; mov [0x200000], eax; jmp there.
    outcome("read of the kernel", run(&[0x8b, 0x04, 0x25, 0, 0, 0x20, 0], 0));
    outcome("write of the kernel", run(&[0x89, 0x04, 0x25, 0, 0, 0x20, 0], 0));
    outcome("jump into the kernel", run(&[0xb8, 0, 0, 0x20, 0, 0xff, 0xe0], 0));
    // mov eax, [0x9001] with alignment checks.
    cpu::write_cr0(cpu::cr0() | 1 << 18);
    outcome("not aligned, AM and AC", run(&[0x8b, 0x04, 0x25, 1, 0x90, 0, 0], 1 << 18));
    cpu::write_cr0(cpu::cr0() & !(1 << 18));
    outcome("not aligned, AC without AM", run(&[0x8b, 0x04, 0x25, 1, 0x90, 0, 0], 1 << 18));

    outcome("SYSCALL without SCE", run(&[0x0f, 0x05], 0));
    msr::write(Msr::EFER, msr::read(Msr::EFER) | 1);
    msr::write(Msr::STAR, u64::from(CODE64) << 32 | 0x2b_u64 << 48);
    msr::write(Msr::LSTAR, system_call_entry as *const () as u64);
    msr::write(Msr::FMASK, 0x200);
    outcome("SYSCALL", run(&[0x0f, 0x05], 0));
    msr::write(Msr::EFER, msr::read(Msr::EFER) & !1);
    outcome("SYSENTER with CS 0", run(&[0x0f, 0x34], 0));
    msr::write(Msr::SYSENTER_CS, u64::from(CODE64));
    msr::write(Msr::SYSENTER_ESP, KERNEL_STACK.0.as_ptr() as u64 + 4096);
    msr::write(Msr::SYSENTER_EIP, system_call_entry as *const () as u64);
    outcome("SYSENTER", run(&[0x0f, 0x34], 0));
    msr::write(Msr::SYSENTER_CS, 0);
    set_user(0);
}
