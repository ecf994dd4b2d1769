//! From the values to the text: for the host tools.

use core::fmt::{Result, Write};

use crate::vm::{Config, Console, Vm};

impl Config {
    /// Writes the text that [`Config::parse`] reads back as `self`, if every value is within its limits.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> Result {
        for (vm, index) in self.vms.iter().zip(0..) {
            if index > 0 {
                writeln!(out)?;
            }
            write_vm(vm, out)?;
        }
        Ok(())
    }
}

fn write_vm(vm: &Vm, out: &mut impl Write) -> Result {
    writeln!(out, "[[vm]]")?;
    line(out, "name", &vm.name)?;
    if let Some(kernel) = &vm.kernel {
        line(out, "kernel", kernel)?;
    }
    if !vm.kernel_name.is_empty() {
        line(out, "kernel-name", &vm.kernel_name)?;
    }
    if let Some(initrd) = &vm.initrd {
        line(out, "initrd", initrd)?;
    }
    if !vm.modules.is_empty() {
        writeln!(out, "modules = [")?;
        for module in &vm.modules {
            write!(out, "    {{ file = ")?;
            string(out, &module.file)?;
            write!(out, ", command-line = ")?;
            string(out, &module.command_line)?;
            writeln!(out, " }},")?;
        }
        writeln!(out, "]")?;
    }
    line(out, "command-line", &vm.command_line)?;
    writeln!(out, "memory-mib = {}", vm.memory_mib)?;
    writeln!(out, "cpus = {}", vm.cpus)?;
    writeln!(out, "weight = {}", vm.weight)?;
    if let Some(pin) = vm.pin {
        write!(out, "pin = [")?;
        for number in (0..u64::BITS).filter(|number| pin & 1 << number != 0) {
            write!(out, "{number}, ")?;
        }
        writeln!(out, "]")?;
    }
    writeln!(out, "exclusive = {}", vm.exclusive)?;
    writeln!(out, "nested = {}", vm.nested)?;
    let console = match vm.console {
        Console::Shared => "shared",
        Console::Port(port) => port.name(),
        Console::None => "none",
    };
    line(out, "console", console)
}

fn line(out: &mut impl Write, key: &str, value: &str) -> Result {
    write!(out, "{key} = ")?;
    string(out, value)?;
    writeln!(out)
}

/// A basic string with what must be escaped escaped (TOML 1.0.0, "String").
fn string(out: &mut impl Write, text: &str) -> Result {
    out.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\t' => out.write_str("\\t")?,
            '\0'..='\u{1f}' | '\u{7f}' => write!(out, "\\u{:04x}", u32::from(character))?,
            _ => out.write_char(character)?,
        }
    }
    out.write_char('"')
}
