//! Where an operand is, and access to it there: device, RAM, or both when it crosses a page.

use arch::{Fault, GuestMemory, GuestPhys, Linear, OutsideMemory, PAGE_SIZE, Width};

use crate::operand::CodeSize;
use crate::walk::{AccessKind, Paging, translate};

/// The devices of the guest's machine.
pub trait Device {
    /// Reads `width` at `at`; only the low bits of the result count. Where no device answers: all ones.
    ///
    /// The access is as the guest made it, not necessarily aligned; one that crosses a page comes byte by byte.
    fn read(&mut self, at: GuestPhys, width: Width) -> u64;

    /// Writes the low bits of `value`. Where no device answers the value is lost.
    fn write(&mut self, at: GuestPhys, width: Width, value: u64);
}

/// An operand's guest-physical place.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    first: GuestPhys,
    /// Bytes in the first page.
    split: usize,
    /// Where the other bytes are, if any.
    second: GuestPhys,
}

/// What can be reached: RAM, devices, and the page that is known to be a device's because the access to it exited.
pub(crate) struct Reach<'a> {
    pub(crate) memory: &'a dyn GuestMemory,
    pub(crate) device: &'a mut dyn Device,
    pub(crate) exited: GuestPhys,
}

impl Place {
    /// Translates `width` at `linear` for an access of `kind`; both pages, before anything is accessed.
    #[inline]
    pub(crate) fn find(
        memory: &dyn GuestMemory,
        paging: &Paging,
        code: CodeSize,
        linear: Linear,
        width: Width,
        kind: AccessKind,
    ) -> Result<Self, Fault> {
        let first = translate(memory, paging, linear, kind)?.address;
        let Some(split) = split(linear, width) else {
            return Ok(Self::whole(first, width));
        };
        let next = linear.add(split as u64);
        let next = if code == CodeSize::Bits64 { next } else { Linear(next.get() & 0xffff_ffff) };
        Ok(Self { first, split, second: translate(memory, paging, next, kind)?.address })
    }

    /// `width` at `first`, within one page.
    #[inline]
    pub(crate) fn whole(first: GuestPhys, width: Width) -> Self {
        Self { first, split: width.bytes(), second: first }
    }
}

/// Bytes before the page boundary that an access crosses; `None` if it crosses none.
#[inline]
pub(crate) fn split(linear: Linear, width: Width) -> Option<usize> {
    let left = PAGE_SIZE - linear.page_offset();
    usize::try_from(left).ok().filter(|&left| left < width.bytes())
}

impl Reach<'_> {
    /// Whether a part of `place` is a device's.
    pub(crate) fn is_device(&self, place: Place, width: Width) -> bool {
        self.is_device_page(place.first) || place.split < width.bytes() && self.is_device_page(place.second)
    }

    fn is_device_page(&self, at: GuestPhys) -> bool {
        at.page() == self.exited.page() || self.memory.read(at, &mut [0]).is_err()
    }

    /// Reads the operand, zero-extended.
    #[inline]
    pub(crate) fn load(&mut self, place: Place, width: Width) -> u64 {
        if place.split == width.bytes() {
            return self.load_part(place.first, width) & width.mask();
        }
        let mut value = 0;
        for n in 0..width.bytes() {
            value |= (self.load_part(place.byte(n), Width::Byte) & 0xff) << (8 * n);
        }
        value
    }

    /// Writes the low `width` of `value` to the operand.
    #[inline]
    pub(crate) fn store(&mut self, place: Place, width: Width, value: u64) {
        if place.split == width.bytes() {
            return self.store_part(place.first, width, value & width.mask());
        }
        for n in 0..width.bytes() {
            self.store_part(place.byte(n), Width::Byte, value >> (8 * n) & 0xff);
        }
    }

    #[inline]
    fn load_part(&mut self, at: GuestPhys, width: Width) -> u64 {
        let mut bytes = [0; 8];
        let in_ram = at.page() != self.exited.page() && self.memory.read(at, &mut bytes[..width.bytes()]).is_ok();
        if in_ram { u64::from_le_bytes(bytes) } else { self.device.read(at, width) }
    }

    #[inline]
    fn store_part(&mut self, at: GuestPhys, width: Width, value: u64) {
        let bytes = value.to_le_bytes();
        let in_ram = at.page() != self.exited.page() && self.memory.write(at, &bytes[..width.bytes()]).is_ok();
        if !in_ram {
            self.device.write(at, width, value);
        }
    }
}

impl Place {
    /// Where byte `n` of an operand that crosses a page is.
    fn byte(self, n: usize) -> GuestPhys {
        if n < self.split { self.first.add(n as u64) } else { self.second.add((n - self.split) as u64) }
    }

    /// Reads an operand that is wholly in RAM, zero-extended.
    pub(crate) fn load_ram(self, memory: &dyn GuestMemory, width: Width) -> Result<u64, OutsideMemory> {
        let mut bytes = [0; 8];
        let (first, second) = bytes[..width.bytes()].split_at_mut(self.split);
        memory.read(self.first, first)?;
        if !second.is_empty() {
            memory.read(self.second, second)?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes an operand that is wholly in RAM.
    pub(crate) fn store_ram(self, memory: &dyn GuestMemory, width: Width, value: u64) -> Result<(), OutsideMemory> {
        let bytes = value.to_le_bytes();
        let (first, second) = bytes[..width.bytes()].split_at(self.split);
        memory.write(self.first, first)?;
        if second.is_empty() { Ok(()) } else { memory.write(self.second, second) }
    }
}
