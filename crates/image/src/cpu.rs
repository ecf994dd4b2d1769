//! This processor, as a vCPU needs it.

use arch::{GuestRegs, Msr};
use hw::vmx::{CurrentVmcs, VmFail};
use vcpu::{Cpu, EntryRefused};

/// The processor that executes this, with one vCPU's VMCS current on it.
pub(crate) struct Processor {
    vmcs: CurrentVmcs,
    vpid: u16,
}

impl Processor {
    /// This processor, with `vmcs` current, whose guest is tagged `vpid`.
    pub(crate) const fn new(vmcs: CurrentVmcs, vpid: u16) -> Self {
        Self { vmcs, vpid }
    }
}

impl Cpu for Processor {
    type Vmcs = CurrentVmcs;

    #[inline(always)]
    fn vmcs(&mut self) -> &mut CurrentVmcs {
        &mut self.vmcs
    }

    #[inline(always)]
    fn enter(&mut self, regs: &mut GuestRegs, launched: bool) -> Result<(), EntryRefused> {
        // SAFETY: `self.vmcs` says that a VMCS is current; the image wrote its host state on this processor and gave its
        // guest an EPT that maps the guest's own memory only. L0 runs with interrupts disabled.
        unsafe { hw::enter::enter(regs, launched) }.map_err(|fail| match fail {
            VmFail::Invalid => EntryRefused::NoCurrentVmcs,
            VmFail::Valid => EntryRefused::Error,
        })
    }

    #[inline(always)]
    fn tsc(&self) -> u64 {
        hw::tsc::now()
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
        let _ = hw::vmx::invvpid_single(self.vpid);
    }

    #[inline(always)]
    fn machine_interrupt(&mut self, vector: u8) {
        hw::interrupts::dispatch(vector);
    }

    fn machine_nmi(&mut self) {
        hw::interrupts::count_nmi();
    }

    #[expect(clippy::panic, reason = "the machine itself says that it is broken")]
    fn machine_check(&mut self) {
        panic!("machine check while a guest ran");
    }
}
