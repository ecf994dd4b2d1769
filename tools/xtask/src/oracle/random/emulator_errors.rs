//! Where the emulator is wrong by the manual: Bochs 3.0, each case once.
//!
//! A case is a set of rules of `vmcs::checks`, each of which names its section of the manual, and what the emulator does
//! when one of them is broken; or a wrong exit after an entry that breaks none. The report counts the rounds that a case explains, and names those that no round met.

use arch::control::{Cr0, Cr4};
use arch::segment::AccessRights;
use rounds::{Outcome, Round, touched};
use vmcs::controls::{EntryControls, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, EventInfo, ExitReason};

/// One mistake.
pub(super) struct EmulatorError {
    /// The rules' names; none if it is about what comes after all checks have passed.
    pub(super) rules: &'static [&'static str],
    /// When it is made, of the rounds that break one of them.
    pub(super) when: fn(&Round) -> bool,
    /// What the emulator does instead.
    pub(super) does: Does,
    /// The manual's section and what it says, and what the emulator does.
    pub(super) text: &'static str,
}

/// What the emulator does instead.
#[derive(Clone, Copy)]
pub(super) enum Does {
    /// Nothing: as if the rule held.
    NotCheck,
    /// It fails otherwise.
    Fail(Outcome),
    /// L2 exits otherwise.
    Exit(Outcome),
    /// L2 exits so, where Nestling does that part of the processor's work itself and otherwise.
    MayExit(Outcome),
}

/// All that are known.
pub(super) const ALL: &[EmulatorError] = &[
    EmulatorError {
        rules: &["ENTRY_MSR_LOAD_LIST_END"],
        when: ends_within_width_in_32_bits,
        does: Does::NotCheck,
        text: "SDM 3C 27.2.1.3: the last byte of the VM-entry MSR-load area must be within the physical-address width; \
               Bochs computes the list's size in 32 bits",
    },
    EmulatorError {
        rules: &["NOT_IN_SMM"],
        when: |round| !has_entry_control(round, EntryControls::DEACTIVATE_DUAL_MONITOR_TREATMENT),
        does: Does::Fail(GUEST_STATE),
        text: "SDM 3C 27.2.1.3: outside SMM \"entry to SMM\" must be 0, an invalid control; Bochs refuses it later, as \
               invalid guest state (SMIs are not blocked, or are outside SMM)",
    },
    EmulatorError {
        rules: &["GUEST_IA32E_NEEDS_PAGING"],
        when: |round| round.vmcs.read(GUEST_CR4) & Cr4::PAE.bits() != 0,
        does: Does::NotCheck,
        text: "SDM 3C 27.3.1.1: \"IA-32e mode guest\" needs CR0.PG; Bochs looks at CR4.PAE only",
    },
    EmulatorError {
        rules: &["GUEST_DEBUGCTL_RESERVED"],
        when: always,
        does: Does::NotCheck,
        text: "SDM 3C 27.3.1.1: reserved bits of IA32_DEBUGCTL must be 0; Bochs does not load it and does not check it",
    },
    EmulatorError {
        rules: &[
            "GUEST_SS_BASE_32_BIT",
            "GUEST_SS_TYPE",
            "GUEST_SS_NOT_SYSTEM",
            "GUEST_SS_PRESENT",
            "GUEST_SS_RIGHTS_RESERVED",
            "GUEST_SS_LIMIT_LOW",
            "GUEST_SS_LIMIT_HIGH",
            "GUEST_SS_RIGHTS_RESERVED_HIGH",
        ],
        when: |round| starts_in_64_bit_mode(round) && round.vmcs.read(GUEST_SS_SELECTOR) & !3 == 0,
        does: Does::NotCheck,
        text: "SDM 3C 27.3.1.2: SS is checked unless it is unusable; Bochs takes an SS with a null selector in 64-bit mode for one that is",
    },
    EmulatorError {
        rules: &["GUEST_RIP_WIDTH"],
        when: always,
        does: Does::NotCheck,
        text: "SDM 3C 27.3.1.4: RIP's bits beyond the linear-address width must be equal; Bochs does not check them",
    },
    EmulatorError {
        rules: &["GUEST_RFLAGS_VM"],
        when: |round| {
            !has_entry_control(round, EntryControls::IA32E_MODE_GUEST)
                && round.vmcs.read(GUEST_CR0) & Cr0::PE.bits() == 0
        },
        does: Does::NotCheck,
        text: "SDM 3C 27.3.1.4: RFLAGS.VM must be 0 if CR0.PE is 0; Bochs does not check that",
    },
    EmulatorError {
        rules: &["GUEST_ACTIVITY_TAKES_EVENT"],
        when: |round| round.vmcs.read(GUEST_ACTIVITY_STATE) == 1,
        does: Does::NotCheck,
        text: "SDM 3C 27.3.1.5: in HLT only certain events may be injected; Bochs lets it take all",
    },
    EmulatorError {
        rules: &["GUEST_NMI_WHILE_STI"],
        when: always,
        does: Does::Fail(GUEST_STATE),
        text: "SDM 3C 27.8: an NMI injected while STI blocks fails with qualification 3; Bochs says 0",
    },
    EmulatorError {
        rules: &["GUEST_NMI_WHILE_NMI"],
        when: always,
        does: Does::NotCheck,
        text: "SDM 3C 27.3.1.5: with \"virtual NMIs\", NMIs must not be blocked if one is injected; Bochs does not check that",
    },
    EmulatorError {
        rules: &["GUEST_PENDING_DEBUG_RESERVED"],
        // Bits 15, 13 and 11:4, and beyond 15 all but the bits that are above its 32.
        when: |round| round.vmcs.read(GUEST_PENDING_DBG_EXCEPTIONS) & 0xffff_aff0 == 0,
        does: Does::NotCheck,
        text: "SDM 3C 27.3.1.5: bits 63:32 of the pending debug exceptions must be 0; Bochs drops them unseen",
    },
    EmulatorError {
        rules: &["GUEST_PENDING_STEP_SET", "GUEST_PENDING_STEP_CLEAR"],
        when: always,
        does: Does::NotCheck,
        text: "SDM 3C 27.3.1.5: while STI or MOV SS blocks or in HLT, BS must be what RFLAGS.TF and IA32_DEBUGCTL.BTF ask \
               for; Bochs does not check that",
    },
    EmulatorError {
        rules: &[],
        when: |round| round.vmcs.read(VM_ENTRY_INTERRUPTION_INFO) == EventInfo::pending_mtf().0,
        does: Does::Exit(Outcome::Exit(ExitReason::EXCEPTION_OR_NMI, 3)),
        text: "SDM 3C 27.6.2: an injected monitor-trap-flag exit comes before the first instruction, whatever \"monitor trap \
               flag\" is; Bochs executes one instruction if it is 1, or was in an earlier entry that exited at once",
    },
    EmulatorError {
        rules: &[],
        when: has_apic_page_among_ept_tables,
        does: Does::MayExit(Outcome::Exit(ExitReason::APIC_ACCESS, 0)),
        text: "SDM 3C 30.4.6.2: a physical access to the APIC-access page, as of an EPT entry that lies there, may exit or not; \
               Bochs exits where Nestling, which reads L1's entries itself, does not",
    },
    EmulatorError {
        rules: &[],
        when: |round| {
            const ENABLED_BREAKPOINT: u64 = 1 << 12;
            const ANY: u64 = 0xf | ENABLED_BREAKPOINT | 1 << 14;
            round.vmcs.read(GUEST_ACTIVITY_STATE) == 1
                && round.vmcs.read(GUEST_PENDING_DBG_EXCEPTIONS) & ANY == ENABLED_BREAKPOINT
        },
        does: Does::MayExit(Outcome::Exit(ExitReason::PREEMPTION_TIMER, 0)),
        text: "SDM 3C 27.6.3: an enabled breakpoint (bit 12) makes a debug exception pending, which ends HLT; Bochs drops it if \
               none of bits 3:0 says which, and halts on, where Nestling ends L2's HLT itself",
    },
];

