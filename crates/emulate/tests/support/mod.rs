//! RAM, registers and a device in ordinary memory.
#![expect(dead_code, reason = "each test binary uses a part")]

use std::cell::{Cell, RefCell};

use arch::control::{Cr0, Cr4, Efer, Rflags};
use arch::segment::{AccessRights, Segment, SegmentName};
use arch::{Gpr, GuestMemory, GuestPhys, OutsideMemory, Width};
use emulate::{CodeSize, Device, Done, Kernel, Paging, Registers, access};

/// RAM from address 0 on.
pub(crate) struct Ram {
    pub(crate) bytes: RefCell<Vec<u8>>,
    /// What another vCPU writes just before the next compare-exchange: address and 64-bit word.
    pub(crate) intruder: Cell<Option<(u64, u64)>>,
}

impl Ram {
    pub(crate) fn new(size: usize) -> Self {
        Self { bytes: RefCell::new(vec![0; size]), intruder: Cell::new(None) }
    }

    fn range(&self, at: GuestPhys, len: usize) -> Result<std::ops::Range<usize>, OutsideMemory> {
        let start = usize::try_from(at.get()).map_err(|_| OutsideMemory)?;
        let end = start.checked_add(len).filter(|&end| end <= self.bytes.borrow().len()).ok_or(OutsideMemory)?;
        Ok(start..end)
    }

    pub(crate) fn set_u64(&self, at: u64, value: u64) {
        self.write(GuestPhys(at), &value.to_le_bytes()).expect("in RAM");
    }

    pub(crate) fn set_u32(&self, at: u64, value: u32) {
        self.write(GuestPhys(at), &value.to_le_bytes()).expect("in RAM");
    }

    pub(crate) fn get_u64(&self, at: u64) -> u64 {
        self.read_u64(GuestPhys(at)).expect("in RAM")
    }
}

impl GuestMemory for Ram {
    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), OutsideMemory> {
        let range = self.range(at, into.len())?;
        into.copy_from_slice(&self.bytes.borrow()[range]);
        Ok(())
    }

    fn write(&self, at: GuestPhys, from: &[u8]) -> Result<(), OutsideMemory> {
        let range = self.range(at, from.len())?;
        self.bytes.borrow_mut()[range].copy_from_slice(from);
        Ok(())
    }

    fn compare_exchange(&self, at: GuestPhys, current: u64, new: u64) -> Result<bool, OutsideMemory> {
        assert!(at.is_aligned(8));
        if let Some((at, value)) = self.intruder.take() {
            self.set_u64(at, value);
        }
        let same = self.read_u64(at)? == current;
        if same {
            self.write(at, &new.to_le_bytes())?;
        }
        Ok(same)
    }
}

/// A device that keeps what is written to it and a log of its accesses.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) value: u64,
    pub(crate) accesses: Vec<(char, u64, usize, u64)>,
}

impl Device for Log {
    fn read(&mut self, at: GuestPhys, width: Width) -> u64 {
        let value = self.value & width.mask();
        self.accesses.push(('r', at.get(), width.bytes(), value));
        self.value
    }

    fn write(&mut self, at: GuestPhys, width: Width, value: u64) {
        self.value = value;
        self.accesses.push(('w', at.get(), width.bytes(), value));
    }
}

/// Where the device is: guest-physical, beyond all RAM.
pub(crate) const DEVICE: u64 = 0xfee0_0000;

/// A vCPU. The segments are flat data and code segments until a test changes them.
#[derive(Clone, Debug)]
pub(crate) struct Vcpu {
    pub(crate) gprs: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) rflags: Rflags,
    pub(crate) segments: [Segment; 6],
    pub(crate) code: CodeSize,
    pub(crate) paging: Paging,
}

