//! VMX root operation and its instructions, each with its flags captured in its own `asm!` block.
//!
//! SDM 3C, chapters "Introduction to Virtual Machine Extensions" and "VMX Instruction Reference".

use core::arch::asm;
use core::sync::atomic::Ordering;

use arch::control::{Cr0, Cr4};
use arch::{HostPhys, Msr};
use vmcs::capabilities::Capabilities;
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::field::{Area, Width, is_common};
use vmcs::fields::{
    HOST_CR0, HOST_CR3, HOST_CR4, HOST_CS_SELECTOR, HOST_DS_SELECTOR, HOST_ES_SELECTOR, HOST_FS_BASE, HOST_FS_SELECTOR,
    HOST_GDTR_BASE, HOST_GS_BASE, HOST_GS_SELECTOR, HOST_IA32_EFER, HOST_IA32_PAT, HOST_IA32_SYSENTER_CS,
    HOST_IA32_SYSENTER_EIP, HOST_IA32_SYSENTER_ESP, HOST_IDTR_BASE, HOST_SS_SELECTOR, HOST_TR_BASE, HOST_TR_SELECTOR,
    VM_INSTRUCTION_ERROR,
};
use vmcs::{Access, Encoding, Field, InstructionError};

use crate::{control, cpuid, gdt, idt, msr, percpu, physmem};

pub use crate::invalidate::*;

/// IA32_FEATURE_CONTROL (SDM 3C, "Enabling and Entering VMX Operation").
const FEATURE_LOCK: u64 = 1 << 0;
const FEATURE_VMX: u64 = 1 << 2;

/// A VMX instruction failed (SDM 3C, "Conventions").
#[derive(Clone, Copy, Debug, PartialEq, Eq, defmt::Format)]
pub enum VmFail {
    /// VMfailInvalid: there was no current VMCS.
    Invalid,
    /// VMfailValid: [`instruction_error`] says why.
    Valid,
}

/// Why this processor cannot run guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// CPUID shows no VMX.
    NoVmx,
    /// Firmware locked VMX off.
    LockedOff,
    /// No extended page tables.
    NoEpt,
    /// No guests in real mode or without paging.
    NoUnrestrictedGuest,
    /// CR0 or CR4 as L0 needs it is not allowed in VMX operation.
    ControlRegisters,
    /// VMXON failed.
    VmxonFailed,
}

impl Refusal {
    /// One sentence for the user.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NoVmx => {
                "this processor has no VMX: Nestling needs an Intel processor with VT-x, or an emulator that has it"
            }
            Self::LockedOff => {
                "the firmware has locked VMX off: enable Intel virtualization technology (VT-x) in its setup"
            }
            Self::NoEpt => "this processor's VMX has no extended page tables (EPT): Nestling needs a newer processor",
            Self::NoUnrestrictedGuest => {
                "this processor's VMX has no unrestricted guests: Nestling needs a newer processor"
            }
            Self::ControlRegisters => "this processor's VMX does not allow the CR0 or CR4 that Nestling needs",
            Self::VmxonFailed => "VMXON failed on this processor although it reports VMX as enabled",
        }
    }
}

/// What can be said about this processor before anything is changed: that it has VMX, not locked off, with EPT and
/// unrestricted guests. Returns its capabilities.
pub fn check() -> Result<Capabilities, Refusal> {
    if !cpuid::has_vmx() {
        return Err(Refusal::NoVmx);
    }
    // SAFETY: a processor with VMX has the register.
    let feature = unsafe { msr::read(Msr::FEATURE_CONTROL) };
    if feature & (FEATURE_LOCK | FEATURE_VMX) == FEATURE_LOCK {
        return Err(Refusal::LockedOff);
    }
    // SAFETY: it asks only for capability MSRs that exist on a processor with VMX and what was read before.
    let capabilities = Capabilities::read(|msr| unsafe { msr::read(msr) });
    if !capabilities.primary.supports(PrimaryBased::ACTIVATE_SECONDARY_CONTROLS)
        || !capabilities.secondary.supports(SecondaryBased::ENABLE_EPT)
    {
        return Err(Refusal::NoEpt);
    }
    if !capabilities.secondary.supports(SecondaryBased::UNRESTRICTED_GUEST) {
        return Err(Refusal::NoUnrestrictedGuest);
    }
    Ok(capabilities)
}

