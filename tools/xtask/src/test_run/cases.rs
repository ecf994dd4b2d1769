//! The table of emulator tests.

use super::nested;
use crate::board::{self, Board};
use crate::guest_linux::{INIT_BOOT, INIT_EXERCISE};
use crate::places;
use crate::spec::Spec;
use anyhow::Result;
use config::{STATUS_REFUSED, STATUS_TIMEOUT};
use std::path::PathBuf;
use std::time::Duration;

/// One test in the emulator.
pub(super) struct Case {
    /// Also the name of its folder.
    pub(super) name: String,
    pub(super) kernel: Kernel,
    /// The machine and what is not a file.
    pub(super) spec: Spec,
    /// Name, contents and arguments of modules.
    pub(super) modules: Vec<(&'static str, Vec<u8>, &'static str)>,
    /// An initrd of so many zero bytes.
    pub(super) initrd_size: Option<usize>,
    /// Where it runs.
    pub(super) world: World,
    /// The status of the run.
    pub(super) status: u8,
    pub(super) expect: Vec<Expect>,
    /// Under Nestling at most so many times the ticks of the bare machine.
    pub(super) most_ticks_of_bare: Option<f64>,
    /// Only with `--long`.
    pub(super) is_long: bool,
}

/// Where a guest runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum World {
    Nestling,
    /// On the bare machine, then under Nestling, with the same expectations.
    Both,
}

