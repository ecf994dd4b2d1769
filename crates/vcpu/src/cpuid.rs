//! What CPUID tells L1: the machine's answer less every bit whose feature would not work.
//!
//! The table is made once per vCPU, so that the exit handler is a lookup. Three answers depend on what the guest has
//! set since (CR4.OSXSAVE, CR4.PKE, 64-bit mode) and one on XCR0; those are patched, see [`CpuidTable::lookup`] and
//! [`CpuidTable::xcr0_changed`]. Source: SDM 2A "CPUID—CPU Identification".

use arch::control::XCR0_OFFERED;
use arch::cpuid::CpuidResult;
use bit_field::BitField;

/// Which vCPU the table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// This vCPU's APIC id.
    pub apic_id: u32,
    /// vCPUs of the VM, shown as the cores of one package.
    pub cpus: u32,
}

/// Features that a VM-execution control must allow before they work in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ControlledFeatures {
    /// "Enable RDTSCP" is on: RDTSCP and RDPID.
    pub rdtscp: bool,
    /// "Enable INVPCID" is on.
    pub invpcid: bool,
    /// "Enable XSAVES/XRSTORS" is on.
    pub xsaves: bool,
    /// L1 has VMX.
    pub vmx: bool,
}

/// Where the answer to a CPUID needs one of the guest's control registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// The answer stands.
    None,
    /// Leaf 1: ECX bit 27 is CR4.OSXSAVE.
    Osxsave,
    /// Leaf 7: ECX bit 4 is CR4.PKE.
    Ospke,
    /// Leaf 0x80000001: EDX bit 11 (SYSCALL) reads 0 outside 64-bit mode.
    Syscall,
}

const BASIC: usize = 0x20;
const EXTENDED: usize = 9;
const CACHES: usize = 5;
const XSAVE: usize = 10;

/// Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CX16, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
const LEAF1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// Leaf 1 ECX, emulated whatever the machine has: x2APIC, TSC deadline; bit 31 says that a hypervisor answers.
const LEAF1_ECX_OURS: u32 = bits(&[21, 24, 31]);
/// Leaf 1 EDX: all but serial number, debug store, thermal MSRs, thermal monitor, pending-break enable.
const LEAF1_EDX: u32 = bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27]);
/// Leaf 7.0 EBX: no TSX, MPX, resource monitoring, processor trace, SGX. INVPCID only with its control.
const LEAF7_EBX: u32 = bits(&[0, 1, 3, 5, 6, 7, 8, 9, 13, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31]);
/// Leaf 7.0 ECX: vector extensions, UMIP, PKU, CLDEMOTE, MOVDIRI, MOVDIR64B. RDPID only with "enable RDTSCP".
const LEAF7_ECX: u32 = bits(&[0, 1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 25, 27, 28]);
/// Leaf 7.0 EDX: AVX512_4VNNIW, 4FMAPS, fast short REP MOV, VP2INTERSECT, SERIALIZE.
const LEAF7_EDX: u32 = bits(&[2, 3, 4, 8, 14]);
/// Leaf 7.1 EAX: AVX-VNNI, BF16, fast string variants, AVX-IFMA.
const LEAF7_1_EAX: u32 = bits(&[4, 5, 10, 11, 12, 23]);
/// Leaf 0x80000001 ECX: LAHF in 64-bit mode, LZCNT, PREFETCHW.
const EXT1_ECX: u32 = bits(&[0, 5, 8]);
/// Leaf 0x80000001 EDX: SYSCALL, NX, 1-GiB pages, long mode. RDTSCP only with its control.
const EXT1_EDX: u32 = bits(&[11, 20, 26, 29]);

const fn bits(numbers: &[u32]) -> u32 {
    let mut value = 0;
    let mut i = 0;
    while i < numbers.len() {
        value |= 1 << numbers[i];
        i += 1;
    }
    value
}

