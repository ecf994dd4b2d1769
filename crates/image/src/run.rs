//! What the processors do once the machine is up: the boot processor makes the guest, all run it, the boot processor
//! tells how it ended.

use boot::BootInfo;
use config::{CONFIG_MODULE, Config};
use hw::halt;
use hw::lock::Lock;
use hw::physmem;
use vcpu::Stop;
use vlapic::Reason;

use crate::end::{end, refuse};
use crate::guest;
use crate::machine::{self, Machine};
use crate::{console, end, processor};

/// The machine description: too large for a stack.
static CONFIG: Lock<Config> = Lock::new(Config::new());

/// What a run without a description runs: the embedded guest.
const DEFAULT_MEMORY_MIB: u32 = 64;

/// The boot processor, with everything up.
pub(crate) fn boot_processor(machine: &Machine) -> ! {
    console::plain(format_args!("{} processors are in VMX root operation", machine.processors));
    defmt::info!("{=u32} processors are in VMX root operation", machine.processors);
    let mut config = CONFIG.lock();
    read_config(&machine.boot, &mut config);
    let [description, ..] = config.vms.as_slice() else {
        refuse(format_args!("the configuration describes no virtual machine: give it a [[vm]] section"))
    };
    let guest =
        guest::make(description, machine.capabilities, machine.vmcs_shadowing, |name| module(&machine.boot, name))
            .unwrap_or_else(|sentence| refuse(format_args!("{sentence}")));
    defmt::info!(
        "{=str}: {=u32} MiB, {=u32} processors; L0 keeps {=u64} bytes for each, and {=u64} bytes of EPT",
        description.name.as_str(),
        description.memory_mib,
        description.cpus,
        processor::bytes_per_vcpu(&guest),
        guest.table_bytes
    );
    drop(config);
    let guest = guest::leak_one(guest).unwrap_or_else(|sentence| refuse(format_args!("{sentence}")));
    guest.processors = machine.processors;
    guest.self_test = machine.self_test;
    guest.on_bochs = machine.on_bochs;
    if !machine.apicv {
        guest.vm.inhibit_all(Reason::Disabled, true);
    }
    let guest = processor::publish(guest);
    run_here(guest);
    // The others leave their loops at the next look at the VM.
    hw::delay::until(1_000_000, || processor::done() == guest.processors);
    tell(guest)
}

/// Where every other processor begins.
pub(crate) fn processor_main() -> ! {
    // SAFETY: once on this processor, whose VMXON region was given before it was started.
    let _ = unsafe { machine::this_processor() };
    defmt::debug!("processor {=u32} is up", hw::percpu::number());
    while !end::is_ending() {
        if let Some(guest) = processor::guest() {
            run_here(guest);
            break;
        }
        console::pump();
        halt::wait();
    }
    halt::forever()
}

fn run_here(guest: &'static guest::Guest) {
    if let Err(sentence) = processor::run(guest) {
        refuse(format_args!("{sentence}"))
    }
}

/// The last lines of the log: why it ended.
fn tell(guest: &guest::Guest) -> ! {
    let stop = guest.vm.stop().unwrap_or(Stop::PowerOff);
    let unsaid = guest.vm.reports.lock().unsaid();
    if unsaid > 0 {
        defmt::info!("{=u64} more accesses to what L1's machine does not have", unsaid);
    }
    for (reason, changes, holders) in
        guest.vm.apic_changes().filter(|(_, changes, holders)| (*changes, *holders) != (0, 0))
    {
        defmt::info!(
            "help for the guest's APICs was switched off or on {=u32} times by {}, which {=u64} have at the end",
            changes,
            reason,
            holders
        );
    }
    if guest.vm.posted() > 0 {
        defmt::info!("{=u64} interrupts reached a vCPU on another processor without an exit there", guest.vm.posted());
    }
    match stop {
        Stop::PowerOff | Stop::Reset | Stop::ExitPort(_) => {}
        _ => defmt::error!("{}", stop),
    }
    console::flush();
    end(stop.status(), format_args!("{}", stop.sentence()))
}

/// The description from the boot medium, or the embedded guest.
fn read_config(boot: &BootInfo, config: &mut Config) {
    let Some(text) = module(boot, CONFIG_MODULE) else {
        let mut vm = config::Vm { memory_mib: DEFAULT_MEMORY_MIB, cpus: 1, ..config::Vm::default() };
        // The vector has room for more than one, the name for more than four characters.
        let _ = vm.name.push_str("demo");
        let _ = config.vms.push(vm);
        return;
    };
    let Ok(text) = core::str::from_utf8(text) else {
        refuse(format_args!("{CONFIG_MODULE} is not a text file: write it again as UTF-8"))
    };
    if let Err(error) = config.read(text) {
        refuse(format_args!("{CONFIG_MODULE}: {error}"))
    }
}

/// The contents of a file that the boot loader brought.
fn module(boot: &BootInfo, name: &str) -> Option<&'static [u8]> {
    let module = boot.module(name)?;
    // SAFETY: the loader put it there, the frame allocator was told to leave it alone, and nobody writes to it.
    Some(unsafe { physmem::bytes(module.start, module.len) })
}
