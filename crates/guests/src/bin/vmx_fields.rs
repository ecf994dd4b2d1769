//! VMREAD and VMWRITE: the whole field table, and what is no field. SDM 3C 25.11.2 "VMREAD, VMWRITE, and Encodings of VMCS
//! Fields"; SDM 3D appendix B "Field Encoding in VMCS".
//!
//! Fields that come with a capability are compared with the capability MSRs: only a disagreement is printed.
#![no_std]
#![no_main]

use guests::vmx::instructions::{outcome, vmclear, vmptrld, vmread, vmwrite};
use guests::vmx::{VmResult, equal, setup, show};
use guests::{entry, println, vmx_flags};
use vmcs::field::{Area, FieldInfo, FieldWidth};
use vmcs::fields::{
    EXIT_REASON, FIELDS, GUEST_ES_SELECTOR, GUEST_IA32_DEBUGCTL, GUEST_RIP, IO_BITMAP_A, VM_INSTRUCTION_ERROR,
};
use vmcs::{Capabilities, Encoding};

entry!(main);

/// Bits for fields that take any.
const PATTERN: u64 = 0x8765_4321_fedc_ba98;
/// The defined bits of access rights.
const ACCESS_RIGHTS: u64 = 0x1_f0ff;

fn main() {
    setup::require();
    setup::on();
    let capabilities = setup::capabilities();
    let region = setup::region();
    let _ = vmclear(region);
    let _ = vmptrld(region);
    every_field(&capabilities);
    capability_fields(&capabilities);
    halves();
    no_fields();
    operands();
    println!("done");
}

/// What the field gives back of [`PATTERN`].
fn wanted(field: &FieldInfo) -> u64 {
    let is_rights = field.name.ends_with("ACCESS_RIGHTS");
    field.encoding.truncate(if is_rights { PATTERN & ACCESS_RIGHTS } else { PATTERN })
}

/// Writes and reads; tells what went wrong.
fn check(field: &FieldInfo) -> Result<(), (VmResult, VmResult<u64>)> {
    let written = vmwrite(field.encoding, if field.name.ends_with("ACCESS_RIGHTS") { wanted(field) } else { PATTERN });
    let read = vmread(field.encoding);
    if written.is_ok() && read == Ok(wanted(field)) { Ok(()) } else { Err((written, read)) }
}

/// Those that every processor has.
fn every_field(capabilities: &Capabilities) {
    println!("fields of every processor");
    for field in FIELDS.iter().filter(|field| field.needs.is_empty() && field.encoding.area() != Area::ReadOnly) {
        match check(field) {
            Ok(()) => println!(" {}: ok", field.name),
            Err((written, read)) => println!(" {}: {written:x?}, {read:x?}", field.name),
        }
    }
    println!("read-only fields");
    let may_write = capabilities.misc.can_write_all_fields();
    for field in FIELDS.iter().filter(|field| field.needs.is_empty() && field.encoding.area() == Area::ReadOnly) {
        let read = vmread(field.encoding);
        let written = vmwrite(field.encoding, PATTERN);
        let again = vmread(field.encoding);
        // What VMWRITE does is IA32_VMX_MISC bit 29's to say; a refusal leaves its number in one of them.
        let is_right = match (may_write, written) {
            (true, Ok(())) => again == Ok(field.encoding.truncate(PATTERN)),
            (false, Err(guests::vmx::VmFail::Valid(vmcs::InstructionError::READ_ONLY_FIELD))) => {
                read == again || field.encoding == VM_INSTRUCTION_ERROR.encoding()
            }
            _ => false,
        };
        println!(" {}: {}", field.name, if is_right && read.is_ok() { "ok" } else { "not ok" });
    }
}

/// Those that come with a capability, and the highest index.
fn capability_fields(capabilities: &Capabilities) {
    println!("fields of some processors: exist as the capabilities say");
    let mut highest = 0;
    for field in FIELDS {
        let exists = vmread(field.encoding).is_ok();
        if exists {
            highest = highest.max(field.encoding.index());
        }
        if exists != capabilities.has_field(field) {
            println!(" {}: {}", field.name, if exists { "exists" } else { "does not exist" });
        } else if exists && field.encoding.area() != Area::ReadOnly && !field.needs.is_empty() && check(field).is_err()
        {
            println!(" {}: {:x?}", field.name, check(field));
        }
    }
    equal(
        "the highest index is as IA32_VMX_VMCS_ENUM says, or less",
        u64::from(highest <= capabilities.highest_field_index),
        1,
    );
}

