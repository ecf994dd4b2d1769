//! The registers of a guest that neither the VMCS nor the code around a VM exit holds: floating point, vectors and
//! protection keys, XCR0, the MSRs of SYSCALL and SWAPGS, debug addresses and status, and CR2.
//!
//! L0 uses none of them, so they stay in the processor from one VM exit to the next, and are saved and loaded only when another
//! vCPU takes the processor. Not among them: FS and GS bases, SYSENTER's MSRs, PAT, EFER and DR7, which are in the
//! VMCS, and IA32_XSS, which is 0 for everybody.

use core::arch::asm;

use arch::control::{Cr4, XCR0_OFFERED};
use arch::{HostPhys, Msr, PAGE_SIZE};

use crate::frames::Frames;
use crate::{control, cpuid, physmem};

/// The registers that guests read and write without a VM exit and that stay in the processor: SYSCALL's, SWAPGS's, and
/// IA32_TSC_AUX where there is one.
pub const KEPT_IN_PROCESSOR: [Msr; 6] =
    [Msr::STAR, Msr::LSTAR, Msr::CSTAR, Msr::FMASK, Msr::KERNEL_GS_BASE, Msr::TSC_AUX];

/// RDMSR of the register that ECX names into the `$index`th element of `place`, and WRMSR out of it: in halves, as the instructions
/// have them, since a switch between vCPUs is to be quick. The compiler would put the halves together.
macro_rules! to_place {
    ($index:literal) => {
        concat!("rdmsr\nmov [{place} + 8 * ", $index, "], eax\nmov [{place} + 8 * ", $index, " + 4], edx")
    };
}
macro_rules! from_place {
    ($index:literal) => {
        concat!("mov eax, [{place} + 8 * ", $index, "]\nmov edx, [{place} + 8 * ", $index, " + 4]\nwrmsr")
    };
}
/// Moves [`KEPT_IN_PROCESSOR`] to or from the array at `$place`: five that all processors with 64-bit mode have, IA32_TSC_AUX if
/// `$has_tsc_aux`.
macro_rules! move_msrs {
    ($instruction:ident, $place:expr, $has_tsc_aux:expr) => {
        asm!(
            "mov ecx, {star}",
            $instruction!(0),
            "inc ecx",
            $instruction!(1),
            "inc ecx",
            $instruction!(2),
            "inc ecx",
            $instruction!(3),
            "mov ecx, {kernel_gs_base}",
            $instruction!(4),
            "test {has_tsc_aux}, {has_tsc_aux}",
            "jz 2f",
            "inc ecx",
            $instruction!(5),
            "2:",
            place = in(reg) $place,
            has_tsc_aux = in(reg_byte) u8::from($has_tsc_aux),
            star = const Msr::STAR.0,
            kernel_gs_base = const Msr::KERNEL_GS_BASE.0,
            out("eax") _,
            out("ecx") _,
            out("edx") _,
            options(nostack),
        )
    };
}
const _: () = {
    let [star, lstar, cstar, fmask, kernel_gs_base, tsc_aux] = KEPT_IN_PROCESSOR;
    assert!(
        star.0 + 1 == lstar.0 && star.0 + 2 == cstar.0 && star.0 + 3 == fmask.0 && kernel_gs_base.0 + 1 == tsc_aux.0
    );
};

/// Bytes that FXSAVE writes (SDM 1 10.5.1 "FXSAVE Area"): the start of every XSAVE area too.
const FXSAVE_BYTES: u64 = 512;
/// Where the x87 control word and MXCSR stand in it.
const FCW_OFFSET: u64 = 0;
const MXCSR_OFFSET: u64 = 24;

/// One vCPU's registers while another one, or none, has the processor.
///
/// Every processor of the machine must have the same state components.
#[derive(Debug)]
pub struct GuestState {
    /// What [`Instruction`] saves and restores.
    area: HostPhys,
    instruction: Instruction,
    /// [`KEPT_IN_PROCESSOR`].
    msrs: [u64; KEPT_IN_PROCESSOR.len()],
    /// The processor has RDTSCP, and so IA32_TSC_AUX.
    has_tsc_aux: bool,
    debug_addresses: [u64; 4],
    dr6: u64,
    cr2: u64,
}

