//! State in the log: the current VMCS for a panic and for a failed entry, a guest's registers when L0 stops it.

use arch::Gpr;
use hw::percpu;
use hw::vmx::{self, CurrentVmcs};
use vcpu::Vcpu;
use vmcs::dump::dump_existing;
use vmcs::{Access, fields};

use crate::console;

/// Logs every field of this processor's current VMCS, if it has one.
pub(crate) fn current_vmcs() {
    let Some(region) = percpu::current_vmcs() else { return };
    let Ok(capabilities) = vmx::check() else { return };
    // SAFETY: there is a current VMCS; whoever else worked on it does not go on.
    let vmcs = unsafe { CurrentVmcs::assume() };
    defmt::error!("the VMCS at {=u64:#x} on processor {=u32}:", region.0, percpu::number());
    let mut group = None;
    dump_existing(&vmcs, &capabilities, |field, value| {
        if group != Some(field.group) {
            group = Some(field.group);
            defmt::error!("{=str}:", field.group.name());
        }
        defmt::error!("  {=str} = {=u64:#x}", field.name, value);
        console::flush();
    });
}

/// Logs where the guest was and what its registers held.
pub(crate) fn guest(vcpu: &Vcpu, vmcs: &impl Access) {
    defmt::error!(
        "vCPU {=u16}: rip {=u64:#x}, rsp {=u64:#x}, rflags {=u64:#x}, {}",
        vcpu.index(),
        vmcs.read(fields::GUEST_RIP),
        vmcs.read(fields::GUEST_RSP),
        vmcs.read(fields::GUEST_RFLAGS),
        vcpu.activity()
    );
    defmt::error!(
        "  cs {=u16:#x} base {=u64:#x} rights {=u32:#x}, ss {=u16:#x}, cr0 {=u64:#x}, cr3 {=u64:#x}, cr4 {=u64:#x}, efer {=u64:#x}",
        vmcs.read(fields::GUEST_CS_SELECTOR),
        vmcs.read(fields::GUEST_CS_BASE),
        vmcs.read(fields::GUEST_CS_ACCESS_RIGHTS),
        vmcs.read(fields::GUEST_SS_SELECTOR),
        vmcs.read(fields::GUEST_CR0),
        vmcs.read(fields::GUEST_CR3),
        vmcs.read(fields::GUEST_CR4),
        vmcs.read(fields::GUEST_IA32_EFER)
    );
    let register = |register| vcpu.regs.get(register);
    defmt::error!(
        "  rax {=u64:#x}, rbx {=u64:#x}, rcx {=u64:#x}, rdx {=u64:#x}, rsi {=u64:#x}, rdi {=u64:#x}, rbp {=u64:#x}",
        register(Gpr::Rax),
        register(Gpr::Rbx),
        register(Gpr::Rcx),
        register(Gpr::Rdx),
        register(Gpr::Rsi),
        register(Gpr::Rdi),
        register(Gpr::Rbp)
    );
    defmt::error!(
        "  r8 {=u64:#x}, r9 {=u64:#x}, r10 {=u64:#x}, r11 {=u64:#x}, r12 {=u64:#x}, r13 {=u64:#x}, r14 {=u64:#x}, r15 {=u64:#x}",
        register(Gpr::R8),
        register(Gpr::R9),
        register(Gpr::R10),
        register(Gpr::R11),
        register(Gpr::R12),
        register(Gpr::R13),
        register(Gpr::R14),
        register(Gpr::R15)
    );
}
