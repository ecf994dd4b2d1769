//! The exception bitmap, and page faults by their error codes: SDM 3C 25.6.3 "Exception Bitmap", 26.2 "Other Causes of VM Exits".

use core::arch::asm;

use guests::vmx::{Current, L2, Report, equal};
use guests::{expect_fault, memory, println};
use vmcs::Access;
use vmcs::fields::{
    EXCEPTION_BITMAP, GUEST_IDTR_LIMIT, GUEST_RFLAGS, PAGE_FAULT_ERROR_CODE_MASK, PAGE_FAULT_ERROR_CODE_MATCH,
};

/// A linear address that is not mapped.
const NOWHERE: u64 = 1 << 32;
const RESUME: u64 = 1 << 16;

/// Code that executes these instructions.
macro_rules! code {
    ($($asm:tt)*) => {
        || {
            // SAFETY: the exception exits, and the guest ends there.
            unsafe { asm!($($asm)*) }
        }
    };
}

pub(crate) fn all() {
    println!("exceptions that exit");
    let l2 = &mut L2::new(|| {});
    Current.write(EXCEPTION_BITMAP, 0xffff_ffff);
    for (what, code) in [
        ("UD2", code!("ud2") as fn()),
        ("INT3", code!("int3")),
        ("INT1", code!(".byte 0xf1")),
        ("DIV", code!("xor ecx, ecx", "div ecx", out("ecx") _, out("eax") _, out("edx") _)),
        ("a non-canonical address", code!("mov rax, [rcx]", in("rcx") 1_u64 << 62, out("rax") _)),
        (
            "a non-canonical stack",
            code!("mov rax, rbp", "mov rbp, rcx", "mov rcx, [rbp]", "mov rbp, rax", inout("rcx") 1_u64 << 62 => _, out("rax") _),
        ),
        ("a selector beyond the GDT", code!("mov es, ecx", in("ecx") 0xff8)),
        ("a page that is not there", code!("mov rax, [rcx]", in("rcx") NOWHERE, out("rax") _)),
        ("INT 60", code!("int 0x60")),
        ("x87 with TS", code!("mov rax, cr0", "or rax, 8", "mov cr0, rax", "fninit", out("rax") _)),
    ] {
        l2.restart(code);
        if what == "INT 60" {
            guests::interrupts::handle(0x60, |_| println!("  L2 takes vector 96"));
        }
        let report = l2.run();
        println!(" {what}: {report}");
        if let Report::Exit { qualification, interruption, .. } = report {
            if interruption.0.vector().0 == 14 {
                equal("the qualification is the address", qualification, NOWHERE);
            }
            if what != "INT 60" {
                let is_fault = !matches!(interruption.0.vector().0, 1 | 3);
                equal("RF", Current.read(GUEST_RFLAGS) & RESUME, if is_fault { RESUME } else { 0 });
            }
        }
    }
    guests::interrupts::forget(0x60);
    l2.reset(|| {});
    println!("an exception while one is delivered");
    Current.write(GUEST_IDTR_LIMIT, 0);
    for (what, bitmap) in [("nothing", 0), ("#GP", 1 << 13), ("#DF", 1 << 8), ("#NP", 1 << 11)] {
        Current.write(EXCEPTION_BITMAP, bitmap);
        for (instruction, code) in
            [("UD2", code!("ud2") as fn()), ("INT3", code!("int3")), ("INT 50", code!("int 0x50"))]
        {
            l2.restart(code);
            println!(" {what} exits, {instruction}: {}", l2.run());
        }
    }
    l2.reset(|| {});
    page_faults(l2);
}

/// Whether a page fault exits: by its bit in the bitmap if mask and match agree, and the other way round if not.
fn page_faults(l2: &mut L2) {
    println!("page faults");
    let read = || {
        if let Some(fault) = expect_fault(|| _ = memory::read_register(NOWHERE)) {
            println!("  in L2: {fault}");
        }
    };
    let write = || {
        if let Some(fault) = expect_fault(|| memory::write_register(NOWHERE, 0)) {
            println!("  in L2: {fault}");
        }
    };
    let mut current = Current;
    for (what, bit, mask, matching) in [
        ("bit", true, 0, 0),
        ("no bit", false, 0, 0),
        ("bit, mask 0, match 1", true, 0, 1),
        ("no bit, mask 0, match 1", false, 0, 1),
        ("bit, writes", true, 2, 2),
        ("no bit, writes", false, 2, 2),
        ("bit, what is present", true, 1, 1),
    ] {
        current.write(EXCEPTION_BITMAP, if bit { 1 << 14 } else { 0 });
        current.write(PAGE_FAULT_ERROR_CODE_MASK, mask);
        current.write(PAGE_FAULT_ERROR_CODE_MATCH, matching);
        for (access, code) in [("read", read as fn()), ("write", write)] {
            l2.restart(code);
            println!(" {what}, {access}: {}", l2.run());
            guests::fault::forget();
        }
    }
    l2.reset(|| {});
}
