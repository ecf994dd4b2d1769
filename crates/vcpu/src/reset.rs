//! Register state after power-up, INIT and a start-up IPI, and the state in which a loader hands over.
//!
//! SDM 3A table 9-1 "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT".

use arch::control::{CR0_RESET, Cr0, Rflags};
use arch::segment::{AccessRights, Segment};
use arch::{Gpr, GuestPhys, GuestRegs};
use vmcs::Access;
use vmcs::fields::*;

use crate::control_registers::{cr0_real, cr4_real};
use crate::cpu::Cpu;
use crate::state::{Activity, Vcpu};

/// 32-bit protected mode without paging, flat segments: how multiboot kernels and the 32-bit Linux entry start.
/// Every register that is not named here is zero, and the IDT is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FlatStart {
    /// First instruction.
    pub eip: u32,
    /// Stack pointer.
    pub esp: u32,
    /// EAX: multiboot's magic number.
    pub eax: u32,
    /// EBX: multiboot's information.
    pub ebx: u32,
    /// ESI: Linux's boot parameters.
    pub esi: u32,
    /// CS.
    pub code: Segment,
    /// SS, DS, ES, FS and GS.
    pub data: Segment,
    /// The GDT that has both.
    pub gdt_base: GuestPhys,
    /// Its limit: bytes less one.
    pub gdt_limit: u16,
}

/// What CPUID leaf 1 shows in EAX stands in EDX after INIT.
const SIGNATURE_LEAF: u32 = 1;

impl Vcpu {
    /// The processor's reaction to INIT: registers reset, then waiting for a start-up IPI.
    pub(crate) fn init(&mut self, cpu: &mut impl Cpu) {
        self.apic.registers().init();
        // INIT leaves CD and NW alone, unlike power-up.
        let cache_bits = cpu.vmcs().read(CR0_READ_SHADOW) & (Cr0::CD | Cr0::NW).bits();
        self.reset_registers(cpu);
        cpu.vmcs().write(CR0_READ_SHADOW, cache_bits);
        self.injection = None;
        self.nmi_pending = false;
        self.extint_message = false;
        self.activity = Activity::WaitForSipi;
    }

    /// A start-up IPI: real mode at `page` × 4 KiB (SDM 3A 9.4.4 "MP Initialization Example").
    pub(crate) fn start_at_page(&mut self, cpu: &mut impl Cpu, page: u8) {
        let vmcs = cpu.vmcs();
        vmcs.write(GUEST_CS_SELECTOR, u16::from(page) << 8);
        vmcs.write(GUEST_CS_BASE, u64::from(page) << 12);
        vmcs.write(GUEST_RIP, 0);
        self.activity = Activity::Active;
    }

    /// Starts the vCPU where a boot loader would have left the bootstrap processor, its APIC as firmware does: it passes on
    /// the PIC's interrupts and the board's NMI. [`Vcpu::apic`]'s identity is to be published afterwards.
    pub fn start_flat(&mut self, cpu: &mut impl Cpu, start: FlatStart) {
        self.reset_registers(cpu);
        self.apic.registers().set_virtual_wire();
        let vmcs = cpu.vmcs();
        write_cr0(vmcs, (Cr0::PE | Cr0::ET).bits());
        write_segments(vmcs, start.code, start.data);
        vmcs.write(GUEST_GDTR_BASE, start.gdt_base.get());
        vmcs.write(GUEST_GDTR_LIMIT, u32::from(start.gdt_limit));
        vmcs.write(GUEST_IDTR_LIMIT, 0);
        vmcs.write(GUEST_LDTR_ACCESS_RIGHTS, 1 << 16);
        vmcs.write(GUEST_RIP, u64::from(start.eip));
        vmcs.write(GUEST_RSP, u64::from(start.esp));
        self.regs.set(Gpr::Rax, u64::from(start.eax));
        self.regs.set(Gpr::Rbx, u64::from(start.ebx));
        self.regs.set(Gpr::Rsi, u64::from(start.esi));
        self.regs.set(Gpr::Rdx, 0);
        self.activity = Activity::Active;
    }

