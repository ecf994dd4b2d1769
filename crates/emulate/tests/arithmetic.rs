//! Results and flags of the arithmetic instructions against a naive reference.

mod support;

use arch::control::Rflags;
use arch::{Gpr, Width};
use proptest::prelude::*;
use support::run;

const RAX: usize = Gpr::Rax as usize;

/// Result and flags by the manual's words, over numbers wide enough that nothing wraps.
mod reference {
    use super::*;

    fn signed(value: i128, bits: u32) -> i128 {
        if value >= 1 << (bits - 1) { value - (1 << bits) } else { value }
    }

    /// CF: the unsigned result is out of range. OF: the signed one is. AF: the one of the low four bits is.
    fn sum(a: i128, b: i128, carry: i128, sign: i128, bits: u32) -> (i128, [bool; 3]) {
        let out = |value: i128, low, high| !(low..high).contains(&value);
        let unsigned = a + sign * (b + carry);
        let result = unsigned.rem_euclid(1 << bits);
        let overflow = signed(a, bits) + sign * (signed(b, bits) + carry);
        let low = a % 16 + sign * (b % 16 + carry);
        let half = 1i128 << (bits - 1);
        (result, [out(unsigned, 0, 1 << bits), out(overflow, -half, half), out(low, 0, 16)])
    }

    /// `a` operation `number` (the encoding's) `b`.
    pub(super) fn alu(number: u8, bits: u32, a: u64, b: u64, old: Rflags) -> (u64, Rflags) {
        let (a, b) = (i128::from(a), i128::from(b));
        let carry = i128::from(old.contains(Rflags::CF));
        let (result, flags) = match number {
            0 => sum(a, b, 0, 1, bits),
            1 => (a | b, [false; 3]),
            2 => sum(a, b, carry, 1, bits),
            3 => sum(a, b, carry, -1, bits),
            4 => (a & b, [false; 3]),
            5 | 7 => sum(a, b, 0, -1, bits),
            _ => (a ^ b, [false; 3]),
        };
        let mut new = old;
        for (flag, value) in [Rflags::CF, Rflags::OF, Rflags::AF].into_iter().zip(flags) {
            new.set(flag, value);
        }
        new.set(Rflags::ZF, result == 0);
        new.set(Rflags::SF, signed(result, bits) < 0);
        new.set(Rflags::PF, (0..8).filter(|bit| result >> bit & 1 == 1).count() % 2 == 0);
        (u64::try_from(result).expect("64 bits"), new)
    }
}

/// Numbers near the edges of each width more likely than not.
fn operand() -> impl Strategy<Value = u64> {
    let edges =
        vec![0, 1, 0xf, 0x10, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, u64::MAX >> 1];
    prop_oneof![
        any::<u64>(),
        (prop::sample::select(edges), any::<bool>()).prop_map(|(n, not)| if not { !n } else { n })
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// The two-operand operations with memory left, memory right and with an immediate, and those with one operand.
    #[test]
    fn arithmetic(
        number in 0u8..8,
        width in prop::sample::select(vec![Width::Byte, Width::Word, Width::Dword, Width::Qword]),
        a in operand(),
        b in operand(),
        old in any::<u64>().prop_map(Rflags::from_bits_truncate),
    ) {
        let old = old & (Rflags::CF | Rflags::PF | Rflags::AF | Rflags::ZF | Rflags::SF | Rflags::OF) | Rflags::RESERVED_1;
        let bits = 8 * u32::try_from(width.bytes()).expect("small");
        let (a, b) = (a & width.mask(), b & width.mask());
        let prefix: &[u8] = match width {
            Width::Word => &[0x66],
            Width::Qword => &[0x48],
            _ => &[],
        };
        let wide = u8::from(width != Width::Byte);
        let run = |opcode: &[u8], in_memory: u64, rax: u64| {
            run(&[prefix, opcode].concat(), in_memory, |vcpu| (vcpu.gprs[RAX], vcpu.rflags) = (rax, old))
        };
        let (result, flags) = reference::alu(number, bits, a, b, old);
        // op [rdi], rax
        let (vcpu, device) = run(&[number << 3 | wide, 0x07], a, b);
        let stored = if number == 7 { a } else { result };
        prop_assert_eq!((device.value, vcpu.rflags), (stored, flags));
        prop_assert_eq!(device.accesses.len(), if number == 7 { 1 } else { 2 });
        // op rax, [rdi]
        let (vcpu, device) = run(&[number << 3 | 2 | wide, 0x07], b, a);
        prop_assert_eq!((vcpu.gprs[RAX], vcpu.rflags), (stored, flags));
        prop_assert_eq!(device.accesses.len(), 1);
        // op [rdi], imm8, sign-extended
        let immediate = b.to_le_bytes()[0];
        let extended = i64::from(immediate.cast_signed()).cast_unsigned() & width.mask();
        let (result, flags) = reference::alu(number, bits, a, extended, old);
        let (vcpu, device) = run(&[0x80 | wide << 1 | wide, number << 3 | 7, immediate], a, 0);
        prop_assert_eq!((device.value, vcpu.rflags), (if number == 7 { a } else { result }, flags));
        // test [rdi], rax
        let (vcpu, device) = run(&[0x84 | wide, 0x07], a, b);
        prop_assert_eq!((device.value, vcpu.rflags), (a, reference::alu(4, bits, a, b, old).1));
        // inc, dec: CF stays
        for (operation, modrm) in [(0, 0x07), (5, 0x0f)] {
            let (result, mut flags) = reference::alu(operation, bits, a, 1, old);
            flags.set(Rflags::CF, old.contains(Rflags::CF));
            let (vcpu, device) = run(&[0xfe | wide, modrm], a, 0);
            prop_assert_eq!((device.value, vcpu.rflags), (result, flags));
        }
        // neg
        let (result, flags) = reference::alu(5, bits, 0, a, old);
        let (vcpu, device) = run(&[0xf6 | wide, 0x1f], a, 0);
        prop_assert_eq!((device.value, vcpu.rflags), (result, flags));
    }
}
