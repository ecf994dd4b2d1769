//! The host state of vmcs12 becomes L1's state in vmcs01.
//!
//! SDM 3C 28.5 "Loading Host State".

use arch::control::{Cr0, Cr4, Efer};
use arch::{GuestMemory, GuestPhys};
use vmcs::Access;
use vmcs::controls::{EntryControls, ExitControls};
use vmcs::fields::*;

use crate::current::{Vmcs01, Vmcs02};
use crate::entry::Abort;
use crate::merge::CR0_KEPT;
use crate::state::Nested;

/// What of L2's state an exit leaves to L1, because vmcs12's controls do not load it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    cr0: u64,
    efer: u64,
    pat: u64,
}

/// Access rights of CS: execute and read, accessed, code, present, 4-KiB granularity; L or D.
const CODE_64: u32 = 0xa09b;
const CODE_32: u32 = 0xc09b;
/// Of the other segments: read and write, accessed, data, present, big, 4-KiB granularity.
const DATA: u32 = 0xc093;
const UNUSABLE: u32 = 1 << 16;
/// Of TR: a busy TSS.
const TASK: u32 = 0x8b;
const TASK_LIMIT: u32 = 0x67;

impl Nested {
    /// Reads from vmcs02 what stays.
    #[inline(always)]
    pub(crate) fn carried(&self, vmcs02: &Vmcs02<'_, impl Access>) -> Carried {
        let exit = ExitControls::from_bits_retain(self.vmcs12.read(VM_EXIT_CONTROLS));
        let read = |loaded: bool, field| if loaded { 0 } else { vmcs02.read(field) };
        Carried {
            cr0: vmcs02.read(CR0_READ_SHADOW),
            efer: read(exit.contains(ExitControls::LOAD_IA32_EFER), GUEST_IA32_EFER),
            pat: read(exit.contains(ExitControls::LOAD_IA32_PAT), GUEST_IA32_PAT),
        }
    }