/// Whether the root of L1's EPT lies in the APIC-access page.
fn has_apic_page_among_ept_tables(round: &Round) -> bool {
    const BOTH: SecondaryBased = SecondaryBased::VIRTUALIZE_APIC_ACCESSES.union(SecondaryBased::ENABLE_EPT);
    let secondary = SecondaryBased::from_bits_retain(round.vmcs.read(SECONDARY_VM_EXEC_CONTROL));
    secondary.contains(BOTH) && round.vmcs.read(EPT_POINTER) & !0xfff == round.vmcs.read(APIC_ACCESS_ADDR)
}

const GUEST_STATE: Outcome = Outcome::EntryFailure(ExitReason::ENTRY_FAILURE_GUEST_STATE, 0);

fn always(_: &Round) -> bool {
    true
}

fn has_entry_control(round: &Round, control: EntryControls) -> bool {
    round.vmcs.read(VM_ENTRY_CONTROLS) & control.bits() != 0
}

fn starts_in_64_bit_mode(round: &Round) -> bool {
    has_entry_control(round, EntryControls::IA32E_MODE_GUEST)
        && AccessRights(round.vmcs.read(GUEST_CS_ACCESS_RIGHTS)).is_long()
}

/// Whether the entry's MSR list seems to end within the width to someone who computes its size in 32 bits.
fn ends_within_width_in_32_bits(round: &Round) -> bool {
    let size = round.vmcs.read(VM_ENTRY_MSR_LOAD_COUNT).wrapping_mul(16);
    let last = round.vmcs.read(VM_ENTRY_MSR_LOAD_ADDR).wrapping_add(size.wrapping_sub(1).into());
    last >> touched::WIDTH == 0
}
