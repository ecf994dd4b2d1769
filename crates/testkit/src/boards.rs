//! The machines of `boards/`: what the processor of each said of itself (`vmx-caps.toml`, written by `cargo xtask caps`).
//!
//! A test that runs over [`boards`] runs over every machine that anybody has met; a new folder is in it without an edit.

use std::collections::BTreeMap;
use std::path::Path;

use arch::Msr;
use arch::cpuid::CpuidResult;
use vmcs::Capabilities;
use vmcs::controls::SecondaryBased;

/// A machine's processor as it was captured.
#[derive(Clone, Debug)]
pub struct Board {
    /// The folder's name, and what was changed of it.
    pub name: String,
    /// IA32_FEATURE_CONTROL and the VMX capability MSRs that exist, by number.
    pub msrs: BTreeMap<u32, u64>,
    /// CPUID by leaf and subleaf.
    pub cpuid: BTreeMap<(u32, u32), CpuidResult>,
    /// Local APIC ids of the processors that firmware lists.
    pub apic_ids: Vec<u32>,
}

/// Every board with a capture, by name.
///
/// # Panics
///
/// Where a file cannot be read or is not as `cargo xtask caps` writes it.
#[expect(clippy::unwrap_used, reason = "a test that gets here is wrong, and so is the file")]
pub fn boards() -> Vec<Board> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards"));
    let mut boards: Vec<Board> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|board| board.join("vmx-caps.toml").is_file())
        .map(|board| Board::read(&board))
        .collect();
    boards.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!boards.is_empty(), "no board in {} has a capture", folder.display());
    boards
}

impl Board {
    #[expect(clippy::unwrap_used, reason = "a test that gets here is wrong, and so is the file")]
    fn read(folder: &Path) -> Self {
        let table: toml::Table = std::fs::read_to_string(folder.join("vmx-caps.toml")).unwrap().parse().unwrap();
        let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap();
        let number = |text: &str| u32::try_from(hex(text)).unwrap();
        let short = |value: &toml::Value| u32::try_from(value.as_integer().unwrap()).unwrap();
        let mut cpuid = BTreeMap::new();
        for (leaf, subleaves) in table["cpuid"].as_table().unwrap() {
            for (subleaf, answer) in subleaves.as_table().unwrap() {
                let [eax, ebx, ecx, edx] = [0, 1, 2, 3].map(|register| short(&answer[register]));
                cpuid.insert((number(leaf), number(subleaf)), CpuidResult { eax, ebx, ecx, edx });
            }
        }
        let msrs = table["msr"].as_table().unwrap();
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            msrs: msrs.iter().map(|(msr, value)| (number(msr), hex(value.as_str().unwrap()))).collect(),
            cpuid,
            apic_ids: table["acpi"]["apic-ids"].as_array().unwrap().iter().map(short).collect(),
        }
    }

    /// The machine as a hypervisor would show it that keeps a control to itself.
    #[must_use]
    pub fn without(mut self, control: SecondaryBased) -> Self {
        if let Some(controls) = self.msrs.get_mut(&Msr::VMX_PROCBASED_CTLS2.0) {
            *controls &= !(u64::from(control.bits()) << 32);
        }
        self.name = format!("{} without {control:?}", self.name);
        self
    }

    /// Its capabilities.
    ///
    /// # Panics
    ///
    /// When an MSR is read that it does not have: on the machine the RDMSR would fault.
    #[expect(clippy::panic, reason = "a test that gets here has found an error")]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::read(|msr| match self.msrs.get(&msr.0) {
            Some(value) => *value,
            None => panic!("{}: {msr:?} is read and does not exist", self.name),
        })
    }

    /// CPUID.
    ///
    /// # Panics
    ///
    /// For a leaf that was not captured.
    #[expect(clippy::panic, reason = "a test that gets here needs a capture with more in it")]
    pub fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        match self.cpuid.get(&(leaf, subleaf)) {
            Some(answer) => *answer,
            // No more caches.
            None if leaf == 4 => CpuidResult::default(),
            None => panic!("{}: CPUID {leaf:#x}.{subleaf:#x} is asked for and was not captured", self.name),
        }
    }
}
