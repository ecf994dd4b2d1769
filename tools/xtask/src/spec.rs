//! What is to run: a machine, a guest, and whether Nestling is between them. Made by `run`, `test` and `bench` alike.

use crate::board::{Board, Boot, Emulator, Firmware};
use crate::bochs;
use crate::build::Built;
use crate::defmt_log::Decoder;
use crate::described::Described;
use crate::emulator::{Listener, Outcome, Session};
use crate::grub::{GUESTS, Menu};
use crate::image;
use crate::kernel_file::{self, Kind};
use crate::keys::Wire;
use crate::medium;
use crate::places;
use crate::qemu;
use anyhow::{Context, Result, bail};
use config::vm::MAX_MODULES;
use config::{CONFIG_MODULE, Config, ModuleEntry, Vm};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What Nestling itself needs beside its guest's memory and files, in MiB.
pub(crate) const OWN_MEMORY: u64 = 64;
const MIB: u64 = 1 << 20;
/// The guest that Nestling carries within itself, and that runs when no other is given.
const DEMO: &str = "demo";
/// Where the image lies on a medium.
pub(crate) const IMAGE: &str = "boot/nestling";
/// Names of boot modules.
const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";

/// A run that was described completely.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) board: Board,
    /// Another CPU model than the board's.
    pub(crate) cpu_model: Option<String>,
    /// Without Nestling.
    pub(crate) bare: bool,
    /// None runs the demo guest.
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) initrd: Option<PathBuf>,
    /// Each "FILE" or "FILE ARGUMENTS".
    pub(crate) modules: Vec<String>,
    pub(crate) cmdline: String,
    /// The guest's processors.
    pub(crate) cpus: u32,
    /// The guest's memory in MiB.
    pub(crate) memory: u32,
    /// The machine's processors; the guest's number unless said otherwise.
    pub(crate) pcpus: Option<u32>,
    /// How many instructions a processor of Bochs executes in a microsecond of the machine's time.
    pub(crate) mips: u32,
    /// The machine's memory in MiB, where a test wants less than a guest would be given.
    pub(crate) machine_memory: Option<u32>,
    /// On the bare machine, unknown MSRs read as zero; see [`bochs::Machine`]. A bzImage gets that unasked.
    pub(crate) lenient_msrs: bool,
    /// The firmware of a test's machine locks VMX off.
    pub(crate) vmx_locked_off: bool,
    /// More words for the image's command line, from a test.
    pub(crate) image_words: Vec<&'static str>,
    /// Commands for GRUB before it loads anything, from a test.
    pub(crate) grub_commands: Vec<&'static str>,
    /// The image, cut to so many bytes by a test.
    pub(crate) image_bytes: Option<usize>,
    /// The guests that a file describes, instead of the one above.
    pub(crate) described: Option<Described>,
    /// Another machine description than the one that is made, from a test.
    pub(crate) config_text: Option<&'static str>,
    /// Keys go to the guests.
    pub(crate) input: bool,
    /// The machine starts again after a reset.
    pub(crate) restarts: bool,
    pub(crate) timeout: Option<Duration>,
}

impl Spec {
    /// The demo guest on a board, to be changed from there.
    pub(crate) fn new(board: Board) -> Self {
        Spec {
            board,
            cpu_model: None,
            bare: false,
            kernel: None,
            initrd: None,
            modules: Vec::new(),
            cmdline: String::new(),
            cpus: 1,
            memory: 512,
            pcpus: None,
            mips: bochs::MIPS,
            machine_memory: None,
            lenient_msrs: false,
            vmx_locked_off: false,
            image_words: Vec::new(),
            grub_commands: Vec::new(),
            image_bytes: None,
            described: None,
            config_text: None,
            input: false,
            restarts: false,
            timeout: None,
        }
    }

    /// With these guests.
    pub(crate) fn with(mut self, described: Described) -> Self {
        self.cpus = described.cpus();
        self.memory = described.memory();
        self.described = Some(described);
        self
    }

