//! The decoder against iced-x86: what ours accepts iced must read the same way, and ours must accept every instruction
//! of the subset that iced knows.

use arch::segment::SegmentName;
use arch::{Gpr, Width};
use emulate::CodeSize;
use emulate::decode::{DecodeError, decode};
use emulate::operand::{Alu, BitChange, Instruction, Operation, Other, Register};
use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};
use proptest::prelude::*;

const SIZES: [CodeSize; 3] = [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64];

fn iced(bytes: &[u8], code: CodeSize) -> iced_x86::Instruction {
    let bitness = match code {
        CodeSize::Bits16 => 16,
        CodeSize::Bits32 => 32,
        CodeSize::Bits64 => 64,
    };
    Decoder::with_ip(bitness, bytes, 0, DecoderOptions::NONE).decode()
}

/// The mnemonics that iced may have for `ours`.
fn mnemonics(ours: &Instruction) -> Vec<Mnemonic> {
    let by_width = |names: [Mnemonic; 4]| vec![names[ours.width.bytes().ilog2() as usize]];
    match ours.operation {
        Operation::Mov => vec![Mnemonic::Mov, Mnemonic::Movnti],
        Operation::MovZx(_) => vec![Mnemonic::Movzx],
        Operation::MovSx(_) => vec![Mnemonic::Movsx, Mnemonic::Movsxd],
        Operation::Alu(Alu::Add) => vec![Mnemonic::Add],
        Operation::Alu(Alu::Or) => vec![Mnemonic::Or],
        Operation::Alu(Alu::Adc) => vec![Mnemonic::Adc],
        Operation::Alu(Alu::Sbb) => vec![Mnemonic::Sbb],
        Operation::Alu(Alu::And) => vec![Mnemonic::And],
        Operation::Alu(Alu::Sub) => vec![Mnemonic::Sub],
        Operation::Alu(Alu::Xor) => vec![Mnemonic::Xor],
        Operation::Alu(Alu::Cmp) => vec![Mnemonic::Cmp],
        Operation::Test => vec![Mnemonic::Test],
        Operation::Bit(BitChange::Keep) => vec![Mnemonic::Bt],
        Operation::Bit(BitChange::Set) => vec![Mnemonic::Bts],
        Operation::Bit(BitChange::Reset) => vec![Mnemonic::Btr],
        Operation::Bit(BitChange::Complement) => vec![Mnemonic::Btc],
        Operation::Not => vec![Mnemonic::Not],
        Operation::Neg => vec![Mnemonic::Neg],
        Operation::Inc => vec![Mnemonic::Inc],
        Operation::Dec => vec![Mnemonic::Dec],
        Operation::Xchg => vec![Mnemonic::Xchg],
        Operation::Xadd => vec![Mnemonic::Xadd],
        Operation::CmpXchg => vec![Mnemonic::Cmpxchg],
        Operation::Stos => by_width([Mnemonic::Stosb, Mnemonic::Stosw, Mnemonic::Stosd, Mnemonic::Stosq]),
        Operation::Lods => by_width([Mnemonic::Lodsb, Mnemonic::Lodsw, Mnemonic::Lodsd, Mnemonic::Lodsq]),
        Operation::Movs => by_width([Mnemonic::Movsb, Mnemonic::Movsw, Mnemonic::Movsd, Mnemonic::Movsq]),
    }
}

fn is_string(operation: Operation) -> bool {
    matches!(operation, Operation::Stos | Operation::Lods | Operation::Movs)
}

fn segment(register: iced_x86::Register) -> SegmentName {
    match register {
        iced_x86::Register::ES => SegmentName::Es,
        iced_x86::Register::CS => SegmentName::Cs,
        iced_x86::Register::SS => SegmentName::Ss,
        iced_x86::Register::DS => SegmentName::Ds,
        iced_x86::Register::FS => SegmentName::Fs,
        iced_x86::Register::GS => SegmentName::Gs,
        other => unreachable!("{other:?} is no segment register"),
    }
}

/// Compares the segments. In 64-bit mode overrides but FS and GS are ignored (SDM 1, 3.3.4 "Modes of Operation vs.
/// Memory Model"), and iced reports the override all the same.
fn agree_on_segment(ours: &Instruction, theirs: &iced_x86::Instruction, what: &str) {
    use iced_x86::Register::{CS, DS, ES, SS};
    let is_64_bit = theirs.code_size() == iced_x86::CodeSize::Code64;
    if is_64_bit && [ES, CS, SS, DS].contains(&theirs.segment_prefix()) {
        assert!(!matches!(ours.memory.segment, SegmentName::Fs | SegmentName::Gs), "{what}");
    } else {
        assert_eq!(ours.memory.segment, segment(theirs.memory_segment()), "{what}");
    }
}

fn gpr(register: iced_x86::Register) -> Option<Gpr> {
    let number = register.full_register().number();
    (register != iced_x86::Register::None).then(|| Gpr::from_number(u8::try_from(number).expect("below 16")))
}

