//! What each field of vmcs12 means for vmcs02, and which checks it can break: one table, made once for each vCPU.

use vmcs::checks::Parts;
use vmcs::field::Group;
use vmcs::fields::*;
use vmcs::{Encoding, FieldInfo};

use crate::shadow::is_copied;
use crate::slots::{Lookup, ROOM, Slot, SlotSet};

/// How a field reaches vmcs02.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Merge {
    /// Not at all: host state, exit information, what only software looks at.
    Not,
    /// As it is.
    Plain,
    /// With others, by the function of its topic.
    Topic(Topic),
}

/// Fields of vmcs02 that are computed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Topic {
    /// The control words.
    Controls = 0,
    /// CR0, CR4, their masks and shadows.
    ControlRegisters = 1,
    /// Exception bitmap.
    Exceptions = 2,
    /// TSC offset and multiplier.
    Tsc = 3,
    /// Virtual-APIC page, APIC-access page, posted interrupts.
    Apic = 4,
    /// EPT pointer and VPID.
    AddressSpace = 5,
    /// MSR bitmap.
    MsrBitmap = 6,
    /// DR7, IA32_DEBUGCTL, IA32_PAT, IA32_EFER: loaded and saved as controls say.
    Switched = 7,
}

/// A set of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Topics(u8);

impl Topics {
    pub(crate) const ALL: Self = Self(0xff);

    pub(crate) const fn insert(&mut self, topic: Topic) {
        self.0 |= 1 << topic as u8;
    }

