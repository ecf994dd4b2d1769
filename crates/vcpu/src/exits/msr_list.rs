//! L1's MSRs as the lists of VM entry and VM exit load and store them: as RDMSR and WRMSR at privilege level 0 would.

use arch::{Linear, Msr};
use nested::{Msrs, NoSuchMsr};
use vmcs::Access;
use vmcs::fields::*;

use crate::cpu::Cpu;
use crate::exits::msr::{read_value, write_value};
use crate::state::Vcpu;
use crate::world::World;

/// The MSRs of `vcpu`.
pub(super) struct ListedMsrs<'a, W> {
    pub(super) vcpu: &'a mut Vcpu,
    pub(super) world: &'a W,
}

/// IA32_EFER: SCE, LME, LMA and NXE.
const EFER_DEFINED: u64 = 0xd01;
const EFER_LMA: u64 = 1 << 10;
const EFER_LME: u64 = 1 << 8;

impl<C: Cpu, W: World> Msrs<C> for ListedMsrs<'_, W> {
    fn load(&mut self, cpu: &mut C, msr: Msr) -> Result<u64, NoSuchMsr> {
        let vmcs = cpu.vmcs();
        Ok(match msr {
            Msr::SYSENTER_CS => vmcs.read(GUEST_SYSENTER_CS).into(),
            Msr::SYSENTER_ESP => vmcs.read(GUEST_SYSENTER_ESP),
            Msr::SYSENTER_EIP => vmcs.read(GUEST_SYSENTER_EIP),
            Msr::PAT => vmcs.read(GUEST_IA32_PAT),
            Msr::EFER => vmcs.read(GUEST_IA32_EFER),
            Msr::FS_BASE => vmcs.read(GUEST_FS_BASE),
            Msr::GS_BASE => vmcs.read(GUEST_GS_BASE),
            // L1's: what vmcs12 adds to it is for L2's instructions.
            Msr::TSC => cpu.tsc().wrapping_add(self.vcpu.tsc_offset),
            _ => match cpu.guest_msr(msr) {
                Some(value) => value,
                None => read_value(self.vcpu, cpu, msr).map_err(|_| NoSuchMsr)?,
            },
        })
    }

    fn store(&mut self, cpu: &mut C, msr: Msr, value: u64) -> Result<(), NoSuchMsr> {
        let vmcs = cpu.vmcs();
        let canonical = Linear(value).is_canonical();
        match msr {
            // The register has 32 bits; what is above is ignored.
            Msr::SYSENTER_CS => vmcs.write(GUEST_SYSENTER_CS, (value & 0xffff_ffff) as u32),
            Msr::SYSENTER_ESP if canonical => vmcs.write(GUEST_SYSENTER_ESP, value),
            Msr::SYSENTER_EIP if canonical => vmcs.write(GUEST_SYSENTER_EIP, value),
            Msr::PAT if value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7)) => {
                vmcs.write(GUEST_IA32_PAT, value);
            }
            // LMA is the processor's, and LME does not change while paging is on.
            Msr::EFER if value & !EFER_DEFINED == 0 => {
                let now = vmcs.read(GUEST_IA32_EFER);
                if (value ^ now) & EFER_LME != 0 && vmcs.read(GUEST_CR0) >> 31 & 1 != 0 {
                    return Err(NoSuchMsr);
                }
                vmcs.write(GUEST_IA32_EFER, value & !EFER_LMA | now & EFER_LMA);
            }
            Msr::SYSENTER_ESP | Msr::SYSENTER_EIP | Msr::PAT | Msr::EFER | Msr::FS_BASE | Msr::GS_BASE => {
                return Err(NoSuchMsr);
            }
            _ if cpu.guest_msr(msr).is_some() => {
                if !cpu.set_guest_msr(msr, value) {
                    return Err(NoSuchMsr);
                }
            }
            _ => write_value(self.vcpu, cpu, self.world, msr, value).map_err(|_| NoSuchMsr)?,
        }
        Ok(())
    }
}