/// Enters VMX root operation on this processor, with `region` as its VMXON region.
///
/// # Safety
/// `region` is a frame of RAM that the direct map shows and that is the processor's from now on. The processor is not in
/// VMX operation.
pub unsafe fn on(region: HostPhys) -> Result<Capabilities, Refusal> {
    let capabilities = check()?;
    // SAFETY: a processor with VMX has the register.
    let feature = unsafe { msr::read(Msr::FEATURE_CONTROL) };
    if feature & FEATURE_LOCK == 0 {
        // SAFETY: firmware left the choice to us: VMX outside SMX.
        unsafe { msr::write(Msr::FEATURE_CONTROL, feature | FEATURE_LOCK | FEATURE_VMX) };
    }
    // MCE: without it a machine check would shut the processor down. SMEP and the like guard user pages, which L0 has none of.
    let mut cr4 = control::cr4_bits() | (Cr4::VMXE | Cr4::MCE).bits();
    if cpuid::has_xsave() {
        cr4 |= Cr4::OSXSAVE.bits();
    }
    let cr4 = capabilities.cr4.adjust(cr4);
    let cr0 = capabilities.cr0.adjust((Cr0::from_bits_retain(control::cr0_bits()) - Cr0::TS - Cr0::EM).bits());
    if !capabilities.cr0.permits(cr0) || !capabilities.cr4.permits(cr4) {
        return Err(Refusal::ControlRegisters);
    }
    // SAFETY: paging, protection and write protection stay as they are; floating point becomes usable for XSAVE.
    unsafe { control::write_cr0_bits(cr0) };
    // SAFETY: adds VMX, machine checks and XSAVE to what is in force.
    unsafe { control::write_cr4_bits(cr4) };
    // SAFETY: the caller's promise.
    unsafe { write_revision(region, capabilities.basic.revision()) };
    let failed: u8;
    // SAFETY: the region is the processor's for good, and all that SDM 3C, "VMXON" asks for was checked.
    unsafe {
        asm!("vmxon [{}]", "setbe {}", in(reg) &region.0, lateout(reg_byte) failed, options(nostack));
    }
    if failed != 0 {
        return Err(Refusal::VmxonFailed);
    }
    percpu::this().vmxon_region.store(region.0, Ordering::Relaxed);
    Ok(capabilities)
}

/// Leaves VMX operation on this processor; does nothing outside it.
///
/// # Safety
/// No guest runs on it any more, and every VMCS that was active on it has been cleared.
pub unsafe fn off() {
    let this = percpu::this();
    if this.vmxon_region.swap(0, Ordering::Relaxed) != 0 {
        this.current_vmcs.store(0, Ordering::Relaxed);
        this.entered.store(0, Ordering::Relaxed);
        // SAFETY: the processor is in VMX root operation; the rest is the caller's promise.
        unsafe { asm!("vmxoff", options(nostack)) };
    }
}

/// Whether this processor is in VMX root operation.
#[must_use]
pub fn is_on() -> bool {
    percpu::this().vmxon_region.load(Ordering::Relaxed) != 0
}

/// Writes the VMCS revision into the first word of a region.
///
/// # Safety
/// The direct map shows `region`, a frame of RAM that is this processor's to write.
pub unsafe fn write_revision(region: HostPhys, revision: u32) {
    // SAFETY: the caller's promise.
    unsafe { physmem::pointer::<u32>(region).write_volatile(revision) };
}

/// A VMX instruction with a physical address as its operand.
macro_rules! with_address {
    ($instruction:literal, $address:expr) => {{
        let (invalid, valid): (u8, u8);
        asm!(
            concat!($instruction, " [{address}]"),
            "setc {invalid}",
            "setz {valid}",
            address = in(reg) &$address.0,
            invalid = out(reg_byte) invalid,
            valid = out(reg_byte) valid,
            options(nostack),
        );
        (invalid, valid)
    }};
}

/// The same where a failure is a bug of ours: it leaves the function. Carry or zero is one, which no other instruction need tell
/// apart.
macro_rules! on_address {
    ($instruction:literal, $region:expr) => {
        asm!(
            concat!($instruction, " [{}]"),
            "jbe {failed}",
            in(reg) core::ptr::from_ref($region),
            failed = label { return Err(crate::enter::failure()) },
            options(nostack),
        )
    };
}

pub(crate) fn outcome((invalid, valid): (u8, u8)) -> Result<(), VmFail> {
    match (invalid, valid) {
        (0, 0) => Ok(()),
        (0, _) => Err(VmFail::Valid),
        _ => Err(VmFail::Invalid),
    }
}