/// What is booted.
pub(super) enum Kernel {
    /// The guest that Nestling carries.
    Demo,
    /// A guest of crates/guests.
    Ours(&'static str),
    /// Debian's kernel with this /init.
    Linux(&'static str),
    /// Debian's Xen, a multiboot1 kernel that is not ours; its first guest is Debian's kernel with this /init.
    Xen(&'static str),
    /// A file made for the test.
    Made(Made),
}

/// How a kernel file for a test comes about.
pub(super) enum Made {
    Bytes(Vec<u8>),
    /// The first bytes of Debian's kernel.
    TruncatedLinux(usize),
    /// The first bytes of a guest of ours.
    TruncatedGuest(&'static str, usize),
}

/// What must have come out.
pub(super) enum Expect {
    /// A text on the guest's console.
    Console(String),
    /// A text in a line of Nestling's log.
    Log(String),
    /// A text in the sentence that ends the run.
    Sentence(String),
    /// The console, line by line, as in this file.
    ConsoleIs(PathBuf),
    /// The console, line by line, as on the bare machine.
    SameAsBare,
    /// The console of the exercised Linux.
    LinuxExercise,
}

/// Seconds after which a guest hangs: many times what any takes, so that a busy machine fails none.
pub(super) const PATIENCE: u64 = 300;

pub(super) const HASWELL: &str = "bochs-haswell";
const SANDY_BRIDGE: &str = "bochs-sandy-bridge";

impl Case {
    pub(super) fn new(name: &str, board: &str, kernel: Kernel, seconds: u64) -> Result<Self> {
        let mut spec = Spec::new(Board::load(board)?);
        spec.timeout = Some(Duration::from_secs(seconds));
        Ok(Case {
            name: name.to_owned(),
            kernel,
            spec,
            modules: Vec::new(),
            initrd_size: None,
            world: World::Nestling,
            status: 0,
            expect: Vec::new(),
            most_ticks_of_bare: None,
            is_long: false,
        })
    }

    /// Whether the expectations can be those of the bare machine.
    pub(super) fn runs_bare(&self) -> bool {
        self.world == World::Both || matches!(self.kernel, Kernel::Linux(_) | Kernel::Xen(_)) && self.status == 0
    }

    /// Whether it runs bare, for each run in order.
    pub(super) fn worlds(&self, bare_only: bool) -> &'static [bool] {
        if bare_only {
            return &[true];
        }
        match self.world {
            World::Nestling => &[false],
            World::Both => &[true, false],
        }
    }

    fn refused(mut self, sentence: &str) -> Self {
        self.status = STATUS_REFUSED;
        self.expect.push(Expect::Sentence(sentence.to_owned()));
        self
    }
}

/// All tests, the longest first so that the last minutes have work for every job.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = linux()?;
    cases.extend(twins()?);
    for shadowing in [true, false] {
        cases.extend(nested::cases(&nested::BOARDS, shadowing)?);
    }
    cases.extend(multiboot()?);
    cases.extend(abuse()?);
    cases.extend(refusals()?);
    cases.extend(failures()?);
    Ok(cases)
}

/// Stock Debian Linux with and without APICv, on one and two vCPUs, and what Nestling costs it.
fn linux() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (board, short) in [(board::DEFAULT, "skylake"), (SANDY_BRIDGE, "sandy-bridge")] {
        for cpus in [1, 2] {
            let name = format!("linux-{short}-{cpus}-vcpu");
            let mut case = Case::new(&name, board, Kernel::Linux(INIT_EXERCISE), 900)?;
            case.spec.cpus = cpus;
            case.expect.push(Expect::LinuxExercise);
            cases.push(case);
        }
    }
    let mut case = Case::new("linux-boot-ticks", board::DEFAULT, Kernel::Linux(INIT_BOOT), 600)?;
    case.world = World::Both;
    case.expect.push(Expect::Console("user space reached".to_owned()));
    case.most_ticks_of_bare = Some(1.15);
    cases.push(case);
    Ok(cases)
}

/// Guests that print the same on the bare machine and under Nestling: what lies beside them.
fn twins() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (guest, cpus, expected) in [
        ("hello", 1, "hello.expected"),
        ("smp", 1, "smp.expected"),
        ("smp", 2, "smp.2.expected"),
        ("timers", 1, "timers.expected"),
        ("machine", 1, "machine.expected"),
    ] {
        let mut case = Case::new(&format!("{guest}-{cpus}-skylake"), board::DEFAULT, Kernel::Ours(guest), PATIENCE)?;
        case.world = World::Both;
        case.spec.cpus = cpus;
        let path = places::workspace().join("crates/guests/src/bin").join(expected);
        case.expect.extend([Expect::ConsoleIs(path), Expect::SameAsBare]);
        cases.push(case);
    }
    // Other processors. Nestling's guests have two features everywhere that Sandy Bridge of Bochs has not.
    let without = "without-x2apic without-tsc_adjust";
    for (board, short, words) in [(HASWELL, "haswell", ""), (SANDY_BRIDGE, "sandy-bridge", without)] {
        for (guest, cpus) in [("hello", 1), ("smp", 1), ("smp", 2), ("timers", 1), ("machine", 1)] {
            let mut case = Case::new(&format!("{guest}-{cpus}-{short}"), board, Kernel::Ours(guest), PATIENCE)?;
            case.world = World::Both;
            case.spec.cpus = cpus;
            case.spec.cmdline = words.to_owned();
            case.expect.push(Expect::SameAsBare);
            cases.push(case);
        }
    }
    // And without APICv, what these two features do is what they do elsewhere.
    for guest in ["timers", "machine"] {
        let mut case = Case::new(&format!("{guest}-all-sandy-bridge"), SANDY_BRIDGE, Kernel::Ours(guest), PATIENCE)?;
        let path = places::workspace().join(format!("crates/guests/src/bin/{guest}.expected"));
        case.expect.push(Expect::ConsoleIs(path));
        cases.push(case);
    }
    Ok(cases)
}