/// Asserts that both have read the same instruction.
fn agree(ours: &Instruction, theirs: &iced_x86::Instruction, bytes: &[u8]) {
    let what = format!("{bytes:02x?}: {ours:?} and {theirs}");
    assert!(!theirs.is_invalid(), "{what}");
    assert_eq!(usize::from(ours.length), theirs.len(), "{what}");
    assert!(mnemonics(ours).contains(&theirs.mnemonic()), "{what}");
    assert_eq!(ours.lock, theirs.has_lock_prefix(), "{what}");
    if is_string(ours.operation) {
        assert_eq!(ours.repeat, theirs.has_rep_prefix() || theirs.has_repne_prefix(), "{what}");
        let source = (0..theirs.op_count())
            .find(|&n| matches!(theirs.op_kind(n), OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI));
        assert_eq!(source.is_some(), ours.operation != Operation::Stos, "{what}");
        if source.is_some() {
            agree_on_segment(ours, theirs, &what);
        }
        let address_bytes = (0..theirs.op_count()).find_map(|n| match theirs.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
            _ => None,
        });
        assert_eq!(Some(ours.address_width.bytes()), address_bytes, "{what}");
        return;
    }
    assert!(!ours.repeat, "{what}");
    let position = (0..theirs.op_count()).find(|&n| theirs.op_kind(n) == OpKind::Memory).expect("a memory operand");
    assert_eq!(ours.to_memory, position == 0, "{what}");
    let memory_width = match ours.operation {
        Operation::MovZx(from) | Operation::MovSx(from) => from,
        _ => ours.width,
    };
    assert_eq!(memory_width.bytes(), theirs.memory_size().size(), "{what}");
    let memory = ours.memory;
    agree_on_segment(ours, theirs, &what);
    assert_eq!(memory.rip_relative, theirs.is_ip_rel_memory_operand(), "{what}");
    if !memory.rip_relative {
        assert_eq!(memory.base, gpr(theirs.memory_base()), "{what}");
        assert_eq!(memory.index, gpr(theirs.memory_index()), "{what}");
        // iced keeps the scale of an index that is not there.
        let shift = memory.index.map(|_| theirs.memory_index_scale().ilog2());
        assert_eq!(u32::from(memory.shift), shift.unwrap_or(0), "{what}");
    }
    let next_ip = if memory.rip_relative { u64::from(ours.length) } else { 0 };
    let mask = ours.address_width.mask();
    assert_eq!(memory.displacement.wrapping_add(next_ip) & mask, theirs.memory_displacement64() & mask, "{what}");
    for register in [theirs.memory_base(), theirs.memory_index()] {
        if register != iced_x86::Register::None {
            assert_eq!(ours.address_width.bytes(), register.size(), "{what}");
        }
    }
    let their_other = (0..theirs.op_count()).find(|&n| n != position);
    match (ours.other, their_other) {
        (Other::None, None) => {}
        (Other::Register(register), Some(n)) => {
            let theirs = theirs.op_register(n);
            use iced_x86::Register::{AH, BH, CH, DH};
            let high_byte = [AH, CH, DH, BH].contains(&theirs);
            assert_eq!(Some(register), gpr(theirs).map(|gpr| Register { gpr, high_byte }), "{what}");
            assert_eq!(ours.width.bytes(), theirs.size(), "{what}");
        }
        (Other::Immediate(value), Some(n)) => {
            let mask = if matches!(ours.operation, Operation::Bit(_)) { 0xff } else { ours.width.mask() };
            assert_eq!(value & mask, theirs.immediate(n) & mask, "{what}");
        }
        _ => unreachable!("{what}"),
    }
}

/// Whether an instruction, as iced names it, is of the subset that the decoder's documentation lists.
fn in_subset(theirs: &iced_x86::Instruction, bytes: &[u8]) -> bool {
    use Mnemonic::*;
    if theirs.is_invalid() || theirs.op_count() == 0 {
        return false;
    }
    let string = matches!(
        theirs.mnemonic(),
        Stosb | Stosw | Stosd | Stosq | Lodsb | Lodsw | Lodsd | Lodsq | Movsb | Movsw | Movsd | Movsq
    );
    if string {
        return theirs.is_string_instruction();
    }
    let listed = matches!(
        theirs.mnemonic(),
        Mov | Movnti
            | Movzx
            | Movsx
            | Movsxd
            | Add
            | Or
            | Adc
            | Sbb
            | And
            | Sub
            | Xor
            | Cmp
            | Test
            | Not
            | Neg
            | Inc
            | Dec
            | Xchg
            | Xadd
            | Cmpxchg
            | Bt
            | Bts
            | Btr
            | Btc
    );
    let kinds = || (0..theirs.op_count()).map(|n| theirs.op_kind(n));
    let segment_register = (0..theirs.op_count())
        .any(|n| theirs.op_kind(n) == OpKind::Register && theirs.op_register(n).is_segment_register());
    // 82 is an alias of 80 that no assembler makes.
    let opcode = bytes[..theirs.len()].iter().find(|byte| !PREFIXES.contains(byte));
    listed && kinds().any(|kind| kind == OpKind::Memory) && !segment_register && opcode != Some(&0x82)
}

