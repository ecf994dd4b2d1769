//! The emulator's wrong RIP is put right, and a right one is left alone.

use arch::GuestMemory;
use arch::GuestPhys;
use arch::control::Efer;
use vmcs::controls::EntryControls;
use vmcs::fields::*;
use vmcs::{Access, ExitReason};

use super::fakes::Bench;

const STACK: u64 = 0x8000;
const IDT: u64 = 0x9000;
const HANDLER: u64 = 0xffff_8000_1234_5678;
const FAULTED: u64 = 0x40_00b4;

/// A page fault of ring 3 was delivered, then the preemption timer ended the run: RIP is still that of the instruction
/// that faulted, and on top of the stack lies the frame that returns there. Where the frame returns elsewhere, or
/// interrupts are on, RIP is right.
#[test]
fn rip_from_before_the_delivery_becomes_the_handlers() {
    for (frame_rip, flags, expected) in
        [(FAULTED, 0x10002, HANDLER), (FAULTED + 4, 0x10002, FAULTED), (FAULTED, 0x10202, FAULTED)]
    {
        let mut bench = Bench::new(0);
        let word = |at: u64, value: u64| bench.world.memory.write(GuestPhys(at), &value.to_le_bytes()).unwrap();
        // The first 2 MiB are mapped to themselves.
        word(0x2000, 0x3007);
        word(0x3000, 0x4007);
        word(0x4000, 0x87);
        for (index, value) in (0..).zip([6, frame_rip, 0x33, 0x10202, 0x7fff_0000, 0x2b]) {
            word(STACK + index * 8, value);
        }
        word(IDT + 14 * 16, 0x1234_8e00_0010_5678);
        word(IDT + 14 * 16 + 8, HANDLER >> 32);
        bench.cpu.exit(ExitReason::PREEMPTION_TIMER, move |vmcs, _| {
            vmcs.write(GUEST_CR3, 0x2000);
            vmcs.write(GUEST_CR4, vmcs.read(GUEST_CR4) | 1 << 5);
            vmcs.write(GUEST_CR0, vmcs.read(GUEST_CR0) | 1 << 31);
            vmcs.write(GUEST_IA32_EFER, (Efer::LME | Efer::LMA).bits());
            vmcs.write(VM_ENTRY_CONTROLS, vmcs.read(VM_ENTRY_CONTROLS) | EntryControls::IA32E_MODE_GUEST.bits());
            vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xa09b);
            vmcs.write(GUEST_IDTR_BASE, IDT);
            vmcs.write(GUEST_RFLAGS, flags);
            vmcs.write(GUEST_RSP, STACK);
            vmcs.write(GUEST_RIP, FAULTED);
        });
        assert_eq!(bench.run_script()[1].rip, expected);
    }
}
