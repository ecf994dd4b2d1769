//! A VMCS in a map.

use std::cell::RefCell;
use std::collections::BTreeMap;

use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, Encoding};

/// A VMCS in a map, which also remembers what was read. A field that was never written reads as 0.
///
/// It behaves as VMREAD and VMWRITE do: values are cut to the field's width, and the high half of a 64-bit field has an
/// encoding of its own. An encoding that the field table does not have fails the test, and so does one that the processor
/// of [`FakeVmcs::of`] lacks.
#[derive(Clone, Debug, Default)]
pub struct FakeVmcs {
    values: BTreeMap<Encoding, u64>,
    reads: RefCell<Vec<Encoding>>,
    processor: Option<Capabilities>,
}

impl FakeVmcs {
    /// All fields 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// All fields 0, on a processor with these capabilities.
    pub fn of(processor: &Capabilities) -> Self {
        Self { processor: Some(*processor), ..Self::default() }
    }

    /// The fields that were written, with their values.
    pub fn values(&self) -> impl Iterator<Item = (Encoding, u64)> + '_ {
        self.values.iter().map(|(&encoding, &value)| (encoding, value))
    }

    fn assert_exists(&self, encoding: Encoding, instruction: &str) {
        // What was written before exists.
        let exists = self.values.contains_key(&encoding.full())
            || vmcs::field::info(encoding).is_some_and(|field| self.processor.is_none_or(|it| it.has_field(field)));
        assert!(exists, "{instruction} of {encoding:?}, which does not exist");
    }

    /// A VMCS with which VM entry succeeds on the processor that [`crate::capability_msrs`] describes: a 64-bit host, and a
    /// 64-bit guest at privilege level 0 with paging on, under EPT, VPID and unrestricted guest.
    pub fn valid() -> Self {
        let mut vmcs = Self::default();
        vmcs.set_controls();
        vmcs.set_host();
        vmcs.set_guest();
        vmcs
    }

    /// The encodings read since the last [`forget_reads`](Self::forget_reads), in order.
    pub fn reads(&self) -> Vec<Encoding> {
        self.reads.borrow().clone()
    }

    /// Starts [`reads`](Self::reads) again.
    pub fn forget_reads(&self) {
        self.reads.borrow_mut().clear();
    }

    fn set_controls(&mut self) {
        let pin = PinBased::EXTERNAL_INTERRUPT_EXITING | PinBased::NMI_EXITING | PinBased::VIRTUAL_NMIS;
        self.write(PIN_BASED_VM_EXEC_CONTROL, 0x16 | pin.bits());
        let primary = PrimaryBased::HLT_EXITING
            | PrimaryBased::USE_TPR_SHADOW
            | PrimaryBased::USE_IO_BITMAPS
            | PrimaryBased::USE_MSR_BITMAPS
            | PrimaryBased::ACTIVATE_SECONDARY_CONTROLS;
        self.write(CPU_BASED_VM_EXEC_CONTROL, 0x0400_6172 | primary.bits());
        let secondary = SecondaryBased::ENABLE_EPT | SecondaryBased::ENABLE_VPID | SecondaryBased::UNRESTRICTED_GUEST;
        self.write(SECONDARY_VM_EXEC_CONTROL, secondary.bits());
        self.write(VIRTUAL_PROCESSOR_ID, 1);
        self.write(IO_BITMAP_A, 0x1_0000);
        self.write(IO_BITMAP_B, 0x1_1000);
        self.write(MSR_BITMAP, 0x1_2000);
        self.write(VIRTUAL_APIC_PAGE_ADDR, 0x1_3000);
        // Write-back, four levels.
        self.write(EPT_POINTER, 0x2_0000 | 3 << 3 | 6);

        let exit = ExitControls::HOST_ADDRESS_SPACE_SIZE
            | ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT
            | ExitControls::SAVE_IA32_EFER
            | ExitControls::LOAD_IA32_EFER
            | ExitControls::LOAD_IA32_PAT;
        self.write(VM_EXIT_CONTROLS, 0x0003_6dfb | exit.bits());
        let entry = EntryControls::IA32E_MODE_GUEST
            | EntryControls::LOAD_DEBUG_CONTROLS
            | EntryControls::LOAD_IA32_EFER
            | EntryControls::LOAD_IA32_PAT;
        self.write(VM_ENTRY_CONTROLS, 0x0000_11fb | entry.bits());
    }

    /// Gives it the host state of [`valid`](Self::valid).
    pub fn set_host(&mut self) {
        self.write(HOST_CR0, 0x8001_0033);
        self.write(HOST_CR3, 0x3_0000);
        self.write(HOST_CR4, 0x2020);
        self.write(HOST_CS_SELECTOR, 0x08);
        self.write(HOST_SS_SELECTOR, 0x10);
        self.write(HOST_TR_SELECTOR, 0x18);
        self.write(HOST_TR_BASE, 0xffff_8000_0000_1000);
        self.write(HOST_GDTR_BASE, 0xffff_8000_0000_2000);
        self.write(HOST_IDTR_BASE, 0xffff_8000_0000_3000);
        self.write(HOST_RSP, 0xffff_8000_0000_4000);
        self.write(HOST_RIP, 0xffff_8000_0000_5000);
        self.write(HOST_IA32_EFER, 0x500);
        self.write(HOST_IA32_PAT, 0x0007_0406_0007_0406);
    }

    /// Gives it the guest state of [`valid`](Self::valid), for which the VM-entry controls have to say "IA-32e mode guest".
    pub fn set_guest(&mut self) {
        self.write(GUEST_CR0, 0x8001_0033);
        self.write(GUEST_CR3, 0x1000);
        self.write(GUEST_CR4, 0x2020);
        self.write(GUEST_DR7, 0x400);
        self.write(GUEST_IA32_EFER, 0x500);
        self.write(GUEST_IA32_PAT, 0x0007_0406_0007_0406);
        self.write(GUEST_RIP, 0x10_0000);
        self.write(GUEST_RSP, 0x20_0000);
        self.write(GUEST_RFLAGS, 0x202);
        self.write(VMCS_LINK_POINTER, u64::MAX);
        self.write(GUEST_CS_SELECTOR, 0x08);
        self.write(GUEST_CS_LIMIT, 0xffff_ffff);
        self.write(GUEST_CS_ACCESS_RIGHTS, 0xa09b);
        for (selector, limit, rights) in [
            (GUEST_ES_SELECTOR, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS),
            (GUEST_SS_SELECTOR, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS),
            (GUEST_DS_SELECTOR, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS),
            (GUEST_FS_SELECTOR, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS),
            (GUEST_GS_SELECTOR, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS),
        ] {
            self.write(selector, 0x10);
            self.write(limit, 0xffff_ffff);
            self.write(rights, 0xc093);
        }
        self.write(GUEST_LDTR_ACCESS_RIGHTS, 1 << 16);
        self.write(GUEST_TR_SELECTOR, 0x18);
        self.write(GUEST_TR_LIMIT, 0x67);
        self.write(GUEST_TR_ACCESS_RIGHTS, 0x8b);
        self.write(GUEST_GDTR_LIMIT, 0x27);
        self.write(GUEST_IDTR_LIMIT, 0xfff);
    }
}

impl Access for FakeVmcs {
    fn read_raw(&self, encoding: Encoding) -> u64 {
        self.assert_exists(encoding, "VMREAD");
        self.reads.borrow_mut().push(encoding);
        let value = self.values.get(&encoding.full()).copied().unwrap_or(0);
        if encoding.is_high_half() { value >> 32 } else { value }
    }

    fn write_raw(&mut self, encoding: Encoding, value: u64) {
        self.assert_exists(encoding, "VMWRITE");
        let field = self.values.entry(encoding.full()).or_default();
        if encoding.is_high_half() {
            *field = *field & 0xffff_ffff | value << 32;
        } else {
            *field = encoding.truncate(value);
        }
    }
}
