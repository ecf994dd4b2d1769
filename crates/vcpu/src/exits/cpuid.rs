//! CPUID: a lookup, and the bits that mirror CR4 and the mode.

use arch::Gpr;
use arch::control::Cr4;
use bit_field::BitField;
use vmcs::Access;
use vmcs::fields::*;

use crate::cpu::Cpu;
use crate::cpuid::Patch;
use crate::exits::Next;
use crate::skip::skip_instruction;
use crate::state::Vcpu;

#[inline(always)]
pub(super) fn handle(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    let (mut answer, patch) = vcpu.cpuid.lookup(vcpu.regs.eax(), vcpu.regs.ecx());
    match patch {
        Patch::None => {}
        Patch::Osxsave => {
            let cr4 = Cr4::from_bits_retain(cpu.vmcs().read(GUEST_CR4));
            answer.ecx.set_bit(27, cr4.contains(Cr4::OSXSAVE));
            answer.edx.set_bit(9, vcpu.apic.settings().mode() != vlapic::Mode::Disabled);
        }
        Patch::Ospke => {
            let cr4 = Cr4::from_bits_retain(cpu.vmcs().read(GUEST_CR4));
            answer.ecx.set_bit(4, cr4.contains(Cr4::PKE));
        }
        Patch::Syscall => {
            let rights = arch::segment::AccessRights(cpu.vmcs().read(GUEST_CS_ACCESS_RIGHTS));
            let long = cpu.vmcs().read(GUEST_IA32_EFER) & arch::control::Efer::LMA.bits() != 0;
            answer.edx.set_bit(11, answer.edx.get_bit(11) && long && rights.is_long());
        }
    }
    vcpu.regs.set(Gpr::Rax, u64::from(answer.eax));
    vcpu.regs.set(Gpr::Rbx, u64::from(answer.ebx));
    vcpu.regs.set(Gpr::Rcx, u64::from(answer.ecx));
    vcpu.regs.set(Gpr::Rdx, u64::from(answer.edx));
    skip_instruction(vcpu, cpu)
}
