//! The consoles of several guests: each one's lines in its colour, and each one's own bytes.

use config::protocol::{LINE_MARK, PART_MARK};
use config::{Config, Console, SerialPort};

/// Colours of ANSI terminals: cyan, yellow, green, magenta, blue, red.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// What came from a guest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its number in the description; none for what no guest wrote.
    pub(crate) vm: Option<usize>,
    /// Exactly what the guest sent to its COM1.
    pub(crate) bytes: Vec<u8>,
    /// What a person sees: a line with the guest's name before it; with one guest, the bytes.
    pub(crate) shown: Vec<u8>,
}

impl Piece {
    /// Bytes of the only guest.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Piece { vm: Some(0), bytes: bytes.to_vec(), shown: bytes.to_vec() }
    }
}

/// Takes the ports' bytes apart.
pub(crate) struct Consoles {
    guests: Vec<Guest>,
    /// The beginning of a line of the console port.
    shared: Vec<u8>,
}

struct Guest {
    name: String,
    console: Console,
    /// The beginning of a line, where the guest has a port of its own.
    line: Vec<u8>,
}

impl Consoles {
    /// Those of the guests of `config`.
    pub(crate) fn new(config: &Config) -> Self {
        let guest = |vm: &config::Vm| Guest { name: vm.name.to_string(), console: vm.console, line: Vec::new() };
        Consoles { guests: config.vms.iter().map(guest).collect(), shared: Vec::new() }
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.guests.iter().map(|guest| guest.name.as_str())
    }

    /// Takes what came from the console port.
    pub(crate) fn shared(&mut self, bytes: &[u8]) -> Vec<Piece> {
        if let [guest] = self.guests.as_slice()
            && guest.console == Console::Shared
        {
            return vec![Piece::raw(bytes)];
        }
        lines(&mut self.shared, bytes).map(|line| self.piece(line)).collect()
    }

    /// Takes what came from a port that one guest has for itself.
    pub(crate) fn own(&mut self, port: SerialPort, bytes: &[u8]) -> Vec<Piece> {
        let Some(vm) = self.guests.iter().position(|guest| guest.console == Console::Port(port)) else {
            return Vec::new();
        };
        let guest = &mut self.guests[vm];
        let shown = |line: &[u8]| [guest.name.as_bytes(), LINE_MARK.as_bytes(), line].concat();
        lines(&mut guest.line, bytes).map(|line| Piece { vm: Some(vm), shown: shown(&line), bytes: line }).collect()
    }

    /// Takes the end of the run: what is left are parts of lines.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let left = std::mem::take(&mut self.shared);
        pieces.extend((!left.is_empty()).then(|| self.piece(left)));
        for (vm, guest) in self.guests.iter_mut().enumerate().filter(|(_, guest)| !guest.line.is_empty()) {
            let bytes = std::mem::take(&mut guest.line);
            let shown = [guest.name.as_bytes(), PART_MARK.as_bytes(), &bytes, b"\n"].concat();
            pieces.push(Piece { vm: Some(vm), bytes, shown });
        }
        pieces
    }

    /// Whose line it is that Nestling sent on the console port.
    fn piece(&self, line: Vec<u8>) -> Piece {
        for (vm, guest) in self.guests.iter().enumerate() {
            let Some(rest) = line.strip_prefix(guest.name.as_bytes()) else { continue };
            let bytes = if let Some(whole) = rest.strip_prefix(LINE_MARK.as_bytes()) {
                whole
            } else if let Some(part) = rest.strip_prefix(PART_MARK.as_bytes()) {
                part.strip_suffix(b"\n").unwrap_or(part)
            } else {
                continue;
            };
            return Piece { vm: Some(vm), bytes: bytes.to_vec(), shown: line };
        }
        Piece { vm: None, bytes: Vec::new(), shown: line }
    }
}

/// The lines that `bytes` complete, each with its end; `rest` keeps the beginning of the next.
fn lines(rest: &mut Vec<u8>, bytes: &[u8]) -> std::vec::IntoIter<Vec<u8>> {
    let mut lines = Vec::new();
    for part in bytes.split_inclusive(|byte| *byte == b'\n') {
        rest.extend_from_slice(part);
        if part.ends_with(b"\n") {
            lines.push(std::mem::take(rest));
        }
    }
    lines.into_iter()
}

/// `line` in the colour of guest `vm`, the line's end outside of it.
pub(crate) fn coloured(vm: usize, line: &[u8]) -> Vec<u8> {
    let text = line.trim_ascii_end();
    let colour = COLOURS[vm % COLOURS.len()];
    [format!("\x1b[{colour}m").as_bytes(), text, b"\x1b[0m", &line[text.len()..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consoles(console: &str) -> Consoles {
        let text = format!(
            "[[vm]]\nname = \"a\"\nmemory-mib = 2\n[[vm]]\nname = \"ab\"\nmemory-mib = 2\n\
             [[vm]]\nname = \"c\"\nmemory-mib = 2\nconsole = \"{console}\"\n"
        );
        Consoles::new(&Config::parse(&text).unwrap())
    }

    fn bytes_of(pieces: &[Piece], vm: usize) -> String {
        let of = pieces.iter().filter(|piece| piece.vm == Some(vm));
        of.map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned()).collect()
    }

    /// Each guest's bytes come back as they were, however the port's bytes arrive.
    #[test]
    fn lines_and_parts() {
        let port = "a| one\r\nab> log\na> x| y> \nab| in: \r\na| \nnoise\nc> end\nab> cut";
        for step in [1, 7, port.len()] {
            let mut consoles = consoles("shared");
            let mut pieces: Vec<Piece> =
                port.as_bytes().chunks(step).flat_map(|bytes| consoles.shared(bytes)).collect();
            pieces.extend(consoles.finish());
            let shown: Vec<u8> = pieces.iter().flat_map(|piece| piece.shown.clone()).collect();
            assert_eq!(String::from_utf8(shown).unwrap(), port);
            let bytes = [0, 1, 2].map(|vm| bytes_of(&pieces, vm));
            assert_eq!(bytes, ["one\r\nx| y> \n", "login: \r\ncut", "end"].map(str::to_owned));
        }
    }

    /// A port of its own brings the bytes as they are; they are shown in lines.
    #[test]
    fn a_port_of_its_own() {
        let mut consoles = consoles("com3");
        let mut pieces = consoles.own(SerialPort::Com3, b"one\r\nt");
        pieces.extend(consoles.own(SerialPort::Com3, b"wo\nlogin: "));
        assert!(consoles.own(SerialPort::Com4, b"x\n").is_empty());
        pieces.extend(consoles.finish());
        assert_eq!(bytes_of(&pieces, 2), "one\r\ntwo\nlogin: ");
        let shown: Vec<u8> = pieces.iter().flat_map(|piece| piece.shown.clone()).collect();
        assert_eq!(String::from_utf8(shown).unwrap(), "c| one\r\nc| two\nc> login: \n");
    }

    /// One guest has the console port to itself.
    #[test]
    fn one_guest() {
        let mut one = Consoles::new(&Config::parse("[[vm]]\nname = \"a\"\nmemory-mib = 2\n").unwrap());
        assert_eq!(one.shared(b"login: "), [Piece::raw(b"login: ")]);
        assert!(one.finish().is_empty());
    }
}