/// What a multiboot1 kernel is given, and the status it leaves.
fn multiboot() -> Result<Vec<Case>> {
    let mut demo = Case::new("demo", board::DEFAULT, Kernel::Demo, PATIENCE)?;
    demo.expect.push(Expect::Log("end of run: status 0".to_owned()));

    let mut status = Case::new("hello-exit-status", board::DEFAULT, Kernel::Ours("hello"), PATIENCE)?;
    status.world = World::Both;
    status.spec.cmdline = "first second exit=42".to_owned();
    status.modules = vec![("data.bin", b"123456789".to_vec(), "one two"), ("more.bin", vec![7; 70_000], "")];
    status.status = 42;
    for line in [
        "arguments: first second exit=42",
        // FNV-1a, 32 bits, of "123456789" is BB86B11C.
        "module 0: data.bin one two; 9 bytes, checksum bb86b11c",
        "module 1: more.bin; 70000 bytes",
    ] {
        status.expect.push(Expect::Console(line.to_owned()));
    }

    // With Debian's Linux and its initramfs as modules: both command lines, the modules and the machine must be right.
    let mut xen = Case::new("xen-with-linux", board::DEFAULT, Kernel::Xen(INIT_BOOT), 900)?;
    xen.spec.lenient_msrs = true;
    xen.spec.cmdline = "com1=115200,8n1 console=com1 dom0_mem=256M".to_owned();
    // Xen leaves out its own name where the loader is not GRUB, as QEMU's is not.
    for line in ["com1=115200,8n1 console=com1 dom0_mem=256M", "*** Building a PV Dom0 ***", "user space reached"] {
        xen.expect.push(Expect::Console(line.to_owned()));
    }
    Ok(vec![demo, status, xen])
}

/// A guest that does what no kernel should: the fault that the manual names, or its VM stopped with a sentence.
fn abuse() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for name in [
        "outside_memory",
        "unknown_port",
        "unknown_msr",
        "wild_cr",
        "cpuid_storm",
        "msr_storm",
        "port_storm",
        "mmio_storm",
        "mmio_storm_ioapic",
        "icr_storm",
        "apic_base_moved",
        "jump_nowhere",
    ] {
        let mut case = Case::new(&format!("abuse-{name}"), board::DEFAULT, Kernel::Ours("abuse"), PATIENCE)?;
        case.spec.cmdline = name.to_owned();
        case.expect.push(Expect::Console("\nsurvived\n".to_owned()));
        let log = match name {
            "jump_nowhere" => Some("where its machine has no memory: #UD"),
            "outside_memory" => Some("where its machine has nothing"),
            "unknown_msr" => Some("which its machine does not have: #GP"),
            _ => None,
        };
        case.expect.extend(log.map(|text| Expect::Log(text.to_owned())));
        let expected = places::workspace().join(format!("crates/guests/src/bin/abuse.{name}.expected"));
        if expected.is_file() {
            case.expect.push(Expect::ConsoleIs(expected));
        }
        cases.push(case);
    }
    for (name, status, sentence) in [
        ("triple_fault", STATUS_REFUSED, "triple fault"),
        ("idt_outside", STATUS_REFUSED, "stopped"),
        ("gdt_outside", STATUS_REFUSED, "stopped"),
        ("cr3_outside", STATUS_REFUSED, "page tables"),
        ("stack_outside", STATUS_REFUSED, "stopped"),
        ("hlt_if0", STATUS_REFUSED, "interrupts off"),
        ("endless_loop", STATUS_TIMEOUT, "time limit"),
        ("jump_apic", STATUS_REFUSED, "jumped into the registers of a device"),
        ("apic_over_memory", STATUS_REFUSED, "moved the registers of a local APIC over its memory"),
        ("mmio_other shl", STATUS_REFUSED, "does not emulate"),
        ("mmio_other movups", STATUS_REFUSED, "does not emulate"),
        ("mmio_other fxsave", STATUS_REFUSED, "does not emulate"),
        ("init_self", STATUS_REFUSED, "INIT"),
        ("keyboard_reset", 0, "reset"),
    ] {
        let seconds = if status == STATUS_TIMEOUT { 20 } else { PATIENCE };
        let mut case =
            Case::new(&format!("abuse-{}", name.replace(' ', "-")), board::DEFAULT, Kernel::Ours("abuse"), seconds)?;
        case.spec.cmdline = name.to_owned();
        case.status = status;
        case.expect.push(Expect::Sentence(sentence.to_owned()));
        cases.push(case);
    }
    Ok(cases)
}

