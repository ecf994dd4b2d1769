//! Every way to touch a device's page: widths, places across registers and pages, vector and string instructions.
//!
//! What comes of it is not printed: a machine may do the access in pieces, refuse it or ignore it. Each form is named
//! before it runs, so that the log of a machine that does not survive says which one it was.

use guests::memory::write_register;
use guests::{apic, cpu, multiboot, println};

const APIC: u64 = 0xfee0_0000;
const IOAPIC: u64 = 0xfec0_0000;

/// Memory that string and vector instructions copy from and to.
#[repr(align(64))]
struct Area([u64; 512]);

/// Runs each form with RDI at a register, RSI at memory, and RAX, RCX and RDX zero.
macro_rules! forms {
    ($run:expr, $at:expr, $($form:literal)+) => {$(
        $run($form, $at, |register, memory| {
            // SAFETY: the form faults, or touches the device's page and the area.
            unsafe {
                core::arch::asm!(
                    "push rbx", "xor ebx, ebx", $form, "cld", "pop rbx",
                    inout("rdi") register => _, inout("rsi") memory => _,
                    inout("rax") 0_u64 => _, inout("rcx") 0_u64 => _, inout("rdx") 0_u64 => _,
                );
            }
        });
    )+};
}

/// One form. A function of its own, so that there is one area on the stack and not one for each form.
#[inline(never)]
fn run(name: &str, register: u64, form: fn(u64, *mut u64)) {
    println!(" {name}");
    let mut area = Area([0; 512]);
    let _ = guests::expect_fault(|| form(register, area.0.as_mut_ptr()));
}

/// What drivers do to a device's page; `at` is a register that takes anything.
fn page(at: u64, page: u64) {
    forms!(run, at,
        "mov al, [rdi]" "mov ax, [rdi]" "mov eax, [rdi]" "mov rax, [rdi]"
        "mov [rdi], al" "mov [rdi], ax" "mov [rdi], eax" "mov [rdi], rax"
        "mov al, [rdi + 1]" "mov ax, [rdi + 3]" "mov eax, [rdi + 2]" "mov rax, [rdi + 5]" "mov [rdi + 1], eax"
        "mov [rdi + 14], eax" "mov byte ptr [rdi], 0" "mov word ptr [rdi], 0" "mov qword ptr [rdi], 0"
        "movzx eax, byte ptr [rdi]" "movzx eax, word ptr [rdi + 1]" "movsx rax, byte ptr [rdi]" "movsxd rax, dword ptr [rdi]"
        "add [rdi], eax" "adc [rdi], eax" "sub [rdi], eax" "sbb [rdi], eax" "and [rdi], eax" "or [rdi], eax" "xor [rdi], eax"
        "add eax, [rdi]" "adc eax, [rdi]" "sub eax, [rdi]" "sbb eax, [rdi]" "cmp eax, [rdi]" "cmp [rdi], eax" "test [rdi], eax"
        "add byte ptr [rdi], 1" "or word ptr [rdi], 1" "and qword ptr [rdi], 0"
        "inc dword ptr [rdi]" "dec dword ptr [rdi]" "not dword ptr [rdi]" "neg dword ptr [rdi]"
        "bt dword ptr [rdi], 3" "bts dword ptr [rdi], 3" "btr [rdi], eax" "btc dword ptr [rdi], 3"
        "xchg [rdi], eax" "lock xadd [rdi], eax" "lock cmpxchg [rdi], ecx" "lock or dword ptr [rdi], 0" "lock inc dword ptr [rdi]"
        "movnti [rdi], eax" "mov eax, fs:[rdi]" "mov eax, dword ptr [edi]"
        "stosb" "stosw" "stosd" "stosq" "mov ecx, 3; rep stosd" "mov ecx, 2; std; rep stosd"
        "xchg rsi, rdi; lodsd" "mov ecx, 3; xchg rsi, rdi; rep lodsb" "movsd" "xchg rsi, rdi; movsd" "mov ecx, 5; rep movsb"
        "mov ecx, 5; xchg rsi, rdi; rep movsq" "mov rsi, rdi; mov ecx, 2; rep movsd"
        // Named, not accessed.
        "prefetcht0 [rdi]" "invlpg [rdi]" "lea rax, [rdi]" "nop dword ptr [rdi]"
    );
    // The page's ends, and registers that are not there.
    forms!(run, page, "mov rax, [rdi - 4]" "mov [rdi - 2], eax" "mov rax, [rdi + 0xffc]" "mov [rdi + 0xffe], eax");
    for offset in (0..0x1000).step_by(4) {
        // The ICR's low half could stop this processor, and the first page of the IOAPIC selects what the second changes.
        if offset & 0xff0 == 0x300 {
            continue;
        }
        let _ = guests::expect_fault(|| {
            let _ = guests::memory::read_register(page + offset);
            write_register(page + offset, 0);
            write_register(page + offset, u32::MAX);
        });
    }
}

