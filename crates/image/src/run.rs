//! What the processors do once the machine is up: the boot processor makes the virtual machines, all run them, the one that
//! runs the last one to its end tells how they ended.

use boot::BootInfo;
use config::{CONFIG_MODULE, Config};
use heapless::Vec;
use hw::frames::FRAMES;
use hw::halt;
use hw::lock::Lock;
use hw::physmem;
use loader::e820::MIB;
use sched::{Member, Set, place};
use vcpu::Stop;
use vlapic::Reason;

use crate::end::{end, refuse};
use crate::guest::{self, Guest, Sentence, leak_one, sentence};
use crate::machine::{self, Machine};
use crate::scheduler::{self, Scheduler};
use crate::vm::Numbers;
use crate::{console, guest_console, processor, resident};

/// The machine description: too large for a stack.
static CONFIG: Lock<Config> = Lock::new(Config::new());

/// What a run without a description runs: the embedded guest.
const DEFAULT_MEMORY_MIB: u32 = 64;
/// Memory that L0 keeps for itself when it judges a description, in MiB: for vCPUs, tables, and what alignment loses.
const OWN_MEMORY_MIB: u64 = 8;

/// The boot processor, with everything up.
pub(crate) fn boot_processor(machine: &Machine) -> ! {
    console::plain(format_args!("{} processors are in VMX root operation", machine.processors));
    defmt::info!("{=u32} processors are in VMX root operation", machine.processors);
    let mut config = CONFIG.lock();
    read_config(machine, &mut config);
    let all = make(machine, &config).unwrap_or_else(|sentence| refuse(format_args!("{sentence}")));
    drop(config);
    processor::run(all.publish())
}

/// Where every other processor begins.
pub(crate) fn processor_main() -> ! {
    // SAFETY: once on this processor, whose VMXON region was given before it was started.
    let _ = unsafe { machine::this_processor() };
    defmt::debug!("processor {=u32} is up", hw::percpu::number());
    while !crate::end::is_ending() {
        if let Some(all) = scheduler::get() {
            processor::run(all);
        }
        console::pump();
        halt::wait();
    }
    halt::forever()
}

/// Makes all virtual machines, and puts their vCPUs into queues.
fn make(machine: &Machine, config: &Config) -> Result<&'static mut Scheduler, Sentence> {
    let mut guests = Vec::new();
    let mut members = Vec::<Member, { sched::MAX_VCPUS }>::new();
    for (vm, description) in config.vms.iter().enumerate() {
        // The description was judged: there are at most 64 vCPUs, and at most as many machines as there is room for.
        let numbers = Numbers { vm, first_vcpu: u16::try_from(members.len()).unwrap_or(u16::MAX) };
        guest_console::register(&description.name, description.console);
        let made = guest::make(description, numbers, machine, |name| module(&machine.boot, name));
        let guest = made.map_err(|why| sentence(format_args!("{}: {why}", description.name)))?;
        defmt::info!(
            "{=str}: {=u32} MiB, {=u32} processors; L0 keeps {=u64} bytes for each, and {=u64} bytes of EPT",
            description.name.as_str(),
            description.memory_mib,
            description.cpus,
            resident::bytes_per_vcpu(&guest),
            guest.table_bytes
        );
        if !machine.apicv {
            guest.vm.inhibit_all(Reason::Disabled, true);
        }
        let _ = guests.push(&*leak_one(guest)?);
        let allowed = Set(config.processors_of(vm, machine.processors));
        for vcpu in (numbers.first_vcpu..).take(description.cpus as usize) {
            let vm = u16::try_from(vm).unwrap_or(u16::MAX);
            let _ = members.push(Member { vcpu, vm, weight: description.weight, allowed });
        }
    }
    let homes = place(&members, machine.processors)
        .map_err(|homeless| sentence(format_args!("virtual processor {} has nowhere to run", homeless.vcpu)))?;
    let all = leak_one(Scheduler::new(guests, &members, machine.processors)?)?;
    for (member, home) in members.iter().zip(homes) {
        let rivals = members.iter().filter(|other| other.allowed.0 & member.allowed.0 != 0).count();
        all.add(member, home, rivals > member.allowed.0.count_ones() as usize)?;
    }
    Ok(all)
}

/// The last vCPU of `guest` has stopped.
#[cold]
pub(crate) fn virtual_machine_ended(all: &Scheduler, guest: &Guest) {
    guest_console::ended(guest.vm.numbers.vm);
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
    if guest.vm.posted_to_l2() > 0 {
        defmt::info!(
            "{=u64} posts of L1 reached an L2 on another processor without an exit there",
            guest.vm.posted_to_l2()
        );
    }
    if stop.is_forced() {
        defmt::error!("{}", stop);
    }
    // SAFETY: its vCPUs have all stopped, and nobody else uses its memory.
    unsafe { guest.vm.memory.give_back() };
    defmt::info!("VM {=str} ended: status {=u32}: {=str}", guest.name.as_str(), stop.status(), stop.sentence());
    if all.one_ended() {
        console::flush();
        tell(all)
    }
}

/// All virtual machines have ended: the status of the run. One alone gives its own; of several the first counts, in the
/// order of their description, that did not end with 0, and its number is the status.
fn tell(all: &Scheduler) -> ! {
    let stops = all.guests.iter().map(|guest| (guest, guest.vm.stop().unwrap_or(Stop::PowerOff)));
    match (all.guests.as_slice(), stops.zip(1..).find(|((_, stop), _)| stop.status() != 0)) {
        ([_], Some(((_, stop), _))) => end(stop.status(), format_args!("{}", stop.sentence())),
        ([guest], None) => end(0, format_args!("{}", guest.vm.stop().unwrap_or(Stop::PowerOff).sentence())),
        (_, Some(((guest, stop), number))) => {
            end(number, format_args!("{} ended with status {}: {}", guest.name, stop.status(), stop.sentence()))
        }
        (guests, None) => end(0, format_args!("all {} virtual machines ended with status 0", guests.len())),
    }
}

/// The description from the boot medium, or the embedded guest.
fn read_config(machine: &Machine, config: &mut Config) {
    let Some(text) = module(&machine.boot, CONFIG_MODULE) else {
        let mut vm = config::Vm { memory_mib: DEFAULT_MEMORY_MIB, cpus: 1, ..config::Vm::default() };
        // The vector has room for more than one, the name for more than four characters.
        let _ = vm.name.push_str("demo");
        let _ = config.vms.push(vm);
        return;
    };
    let Ok(text) = core::str::from_utf8(text) else {
        refuse(format_args!("{CONFIG_MODULE} is not a text file: write it again as UTF-8"))
    };
    let there = config::Machine {
        processors: machine.processors,
        memory_mib: (FRAMES.lock().free_bytes() / MIB).saturating_sub(OWN_MEMORY_MIB),
        ports: machine.ports,
        has_file: &|name| machine.boot.module(name).is_some(),
    };
    if let Err(error) = config.read_for(text, &there) {
        refuse(format_args!("{CONFIG_MODULE}: {error}"))
    }
}

/// The contents of a file that the boot loader brought.
fn module(boot: &BootInfo, name: &str) -> Option<&'static [u8]> {
    let module = boot.module(name)?;
    // SAFETY: the loader put it there, the frame allocator was told to leave it alone, and nobody writes to it.
    Some(unsafe { physmem::bytes(module.start, module.len) })
}
