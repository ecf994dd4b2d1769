//! From the text to the values.

use heapless::{String, Vec};

use crate::error::{ConfigError, ErrorKind};
use crate::options::SerialPort;
use crate::scan::Scanner;
use crate::vm::{
    Config, Console, MAX_CPUS, MAX_FILE, MAX_MEMORY_MIB, MAX_MODULE_COMMAND_LINE, MAX_MODULES, MAX_PROCESSOR, MAX_VMS,
    MAX_WEIGHT, MIN_MEMORY_MIB, ModuleEntry, Vm,
};

/// The keys of a `[[vm]]`, each a bit in the set of those that were seen.
const KEYS: [&str; 13] = [
    "name",
    "kernel",
    "kernel-name",
    "initrd",
    "modules",
    "command-line",
    "memory-mib",
    "cpus",
    "weight",
    "pin",
    "exclusive",
    "nested",
    "console",
];
/// Those that must be there.
const REQUIRED: [&str; 2] = ["name", "memory-mib"];

impl Config {
    /// Reads a machine description.
    ///
    /// # Errors
    /// The first mistake in the text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::new();
        config.read(text)?;
        Ok(config)
    }

    /// Reads a machine description into `self`, without a copy of it on the stack. What was there is dropped; after an
    /// error, `self` holds what stood before the mistake.
    ///
    /// # Errors
    /// The first mistake in the text.
    pub fn read(&mut self, text: &str) -> Result<(), ConfigError> {
        self.tables(text).map(drop)
    }

    /// Reads all tables, and tells where each key stands.
    pub(crate) fn tables(&mut self, text: &str) -> Result<Vec<Table, MAX_VMS>, ConfigError> {
        self.vms.clear();
        let mut tables: Vec<Table, MAX_VMS> = Vec::new();
        let mut scanner = Scanner::new(text);
        while !scanner.at_end() {
            scanner.about("");
            scanner.blanks();
            match scanner.peek() {
                Some('[') => {
                    self.close(&tables)?;
                    let table = Table { line: scanner.line(), keys: [0; KEYS.len()] };
                    self.open(&mut scanner)?;
                    // There is room for as many tables as virtual machines.
                    let _ = tables.push(table);
                }
                None | Some('#' | '\n' | '\r') => {}
                Some(_) => {
                    let key = scanner.bare_key()?;
                    scanner.about(key);
                    let (Some(table), Some(vm)) = (tables.last_mut(), self.vms.last_mut()) else {
                        return Err(scanner.error(ErrorKind::OutsideVm));
                    };
                    entry(&mut scanner, key, table, vm)?;
                }
            }
            scanner.end_of_line()?;
        }
        self.close(&tables)?;
        if self.vms.is_empty() {
            return Err(ConfigError::new(scanner.line(), "", ErrorKind::NoVm));
        }
        Ok(tables)
    }

    /// Takes a table's header and appends a virtual machine.
    fn open(&mut self, scanner: &mut Scanner<'_>) -> Result<(), ConfigError> {
        let unknown = |scanner: &Scanner<'_>| scanner.error(ErrorKind::UnknownTable);
        if !scanner.take("[[") {
            return Err(unknown(scanner));
        }
        scanner.blanks();
        if scanner.bare_key()? != "vm" {
            return Err(unknown(scanner));
        }
        scanner.blanks();
        scanner.expect("]]", "]]")?;
        scanner.about("vm");
        self.vms.push(Vm::default()).map_err(|_| scanner.error(ErrorKind::TooMany { limit: MAX_VMS }))
    }

    /// Checks the last virtual machine once all of its keys have been read.
    fn close(&mut self, tables: &[Table]) -> Result<(), ConfigError> {
        let (Some(table), Some((vm, others))) = (tables.last(), self.vms.split_last_mut()) else { return Ok(()) };
        let missing = REQUIRED.iter().find(|key| !table.has(key));
        if let Some(key) = missing {
            return Err(table.error(key, ErrorKind::MissingKey));
        }
        if others.iter().any(|other| other.name == vm.name) {
            return Err(table.error("name", ErrorKind::DuplicateName));
        }
        if vm.exclusive && vm.pin.is_none() {
            return Err(table.error("exclusive", ErrorKind::NotPinned));
        }
        if vm.kernel_name.is_empty()
            && let Some(kernel) = &vm.kernel
        {
            // A command line has room for a file's name.
            let _ = vm.kernel_name.push_str(kernel);
        }
        Ok(())
    }
}

/// Where a table stands.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    /// Line of its header.
    line: u32,
    /// Lines of its keys, as in [`KEYS`]; 0 where there is none.
    keys: [u32; KEYS.len()],
}

impl Table {
    fn has(&self, key: &str) -> bool {
        self.line_of(key) != 0
    }

    fn line_of(&self, key: &str) -> u32 {
        KEYS.iter().zip(self.keys).find(|(known, _)| **known == key).map_or(0, |(_, line)| line)
    }

    /// An error about `key`, at its line, or at the table's where it is absent.
    pub(crate) fn error(&self, key: &str, kind: ErrorKind) -> ConfigError {
        let line = if self.has(key) { self.line_of(key) } else { self.line };
        ConfigError::new(line, key, kind)
    }
}