/// The answers for one vCPU.
#[derive(Clone)]
pub struct CpuidTable {
    basic: [CpuidResult; BASIC],
    extended: [CpuidResult; EXTENDED],
    caches: [CpuidResult; CACHES],
    features_1: CpuidResult,
    topology: [CpuidResult; 2],
    xsave: [CpuidResult; XSAVE],
    max_basic: u32,
    max_extended: u32,
    apic_id: u32,
    xcr0_allowed: u64,
}

impl CpuidTable {
    /// The table for a vCPU on a machine whose CPUID is `machine`.
    pub fn new(machine: impl Fn(u32, u32) -> CpuidResult, topology: Topology, controlled: ControlledFeatures) -> Self {
        let mut table = Self {
            basic: [CpuidResult::default(); BASIC],
            extended: [CpuidResult::default(); EXTENDED],
            caches: [CpuidResult::default(); CACHES],
            features_1: CpuidResult::default(),
            topology: topology_leaves(topology),
            xsave: [CpuidResult::default(); XSAVE],
            max_basic: machine(0, 0).eax.clamp(1, 0x16),
            max_extended: machine(0x8000_0000, 0).eax.clamp(0x8000_0000, 0x8000_0008),
            apic_id: topology.apic_id,
            xcr0_allowed: 0,
        };
        table.basic[0] = CpuidResult { eax: table.max_basic, ..machine(0, 0) };
        table.basic[1] = features(machine(1, 0), topology);
        table.basic[1].ecx.set_bit(5, controlled.vmx);
        for leaf in [2, 0x15, 0x16] {
            if leaf <= table.max_basic {
                table.basic[leaf as usize] = machine(leaf, 0);
            }
        }
        if table.max_basic >= 4 {
            for (subleaf, answer) in (0..).zip(&mut table.caches) {
                *answer = cache(machine(4, subleaf), topology.cpus);
            }
        }
        if table.max_basic >= 6 {
            // ARAT: the APIC timer never stops.
            table.basic[6].eax = 1 << 2;
        }
        if table.max_basic >= 7 {
            table.structured_features(&machine, controlled);
        }
        if table.max_basic >= 0xd {
            table.xsave_leaves(&machine, controlled);
        }
        table.extended_leaves(&machine, controlled);
        table
    }

    fn structured_features(&mut self, machine: impl Fn(u32, u32) -> CpuidResult, controlled: ControlledFeatures) {
        let real = machine(7, 0);
        let has_more = real.eax >= 1;
        let mut ebx = real.ebx & LEAF7_EBX;
        // TSC_ADJUST is emulated, so it works whatever the machine has.
        ebx.set_bit(1, true);
        ebx.set_bit(10, real.ebx.get_bit(10) && controlled.invpcid);
        let mut ecx = real.ecx & LEAF7_ECX;
        ecx.set_bit(22, real.ecx.get_bit(22) && controlled.rdtscp);
        self.basic[7] = CpuidResult { eax: u32::from(has_more), ebx, ecx, edx: real.edx & LEAF7_EDX };
        if has_more {
            self.features_1.eax = machine(7, 1).eax & LEAF7_1_EAX;
        }
    }

    fn xsave_leaves(&mut self, machine: impl Fn(u32, u32) -> CpuidResult, controlled: ControlledFeatures) {
        let real = machine(0xd, 0);
        if !self.basic[1].ecx.get_bit(26) {
            return;
        }
        self.xcr0_allowed = (u64::from(real.edx) << 32 | u64::from(real.eax)) & XCR0_OFFERED.bits();
        for component in 2u32..10 {
            if self.xcr0_allowed.get_bit(component as usize) {
                self.xsave[component as usize] = machine(0xd, component);
            }
        }
        let mut instructions = machine(0xd, 1).eax & 0b111;
        instructions.set_bit(3, machine(0xd, 1).eax.get_bit(3) && controlled.xsaves);
        self.xsave[1].eax = instructions;
        #[expect(clippy::cast_possible_truncation, reason = "offered components are below 32")]
        let low = self.xcr0_allowed as u32;
        self.xsave[0] = CpuidResult { eax: low, ebx: 0, ecx: self.xsave_area(self.xcr0_allowed, false), edx: 0 };
        self.xcr0_changed(1);
    }

