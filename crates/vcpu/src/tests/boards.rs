//! The machines of `boards/`: what Nestling would make of each, by what its processor said of itself.

use arch::cpuid::CpuidResult;
use arch::{Msr, Vector};
use testkit::{Board, boards};
use vmcs::controls::{ControlWord, EntryControls, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Choice, ExitReason};

use super::fakes::{Bench, of_length};
use crate::control_registers::{cr4_offered, cr4_real};
use crate::*;

/// One of the four that CPUID answers with.
type Register = fn(CpuidResult) -> u32;

/// Controls that Nestling wants and can do without, each with the instruction that it lets a guest have: a processor lacks
/// the one exactly if it lacks the other, which CPUID says (leaf, subleaf, register, bit).
const OPTIONAL: [(&str, u32, u32, Register, u32); 2] =
    [("enable INVPCID", 7, 0, |answer| answer.ebx, 10), ("enable XSAVES/XRSTORS", 0xd, 1, |answer| answer.eax, 3)];

/// A vCPU on this machine that has just come out of power-up, or for number 0 was started by a loader.
fn bench(board: &Board, index: u16) -> Bench {
    Bench::on(|leaf, subleaf| board.cpuid(leaf, subleaf), board.capabilities(), index)
}

/// The machines of [`boards`], and each once more without each of the controls that Nestling can do without.
fn machines() -> Vec<Board> {
    let optional = [
        SecondaryBased::ENABLE_VPID,
        SecondaryBased::ENABLE_RDTSCP,
        SecondaryBased::ENABLE_INVPCID,
        SecondaryBased::ENABLE_XSAVES_XRSTORS,
    ];
    let poorer = optional.into_iter().flat_map(|control| boards().into_iter().map(move |board| board.without(control)));
    boards().into_iter().chain(poorer).collect()
}

/// On every board there are controls to run L1 with, the processor accepts each word, it lacks of what is wanted just what
/// CPUID says it lacks, and no control that has a name is on because the processor insists: its exits would be nobody's.
#[test]
fn controls_suit_every_board() {
    fn check<C: ControlWord>(board: &str, choice: &Choice<C>, lacks: &[&str]) {
        let Choice { allowed0, allowed1, chosen, .. } = *choice;
        assert!(vmcs::Allowed { allowed0, allowed1 }.permits(chosen), "{board}: {}", C::NAME);
        let named =
            |word: C| C::CONTROLS.iter().filter(move |(bit, _)| word.to_bits() >> bit & 1 != 0).map(|(_, name)| *name);
        assert!(named(choice.refused()).eq(lacks.iter().copied()), "{board}: {:?} lacks", choice.refused());
        assert_eq!(named(choice.forced()).next(), None, "{board}: {} is forced", C::NAME);
    }
    for capture in boards() {
        let board = capture.name.as_str();
        let lacks: Vec<&str> = OPTIONAL
            .into_iter()
            .filter(|(_, leaf, subleaf, register, bit)| register(capture.cpuid(*leaf, *subleaf)) >> bit & 1 == 0)
            .map(|(control, ..)| control)
            .collect();
        let controls = Controls::choose(&capture.capabilities()).unwrap_or_else(|error| panic!("{board}: {error}"));
        check(board, &controls.pin, &[]);
        check(board, &controls.primary, &[]);
        check(board, &controls.secondary, &lacks);
        check(board, &controls.exit, &[]);
        check(board, &controls.entry, &[]);
        // Locked, with VMX outside SMX: Nestling refuses a machine where it is not.
        assert_eq!(capture.msrs[&Msr::FEATURE_CONTROL.0] & 0b101, 0b101, "{board}");
    }
}

/// What helps L1's APIC on every board: what the capability MSRs allow by their bits, each only with what VM entry asks for
/// beside it (SDM 3D A.3 "VM-Execution Controls"; SDM 3C 27.2.1.1 "VM-Execution Control Fields").
#[test]
fn apic_help_suits_every_board() {
    for capture in boards() {
        let may_be_1 = |msr: Msr, bit: u32| capture.msrs.get(&msr.0).is_some_and(|value| value >> (32 + bit) & 1 != 0);
        let [accesses, x2apic, registers, delivery] = [0, 4, 8, 9].map(|bit| may_be_1(Msr::VMX_PROCBASED_CTLS2, bit));
        let (tpr_shadow, posting) = (may_be_1(Msr::VMX_PROCBASED_CTLS, 21), may_be_1(Msr::VMX_PINBASED_CTLS, 7));
        let accesses = tpr_shadow && accesses;
        let delivery = accesses && registers && delivery;
        let expected = vlapic::Hardware {
            tpr_shadow,
            accesses,
            delivery,
            posting: delivery && posting,
            x2apic: tpr_shadow && x2apic,
        };
        assert_eq!(apic_hardware(&capture.capabilities()), expected, "{}", capture.name);
    }
    // The one machine of the tests that is older than APICv.
    let has_delivery = |board: &Board| apic_hardware(&board.capabilities()).delivery;
    let without: Vec<String> =
        boards().into_iter().filter(|board| !has_delivery(board)).map(|board| board.name).collect();
    assert!(without.contains(&"bochs-sandy-bridge".to_owned()) && !without.contains(&"bochs-skylake-x".to_owned()));
}

