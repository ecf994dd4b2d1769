//! What the log says to the author of an L1 whose entry failed: ten mistakes that authors make.

use nested::Entry;
use testkit::NestedBench;
use vmcs::fields::*;

/// A valid VMCS in which `mistake` was made, and the explanation of its VMLAUNCH.
fn explained(mistake: impl FnOnce(&mut NestedBench)) -> String {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    mistake(&mut bench);
    let entry = bench.enter(true);
    assert!(matches!(entry, Entry::Failed(_) | Entry::Exited), "{entry:?}");
    bench.explained
}

fn check(mistake: impl FnOnce(&mut NestedBench), expected: &[&str]) {
    let text = explained(mistake);
    assert_eq!(text.lines().collect::<Vec<_>>(), expected, "\n{text}");
}

/// A control that the capability MSR does not offer: which one, by its name.
#[test]
fn control_that_is_not_offered() {
    check(
        |l1| l1.write(SECONDARY_VM_EXEC_CONTROL, 1 << 26 | 0xa2),
        &[
            "entry of L1 failed: VMfailValid, VM entry found invalid control fields (VM-instruction error 7)",
            "broken rule: with \"activate secondary controls\", reserved bits of the secondary processor-based VM-execution \
             controls must be 0 (SDM 3C 27.2.1.1 \"VM-Execution Control Fields\")",
            "SECONDARY_VM_EXEC_CONTROL is 0x40000a2: bit 26 (enable user wait and pause) is 1 and must be 0",
        ],
    );
}

/// The bits that must be 1 were forgotten, as by an L1 that never read the capability MSR.
#[test]
fn default_settings_forgotten() {
    check(
        |l1| l1.write(PIN_BASED_VM_EXEC_CONTROL, 0x29),
        &[
            "entry of L1 failed: VMfailValid, VM entry found invalid control fields (VM-instruction error 7)",
            "broken rule: reserved bits of the pin-based VM-execution controls must have the values that the capability MSR \
             allows (SDM 3C 27.2.1.1 \"VM-Execution Control Fields\")",
            "PIN_BASED_VM_EXEC_CONTROL is 0x29: bit 1 is 0 and must be 1, bit 2 is 0 and must be 1, bit 4 is 0 and must be 1",
        ],
    );
}

/// Two controls of which one needs the other: both words, with what is on in them.
#[test]
fn nmi_window_without_virtual_nmis() {
    check(
        |l1| {
            l1.write(PIN_BASED_VM_EXEC_CONTROL, 0x1f);
            l1.write(CPU_BASED_VM_EXEC_CONTROL, 0x8440_6172);
        },
        &[
            "entry of L1 failed: VMfailValid, VM entry found invalid control fields (VM-instruction error 7)",
            "broken rule: \"NMI-window exiting\" needs \"virtual NMIs\" (SDM 3C 27.2.1.1 \"VM-Execution Control Fields\")",
            "PIN_BASED_VM_EXEC_CONTROL is 0x1f: external-interrupt exiting, NMI exiting",
            "CPU_BASED_VM_EXEC_CONTROL is 0x84406172: NMI-window exiting, activate secondary controls",
        ],
    );
}

/// EPTP with a bare address: neither memory type nor levels.
#[test]
fn eptp_without_levels() {
    check(
        |l1| l1.write(EPT_POINTER, 0x2_0006),
        &[
            "entry of L1 failed: VMfailValid, VM entry found invalid control fields (VM-instruction error 7)",
            "broken rule: with \"enable EPT\", bits 5:3 of EPTP must be one less than a page-walk length that the processor \
             supports (SDM 3C 27.2.1.1 \"VM-Execution Control Fields\")",
            "EPT_POINTER is 0x20006: memory type 6, 1 levels, no accessed and dirty flags, root at 0x20000",
        ],
    );
}

/// The host's CR4 as a kernel without VMX has it.
#[test]
fn host_cr4_without_vmxe() {
    check(
        |l1| l1.write(HOST_CR4, 0x20),
        &[
            "entry of L1 failed: VMfailValid, VM entry found invalid host-state fields (VM-instruction error 8)",
            "broken rule: the host's CR4 must have only bits that VMX operation supports, and those that it fixes to 1 (SDM 3C \
             27.2.2 \"Checks on Host Control Registers, MSRs, and SSP\")",
            "HOST_CR4 is 0x20: bit 13 (VMXE) is 0 and must be 1",
        ],
    );
}

