//! A hypervisor that means harm: two processors execute random VMX instructions with random operands, on VMCSs that they share
//! and write to as memory, and the first one enters L2 with pointers to where nobody should look. What comes of it all is only
//! told as a number, the same in every run of a machine that repeats exactly.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "random bits, and numbers below a small limit")]

use core::sync::atomic::{AtomicU64, Ordering};

use guests::vmx::instructions::{self, VmFail, VmResult, outcome};
use guests::vmx::{Current, L2, setup};
use guests::{apic, cpu, entry, exit, memory, pic, println, smp, vmx_flags};
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Encoding, ExitReason, Field};

entry!(main);

const ROUNDS: u64 = 10_000;
/// One in so many of the first processor's rounds enters L2.
const ENTER: u64 = 8;

/// VMCS regions that both processors use, the first of [`SHARED_COUNT`].
static SHARED: AtomicU64 = AtomicU64::new(0);
const SHARED_COUNT: u64 = 4;
/// What came of the second processor's rounds; 0 while it is not done.
static SECOND: AtomicU64 = AtomicU64::new(0);

fn main() {
    setup::require();
    pic::remap();
    apic::init();
    let first = setup::region();
    for _ in 1..SHARED_COUNT {
        setup::region();
    }
    SHARED.store(first, Ordering::SeqCst);
    setup::on();
    if smp::start_another(second).is_none() {
        println!("one processor only");
        exit(1);
    }
    let mut storm = Storm::new(1);
    let mut l2 = L2::new(|| _ = cpu::cpuid(0, 0));
    for _ in 0..ROUNDS {
        if storm.below(ENTER) == 0 { storm.enter(&mut l2) } else { storm.instruction() }
    }
    while SECOND.load(Ordering::SeqCst) == 0 {
        core::hint::spin_loop();
    }
    println!("outcomes {:#x} {:#x}", storm.outcomes, SECOND.load(Ordering::SeqCst));
    println!("survived {} rounds of two processors, {} of them entries that exited", 2 * ROUNDS, storm.exits);
}

fn second(_: u32) {
    setup::on();
    let mut storm = Storm::new(2);
    (0..ROUNDS).for_each(|_| storm.instruction());
    SECOND.store(storm.outcomes | 1, Ordering::SeqCst);
    cpu::stop();
}

struct Storm {
    random: u64,
    /// What came of all rounds, as one number.
    outcomes: u64,
    exits: u64,
}

impl Storm {
    const fn new(seed: u64) -> Self {
        Self { random: seed, outcomes: 0xcbf2_9ce4_8422_2325, exits: 0 }
    }

