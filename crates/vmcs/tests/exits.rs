//! Exits: each reason decoded, with its qualification, at the price of the reads that it needs.

use arch::access::Width;
use arch::segment::SegmentName;
use arch::{Gpr, GuestPhys, Linear, Vector};
use testkit::FakeVmcs;
use vmcs::exit::ExceptionExit;
use vmcs::fields::*;
use vmcs::instruction_info::{DescriptorTableInstruction, InstructionOperand, MemoryOperand, Operand};
use vmcs::qualification::*;
use vmcs::{Access, EventInfo, Exit, ExitReason, InstructionInfo, VmxInstruction};

fn exit(reason: u32, qualification: u64) -> FakeVmcs {
    let mut vmcs = FakeVmcs::new();
    vmcs.write(EXIT_REASON, reason);
    vmcs.write(EXIT_QUALIFICATION, qualification);
    vmcs
}

/// One row for each layout of a qualification, written as SDM 3C 28.2.1's tables give it.
#[test]
fn qualifications_are_decoded() {
    let rows = [
        (4, 0x9a, Exit::Sipi { vector: 0x9a }),
        (9, 0x4000_0028, Exit::TaskSwitch(TaskSwitch { selector: 0x28, source: TaskSwitchSource::Iret })),
        (14, 0xffff_8000_0000_1234, Exit::Invlpg(Linear(0xffff_8000_0000_1234))),
        (28, 0x0103, Exit::ControlRegister(CrAccess::MovTo { register: 3, source: Gpr::Rcx })),
        (28, 0x0f18, Exit::ControlRegister(CrAccess::MovFrom { register: 8, destination: Gpr::R15 })),
        (28, 0x20, Exit::ControlRegister(CrAccess::Clts)),
        (28, 0xfffe_0070, Exit::ControlRegister(CrAccess::Lmsw { source: 0xfffe, from_memory: true })),
        (29, 0x0317, Exit::DebugRegister(DrAccess { register: 7, is_read: true, gpr: Gpr::Rbx })),
        // OUT DX, AL to 0x3f8; INS word with REP from 0x1f0; IN EAX from an immediate port.
        (30, 0x03f8_0000, Exit::Io(io(0x3f8, Width::Byte, [false, false, false, false]))),
        (30, 0x01f0_0039, Exit::Io(io(0x1f0, Width::Word, [true, true, true, false]))),
        (30, 0x00f4_004b, Exit::Io(io(0xf4, Width::Dword, [true, false, false, true]))),
        (0x8000_0021, 4, Exit::EntryFailed(EntryFailure::GuestState { qualification: 4 })),
        (0x8000_0022, 2, Exit::EntryFailed(EntryFailure::MsrLoading { entry: 2 })),
        (0x8000_0029, 0, Exit::EntryFailed(EntryFailure::MachineCheck)),
        (36, 1, Exit::Mwait { is_armed: true }),
        (44, 0x1300, Exit::ApicAccess(apic(0x300, ApicAccessKind::LinearWrite))),
        (44, 0xf000, Exit::ApicAccess(apic(0, ApicAccessKind::PhysicalInstruction))),
        (45, 0x31, Exit::VirtualizedEoi { vector: 0x31 }),
        (56, 0x310, Exit::ApicWrite { offset: 0x310 }),
        (62, 0x1000, Exit::PmlFull { is_nmi_unblocking: true }),
        (75, 1, Exit::InstructionTimeout { is_context_invalid: true }),
        (71, 0, Exit::Unknown(71)),
    ];
    for (reason, qualification, expected) in rows {
        assert_eq!(Exit::read(&exit(reason, qualification)), expected, "reason {reason}");
    }
}

fn io(port: u16, width: Width, [input, string, rep, immediate]: [bool; 4]) -> IoAccess {
    IoAccess { port, width, input, string, rep, immediate }
}

fn apic(offset: u16, kind: ApicAccessKind) -> ApicAccess {
    ApicAccess { offset, kind, is_asynchronous: false }
}

/// The exits of the hot path must not pay for fields that say nothing: a VMREAD costs as much as ten instructions.
#[test]
fn exits_without_more_to_tell_read_one_field() {
    let cheap =
        [2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18, 20, 24, 26, 31, 32, 37, 39, 40, 43, 51, 52, 54, 55, 59];
    for reason in cheap {
        let vmcs = exit(reason, 0);
        Exit::read(&vmcs);
        assert_eq!(vmcs.reads(), [EXIT_REASON.encoding()], "reason {reason}");
    }
    for reason in [28, 29, 30, 45, 56] {
        let vmcs = exit(reason, 0);
        Exit::read(&vmcs);
        assert_eq!(vmcs.reads(), [EXIT_REASON.encoding(), EXIT_QUALIFICATION.encoding()], "reason {reason}");
    }
}

/// Every number that the manual defines decodes to something that knows its own number, and nothing else does.
#[test]
fn reasons_survive_decoding() {
    let known: Vec<u16> = ExitReason::ALL.iter().map(|reason| reason.0).collect();
    for number in 0..0x100 {
        let decoded = Exit::read(&exit(number.into(), 0));
        assert_eq!(decoded.reason(), ExitReason(number));
        assert_eq!(decoded == Exit::Unknown(number), !known.contains(&number), "{decoded:?}");
    }
    assert_eq!(ExitReason::COUNT, usize::from(known.iter().max().unwrap() + 1));
}

