//! What a round may not do, because the machine or L1 would not come back from it.

use arch::control::Cr0;
use vmcs::Access;
use vmcs::controls::{EntryControls, PinBased};
use vmcs::field::{Field, W32, W64};
use vmcs::fields::*;

use crate::change::last_entry;
use crate::image::Image;
use crate::{pages, touched};

/// The shortest time for L2: below it, whether its first instruction or the timer comes first would depend on how long an
/// entry takes. 0 is no race: the exit comes before the first instruction.
const SHORTEST: u32 = 0x1000;
/// The longest time for an L2 that sleeps.
const LONGEST_SLEEP: u32 = 0x4000;

/// Takes back what must not be tried.
pub(crate) fn make(image: &mut Image) {
    sleep(image);
    exit_list(image, VM_EXIT_MSR_STORE_ADDR, VM_EXIT_MSR_STORE_COUNT, pages::EXIT_STORE);
    exit_list(image, VM_EXIT_MSR_LOAD_ADDR, VM_EXIT_MSR_LOAD_COUNT, pages::EXIT_LOAD);
    // Bochs stops the whole machine when it enters IA-32e mode with CR0.PE clear, which it does not refuse.
    if image.read(VM_ENTRY_CONTROLS) & EntryControls::IA32E_MODE_GUEST.bits() != 0 {
        image.write(GUEST_CR0, image.read(GUEST_CR0) | Cr0::PE.bits());
    }
}

/// Only the VMX-preemption timer ends an L2 that sleeps, and nothing but an INIT or SIPI from another processor one that
/// waits for a SIPI: that is entered only with an event, and then it must fail.
fn sleep(image: &mut Image) {
    let state = image.read(GUEST_ACTIVITY_STATE);
    let timer = image.read(VMX_PREEMPTION_TIMER_VALUE);
    if timer != 0 && timer < SHORTEST {
        image.write(VMX_PREEMPTION_TIMER_VALUE, SHORTEST);
    }
    if matches!(state, 1 | 2) {
        image.write(VMX_PREEMPTION_TIMER_VALUE, timer.min(LONGEST_SLEEP));
        image.write(
            PIN_BASED_VM_EXEC_CONTROL,
            image.read(PIN_BASED_VM_EXEC_CONTROL) | PinBased::ACTIVATE_PREEMPTION_TIMER.bits(),
        );
    }
    if state == 2 && !touched::HAS_SHUTDOWN {
        // An external interrupt, which shutdown does not take.
        image.write(VM_ENTRY_INTERRUPTION_INFO, 1 << 31 | 0x21);
    }
    if state == 3 {
        image.write(VM_ENTRY_INTERRUPTION_INFO, image.read(VM_ENTRY_INTERRUPTION_INFO) | 1 << 31);
    }
}

/// An error in a list of the exit is a VMX abort: the processor stops for good. A list that the entry does not refuse must
/// therefore be good.
fn exit_list(image: &mut Image, address: Field<W64>, count: Field<W32>, page: u64) {
    let start = image.read(address);
    let is_refused = start & 0xf != 0 || start >> touched::WIDTH != 0;
    if is_refused {
        return;
    }
    if start == last_entry() {
        // Two entries end beyond the width.
        if image.read(count) > 0 {
            image.write(count, 2);
        }
        return;
    }
    image.write(address, page);
    if u64::from(image.read(count)) > pages::EXIT_ENTRIES {
        image.write(count, 2);
    }
}
