//! The seam to the machine: what one vCPU needs of the processor that runs it.

use arch::{GuestRegs, Msr};
use nested::Processor;

/// VM entry was refused before anything of the guest was loaded: the instruction failed
/// (SDM 3C 31.2 "Conventions").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum EntryRefused {
    /// VMfailInvalid: no current VMCS.
    NoCurrentVmcs,
    /// VMfailValid: the VM-instruction error field says why.
    Error,
}

/// One processor of the machine, with this vCPU's VMCS current on it.
///
/// `hw` implements it with instructions, tests with a scripted fake. All methods are called with interrupts disabled.
///
/// Its VMCSs are [`Processor`]'s: [`Processor::vmcs`] is that of the guest that ran last, L1 or L2.
pub trait Cpu: Processor {
    /// Enters the guest by VMLAUNCH or VMRESUME, and comes back at the next VM exit with its registers in `regs`.
    fn enter(&mut self, regs: &mut GuestRegs, launched: bool) -> Result<(), EntryRefused>;

    /// The value of a harmless machine MSR, or `None` where the machine has no such register.
    fn machine_msr(&self, msr: Msr) -> Option<u64>;

    /// Reads a register of the guest's that stays in the processor while L0 runs: those of SYSCALL and SWAPGS, IA32_TSC_AUX.
    fn guest_msr(&self, msr: Msr) -> Option<u64>;

    /// Loads one; false if the processor does not take the value or has no such register.
    fn set_guest_msr(&mut self, msr: Msr, value: u64) -> bool;

    /// Loads XCR0 with a value that the handler has checked.
    fn set_xcr0(&mut self, value: u64);

    /// Loads CR2: VM exits and entries leave it alone, and a page fault injected by L0 must bring its address.
    fn set_cr2(&mut self, value: u64);

    /// Reads DR6, which VM exits and entries leave alone.
    fn dr6(&self) -> u64;

    /// Loads DR6.
    fn set_dr6(&mut self, value: u64);

    /// Zeroes DR0 to DR3, which VM exits and entries leave alone too.
    fn clear_breakpoint_addresses(&mut self);

    /// Writes back and invalidates the caches, for a guest's WBINVD or INVD.
    fn write_back_caches(&mut self);

    /// Drops the combined and guest-physical translations of this vCPU's VPID.
    fn flush_vpid(&mut self);

    /// Serves an external interrupt of the machine that the exit acknowledged.
    fn machine_interrupt(&mut self, vector: u8);

    /// Takes what was sent to this processor because of mail that has just been taken, where it would do harm in a guest. True if
    /// something came.
    fn take_late_kick(&mut self) -> bool {
        false
    }

    /// Serves a non-maskable interrupt of the machine that ended the guest's run.
    fn machine_nmi(&mut self);

    /// Serves a machine check that ended the guest's run: the machine cannot be trusted any more.
    fn machine_check(&mut self);
}