/// One `key = value` of a virtual machine, the key taken already.
fn entry(scanner: &mut Scanner<'_>, key: &str, table: &mut Table, vm: &mut Vm) -> Result<(), ConfigError> {
    let Some(index) = KEYS.iter().position(|known| *known == key) else {
        return Err(scanner.error(ErrorKind::UnknownKey));
    };
    if table.keys[index] != 0 {
        return Err(scanner.error(ErrorKind::DuplicateKey));
    }
    table.keys[index] = scanner.line();
    equals(scanner)?;
    match key {
        "name" => vm.name = vm_name(scanner)?,
        "kernel" => vm.kernel = Some(name(scanner)?),
        "kernel-name" => vm.kernel_name = name(scanner)?,
        "initrd" => vm.initrd = Some(name(scanner)?),
        "modules" => modules(scanner, &mut vm.modules)?,
        "command-line" => vm.command_line = scanner.string()?,
        "memory-mib" => vm.memory_mib = scanner.integer(MIN_MEMORY_MIB, MAX_MEMORY_MIB)?,
        "cpus" => vm.cpus = scanner.integer(1, MAX_CPUS)?,
        "weight" => vm.weight = scanner.integer(1, MAX_WEIGHT)?,
        "pin" => vm.pin = Some(processors(scanner)?),
        "exclusive" => vm.exclusive = scanner.boolean()?,
        "nested" => vm.nested = scanner.boolean()?,
        // The last of KEYS.
        _ => vm.console = console(scanner)?,
    }
    Ok(())
}

fn equals(scanner: &mut Scanner<'_>) -> Result<(), ConfigError> {
    scanner.blanks();
    scanner.expect("=", "=")?;
    scanner.blanks();
    Ok(())
}

/// A string that is not empty.
fn name<const N: usize>(scanner: &mut Scanner<'_>) -> Result<String<N>, ConfigError> {
    let name = scanner.string()?;
    if name.is_empty() { Err(scanner.error(ErrorKind::Empty)) } else { Ok(name) }
}

/// A name that can stand before a line of text, and be a file's.
fn vm_name<const N: usize>(scanner: &mut Scanner<'_>) -> Result<String<N>, ConfigError> {
    let name = name(scanner)?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_plain { Ok(name) } else { Err(scanner.error(ErrorKind::Expected("a name of letters, digits, - and _"))) }
}

/// An array of processors' numbers, not empty.
fn processors(scanner: &mut Scanner<'_>) -> Result<u64, ConfigError> {
    scanner.expect("[", "a list in brackets")?;
    let mut processors = 0;
    loop {
        scanner.blanks_and_lines()?;
        if processors != 0 && scanner.take("]") {
            return Ok(processors);
        }
        processors |= 1 << scanner.integer(0, MAX_PROCESSOR)?;
        scanner.blanks_and_lines()?;
        if !scanner.take(",") {
            return scanner.expect("]", "a comma or ]").map(|()| processors);
        }
    }
}

/// Where a COM1 comes out.
fn console(scanner: &mut Scanner<'_>) -> Result<Console, ConfigError> {
    let name: String<MAX_FILE> = scanner.string()?;
    match (name.as_str(), SerialPort::named(&name)) {
        ("shared", _) => Ok(Console::Shared),
        ("none", _) => Ok(Console::None),
        (_, Some(port)) => Ok(Console::Port(port)),
        _ => Err(scanner.error(ErrorKind::Expected("\"shared\", \"none\" or \"com1\" to \"com4\""))),
    }
}

/// An array of inline tables.
fn modules(scanner: &mut Scanner<'_>, modules: &mut Vec<ModuleEntry, MAX_MODULES>) -> Result<(), ConfigError> {
    scanner.expect("[", "a list in brackets")?;
    loop {
        scanner.blanks_and_lines()?;
        if scanner.take("]") {
            return Ok(());
        }
        let module = module(scanner)?;
        modules.push(module).map_err(|_| scanner.error(ErrorKind::TooMany { limit: MAX_MODULES }))?;
        scanner.blanks_and_lines()?;
        if !scanner.take(",") {
            return scanner.expect("]", "a comma or ]");
        }
    }
}

/// `{ file = "...", command-line = "..." }`.
fn module(scanner: &mut Scanner<'_>) -> Result<ModuleEntry, ConfigError> {
    scanner.expect("{", "{ file = \"...\", command-line = \"...\" }")?;
    let mut file: Option<String<MAX_FILE>> = None;
    let mut command_line: Option<String<MAX_MODULE_COMMAND_LINE>> = None;
    loop {
        scanner.blanks();
        scanner.about("modules");
        let key = scanner.bare_key()?;
        scanner.about(key);
        let twice = match key {
            "file" => file.is_some(),
            "command-line" => command_line.is_some(),
            _ => return Err(scanner.error(ErrorKind::UnknownKey)),
        };
        if twice {
            return Err(scanner.error(ErrorKind::DuplicateKey));
        }
        equals(scanner)?;
        if key == "file" {
            file = Some(name(scanner)?);
        } else {
            command_line = Some(scanner.string()?);
        }
        scanner.about("modules");
        scanner.blanks();
        if !scanner.take(",") {
            scanner.expect("}", "a comma or }")?;
            break;
        }
    }
    let Some(file) = file else {
        return Err(ConfigError::new(scanner.line(), "file", ErrorKind::MissingKey));
    };
    // A file's name is never longer than what is told about it may be.
    let told = command_line.or_else(|| String::try_from(file.as_str()).ok()).unwrap_or_default();
    Ok(ModuleEntry { file, command_line: told })
}

const _: () = assert!(MAX_FILE <= MAX_MODULE_COMMAND_LINE);
