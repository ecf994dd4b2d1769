//! The virtual-APIC page: the registers as the processor reads and writes them while the guest runs.
//!
//! SDM 3C 30.1 "Virtual APIC State". Interrupts pending and in service and the task priority are true here, and only here,
//! while the processor works on them; what else a guest may read is a copy. [`LocalApic::take_back`] and
//! [`LocalApic::lend`] move them between here and the APIC, so that an exit that has nothing to do with the APIC costs
//! nothing.

use core::sync::atomic::{AtomicU32, Ordering};

use arch::apic::Register;

use crate::apicv::Assist;
use crate::icr;
use crate::identity::Mode;
use crate::local_apic::LocalApic;
use crate::registers::{Access, access};
use crate::vectors::VectorSet;

/// One page of registers, each in the low four bytes of a 16-byte slot. The processor writes to it whenever the guest runs,
/// hence the atomics; L0 looks at it only while the guest does not.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct VirtualApicPage([AtomicU32; 1024]);

const _: () = assert!(size_of::<VirtualApicPage>() == 4096, "it is one page");

impl Default for VirtualApicPage {
    fn default() -> Self {
        Self::new()
    }
}

impl VirtualApicPage {
    /// All registers 0.
    pub const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; 1024])
    }

    /// The page as it lies in memory.
    pub const fn words(&self) -> &[AtomicU32; 1024] {
        &self.0
    }

    /// The word of `register`.
    #[inline(always)]
    pub fn read(&self, register: Register) -> u32 {
        self.0[usize::from(register.0) / 4 % 1024].load(Ordering::Relaxed)
    }

    /// Writes the word of `register`.
    #[inline(always)]
    pub fn write(&self, register: Register, value: u32) {
        self.0[usize::from(register.0) / 4 % 1024].store(value, Ordering::Relaxed);
    }

    /// Whether IRR has a bit set: mostly it has none, and nothing else needs to be asked.
    #[inline]
    pub fn has_requests(&self) -> bool {
        let word = |index: u16| self.read(Register(Register::IRR.0 + 16 * index));
        word(0) | word(1) | word(2) | word(3) | word(4) | word(5) | word(6) | word(7) != 0
    }

    /// The 256 bits of ISR, TMR or IRR.
    #[inline]
    pub fn vectors(&self, first: Register) -> VectorSet {
        let word = |index: u16| u64::from(self.read(Register(first.0 + 16 * index)));
        let pair = |index: u16| word(2 * index) | word(2 * index + 1) << 32;
        VectorSet::from_words([pair(0), pair(1), pair(2), pair(3)])
    }

    /// Writes them.
    #[inline]
    pub fn set_vectors(&self, first: Register, vectors: &VectorSet) {
        for (word, register) in vectors.words().into_iter().zip((first.0..).step_by(32)) {
            self.write(Register(register), (word & 0xffff_ffff) as u32);
            self.write(Register(register + 16), (word >> 32) as u32);
        }
    }
}

/// Registers that the page does not show as they are: bit N stands for the one at 16 * N, and for ISR, TMR and IRR the bit of
/// their first register. Lending copies these alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale(u64);

impl Stale {
    /// All of [`COPIED`], and the three sets.
    pub(crate) const ALL: Self = {
        let mut bits = Self::bit(Register::ISR) | Self::bit(Register::TMR) | Self::bit(Register::IRR);
        let mut index = 0;
        while index < COPIED.len() {
            bits |= Self::bit(COPIED[index]);
            index += 1;
        }
        Self(bits)
    };

    const fn bit(register: Register) -> u64 {
        1 << (register.0 >> 4 & 63)
    }

    /// `register` has changed; one that the page does not show does not count.
    #[inline(always)]
    pub(crate) const fn insert(&mut self, register: Register) {
        self.0 |= Self::bit(register) & Self::ALL.0;
    }

    #[inline(always)]
    pub(crate) const fn contains(self, register: Register) -> bool {
        self.0 & Self::bit(register) != 0
    }

    /// Takes one out.
    #[inline(always)]
    fn take(&mut self) -> Option<Register> {
        let number = self.0.checked_ilog2()?;
        self.0 &= !(1 << number);
        Some(Register((number << 4 & 0x3f0) as u16))
    }
}

impl LocalApic {
    /// Takes from the page what the processor changed there, having been lent it with `assist`.
    pub fn take_back(&mut self, page: &VirtualApicPage, assist: Assist) {
        if assist.delivery {
            let (requested, in_service) = (page.vectors(Register::IRR), page.vectors(Register::ISR));
            self.priorities.replace(&requested, &in_service);
        }
        if assist.delivery && assist.accesses {
            // The processor tells of no write to the high half, nor of one to the low half that is a self-IPI (SDM 3C 30.4.3.2
            // "APIC-Write Emulation").
            self.icr_low = page.read(Register::ICR) & icr::WRITABLE;
            self.icr_high = page.read(Register::ICR_HIGH) & 0xff00_0000;
            self.stale.insert(Register::ICR);
            self.stale.insert(Register::ICR_HIGH);
        }
        if assist.tpr_shadow {
            self.priorities.set_tpr((page.read(Register::TPR) & 0xff) as u8);
        }
    }

    /// Whether ISR (or IRR, by its first register) has changed since it was lent last.
    #[inline(always)]
    pub const fn has_changed(&self, set: Register) -> bool {
        self.stale.contains(set)
    }

    /// Nothing in the page counts: all is lent next time, whatever has changed.
    pub const fn lend_anew(&mut self) {
        self.stale = Stale::ALL;
    }

    /// Puts into the page what the processor needs there to help as `assist` says: what has changed since it was lent with
    /// delivery last.
    pub fn lend(&mut self, page: &VirtualApicPage, assist: Assist) {
        if assist.tpr_shadow {
            page.write(Register::TPR, self.priorities.tpr().into());
        }
        if !assist.delivery {
            return;
        }
        page.write(Register::PPR, self.priorities.ppr().into());
        while let Some(register) = self.stale.take() {
            match register {
                Register::ISR => page.set_vectors(register, self.priorities.in_service()),
                Register::TMR => page.set_vectors(register, self.priorities.level()),
                Register::IRR => page.set_vectors(register, self.priorities.requested()),
                _ => self.lend_register(page, register),
            }
        }
    }

    fn lend_register(&mut self, page: &VirtualApicPage, register: Register) {
        let value = match access(register, self.mode == Mode::X2apic) {
            // Time does not count: the current count is not among them.
            Access::ReadOnly | Access::ReadWrite => self.read_register(register, 0),
            Access::WriteOnly | Access::Reserved => 0,
        };
        page.write(register, value);
        if register == Register::ICR && self.mode == Mode::X2apic {
            // One register of 64 bits.
            page.write(Register(Register::ICR.0 + 4), self.icr_high);
        }
    }
}

/// What a guest reads without an exit, beside TPR and the three sets (SDM 3C 30.4.2 "Virtualizing Reads from the
/// APIC-Access Page"; by RDMSR PPR too).
pub(crate) const COPIED: [Register; 18] = [
    Register::ID,
    Register::VERSION,
    Register::PPR,
    Register::LDR,
    Register::DFR,
    Register::SVR,
    Register::ESR,
    Register::LVT_CMCI,
    Register::ICR,
    Register::ICR_HIGH,
    Register::LVT_TIMER,
    Register::LVT_THERMAL,
    Register::LVT_PERFMON,
    Register::LVT_LINT0,
    Register::LVT_LINT1,
    Register::LVT_ERROR,
    Register::INITIAL_COUNT,
    Register::DIVIDE,
];
