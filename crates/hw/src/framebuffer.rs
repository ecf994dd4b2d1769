//! The machine's screen as a grid of characters: EGA text mode, or pixels with a font of 8 by 16.

use boot::FramebufferKind;
use font8x8::legacy::BASIC_LEGACY;

use crate::physmem;

/// Where PCs have always had the memory of the text mode.
pub const TEXT_MODE: boot::Framebuffer = boot::Framebuffer {
    address: arch::HostPhys(0xb_8000),
    pitch: 160,
    width: 80,
    height: 25,
    bits_per_pixel: 16,
    kind: FramebufferKind::Text,
};

/// Light grey on black.
const ATTRIBUTE: u8 = 0x07;
/// Pixels of a character; the font has half as many lines.
const CELL: (usize, usize) = (8, 16);
/// From so many pixels in a line on, each is drawn twice as wide and high: they are small.
const LARGE: u32 = 2560;

/// A screen that L0 writes to.
#[derive(Debug)]
pub struct Framebuffer {
    memory: *mut u8,
    pitch: usize,
    /// Bytes of a pixel; none in text mode.
    pixel: Option<usize>,
    scale: usize,
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

// SAFETY: the memory is a device's, reached from whichever processor holds the value.
unsafe impl Send for Framebuffer {}

/// The screen's memory, in whole pages: its start and its length in bytes. It must stay mapped where the direct map has it.
#[must_use]
pub fn pages(description: &boot::Framebuffer) -> (arch::HostPhys, u64) {
    let start = description.address.0 & !(arch::PAGE_SIZE - 1);
    let bytes = u64::from(description.pitch) * u64::from(description.height);
    (arch::HostPhys(start), (description.address.0 + bytes).next_multiple_of(arch::PAGE_SIZE) - start)
}

impl Framebuffer {
    /// No screen: all that is put is left out.
    pub const NONE: Self = Self { memory: core::ptr::null_mut(), pitch: 0, pixel: None, scale: 0, columns: 0, rows: 0 };

    /// The screen that the boot loader describes, cleared; `None` where its pixels are colours of a palette, or are unusual.
    ///
    /// # Safety
    /// The description is true, the direct map shows the memory, and nobody else writes to it.
    #[must_use]
    pub unsafe fn new(description: &boot::Framebuffer) -> Option<Self> {
        let bytes = usize::from(description.bits_per_pixel / 8);
        let (pixel, scale) = match description.kind {
            FramebufferKind::Text if bytes == 2 => (None, 1),
            FramebufferKind::Direct if (2..=4).contains(&bytes) => {
                (Some(bytes), if description.width >= LARGE { 2 } else { 1 })
            }
            _ => return None,
        };
        let (width, height) = (description.width as usize, description.height as usize);
        let (columns, rows) = match pixel {
            None => (width, height),
            Some(_) => (width / (CELL.0 * scale), height / (CELL.1 * scale)),
        };
        if columns == 0 || rows == 0 || width * bytes > description.pitch as usize {
            return None;
        }
        let memory = physmem::pointer(description.address);
        let pitch = description.pitch as usize;
        let screen = Self { memory, pitch, pixel, scale, columns, rows };
        for row in 0..rows {
            for column in 0..columns {
                screen.put(column, row, b' ');
            }
        }
        Some(screen)
    }

    /// Shows an ASCII character; any other shows as a question mark. Outside the grid it is left out.
    pub fn put(&self, column: usize, row: usize, character: u8) {
        if column >= self.columns || row >= self.rows {
            return;
        }
        let character = if character.is_ascii_graphic() || character == b' ' { character } else { b'?' };
        match self.pixel {
            None => {
                let at = row * self.pitch + column * 2;
                self.write(at, character);
                self.write(at + 1, ATTRIBUTE);
            }
            Some(bytes) => self.draw(column, row, bytes, &BASIC_LEGACY[usize::from(character)]),
        }
    }

    /// A line of the font gives two of the screen; bit 0 is its leftmost pixel. All bits of a pixel set is white in any
    /// format.
    fn draw(&self, column: usize, row: usize, bytes: usize, glyph: &[u8; 8]) {
        let (width, height) = (CELL.0 * self.scale, CELL.1 * self.scale);
        for y in 0..height {
            let line = glyph[y / (2 * self.scale)];
            let start = (row * height + y) * self.pitch + column * width * bytes;
            for x in 0..width {
                let value = if line >> (x / self.scale) & 1 == 0 { 0 } else { u32::MAX };
                let at = start + x * bytes;
                if bytes == 4 && self.memory.addr().is_multiple_of(4) && self.pitch.is_multiple_of(4) {
                    // One access to the device instead of four.
                    // SAFETY: as in `write`; the address is a multiple of four.
                    unsafe { self.memory.wrapping_add(at).cast::<u32>().write_volatile(value) };
                } else {
                    value.to_le_bytes().iter().take(bytes).zip(at..).for_each(|(byte, at)| self.write(at, *byte));
                }
            }
        }
    }

    fn write(&self, at: usize, value: u8) {
        // SAFETY: the grid lies within the memory that `new` was promised, and `at` within the grid.
        unsafe { self.memory.wrapping_add(at).write_volatile(value) };
    }
}