    /// Writes L1's state, but for what lists load. `carried` is what L2 leaves; none if L2 did not run.
    #[inline(always)]
    pub(crate) fn load_host_state(&mut self, vmcs01: &mut Vmcs01<'_, impl Access>, carried: Option<&Carried>) {
        self.load_control_registers(vmcs01, carried);
        let vmcs12 = &self.vmcs12;
        let exit = ExitControls::from_bits_retain(vmcs12.read(VM_EXIT_CONTROLS));
        let long = exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE);
        if exit.contains(ExitControls::LOAD_IA32_EFER) {
            vmcs01.write(GUEST_IA32_EFER, vmcs12.read(HOST_IA32_EFER));
        } else {
            let mut efer = Efer::from_bits_retain(carried.map_or_else(|| vmcs01.read(GUEST_IA32_EFER), |c| c.efer));
            efer.set(Efer::LMA | Efer::LME, long);
            vmcs01.write(GUEST_IA32_EFER, efer.bits());
        }
        if exit.contains(ExitControls::LOAD_IA32_PAT) {
            vmcs01.write(GUEST_IA32_PAT, vmcs12.read(HOST_IA32_PAT));
        } else if let Some(carried) = carried {
            vmcs01.write(GUEST_IA32_PAT, carried.pat);
        }
        let mut entry = self.base.entry;
        entry.set(EntryControls::IA32E_MODE_GUEST, long);
        vmcs01.write(VM_ENTRY_CONTROLS, entry.bits());
        vmcs01.write(GUEST_DR7, 0x400);
        vmcs01.write(GUEST_IA32_DEBUGCTL, 0);
        vmcs01.write(GUEST_SYSENTER_CS, vmcs12.read(HOST_IA32_SYSENTER_CS));
        vmcs01.write(GUEST_SYSENTER_ESP, vmcs12.read(HOST_IA32_SYSENTER_ESP));
        vmcs01.write(GUEST_SYSENTER_EIP, vmcs12.read(HOST_IA32_SYSENTER_EIP));
        self.load_segments(vmcs01, long);
        vmcs01.write(GUEST_RIP, vmcs12.read(HOST_RIP));
        vmcs01.write(GUEST_RSP, vmcs12.read(HOST_RSP));
        vmcs01.write(GUEST_RFLAGS, 2);
        vmcs01.write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
    }

    /// CR0 keeps CD and NW (SDM 3C 28.5.1 "Loading Host Control Registers, Debug Registers, MSRs"); the bits that L0 owns
    /// go into the read shadows.
    fn load_control_registers(&mut self, vmcs01: &mut Vmcs01<'_, impl Access>, carried: Option<&Carried>) {
        let base = &self.base;
        // Where L1 owns these bits, L2 has not changed them.
        let own = vmcs01.read(CR0_READ_SHADOW) & CR0_KEPT;
        let from_l2 = CR0_KEPT & !self.vmcs12.read(CR0_GUEST_HOST_MASK);
        let kept = carried.map_or(own, |carried| own & !from_l2 | carried.cr0 & from_l2);
        if carried.is_some() {
            self.at_exit.cr0_kept = kept;
        }
        let cr0 = self.vmcs12.read(HOST_CR0) & !CR0_KEPT | kept | Cr0::ET.bits();
        vmcs01.write(GUEST_CR0, cr0 & !base.cr0_owned | Cr0::NE.bits());
        vmcs01.write(CR0_READ_SHADOW, cr0);
        let forced = (Cr4::VMXE | Cr4::MCE).bits();
        let cr4 = self.vmcs12.read(HOST_CR4);
        vmcs01.write(GUEST_CR4, cr4 & base.cr4_offered.bits() | forced);
        vmcs01.write(CR4_READ_SHADOW, cr4);
        vmcs01.write(GUEST_CR3, self.vmcs12.read(HOST_CR3));
    }

    fn load_segments(&self, vmcs01: &mut Vmcs01<'_, impl Access>, long: bool) {
        let vmcs12 = &self.vmcs12;
        vmcs01.write(GUEST_CS_SELECTOR, vmcs12.read(HOST_CS_SELECTOR));
        vmcs01.write(GUEST_CS_BASE, 0);
        vmcs01.write(GUEST_CS_LIMIT, u32::MAX);
        vmcs01.write(GUEST_CS_ACCESS_RIGHTS, if long { CODE_64 } else { CODE_32 });
        macro_rules! data {
            ($from:ident, $base_value:expr, $selector:ident, $base:ident, $limit:ident, $rights:ident) => {
                let selector = vmcs12.read($from);
                vmcs01.write($selector, selector);
                vmcs01.write($base, $base_value);
                vmcs01.write($limit, u32::MAX);
                vmcs01.write($rights, if selector == 0 { DATA | UNUSABLE } else { DATA });
            };
        }
        let (fs, gs) = (vmcs12.read(HOST_FS_BASE), vmcs12.read(HOST_GS_BASE));
        data!(HOST_SS_SELECTOR, 0, GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS);
        data!(HOST_DS_SELECTOR, 0, GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS);
        data!(HOST_ES_SELECTOR, 0, GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS);
        data!(HOST_FS_SELECTOR, fs, GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS);
        data!(HOST_GS_SELECTOR, gs, GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS);
        vmcs01.write(GUEST_TR_SELECTOR, vmcs12.read(HOST_TR_SELECTOR));
        vmcs01.write(GUEST_TR_BASE, vmcs12.read(HOST_TR_BASE));
        vmcs01.write(GUEST_TR_LIMIT, TASK_LIMIT);
        vmcs01.write(GUEST_TR_ACCESS_RIGHTS, TASK);
        vmcs01.write(GUEST_LDTR_SELECTOR, 0);
        vmcs01.write(GUEST_LDTR_ACCESS_RIGHTS, UNUSABLE);
        vmcs01.write(GUEST_GDTR_BASE, vmcs12.read(HOST_GDTR_BASE));
        vmcs01.write(GUEST_GDTR_LIMIT, 0xffff);
        vmcs01.write(GUEST_IDTR_BASE, vmcs12.read(HOST_IDTR_BASE));
        vmcs01.write(GUEST_IDTR_LIMIT, 0xffff);
    }

    /// A 32-bit host with PAE paging has its page-directory-pointer-table entries loaded, as MOV to CR3 does; vmcs01 has EPT,
    /// with which the processor takes them from the VMCS (SDM 3C 28.5.4 "Checking and Loading Host
    /// Page-Directory-Pointer-Table Entries").
    pub(crate) fn load_host_pdptes(
        &self,
        vmcs01: &mut Vmcs01<'_, impl Access>,
        memory: &impl GuestMemory,
    ) -> Result<(), Abort> {
        if self.vmcs12.read(HOST_CR4) & Cr4::PAE.bits() == 0 {
            return Ok(());
        }
        let table = GuestPhys(self.vmcs12.read(HOST_CR3) & 0xffff_ffe0);
        for (pdpte, offset) in [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3].into_iter().zip([0, 8, 16, 24])
        {
            let entry = memory.read_u64(table.add(offset)).unwrap_or(u64::MAX);
            if !is_legal_pdpte(entry, self.base.physical_address_bits) {
                return Err(Abort::HostPdptes);
            }
            vmcs01.write(pdpte, entry);
        }
        Ok(())
    }
}

/// Whether MOV to CR3 loads this page-directory-pointer-table entry (SDM 3A 4.4.1 "PDPTE Registers").
pub(crate) const fn is_legal_pdpte(entry: u64, physical_address_bits: u8) -> bool {
    let reserved = 0x1e6 | !0 << physical_address_bits;
    entry & 1 == 0 || entry & reserved == 0
}