    fn extended_leaves(&mut self, machine: impl Fn(u32, u32) -> CpuidResult, controlled: ControlledFeatures) {
        self.extended[0].eax = self.max_extended;
        for (leaf, answer) in (0x8000_0001..=self.max_extended).zip(&mut self.extended[1..]) {
            let real = machine(leaf, 0);
            *answer = match leaf {
                0x8000_0001 => {
                    let mut edx = real.edx & EXT1_EDX;
                    // Shown only in 64-bit mode by the machine itself; the lookup hides it again elsewhere.
                    edx.set_bit(11, real.edx.get_bit(29));
                    edx.set_bit(27, real.edx.get_bit(27) && controlled.rdtscp);
                    CpuidResult { eax: real.eax, ebx: 0, ecx: real.ecx & EXT1_ECX, edx }
                }
                0x8000_0007 => CpuidResult { edx: real.edx & 1 << 8, ..CpuidResult::default() },
                0x8000_0008 => CpuidResult { eax: real.eax & 0xffff, ..CpuidResult::default() },
                _ => real,
            };
        }
    }

    /// The answer for `leaf` and `subleaf`, and what must be patched in it.
    #[inline(always)]
    pub fn lookup(&self, leaf: u32, subleaf: u32) -> (CpuidResult, Patch) {
        let zero = CpuidResult::default();
        let answer = match leaf {
            1 => return (self.basic[1], Patch::Osxsave),
            7 => match subleaf {
                0 => return (self.basic[7], Patch::Ospke),
                1 => self.features_1,
                _ => zero,
            },
            4 => self.caches.get(subleaf as usize).copied().unwrap_or(zero),
            // Subleaf number and APIC id come back even where the level is invalid.
            0xb if self.max_basic >= 0xb => self.topology.get(subleaf as usize).copied().unwrap_or(CpuidResult {
                ecx: subleaf & 0xff,
                edx: self.apic_id,
                ..zero
            }),
            0xd => self.xsave.get(subleaf as usize).copied().unwrap_or(zero),
            0x8000_0001 if self.max_extended >= 0x8000_0001 => return (self.extended[1], Patch::Syscall),
            0x4000_0000 => {
                let name =
                    |i: usize| u32::from_le_bytes([SIGNATURE[i], SIGNATURE[i + 1], SIGNATURE[i + 2], SIGNATURE[i + 3]]);
                CpuidResult { eax: 0x4000_0000, ebx: name(0), ecx: name(4), edx: name(8) }
            }
            0x4000_0001..=0x4000_00ff => zero,
            _ if leaf <= self.max_basic => self.basic[leaf as usize],
            0x8000_0000.. if leaf <= self.max_extended => self.extended[(leaf - 0x8000_0000) as usize],
            // "If a value entered for CPUID.EAX is higher than the maximum … the data for the highest basic
            // information leaf is returned." That leaf has no subleaves here.
            _ => return (self.basic[self.max_basic as usize], Patch::None),
        };
        (answer, Patch::None)
    }

    /// The state components that XSETBV may enable.
    pub const fn xcr0_allowed(&self) -> u64 {
        self.xcr0_allowed
    }

    /// Feature words in the order leaf 1 EDX, leaf 1 ECX, leaf 7 EBX, leaf 7 ECX, leaf 0x80000001 EDX.
    pub const fn feature_words(&self) -> [u32; 5] {
        [self.basic[1].edx, self.basic[1].ecx, self.basic[7].ebx, self.basic[7].ecx, self.extended[1].edx]
    }

    /// Physical-address width shown to L1, in bits.
    pub const fn physical_address_bits(&self) -> u8 {
        if self.max_extended >= 0x8000_0008 { (self.extended[8].eax & 0xff) as u8 } else { 36 }
    }

