//! Nested state as bytes: what is refused, and with which words. That a saved vCPU goes on as it was is shown by the tests of
//! `lockstep.rs`.

use arch::Msr;
use nested::{SAVED_BYTES, Which};
use testkit::{Flush, NestedBench};
use vmcs::controls::{PinBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, EventInfo, ExitReason};

const FLAGS: usize = 0;
const VMXON: usize = 1;
const CURRENT: usize = 2;
const TIMER: usize = 3;
const VPID: usize = 4;
const TSC_OFFSET: usize = 5;
/// Where vmcs12 begins, and L2's registers.
const VMCS12: usize = 8;
const REGISTERS: usize = VMCS12 + FIELDS.len();

fn save(bench: &mut NestedBench) -> Vec<u8> {
    let mut bytes = [0; SAVED_BYTES];
    bench.nested.save(&mut bench.cpu, &mut bytes);
    bytes.to_vec()
}

fn word(bytes: &mut [u8], number: usize) -> &mut [u8] {
    &mut bytes[16 + 8 * number..24 + 8 * number]
}

fn set(bytes: &mut [u8], number: usize, value: u64) {
    word(bytes, number).copy_from_slice(&value.to_le_bytes());
}

fn slot(field: vmcs::Encoding) -> usize {
    FIELDS.iter().position(|row| row.encoding == field).expect("a field of the table")
}

/// L1 runs, with a current VMCS that is launched.
fn in_root() -> NestedBench {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    bench.launch();
    bench.exit(ExitReason::CPUID, |_| ());
    bench
}

fn in_l2() -> NestedBench {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    bench.write(CR4_GUEST_HOST_MASK, 0x2000);
    bench.write(CR4_READ_SHADOW, 0x2000);
    bench.launch();
    bench.nested.entered();
    bench
}

/// The error in words, after which nothing has changed.
fn refusal(bytes: &[u8], from: NestedBench) -> String {
    let mut bench = from.moved();
    let before = save(&mut bench);
    let own: Vec<_> = bench.vmcs(Which::Vmcs01).values().collect();
    let error = bench.nested.restore(&mut bench.cpu, &bench.ram, bytes, &bench.l1).expect_err("bytes that are wrong");
    assert_eq!(save(&mut bench), before, "nothing half restored");
    assert_eq!(bench.vmcs(Which::Vmcs01).values().collect::<Vec<_>>(), own);
    assert_eq!(bench.cpu.current(), Which::Vmcs01);
    error.to_string()
}

/// What comes before the words.
#[test]
fn header() {
    let whole = save(&mut in_root());
    let mut magic = whole.clone();
    magic[0] ^= 1;
    assert_eq!(refusal(&magic, in_root()), "this is no saved state of nested VMX");
    let mut version = whole.clone();
    version[8] = 9;
    assert_eq!(refusal(&version, in_root()), "the state has version 9, not 1");
    let mut length = whole.clone();
    length[12] ^= 8;
    for bytes in [&whole[..0], &whole[..15], &whole[..SAVED_BYTES - 1], &[&whole[..], &[0]].concat()] {
        let expected = format!("the state has {} bytes, not {SAVED_BYTES}", bytes.len());
        assert_eq!(refusal(bytes, in_root()), expected);
    }
    let said = SAVED_BYTES ^ 8;
    assert_eq!(refusal(&length, in_root()), format!("the state has {said} bytes, not {SAVED_BYTES}"));
}