/// The high bits of the exit reason (enclave mode, pending MTF) do not change what the exit is.
#[test]
fn high_bits_of_the_reason_are_ignored() {
    assert_eq!(Exit::read(&exit(0x1800_000a, 0)), Exit::Cpuid);
}

#[test]
fn exceptions_come_with_what_they_deliver() {
    let mut vmcs = exit(0, 0xffff_8000_dead_b000);
    vmcs.write(VM_EXIT_INTERRUPTION_INFO, 0x8000_0b0e);
    vmcs.write(VM_EXIT_INTERRUPTION_ERROR_CODE, 7);
    let expected = ExceptionExit {
        info: EventInfo::hardware_exception(Vector::PF, true),
        error_code: Some(7),
        qualification: 0xffff_8000_dead_b000,
    };
    assert_eq!(Exit::read(&vmcs), Exit::ExceptionOrNmi(expected));
    vmcs.write(VM_EXIT_INTERRUPTION_INFO, 0x8000_0202);
    let expected = ExceptionExit { info: EventInfo::nmi(), error_code: None, qualification: 0 };
    assert_eq!(Exit::read(&vmcs), Exit::ExceptionOrNmi(expected));
}

/// Without "acknowledge interrupt on exit" the interruption information is not valid, and there is no vector.
#[test]
fn external_interrupts_have_a_vector_if_acknowledged() {
    let mut vmcs = exit(1, 0);
    assert_eq!(Exit::read(&vmcs), Exit::ExternalInterrupt(None));
    vmcs.write(VM_EXIT_INTERRUPTION_INFO, 0x8000_00e3);
    assert_eq!(Exit::read(&vmcs), Exit::ExternalInterrupt(Some(0xe3)));
}

#[test]
fn ept_violations_have_a_linear_address_if_it_is_valid() {
    let mut vmcs = exit(48, 0x182);
    vmcs.write(GUEST_PHYSICAL_ADDRESS, 0xfee0_0300);
    vmcs.write(GUEST_LINEAR_ADDRESS, 0x1000);
    let mut expected = EptViolation {
        qualification: EptQualification::WRITE | EptQualification::LINEAR_VALID | EptQualification::TRANSLATED,
        guest_physical: GuestPhys(0xfee0_0300),
        linear: Some(Linear(0x1000)),
    };
    assert_eq!(Exit::read(&vmcs), Exit::EptViolation(expected));
    vmcs.write(EXIT_QUALIFICATION, 2);
    expected.qualification = EptQualification::WRITE;
    expected.linear = None;
    assert_eq!(Exit::read(&vmcs), Exit::EptViolation(expected));
    vmcs.write(EXIT_REASON, 49);
    assert_eq!(Exit::read(&vmcs), Exit::EptMisconfiguration { guest_physical: GuestPhys(0xfee0_0300) });
}

/// VMPTRLD [RBX + 4 * RSI + 8] in 64-bit mode: SDM 3C 28.2.5, table for VMCLEAR, VMPTRLD, VMPTRST and VMXON.
#[test]
fn memory_operands_are_decoded() {
    let info = InstructionInfo(2 | 2 << 7 | 3 << 15 | 6 << 18 | 3 << 23);
    let mut vmcs = exit(21, 8);
    vmcs.write(VM_EXIT_INSTRUCTION_INFO, info.0);
    let operand = InstructionOperand { displacement: 8, info };
    assert_eq!(Exit::read(&vmcs), Exit::Vmx(VmxInstruction::Vmptrld(operand)));
    let expected = MemoryOperand {
        segment: SegmentName::Ds,
        base: Some(Gpr::Rbx),
        index: Some(Gpr::Rsi),
        scale: 4,
        address_size: Width::Qword,
    };
    assert_eq!(info.memory(), expected);
    let absolute = InstructionInfo(info.0 | 1 << 22 | 1 << 27);
    assert_eq!(absolute.memory(), MemoryOperand { base: None, index: None, ..expected });
}

/// VMREAD RDX, R9 (bit 10: the destination is a register): Reg1 is the destination, Reg2 names the field.
#[test]
fn register_operands_are_decoded() {
    let info = InstructionInfo(2 << 3 | 1 << 10 | 9 << 28);
    assert_eq!(info.operand(), Operand::Register(Gpr::Rdx));
    assert_eq!(info.register_2(), Gpr::R9);
    assert!(matches!(InstructionInfo(info.0 & !(1 << 10)).operand(), Operand::Memory(_)));
}

/// Bits 29:28 say which of the four instructions it was.
#[test]
fn descriptor_table_instructions_are_told_apart() {
    use DescriptorTableInstruction::*;
    for (reason, expected) in [(46, [Sgdt, Sidt, Lgdt, Lidt]), (47, [Sldt, Str, Lldt, Ltr])] {
        for (identity, instruction) in (0..).zip(expected) {
            let mut vmcs = exit(reason, 0);
            vmcs.write(VM_EXIT_INSTRUCTION_INFO, identity << 28);
            let Exit::DescriptorTable(decoded, _) = Exit::read(&vmcs) else { panic!("reason {reason}") };
            assert_eq!(decoded, instruction);
        }
    }
}
