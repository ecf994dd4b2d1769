//! The end of a run: a last message with status and reason, then what the command line says about the machine.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use boot::acpi::PowerManagement;
use config::{END_OF_RUN, End, STATUS_REFUSED};
use heapless::String;
use hw::lock::Lock;
use hw::{apic, halt, percpu};

use crate::{console, kept, log};

static HOW: AtomicU8 = AtomicU8::new(0);
static POWER: Lock<Option<PowerManagement>> = Lock::new(None);
static ENDING: AtomicBool = AtomicBool::new(false);

/// Sets what [`end`] does with the machine.
pub(crate) fn set_how(end: End) {
    let how = match end {
        End::Halt => 0,
        End::Bochs => 1,
        End::Acpi => 2,
        End::Reset => 3,
    };
    HOW.store(how, Ordering::Relaxed);
}

/// Tells how the machine is switched off and reset.
pub(crate) fn set_power(power: PowerManagement) {
    *POWER.lock() = Some(power);
}

/// Whether the run is over: a processor that sees this halts.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::Acquire)
}

/// Ends the run with a reason that is put together.
pub(crate) fn end(status: u32, reason: fmt::Arguments<'_>) -> ! {
    if ENDING.swap(true, Ordering::AcqRel) {
        // Another processor was first, and its reason counts.
        halt::forever();
    }
    for number in (0..).take(hw::layout::MAX_PROCESSORS) {
        if number != percpu::number() {
            apic::kick(number);
        }
    }
    let mut text: String<240> = String::new();
    // A reason that is too long is cut off.
    let _ = fmt::write(&mut text, reason);
    log::abandon_frame();
    console::seize();
    console::plain(format_args!("{END_OF_RUN}{status}: {text}"));
    console::flush();
    defmt::println!("end of run: status {=u32}: {=str}", status, text.as_str());
    console::flush();
    kept::ended();
    machine_ends()
}

/// Refuses to go on: `reason` is one clear sentence.
pub(crate) fn refuse(reason: fmt::Arguments<'_>) -> ! {
    end(u32::from(STATUS_REFUSED), reason)
}

fn machine_ends() -> ! {
    let power = POWER.try_lock().and_then(|power| *power);
    match HOW.load(Ordering::Relaxed) {
        // SAFETY: the run is over, and the command line says that this is Bochs.
        1 => unsafe { hw::power::bochs_off() },
        2 => {
            if let Some(power) = power {
                // SAFETY: the run is over; the values come from the machine's ACPI tables.
                unsafe { hw::power::acpi_off(&power) };
            }
        }
        // SAFETY: the run is over; the register comes from the machine's ACPI tables.
        3 => unsafe { hw::power::reset(power.and_then(|power| power.reset)) },
        _ => console::unwatch(),
    }
    halt::forever()
}
