//! VMX instructions of L1, each with its error numbers: SDM 3C 31.3 "VMX Instructions". What RFLAGS they leave: 31.2
//! "Conventions".

use arch::Fault;
use nested::{Outcome, Permission, Which};
use testkit::{NestedBench, Ram};
use vmcs::controls::SecondaryBased;
use vmcs::field::Area;
use vmcs::fields::*;
use vmcs::{Access, InstructionError};

const BAD_POINTERS: [u64; 5] = [0x5_1001, 0x5_1800, 1 << 46, 0x5_1000 | 1 << 63, u64::MAX];
/// No memory there; all ones are read.
const HOLE: u64 = 0xa_0000;

fn fail(error: InstructionError) -> Outcome {
    Outcome::FailValid(error)
}

/// The error number is in the VM-instruction error field, where L1 finds it.
fn check_failed(bench: &mut NestedBench, outcome: Outcome, error: InstructionError) {
    assert_eq!(outcome, fail(error));
    assert_eq!(bench.read(VM_INSTRUCTION_ERROR), error.0);
}

/// CF, PF, AF, ZF, SF and OF are all defined; nothing else changes.
#[test]
fn flags() {
    let rows = [(Outcome::Succeed, 0), (Outcome::FailInvalid, 1), (fail(InstructionError::UNSUPPORTED_FIELD), 0x40)];
    for (outcome, set) in rows {
        assert_eq!(outcome.flags(u64::MAX), !0x8d5 | set, "{outcome:?}");
        assert_eq!(outcome.flags(0x202), 0x202 | set, "{outcome:?}");
    }
}

/// Who may execute VMXON, and what it faults with: CR4.VMXE first, then the privilege level, then CR0 and CR4.
#[test]
fn vmxon_faults() {
    let good = Permission { cr0: 0x8000_0021, cr4: 0x2000, cpl: 0 };
    for (permission, fault) in [
        (good, None),
        (Permission { cr4: 0, cpl: 3, ..good }, Some(Fault::Ud)),
        (Permission { cpl: 3, ..good }, Some(Fault::Gp(0))),
        (Permission { cpl: 1, ..good }, Some(Fault::Gp(0))),
        (Permission { cr0: 0x8000_0001, ..good }, Some(Fault::Gp(0))),
        (Permission { cr0: 0x21, ..good }, Some(Fault::Gp(0))),
        (Permission { cr4: 0x2000 | 1 << 14, ..good }, Some(Fault::Gp(0))),
    ] {
        assert_eq!(NestedBench::new(false).nested.may_vmxon(permission).err(), fault, "{permission:?}");
    }
    // In VMX operation the instruction fails instead, with what is current.
    let bench = NestedBench::new(false).in_vmx_operation();
    assert_eq!(bench.nested.may_vmxon(Permission { cr0: 0x21, ..good }), Ok(()));
}

/// All others: #UD outside VMX operation, #GP(0) above privilege level 0.
#[test]
fn other_faults() {
    let outside = NestedBench::new(false);
    assert_eq!(outside.nested.may_execute(0), Err(Fault::Ud));
    assert_eq!(outside.nested.may_execute(3), Err(Fault::Ud));
    let inside = outside.in_vmx_operation();
    assert_eq!(inside.nested.may_execute(0), Ok(()));
    assert_eq!(inside.nested.may_execute(1), Err(Fault::Gp(0)));
    assert_eq!(inside.nested.may_execute(3), Err(Fault::Gp(0)));
}

/// The VMXON region: aligned, within the physical-address width, with the revision identifier and bit 31 clear.
#[test]
fn vmxon() {
    for pointer in BAD_POINTERS.into_iter().chain([HOLE, Ram::END, NestedBench::SHADOW, 0x6_0000]) {
        let mut bench = NestedBench::new(false);
        let outcome = bench.nested.vmxon(&mut bench.cpu, &bench.ram, pointer);
        assert_eq!(outcome, Outcome::FailInvalid, "{pointer:#x}");
        assert!(!bench.nested.in_vmx_operation());
    }
    let mut bench = NestedBench::new(false).in_vmx_operation();
    let again = bench.nested.vmxon(&mut bench.cpu, &bench.ram, NestedBench::OTHER);
    check_failed(&mut bench, again, InstructionError::VMXON_IN_VMX_ROOT);
}