/// VMCLEAR: writes what the processor holds of the VMCS back to `region` and makes it inactive and not launched.
///
/// # Safety
/// The processor is in VMX root operation; `region` is a VMCS region of L0, not active on another processor.
pub unsafe fn clear(region: HostPhys) -> Result<(), VmFail> {
    // SAFETY: the caller's promise.
    outcome(unsafe { with_address!("vmclear", region) })?;
    let this = percpu::this();
    this.entered.store(0, Ordering::Relaxed);
    if this.current_vmcs.load(Ordering::Relaxed) == region.0 {
        this.current_vmcs.store(0, Ordering::Relaxed);
    }
    Ok(())
}

/// VMPTRLD: makes the VMCS in `region` this processor's current one, and returns the right to use it.
///
/// # Safety
/// The processor is in VMX root operation; `region` is a VMCS region of L0 with the revision written to it, cleared
/// before its first use and not active on another processor. One [`CurrentVmcs`] exists on a processor at a time.
pub unsafe fn load(region: HostPhys) -> Result<CurrentVmcs, VmFail> {
    // SAFETY: the caller's promise; nothing is said of registers.
    unsafe { load_entered(&region, 0) }
}

/// [`load`] and [`set_entered`] in one.
///
/// # Safety
/// As for both.
#[inline(always)]
pub unsafe fn load_entered(region: &HostPhys, registers: u64) -> Result<CurrentVmcs, VmFail> {
    // SAFETY: the caller's promise.
    unsafe { on_address!("vmptrld", region) };
    percpu::set_current_vmcs(region.0, registers);
    // SAFETY: it is current now.
    Ok(unsafe { CurrentVmcs::assume() })
}

/// Does `work` on the VMCS in `region` and clears it; then the one in `then` is this processor's current one, which has been entered
/// with what [`entered`] gave for it.
///
/// # Safety
/// As for [`load`] of both and [`set_entered`] of the second. They are two.
#[inline(always)]
pub unsafe fn visit(
    region: &HostPhys,
    then: &HostPhys,
    registers: u64,
    work: impl FnOnce(&mut CurrentVmcs),
) -> Result<CurrentVmcs, VmFail> {
    // SAFETY: the caller's promise.
    unsafe { on_address!("vmptrld", region) };
    // SAFETY: it is current now, until the next line but one.
    work(&mut unsafe { CurrentVmcs::assume() });
    // SAFETY: the caller's promise.
    unsafe { on_address!("vmclear", region) };
    // SAFETY: the caller's promise.
    unsafe { load_entered(then, registers) }
}

/// The current VMCS has been launched since it was cleared, with its registers at the address that [`entered`] gave for it.
///
/// # Safety
/// `entered` returned the value while this VMCS was current, and it has not been cleared since.
#[inline(always)]
pub unsafe fn set_entered(registers: u64) {
    percpu::this().entered.store(registers, Ordering::Relaxed);
}

/// Where the registers are with which the current VMCS was entered last; 0 if it was not entered since it was loaded.
#[inline(always)]
#[must_use]
pub fn entered() -> u64 {
    percpu::entered()
}

/// The current VMCS of this processor, reached by VMREAD and VMWRITE.
#[derive(Debug)]
pub struct CurrentVmcs {
    /// Not to be sent to another processor.
    _here: core::marker::PhantomData<*mut ()>,
}

impl CurrentVmcs {
    /// The current VMCS.
    ///
    /// # Safety
    /// The processor has a current VMCS for as long as the value lives, and nobody else works on it meanwhile.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn assume() -> Self {
        Self { _here: core::marker::PhantomData }
    }
}

impl Access for CurrentVmcs {
    #[inline(always)]
    fn read_raw(&self, encoding: Encoding) -> u64 {
        let value;
        // SAFETY: VMREAD changes its operand and flags only; when it fails it goes to a function that does not return and
        // expects the encoding in RDI.
        unsafe {
            asm!(
                "vmread {value}, rdi",
                "jbe {failed}",
                value = out(reg) value,
                in("rdi") u64::from(encoding.0),
                failed = sym access_failed,
                options(nomem),
            );
        }
        value
    }

