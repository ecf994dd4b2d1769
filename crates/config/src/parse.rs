//! From the text to the values.

use heapless::{String, Vec};

use crate::error::{ConfigError, ErrorKind};
use crate::scan::Scanner;
use crate::vm::{
    Config, MAX_CPUS, MAX_FILE, MAX_MEMORY_MIB, MAX_MODULE_COMMAND_LINE, MAX_MODULES, MAX_VMS, MIN_MEMORY_MIB,
    ModuleEntry, Vm,
};

/// The keys of a `[[vm]]`, each a bit in the set of those that were seen.
const KEYS: [&str; 8] = ["name", "kernel", "kernel-name", "initrd", "modules", "command-line", "memory-mib", "cpus"];
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
        self.vms.clear();
        let mut scanner = Scanner::new(text);
        let mut open = None;
        while !scanner.at_end() {
            scanner.about("");
            scanner.blanks();
            match scanner.peek() {
                Some('[') => {
                    self.close(open)?;
                    open = Some(Open { line: scanner.line(), seen: 0, name_line: scanner.line() });
                    self.open(&mut scanner)?;
                }
                None | Some('#' | '\n' | '\r') => {}
                Some(_) => {
                    let key = scanner.bare_key()?;
                    scanner.about(key);
                    let (Some(open), Some(vm)) = (&mut open, self.vms.last_mut()) else {
                        return Err(scanner.error(ErrorKind::OutsideVm));
                    };
                    entry(&mut scanner, key, open, vm)?;
                }
            }
            scanner.end_of_line()?;
        }
        self.close(open)?;
        if self.vms.is_empty() {
            return Err(ConfigError::new(scanner.line(), "", ErrorKind::NoVm));
        }
        Ok(())
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
        self.vms.push(Vm { cpus: 1, ..Vm::default() }).map_err(|_| scanner.error(ErrorKind::TooMany { limit: MAX_VMS }))
    }

    /// Checks the last virtual machine once all of its keys have been read.
    fn close(&mut self, open: Option<Open>) -> Result<(), ConfigError> {
        let (Some(open), Some((vm, others))) = (open, self.vms.split_last_mut()) else { return Ok(()) };
        let missing = REQUIRED.iter().find(|key| !open.has(key));
        if let Some(key) = missing {
            return Err(ConfigError::new(open.line, key, ErrorKind::MissingKey));
        }
        if others.iter().any(|other| other.name == vm.name) {
            return Err(ConfigError::new(open.name_line, "name", ErrorKind::DuplicateName));
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

/// The table that is being read.
#[derive(Clone, Copy)]
struct Open {
    /// Line of its header.
    line: u32,
    /// Keys that were there: bits by position in [`KEYS`].
    seen: u32,
    /// Line of its name.
    name_line: u32,
}

impl Open {
    fn has(&self, key: &str) -> bool {
        KEYS.iter().position(|known| *known == key).is_some_and(|index| self.seen & 1 << index != 0)
    }
}

/// One `key = value` of a virtual machine, the key taken already.
fn entry(scanner: &mut Scanner<'_>, key: &str, open: &mut Open, vm: &mut Vm) -> Result<(), ConfigError> {
    let Some(index) = KEYS.iter().position(|known| *known == key) else {
        return Err(scanner.error(ErrorKind::UnknownKey));
    };
    if open.seen & 1 << index != 0 {
        return Err(scanner.error(ErrorKind::DuplicateKey));
    }
    open.seen |= 1 << index;
    equals(scanner)?;
    match key {
        "name" => {
            open.name_line = scanner.line();
            vm.name = name(scanner)?;
        }
        "kernel" => vm.kernel = Some(name(scanner)?),
        "kernel-name" => vm.kernel_name = name(scanner)?,
        "initrd" => vm.initrd = Some(name(scanner)?),
        "modules" => modules(scanner, &mut vm.modules)?,
        "command-line" => vm.command_line = scanner.string()?,
        "memory-mib" => vm.memory_mib = scanner.integer(MIN_MEMORY_MIB, MAX_MEMORY_MIB)?,
        // The last of KEYS.
        _ => vm.cpus = scanner.integer(1, MAX_CPUS)?,
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
