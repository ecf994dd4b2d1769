//! L1's local APIC: its registers, and how much of it the processor does.
//!
//! The registers are in one of two places. While the guest runs they are lent to the processor, which works on them in the
//! virtual-APIC page; [`L1Apic::registers`] takes them back, and [`L1Apic::lend`] gives them again before the next entry and
//! says what vmcs01 must hold. An exit that does not ask for them leaves them where they are. Whether L1 or L2 runs makes no
//! difference here: the page is L1's, and the [`Update`]s go through the door that knows.

use arch::HostPhys;
use arch::apic::Register;
use vlapic::{Assist, Hardware, LocalApic, VectorSet, VirtualApicPage};

use crate::deferred_apicv::Update;

/// What the processor needs to help a vCPU's APIC.
#[derive(Clone, Copy, Debug)]
pub struct ApicPages {
    /// What it can do.
    pub hardware: Hardware,
    /// The virtual-APIC page.
    pub virtual_apic: &'static VirtualApicPage,
    /// EPT pointer of L1's memory with nothing at 0xFEE00000.
    pub eptp: u64,
    /// The same with the APIC-access page there.
    pub eptp_with_apic: u64,
    /// MSR bitmaps in which no x2APIC MSR passes, TPR alone, and all that pass with delivery.
    pub msr_bitmaps: [HostPhys; 3],
}

/// The local APIC of one vCPU of L1.
#[derive(Clone, Debug)]
pub struct L1Apic {
    registers: LocalApic,
    pages: Option<ApicPages>,
    /// The processor has the registers, to do this with them.
    lent: Option<Assist>,
    /// [`Self::lend`] has nothing to do while whether the VM is inhibited stays this.
    steady: Option<bool>,
    told: Told,
}

/// What was submitted last of that which only L0 changes: vmcs01 holds it, or it waits for vmcs01. It is kept by kind, since
/// a kind that does not count for a while is not written either.
#[derive(Clone, Copy, Debug)]
struct Told {
    assist: Option<Assist>,
    tpr_threshold: Option<u8>,
    eoi_exits: Option<VectorSet>,
}

/// The priority class of a vector; 0 for none.
#[inline(always)]
fn class(vector: Option<u8>) -> u32 {
    u32::from(vector.unwrap_or(0) >> 4)
}

/// The class of the processor priority, with the task priority in the page and this vector in service.
#[inline(always)]
fn priority(page: &VirtualApicPage, serviced: Option<u8>) -> u32 {
    class(serviced).max(page.read(Register::TPR) >> 4 & 0xf)
}

impl L1Apic {
    /// An APIC that is emulated, until [`Self::give_pages`].
    pub const fn new(registers: LocalApic) -> Self {
        Self { registers, pages: None, lent: None, steady: None, told: Told::NOTHING }
    }

    /// From now on the processor helps; vmcs01 has been written anew and knows of nothing.
    pub fn give_pages(&mut self, pages: ApicPages) {
        self.registers();
        self.told = Told::NOTHING;
        self.pages = Some(pages);
    }

    /// What the processor was given to do.
    pub const fn pages(&self) -> Option<&ApicPages> {
        self.pages.as_ref()
    }

    /// The registers, taken back from the processor if it has them. [`Self::lend`] must follow before the guest runs.
    #[inline(always)]
    pub fn registers(&mut self) -> &mut LocalApic {
        self.steady = None;
        if let (Some(assist), Some(pages)) = (self.lent.take(), &self.pages) {
            self.registers.take_back(pages.virtual_apic, assist);
        }
        &mut self.registers
    }

    /// The registers for an access that concerns the timer alone, at `now`: they are taken back only if it fires.
    #[inline(always)]
    pub fn timer(&mut self, now: u64) -> &mut LocalApic {
        if self.registers.deadline() <= now { self.registers() } else { &mut self.registers }
    }

    /// The registers for a look at what the processor never changes: mode, base, id, timer, local vector table.
    #[inline(always)]
    pub const fn settings(&self) -> &LocalApic {
        &self.registers
    }

    /// Whether the registers are where they have to be when the guest runs.
    #[inline(always)]
    pub const fn is_lent(&self) -> bool {
        self.lent.is_some() || self.pages.is_none()
    }

    /// Whether the processor delivers the pending interrupt by itself when L1 runs next.
    #[inline(always)]
    pub fn is_delivered_by_processor(&self) -> bool {
        self.lent.is_some_and(|assist| assist.delivery)
    }

    /// Whether the processor delivers, and nobody has touched the registers since it got them: what may be pending then is in
    /// the page alone, and vmcs01's RVI tells of it.
    #[inline(always)]
    pub const fn is_left_to_processor(&self) -> bool {
        self.steady.is_some()
    }

    /// Whether an interrupt is pending, wherever the registers are.
    pub fn has_pending(&self) -> bool {
        match (self.lent, &self.pages) {
            (Some(assist), Some(pages)) if assist.tpr_shadow => {
                let page = pages.virtual_apic;
                if !assist.delivery {
                    return page.read(Register::TPR) >> 4 < self.highest_waiting().into();
                }
                if !page.has_requests() {
                    return false;
                }
                let requested = page.vectors(Register::IRR).highest();
                class(requested) > priority(page, page.vectors(Register::ISR).highest())
            }
            _ => self.registers.may_have_pending(),
        }
    }