const PREFIXES: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];

fn check(bytes: &[u8], code: CodeSize) {
    let theirs = iced(bytes, code);
    match decode(bytes, code) {
        Ok(ours) => {
            agree(&ours, &theirs, bytes);
            for shorter in 0..usize::from(ours.length) {
                assert_eq!(decode(&bytes[..shorter], code), Err(DecodeError::Incomplete), "{bytes:02x?}");
            }
        }
        Err(error) => {
            assert!(!in_subset(&theirs, bytes), "{bytes:02x?} in {code:?}: {error:?}, but it is {theirs}");
        }
    }
}

/// Every opcode of both maps with every ModRM byte, without prefixes.
#[test]
fn all_opcodes() {
    for code in SIZES {
        for opcode in 0..=255 {
            for modrm in 0..=255 {
                let tail = [modrm, 0x85, 0xf1, 0x02, 0x83, 0x04, 0x75, 0x66, 0x97, 0x18, 0x29];
                check(&[&[opcode], &tail[..]].concat(), code);
                check(&[&[0x0f, opcode], &tail[..]].concat(), code);
            }
        }
    }
}

/// 14 prefixes and an opcode fit into 15 bytes, a ModRM byte does not any more.
#[test]
fn too_long() {
    for code in SIZES {
        let mut bytes = [0x2e; 20];
        bytes[14] = 0xaa;
        assert_eq!(decode(&bytes, code).map(|found| found.length), Ok(15));
        bytes[14] = 0x89;
        assert_eq!(decode(&bytes, code), Err(DecodeError::TooLong));
        assert_eq!(decode(&[0x2e; 20], code), Err(DecodeError::TooLong));
        assert_eq!(decode(&[0x2e; 14], code), Err(DecodeError::Incomplete));
        assert_eq!(decode(&[], code), Err(DecodeError::Incomplete));
    }
}

/// The instructions by which Linux and firmware touch the local APIC, by hand from the manual's opcode pages.
#[test]
fn by_hand() {
    // mov [0xffffffffff5f00b0], edi: 89 /r with an absolute address.
    let found = decode(&[0x89, 0x3c, 0x25, 0xb0, 0x00, 0x5f, 0xff], CodeSize::Bits64).unwrap();
    assert_eq!((found.operation, found.width, found.length), (Operation::Mov, Width::Dword, 7));
    assert_eq!(found.memory.displacement, 0xffff_ffff_ff5f_00b0);
    assert_eq!((found.memory.base, found.memory.index, found.memory.rip_relative), (None, None, false));
    assert_eq!(found.other, Other::Register(Register { gpr: Gpr::Rdi, high_byte: false }));
    assert!(found.to_memory);
    // mov eax, [ebx + esi*4 - 0x10].
    let found = decode(&[0x8b, 0x44, 0xb3, 0xf0], CodeSize::Bits32).unwrap();
    assert_eq!((found.memory.base, found.memory.index, found.memory.shift), (Some(Gpr::Rbx), Some(Gpr::Rsi), 2));
    assert_eq!(found.memory.displacement, (-16i64).cast_unsigned());
}

fn code_size() -> impl Strategy<Value = CodeSize> {
    prop::sample::select(SIZES.to_vec())
}

fn prefixes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![prop::sample::select(PREFIXES.to_vec()), 0x40u8..0x50], 0..4)
}

fn opcode() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => (0u8..0x40).prop_map(|byte| vec![byte]),
        4 => prop::sample::select(vec![
            0x63, 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5,
            0xaa, 0xab, 0xac, 0xad, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff_u8,
        ]).prop_map(|byte| vec![byte]),
        4 => prop::sample::select(vec![
            0xa3, 0xab, 0xb0, 0xb1, 0xb3, 0xb6, 0xb7, 0xba, 0xbb, 0xbe, 0xbf, 0xc0, 0xc1, 0xc3_u8,
        ]).prop_map(|byte| vec![0x0f, byte]),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => any::<u8>().prop_map(|byte| vec![0x0f, byte]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(15_000))]

    /// Any prefixes before an opcode that is likely to be of the subset, then any bytes.
    #[test]
    fn like_iced(prefixes in prefixes(), opcode in opcode(), tail: [u8; 14], code in code_size()) {
        check(&[&prefixes[..], &opcode, &tail].concat(), code);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// Any bytes.
    #[test]
    fn like_iced_on_noise(bytes: [u8; 16], code in code_size()) {
        check(&bytes, code);
    }
}
