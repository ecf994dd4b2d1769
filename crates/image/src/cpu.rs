//! This processor, as a vCPU needs it.

use arch::{GuestRegs, HostPhys, Msr};
use ept::{Pool, Shadows};
use hw::vmx::{self, CurrentVmcs, VmFail};
use nested::Which;
use vcpu::{Cpu, EntryRefused};

use crate::tables::TableFrames;

/// The EPT02s of one vCPU.
pub(crate) type Tables = Pool<TableFrames>;

/// The VMCSs of one vCPU, and what else of the machine is its own.
pub(crate) struct Own {
    /// vmcs01.
    pub vmcs01: HostPhys,
    /// vmcs02; vmcs01 again where L1 has no VMX.
    pub vmcs02: HostPhys,
    /// The shadow VMCS; vmcs01 again where there is none.
    pub shadow: HostPhys,
    /// With which registers vmcs01 and vmcs02 were entered since they were last cleared: [`vmx::entered`].
    pub entered: [u64; 2],
    /// What tags L1's cached translations.
    pub vpid: u16,
    /// What tags L2's.
    pub vpid02: u16,
    /// The EPT02s, where L1 has VMX.
    pub ept02: Option<Shadows<Tables>>,
}

/// The processor that executes this, with one vCPU's VMCS current on it.
pub(crate) struct Processor<'a> {
    vmcs: CurrentVmcs,
    own: &'a mut Own,
    current: Which,
}

impl<'a> Processor<'a> {
    /// This processor, with one of the VMCSs of `own` current, not the shadow VMCS.
    pub(crate) const fn new(vmcs: CurrentVmcs, own: &'a mut Own, current: Which) -> Self {
        Self { vmcs, own, current }
    }
}

impl Processor<'_> {
    /// Another VMCS becomes the current one: it is kept how this one was entered.
    #[inline(always)]
    fn leave(&mut self, next: Which) {
        self.own.entered[self.current as usize] = vmx::entered();
        self.current = next;
    }
}

impl Own {
    /// A VMCS, and with which registers it was entered.
    #[inline(always)]
    const fn with(&self, which: Which) -> (&HostPhys, u64) {
        let region = match which {
            Which::Vmcs01 => &self.vmcs01,
            Which::Vmcs02 => &self.vmcs02,
        };
        (region, self.entered[which as usize])
    }
}

#[cold]
#[inline(never)]
#[expect(clippy::panic, reason = "a bug of L0: the regions were prepared when the vCPU was made")]
fn no_vmcs(_: VmFail) -> CurrentVmcs {
    panic!("VMPTRLD or VMCLEAR of a VMCS that was prepared failed")
}

impl nested::Processor for Processor<'_> {
    type Vmcs = CurrentVmcs;
    type Tables = Tables;

    #[inline(always)]
    fn vmcs(&mut self) -> &mut CurrentVmcs {
        &mut self.vmcs
    }

    #[inline(always)]
    fn make_current(&mut self, which: Which) {
        self.leave(which);
        let (region, entered) = self.own.with(which);
        // SAFETY: the region was made for this vCPU, has the revision and was cleared; `self.vmcs` is given up for it. It is what
        // was said of this VMCS on this processor, where it has stayed active.
        self.vmcs = unsafe { vmx::load_entered(region, entered) }.unwrap_or_else(no_vmcs);
    }

    #[inline(always)]
    fn with_shadow(&mut self, then: Which, work: impl FnOnce(&mut CurrentVmcs)) {
        self.leave(then);
        let (region, entered) = self.own.with(then);
        // SAFETY: as above of both; nobody has another value for the shadow VMCS.
        self.vmcs = unsafe { vmx::visit(&self.own.shadow, region, entered, work) }.unwrap_or_else(no_vmcs);
    }

    #[inline(always)]
    fn tsc(&self) -> u64 {
        hw::tsc::now()
    }

    fn flush_l1(&mut self) {
        // Where the machine has no VPIDs, every entry and exit flushes anyway.
        let _ = vmx::invvpid_single(self.own.vpid);
    }

    fn flush_l2(&mut self) {
        let _ = vmx::invvpid_single(self.own.vpid02);
    }

    fn flush_l2_address(&mut self, linear: u64) {
        let _ = vmx::invvpid_address(self.own.vpid02, linear);
    }

    #[expect(clippy::panic, reason = "a bug of L0: only a vCPU with VMX asks")]
    fn ept02(&mut self) -> &mut Shadows<Tables> {
        match &mut self.own.ept02 {
            Some(ept02) => ept02,
            None => panic!("a vCPU without VMX has no tables for an L2"),
        }
    }

    fn flush_ept(&mut self, eptp: u64) {
        let _ = vmx::invept_single(eptp);
    }
}

impl Cpu for Processor<'_> {
    #[inline(always)]
    fn enter(&mut self, regs: &mut GuestRegs, launched: bool) -> Result<(), EntryRefused> {
        // SAFETY: `self.vmcs` says that a VMCS is current; the image wrote its host state on this processor and gave its
        // guest an EPT that maps the guest's own memory only. L0 runs with interrupts disabled.
        unsafe { hw::enter::enter(regs, launched) }.map_err(|fail| match fail {
            VmFail::Invalid => EntryRefused::NoCurrentVmcs,
            VmFail::Valid => EntryRefused::Error,
        })
    }

    fn guest_msr(&self, msr: Msr) -> Option<u64> {
        if hw::guest_state::KEPT_IN_PROCESSOR.contains(&msr) { hw::msr::try_read(msr).ok() } else { None }
    }

    fn set_guest_msr(&mut self, msr: Msr, value: u64) -> bool {
        // SAFETY: the registers are the running guest's, and L0 uses none of them.
        hw::guest_state::KEPT_IN_PROCESSOR.contains(&msr) && unsafe { hw::msr::try_write(msr, value) }.is_ok()
    }

    fn machine_msr(&self, msr: Msr) -> Option<u64> {
        hw::msr::try_read(msr).ok()
    }

    fn set_xcr0(&mut self, value: u64) {
        // SAFETY: bring-up set CR4.OSXSAVE where CPUID shows XSAVE, and only then a guest gets this far; the handler has
        // checked the value against what this machine's CPUID offers. L0 keeps nothing in those registers.
        unsafe { hw::control::write_xcr0(value) };
    }

    fn set_cr2(&mut self, value: u64) {
        // SAFETY: L0 takes no page faults, so CR2 is the guest's.
        unsafe { hw::control::write_cr2(value) };
    }

    fn dr6(&self) -> u64 {
        hw::control::dr6()
    }

    fn set_dr6(&mut self, value: u64) {
        // SAFETY: L0 uses no debug registers; the handler sets no reserved bit.
        unsafe { hw::control::write_dr6(value) };
    }

    fn clear_breakpoint_addresses(&mut self) {
        hw::guest_state::clear_breakpoint_addresses();
    }

    fn write_back_caches(&mut self) {
        hw::control::write_back_caches();
    }

    fn flush_vpid(&mut self) {
        // Where the machine has no VPIDs, every entry and exit flushes anyway.
        let _ = vmx::invvpid_single(self.own.vpid);
    }

    #[inline(always)]
    fn machine_interrupt(&mut self, vector: u8) {
        hw::interrupts::dispatch(vector);
    }

    fn take_late_kick(&mut self) -> bool {
        hw::apic::take_late()
    }

    fn machine_nmi(&mut self) {
        hw::interrupts::serve_nmi();
    }

    #[expect(clippy::panic, reason = "the machine itself says that it is broken")]
    fn machine_check(&mut self) {
        panic!("machine check while a guest ran");
    }
}
