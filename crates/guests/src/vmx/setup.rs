//! Into VMX operation. SDM 3C 24.7 "Enabling and Entering VMX Operation".

use arch::msr::Msr;
use vmcs::Capabilities;

use super::{instructions, pages};
use crate::{cpu, memory, msr};

/// CR4.VMXE.
pub const VMXE: u64 = 1 << 13;
/// IA32_FEATURE_CONTROL.
const LOCK: u64 = 1 << 0;
const VMX_OUTSIDE_SMX: u64 = 1 << 2;

/// Whether CPUID shows VMX and firmware did not lock it off.
pub fn is_offered() -> bool {
    cpu::cpuid(1, 0).ecx & 1 << 5 != 0 && msr::read(Msr::FEATURE_CONTROL) & (LOCK | VMX_OUTSIDE_SMX) != LOCK
}

/// What this machine's VMX can do.
pub fn capabilities() -> Capabilities {
    Capabilities::read(msr::read)
}

/// A page with the VMCS revision in its first word: a VMXON region or a VMCS.
pub fn region() -> u64 {
    let region = pages::take();
    memory::write(region, capabilities().basic.revision());
    region
}

/// All that VMXON asks for but the region.
pub fn prepare() {
    let feature = msr::read(Msr::FEATURE_CONTROL);
    if feature & LOCK == 0 {
        msr::write(Msr::FEATURE_CONTROL, feature | LOCK | VMX_OUTSIDE_SMX);
    }
    let capabilities = capabilities();
    cpu::write_cr0(capabilities.cr0.adjust(cpu::cr0()));
    cpu::write_cr4(capabilities.cr4.adjust(cpu::cr4() | VMXE));
}

/// Enters VMX operation; tells the VMXON region.
pub fn on() -> u64 {
    prepare();
    let region = region();
    instructions::must("VMXON", instructions::vmxon(region));
    region
}

/// Ends the guest with one line where there is no VMX, as an expectation cannot be met there.
pub fn require() {
    if !is_offered() {
        crate::println!("no VMX");
        crate::exit(0)
    }
}