    /// Whether restricted transactional memory is shown.
    pub const fn has_rtm(&self) -> bool {
        self.basic[7].ebx & 1 << 11 != 0
    }

    /// Whether 1-GiB pages are shown.
    pub const fn has_gigabyte_pages(&self) -> bool {
        self.extended[1].edx & 1 << 26 != 0
    }

    /// The guest has set XCR0: the sizes in leaf 0xd follow.
    pub fn xcr0_changed(&mut self, xcr0: u64) {
        self.xsave[0].ebx = self.xsave_area(xcr0, false);
        if self.xsave[1].eax & 0b1010 != 0 {
            self.xsave[1].ebx = self.xsave_area(xcr0, true);
        }
    }

    /// Bytes that the state components `enabled` take, in standard or compacted format
    /// (SDM 1 13.4.2 "Extended Region of an XSAVE Area").
    fn xsave_area(&self, enabled: u64, compacted: bool) -> u32 {
        let mut size: u32 = 512 + 64;
        for component in 2..XSAVE {
            if !enabled.get_bit(component) {
                continue;
            }
            let CpuidResult { eax: bytes, ebx: offset, ecx, .. } = self.xsave[component];
            size = if compacted {
                (if ecx.get_bit(1) { size.next_multiple_of(64) } else { size }) + bytes
            } else {
                size.max(offset + bytes)
            };
        }
        size
    }
}

/// What leaf 0x40000000 answers in EBX, ECX, EDX.
const SIGNATURE: [u8; 12] = *b"Nestling\0\0\0\0";

/// Leaf 1.
fn features(real: CpuidResult, topology: Topology) -> CpuidResult {
    let mut edx = real.edx & LEAF1_EDX;
    // HTT: EBX[23:16] is valid.
    edx.set_bit(28, topology.cpus > 1);
    let mut ebx = real.ebx & 0xffff;
    ebx.set_bits(16..24, topology.cpus.next_power_of_two().min(255));
    ebx.set_bits(24..32, topology.apic_id & 0xff);
    CpuidResult { eax: real.eax, ebx, ecx: real.ecx & LEAF1_ECX | LEAF1_ECX_OURS, edx }
}

/// Leaf 4: the machine's caches, shared as `cpus` cores of one package share them.
fn cache(mut real: CpuidResult, cpus: u32) -> CpuidResult {
    if real.eax & 0x1f == 0 {
        return CpuidResult::default();
    }
    let shared = if real.eax.get_bits(5..8) >= 3 { cpus - 1 } else { 0 };
    real.eax.set_bits(14..26, shared.min(0xfff));
    real.eax.set_bits(26..32, (cpus - 1).min(63));
    real
}