    /// The next of a sequence without a short period (xorshift, Marsaglia 2003).
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 32) % limit
    }

    fn note(&mut self, value: u64) {
        self.outcomes = (self.outcomes ^ value).wrapping_mul(0x0100_0000_01b3);
    }

    fn note_result<T: Into<u64>>(&mut self, result: VmResult<T>) {
        match result {
            Ok(value) => self.note(value.into()),
            Err(VmFail::Invalid) => self.note(u64::MAX),
            Err(VmFail::Valid(error)) => self.note(1 << 32 | u64::from(error.0)),
            Err(VmFail::Flags(flags)) => {
                println!("the flags {flags:#x} are no outcome");
                exit(1);
            }
        }
    }

    fn shared(&mut self) -> u64 {
        SHARED.load(Ordering::Relaxed) + 4096 * self.below(SHARED_COUNT)
    }

    /// Where a structure may be said to lie.
    fn pointer(&mut self) -> u64 {
        match self.below(10) {
            0 => 0xfee0_0000,
            1 => 0xfec0_0000,
            // Beyond memory, within the address width and beyond it.
            2 => 0x30_0000_0000,
            3 => 1 << 60,
            4 => u64::MAX,
            5 => self.shared() + 8 * self.below(512),
            6 => self.next(),
            // Firmware, which is not to be written.
            7 => 0xf_f000,
            _ => self.shared(),
        }
    }

    fn encoding(&mut self) -> Encoding {
        if self.below(8) == 0 {
            return Encoding(self.next() as u32);
        }
        FIELDS[self.below(FIELDS.len() as u64) as usize].encoding
    }

    /// One instruction.
    fn instruction(&mut self) {
        let pointer = self.pointer();
        match self.below(12) {
            0 => self.note_result(instructions::vmclear(pointer).map(|()| 0_u64)),
            1 | 2 => self.note_result(instructions::vmptrld(pointer).map(|()| 0_u64)),
            3 => self.note_result(instructions::vmptrst()),
            4 => {
                let encoding = self.encoding();
                self.note_result(instructions::vmread(encoding));
            }
            5 | 6 => {
                let (encoding, value) = (self.encoding(), self.next());
                self.note_result(instructions::vmwrite(encoding, value).map(|()| 0_u64));
            }
            7 => {
                let (kind, second) = (self.below(5), self.below(2) * pointer);
                self.note_result(instructions::invept(kind, [pointer, second]).map(|()| 0_u64));
            }
            8 => {
                let (kind, vpid) = (self.below(5), self.below(1 << 17));
                self.note_result(instructions::invvpid(kind, [vpid, pointer]).map(|()| 0_u64));
            }
            9 => self.note_result(instructions::vmxon(pointer).map(|()| 0_u64)),
            10 => {
                // What the shared regions hold is never sound enough for these to succeed.
                let flags = if self.below(2) == 0 { vmx_flags!("vmlaunch") } else { vmx_flags!("vmresume") };
                self.note_result(outcome(flags).map(|()| 0_u64));
            }
            // What is a VMCS to the other processor, or to this one, is memory too.
            _ => {
                let (at, value) = (self.shared() + 8 * self.below(512), self.next());
                memory::write(
                    at,
                    if self.below(2) == 0 { value } else { u64::from(setup::capabilities().basic.revision()) },
                );
            }
        }
    }

    /// An entry into a sound L2 but for one pointer.
    fn enter(&mut self, l2: &mut L2) {
        let _ = instructions::vmclear(l2.region);
        let _ = instructions::vmptrld(l2.region);
        l2.reset(|| _ = cpu::cpuid(0, 0));
        l2.launched = false;
        let pointer = self.pointer();
        let put = |field: Field<vmcs::field::W64>| Current.write(field, pointer);
        match self.below(8) {
            0 => {
                put(IO_BITMAP_A);
                l2.control(|controls| controls.primary |= PrimaryBased::USE_IO_BITMAPS);
            }
            1 => {
                put(MSR_BITMAP);
                l2.control(|controls| controls.primary |= PrimaryBased::USE_MSR_BITMAPS);
            }
            2 => {
                put(VIRTUAL_APIC_PAGE_ADDR);
                l2.control(|controls| controls.primary |= PrimaryBased::USE_TPR_SHADOW);
            }
            3 => {
                put(APIC_ACCESS_ADDR);
                l2.control(|controls| controls.secondary |= SecondaryBased::VIRTUALIZE_APIC_ACCESSES);
            }
            4 => {
                put(EPT_POINTER);
                l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_EPT);
            }
            5 => {
                // A plausible format with tables anywhere.
                Current.write(EPT_POINTER, pointer & 0xff_ffff_f000 | 0x1e);
                l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_EPT);
            }
            6 => {
                put(VM_ENTRY_MSR_LOAD_ADDR);
                Current.write(VM_ENTRY_MSR_LOAD_COUNT, 1 + self.below(3) as u32);
            }
            _ => put(VMCS_LINK_POINTER),
        }
        for _ in 0..4 {
            match l2.enter() {
                Ok(()) => {
                    self.exits += 1;
                    let reason = ExitReason::read(&Current);
                    self.note(u64::from(reason.0));
                    if reason != ExitReason::CPUID {
                        break;
                    }
                    l2.skip();
                }
                Err(failure) => {
                    self.note_result(Err::<u64, _>(failure));
                    break;
                }
            }
        }
        // No other instruction shall enter it.
        let _ = instructions::vmclear(l2.region);
    }
}
