//! CPUID: the raw leaves, and the few answers that bring-up asks for.

use arch::cpuid::CpuidResult;

/// CPUID with `leaf` in EAX and `subleaf` in ECX.
#[inline(always)]
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let raw = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    CpuidResult { eax: raw.eax, ebx: raw.ebx, ecx: raw.ecx, edx: raw.edx }
}

/// `leaf` with subleaf 0, or zeros where the processor's highest leaf is below it.
///
/// Without the test, an Intel processor answers a basic leaf that it does not have with its highest one.
#[must_use]
pub fn leaf(leaf: u32) -> CpuidResult {
    let highest = cpuid(leaf & 0x8000_0000, 0).eax;
    if leaf <= highest { cpuid(leaf, 0) } else { CpuidResult::default() }
}

/// VMX, CPUID.1:ECX bit 5.
#[must_use]
pub fn has_vmx() -> bool {
    leaf(1).ecx & 1 << 5 != 0
}

/// x2APIC mode, CPUID.1:ECX bit 21.
#[must_use]
pub fn has_x2apic() -> bool {
    leaf(1).ecx & 1 << 21 != 0
}

/// The local APIC's TSC-deadline timer, CPUID.1:ECX bit 24.
#[must_use]
pub fn has_tsc_deadline() -> bool {
    leaf(1).ecx & 1 << 24 != 0
}

/// XSAVE and its relatives, CPUID.1:ECX bit 26.
#[must_use]
pub fn has_xsave() -> bool {
    leaf(1).ecx & 1 << 26 != 0
}

/// Execute-disable pages, CPUID.80000001H:EDX bit 20.
#[must_use]
pub fn has_nx() -> bool {
    leaf(0x8000_0001).edx & 1 << 20 != 0
}

/// 1-GiB pages, CPUID.80000001H:EDX bit 26.
#[must_use]
pub fn has_1g_pages() -> bool {
    leaf(0x8000_0001).edx & 1 << 26 != 0
}

/// Width of physical addresses in bits, CPUID.80000008H:EAX bits 7:0.
#[must_use]
pub fn physical_address_bits() -> u32 {
    match leaf(0x8000_0008).eax & 0xff {
        0 => 36,
        bits => bits,
    }
}

/// The processor's brand string, CPUID.80000002H to 80000004H, padded with zeros.
#[must_use]
pub fn brand() -> [u8; 48] {
    let mut text = [0; 48];
    for (part, number) in text.as_chunks_mut::<16>().0.iter_mut().zip(0x8000_0002..) {
        let result = leaf(number);
        for (bytes, register) in
            part.as_chunks_mut::<4>().0.iter_mut().zip([result.eax, result.ebx, result.ecx, result.edx])
        {
            *bytes = register.to_le_bytes();
        }
    }
    text
}