/// VMPTRLD and VMCLEAR: pointers, the VMXON pointer, the revision; VMPTRST says what is current.
#[test]
fn pointers() {
    for pointer in BAD_POINTERS {
        let mut bench = NestedBench::new(false).in_vmx_operation();
        let outcome = bench.vmptrld(pointer);
        check_failed(&mut bench, outcome, InstructionError::VMPTRLD_INVALID_ADDRESS);
        let outcome = bench.vmclear(pointer);
        check_failed(&mut bench, outcome, InstructionError::VMCLEAR_INVALID_ADDRESS);
        assert_eq!(bench.nested.vmptrst(), NestedBench::VMCS, "it is current still");
    }
    let mut bench = NestedBench::new(false).in_vmx_operation();
    let outcome = bench.vmptrld(NestedBench::VMXON);
    check_failed(&mut bench, outcome, InstructionError::VMPTRLD_VMXON_POINTER);
    let outcome = bench.vmclear(NestedBench::VMXON);
    check_failed(&mut bench, outcome, InstructionError::VMCLEAR_VMXON_POINTER);
    for wrong in [HOLE, Ram::END, 0x6_0000] {
        let outcome = bench.vmptrld(wrong);
        check_failed(&mut bench, outcome, InstructionError::VMPTRLD_WRONG_REVISION);
    }
    assert_eq!(bench.vmclear(NestedBench::VMCS), Outcome::Succeed);
    assert_eq!(bench.nested.vmptrst(), u64::MAX);
    // Without a current VMCS there is no place for an error number.
    assert_eq!(bench.vmptrld(1), Outcome::FailInvalid);
    assert_eq!(bench.vmclear(1), Outcome::FailInvalid);
    assert_eq!(bench.vmclear(HOLE), Outcome::Succeed, "what is written where there is no memory is lost");
}

/// A shadow VMCS can be current, if L1's processor has "VMCS shadowing"; it cannot be entered.
#[test]
fn shadow_vmcs() {
    let mut bench = NestedBench::new(false).in_vmx_operation();
    assert_eq!(bench.vmptrld(NestedBench::SHADOW), Outcome::Succeed);
    assert_eq!(bench.enter(true), nested::Entry::Failed(Outcome::FailInvalid));
    let machine = vmcs::Capabilities::read(|msr| match msr {
        arch::Msr::VMX_PROCBASED_CTLS2 => {
            testkit::capability_msrs(msr) & !(u64::from(SecondaryBased::VMCS_SHADOWING.bits()) << 32)
        }
        msr => testkit::capability_msrs(msr),
    });
    let mut bench = NestedBench::on(&machine, false).in_vmx_operation();
    let outcome = bench.vmptrld(NestedBench::SHADOW);
    check_failed(&mut bench, outcome, InstructionError::VMPTRLD_WRONG_REVISION);
}

/// A VMCS keeps its fields and its launch state while another is current, and through VMXOFF; VMCLEAR makes it clear.
#[test]
fn a_vmcs_lives_in_memory() {
    for shadowing in [false, true] {
        let mut bench = NestedBench::new(shadowing).with_valid_vmcs12();
        bench.launch();
        bench.exit(vmcs::ExitReason::CPUID, |vmcs02| vmcs02.write(GUEST_CR3, 0x77_7000));
        bench.write(GUEST_RSP, 0x1234);
        assert_eq!(bench.vmptrld(NestedBench::OTHER), Outcome::Succeed);
        assert_eq!((bench.read(GUEST_RSP), bench.read(GUEST_CR3)), (0, 0));
        bench.nested.vmxoff(&mut bench.cpu, &bench.ram);
        assert_eq!(bench.nested.vmxon(&mut bench.cpu, &bench.ram, NestedBench::VMXON), Outcome::Succeed);
        assert_eq!(bench.nested.vmptrst(), u64::MAX);
        assert_eq!(bench.vmptrld(NestedBench::VMCS), Outcome::Succeed);
        assert_eq!((bench.read(GUEST_RSP), bench.read(GUEST_CR3)), (0x1234, 0x77_7000));
        bench.resume();
        bench.exit(vmcs::ExitReason::CPUID, |_| ());
        assert_eq!(bench.vmclear(NestedBench::VMCS), Outcome::Succeed);
        assert_eq!(bench.vmptrld(NestedBench::VMCS), Outcome::Succeed);
        let resumed = bench.enter(false);
        assert_eq!(resumed, nested::Entry::Failed(fail(InstructionError::VMRESUME_NOT_LAUNCHED)));
    }
}