/// What no driver does to a device's page: of these, the forms that the second argument is the start of.
pub(crate) fn other() {
    let wanted = multiboot::arguments().nth(1).unwrap_or("");
    let run = |name: &str, at: u64, form: fn(u64, *mut u64)| {
        if name.starts_with(wanted) {
            run(name, at, form);
        }
    };
    with_vectors(|| {
        // The current count: a register that no processor virtualizes.
        forms!(run, APIC + 0x390,
            "shl dword ptr [rdi], 1" "sar dword ptr [rdi], cl" "rol dword ptr [rdi], 3" "rcr dword ptr [rdi], 1"
            "shld [rdi], eax, 3" "shrd [rdi], eax, cl"
            "mul dword ptr [rdi]" "imul eax, [rdi]" "imul eax, [rdi], 3" "div dword ptr [rdi]" "idiv dword ptr [rdi]"
            "bsf eax, [rdi]" "bsr eax, [rdi]" "lock cmpxchg8b [rdi]" "lock cmpxchg16b [rdi]"
            "push qword ptr [rdi]; pop rax" "push rax; pop qword ptr [rdi]"
            "cmovz eax, [rdi]" "setz [rdi]" "movbe eax, [rdi]" "movbe [rdi], eax" "popcnt eax, [rdi]" "lzcnt eax, [rdi]"
            "andn eax, ecx, [rdi]" "crc32 eax, dword ptr [rdi]" "adcx eax, [rdi]"
            "scasd" "cmpsd" "mov ecx, 3; repe scasb" "mov dx, 0x80; xchg rsi, rdi; outsb" "mov dx, 0x80; insb"
            "fld dword ptr [rdi]; fstp dword ptr [rsi]" "fst qword ptr [rdi]" "fnstsw [rdi]" "fnsave [rdi]"
            "movd xmm0, [rdi]" "movd [rdi], xmm0" "movq xmm0, [rdi]" "movups xmm0, [rdi]" "movaps [rdi], xmm0" "movdqu xmm0, [rdi + 1]"
            "movntdq [rdi], xmm0" "maskmovdqu xmm0, xmm0" "paddd xmm0, [rdi]" "cvtsi2sd xmm0, dword ptr [rdi]" "movq mm0, [rdi]; emms"
            "vmovups ymm0, [rdi]" "vmovups [rdi], ymm0" "vpaddd ymm0, ymm0, [rdi]" "vbroadcastss ymm0, [rdi]"
            "vmaskmovps [rdi], ymm0, ymm0" "vpgatherdd xmm0, [rdi + xmm1 * 4], xmm2"
            "vmovdqu64 zmm0, [rdi]" "fxsave [rdi]" "fxrstor [rdi]" "xsave [rdi]" "xrstor [rdi]" "ldmxcsr [rdi]" "stmxcsr [rdi]"
            "sidt [rdi]" "sgdt [rdi]" "smsw [rdi]" "sldt [rdi]" "str [rdi]" "verr [rdi]" "lar eax, [rdi]"
            "clflush [rdi]" "lfs eax, [rdi]" "mov ds, [rdi + 0x20]; mov ax, 0x10; mov ds, ax"
        );
    });
}

fn with_vectors(storm: impl FnOnce()) {
    let before = cpu::cr4();
    cpu::write_cr4(before | 1 << 9 | 1 << 10);
    if cpu::cpuid(1, 0).ecx & 1 << 26 != 0 {
        cpu::write_cr4(before | 1 << 9 | 1 << 10 | 1 << 18);
        let state = cpu::cpuid(0xd, 0).eax;
        let _ = guests::expect_fault(|| {
            // SAFETY: switches on the state that the processor has.
            unsafe { core::arch::asm!("xsetbv", in("rax") state, in("rdx") 0, in("rcx") 0) }
        });
    }
    storm();
    cpu::write_cr4(before);
}

/// On the APIC's page.
pub(crate) fn all() {
    page(APIC + 0x80, APIC);
    apic::init();
}

/// On the IOAPIC's page.
pub(crate) fn ioapic() {
    page(IOAPIC, IOAPIC);
    (0..24).for_each(guests::ioapic::mask);
}
