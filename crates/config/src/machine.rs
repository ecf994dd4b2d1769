//! Whether a machine can run what a description wants of it.

use crate::error::{ConfigError, ErrorKind};
use crate::options::SerialPort;
use crate::parse::Table;
use crate::vm::{Config, Console, MAX_CPUS, Vm};

/// What there is.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// Processors, from 1 to 64.
    pub processors: u32,
    /// Memory for virtual machines, in MiB.
    pub memory_mib: u64,
    /// Serial ports that the image uses itself: its console and its log.
    pub ports: [Option<SerialPort>; 2],
    /// Whether the boot medium has a file of this name.
    pub has_file: &'a dyn Fn(&str) -> bool,
}

impl Config {
    /// Reads a machine description as [`Config::read`] does, for this machine.
    ///
    /// # Errors
    /// The first mistake in the text, or the first thing that the machine does not have.
    #[inline(never)]
    pub fn read_for(&mut self, text: &str, machine: &Machine<'_>) -> Result<(), ConfigError> {
        let tables = self.tables(text)?;
        let mut total = Total { cpus: 0, memory_mib: 0 };
        for (index, (vm, table)) in self.vms.iter().zip(&tables).enumerate() {
            files(vm, table, machine)?;
            total.add(vm, table, machine)?;
            self.pinning(index, table, machine)?;
            let taken = self.vms[..index].iter().any(|other| other.console == vm.console);
            if let Console::Port(port) = vm.console
                && (taken || machine.ports.contains(&Some(port)))
            {
                return Err(table.error("console", ErrorKind::PortTaken));
            }
        }
        Ok(())
    }

    /// The processors, of the first `processors` of the machine, on which virtual machine `index` may run: a bit each.
    pub fn processors_of(&self, index: usize, processors: u32) -> u64 {
        let there = u64::MAX >> (64 - processors.clamp(1, 64));
        let others = self.vms.iter().enumerate().filter(|(other, vm)| *other != index && vm.exclusive);
        let taken = others.fold(0, |taken, (_, vm)| taken | vm.pin.unwrap_or(0));
        self.vms.get(index).map_or(0, |vm| vm.pin.unwrap_or(there) & there & !taken)
    }

    fn pinning(&self, index: usize, table: &Table, machine: &Machine<'_>) -> Result<(), ConfigError> {
        let pin = self.vms[index].pin.unwrap_or(0);
        let highest = pin.checked_ilog2().unwrap_or(0);
        if highest >= machine.processors {
            let kind = ErrorKind::NoProcessor { number: highest, processors: machine.processors };
            return Err(table.error("pin", kind));
        }
        let earlier = self.vms[..index].iter().filter(|vm| vm.exclusive && self.vms[index].exclusive);
        let shared = earlier.fold(0, |shared, vm| shared | vm.pin.unwrap_or(0) & pin);
        if shared != 0 {
            return Err(table.error("pin", ErrorKind::NotExclusive { number: shared.trailing_zeros() }));
        }
        if self.processors_of(index, machine.processors) == 0 {
            return Err(table.error("pin", ErrorKind::NowhereToRun));
        }
        Ok(())
    }
}

/// What the virtual machines so far have together.
struct Total {
    cpus: u32,
    memory_mib: u64,
}

impl Total {
    fn add(&mut self, vm: &Vm, table: &Table, machine: &Machine<'_>) -> Result<(), ConfigError> {
        self.cpus += vm.cpus;
        if self.cpus > MAX_CPUS {
            return Err(table.error("cpus", ErrorKind::TooManyCpus { limit: MAX_CPUS }));
        }
        self.memory_mib += u64::from(vm.memory_mib);
        if self.memory_mib > machine.memory_mib {
            return Err(table.error("memory-mib", ErrorKind::TooMuchMemory { mib: machine.memory_mib }));
        }
        Ok(())
    }
}

fn files(vm: &Vm, table: &Table, machine: &Machine<'_>) -> Result<(), ConfigError> {
    let modules = vm.modules.iter().map(|module| ("modules", module.file.as_str()));
    let others = [("kernel", &vm.kernel), ("initrd", &vm.initrd)];
    let others = others.into_iter().filter_map(|(key, file)| Some((key, file.as_deref()?)));
    match others.chain(modules).find(|(_, file)| !(machine.has_file)(file)) {
        Some((key, _)) => Err(table.error(key, ErrorKind::NoFile)),
        None => Ok(()),
    }
}