    /// Finds what would fail later: files that cannot be read, options that do not go together.
    pub(crate) fn check(&self) -> Result<()> {
        readable("the kernel", self.kernel.as_deref())?;
        readable("the initrd", self.initrd.as_deref())?;
        for module in &self.modules {
            readable("the module", Some(Path::new(module_file(module))))?;
        }
        if self.kernel.is_none() {
            let unused = [
                (self.initrd.is_some(), "--initrd"),
                (!self.modules.is_empty(), "--module"),
                (!self.cmdline.is_empty(), "--cmdline"),
            ];
            if let Some((_, option)) = unused.iter().find(|(is_given, _)| *is_given) {
                bail!("{option} needs --kernel: the demo guest takes none");
            }
        }
        let name = &self.board.name;
        let boot = self.board.boot;
        match self.board.emulator {
            Emulator::None => bail!(
                "{name} is a real machine: `cargo xtask pxe {name}` and `cargo xtask usb {name}` make what it boots from; \
                 boards/README.md says how"
            ),
            Emulator::QemuKvm => {
                if let Some(why) = qemu::kvm_is_missing() {
                    bail!("{name} needs KVM with nesting, and {why}; the boards of Bochs run anywhere");
                }
            }
            Emulator::Bochs if boot == Boot::Kernel => bail!("{name} is Bochs, which boots by no --boot kernel"),
            Emulator::Bochs if self.board.firmware == Firmware::Uefi => bail!("{name} is Bochs, which has a BIOS only"),
            Emulator::Bochs | Emulator::Qemu => {}
        }
        if self.mips != bochs::MIPS && self.board.emulator != Emulator::Bochs {
            bail!("--mips is for Bochs: {name} is as quick as it is");
        }
        if matches!(boot, Boot::Ipxe | Boot::Kernel) && self.board.firmware == Firmware::Uefi {
            bail!("UEFI boots by GRUB: choose --boot grub-iso, grub-usb or grub-pxe");
        }
        if matches!(boot, Boot::Ipxe | Boot::Kernel) && self.bare {
            bail!("--bare boots by GRUB: choose --boot grub-iso, grub-usb or grub-pxe");
        }
        Ok(())
    }

    /// Makes the boot medium in `dir`, starts the machine and follows it to its end. The medium is removed afterwards.
    pub(crate) fn run(&self, built: &Built, dir: &Path, listener: &mut dyn Listener) -> Result<Outcome> {
        let (menu, kind) =
            if self.bare { self.bare_menu(built)? } else { (self.nestling_menu(built)?, Kind::Multiboot) };
        medium::write(&menu, self.board.boot, dir)?;
        let made = Made::From { menu: &menu, kind };
        let outcome = self.start(built, dir, &made, listener);
        medium::remove(dir);
        outcome
    }

    /// Starts the machine with the boot medium in `dir` and follows it to its end.
    pub(crate) fn start(
        &self,
        built: &Built,
        dir: &Path,
        made: &Made<'_>,
        listener: &mut dyn Listener,
    ) -> Result<Outcome> {
        let decoder = if self.bare { None } else { Some(Decoder::new(&places::read(&built.image()?)?)?) };
        let wire = self.input.then(|| Wire::new(&dir.join("com1"))).transpose()?;
        let session = Session {
            command: self.machine(made, dir, wire.as_ref().map(|wire| wire.address().to_owned()))?,
            dir,
            decoder,
            is_qemu: matches!(self.board.emulator, Emulator::Qemu | Emulator::QemuKvm),
            timeout: self.timeout,
            wire,
        };
        session.run(listener)
    }

    /// The emulator's name of the processor.
    pub(crate) fn model(&self) -> Result<&str> {
        self.cpu_model.as_deref().or(self.board.cpu_model.as_deref()).context("the board has no CPU model")
    }