/// How floating-point and vector registers are saved.
#[derive(Clone, Copy, Debug)]
enum Instruction {
    /// XSAVE, of these components: what the processor has of [`XCR0_OFFERED`].
    Xsave(u64),
    /// FXSAVE, on processors without XSAVE.
    Fxsave,
}

impl Instruction {
    /// The one to use here, and how many bytes it writes at most.
    fn of_this_processor() -> (Self, u64) {
        if !cpuid::has_xsave() {
            return (Self::Fxsave, FXSAVE_BYTES);
        }
        // SDM 2A "CPUID—CPU Identification", leaf 0DH: the components in EDX:EAX, the size with all of them in ECX.
        let leaf = cpuid::leaf(0xd);
        let components = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & XCR0_OFFERED.bits();
        (Self::Xsave(components), u64::from(leaf.ecx))
    }
}

impl GuestState {
    /// The registers after power-up (SDM 3A table 9-1 "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
    /// INIT"), with x87 as FNINIT leaves it, and memory to save them in. `None` when there is no memory.
    pub fn new(frames: &mut Frames) -> Option<Self> {
        let (instruction, bytes) = Instruction::of_this_processor();
        let area = frames.allocate(bytes, 64)?;
        // A header of zeros makes XRSTOR put all components into their initial state, all but MXCSR, which it always loads
        // (SDM 1 13.8.1 "Standard Form of XRSTOR"); FXRSTOR loads the control word too.
        // SAFETY: the memory was just allocated for this.
        unsafe { physmem::zero(area, bytes) };
        // SAFETY: as above.
        unsafe { physmem::pointer::<u16>(area.add(FCW_OFFSET)).write(0x37f) };
        // SAFETY: as above.
        unsafe { physmem::pointer::<u32>(area.add(MXCSR_OFFSET)).write(0x1f80) };
        Some(Self {
            area,
            instruction,
            msrs: [0; _],
            has_tsc_aux: cpuid::leaf(0x8000_0001).edx & 1 << 27 != 0,
            debug_addresses: [0; 4],
            dr6: 0xffff_0ff0,
            cr2: 0,
        })
    }

    /// How much memory [`Self::new`] takes, in bytes.
    #[must_use]
    pub fn bytes() -> u64 {
        Instruction::of_this_processor().1.next_multiple_of(PAGE_SIZE)
    }

    /// Loads the registers, and XCR0 with the guest's value `xcr0`, which processors without XSAVE do not have. `after_save`:
    /// [`Self::save`] of another one came right before.
    ///
    /// # Safety
    /// This processor has gone through [`crate::vmx::on`]. `xcr0` is a value that it takes, with no component but those of
    /// [`XCR0_OFFERED`]. Whoever's registers are in the processor has had them saved or needs them no more.
    pub unsafe fn load(&mut self, xcr0: u64, after_save: bool) {
        match self.instruction {
            Instruction::Xsave(components) => {
                if !after_save {
                    // SAFETY: the processor has the components, and `vmx::on` set CR4.OSXSAVE.
                    unsafe { control::write_xcr0(components) };
                }
                // SAFETY: the area holds the initial state or what XSAVE wrote.
                unsafe { restore_components(self.area, components) };
                if xcr0 != components {
                    // SAFETY: the caller's promise.
                    unsafe { control::write_xcr0(xcr0) };
                }
            }
            Instruction::Fxsave => {
                enable_fxsave();
                // SAFETY: the area holds the initial state or what FXSAVE wrote.
                unsafe { asm!("fxrstor64 [{}]", in(reg) self.pointer(), options(readonly, nostack, preserves_flags)) };
            }
        }
        // SAFETY: the registers exist and held the values, or are 0; L0 does not use them.
        unsafe { move_msrs!(from_place, &raw const self.msrs, self.has_tsc_aux) };
        // SAFETY: no breakpoint is enabled in DR7 while L0 runs.
        unsafe { write_debug_addresses(self.debug_addresses) };
        // SAFETY: the register held the value, or it is that of power-up.
        unsafe { control::write_dr6(self.dr6) };
        // SAFETY: L0 takes no page faults.
        unsafe { control::write_cr2(self.cr2) };
    }

