//! Host and guest state: the program's own, for both sides.

use core::arch::asm;

use arch::msr::Msr;
use vmcs::fields::*;
use vmcs::{Access, Field, field};

use super::Current;
use crate::entry::{CODE64, DATA, TSS};
use crate::{cpu, msr};

/// Access rights: SDM 3C 25.4.1 "Guest Register State". Present, and what the descriptor says.
pub const CODE64_RIGHTS: u32 = 0xa09b;
/// A flat data segment of ring 0.
pub const DATA_RIGHTS: u32 = 0xc093;
/// A busy 64-bit task-state segment.
pub const TSS_RIGHTS: u32 = 0x8b;
/// No segment.
pub const UNUSABLE: u32 = 1 << 16;

/// One segment register's fields.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields by their names")]
pub struct Segment {
    pub selector: Field<field::W16>,
    pub base: Field<field::Natural>,
    pub limit: Field<field::W32>,
    pub rights: Field<field::W32>,
}

macro_rules! segments {
    ($($name:ident $selector:ident $base:ident $limit:ident $rights:ident;)*) => {$(
        #[doc = concat!("The guest's ", stringify!($name), ".")]
        pub const $name: Segment = Segment { selector: $selector, base: $base, limit: $limit, rights: $rights };
    )*};
}

segments! {
    ES GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_ACCESS_RIGHTS;
    CS GUEST_CS_SELECTOR GUEST_CS_BASE GUEST_CS_LIMIT GUEST_CS_ACCESS_RIGHTS;
    SS GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_ACCESS_RIGHTS;
    DS GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_ACCESS_RIGHTS;
    FS GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_ACCESS_RIGHTS;
    GS GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_ACCESS_RIGHTS;
    LDTR GUEST_LDTR_SELECTOR GUEST_LDTR_BASE GUEST_LDTR_LIMIT GUEST_LDTR_ACCESS_RIGHTS;
    TR GUEST_TR_SELECTOR GUEST_TR_BASE GUEST_TR_LIMIT GUEST_TR_ACCESS_RIGHTS;
}

impl Segment {
    /// Writes all four fields.
    pub fn write(self, selector: u16, base: u64, limit: u32, rights: u32) {
        let mut current = Current;
        current.write(self.selector, selector);
        current.write(self.base, base);
        current.write(self.limit, limit);
        current.write(self.rights, rights);
    }
}

#[repr(C, packed)]
#[derive(Default)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Base addresses of the GDT and the IDT.
fn tables() -> (u64, u64) {
    let (mut gdt, mut idt) = (Pointer::default(), Pointer::default());
    // SAFETY: stores into what is there for it.
    unsafe { asm!("sgdt [{}]", in(reg) &raw mut gdt, options(nostack)) };
    // SAFETY: as above.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut idt, options(nostack)) };
    (gdt.base, idt.base)
}

/// Writes the host state but RSP and RIP, which [`super::enter`] writes: VM exits come back to what is now.
pub fn write_host() {
    let mut current = Current;
    let (gdt, idt) = tables();
    current.write(HOST_CR0, cpu::cr0());
    current.write(HOST_CR3, cpu::cr3());
    current.write(HOST_CR4, cpu::cr4());
    current.write(HOST_CS_SELECTOR, CODE64);
    for selector in [HOST_SS_SELECTOR, HOST_DS_SELECTOR, HOST_ES_SELECTOR] {
        current.write(selector, DATA);
    }
    current.write(HOST_FS_SELECTOR, 0);
    current.write(HOST_GS_SELECTOR, 0);
    current.write(HOST_TR_SELECTOR, TSS);
    current.write(HOST_FS_BASE, msr::read(Msr::FS_BASE));
    current.write(HOST_GS_BASE, msr::read(Msr::GS_BASE));
    current.write(HOST_TR_BASE, crate::interrupts::task_state());
    current.write(HOST_GDTR_BASE, gdt);
    current.write(HOST_IDTR_BASE, idt);
    current.write(HOST_IA32_SYSENTER_CS, 0);
    current.write(HOST_IA32_SYSENTER_ESP, 0);
    current.write(HOST_IA32_SYSENTER_EIP, 0);
}

/// Writes the guest state of 64-bit code at `rip` that finds everything as it is here.
pub fn write_guest(rip: u64, rsp: u64) {
    let mut current = Current;
    let (gdt, idt) = tables();
    CS.write(CODE64, 0, 0xffff_ffff, CODE64_RIGHTS);
    for segment in [ES, SS, DS] {
        segment.write(DATA, 0, 0xffff_ffff, DATA_RIGHTS);
    }
    for segment in [FS, GS] {
        segment.write(0, 0, 0, UNUSABLE);
    }
    LDTR.write(0, 0, 0, UNUSABLE);
    TR.write(TSS, crate::interrupts::task_state(), 103, TSS_RIGHTS);
    current.write(GUEST_CR0, cpu::cr0());
    current.write(GUEST_CR3, cpu::cr3());
    current.write(GUEST_CR4, cpu::cr4());
    current.write(GUEST_DR7, 0x400);
    current.write(GUEST_GDTR_BASE, gdt);
    current.write(GUEST_GDTR_LIMIT, 0x5f);
    current.write(GUEST_IDTR_BASE, idt);
    current.write(GUEST_IDTR_LIMIT, 4095);
    current.write(GUEST_RIP, rip);
    current.write(GUEST_RSP, rsp);
    current.write(GUEST_RFLAGS, 2);
    current.write(GUEST_SYSENTER_CS, 0);
    current.write(GUEST_SYSENTER_ESP, 0);
    current.write(GUEST_SYSENTER_EIP, 0);
    current.write(GUEST_IA32_DEBUGCTL, 0);
    current.write(GUEST_ACTIVITY_STATE, 0);
    current.write(GUEST_INTERRUPTIBILITY_INFO, 0);
    current.write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
    current.write(VMCS_LINK_POINTER, u64::MAX);
}