    /// The emulator's command for this machine.
    fn machine(&self, made: &Made<'_>, dir: &Path, com1_socket: Option<String>) -> Result<Command> {
        let cpu_model = self.model()?;
        let (payload, kernel, lenient_msrs) = match made {
            Made::There => (0, Default::default(), false),
            Made::From { menu, kind } => (
                menu.size().div_ceil(MIB),
                menu.kernel_arguments(medium::TREE),
                *kind == Kind::Linux || self.bare && self.lenient_msrs,
            ),
        };
        let cpus = if self.bare { self.cpus } else { self.pcpus.unwrap_or(self.cpus) };
        let memory = match self.machine_memory {
            Some(memory) => memory,
            // The bare machine is what the guest would see; Nestling's machine has room for both.
            None if self.bare => self.memory,
            None => {
                let own = self.described.as_ref().map_or(OWN_MEMORY, Described::own_memory);
                u32::try_from((u64::from(self.memory) + own + payload).next_multiple_of(32))?
            }
        };
        if let Some(most) = self.board.memory.filter(|most| memory > *most) {
            bail!(
                "--memory {}: the machine would need {memory} MiB, and {} has at most {most}",
                self.memory,
                self.board.name
            );
        }
        let Board { boot, firmware, emulator, .. } = self.board;
        let more_ports = self.described.as_ref().map_or(Vec::new(), Described::own_ports);
        match emulator {
            Emulator::Bochs => {
                let vmx_locked_off = self.vmx_locked_off;
                let machine = bochs::Machine {
                    cpu_model,
                    cpus,
                    memory,
                    mips: self.mips,
                    lenient_msrs,
                    vmx_locked_off,
                    boot,
                    more_ports,
                    com1_socket,
                };
                bochs::command(&machine, dir)
            }
            Emulator::Qemu | Emulator::QemuKvm => {
                let kvm = emulator == Emulator::QemuKvm;
                let restarts = self.restarts;
                let machine = qemu::Machine {
                    cpu_model,
                    cpus,
                    memory,
                    kvm,
                    firmware,
                    boot,
                    kernel,
                    restarts,
                    more_ports,
                    com1_socket,
                    tap: None,
                };
                qemu::command(&machine, dir)
            }
            Emulator::None => bail!("{} is a real machine", self.board.name),
        }
    }

    /// GRUB loads the guest itself.
    fn bare_menu(&self, built: &Built) -> Result<(Menu, Kind)> {
        let mut menu = Menu::default();
        let demo = built.guest("demo");
        let (path, name) = match &self.kernel {
            Some(path) => (path.clone(), path.display().to_string()),
            None => (demo, "demo".to_owned()),
        };
        let kernel = places::read(&path)?;
        let mut words = Vec::new();
        let kind = kernel_file::kind(&path, &kernel)?;
        match kind {
            Kind::Linux => {
                words.extend(self.cmdline.split_whitespace());
                menu.load("linux", "guest/kernel", kernel, &words);
                if let Some(initrd) = &self.initrd {
                    menu.load("initrd", "guest/initrd", places::read(initrd)?, &[]);
                }
                if !self.modules.is_empty() {
                    bail!("--module is for multiboot kernels; {} is a Linux kernel", path.display());
                }
            }
            Kind::Multiboot => {
                // GRUB leaves out the file's name, which QEMU and Nestling put before the text.
                words.push(name.as_str());
                words.extend(self.cmdline.split_whitespace());
                menu.load("multiboot", "guest/kernel", kernel, &words);
                let initrd = self.initrd.as_ref().map(|path| path.display().to_string());
                for (index, module) in initrd.iter().chain(&self.modules).enumerate() {
                    let bytes = places::read(Path::new(module_file(module)))?;
                    let words: Vec<&str> = module.split_whitespace().collect();
                    menu.load("module", &format!("guest/module{index}"), bytes, &words);
                }
            }
        }
        Ok((menu, kind))
    }

