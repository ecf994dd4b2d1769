//! Instructions with little to them: VMCALL, HLT, XSETBV, INVD and WBINVD.

use arch::{Fault, Gpr};
use vmcs::Access;
use vmcs::fields::*;

use crate::cpu::Cpu;
use crate::exits::Next;
use crate::skip::skip_instruction;
use crate::state::{Activity, Vcpu};

/// What a VMCALL returns in RAX: no hypercall of that number. KVM guests know the value as -KVM_ENOSYS.
const NO_SUCH_HYPERCALL: u64 = 0u64.wrapping_sub(1000);

/// VMCALL is announced by the hypervisor bit and leaf of CPUID; no hypercall is defined. In VMX operation of L1's it is what it
/// is on the machine.
#[inline(always)]
pub(super) fn vmcall(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    if vcpu.nested.as_ref().is_some_and(|nested| nested.in_vmx_operation()) {
        return super::vmx::vmcall_in_root(vcpu, cpu);
    }
    vcpu.regs.set(Gpr::Rax, NO_SUCH_HYPERCALL);
    skip_instruction(vcpu, cpu)
}

/// PAUSE in a loop: the vCPU waits for something that another one does.
pub(super) fn pause(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    vcpu.spins = true;
    skip_instruction(vcpu, cpu).attending()
}

pub(super) fn hlt(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    match skip_instruction(vcpu, cpu) {
        Next::Stop => Next::Stop,
        Next::Resume | Next::Attend => {
            vcpu.activity = Activity::Halted;
            Next::Attend
        }
    }
}

/// XSETBV (SDM 2D "XSETBV—Set Extended Control Register"): the processor has checked CPL and CR4.OSXSAVE before the
/// exit; register number and value are L0's to check.
pub(super) fn xsetbv(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    let value = vcpu.regs.edx_eax();
    if vcpu.regs.ecx() != 0 || !xcr0_is_legal(value, vcpu.cpuid.xcr0_allowed()) {
        return vcpu.inject_fault(cpu, Fault::Gp(0));
    }
    cpu.set_xcr0(value);
    vcpu.xcr0 = value;
    vcpu.cpuid.xcr0_changed(value);
    skip_instruction(vcpu, cpu)
}

/// The combinations of SDM 1 13.3 "Enabling the XSAVE Feature Set and XSAVE-Enabled Features".
const fn xcr0_is_legal(value: u64, allowed: u64) -> bool {
    const X87: u64 = 1 << 0;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const AVX512: u64 = 0b111 << 5;
    let avx512 = value & AVX512;
    value & X87 != 0
        && value & !allowed == 0
        && (value & AVX == 0 || value & SSE != 0)
        && (avx512 == 0 || avx512 == AVX512 && value & AVX != 0)
}

/// WBINVD and INVD. INVD would lose what L0 and other guests have in the caches, so it writes back too.
pub(super) fn write_back(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    cpu.write_back_caches();
    skip_instruction(vcpu, cpu)
}

/// The guest's current privilege level: the DPL of SS (SDM 3C 25.4.1 "Guest Register State").
pub(crate) fn privilege_level(vmcs: &impl Access) -> u32 {
    arch::segment::AccessRights(vmcs.read(GUEST_SS_ACCESS_RIGHTS)).dpl()
}

#[cfg(test)]
mod tests {
    use super::xcr0_is_legal;

    /// Each rule of SDM 1 13.3, and that what CPUID does not offer stays off.
    #[test]
    fn xcr0_combinations() {
        let all = 0b10_1110_0111;
        for (value, allowed, legal) in [
            (1, all, true),
            (0, all, false),
            (3, all, true),
            (5, all, false),
            (7, all, true),
            (0xe7, all, true),
            (0x67, all, false),
            (0xe3, all, false),
            (0x207, all, true),
            (0x1f, all, false),
            (0xe7, 7, false),
            (1 << 63 | 1, all, false),
        ] {
            assert_eq!(xcr0_is_legal(value, allowed), legal, "{value:#x} of {allowed:#x}");
        }
    }
}
