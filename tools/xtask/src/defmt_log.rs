//! Nestling's log: defmt frames between zero bytes, with plain text among them where Nestling had no logger yet or
//! any more (a refusal at boot, a panic).

use anyhow::{Context, Result};
use config::END_OF_RUN;
use defmt_decoder::Table;

/// One line of the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// As shown: time, level, message.
    pub(crate) text: String,
    /// The message alone.
    pub(crate) message: String,
}

/// Turns the bytes of the log port into lines.
pub(crate) struct Decoder {
    table: Table,
    pending: Vec<u8>,
}

impl Decoder {
    /// A decoder for what this very ELF logs: the texts are in it, not on the wire.
    pub(crate) fn new(elf: &[u8]) -> Result<Self> {
        let table = Table::parse(elf)
            .context("the image's log texts cannot be read")?
            .context("the image has no log texts: it was linked without defmt's linker script")?;
        Ok(Decoder { table, pending: Vec::new() })
    }

    /// Takes bytes as they come and returns the lines that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == 0 {
                let chunk = std::mem::take(&mut self.pending);
                lines.extend(self.chunk(&chunk));
            } else {
                self.pending.push(byte);
            }
        }
        lines
    }

    /// What is left when the machine has ended.
    pub(crate) fn finish(&mut self) -> Vec<Line> {
        let chunk = std::mem::take(&mut self.pending);
        self.chunk(&chunk)
    }

    fn chunk(&self, chunk: &[u8]) -> Vec<Line> {
        if chunk.is_empty() {
            return Vec::new();
        }
        // A stream of this one frame: a frame that was damaged on the wire must not take its neighbours with it.
        let mut stream = self.table.new_stream_decoder();
        stream.received(chunk);
        stream.received(&[0]);
        if let Ok(frame) = stream.decode() {
            let message = frame.display_message().to_string();
            return vec![Line { text: frame.display(false).to_string(), message }];
        }
        plain_text(chunk)
    }
}

fn plain_text(chunk: &[u8]) -> Vec<Line> {
    let is_text = chunk.iter().all(|&byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t'));
    if !is_text {
        let text = format!("(a log frame of {} bytes that cannot be decoded)", chunk.len());
        return vec![Line { message: text.clone(), text }];
    }
    let text = String::from_utf8_lossy(chunk);
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| Line { text: line.to_owned(), message: line.to_owned() })
        .collect()
}

/// Status and reason, if this is the message that ends a run.
pub(crate) fn end_of_run(message: &str) -> Option<(u8, String)> {
    let (status, reason) = message.strip_prefix(END_OF_RUN)?.split_once(':')?;
    let status: u32 = status.trim().parse().ok()?;
    // A shell sees eight bits of a status, and must not see success where there was none.
    let low = u8::try_from(status & 0xFF).unwrap_or(u8::MAX);
    Some((if low == 0 && status != 0 { 1 } else { low }, reason.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last message is the exit status of `cargo xtask run`; nothing else is.
    #[test]
    fn the_last_message_is_the_status() {
        for (message, expected) in [
            ("end of run: status 0: L1 powered off", Some((0, "L1 powered off".to_owned()))),
            (
                "end of run: status 125: this processor has no VMX: a: b",
                Some((125, "this processor has no VMX: a: b".to_owned())),
            ),
            ("end of run: status 256: L1 wrote 256", Some((1, "L1 wrote 256".to_owned()))),
            ("end of run", None),
            ("L1 said end of run: status 0: no", None),
        ] {
            assert_eq!(end_of_run(message), expected, "{message}");
        }
    }

    /// A refusal before the logger exists is plain ASCII and is shown as it is; noise is named as such.
    #[test]
    fn text_outside_frames_is_shown() {
        let lines: Vec<String> = plain_text(b"no VMX\r\nstopped\n").into_iter().map(|line| line.text).collect();
        assert_eq!(lines, ["no VMX", "stopped"]);
        assert_eq!(plain_text(&[1, 2, 3])[0].text, "(a log frame of 3 bytes that cannot be decoded)");
    }
}
