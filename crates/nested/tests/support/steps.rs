//! Sequences of steps: what an L1 and its L2 may do.

use proptest::prelude::*;
use testkit::{FakeVmcs, NestedBench};
use vmcs::fields::*;
use vmcs::{Access, Encoding, ExitReason};

use super::{LISTS, PATS};

/// One step of L1, of L2 or of what lies around them.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// VMWRITE.
    Write(Encoding, u64),
    /// VMLAUNCH or VMRESUME, whichever fits; if it fails, what was written since the last entry is taken back.
    Enter,
    /// L2 runs, changes its state, and makes an exit that L1 gets.
    Exit(Vec<Change>, ExitReason, u64),
    /// L2 runs, changes its state, and L0 makes an exit for L1.
    Synthesized(Vec<Change>, u16),
    /// L1 reads all fields.
    ReadAll,
    /// L1 uses another VMCS, and comes back.
    Leave,
    /// L1 clears its VMCS, and comes back.
    Clear,
    /// L1 changes a register of its own that entries keep.
    Own(u8, u64),
    /// A word of L1's memory changes.
    Memory(u64, u64),
    /// Time passes.
    Wait(u32),
    /// The vCPU is saved, and goes on on another processor.
    Move,
}

/// What L2 does to its own state.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Field(Encoding, u64),
    /// Bits of CR0 that MOV to CR0 flips, where nobody owns them.
    Cr0(u64),
    Cr4(u64),
    /// Flips CR0.CD, which L0 owns, where L1 does not.
    CacheDisable,
    Efer(u64),
    Flags(u64),
    /// RVI and SVI, where L1 has the processor deliver virtual interrupts.
    VirtualInterrupts(u16),
    /// Turns paging and with it IA-32e mode off, if L1 lets it, or on again.
    Mode,
}

/// Values that make a difference in many fields.
fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => prop::sample::select(vec![0, 1, 2, 3, 8, 0x1000, 0x1_3000, 0x5_0000, 0x5_3000, 0xa_0000, 0xa_0fff, 1 << 45,
            1 << 46, u64::MAX, 0xffff_ffff, 0x7fff_ffff_ffff, 0x8000_0000_0000, 0x8000_0d0d, 0x8000_0b0e, 0x8000_0202]),
        1 => any::<u64>(),
    ]
}

fn valid_value(encoding: Encoding) -> u64 {
    FakeVmcs::valid().read_raw(encoding)
}