/// VMCLEAR of a VMCS that is not current changes no other.
#[test]
fn vmclear_of_another() {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    bench.launch();
    bench.exit(vmcs::ExitReason::CPUID, |_| ());
    assert_eq!(bench.vmclear(NestedBench::OTHER), Outcome::Succeed);
    assert_eq!(bench.nested.vmptrst(), NestedBench::VMCS);
    bench.resume();
}

/// Every encoding there can be: VMREAD and VMWRITE take those of the fields that the capability MSRs imply, full and (for
/// 64-bit fields) high half, and no others. A read-only field is refused, a value is cut to the field's width.
#[test]
fn every_field() {
    let machine = vmcs::Capabilities::read(|msr| match msr {
        // A processor that has not everything.
        arch::Msr::VMX_PROCBASED_CTLS2 => 0x0000_10aa_u64 << 32,
        msr => testkit::capability_msrs(msr),
    });
    let mut bench = NestedBench::on(&machine, false).in_vmx_operation();
    let offered = *bench.offered();
    let mut exist = 0;
    for encoding in (0..0x1_0000u64).chain([1 << 32 | 0x6800, u64::MAX, 0x8000_6800]) {
        let field = FIELDS.iter().find(|field| {
            let high = field.encoding.width() == vmcs::field::FieldWidth::Bits64;
            let encodings = [u64::from(field.encoding.0), u64::from(field.encoding.0 | 1)];
            encodings[..1 + usize::from(high)].contains(&encoding) && offered.has_field(field)
        });
        let Some(field) = field else {
            check_absent(&mut bench, encoding);
            continue;
        };
        exist += 1;
        let written = bench.vmwrite(encoding, 0x8765_4321_fedc_ba98);
        if field.encoding.area() == Area::ReadOnly {
            check_failed(&mut bench, written, InstructionError::READ_ONLY_FIELD);
            assert!(bench.vmread(encoding).is_ok());
            continue;
        }
        assert_eq!(written, Outcome::Succeed, "{}", field.name);
        let kept = if encoding & 1 == 1 { 0xfedc_ba98 } else { field.encoding.truncate(0x8765_4321_fedc_ba98) };
        assert_eq!(bench.vmread(encoding), Ok(kept), "{}", field.name);
        if encoding & 1 == 1 {
            assert_eq!(bench.vmread(encoding & !1), Ok(0xfedc_ba98_fedc_ba98), "the low half of {} stays", field.name);
        }
    }
    assert!(exist > 150, "{exist} fields");
    assert!(bench.vmread(TSC_MULTIPLIER.encoding().0.into()).is_err(), "L1's processor does not scale the TSC");
}

fn check_absent(bench: &mut NestedBench, encoding: u64) {
    let read = bench.vmread(encoding).expect_err("a field that does not exist");
    check_failed(bench, read, InstructionError::UNSUPPORTED_FIELD);
    let written = bench.vmwrite(encoding, 0);
    check_failed(bench, written, InstructionError::UNSUPPORTED_FIELD);
}

