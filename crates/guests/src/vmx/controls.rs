//! The five control words of an L2.

use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::{
    CPU_BASED_VM_EXEC_CONTROL, PIN_BASED_VM_EXEC_CONTROL, SECONDARY_VM_EXEC_CONTROL, VM_ENTRY_CONTROLS,
    VM_EXIT_CONTROLS,
};
use vmcs::{Access, Capabilities, MissingControls};

use super::Current;

/// Controls that shall be 1; all others are 0 unless the processor insists.
#[derive(Clone, Copy, Debug, Default)]
pub struct Controls {
    /// Pin-based VM-execution controls.
    pub pin: PinBased,
    /// Primary processor-based VM-execution controls.
    pub primary: PrimaryBased,
    /// Secondary processor-based VM-execution controls.
    pub secondary: SecondaryBased,
    /// VM-exit controls.
    pub exit: ExitControls,
    /// VM-entry controls.
    pub entry: EntryControls,
}

impl Controls {
    /// What a 64-bit guest of a 64-bit host cannot do without.
    pub fn of_64_bit() -> Self {
        Self { exit: ExitControls::HOST_ADDRESS_SPACE_SIZE, entry: EntryControls::IA32E_MODE_GUEST, ..Self::default() }
    }

    /// Whether the processor has all of them.
    pub fn check(&self, capabilities: &Capabilities) -> Result<(), MissingControls> {
        capabilities.pin.choose(self.pin, PinBased::empty())?;
        capabilities.primary.choose(self.primary, PrimaryBased::empty())?;
        capabilities.secondary.choose(self.secondary, SecondaryBased::empty())?;
        capabilities.exit.choose(self.exit, ExitControls::empty())?;
        capabilities.entry.choose(self.entry, EntryControls::empty())?;
        Ok(())
    }

    /// Writes the words to the current VMCS, with what the processor insists on.
    pub fn write(&self, capabilities: &Capabilities) {
        let mut primary = self.primary;
        if !self.secondary.is_empty() {
            primary |= PrimaryBased::ACTIVATE_SECONDARY_CONTROLS;
        }
        let mut current = Current;
        current.write(PIN_BASED_VM_EXEC_CONTROL, (self.pin | capabilities.pin.allowed0).bits());
        current.write(CPU_BASED_VM_EXEC_CONTROL, (primary | capabilities.primary.allowed0).bits());
        if primary.contains(PrimaryBased::ACTIVATE_SECONDARY_CONTROLS) {
            current.write(SECONDARY_VM_EXEC_CONTROL, (self.secondary | capabilities.secondary.allowed0).bits());
        }
        current.write(VM_EXIT_CONTROLS, (self.exit | capabilities.exit.allowed0).bits());
        current.write(VM_ENTRY_CONTROLS, (self.entry | capabilities.entry.allowed0).bits());
    }
}