/// The halves of 64-bit fields.
fn halves() {
    println!("halves");
    for field in [IO_BITMAP_A, GUEST_IA32_DEBUGCTL] {
        let full = field.encoding();
        let Some(high) = full.high_half() else { continue };
        let _ = vmwrite(full, PATTERN);
        equal("the high half", vmread(high).unwrap_or(0), PATTERN >> 32);
        show("VMWRITE of the high half", || vmwrite(high, 0x1_1234_5678));
        equal("the whole", vmread(full).unwrap_or(0), 0x1234_5678 << 32 | PATTERN & 0xffff_ffff);
        let _ = vmwrite(full, 5);
        equal("writing the whole clears the high half", vmread(high).unwrap_or(1), 0);
    }
    let all = FIELDS.iter().filter(|field| field.encoding.width() == FieldWidth::Bits64);
    let missing = all.filter(|field| {
        let half = |encoding: Encoding| encoding.high_half().map(|high| vmread(high).is_ok());
        half(field.encoding) != Some(vmread(field.encoding).is_ok())
    });
    equal("64-bit fields without a high half", missing.count() as u64, 0);
}

/// Encodings that name nothing.
fn no_fields() {
    println!("no fields");
    for (what, encoding) in [
        ("the highest natural-width host field", Encoding(0x6dfe)),
        ("the highest index", Encoding(0x6ffe)),
        ("a high half of a 16-bit field", Encoding(GUEST_ES_SELECTOR.encoding().0 | 1)),
        ("a high half of a 32-bit field", Encoding(EXIT_REASON.encoding().0 | 1)),
        ("a high half of a natural-width field", Encoding(GUEST_RIP.encoding().0 | 1)),
        ("bit 12", Encoding(GUEST_RIP.encoding().0 | 1 << 12)),
        ("bit 15", Encoding(GUEST_RIP.encoding().0 | 1 << 15)),
        ("bit 16", Encoding(GUEST_RIP.encoding().0 | 1 << 16)),
        ("bit 31", Encoding(GUEST_RIP.encoding().0 | 1 << 31)),
        ("a 16-bit read-only field", Encoding(0x0400)),
    ] {
        show(what, || vmread(encoding));
        show(what, || vmwrite(encoding, 0));
    }
    let wide = u64::from(GUEST_RIP.encoding().0) | 1 << 32;
    show("VMREAD, bit 32", || outcome(vmx_flags!("vmread rdx, rcx", in("rcx") wide, out("rdx") _)));
    show("VMWRITE, bit 32", || outcome(vmx_flags!("vmwrite rcx, rdx", in("rcx") wide, in("rdx") 0_u64)));
}

/// Registers and memory as operands.
fn operands() {
    println!("operands");
    let _ = vmwrite(GUEST_ES_SELECTOR.encoding(), 0x5678);
    let selector = u64::from(GUEST_ES_SELECTOR.encoding().0);
    let mut memory = [u64::MAX; 3];
    let target = &raw mut memory[1];
    show("VMREAD of 16 bits into memory", || {
        outcome(vmx_flags!("vmread [rdx], rcx", in("rcx") selector, in("rdx") target))
    });
    equal("zero-extended to 64 bits", memory[1], 0x5678);
    equal("and nothing else", memory[0] & memory[2], u64::MAX);
    memory[1] = 0xffff_ffff_ffff_1234;
    show("VMWRITE of 16 bits from memory", || {
        outcome(vmx_flags!("vmwrite rcx, [rdx]", in("rcx") selector, in("rdx") &raw const memory[1]))
    });
    equal("the low 16", vmread(GUEST_ES_SELECTOR.encoding()).unwrap_or(0), 0x1234);
    // A failure leaves the destination alone.
    let mut register = 0x7777_u64;
    show("VMREAD of no field", || outcome(vmx_flags!("vmread rdx, rcx", in("rcx") 0x6ffe_u64, inout("rdx") register)));
    equal("the register", register, 0x7777);
    memory[1] = 0x7777;
    show("VMREAD of no field into memory", || {
        outcome(vmx_flags!("vmread [rdx], rcx", in("rcx") 0x6ffe_u64, in("rdx") &raw mut memory[1]))
    });
    equal("the memory", memory[1], 0x7777);
    // R8 to R15, and one register for both.
    let _ = vmwrite(GUEST_RIP.encoding(), PATTERN);
    let rip = u64::from(GUEST_RIP.encoding().0);
    show("VMREAD R15, R8", || outcome(vmx_flags!("vmread r15, r8", in("r8") rip, out("r15") register)));
    equal("read", register, PATTERN);
    show("VMREAD RCX, RCX", || outcome(vmx_flags!("vmread rcx, rcx", inout("rcx") rip => register)));
    equal("read", register, PATTERN);
    show("VMWRITE R9, R9", || outcome(vmx_flags!("vmwrite r9, r9", in("r9") rip)));
    equal("written", vmread(GUEST_RIP.encoding()).unwrap_or(0), rip);
    show("VMREAD RSP", || {
        outcome(vmx_flags!("mov rsi, rsp\n vmread rsp, rcx\n xchg rsi, rsp", in("rcx") rip, out("rsi") register))
    });
    equal("read", register, rip);
}