    /// All registers as power-up leaves them.
    pub(crate) fn reset_registers(&mut self, cpu: &mut impl Cpu) {
        self.regs = GuestRegs::default();
        self.regs.set(Gpr::Rdx, u64::from(self.cpuid.lookup(SIGNATURE_LEAF, 0).0.eax));
        cpu.set_cr2(0);
        cpu.clear_breakpoint_addresses();
        cpu.set_dr6(0xffff_0ff0);
        let offered = self.cr4_offered;
        let vmcs = cpu.vmcs();
        write_cr0(vmcs, CR0_RESET.bits());
        vmcs.write(GUEST_CR3, 0);
        vmcs.write(GUEST_CR4, cr4_real(0, offered));
        vmcs.write(CR4_READ_SHADOW, 0);
        vmcs.write(GUEST_IA32_EFER, 0);
        vmcs.write(GUEST_DR7, 0x400);
        vmcs.write(GUEST_RFLAGS, Rflags::RESERVED_1.bits());
        vmcs.write(GUEST_RSP, 0);
        vmcs.write(GUEST_RIP, 0xfff0);
        let data = Segment { selector: 0, base: 0, limit: 0xffff, rights: AccessRights(0x93) };
        let code = Segment { selector: 0xf000, base: 0xffff_0000, rights: AccessRights(0x9b), ..data };
        write_segments(vmcs, code, data);
        vmcs.write(GUEST_LDTR_SELECTOR, 0);
        vmcs.write(GUEST_LDTR_BASE, 0);
        vmcs.write(GUEST_LDTR_LIMIT, 0xffff);
        vmcs.write(GUEST_LDTR_ACCESS_RIGHTS, 0x82);
        vmcs.write(GUEST_TR_SELECTOR, 0);
        vmcs.write(GUEST_TR_BASE, 0);
        vmcs.write(GUEST_TR_LIMIT, 0xffff);
        vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x8b);
        vmcs.write(GUEST_GDTR_BASE, 0);
        vmcs.write(GUEST_GDTR_LIMIT, 0xffff);
        vmcs.write(GUEST_IDTR_BASE, 0);
        vmcs.write(GUEST_IDTR_LIMIT, 0xffff);
        vmcs.write(GUEST_INTERRUPTIBILITY_INFO, 0);
        vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
        vmcs.write(GUEST_ACTIVITY_STATE, 0);
        vmcs.write(VM_ENTRY_INTERRUPTION_INFO, 0);
        // No longer in IA-32e mode; the processor keeps the bit up to date from here on.
        let entry = vmcs.read(VM_ENTRY_CONTROLS);
        vmcs.write(VM_ENTRY_CONTROLS, entry & !vmcs::controls::EntryControls::IA32E_MODE_GUEST.bits());
        cpu.flush_vpid();
    }
}

/// CR0 with its shadow.
fn write_cr0(vmcs: &mut impl Access, guest: u64) {
    vmcs.write(GUEST_CR0, cr0_real(guest));
    // Only the bits that L0 owns count; in VMX operation of L1's there are more of them.
    vmcs.write(CR0_READ_SHADOW, guest);
}

fn write_segments(vmcs: &mut impl Access, code: Segment, data: Segment) {
    macro_rules! write {
        ($segment:expr, $selector:ident, $base:ident, $limit:ident, $rights:ident) => {
            vmcs.write($selector, $segment.selector);
            vmcs.write($base, $segment.base);
            vmcs.write($limit, $segment.limit);
            vmcs.write($rights, $segment.rights.0);
        };
    }
    write!(code, GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS);
    write!(data, GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS);
    write!(data, GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS);
    write!(data, GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS);
    write!(data, GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS);
    write!(data, GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS);
}
