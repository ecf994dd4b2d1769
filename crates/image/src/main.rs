//! The image: the order in which the machine comes up, on one page.
#![no_std]
#![no_main]

mod caps;
mod console;
mod cpu;
mod dump;
mod end;
mod failed_entry;
mod guest;
mod guest_console;
mod guest_memory;
mod input;
mod kept;
mod log;
mod machine;
mod memory;
mod panic;
mod processor;
mod reports;
mod resident;
mod run;
mod scheduler;
mod screen;
mod tables;
mod vm;
mod world;

use boot::MemoryMap;
use boot::acpi::AcpiMachine;
use config::{ImageOptions, SelfTest};
use end::refuse;
use hw::physmem::AtBoot;
use hw::watchdog::Watchdog;
use hw::{apic, cpuid, idt, percpu, pic, tsc, vmx};
use kept::Before;
use machine::Machine;

/// The first Rust: called by the entry code on the boot stack, with what the boot loader left in EAX and EBX.
///
/// # Safety
/// Called once, by the entry code.
#[unsafe(no_mangle)]
unsafe extern "sysv64" fn boot_main(magic: u32, info: u32) -> ! {
    // SAFETY: first of all, on the boot processor.
    unsafe { percpu::install_boot() };
    tsc::note_start();
    // SAFETY: once, before any other processor runs.
    unsafe { idt::fill() };
    // SAFETY: the table was just filled.
    unsafe { idt::load() };
    // SAFETY: L0 uses the local APICs only.
    unsafe { pic::mask() };

    // SAFETY: the page tables are those of the first moments until `own_page_tables`, and the value is not used later.
    let memory = unsafe { AtBoot::new() };
    // SAFETY: as above.
    let info = match unsafe { machine::boot_information(magic, info, &memory) } {
        Ok(info) => info,
        Err(error) => {
            console::open(&ImageOptions::default());
            machine::calibrate(None);
            refuse(format_args!("{error}"))
        }
    };
    let options = ImageOptions::parse(&info.command_line);
    let chosen = options.as_ref().copied().unwrap_or_default();
    let place = machine::place_of_kept_log(&info);
    // SAFETY: once, before anything is logged; the memory is taken out of what is free.
    let before = place.map_or(Before::Nothing, |place| unsafe { kept::begin(place) });
    console::open(&chosen);
    end::set_how(chosen.end);
    // SAFETY: the page tables are still those of the first moments.
    let screen = unsafe { machine::open_screen(&info, magic == boot::MULTIBOOT1_MAGIC, &memory) };
    let acpi = boot::acpi::discover(&memory, info.rsdp.as_deref());
    let pm_timer = acpi.as_ref().ok().and_then(|acpi| acpi.pm.pm_timer);
    let (tsc_hz, source) = machine::calibrate(pm_timer);
    let acpi_error = acpi.as_ref().err().copied();
    let acpi = acpi.unwrap_or_default();
    end::set_power(acpi.pm);
    if let Err(error) = options {
        refuse(format_args!("{error}"))
    }

    let brand = cpuid::brand();
    let brand = brand.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    let brand = core::str::from_utf8(brand).unwrap_or_default();
    console::plain(format_args!("Nestling {}, booted by {}", env!("CARGO_PKG_VERSION"), info.boot_loader_name));
    defmt::info!("Nestling {=str}, booted by {=str}", env!("CARGO_PKG_VERSION"), info.boot_loader_name.as_str());
    say_before(before);
    defmt::info!("{=str}", brand);
    defmt::info!("TSC {=u64} Hz, {=str}", tsc_hz, source.name());
    let usable = acpi.cpus.iter().filter(|cpu| cpu.usable).count();
    defmt::info!("the firmware lists {=usize} processors", usable);
    if apic::firmware_chose_x2apic() {
        defmt::info!("the firmware has switched x2APIC on");
    }
    if let Some(error) = acpi_error {
        defmt::warn!("one processor only, and no power-off: {}", defmt::Display2Format(&error));
    }
    if chosen.watchdog {
        // SAFETY: the page tables are still those of the first moments; firmware has no use for the watchdog any more.
        match unsafe { Watchdog::start() } {
            Some(watchdog) => console::watch(watchdog),
            None => defmt::warn!("watchdog=on: this chipset has no watchdog that Nestling knows"),
        }
    }
    if chosen.self_test == Some(SelfTest::Hang) && before == Before::Nothing {
        defmt::warn!("selftest=hang: standing still");
        console::flush();
        hw::halt::forever();
    }
    let map = MemoryMap::normalise(&info.memory).unwrap_or_else(|error| refuse(format_args!("{error}")));
    for range in map.usable() {
        defmt::info!("memory {=u64:#x} to {=u64:#x}", range.start, range.end);
    }
    if chosen.report_caps && cpuid::has_vmx() {
        report_caps(brand, &acpi);
    }
    if let Err(refusal) = vmx::check() {
        refuse(format_args!("{}", refusal.sentence()))
    }
    if !cpuid::has_nx() {
        refuse(format_args!(
            "this processor has no execute-disable pages, or its firmware has switched them off: enable them"
        ))
    }

    machine::take_memory(&info, &map, place).unwrap_or_else(|error| refuse(format_args!("{error}")));
    const NO_MEMORY: &str = "too little memory: there is none for Nestling's page tables";
    // SAFETY: once, by the boot processor, on the boot stack.
    let mut tables =
        unsafe { machine::own_page_tables(&map, screen) }.unwrap_or_else(|_| refuse(format_args!("{NO_MEMORY}")));
    if machine::give_vmxon_region(0, &mut hw::frames::FRAMES.lock()).is_err() {
        refuse(format_args!("{NO_MEMORY}"))
    }
    // SAFETY: once on this processor, whose VMXON region was just given.
    let capabilities = unsafe { machine::this_processor() };
    let apic_ids = acpi.cpus.iter().filter(|cpu| cpu.usable).map(|cpu| cpu.apic_id);
    let limit = chosen.pcpus.map_or(usize::MAX, |count| count as usize);
    // SAFETY: once, by the boot processor, which has all of its own now.
    let processors = unsafe { machine::start_processors(&mut tables, &map, apic_ids, limit) };
    run::boot_processor(&Machine {
        boot: info,
        capabilities,
        on_bochs: chosen.end == config::End::Bochs,
        ports: [chosen.console, chosen.log],
        self_test: chosen.self_test,
        vmcs_shadowing: chosen.vmcs_shadowing,
        apicv: chosen.apicv,
        writable_xapic_ids: chosen.writable_xapic_ids,
        processors,
    })
}

/// Tells of the run before this one: its log follows on the log's port, its sentences on the screen.
fn say_before(before: Before) {
    if before != Before::StoodStill {
        return;
    }
    defmt::warn!("the run before this one did not end: what it logged stands above");
    console::plain(format_args!("the run before this one did not end; its last lines were:"));
    let mut line: heapless::String<160> = heapless::String::new();
    kept::text_before(|byte| {
        if byte == b'\n' || line.push(char::from(byte)).is_err() {
            console::plain(format_args!("| {line}"));
            line.clear();
        }
    });
}

/// Writes what the processor offers to the console, and ends the run.
fn report_caps(brand: &str, acpi: &AcpiMachine) -> ! {
    if caps::write(&mut console::Text::new(), brand, acpi).is_err() {
        refuse(format_args!("a line of the report is too long: this machine has more processors than it has room for"))
    }
    end::end(0, format_args!("what this processor offers is on the console"))
}