/// Leaf 0xb: one thread a core, all cores in one package.
fn topology_leaves(topology: Topology) -> [CpuidResult; 2] {
    let edx = topology.apic_id;
    let core_bits = topology.cpus.next_power_of_two().trailing_zeros();
    [
        CpuidResult { eax: 0, ebx: 1, ecx: 1 << 8, edx },
        CpuidResult { eax: core_bits, ebx: topology.cpus, ecx: 2 << 8 | 1, edx },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that shows every bit there is, so that only our own masks decide.
    fn everything(leaf: u32, subleaf: u32) -> CpuidResult {
        let all = CpuidResult { eax: u32::MAX, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX };
        match (leaf, subleaf) {
            (0, _) => CpuidResult { eax: 0x20, ebx: 0x756e_6547, ecx: 0x6c65_746e, edx: 0x4965_6e69 },
            (0x8000_0000, _) => CpuidResult { eax: 0x8000_0008, ..CpuidResult::default() },
            (0xd, 0) => CpuidResult { eax: 0xff, ebx: 0, ecx: 0, edx: 0 },
            // Sizes and offsets of SDM 1 13.5 as processors have them: AVX, opmask, ZMM_Hi256, Hi16_ZMM.
            (0xd, 2) => CpuidResult { eax: 256, ebx: 576, ..CpuidResult::default() },
            (0xd, 5) => CpuidResult { eax: 64, ebx: 1088, ..CpuidResult::default() },
            (0xd, 6) => CpuidResult { eax: 512, ebx: 1152, ..CpuidResult::default() },
            (0xd, 7) => CpuidResult { eax: 1024, ebx: 1664, ..CpuidResult::default() },
            _ => all,
        }
    }

    fn table(cpus: u32, apic_id: u32) -> CpuidTable {
        CpuidTable::new(everything, Topology { apic_id, cpus }, ControlledFeatures::default())
    }

    /// Nothing is shown that L0 does not make work: MONITOR, VMX, performance monitoring, TSX, MPX, SGX, CET.
    #[test]
    fn hides_what_does_not_work() {
        let table = table(1, 0);
        let leaf1 = table.lookup(1, 0).0;
        for bit in [2, 3, 5, 6, 7, 8, 15, 18] {
            assert!(!leaf1.ecx.get_bit(bit), "leaf 1 ECX bit {bit}");
        }
        let leaf7 = table.lookup(7, 0).0;
        for bit in [2, 4, 10, 11, 14, 25] {
            assert!(!leaf7.ebx.get_bit(bit), "leaf 7 EBX bit {bit}");
        }
        assert!(!leaf7.ecx.get_bit(7) && !leaf7.edx.get_bit(20), "CET");
        assert_eq!(table.lookup(0xa, 0).0, CpuidResult::default(), "performance monitoring");
        assert!(!table.lookup(0x8000_0001, 0).0.edx.get_bit(27), "RDTSCP without its control");
    }

    /// Leaf 0xb counts one thread a core and all cores in the package, and every subleaf brings the x2APIC id.
    #[test]
    fn topology_is_one_package_of_cores() {
        let table = table(3, 2);
        let thread = table.lookup(0xb, 0).0;
        assert_eq!((thread.eax, thread.ebx, thread.ecx >> 8, thread.edx), (0, 1, 1, 2));
        let core = table.lookup(0xb, 1).0;
        assert_eq!((core.eax, core.ebx, core.ecx >> 8, core.edx), (2, 3, 2, 2));
        let beyond = table.lookup(0xb, 7).0;
        assert_eq!((beyond.eax, beyond.ebx, beyond.ecx, beyond.edx), (0, 0, 7, 2));
        assert_eq!(table.lookup(1, 0).0.ebx >> 24, 2);
    }

    /// Leaf 0xd's sizes follow XCR0: 576 bytes for x87 and SSE, 832 with AVX, 2,688 with AVX-512.
    #[test]
    fn xsave_size_follows_xcr0() {
        let mut table = table(1, 0);
        assert_eq!(table.xcr0_allowed(), 0b1110_0111);
        assert_eq!(table.lookup(0xd, 0).0.ecx, 2688);
        for (xcr0, size) in [(1, 576), (3, 576), (7, 832), (0xe7, 2688)] {
            table.xcr0_changed(xcr0);
            assert_eq!(table.lookup(0xd, 0).0.ebx, size, "XCR0 {xcr0:#x}");
        }
    }

    /// A leaf beyond the maximum answers like the highest basic leaf, as Intel processors do.
    #[test]
    fn beyond_the_maximum_is_the_highest_basic_leaf() {
        let table = table(1, 0);
        let highest = table.lookup(0x16, 0).0;
        for leaf in [0x17, 0x3fff_ffff, 0x5000_0000, 0x8000_0009, u32::MAX] {
            assert_eq!(table.lookup(leaf, 0).0, highest, "leaf {leaf:#x}");
        }
    }

    /// No leaf and subleaf can make the lookup fail.
    #[test]
    fn every_leaf_has_an_answer() {
        let table = table(255, 254);
        for leaf in (0..0x40).chain(0x3fff_fff0..0x4000_0110).chain(0x7fff_fff0..0x8000_0020) {
            for subleaf in (0..70).chain([u32::MAX]) {
                let _ = table.lookup(leaf, subleaf);
            }
        }
    }
}