/// A VMWRITE: mostly one after which an entry still succeeds.
fn any_write() -> impl Strategy<Value = Step> {
    let encodings: Vec<Encoding> = FIELDS.iter().map(|field| field.encoding).collect();
    let control = |encoding: Encoding, bits: u64| {
        any::<u64>().prop_map(move |flip| {
            // Few at a time.
            let flip = flip & flip.rotate_left(17) & flip.rotate_left(31) & bits;
            Step::Write(encoding, valid_value(encoding) ^ flip)
        })
    };
    let page = |encoding: Encoding| {
        prop::sample::select(vec![0x1_3000, 0x1_4000, 0xa_0000, 0x200_0000])
            .prop_map(move |at| Step::Write(encoding, at))
    };
    let free = |encoding: Encoding| any::<u64>().prop_map(move |value| Step::Write(encoding, value));
    let pick = |encoding: Encoding, values: Vec<u64>| {
        prop::sample::select(values).prop_map(move |value| Step::Write(encoding, value))
    };
    prop_oneof![
        2 => control(PIN_BASED_VM_EXEC_CONTROL.encoding(), 0x48),
        6 => control(CPU_BASED_VM_EXEC_CONTROL.encoding(), 0xfb39_9e8c & !(1 << 17)),
        6 => control(SECONDARY_VM_EXEC_CONTROL.encoding(), 0x0255_7fff),
        4 => control(VM_EXIT_CONTROLS.encoding(), 0x007c_8204),
        4 => control(VM_ENTRY_CONTROLS.encoding(), 0x0000_c004),
        2 => free(EXCEPTION_BITMAP.encoding()),
        2 => free(TSC_OFFSET.encoding()),
        2 => pick(TSC_MULTIPLIER.encoding(), vec![1 << 48, 1 << 47, 3 << 47, 0]),
        2 => free(CR0_GUEST_HOST_MASK.encoding()),
        2 => free(CR4_GUEST_HOST_MASK.encoding()),
        2 => free(CR0_READ_SHADOW.encoding()),
        2 => free(CR4_READ_SHADOW.encoding()),
        2 => pick(GUEST_CR0.encoding(), vec![0x8001_0033, 0x8001_003b, 0xe001_0033, 0x8001_0031, 0x33]),
        2 => pick(GUEST_CR4.encoding(), vec![0x2020, 0x2060, 0x20a0, 0x2620, 0x2000]),
        2 => pick(GUEST_IA32_EFER.encoding(), vec![0x500, 0xd01, 0]),
        2 => pick(GUEST_IA32_PAT.encoding(), PATS.to_vec()),
        2 => pick(GUEST_DR7.encoding(), vec![0x400, 0x403, 0x700]),
        2 => pick(GUEST_IA32_DEBUGCTL.encoding(), vec![0, 1, 2]),
        3 => pick(GUEST_RIP.encoding(), vec![0x1000, 0xffff_8000_0000_0000, 0x1_0000_0000]),
        2 => pick(GUEST_RFLAGS.encoding(), vec![2, 0x202, 0x2_0202, 0x302]),
        2 => pick(GUEST_CS_ACCESS_RIGHTS.encoding(), vec![0xa09b, 0xc09b]),
        2 => pick(GUEST_DS_SELECTOR.encoding(), vec![0, 0x10, 0x20]),
        1 => pick(GUEST_ACTIVITY_STATE.encoding(), vec![0, 1, 3]),
        1 => pick(GUEST_INTERRUPTIBILITY_INFO.encoding(), vec![0, 1, 2, 8]),
        1 => pick(VM_ENTRY_INTERRUPTION_INFO.encoding(), vec![0, 0x8000_0b0d, 0x8000_0202, 0x8000_0030, 0x8000_0603]),
        1 => pick(VM_ENTRY_INSTRUCTION_LEN.encoding(), vec![0, 1, 3, 15, 16]),
        2 => pick(VM_ENTRY_MSR_LOAD_COUNT.encoding(), vec![0, 1, 2, 3]),
        1 => pick(VM_ENTRY_MSR_LOAD_ADDR.encoding(), vec![LISTS, LISTS + 0x20]),
        1 => pick(VM_EXIT_MSR_LOAD_COUNT.encoding(), vec![0, 1, 2]),
        1 => pick(VM_EXIT_MSR_LOAD_ADDR.encoding(), vec![LISTS]),
        1 => pick(VMCS_LINK_POINTER.encoding(), vec![u64::MAX, NestedBench::SHADOW, 0x1000]),
        2 => page(VIRTUAL_APIC_PAGE_ADDR.encoding()),
        2 => page(APIC_ACCESS_ADDR.encoding()),
        2 => page(MSR_BITMAP.encoding()),
        1 => pick(TPR_THRESHOLD.encoding(), vec![0, 1, 5]),
        3 => pick(SECONDARY_VM_EXEC_CONTROL.encoding(), vec![0xa2, 0x2a2, 0x0, 0x3b2]),
        1 => pick(VIRTUAL_PROCESSOR_ID.encoding(), vec![1, 2, 0]),
        1 => pick(EPT_POINTER.encoding(), vec![0x2_001e, 0x2_005e, 0x2_101e, 0x2_0000]),
        1 => pick(VMX_PREEMPTION_TIMER_VALUE.encoding(), vec![0, 5, 0xffff_ffff]),
        8 => (prop::sample::select(encodings.clone()), any_value()).prop_map(|(field, value)| Step::Write(field, value)),
        4 => (prop::sample::select(encodings), 0..64u32)
            .prop_map(|(field, bit)| Step::Write(field, valid_value(field) ^ 1 << bit)),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let free =
        |encoding: Encoding, mask: u64| any::<u64>().prop_map(move |value| Change::Field(encoding, value & mask));
    prop_oneof![
        free(GUEST_RSP.encoding(), u64::MAX),
        free(GUEST_RIP.encoding(), 0x7fff_ffff),
        free(GUEST_SYSENTER_EIP.encoding(), 0x7fff_ffff),
        free(GUEST_FS_BASE.encoding(), 0xffff_ffff),
        free(GUEST_CR3.encoding(), 0xff_f000),
        free(GUEST_DS_SELECTOR.encoding(), 0xfff8),
        free(GUEST_IA32_DEBUGCTL.encoding(), 1),
        any::<u8>().prop_map(|value| Change::Field(GUEST_DR7.encoding(), 0x400 | u64::from(value))),
        prop::sample::select(PATS.to_vec()).prop_map(|value| Change::Field(GUEST_IA32_PAT.encoding(), value)),
        prop::sample::select(vec![0, 8]).prop_map(|value| Change::Field(GUEST_INTERRUPTIBILITY_INFO.encoding(), value)),
        any::<u64>().prop_map(Change::Cr0),
        any::<u64>().prop_map(Change::Cr4),
        any::<u64>().prop_map(Change::Efer),
        any::<u64>().prop_map(Change::Flags),
        any::<u16>().prop_map(Change::VirtualInterrupts),
        Just(Change::CacheDisable),
        Just(Change::Mode),
    ]
}

pub(crate) fn any_step() -> impl Strategy<Value = Step> {
    let changes = || prop::collection::vec(any_change(), 0..5);
    let reason = prop::sample::select(vec![
        ExitReason::CPUID,
        ExitReason::HLT,
        ExitReason::EPT_VIOLATION,
        ExitReason::EXCEPTION_OR_NMI,
        ExitReason::WRMSR,
    ]);
    let synthesized = prop::sample::select(vec![1u16, 52, 3, 48]);
    prop_oneof![
        8 => any_write(),
        8 => Just(Step::Enter),
        6 => (changes(), reason, any::<u64>()).prop_map(|(changes, reason, info)| Step::Exit(changes, reason, info)),
        2 => (changes(), synthesized).prop_map(|(changes, reason)| Step::Synthesized(changes, reason)),
        1 => Just(Step::ReadAll),
        1 => Just(Step::Leave),
        1 => Just(Step::Clear),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(which, value)| Step::Own(which, value)),
        1 => prop::sample::select(vec![(0x1_3080, 0x10), (0x1_3080, 0xf0), (0x1_2000, 0), (0x1_2000, u64::MAX), (0x1000, 0)])
            .prop_map(|(at, value)| Step::Memory(at, value)),
        1 => (0..10_000u32).prop_map(Step::Wait),
        3 => Just(Step::Move),
    ]
}
