//! The image's own command line, from the boot loader: `console=com1 log=com2 end=bochs pcpus=2`.

use core::fmt;

use heapless::String;

/// How the image runs. [`Default`] is a PC with two serial ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ImageOptions {
    /// `console=com1..com4|none`: the port that gets what the guest writes to its COM1. Without one, or where the machine
    /// does not have it, the screen gets that.
    pub console: Option<SerialPort>,
    /// `log=com1..com4|none`: the port that gets the image's log.
    pub log: Option<SerialPort>,
    /// `input=on|off`: what arrives at the console's port goes to a guest, which Ctrl-A and its number choose.
    pub input: bool,
    /// `end=bochs|acpi|reset|halt`: what the image does with the machine when the run has ended.
    pub end: End,
    /// `watchdog=on|off`: the machine's watchdog resets it when L0 stands still.
    pub watchdog: bool,
    /// `report=caps`: say what the processor offers, as a board's `vmx-caps.toml`, instead of running a guest.
    pub report_caps: bool,
    /// `selftest=entry|panic|hang`: fail in this way, to show what the log then says.
    pub self_test: Option<SelfTest>,
    /// `pcpus=N`: use at most so many processors of the machine; at least 1.
    pub pcpus: Option<u32>,
    /// `vmcs-shadowing=on|off`: whether guests that are hypervisors get the processor's VMCS shadowing, where it has it.
    pub vmcs_shadowing: bool,
    /// `apicv=on|off`: whether the processor delivers interrupts to guests by itself, where it can.
    pub apicv: bool,
    /// `xapic-id=fixed|writable`: whether guests can change their APIC ids in xAPIC mode, which is for the processor's model to
    /// say (SDM 3A 11.4.6 "Local APIC ID").
    pub writable_xapic_ids: bool,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            console: Some(SerialPort::Com1),
            log: Some(SerialPort::Com2),
            input: false,
            end: End::Acpi,
            watchdog: false,
            report_caps: false,
            self_test: None,
            pcpus: None,
            vmcs_shadowing: true,
            apicv: true,
            writable_xapic_ids: false,
        }
    }
}

/// A serial port of a PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SerialPort {
    /// COM1.
    Com1,
    /// COM2.
    Com2,
    /// COM3.
    Com3,
    /// COM4.
    Com4,
}

impl SerialPort {
    /// All of them, by number.
    pub const ALL: [Self; 4] = [Self::Com1, Self::Com2, Self::Com3, Self::Com4];

    /// Its name in options and descriptions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Com1 => "com1",
            Self::Com2 => "com2",
            Self::Com3 => "com3",
            Self::Com4 => "com4",
        }
    }

    /// The port of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|port| port.name() == name)
    }

    /// First I/O port, where PCs have always had it.
    pub const fn io_port(self) -> u16 {
        match self {
            Self::Com1 => 0x3f8,
            Self::Com2 => 0x2f8,
            Self::Com3 => 0x3e8,
            Self::Com4 => 0x2e8,
        }
    }
}

/// A failure on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SelfTest {
    /// The first VM entry breaks a rule of the manual.
    Entry,
    /// L0 panics while a guest's VMCS is current.
    Panic,
    /// L0 stands still during bring-up, unless memory has the log of a run before: so a reset comes out of it.
    Hang,
}

/// What the image does with the machine at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum End {
    /// Ends the emulator: Bochs's shutdown port.
    Bochs,
    /// Powers off through ACPI.
    Acpi,
    /// Resets the machine.
    Reset,
    /// Stops all processors.
    Halt,
}

/// A mistake in the image's command line. `Display` is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OptionsError {
    /// The word that is wrong, cut to 48 bytes.
    pub word: String<48>,
    /// What it should be.
    pub expected: &'static str,
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the image's command line has \"{}\": give {}", self.word, self.expected)
    }
}

impl core::error::Error for OptionsError {}

const PORT: &str = "com1, com2, com3, com4 or none";

