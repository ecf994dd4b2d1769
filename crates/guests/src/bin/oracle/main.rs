//! Random VM entries: an L1 that enters VMCSs which are valid but for a few fields, and prints what each came to.
//!
//! `seed=S count=N first=I`: rounds I to I + N - 1 of seed S, one line for each; `crates/rounds` says what a round is and what
//! a line means. `cargo xtask oracle` starts it and judges the lines.
#![no_std]
#![no_main]

mod launch;

use guests::vmx::{Current, VmResult, instructions, setup};
use guests::{cpu, entry, memory, multiboot, pic, println};
use rounds::{Outcome, Round, pages};
use vmcs::fields::*;
use vmcs::{Access, Encoding, ExitReason, InstructionError};

use launch::Launched;

entry!(main);

/// What L1 runs with, and what an exit may have changed.
#[derive(Clone, Copy)]
struct Own {
    cr0: u64,
    cr4: u64,
    /// The values of [`rounds::OWN`], in their order.
    fields: [u64; rounds::OWN.len()],
}

fn main() {
    let number = |name, otherwise| multiboot::number(name).unwrap_or(otherwise);
    let (seed, count, first) = (number("seed", 1), number("count", 100), number("first", 0));
    setup::require();
    // A pending interrupt would end each L2 before its first instruction.
    pic::mask_all();
    start_vmx();
    let own = Own::get();
    println!("oracle seed={seed} first={first} count={count}");
    for index in first..first.saturating_add(count) {
        println!("{}", enter(&Round::new(seed, index), &own));
    }
    println!("done");
}

/// Fills the rounds' pages and enters VMX operation.
fn start_vmx() {
    let revision = setup::capabilities().basic.revision();
    for address in (pages::FIRST..pages::FIRST + pages::SIZE).step_by(8) {
        memory::write(address, pages::word(address, revision));
    }
    setup::prepare();
    expect("VMXON", instructions::vmxon(pages::VMXON));
}

fn expect(what: &str, result: VmResult) {
    assert!(result.is_ok(), "{what}: {result:?}");
}

impl Own {
    fn get() -> Self {
        let [gdt, idt] = launch::remember_tables();
        // SDM 3A 7.2.3 "TSS Descriptor in 64-bit mode". The table lies below 4 GiB.
        let tss = memory::read::<u64>(gdt + u64::from(entry::TSS));
        let tr_base = tss >> 16 & 0xff_ffff | tss >> 56 << 24;
        // The stack pointer is not taken from the VMCS.
        Self { cr0: cpu::cr0(), cr4: cpu::cr4(), fields: [cpu::cr3(), launch::exit_address(), 0, gdt, idt, tr_base] }
    }

    /// The value for a field that the round leaves to L1.
    fn value(&self, encoding: Encoding, value: u64) -> u64 {
        let own = rounds::OWN.iter().position(|field| field.encoding() == encoding);
        match own {
            Some(index) if value == rounds::OWN_VALUE => self.fields[index],
            _ => value,
        }
    }

    /// Puts the control registers back.
    fn restore(&self) {
        if cpu::cr0() != self.cr0 {
            cpu::write_cr0(self.cr0);
        }
        if cpu::cr4() != self.cr4 {
            cpu::write_cr4(self.cr4);
        }
    }
}

/// Makes the round.
fn enter(round: &Round, own: &Own) -> Outcome {
    for (address, word) in round.words.all() {
        memory::write(address, word);
    }
    expect("VMCLEAR", instructions::vmclear(pages::VMCS));
    expect("VMPTRLD", instructions::vmptrld(pages::VMCS));
    for (encoding, value) in round.vmcs.fields() {
        Current.write_raw(encoding, own.value(encoding, value));
    }
    match launch::launch() {
        Launched::Exited => {
            own.restore();
            exited()
        }
        Launched::Failed => Outcome::VmFail(InstructionError(Current.read(VM_INSTRUCTION_ERROR))),
    }
}

fn exited() -> Outcome {
    let word = Current.read(EXIT_REASON);
    let reason = ExitReason((word & 0xffff) as u16);
    if word >> 31 != 0 {
        Outcome::EntryFailure(reason, Current.read(EXIT_QUALIFICATION))
    } else if reason == ExitReason::EXCEPTION_OR_NMI {
        Outcome::Exit(reason, u64::from(Current.read(VM_EXIT_INTERRUPTION_INFO)) & 0xff)
    } else {
        Outcome::Exit(reason, Current.read(EXIT_QUALIFICATION))
    }
}