    /// Saves the registers. XCR0, which is `xcr0` at the moment, is not kept, as its value comes with [`Self::load`], and is changed.
    ///
    /// # Safety
    /// The registers in the processor are this vCPU's: they were loaded from here, and nothing else was loaded since.
    pub unsafe fn save(&mut self, xcr0: u64) {
        match self.instruction {
            Instruction::Xsave(components) => {
                // The guest's XCR0 may have components off that hold values it used before.
                if xcr0 != components {
                    // SAFETY: the processor has the components, and `vmx::on` set CR4.OSXSAVE.
                    unsafe { control::write_xcr0(components) };
                }
                // SAFETY: the area is large enough for all components, aligned, and this vCPU's.
                unsafe { save_components(self.area, components) };
            }
            Instruction::Fxsave => {
                enable_fxsave();
                // SAFETY: the area is large enough, aligned, and this vCPU's.
                unsafe { asm!("fxsave64 [{}]", in(reg) self.pointer(), options(nostack, preserves_flags)) };
            }
        }
        // SAFETY: the registers exist: `new` asked for RDTSCP, with which the last one comes.
        unsafe { move_msrs!(to_place, &raw mut self.msrs, self.has_tsc_aux) };
        self.debug_addresses = debug_addresses();
        self.dr6 = control::dr6();
        self.cr2 = control::cr2();
    }

    const fn pointer(&self) -> *mut u8 {
        physmem::pointer(self.area)
    }
}

/// XSAVE, not its optimized form: that one compares with the last XRSTOR, and saves little where vCPUs take turns.
///
/// # Safety
/// `area` is memory of L0, aligned to 64 bytes and large enough for `components`, which are all enabled in XCR0.
unsafe fn save_components(area: HostPhys, components: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "xsave64 [{}]",
            in(reg) physmem::pointer::<u8>(area),
            in("rax") components,
            in("rdx") components >> 32,
            options(nostack, preserves_flags),
        );
    }
}

/// XRSTOR: components that are marked in the area's header get their values, the others of `components` their initial state.
///
/// # Safety
/// As for [`save_components`], and the area has the initial state or what that wrote.
unsafe fn restore_components(area: HostPhys, components: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "xrstor64 [{}]",
            in(reg) physmem::pointer::<u8>(area),
            in("rax") components,
            in("rdx") components >> 32,
            options(readonly, nostack, preserves_flags),
        );
    }
}

/// Makes FXSAVE and FXRSTOR include the XMM registers and MXCSR. VM exits load CR4, so this has to be done each time.
fn enable_fxsave() {
    // SAFETY: all processors with 64-bit mode have the bit, and L0 has no SSE instructions that it would enable.
    unsafe { control::write_cr4_bits(control::cr4_bits() | Cr4::OSFXSR.bits()) };
}

/// DR0 to DR3.
fn debug_addresses() -> [u64; 4] {
    let (dr0, dr1, dr2, dr3);
    // SAFETY: reading the registers has no effect; VM exits clear DR7.GD, which would make it fault.
    unsafe {
        asm!(
            "mov {}, dr0",
            "mov {}, dr1",
            "mov {}, dr2",
            "mov {}, dr3",
            out(reg) dr0,
            out(reg) dr1,
            out(reg) dr2,
            out(reg) dr3,
            options(nomem, nostack, preserves_flags),
        );
    }
    [dr0, dr1, dr2, dr3]
}

/// Zeroes DR0 to DR3 of the guest whose registers are in this processor.
pub fn clear_breakpoint_addresses() {
    // SAFETY: VM exits disable all breakpoints (SDM 3C 28.5.1 "Loading Host Control Registers, Debug Registers, MSRs"), and
    // L0 enables none.
    unsafe { write_debug_addresses([0; 4]) };
}

/// Loads DR0 to DR3, which take any value.
///
/// # Safety
/// No breakpoint is enabled in DR7.
unsafe fn write_debug_addresses([dr0, dr1, dr2, dr3]: [u64; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "mov dr0, {}",
            "mov dr1, {}",
            "mov dr2, {}",
            "mov dr3, {}",
            in(reg) dr0,
            in(reg) dr1,
            in(reg) dr2,
            in(reg) dr3,
            options(nomem, nostack, preserves_flags),
        );
    }
}