/// Flags that contradict each other, or values that contradict the flags, while L1 runs.
#[test]
fn flags_and_pointers() {
    for (number, value, expected) in [
        (FLAGS, 3, "the flags 0x3 cannot be"),
        (FLAGS, 0, "word 1 is too large"),
        (FLAGS, 4, "the flags 0x4 cannot be"),
        (FLAGS, 1, "word 2 is too large"),
        (FLAGS, 0x15 | 1 << 9, "the flags 0x215 cannot be"),
        (FLAGS, 0x15 | 1 << 5, "the flags 0x35 cannot be"),
        (FLAGS, 0x15 | 1 << 6, "the flags 0x55 cannot be"),
        (FLAGS, 0x15 | 1 << 7, "the flags 0x95 cannot be"),
        (FLAGS, 0x15 | 1 << 8, "the flags 0x115 cannot be"),
        // L2 would run on a VMCS that is not launched, or is a shadow VMCS.
        (FLAGS, 0x06, "the flags 0x6 cannot be"),
        (FLAGS, 0x1e, "the flags 0x1e cannot be"),
        (VMXON, 0x5_0001, "the VMXON pointer cannot be 0x50001"),
        (VMXON, 1 << 46, "the VMXON pointer cannot be 0x400000000000"),
        (CURRENT, 0x5_1001, "the current-VMCS pointer cannot be 0x51001"),
        (CURRENT, NestedBench::VMXON, "the current-VMCS pointer cannot be 0x50000"),
        (CURRENT, 0xa_0000, "the current-VMCS pointer cannot be 0xa0000"),
        (TIMER, 5, "word 3 is too large"),
        (VPID, 0x1_0000, "word 4 is too large"),
        (TSC_OFFSET, 5, "word 5 is too large"),
        (6, 1, "word 6 is too large"),
        (7, 1, "word 7 is too large"),
        (VMCS12 + slot(GUEST_CS_SELECTOR.encoding()), 0x1_0008, "the field GUEST_CS_SELECTOR cannot have its value"),
        (VMCS12 + slot(TPR_THRESHOLD.encoding()), 1 << 32, "the field TPR_THRESHOLD cannot have its value"),
        (VMCS12 + slot(SPPTP.encoding()), 0x1000, "the field SPPTP cannot have its value"),
        (REGISTERS + slot(GUEST_CR3.encoding()), 1, "the field GUEST_CR3 cannot have its value"),
    ] {
        let mut bytes = save(&mut in_root());
        set(&mut bytes, number, value);
        assert_eq!(refusal(&bytes, in_root()), expected, "word {number} is {value:#x}");
    }
}

/// While L2 runs: its registers keep the rules of VM entry, and what else has to fit.
#[test]
fn running_l2() {
    let rule = |text: &str| format!("L2 cannot run: {text}");
    for (number, value, expected) in [
        (FLAGS, 0x16 | 1 << 7, "the flags 0x96 cannot be".to_owned()),
        (
            VMCS12 + slot(VIRTUAL_PROCESSOR_ID.encoding()),
            0,
            rule("with \"enable VPID\", the VPID must not be 0 (SDM 3C 27.2.1.1 \"VM-Execution Control Fields\")"),
        ),
        (
            REGISTERS + slot(GUEST_RFLAGS.encoding()),
            0,
            rule(
                "bits 63:22, 15, 5 and 3 of the guest's RFLAGS must be 0, and bit 1 must be 1 (SDM 3C 27.3.1.4 \"Checks on Guest \
                 RIP, RFLAGS, and SSP\")",
            ),
        ),
        (
            REGISTERS + slot(GUEST_TR_SELECTOR.encoding()),
            1 << 16,
            "the field GUEST_TR_SELECTOR cannot have its value".to_owned(),
        ),
        (
            REGISTERS + slot(VM_ENTRY_CONTROLS.encoding()),
            0xd3fb,
            "the field VM_ENTRY_CONTROLS cannot have its value".to_owned(),
        ),
        (REGISTERS + slot(HOST_RIP.encoding()), 1, "the field HOST_RIP cannot have its value".to_owned()),
        // VMXE, which L1 owns too: L2 has what L1 entered with.
        (VMCS12 + slot(GUEST_CR4.encoding()), 0x20, "the field GUEST_CR4 cannot have its value".to_owned()),
    ] {
        let mut bytes = save(&mut in_l2());
        set(&mut bytes, number, value);
        assert_eq!(refusal(&bytes, in_l2()), expected, "word {number} is {value:#x}");
    }
    // A timer that has longer to go than its 32 bits can count.
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    let pin = bench.read(PIN_BASED_VM_EXEC_CONTROL);
    bench.write(PIN_BASED_VM_EXEC_CONTROL, pin | PinBased::ACTIVATE_PREEMPTION_TIMER.bits());
    bench.launch();
    let mut bytes = save(&mut bench);
    set(&mut bytes, TIMER, 1 << 37);
    assert_eq!(refusal(&bytes, bench), "the VMX-preemption timer cannot have 137438953472 TSC ticks left");
}

