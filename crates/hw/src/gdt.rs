//! Each processor's descriptor table and task-state segment.

use core::arch::asm;

use x86::bits64::task::TaskStateSegment;
use x86::dtables::DescriptorTablePointer;
use x86::segmentation::SegmentSelector;

use crate::percpu;
use crate::stacks::Stacks;

/// Selector of L0's code segment.
pub const CODE: u16 = 0x08;
/// Selector of L0's data segment.
pub const DATA: u16 = 0x10;
/// Selector of the task-state segment.
pub const TSS: u16 = 0x18;

/// Flat 64-bit code, ring 0, accessed: nothing writes the table later.
const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
/// Flat data, ring 0, writable, accessed.
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;

/// Interrupt-stack-table numbers, as IDT gates name them.
pub mod ist {
    /// Non-maskable interrupt.
    pub const NMI: u8 = 1;
    /// Double fault.
    pub const DOUBLE_FAULT: u8 = 2;
    /// Machine check.
    pub const MACHINE_CHECK: u8 = 3;
}

/// A processor's descriptor table and the task-state segment that it describes.
#[repr(C, align(16))]
pub(crate) struct Tables {
    descriptors: [u64; 5],
    tss: TaskStateSegment,
}

impl Tables {
    pub(crate) const fn new() -> Self {
        Self { descriptors: [0, CODE_DESCRIPTOR, DATA_DESCRIPTOR, 0, 0], tss: TaskStateSegment::new() }
    }
}

/// The 16 bytes that describe an available 64-bit TSS (SDM 3A, 7.2.3 "TSS Descriptor in 64-bit mode").
fn tss_descriptor(base: u64, limit: u64) -> [u64; 2] {
    const PRESENT_AVAILABLE_TSS: u64 = 0x89 << 40;
    let low = limit & 0xffff | (base & 0xff_ffff) << 16 | PRESENT_AVAILABLE_TSS | (base >> 24 & 0xff) << 56;
    [low, base >> 32]
}

/// Loads this processor's GDT, segment registers and task register, with `stacks` for NMI, double fault and machine check.
///
/// # Safety
/// Called once a processor, after `percpu` was installed, with stacks that are its own.
pub unsafe fn load(stacks: &Stacks) {
    let tables = percpu::this().tables.get();
    // SAFETY: only this processor reaches its tables, and it has not loaded them yet.
    let tables = unsafe { &mut *tables };
    tables.tss.set_ist(usize::from(ist::NMI) - 1, stacks.nmi_top);
    tables.tss.set_ist(usize::from(ist::DOUBLE_FAULT) - 1, stacks.double_fault_top);
    tables.tss.set_ist(usize::from(ist::MACHINE_CHECK) - 1, stacks.machine_check_top);
    let base = (&raw const tables.tss).addr() as u64;
    let [low, high] = tss_descriptor(base, size_of::<TaskStateSegment>() as u64 - 1);
    tables.descriptors[3] = low;
    tables.descriptors[4] = high;
    let pointer = DescriptorTablePointer::new(&tables.descriptors);
    // SAFETY: the table is static, and its code and data descriptors are those that are in use.
    unsafe { x86::dtables::lgdt(&pointer) };
    // SAFETY: CODE and DATA are flat ring-0 segments; the far return goes to the next line.
    unsafe {
        asm!(
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            data = in(reg) u32::from(DATA),
            code = const CODE,
            scratch = out(reg) _,
            options(preserves_flags),
        );
    }
    // SAFETY: the descriptor was written above and describes a TSS that stays where it is.
    unsafe { x86::task::load_tr(SegmentSelector::from_raw(TSS)) };
}

impl percpu::PerCpu {
    /// Linear address of the descriptor table.
    pub(crate) fn gdt_base(&self) -> u64 {
        self.tables.get().addr() as u64
    }

    /// Linear address of the task-state segment.
    pub(crate) fn tss_base(&self) -> u64 {
        self.gdt_base() + core::mem::offset_of!(Tables, tss) as u64
    }
}