    /// Whether an interrupt with this vector would be pending as soon as it came.
    pub fn would_take(&self, vector: u8) -> bool {
        let page =
            self.lent.filter(|assist| assist.tpr_shadow).and(self.pages.as_ref()).map(|pages| pages.virtual_apic);
        let priority = match page {
            Some(page) if self.is_delivered_by_processor() => priority(page, page.vectors(Register::ISR).highest()),
            Some(page) => priority(page, self.registers.highest_in_service().map(|vector| vector.0)),
            None => u32::from(self.registers.ppr() >> 4),
        };
        self.registers.identity().software_enabled && class(Some(vector)) > priority
    }

    /// The class of the highest request, if only the task priority can hold it back; 0 otherwise.
    fn highest_waiting(&self) -> u8 {
        let class = |vector: Option<arch::Vector>| vector.map_or(0, |vector| vector.0 >> 4);
        let (requested, serviced) =
            (class(self.registers.highest_requested()), class(self.registers.highest_in_service()));
        if requested > serviced { requested } else { 0 }
    }

    /// What the processor does with the registers, if it has them.
    #[cfg(test)]
    pub(crate) const fn lent(&self) -> Option<Assist> {
        self.lent
    }

    /// What of this decides about what happens next.
    #[cfg(test)]
    pub(crate) fn hash_for_tests(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        for assist in [self.lent, self.told.assist] {
            assist.map(|a| (a.tpr_shadow, a.accesses, a.x2apic, a.delivery, a.posting)).hash(hasher);
        }
        self.told.tpr_threshold.hash(hasher);
        self.told.eoi_exits.map(|vectors| vectors.words()).hash(hasher);
        self.has_pending().hash(hasher);
        // While the processor has them, they count by what is in the page.
        if !self.is_delivered_by_processor() {
            let highest = [self.registers.highest_requested(), self.registers.highest_in_service()];
            highest.map(|vector| vector.map(|vector| vector.0)).hash(hasher);
        }
        if !self.lent.is_some_and(|assist| assist.tpr_shadow) {
            self.registers.cr8().hash(hasher);
        }
        let level = self.registers.apicv(Assist { delivery: true, ..Assist::default() }).eoi_exits;
        level.words().hash(hasher);
    }

    /// Whether [`Self::lend`] would find nothing to do: the registers have not been taken back since the last time.
    #[inline(always)]
    pub fn is_steady(&self, inhibited: bool) -> bool {
        self.pages.is_none() || self.steady == Some(inhibited)
    }

    /// Gives the registers to the processor, if it helps, and `submit`s what vmcs01 must hold for it. `inhibited`: the VM
    /// has a reason to do without.
    #[inline]
    pub fn lend(&mut self, inhibited: bool, submit: impl FnMut(Update)) {
        let Some(pages) = self.pages else { return };
        let assist = Assist::of(pages.hardware, self.registers.mode(), inhibited);
        // The guest may have raised TPR above a request without an exit, and the threshold must follow; with delivery there is
        // none.
        let follows_tpr = assist.tpr_shadow && !assist.delivery;
        if self.lent != Some(assist) || follows_tpr {
            self.lend_as(&pages, assist, submit);
        }
        self.steady = (!follows_tpr).then_some(inhibited);
    }

    fn lend_as(&mut self, pages: &ApicPages, assist: Assist, mut submit: impl FnMut(Update)) {
        let now = self.registers().apicv(assist);
        let is_new = self.told.assist.replace(assist) != Some(assist);
        if is_new {
            self.registers.lend_anew();
            submit(Update::Controls { delivery: assist.delivery, posting: assist.posting });
            submit(Update::Mode {
                accesses: assist.accesses,
                x2apic: assist.x2apic,
                msr_bitmap: pages.msr_bitmaps[usize::from(assist.x2apic) << usize::from(assist.delivery)],
            });
            submit(Update::ApicPage { eptp: if assist.accesses { pages.eptp_with_apic } else { pages.eptp } });
        }
        if pages.hardware.delivery && (is_new || assist.delivery) {
            // The processor moves these two with the sets in the page, so that they are right where the sets are.
            if self.registers.has_changed(Register::ISR) {
                submit(Update::InService(now.in_service));
            }
            if self.registers.has_changed(Register::IRR) {
                submit(Update::Requested(now.requested));
            }
        }
        if assist.tpr_shadow && self.told.tpr_threshold.replace(now.tpr_threshold) != Some(now.tpr_threshold) {
            submit(Update::TprThreshold(now.tpr_threshold));
        }
        if assist.delivery && self.told.eoi_exits.replace(now.eoi_exits) != Some(now.eoi_exits) {
            submit(Update::EoiExits(now.eoi_exits));
        }
        self.registers.lend(pages.virtual_apic, assist);
        self.lent = Some(assist);
    }
}

impl Told {
    const NOTHING: Self = Self { assist: None, tpr_threshold: None, eoi_exits: None };
}