    /// The boot loader loads Nestling, and everything of the guest as modules.
    pub(crate) fn nestling_menu(&self, built: &Built) -> Result<Menu> {
        let pcpus = format!("pcpus={}", self.pcpus.unwrap_or(self.cpus));
        let words = image_words(&self.board);
        let input = self.input.then_some("input=on");
        let words: Vec<&str> = words
            .iter()
            .map(String::as_str)
            .chain([pcpus.as_str()])
            .chain(input)
            .chain(self.image_words.iter().copied())
            .collect();
        let mut menu =
            Menu { before: self.grub_commands.iter().map(|&line| line.to_owned()).collect(), ..Menu::default() };
        let mut image = image::loadable(places::read(&built.image()?)?)?;
        image.truncate(self.image_bytes.unwrap_or(usize::MAX));
        menu.load("multiboot2", IMAGE, image, &words);
        if let Some(described) = &self.described {
            described.load(&mut menu)?;
            return Ok(menu);
        }
        let mut text = String::new();
        match self.config_text {
            Some(given) => text.push_str(given),
            None => self.description()?.write(&mut text).context("the machine description cannot be written")?,
        }
        menu.load("module2", CONFIG_MODULE, text.into_bytes(), &[CONFIG_MODULE]);
        for (name, path) in self.boot_modules() {
            menu.load("module2", &format!("{GUESTS}/{name}"), places::read(path)?, &[&name]);
        }
        Ok(menu)
    }

    /// The guest's files, with the names that they have among the boot modules.
    fn boot_modules(&self) -> Vec<(String, &Path)> {
        let kernel = self.kernel.as_deref().map(|path| (KERNEL.to_owned(), path));
        let initrd = self.initrd.as_deref().map(|path| (INITRD.to_owned(), path));
        let modules = self.modules.iter().enumerate();
        let modules = modules.map(|(index, module)| (module_name(index), Path::new(module_file(module))));
        kernel.into_iter().chain(initrd).chain(modules).collect()
    }

    /// The machine description.
    fn description(&self) -> Result<Config> {
        // The name that QEMU puts first on a multiboot kernel's command line: the file's as the user gave it.
        let name = self.kernel.as_ref().map_or(DEMO.to_owned(), |path| path.display().to_string());
        let mut modules = heapless::Vec::new();
        for (index, module) in self.modules.iter().enumerate() {
            let entry =
                ModuleEntry { file: fit(&module_name(index), "--module")?, command_line: fit(module, "--module")? };
            if modules.push(entry).is_err() {
                bail!("--module: at most {MAX_MODULES} modules");
            }
        }
        let vm = Vm {
            name: fit("l1", "the name")?,
            kernel: self.kernel.is_some().then(|| fit(KERNEL, "--kernel")).transpose()?,
            kernel_name: fit(&name, "--kernel")?,
            initrd: self.initrd.is_some().then(|| fit(INITRD, "--initrd")).transpose()?,
            modules,
            command_line: fit(&self.cmdline, "--cmdline")?,
            memory_mib: self.memory,
            cpus: self.cpus,
            ..Vm::default()
        };
        let mut description = Config::new();
        if description.vms.push(vm).is_err() {
            bail!("a machine description holds no virtual machine");
        }
        Ok(description)
    }
}

/// The boot medium in a run's folder.
pub(crate) enum Made<'a> {
    /// It was put there before.
    There,
    /// It was made from this.
    From { menu: &'a Menu, kind: Kind },
}

/// What the image is told of its board.
pub(crate) fn image_words(board: &Board) -> Vec<String> {
    let mut words = vec![
        format!("console={}", board.console.name()),
        format!("log={}", board.log.name()),
        format!("end={}", board.end.name()),
    ];
    words.extend(board.watchdog.then(|| "watchdog=on".to_owned()));
    words
}

fn module_name(index: usize) -> String {
    format!("module{index}")
}

/// A text in the room that the machine description has for it.
fn fit<const N: usize>(text: &str, option: &str) -> Result<heapless::String<N>> {
    heapless::String::try_from(text).map_err(|_| {
        anyhow::anyhow!("{option}: {} bytes are too many, at most {N} fit into the machine description", text.len())
    })
}

/// The file of "FILE ARGUMENTS".
fn module_file(module: &str) -> &str {
    module.split_whitespace().next().unwrap_or(module)
}

fn readable(what: &str, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    if path.is_dir() {
        bail!("{what} {} is a folder", path.display());
    }
    std::fs::File::open(path).map(drop).with_context(|| format!("{what} {} cannot be read", path.display()))
}