/// What Nestling refuses: one clear sentence, status 125, the machine stopped.
fn refusals() -> Result<Vec<Case>> {
    let hello = || Kernel::Ours("hello");
    let mut cases = vec![
        Case::new("refusal-qemu-no-vmx", "qemu-q35", Kernel::Demo, PATIENCE)?.refused("VMX"),
        Case::new("refusal-unknown-kernel", board::DEFAULT, Kernel::Made(Made::Bytes(vec![0x90; 9000])), PATIENCE)?
            .refused("kernel"),
        Case::new("refusal-empty-kernel", board::DEFAULT, Kernel::Made(Made::Bytes(Vec::new())), PATIENCE)?
            .refused("kernel"),
        Case::new("refusal-truncated-linux", board::DEFAULT, Kernel::Made(Made::TruncatedLinux(100_000)), PATIENCE)?
            .refused("truncated"),
        Case::new(
            "refusal-truncated-multiboot",
            board::DEFAULT,
            Kernel::Made(Made::TruncatedGuest("hello", 9000)),
            PATIENCE,
        )?
        .refused("truncated"),
    ];
    let mut amd = Case::new("refusal-amd", board::DEFAULT, hello(), PATIENCE)?.refused("VMX");
    amd.spec.cpu_model = Some("ryzen".to_owned());
    cases.push(amd);
    let mut old =
        Case::new("refusal-no-unrestricted-guest", board::DEFAULT, hello(), PATIENCE)?.refused("unrestricted guest");
    // Lynnfield has EPT and no unrestricted guest; Penryn has VMX without EPT.
    old.spec.cpu_model = Some("corei5_lynnfield_750".to_owned());
    cases.push(old);
    let mut older = Case::new("refusal-no-ept", board::DEFAULT, hello(), PATIENCE)?.refused("EPT");
    older.spec.cpu_model = Some("core2_penryn_t9600".to_owned());
    cases.push(older);
    let mut locked = Case::new("refusal-vmx-locked-off", board::DEFAULT, hello(), PATIENCE)?.refused("firmware");
    locked.spec.vmx_locked_off = true;
    cases.push(locked);
    let mut small = Case::new("refusal-too-little-memory", board::DEFAULT, hello(), PATIENCE)?.refused("memory");
    small.spec.machine_memory = Some(128);
    cases.push(small);
    let mut initrd =
        Case::new("refusal-initrd-does-not-fit", board::DEFAULT, Kernel::Linux(INIT_BOOT), PATIENCE)?.refused("initrd");
    // The kernel takes 72 MiB of the 96.
    initrd.initrd_size = Some(40 << 20);
    initrd.spec.memory = 96;
    cases.push(initrd);
    Ok(cases)
}

/// What Nestling says of its own failures.
fn failures() -> Result<Vec<Case>> {
    let demo = |name: &str, word| -> Result<Case> {
        let mut case = Case::new(name, board::DEFAULT, Kernel::Demo, PATIENCE)?;
        case.spec.image_words = vec![word];
        Ok(case)
    };
    let mut entry = demo("failure-vm-entry", "selftest=entry")?.refused("VM entry failed");
    // The rule that is broken, and the state.
    entry.expect.extend(["RFLAGS", "GUEST_RIP"].map(|text| Expect::Log(text.to_owned())));
    let mut panic = demo("failure-panic", "selftest=panic")?.refused("selftest=panic");
    panic.expect.push(Expect::Log("GUEST_RIP".to_owned()));
    let option = demo("refusal-image-option", "verbose=1")?.refused("verbose=1");
    Ok(vec![entry, panic, option])
}