    #[inline(always)]
    fn read<W: Width>(&self, field: Field<W>) -> W::Value {
        let encoding = field.encoding();
        if !is_common(encoding) {
            return W::from_raw(self.read_raw(encoding));
        }
        let value;
        // SAFETY: there is a current VMCS, and every processor's VMCS has the field, so that VMREAD succeeds; it changes its
        // operand and flags only.
        unsafe {
            asm!("vmread {value}, {encoding}", value = out(reg) value, encoding = in(reg) u64::from(encoding.0), options(nomem, nostack));
        }
        W::from_raw(value)
    }

    #[inline(always)]
    fn write<W: Width>(&mut self, field: Field<W>, value: W::Value) {
        let encoding = field.encoding();
        // Exit information can be written on some processors only.
        if !is_common(encoding) || encoding.area() == Area::ReadOnly {
            return self.write_raw(encoding, W::to_raw(value));
        }
        // SAFETY: whoever made the value promised that the VMCS is his to write; as above, VMWRITE succeeds.
        unsafe {
            asm!("vmwrite {encoding}, {value}", value = in(reg) W::to_raw(value), encoding = in(reg) u64::from(encoding.0), options(nomem, nostack));
        }
    }

    #[inline(always)]
    fn write_raw(&mut self, encoding: Encoding, value: u64) {
        // SAFETY: whoever made the value promised that the VMCS is his to write; failure as above.
        unsafe {
            asm!(
                "vmwrite rdi, {value}",
                "jbe {failed}",
                value = in(reg) value,
                in("rdi") u64::from(encoding.0),
                failed = sym access_failed,
                options(nomem),
            );
        }
    }
}

/// VMREAD or VMWRITE failed: a bug of ours, as the capabilities say which fields exist. Reached by a jump.
#[cold]
#[expect(clippy::panic, reason = "a bug of L0")]
extern "sysv64" fn access_failed(encoding: u64) -> ! {
    #[expect(clippy::cast_possible_truncation, reason = "it was made from 32 bits")]
    let encoding = Encoding(encoding as u32);
    panic!(
        "VMREAD or VMWRITE of {encoding:?} failed: {}",
        instruction_error().map_or("no current VMCS", InstructionError::text)
    )
}

/// The error number of the last VMX instruction that failed with VMfailValid; `None` without a current VMCS.
#[must_use]
pub fn instruction_error() -> Option<InstructionError> {
    percpu::current_vmcs()?;
    // SAFETY: there is a current VMCS; the field is only read.
    let vmcs = unsafe { CurrentVmcs::assume() };
    Some(InstructionError(vmcs.read(VM_INSTRUCTION_ERROR)))
}

/// Writes the host state: what this processor has after every VM exit. HOST_RSP and HOST_RIP are [`crate::enter`]'s.
pub fn write_host_state(vmcs: &mut CurrentVmcs, capabilities: &Capabilities) {
    let this = percpu::this();
    vmcs.write(HOST_CR0, control::cr0_bits());
    vmcs.write(HOST_CR3, control::cr3());
    vmcs.write(HOST_CR4, control::cr4_bits());
    vmcs.write(HOST_CS_SELECTOR, gdt::CODE);
    for data in [HOST_SS_SELECTOR, HOST_DS_SELECTOR, HOST_ES_SELECTOR] {
        vmcs.write(data, gdt::DATA);
    }
    for unused in [HOST_FS_SELECTOR, HOST_GS_SELECTOR] {
        vmcs.write(unused, 0);
    }
    vmcs.write(HOST_TR_SELECTOR, gdt::TSS);
    vmcs.write(HOST_FS_BASE, 0);
    vmcs.write(HOST_GS_BASE, core::ptr::from_ref(this).addr() as u64);
    vmcs.write(HOST_TR_BASE, this.tss_base());
    vmcs.write(HOST_GDTR_BASE, this.gdt_base());
    vmcs.write(HOST_IDTR_BASE, idt::base());
    vmcs.write(HOST_IA32_SYSENTER_CS, 0);
    vmcs.write(HOST_IA32_SYSENTER_ESP, 0);
    vmcs.write(HOST_IA32_SYSENTER_EIP, 0);
    let exists = |field: Encoding| vmcs::field::info(field).is_some_and(|field| capabilities.has_field(field));
    if exists(HOST_IA32_PAT.encoding()) {
        // SAFETY: a processor with VMX has the PAT.
        vmcs.write(HOST_IA32_PAT, unsafe { msr::read(Msr::PAT) });
    }
    if exists(HOST_IA32_EFER.encoding()) {
        vmcs.write(HOST_IA32_EFER, control::efer().bits());
    }
}