    pub(crate) const fn contains(self, topic: Topic) -> bool {
        self.0 >> topic as u8 & 1 != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The table.
#[derive(Clone, Debug)]
pub(crate) struct FieldUses {
    merge: [Merge; ROOM],
    parts: [Parts; ROOM],
    /// Fields that L1's processor has, by encoding.
    pub(crate) lookup: Lookup,
    /// Those whose VMWRITE only sets the value: neither read-only, nor with a copy in the shadow VMCS, nor such that L2's state has
    /// to be read back before.
    pub(crate) plain: Lookup,
    /// What of a value stays in a field: bits 15:0, 31:0 or all.
    pub(crate) masks: [u64; ROOM],
    /// Fields that L1's processor has.
    pub(crate) exists: SlotSet,
    /// Fields of the guest-state area that the processor saves at a VM exit and that are read back when somebody asks.
    pub(crate) cold: SlotSet,
    /// Fields of which the rules ask nothing but that they are canonical.
    pub(crate) canonical: SlotSet,
    /// Fields that have a copy in the shadow VMCS.
    pub(crate) copied: SlotSet,
}

/// Guest state that is read from vmcs02 at every exit to L1, since L1 looks at it nearly always.
pub(crate) const HOT: [Encoding; 4] =
    [GUEST_RIP.encoding(), GUEST_RSP.encoding(), GUEST_RFLAGS.encoding(), GUEST_INTERRUPTIBILITY_INFO.encoding()];

/// Guest state that software keeps, or that has no place in vmcs02.
const SOFTWARE: [Encoding; 5] = [
    GUEST_ACTIVITY_STATE.encoding(),
    VMCS_LINK_POINTER.encoding(),
    VMX_PREEMPTION_TIMER_VALUE.encoding(),
    GUEST_PML_INDEX.encoding(),
    GUEST_SMBASE.encoding(),
];

/// Fields that any canonical address suits, whatever the others hold.
const CANONICAL: [Encoding; 13] = [
    GUEST_LDTR_BASE.encoding(),
    GUEST_TR_BASE.encoding(),
    GUEST_GDTR_BASE.encoding(),
    GUEST_IDTR_BASE.encoding(),
    GUEST_SYSENTER_ESP.encoding(),
    GUEST_SYSENTER_EIP.encoding(),
    HOST_FS_BASE.encoding(),
    HOST_GS_BASE.encoding(),
    HOST_TR_BASE.encoding(),
    HOST_GDTR_BASE.encoding(),
    HOST_IDTR_BASE.encoding(),
    HOST_IA32_SYSENTER_ESP.encoding(),
    HOST_IA32_SYSENTER_EIP.encoding(),
];

impl FieldUses {
    /// The table for a processor of L1 that has the fields for which `exists` holds.
    pub(crate) fn new(exists: impl Fn(&FieldInfo) -> bool) -> Self {
        let exists = SlotSet::of(exists);
        let mut uses = Self {
            merge: [Merge::Not; ROOM],
            parts: [Parts::empty(); ROOM],
            lookup: Lookup::new(&exists),
            plain: Lookup::new(
                &SlotSet::of(|field| {
                    !is_copied(field.encoding)
                        && !field.is_read_only()
                        && merge(field) != Merge::Topic(Topic::ControlRegisters)
                })
                .and(&exists),
            ),
            masks: [0; ROOM],
            exists,
            cold: SlotSet::EMPTY,
            canonical: SlotSet::of(|field| CANONICAL.contains(&field.encoding)),
            copied: SlotSet::of(|field| is_copied(field.encoding)),
        };
        for slot in Slot::all().filter(|&slot| exists.contains(slot)) {
            let field = slot.info();
            uses.merge[slot.index()] = merge(field);
            uses.parts[slot.index()] = parts(field);
            uses.masks[slot.index()] = field.encoding.truncate(u64::MAX);
            let saved = field.group == Group::Guest && !SOFTWARE.contains(&field.encoding);
            if saved && !HOT.contains(&field.encoding) {
                uses.cold.insert(slot);
            }
        }
        uses
    }

    #[inline(always)]
    pub(crate) fn merge(&self, slot: Slot) -> Merge {
        self.merge[slot.index()]
    }

    #[inline(always)]
    pub(crate) fn parts(&self, slot: Slot) -> Parts {
        self.parts[slot.index()]
    }
}

fn merge(field: &FieldInfo) -> Merge {
    macro_rules! is {
        ($($field:ident)|+) => { [$($field.encoding()),+].contains(&field.encoding) };
    }
    if SOFTWARE.contains(&field.encoding) {
        return Merge::Not;
    }
    if is!(GUEST_CR0 | GUEST_CR4 | CR0_GUEST_HOST_MASK | CR4_GUEST_HOST_MASK | CR0_READ_SHADOW | CR4_READ_SHADOW) {
        return Merge::Topic(Topic::ControlRegisters);
    }
    if is!(GUEST_DR7 | GUEST_IA32_DEBUGCTL | GUEST_IA32_PAT | GUEST_IA32_EFER) {
        return Merge::Topic(Topic::Switched);
    }
    // The four entries are the processor's only with EPT; without, L0 loads them as the processor would have.
    if is!(GUEST_CR3 | GUEST_PDPTE0 | GUEST_PDPTE1 | GUEST_PDPTE2 | GUEST_PDPTE3 | EPT_POINTER | VIRTUAL_PROCESSOR_ID) {
        return Merge::Topic(Topic::AddressSpace);
    }
    if is!(PIN_BASED_VM_EXEC_CONTROL
        | CPU_BASED_VM_EXEC_CONTROL
        | SECONDARY_VM_EXEC_CONTROL
        | VM_ENTRY_CONTROLS
        | VM_EXIT_CONTROLS)
    {
        return Merge::Topic(Topic::Controls);
    }
    if is!(EXCEPTION_BITMAP) {
        return Merge::Topic(Topic::Exceptions);
    }
    if is!(TSC_OFFSET | TSC_MULTIPLIER) {
        return Merge::Topic(Topic::Tsc);
    }
    if is!(VIRTUAL_APIC_PAGE_ADDR | APIC_ACCESS_ADDR | POSTED_INTR_NV | POSTED_INTR_DESC_ADDR) {
        return Merge::Topic(Topic::Apic);
    }
    if is!(MSR_BITMAP) {
        return Merge::Topic(Topic::MsrBitmap);
    }
    let plain_controls = is!(PAGE_FAULT_ERROR_CODE_MASK
        | PAGE_FAULT_ERROR_CODE_MATCH
        | CR3_TARGET_COUNT
        | CR3_TARGET_VALUE0
        | CR3_TARGET_VALUE1
        | CR3_TARGET_VALUE2
        | CR3_TARGET_VALUE3
        | TPR_THRESHOLD
        | EOI_EXIT_BITMAP0
        | EOI_EXIT_BITMAP1
        | EOI_EXIT_BITMAP2
        | EOI_EXIT_BITMAP3
        | PLE_GAP
        | PLE_WINDOW
        | XSS_EXIT_BITMAP);
    if field.group == Group::Guest || plain_controls { Merge::Plain } else { Merge::Not }
}

/// Which checks have to be made again when the field has changed.
fn parts(field: &FieldInfo) -> Parts {
    macro_rules! is {
        ($($field:ident)|+) => { [$($field.encoding()),+].contains(&field.encoding) };
    }
    // What RIP may be is looked at in any case.
    let never = is!(GUEST_RIP
        | GUEST_RSP
        | HOST_RSP
        | HOST_IA32_SYSENTER_CS
        | GUEST_SYSENTER_CS
        | EXCEPTION_BITMAP
        | PAGE_FAULT_ERROR_CODE_MASK
        | PAGE_FAULT_ERROR_CODE_MATCH
        | TSC_OFFSET
        | CR0_GUEST_HOST_MASK
        | CR4_GUEST_HOST_MASK
        | CR0_READ_SHADOW
        | CR4_READ_SHADOW
        | CR3_TARGET_VALUE0
        | CR3_TARGET_VALUE1
        | CR3_TARGET_VALUE2
        | CR3_TARGET_VALUE3
        | EOI_EXIT_BITMAP0
        | EOI_EXIT_BITMAP1
        | EOI_EXIT_BITMAP2
        | EOI_EXIT_BITMAP3
        | GUEST_INTERRUPT_STATUS
        | GUEST_PML_INDEX
        | VMX_PREEMPTION_TIMER_VALUE
        | PLE_GAP
        | PLE_WINDOW
        | XSS_EXIT_BITMAP);
    if never {
        return Parts::empty();
    }
    let event = is!(VM_ENTRY_INTERRUPTION_INFO | VM_ENTRY_EXCEPTION_ERROR_CODE | VM_ENTRY_INSTRUCTION_LEN);
    match field.group {
        Group::ExitInformation => Parts::empty(),
        Group::Host => Parts::HOST,
        Group::Entry if event => Parts::EVENT | Parts::RIP_RFLAGS | Parts::NON_REGISTER,
        // Control words decide which rules apply; addresses and counts are judged by themselves.
        Group::Execution | Group::Exit | Group::Entry => {
            if is!(PIN_BASED_VM_EXEC_CONTROL
                | CPU_BASED_VM_EXEC_CONTROL
                | SECONDARY_VM_EXEC_CONTROL
                | VM_EXIT_CONTROLS
                | VM_ENTRY_CONTROLS)
            {
                Parts::all()
            } else {
                Parts::CONTROLS
            }
        }
        Group::Guest if is!(GUEST_CR3) => Parts::REGISTERS | Parts::PDPTES,
        Group::Guest if is!(GUEST_IA32_DEBUGCTL) => Parts::REGISTERS | Parts::NON_REGISTER,
        Group::Guest if is!(GUEST_DR7 | GUEST_IA32_PAT | GUEST_SYSENTER_ESP | GUEST_SYSENTER_EIP) => Parts::REGISTERS,
        Group::Guest if is!(GUEST_ACTIVITY_STATE | GUEST_INTERRUPTIBILITY_INFO | GUEST_PENDING_DBG_EXCEPTIONS) => {
            Parts::NON_REGISTER
        }
        Group::Guest if is!(VMCS_LINK_POINTER) => Parts::LINK_POINTER,
        Group::Guest if is!(GUEST_PDPTE0 | GUEST_PDPTE1 | GUEST_PDPTE2 | GUEST_PDPTE3) => Parts::PDPTES,
        Group::Guest if is!(GUEST_LDTR_BASE | GUEST_LDTR_LIMIT | GUEST_LDTR_ACCESS_RIGHTS) => Parts::LDTR,
        Group::Guest if is!(GUEST_TR_BASE | GUEST_TR_LIMIT | GUEST_TR_ACCESS_RIGHTS) => Parts::TR,
        Group::Guest if is!(GUEST_GDTR_BASE | GUEST_GDTR_LIMIT | GUEST_IDTR_BASE | GUEST_IDTR_LIMIT) => Parts::TABLES,
        // These two selectors are judged with the other registers'.
        Group::Guest if is!(GUEST_LDTR_SELECTOR) => Parts::LDTR | Parts::SEGMENTS,
        Group::Guest if is!(GUEST_TR_SELECTOR) => Parts::TR | Parts::SEGMENTS,
        Group::Guest
            if is!(GUEST_ES_BASE
                | GUEST_CS_BASE
                | GUEST_SS_BASE
                | GUEST_DS_BASE
                | GUEST_FS_BASE
                | GUEST_GS_BASE
                | GUEST_ES_LIMIT
                | GUEST_CS_LIMIT
                | GUEST_SS_LIMIT
                | GUEST_DS_LIMIT
                | GUEST_FS_LIMIT
                | GUEST_GS_LIMIT) =>
        {
            Parts::SEGMENTS
        }
        // CR0, CR4, EFER, RFLAGS and the segments: modes, which many rules ask for.
        Group::Guest => Parts::GUEST | Parts::EVENT,
    }
}
