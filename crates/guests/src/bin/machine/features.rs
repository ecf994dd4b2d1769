//! CPUID: what it shows works, and what can be refused is refused where it is not shown.

use arch::msr::Msr;
use guests::{Fault, apic, cpu, expect_fault, msr, print, println};

use crate::{attempt, equal};

/// A register of CPUID's answer.
#[derive(Clone, Copy)]
enum Part {
    Ebx,
    Ecx,
    Edx,
}

/// A feature: its name, where CPUID shows it, and something that works with it.
type Feature = (&'static str, u32, u32, Part, u32, fn() -> Option<Fault>);

fn shown(leaf: u32, subleaf: u32, part: Part, bit: u32) -> bool {
    let highest = cpu::cpuid(leaf & 0x8000_0000, 0).eax;
    let answer = cpu::cpuid(leaf, subleaf);
    let register = match part {
        Part::Ebx => answer.ebx,
        Part::Ecx => answer.ecx,
        Part::Edx => answer.edx,
    };
    leaf <= highest && register & 1 << bit != 0
}

/// Tries a bit of CR4 and takes it back.
fn cr4(bit: u32) -> Option<Fault> {
    let before = cpu::cr4();
    let fault = expect_fault(|| cpu::write_cr4(before ^ 1 << bit));
    cpu::write_cr4(before);
    fault
}

fn read_msr(number: u32) -> Option<Fault> {
    expect_fault(|| _ = msr::read(Msr(number)))
}

/// Features whose instructions a processor cannot refuse when CPUID is told to hide them: shown, they have to work.
const INSTRUCTIONS: [Feature; 35] = [
    ("x87", 1, 0, Part::Edx, 0, || attempt!("fninit")),
    (
        "CMPXCHG8B",
        1,
        0,
        Part::Edx,
        8,
        || attempt!("lock cmpxchg8b [{}]", in(reg) &mut [0_u64; 2], out("rax") _, out("rdx") _),
    ),
    ("CMOV", 1, 0, Part::Edx, 15, || attempt!("cmovz {}, {}", out(reg) _, in(reg) 0_u64)),
    ("CLFLUSH", 1, 0, Part::Edx, 19, || attempt!("clflush [{}]", in(reg) &0_u64)),
    ("MMX", 1, 0, Part::Edx, 23, || attempt!("pxor mm0, mm0", "emms")),
    ("FXSAVE", 1, 0, Part::Edx, 24, || attempt!("fxsave [{}]", in(reg) &mut Area([0; 4096]))),
    ("SSE", 1, 0, Part::Edx, 25, || attempt!("xorps xmm0, xmm0")),
    ("SSE2", 1, 0, Part::Edx, 26, || attempt!("xorpd xmm0, xmm0")),
    ("SSE3", 1, 0, Part::Ecx, 0, || attempt!("haddps xmm0, xmm0")),
    ("PCLMULQDQ", 1, 0, Part::Ecx, 1, || attempt!("pclmulqdq xmm0, xmm0, 0")),
    ("SSSE3", 1, 0, Part::Ecx, 9, || attempt!("pshufb xmm0, xmm0")),
    ("FMA", 1, 0, Part::Ecx, 12, || attempt!("vfmadd132ps xmm0, xmm0, xmm0")),
    ("SSE4.1", 1, 0, Part::Ecx, 19, || attempt!("pmulld xmm0, xmm0")),
    ("SSE4.2", 1, 0, Part::Ecx, 20, || attempt!("crc32 eax, eax", out("eax") _)),
    ("MOVBE", 1, 0, Part::Ecx, 22, || attempt!("movbe {}, [{}]", out(reg) _, in(reg) &0_u64)),
    ("POPCNT", 1, 0, Part::Ecx, 23, || attempt!("popcnt eax, eax", out("eax") _)),
    ("AES", 1, 0, Part::Ecx, 25, || attempt!("aesenc xmm0, xmm0")),
    ("AVX", 1, 0, Part::Ecx, 28, || attempt!("vaddps ymm0, ymm0, ymm0")),
    ("F16C", 1, 0, Part::Ecx, 29, || attempt!("vcvtph2ps xmm0, xmm0")),
    ("RDRAND", 1, 0, Part::Ecx, 30, || attempt!("rdrand {}", out(reg) _)),
    ("BMI1", 7, 0, Part::Ebx, 3, || attempt!("andn eax, eax, eax", out("eax") _)),
    ("AVX2", 7, 0, Part::Ebx, 5, || attempt!("vpaddd ymm0, ymm0, ymm0")),
    ("BMI2", 7, 0, Part::Ebx, 8, || attempt!("rorx eax, eax, 1", out("eax") _)),
    ("AVX-512", 7, 0, Part::Ebx, 16, || attempt!("vpaddd zmm0, zmm0, zmm0")),
    ("RDSEED", 7, 0, Part::Ebx, 18, || attempt!("rdseed {}", out(reg) _)),
    ("ADX", 7, 0, Part::Ebx, 19, || attempt!("adcx eax, eax", out("eax") _)),
    ("CLFLUSHOPT", 7, 0, Part::Ebx, 23, || attempt!("clflushopt [{}]", in(reg) &0_u64)),
    ("CLWB", 7, 0, Part::Ebx, 24, || attempt!("clwb [{}]", in(reg) &0_u64)),
    ("SHA", 7, 0, Part::Ebx, 29, || attempt!("sha1nexte xmm0, xmm0")),
    ("LZCNT", 0x8000_0001, 0, Part::Ecx, 5, || attempt!("lzcnt eax, eax", out("eax") _)),
    ("PREFETCHW", 0x8000_0001, 0, Part::Ecx, 8, || attempt!("prefetchw [{}]", in(reg) &0_u64)),
    ("LAHF", 0x8000_0001, 0, Part::Ecx, 0, || attempt!("lahf", out("rax") _)),
    ("CMPXCHG16B", 1, 0, Part::Ecx, 13, || {
        attempt!("push rbx", "xor ebx, ebx", "lock cmpxchg16b [{}]", "pop rbx",
            in(reg) &mut Area([0; 4096]), out("rax") _, out("rdx") _, out("rcx") _)
    }),
    ("TSC", 1, 0, Part::Edx, 4, || attempt!("rdtsc", out("rax") _, out("rdx") _)),
    ("PAT", 1, 0, Part::Edx, 16, || read_msr(0x277)),
];

/// Features that are refused where they are not shown: instructions that have a control, bits of CR4, MSRs.
const REFUSED: [Feature; 28] = [
    ("VME", 1, 0, Part::Edx, 1, || cr4(0)),
    ("DE", 1, 0, Part::Edx, 2, || cr4(3)),
    ("MCE", 1, 0, Part::Edx, 7, || cr4(6)),
    ("PGE", 1, 0, Part::Edx, 13, || cr4(7)),
    ("VMX", 1, 0, Part::Ecx, 5, || cr4(13)),
    ("SMX", 1, 0, Part::Ecx, 6, || cr4(14)),
    ("PCID", 1, 0, Part::Ecx, 17, || cr4(17)),
    ("XSAVE", 1, 0, Part::Ecx, 26, || cr4(18)),
    ("FSGSBASE", 7, 0, Part::Ebx, 0, || cr4(16)),
    ("SMEP", 7, 0, Part::Ebx, 7, || cr4(20)),
    ("SMAP", 7, 0, Part::Ebx, 20, || cr4(21)),
    ("UMIP", 7, 0, Part::Ecx, 2, || cr4(11)),
    ("PKU", 7, 0, Part::Ecx, 3, || cr4(22)),
    ("CET", 7, 0, Part::Ecx, 7, || cr4(23)),
    ("PKS", 7, 0, Part::Ecx, 31, || cr4(24)),
    ("UINTR", 7, 0, Part::Edx, 5, || cr4(25)),
    ("RDTSCP", 0x8000_0001, 0, Part::Edx, 27, || attempt!("rdtscp", out("rax") _, out("rdx") _, out("rcx") _)),
    ("INVPCID", 7, 0, Part::Ebx, 10, || attempt!("invpcid {}, [{}]", in(reg) 2_u64, in(reg) &[0_u64; 2])),
    ("TSC_ADJUST", 7, 0, Part::Ebx, 1, || read_msr(0x3b)),
    ("TSC deadline", 1, 0, Part::Ecx, 24, || read_msr(0x6e0)),
    ("MTRR", 1, 0, Part::Edx, 12, || read_msr(0xfe)),
    ("SYSENTER", 1, 0, Part::Edx, 11, || read_msr(0x174)),
    ("SPEC_CTRL", 7, 0, Part::Edx, 26, || read_msr(0x48)),
    ("ARCH_CAPABILITIES", 7, 0, Part::Edx, 29, || read_msr(0x10a)),
    ("MONITOR", 1, 0, Part::Ecx, 3, || attempt!("monitor", in("rax") &0_u64, in("rcx") 0, in("rdx") 0)),
    ("WAITPKG", 7, 0, Part::Ecx, 5, || attempt!("umonitor {}", in(reg) &0_u64)),
    ("RDPID", 7, 0, Part::Ecx, 22, || attempt!("rdpid {}", out(reg) _)),
    ("SYSCALL", 0x8000_0001, 0, Part::Edx, 11, || efer(0)),
];

/// Tries a bit of EFER and takes it back.
fn efer(bit: u32) -> Option<Fault> {
    let before = msr::read(Msr::EFER);
    let fault = expect_fault(|| msr::write(Msr::EFER, before ^ 1 << bit));
    msr::write(Msr::EFER, before);
    fault
}

/// Memory for FXSAVE and XSAVE, as they want it aligned.
#[repr(align(64))]
struct Area(#[expect(dead_code, reason = "the processor writes it")] [u8; 4096]);

pub(crate) fn all() {
    println!("CPUID");
    let first = cpu::cpuid(0, 0);
    print!(" vendor ");
    for byte in [first.ebx, first.edx, first.ecx].into_iter().flat_map(u32::to_le_bytes) {
        print!("{}", char::from(byte));
    }
    println!();
    println!(
        " leaves to d and 80000008 at least: {}",
        first.eax >= 0xd && cpu::cpuid(0x8000_0000, 0).eax >= 0x8000_0008
    );
    for (what, leaf, part, bit) in [
        ("64-bit mode", 0x8000_0001, Part::Edx, 29),
        ("no execute", 0x8000_0001, Part::Edx, 20),
        ("PAE", 1, Part::Edx, 6),
        ("2-MiB pages", 1, Part::Edx, 3),
        ("MSRs", 1, Part::Edx, 5),
        ("APIC", 1, Part::Edx, 9),
    ] {
        println!(" {what}: {}", shown(leaf, 0, part, bit));
    }
    let address_bits = cpu::cpuid(0x8000_0008, 0).eax;
    println!(" sane address widths: {}", (36..=52).contains(&(address_bits & 0xff)) && address_bits >> 8 & 0xff >= 48);
    equal("APIC id of leaf 1", (cpu::cpuid(1, 0).ebx >> 24).into(), apic::id().into());
    equal("APIC id of leaf b", cpu::cpuid(0xb, 0).edx.into(), apic::id().into());

    let before = cpu::cr4();
    cpu::write_cr4(before & !(1 << 18));
    let off = shown(1, 0, Part::Ecx, 27);
    cpu::write_cr4(before | 1 << 9 | 1 << 10 | 1 << 18);
    println!(" OSXSAVE follows CR4: {}", !off && shown(1, 0, Part::Ecx, 27));
    let all_state = cpu::cpuid(0xd, 0).eax;
    outcome_xsetbv(all_state);
    sizes(all_state);
    works();
    cpu::write_cr4(before);
}

fn outcome_xsetbv(state: u32) {
    crate::outcome("XSETBV with all that leaf d shows", attempt!("xsetbv", in("rax") state, in("rdx") 0, in("rcx") 0));
}

/// The sizes of leaf d agree with each other.
fn sizes(state: u32) {
    let area = |mask: u32| {
        let _ = attempt!("xsetbv", in("rax") mask, in("rdx") 0, in("rcx") 0);
        u64::from(cpu::cpuid(0xd, 0).ebx)
    };
    equal("XSAVE area, x87", area(1), 576);
    equal("XSAVE area, SSE", area(3), 576);
    let end = |component: u32| {
        let part = cpu::cpuid(0xd, component);
        u64::from(part.eax + part.ebx)
    };
    if state & 4 != 0 {
        equal("XSAVE area, AVX", area(7) - end(2), 0);
    }
    let highest = (2..32).filter(|component| state & 1 << component != 0).map(end).max().unwrap_or(576);
    equal("XSAVE area, all", area(state), highest);
    equal("XSAVE area, largest", cpu::cpuid(0xd, 0).ecx.into(), highest);
}

fn works() {
    for (name, leaf, subleaf, part, bit, test) in INSTRUCTIONS {
        match (shown(leaf, subleaf, part, bit), test()) {
            (true, Some(fault)) => println!(" {name}: shown, but {fault}"),
            _ => println!(" {name}: ok"),
        }
    }
    for (name, leaf, subleaf, part, bit, test) in REFUSED {
        match (shown(leaf, subleaf, part, bit), test()) {
            (true, Some(fault)) => println!(" {name}: shown, but {fault}"),
            (false, None) => println!(" {name}: works, but is not shown"),
            _ => println!(" {name}: ok"),
        }
    }
    // XSAVE's kinds are shown in EAX of leaf d, subleaf 1.
    let kinds = cpu::cpuid(0xd, 1).eax;
    let area = &mut Area([0; 4096]);
    for (name, bit, fault) in [
        ("XSAVEOPT", 0, attempt!("xsaveopt [{}]", in(reg) &mut *area, in("rax") 7, in("rdx") 0)),
        ("XSAVEC", 1, attempt!("xsavec [{}]", in(reg) &mut *area, in("rax") 7, in("rdx") 0)),
        ("XGETBV of 1", 2, attempt!("xgetbv", in("rcx") 1, out("rax") _, out("rdx") _)),
        ("XSAVES", 3, attempt!("xsaves [{}]", in(reg) &mut *area, in("rax") 7, in("rdx") 0)),
    ] {
        match (kinds & 1 << bit != 0, fault) {
            (true, Some(fault)) => println!(" {name}: shown, but {fault}"),
            (false, None) if bit == 3 => println!(" {name}: works, but is not shown"),
            _ => println!(" {name}: ok"),
        }
    }
}
