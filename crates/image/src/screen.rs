//! The screen, for a person before a machine without a serial port: Nestling's own sentences, and L1's console where no
//! port takes it.

use heapless::Vec;
use hw::delay;
use hw::framebuffer::Framebuffer;
use hw::lock::Lock;

/// The largest grid that is used of a screen.
const COLUMNS: usize = 160;
const ROWS: usize = 75;

static SCREEN: Lock<Screen> = Lock::new(Screen { framebuffer: Framebuffer::NONE, rows: Vec::new(), row: 0, column: 0 });

struct Screen {
    framebuffer: Framebuffer,
    /// What is shown: reading it back from the screen would be slow.
    rows: Vec<[u8; COLUMNS], ROWS>,
    row: usize,
    column: usize,
}

/// Shows all that follows on `framebuffer`, which is clear.
pub(crate) fn open(framebuffer: Framebuffer) {
    let mut screen = SCREEN.lock();
    for _ in 0..framebuffer.rows.min(ROWS) {
        // It has room for as many.
        let _ = screen.rows.push([b' '; COLUMNS]);
    }
    screen.framebuffer = framebuffer;
}

/// Shows text, unless another processor is at it: L1's bytes come from one only.
pub(crate) fn show(text: &[u8]) {
    if let Some(mut screen) = SCREEN.try_lock()
        && !screen.rows.is_empty()
    {
        text.iter().for_each(|byte| screen.put(*byte));
    }
}

/// Takes the screen from whoever holds it: this processor is about to end the machine.
pub(crate) fn seize() {
    if !delay::until(100_000, || SCREEN.try_lock().is_some()) {
        // SAFETY: the holder is this processor, in what it does not return to, or one that stands still.
        unsafe { SCREEN.break_open() };
    }
}

impl Screen {
    fn put(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.row += 1;
                self.column = 0;
            }
            b'\r' => self.column = 0,
            8 => self.column = self.column.saturating_sub(1),
            b' '.. => {
                if self.column == self.framebuffer.columns.min(COLUMNS) {
                    self.row += 1;
                    self.column = 0;
                }
                self.scroll();
                self.set(self.row, self.column, byte);
                self.column += 1;
            }
            _ => {}
        }
        self.scroll();
    }

    fn set(&mut self, row: usize, column: usize, byte: u8) {
        if let Some(cell) = self.rows.get_mut(row).and_then(|row| row.get_mut(column))
            && *cell != byte
        {
            *cell = byte;
            self.framebuffer.put(column, row, byte);
        }
    }

    /// Makes room below, several lines at once: drawing a whole screen takes time.
    fn scroll(&mut self) {
        if self.row < self.rows.len() {
            return;
        }
        let step = (self.rows.len() / 4).max(1);
        for row in 0..self.rows.len() {
            let line = self.rows.get(row + step).copied().unwrap_or([b' '; COLUMNS]);
            for (column, byte) in line.iter().enumerate() {
                self.set(row, column, *byte);
            }
        }
        self.row -= step;
    }
}