/// No task register in the host: the classic of a first hypervisor.
#[test]
fn host_without_task_register() {
    check(
        |l1| l1.write(HOST_TR_SELECTOR, 0),
        &[
            "entry of L1 failed: VMfailValid, VM entry found invalid host-state fields (VM-instruction error 8)",
            "broken rule: the host's CS and TR selectors must not be 0 (SDM 3C 27.2.3 \"Checks on Host Segment and \
             Descriptor-Table Registers\")",
            "HOST_CS_SELECTOR is 0x8",
            "HOST_TR_SELECTOR is 0x0",
        ],
    );
}

/// RFLAGS of a zeroed guest.
#[test]
fn guest_flags_are_zero() {
    check(
        |l1| l1.write(GUEST_RFLAGS, 0x200),
        &[
            "entry of L1 failed: VM exit 33, VM-entry failure due to invalid guest state, with exit reason 0x80000021 and \
             qualification 0",
            "broken rule: bits 63:22, 15, 5 and 3 of the guest's RFLAGS must be 0, and bit 1 must be 1 (SDM 3C 27.3.1.4 \
             \"Checks on Guest RIP, RFLAGS, and SSP\")",
            "GUEST_RFLAGS is 0x200: IF",
        ],
    );
}

/// A 64-bit code segment with D set too.
#[test]
fn code_segment_with_l_and_d() {
    check(
        |l1| l1.write(GUEST_CS_ACCESS_RIGHTS, 0xe09b),
        &[
            "entry of L1 failed: VM exit 33, VM-entry failure due to invalid guest state, with exit reason 0x80000021 and \
             qualification 0",
            "broken rule: CS's D/B must be 0 if L is 1, with \"IA-32e mode guest\" (SDM 3C 27.3.1.2 \"Checks on Guest Segment \
             Registers\")",
            "GUEST_CS_ACCESS_RIGHTS is 0xe09b: code of type 11, DPL 0, present, L, D/B, G",
        ],
    );
}

/// The link pointer was left at zero.
#[test]
fn link_pointer_is_zero() {
    check(
        |l1| l1.write(VMCS_LINK_POINTER, 0),
        &[
            "entry of L1 failed: VM exit 33, VM-entry failure due to invalid guest state, with exit reason 0x80000021 and \
             qualification 4",
            "broken rule: the VMCS that the link pointer names must have the processor's VMCS revision identifier, and bit 31 \
             after it must equal \"VMCS shadowing\" (SDM 3C 27.3.1.5 \"Checks on Guest Non-Register State\")",
            "VMCS_LINK_POINTER is 0x0, where 0xffffffffffffffff stands for none",
        ],
    );
}

/// An interrupt is injected while the guest has interrupts off.
#[test]
fn interrupt_injected_with_interrupts_off() {
    check(
        |l1| {
            l1.write(GUEST_RFLAGS, 2);
            l1.write(VM_ENTRY_INTERRUPTION_INFO, 0x8000_0030);
        },
        &[
            "entry of L1 failed: VM exit 33, VM-entry failure due to invalid guest state, with exit reason 0x80000021 and \
             qualification 0",
            "broken rule: the guest's RFLAGS.IF must be 1 if an external interrupt is injected (SDM 3C 27.3.1.4 \"Checks on \
             Guest RIP, RFLAGS, and SSP\")",
            "GUEST_RFLAGS is 0x2",
            "VM_ENTRY_INTERRUPTION_INFO is 0x80000030: ExternalInterrupt 48",
        ],
    );
}

/// FS base in the MSR-load list, where it may not be: which entry, which MSR.
#[test]
fn fs_base_in_the_load_list() {
    check(
        |l1| {
            l1.msrs.values.insert(0xc000_0081, 0);
            l1.ram.set(0x6_0000, 0xc000_0081);
            l1.ram.set(0x6_0010, 0xc000_0100);
            l1.ram.set(0x6_0018, 0x1234_5000);
            l1.write(VM_ENTRY_MSR_LOAD_COUNT, 2);
            l1.write(VM_ENTRY_MSR_LOAD_ADDR, 0x6_0000);
        },
        &[
            "entry of L1 failed: VM exit 34, VM-entry failure due to MSR loading, with exit reason 0x80000022 and \
             qualification 2",
            "entry 2 of the VM-entry MSR-load list is 0x12345000 for MSR 0xc0000100, which WRMSR would not take or which may \
             not be in the list (SDM 3C 27.4 \"Loading MSRs\")",
        ],
    );
}