/// Our own VMCS passes every check of VM entry on every board: of the bootstrap processor after power-up and as a loader
/// leaves it, with what an exit changes, and with everything in CR4 that this CPUID lets a guest set but PCIDs, which are
/// for 64-bit mode. The fake processor checks each entry; what is not entered is checked here.
#[test]
fn bootstrap_processor_enters_on_every_board() {
    for capture in machines() {
        let mut bench = bench(&capture, 0);
        bench.cpu.exit(ExitReason::CPUID, of_length(2));
        assert_eq!(bench.run_script().len(), 2, "{}", capture.name);

        let offered = bench.vcpu.cr4_offered - arch::control::Cr4::PCIDE;
        bench.cpu.vmcs.write(GUEST_CR4, cr4_real(u64::MAX, offered));
        bench.cpu.assert_can_enter();

        bench.vcpu.reset_registers(&mut bench.cpu);
        bench.cpu.assert_can_enter();
    }
}

/// The same for another processor: after power-up, after INIT, after a start-up IPI, and once more from 64-bit mode with an
/// exception on its way in, of which INIT must leave nothing behind.
#[test]
fn started_processor_enters_on_every_board() {
    for capture in machines() {
        let mut bench = bench(&capture, 1);
        bench.cpu.assert_can_enter();
        for round in 0..2 {
            bench.world.mailbox.post_init();
            assert_eq!(bench.run(), Left::WaitsForSipi, "{}", capture.name);
            bench.cpu.assert_can_enter();
            bench.world.mailbox.post_startup(0x9f);
            bench.cpu.exit(ExitReason::CPUID, |vmcs, regs| {
                of_length(2)(vmcs, regs);
                vmcs.set_guest();
                vmcs.write(VM_ENTRY_CONTROLS, vmcs.read(VM_ENTRY_CONTROLS) | EntryControls::IA32E_MODE_GUEST.bits());
            });
            bench.run_script();
            let entry = bench.cpu.entries[2 * round];
            assert!(entry.rip == 0 && !entry.event.is_valid(), "{}", capture.name);
            bench.vcpu.injection = Some(state::Injection::exception(Vector::GP.0, Some(0)));
        }
    }
}

/// CPUID shows a feature that needs a control if, and only if, the machine has both; and a guest that CPUID tells of a CR4
/// bit can set it, because VMX operation on this machine can.
#[test]
fn cpuid_is_honest_on_every_board() {
    let features: [(&str, u32, u32, Register, u32, SecondaryBased); 6] = [
        ("RDTSCP", 0x8000_0001, 0, |r| r.edx, 27, SecondaryBased::ENABLE_RDTSCP),
        ("RDPID", 7, 0, |r| r.ecx, 22, SecondaryBased::ENABLE_RDTSCP),
        ("INVPCID", 7, 0, |r| r.ebx, 10, SecondaryBased::ENABLE_INVPCID),
        ("XSAVES", 0xd, 1, |r| r.eax, 3, SecondaryBased::ENABLE_XSAVES_XRSTORS),
        ("WAITPKG", 7, 0, |r| r.ecx, 5, SecondaryBased::ENABLE_USER_WAIT_AND_PAUSE),
        ("PCONFIG", 7, 0, |r| r.edx, 18, SecondaryBased::ENABLE_PCONFIG),
    ];
    for capture in machines() {
        let board = &capture.name;
        let bench = bench(&capture, 0);
        let chosen = SecondaryBased::from_bits_retain(bench.cpu.vmcs.read(SECONDARY_VM_EXEC_CONTROL));
        let table = &bench.vcpu.cpuid;
        for (name, leaf, subleaf, register, bit, control) in features {
            let shown = register(table.lookup(leaf, subleaf).0) >> bit & 1 != 0;
            let real = register(capture.cpuid(leaf, subleaf)) >> bit & 1 != 0;
            assert_eq!(shown, real && chosen.contains(control), "{board}: {name}");
        }
        assert_eq!(cr4_offered(table), bench.vcpu.cr4_offered, "{board}: CR4 bits, promised and real");
    }
}