impl Vcpu {
    /// At CPL 0; protected mode without paging for 32-bit code, real mode for 16-bit, and for 64-bit four levels with the
    /// tables at 0x1000, which [`identity_map`] writes.
    pub(crate) fn new(code: CodeSize) -> Self {
        let (cr0, cr4, efer, limit) = match code {
            CodeSize::Bits16 => (Cr0::ET, Cr4::empty(), Efer::empty(), 0xffff),
            CodeSize::Bits32 => (Cr0::ET | Cr0::PE, Cr4::empty(), Efer::empty(), 0xffff_ffff),
            CodeSize::Bits64 => {
                (Cr0::ET | Cr0::PE | Cr0::PG | Cr0::WP, Cr4::PAE, Efer::LMA | Efer::LME | Efer::NXE, 0xffff_ffff)
            }
        };
        let mut segments = [Segment { selector: 8, base: 0, limit, rights: AccessRights(0xc093) }; 6];
        segments[SegmentName::Cs as usize].rights = AccessRights(0xc09b);
        let paging = Paging {
            cr0,
            cr3: 0x1000,
            cr4,
            efer,
            pdptes: None,
            cpl: 0,
            ac: false,
            physical_width: 46,
            gigabyte_pages: true,
        };
        Self { gprs: [0; 16], rip: 0x8000, rflags: Rflags::RESERVED_1, segments, code, paging }
    }
}

/// Four 1-GiB pages at address 0, present and writable, for user mode too: PML4 at 0x1000, PDPT at 0x2000.
pub(crate) fn identity_map(ram: &Ram) {
    ram.set_u64(0x1000, 0x2000 | 0x27);
    for n in 0..4 {
        ram.set_u64(0x2000 + 8 * n, n << 30 | 0xe7);
    }
}

impl Registers for Vcpu {
    fn gpr(&self, register: Gpr) -> u64 {
        self.gprs[register as usize]
    }
    fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.gprs[register as usize] = value;
    }
    fn rip(&self) -> u64 {
        self.rip
    }
    fn set_rip(&mut self, value: u64) {
        self.rip = value;
    }
    fn rflags(&self) -> Rflags {
        self.rflags
    }
    fn set_rflags(&mut self, value: Rflags) {
        self.rflags = value;
    }
    fn segment(&self, name: SegmentName) -> Segment {
        self.segments[name as usize]
    }
    fn code_size(&self) -> CodeSize {
        self.code
    }
    fn paging(&self) -> Paging {
        self.paging
    }

    fn kernel(&self) -> Option<Kernel> {
        let paging = &self.paging;
        let is_kernel = self.code_size() == CodeSize::Bits64 && paging.cpl == 0 && !paging.cr4.contains(Cr4::LA57);
        let execute_disable = if paging.efer.contains(Efer::NXE) { 0 } else { 1 << 63 };
        let beyond_width = 0x000f_ffff_ffff_f000 & !0 << paging.physical_width;
        is_kernel.then_some(Kernel { cr3: paging.cr3, reserved: execute_disable | beyond_width })
    }
}

/// A vCPU at 0x8000 with `bytes` there, RDI at the device, which holds `value`.
pub(crate) fn machine(code: CodeSize, bytes: &[u8], value: u64) -> (Ram, Vcpu, Log) {
    let ram = Ram::new(0x2_0000);
    identity_map(&ram);
    ram.write(GuestPhys(0x8000), bytes).expect("in RAM");
    let mut vcpu = Vcpu::new(code);
    vcpu.gprs[Gpr::Rdi as usize] = DEVICE;
    (ram, vcpu, Log { value, accesses: Vec::new() })
}

/// Runs one instruction in 64-bit mode, which must complete.
pub(crate) fn run(bytes: &[u8], value: u64, prepare: impl FnOnce(&mut Vcpu)) -> (Vcpu, Log) {
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, bytes, value);
    prepare(&mut vcpu);
    let at = vcpu.gprs[Gpr::Rdi as usize];
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(at)), Ok(Done::Complete), "{bytes:02x?}");
    assert_eq!(vcpu.rip, 0x8000 + bytes.len() as u64);
    (vcpu, device)
}
