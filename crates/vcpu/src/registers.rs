//! A vCPU's registers as the emulator asks for them: general ones from memory, the rest from the VMCS.

use arch::control::{Cr0, Cr4, Efer, Rflags};
use arch::segment::{AccessRights, Segment, SegmentName};
use arch::{Gpr, GuestRegs};
use emulate::{CodeSize, Kernel, Paging, Registers};
use vmcs::Access;
use vmcs::fields::*;

use crate::cpuid::CpuidTable;

/// The registers of the vCPU whose VMCS is current.
pub(crate) struct VmcsRegisters<'a, V> {
    pub(crate) vmcs: &'a mut V,
    pub(crate) regs: &'a mut GuestRegs,
    /// RIP, as the instruction leaves it. It reaches the VMCS by [`crate::skip::finish_at`], with what the end of an
    /// instruction means.
    pub(crate) rip: u64,
    physical_width: u8,
    gigabyte_pages: bool,
}

impl<'a, V: Access> VmcsRegisters<'a, V> {
    /// The registers of `regs` and `vmcs`, on a processor with this CPUID; RIP is `rip`.
    #[inline(always)]
    pub(crate) fn new(vmcs: &'a mut V, regs: &'a mut GuestRegs, cpuid: &CpuidTable, rip: u64) -> Self {
        let (physical_width, gigabyte_pages) = (cpuid.physical_address_bits(), cpuid.has_gigabyte_pages());
        Self { vmcs, regs, rip, physical_width, gigabyte_pages }
    }
}

impl<V: Access> Registers for VmcsRegisters<'_, V> {
    #[inline]
    fn gpr(&self, register: Gpr) -> u64 {
        if register == Gpr::Rsp { self.vmcs.read(GUEST_RSP) } else { self.regs.get(register) }
    }

    #[inline]
    fn set_gpr(&mut self, register: Gpr, value: u64) {
        if register == Gpr::Rsp { self.vmcs.write(GUEST_RSP, value) } else { self.regs.set(register, value) }
    }

    #[inline]
    fn rip(&self) -> u64 {
        self.rip
    }

    #[inline]
    fn set_rip(&mut self, value: u64) {
        self.rip = value;
    }

    fn rflags(&self) -> Rflags {
        Rflags::from_bits_retain(self.vmcs.read(GUEST_RFLAGS))
    }

    fn set_rflags(&mut self, value: Rflags) {
        self.vmcs.write(GUEST_RFLAGS, value.bits());
    }

    fn segment(&self, name: SegmentName) -> Segment {
        macro_rules! segment {
            ($selector:ident, $base:ident, $limit:ident, $rights:ident) => {
                Segment {
                    selector: self.vmcs.read($selector),
                    base: self.vmcs.read($base),
                    limit: self.vmcs.read($limit),
                    rights: AccessRights(self.vmcs.read($rights)),
                }
            };
        }
        match name {
            SegmentName::Es => segment!(GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS),
            SegmentName::Cs => segment!(GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS),
            SegmentName::Ss => segment!(GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS),
            SegmentName::Ds => segment!(GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS),
            SegmentName::Fs => segment!(GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS),
            SegmentName::Gs => segment!(GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS),
        }
    }

    #[inline]
    fn code_size(&self) -> CodeSize {
        let long = self.vmcs.read(GUEST_IA32_EFER) & Efer::LMA.bits() != 0;
        CodeSize::of(AccessRights(self.vmcs.read(GUEST_CS_ACCESS_RIGHTS)), long)
    }

    #[inline]
    fn kernel(&self) -> Option<Kernel> {
        kernel(self.vmcs, self.physical_width)
    }

    fn paging(&self) -> Paging {
        let cr0 = Cr0::from_bits_retain(self.vmcs.read(GUEST_CR0));
        let cr4 = Cr4::from_bits_retain(self.vmcs.read(GUEST_CR4));
        let efer = Efer::from_bits_retain(self.vmcs.read(GUEST_IA32_EFER));
        let uses_pdptes = cr0.contains(Cr0::PG) && cr4.contains(Cr4::PAE) && !efer.contains(Efer::LMA);
        let pdptes =
            uses_pdptes.then(|| [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3].map(|f| self.vmcs.read(f)));
        let rights = AccessRights(self.vmcs.read(GUEST_SS_ACCESS_RIGHTS));
        Paging {
            cr0,
            cr3: self.vmcs.read(GUEST_CR3),
            cr4,
            efer,
            pdptes,
            cpl: (rights.dpl() & 3) as u8,
            ac: self.rflags().contains(Rflags::AC),
            physical_width: self.physical_width,
            gigabyte_pages: self.gigabyte_pages,
        }
    }
}

/// The paging of the guest whose VMCS is current, if it is a 64-bit kernel.
#[inline(always)]
pub(crate) fn kernel(vmcs: &impl Access, physical_width: u8) -> Option<Kernel> {
    let efer = Efer::from_bits_retain(vmcs.read(GUEST_IA32_EFER));
    let is_64_bit = efer.contains(Efer::LMA) && AccessRights(vmcs.read(GUEST_CS_ACCESS_RIGHTS)).is_long();
    let is_kernel = AccessRights(vmcs.read(GUEST_SS_ACCESS_RIGHTS)).dpl() == 0;
    let cr4 = Cr4::from_bits_retain(vmcs.read(GUEST_CR4));
    if !is_64_bit || !is_kernel || cr4.contains(Cr4::LA57) {
        return None;
    }
    let execute_disable = if efer.contains(Efer::NXE) { 0 } else { 1 << 63 };
    let beyond_width = 0x000f_ffff_ffff_f000 & !0 << physical_width;
    Some(Kernel { cr3: vmcs.read(GUEST_CR3), reserved: execute_disable | beyond_width })
}