/// A field that the other processor does not have, and a shadow VMCS where there is no VMCS shadowing, are refused there.
#[test]
fn lesser_processor() {
    let lesser = Capabilities::read(|msr| match msr {
        Msr::VMX_PROCBASED_CTLS2 => {
            testkit::capability_msrs(msr) & !(u64::from(SecondaryBased::VMCS_SHADOWING.bits()) << 32)
        }
        msr => testkit::capability_msrs(msr),
    });
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    bench.write(VMREAD_BITMAP, 0x6_0000);
    let with_field = save(&mut bench);
    bench.vmptrld(NestedBench::SHADOW);
    let with_shadow = save(&mut bench);
    for (bytes, expected) in
        [(with_field, "the field VMREAD_BITMAP cannot have its value"), (with_shadow, "the flags 0xd cannot be")]
    {
        assert_eq!(refusal(&bytes, NestedBench::on(&lesser, false)), expected);
    }
}

/// What a running L2 has changed in its registers, without any exit to L1, goes with it: also what vmcs12's controls would
/// not save. What L1 reads later is what it would have read.
#[test]
fn registers_that_l1_has_not_seen() {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    let exit = bench.read(VM_EXIT_CONTROLS);
    bench.write(VM_EXIT_CONTROLS, exit & !vmcs::controls::ExitControls::SAVE_DEBUG_CONTROLS.bits());
    bench.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::external(0x31).0);
    bench.launch();
    bench.run_l2(ExitReason::EXTERNAL_INTERRUPT, |vmcs02| {
        vmcs02.write(GUEST_DR7, 0x455);
        vmcs02.write(GUEST_CR3, 0x77_7000);
        vmcs02.write(CR0_READ_SHADOW, vmcs02.read(CR0_READ_SHADOW) | 1 << 30);
    });
    let bytes = save(&mut bench);
    let mut moved = bench.moved();
    assert!(moved.nested.restore(&mut moved.cpu, &moved.ram, &bytes, &moved.l1).is_ok());
    assert_eq!(moved.cpu.current(), Which::Vmcs02);
    assert_eq!(moved.cpu.flushes.last(), Some(&Flush::L2));
    moved.assert_vmcs02_is_valid();
    let vmcs02 = moved.vmcs(Which::Vmcs02);
    assert_eq!((vmcs02.read(GUEST_DR7), vmcs02.read(GUEST_CR3)), (0x455, 0x77_7000));
    assert_eq!(vmcs02.read(CR0_READ_SHADOW) >> 30 & 1, 1, "CR0.CD as L2 set it");
    assert!(!EventInfo(vmcs02.read(VM_ENTRY_INTERRUPTION_INFO)).is_valid(), "the event was delivered before");
    moved.exit(ExitReason::CPUID, |_| ());
    assert_eq!((moved.read(GUEST_DR7), moved.read(GUEST_CR3)), (0x400, 0x77_7000));
}

/// An entry that the processor has not made yet still has its event; the timer has as long to go as before, by whatever TSC.
#[test]
fn pending_entry_and_timer() {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    let pin = bench.read(PIN_BASED_VM_EXEC_CONTROL);
    bench.write(PIN_BASED_VM_EXEC_CONTROL, pin | PinBased::ACTIVATE_PREEMPTION_TIMER.bits());
    bench.write(VMX_PREEMPTION_TIMER_VALUE, 100);
    bench.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::external(0x31).0);
    bench.launch();
    let left = bench.nested.timer_deadline() - bench.cpu.tsc;
    let bytes = save(&mut bench);
    let mut moved = bench.moved();
    moved.cpu.tsc += 1 << 40;
    assert!(moved.nested.restore(&mut moved.cpu, &moved.ram, &bytes, &moved.l1).is_ok());
    assert!(moved.nested.is_entry_pending());
    assert_eq!(moved.vmcs(Which::Vmcs02).read(VM_ENTRY_INTERRUPTION_INFO), EventInfo::external(0x31).0);
    assert_eq!(moved.nested.timer_deadline(), moved.cpu.tsc + left);
}