impl ImageOptions {
    /// Reads the image's command line. A later option wins over an earlier one, so that a person can append. The first
    /// word is skipped if it has no `=`: some boot loaders put the image's name there.
    ///
    /// # Errors
    /// The first word that is no option, or has a value that the option does not take.
    #[inline(never)]
    pub fn parse(command_line: &str) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        for (word, index) in command_line.split_ascii_whitespace().zip(0u32..) {
            let result = match word.split_once('=') {
                None if index == 0 => Ok(()),
                Some(("console", value)) => port(value).map(|port| options.console = port),
                Some(("log", value)) => port(value).map(|port| options.log = port),
                Some(("end", value)) => end(value).map(|end| options.end = end),
                Some(("input", value)) => switch(value).map(|on| options.input = on),
                Some(("watchdog", value)) => switch(value).map(|on| options.watchdog = on),
                Some(("report", "caps")) => {
                    options.report_caps = true;
                    Ok(())
                }
                Some(("selftest", value)) => self_test(value).map(|test| options.self_test = Some(test)),
                Some(("pcpus", value)) => pcpus(value).map(|count| options.pcpus = Some(count)),
                Some(("vmcs-shadowing", value)) => switch(value).map(|on| options.vmcs_shadowing = on),
                Some(("apicv", value)) => switch(value).map(|on| options.apicv = on),
                Some(("xapic-id", "fixed" | "writable")) => {
                    options.writable_xapic_ids = word.ends_with("=writable");
                    Ok(())
                }
                _ => Err(
                    "apicv=, console=, log=, input=, end=, pcpus=, vmcs-shadowing=, watchdog=, xapic-id=, report=caps or selftest=",
                ),
            };
            result.map_err(|expected| OptionsError { word: cut(word), expected })?;
        }
        Ok(options)
    }
}

fn port(value: &str) -> Result<Option<SerialPort>, &'static str> {
    match (SerialPort::named(value), value) {
        (None, "none") => Ok(None),
        (None, _) => Err(PORT),
        (port, _) => Ok(port),
    }
}

fn end(value: &str) -> Result<End, &'static str> {
    match value {
        "bochs" => Ok(End::Bochs),
        "acpi" => Ok(End::Acpi),
        "reset" => Ok(End::Reset),
        "halt" => Ok(End::Halt),
        _ => Err("end=bochs, acpi, reset or halt"),
    }
}

fn self_test(value: &str) -> Result<SelfTest, &'static str> {
    match value {
        "entry" => Ok(SelfTest::Entry),
        "panic" => Ok(SelfTest::Panic),
        "hang" => Ok(SelfTest::Hang),
        _ => Err("selftest=entry, panic or hang"),
    }
}

fn pcpus(value: &str) -> Result<u32, &'static str> {
    value.parse().ok().filter(|count| *count > 0).ok_or("pcpus= and a number from 1 on")
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it the value on or off"),
    }
}

/// The start of `word`, as far as there is room for it.
fn cut<const N: usize>(word: &str) -> String<N> {
    let mut short = String::new();
    for character in word.chars() {
        if short.push(character).is_err() {
            break;
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each option, the image's name before them as QEMU and multiboot1 loaders put it, and the last word winning.
    #[test]
    fn options() {
        let parsed = ImageOptions::parse(
            "out/nestling.elf console=none log=com1 end=halt selftest=entry pcpus=3 vmcs-shadowing=off end=bochs \
             apicv=off \
             watchdog=on report=caps xapic-id=writable input=on",
        )
        .unwrap();
        let expected = ImageOptions {
            console: None,
            log: Some(SerialPort::Com1),
            input: true,
            end: End::Bochs,
            watchdog: true,
            report_caps: true,
            self_test: Some(SelfTest::Entry),
            pcpus: Some(3),
            vmcs_shadowing: false,
            apicv: false,
            writable_xapic_ids: true,
        };
        assert_eq!(parsed, expected);
        assert_eq!(ImageOptions::parse(" "), Ok(ImageOptions::default()));
    }

    /// A mistake is named with the word that has it.
    #[test]
    fn mistakes() {
        for (line, word) in [
            ("console=com5", "console=com5"),
            ("end=", "end="),
            ("pcpus=0", "pcpus=0"),
            ("pcpus=-1", "pcpus=-1"),
            ("verbose=1", "verbose=1"),
            ("vmcs-shadowing=1", "vmcs-shadowing=1"),
            ("apicv=auto", "apicv=auto"),
            ("watchdog=1", "watchdog=1"),
            ("xapic-id=9", "xapic-id=9"),
            ("input=yes", "input=yes"),
            ("report=all", "report=all"),
            ("selftest=all", "selftest=all"),
            ("image quiet", "quiet"),
        ] {
            let error = ImageOptions::parse(line).unwrap_err();
            assert_eq!(error.word, word);
            assert!(error.to_string().contains(word));
        }
    }

    proptest! {
        /// Any command line: options or an error, never a panic.
        #[test]
        fn any_text(line in "\\PC{0,80}") {
            let _ = ImageOptions::parse(&line);
        }
    }
}