/// IA32_VMX_MISC bit 29 lets VMWRITE write exit information; with VMCS shadowing its copy follows.
#[test]
fn read_only_fields_can_be_written_where_the_machine_can() {
    for shadowing in [false, true] {
        let machine = vmcs::Capabilities::read(|msr| match msr {
            arch::Msr::VMX_MISC => testkit::capability_msrs(msr) | 1 << 29,
            msr => testkit::capability_msrs(msr),
        });
        let mut bench = NestedBench::on(&machine, shadowing).in_vmx_operation();
        bench.write(EXIT_QUALIFICATION, 0x77);
        assert_eq!(bench.read(EXIT_QUALIFICATION), 0x77);
    }
}

/// INVEPT and INVVPID: the types that the capability MSR offers, their descriptors, and error 28 for all else.
#[test]
fn invalidations() {
    let eptp = 0x2_001e;
    let mut bench = NestedBench::new(false).in_vmx_operation();
    for (kind, eptp, fails) in [
        (1, eptp, false),
        (2, 0, false),
        (2, 0xfff, false),
        (0, eptp, true),
        (3, eptp, true),
        (1 << 32 | 1, eptp, true),
        (1, 0x2_001f, true),
        (1, 0x2_0026, true),
        (1, 0x2_009e, true),
        (1, eptp | 1 << 46, true),
    ] {
        let outcome = bench.nested.invept(&mut bench.cpu, kind, eptp);
        if fails {
            check_failed(&mut bench, outcome, InstructionError::INVALID_INVEPT_INVVPID_OPERAND);
        } else {
            assert_eq!(outcome, Outcome::Succeed, "type {kind}, EPTP {eptp:#x}");
        }
    }
    let canonical = 0xffff_8000_0000_0000;
    for (kind, descriptor, fails) in [
        (0, [1, canonical], false),
        (1, [1, 1 << 63], false),
        (2, [0, 1 << 63], false),
        (3, [1, 1 << 63], false),
        (4, [1, 0], true),
        (1 << 32, [1, 0], true),
        // VPID 0, reserved bits, an address that is not canonical.
        (0, [0, 0], true),
        (1, [0, 0], true),
        (3, [0, 0], true),
        (0, [0x1_0001, 0], true),
        (1, [0x1_0001, 0], true),
        (2, [0x1_0000, 0], true),
        (3, [1 << 63 | 1, 0], true),
        (0, [1, 1 << 47], true),
    ] {
        let outcome = bench.nested.invvpid(&mut bench.cpu, kind, descriptor);
        if fails {
            check_failed(&mut bench, outcome, InstructionError::INVALID_INVEPT_INVVPID_OPERAND);
        } else {
            assert_eq!(outcome, Outcome::Succeed, "type {kind}, {descriptor:x?}");
        }
    }
}

/// With VMCS shadowing VMREAD and VMWRITE do not exit only while there is an ordinary VMX operation to serve: before VMXON
/// they have to exit for #UD, and without a current VMCS the link pointer names none, so that they fail as they should.
#[test]
fn shadowing_follows_vmx_operation() {
    let on = |bench: &NestedBench| {
        let vmcs01 = bench.vmcs(Which::Vmcs01);
        let on = vmcs01.read(SECONDARY_VM_EXEC_CONTROL) & SecondaryBased::VMCS_SHADOWING.bits() != 0;
        (on, vmcs01.read(VMCS_LINK_POINTER) != u64::MAX)
    };
    let mut bench = NestedBench::new(true);
    assert!(!on(&bench).0);
    assert_eq!(bench.nested.vmxon(&mut bench.cpu, &bench.ram, NestedBench::VMXON), Outcome::Succeed);
    assert_eq!(on(&bench), (true, false));
    assert_eq!(bench.vmptrld(NestedBench::VMCS), Outcome::Succeed);
    assert_eq!(on(&bench), (true, true));
    assert_eq!(bench.vmclear(NestedBench::VMCS), Outcome::Succeed);
    assert_eq!(on(&bench), (true, false));
    assert_eq!(bench.vmptrld(NestedBench::VMCS), Outcome::Succeed);
    bench.nested.vmxoff(&mut bench.cpu, &bench.ram);
    assert_eq!(on(&bench), (false, false));
}
