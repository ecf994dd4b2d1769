//! Results and flags of the arithmetic instructions.
//!
//! SDM 1, 3.4.3.1 "Status Flags", and each instruction's "Flags Affected" in SDM 2. AF is undefined after AND, OR, XOR and
//! TEST, and OF, SF, AF and PF are after BT and its relatives: the former clear AF, the latter leave all alone, as
//! processors do.

use arch::Width;
use arch::control::Rflags;

use crate::operand::{Alu, BitChange};

/// The six status flags.
const STATUS: Rflags =
    Rflags::CF.union(Rflags::PF).union(Rflags::AF).union(Rflags::ZF).union(Rflags::SF).union(Rflags::OF);

/// The highest bit of `width`.
fn sign_bit(width: Width) -> u64 {
    1 << (8 * width.bytes() - 1)
}

/// Sets ZF, SF and PF by `result`, the other three as given.
fn status(flags: Rflags, width: Width, result: u64, carry: bool, adjust: bool, overflow: bool) -> Rflags {
    let mut new = flags.difference(STATUS);
    new.set(Rflags::ZF, result == 0);
    new.set(Rflags::SF, result & sign_bit(width) != 0);
    new.set(Rflags::PF, (result & 0xff).count_ones().is_multiple_of(2));
    new.set(Rflags::CF, carry);
    new.set(Rflags::AF, adjust);
    new.set(Rflags::OF, overflow);
    new
}

fn add(width: Width, a: u64, b: u64, carry: bool, flags: Rflags) -> (u64, Rflags) {
    let wide = u128::from(a) + u128::from(b) + u128::from(carry);
    let result = a.wrapping_add(b).wrapping_add(carry.into()) & width.mask();
    let overflow = (a ^ result) & (b ^ result) & sign_bit(width) != 0;
    (result, status(flags, width, result, wide > width.mask().into(), (a ^ b ^ result) & 0x10 != 0, overflow))
}

fn subtract(width: Width, a: u64, b: u64, borrow: bool, flags: Rflags) -> (u64, Rflags) {
    let result = a.wrapping_sub(b).wrapping_sub(borrow.into()) & width.mask();
    let carry = u128::from(a) < u128::from(b) + u128::from(borrow);
    let overflow = (a ^ b) & (a ^ result) & sign_bit(width) != 0;
    (result, status(flags, width, result, carry, (a ^ b ^ result) & 0x10 != 0, overflow))
}

/// `a` operation `b`, both of `width` and zero-extended: the result (of CMP the difference) and the flags.
pub(crate) fn alu(operation: Alu, width: Width, a: u64, b: u64, flags: Rflags) -> (u64, Rflags) {
    let carry = flags.contains(Rflags::CF);
    let result = match operation {
        Alu::Add => return add(width, a, b, false, flags),
        Alu::Adc => return add(width, a, b, carry, flags),
        Alu::Sub | Alu::Cmp => return subtract(width, a, b, false, flags),
        Alu::Sbb => return subtract(width, a, b, carry, flags),
        Alu::Or => a | b,
        Alu::And => a & b,
        Alu::Xor => a ^ b,
    };
    (result, status(flags, width, result, false, false, false))
}

/// `a` + 1 if `up`, otherwise `a` - 1; CF stays.
pub(crate) fn step(up: bool, width: Width, a: u64, flags: Rflags) -> (u64, Rflags) {
    let (result, mut new) = if up { add(width, a, 1, false, flags) } else { subtract(width, a, 1, false, flags) };
    new.set(Rflags::CF, flags.contains(Rflags::CF));
    (result, new)
}

/// 0 - `a`.
pub(crate) fn negate(width: Width, a: u64, flags: Rflags) -> (u64, Rflags) {
    subtract(width, 0, a, false, flags)
}

/// Tests bit `number` (below the number of bits) of `a`, and changes it.
pub(crate) fn bit(change: BitChange, a: u64, number: u32, mut flags: Rflags) -> (u64, Rflags) {
    let mask = 1 << (number & 63);
    flags.set(Rflags::CF, a & mask != 0);
    let result = match change {
        BitChange::Keep => a,
        BitChange::Set => a | mask,
        BitChange::Reset => a & !mask,
        BitChange::Complement => a ^ mask,
    };
    (result, flags)
}

/// The low `from` of `value`, extended by its sign to 64 bits.
pub(crate) fn sign_extend(from: Width, value: u64) -> u64 {
    let unused = 64 - 8 * from.bytes();
    ((value << unused).cast_signed() >> unused).cast_unsigned()
}
