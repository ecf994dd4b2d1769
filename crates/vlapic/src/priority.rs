//! Which interrupt is next: IRR, ISR, TMR and the task and processor priorities.
//!
//! The highest requested and the highest serviced vector are kept beside the sets (the numbers that virtual-interrupt
//! delivery calls RVI and SVI), so that asking whether something is pending costs a comparison and no search.

use crate::vectors::VectorSet;

/// The lowest vector an APIC delivers (SDM 3A 11.5.2 "Valid Interrupt Vectors").
pub(crate) const FIRST_VECTOR: u8 = 16;

/// The interrupts a local APIC holds. Vectors below [`FIRST_VECTOR`] never enter: 0 stands for "none" in the two
/// cached vectors, as it does in the guest interrupt status of a VMCS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Priorities {
    requested: VectorSet,
    in_service: VectorSet,
    level: VectorSet,
    highest_requested: u8,
    highest_in_service: u8,
    tpr: u8,
    ppr: u8,
}

impl Priorities {
    /// Puts `vector` into IRR. TMR follows the trigger mode of what IRR accepts (SDM 3A 11.8.4 "Interrupt Acceptance
    /// for Fixed Interrupts"); an edge that merges into a waiting level interrupt leaves it level triggered, or its
    /// EOI would never reach the IOAPIC.
    pub(crate) fn request(&mut self, vector: u8, level_triggered: bool) {
        debug_assert!(vector >= FIRST_VECTOR);
        if level_triggered {
            self.level.insert(vector);
        } else if !self.requested.contains(vector) {
            self.level.remove(vector);
        }
        self.requested.insert(vector);
        self.highest_requested = self.highest_requested.max(vector);
    }

    /// [`Self::request`] for all of `edge` and all of `level` at once; a vector in both is level triggered.
    pub(crate) fn request_all(&mut self, edge: &VectorSet, level: &VectorSet) {
        let (edge, level) = (edge.words(), level.words());
        let mut requested = self.requested.words();
        let mut triggers = self.level.words();
        for index in 0..VectorSet::WORDS {
            triggers[index] = triggers[index] & !(edge[index] & !requested[index]) | level[index];
            requested[index] |= edge[index] | level[index];
        }
        self.requested = VectorSet::from_words(requested);
        self.level = VectorSet::from_words(triggers);
        self.highest_requested = self.requested.highest().unwrap_or(0);
    }

    /// IRR and ISR as the processor left them where it delivers virtual interrupts; TMR it does not touch.
    pub(crate) fn replace(&mut self, requested: &VectorSet, in_service: &VectorSet) {
        self.requested = *requested;
        self.in_service = *in_service;
        self.highest_requested = requested.highest().unwrap_or(0);
        self.highest_in_service = in_service.highest().unwrap_or(0);
        self.update_ppr();
    }

    /// Whether the highest request is above the processor priority, class against class.
    #[inline(always)]
    pub(crate) fn is_pending(&self) -> bool {
        self.highest_requested >> 4 > self.ppr >> 4
    }

    /// The vector that [`Self::acknowledge`] would move.
    #[inline(always)]
    pub(crate) fn pending(&self) -> Option<u8> {
        self.is_pending().then_some(self.highest_requested)
    }

    /// Moves the pending vector from IRR to ISR: what the processor's interrupt acknowledge does.
    pub(crate) fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.requested.remove(vector);
        self.highest_requested = self.requested.highest().unwrap_or(0);
        self.in_service.insert(vector);
        // Its class is above the processor priority, and so above everything in service.
        self.highest_in_service = vector;
        self.update_ppr();
        Some(vector)
    }

    /// Takes the highest vector out of ISR and says whether it was level triggered. TMR keeps its bit: it changes
    /// when IRR accepts the vector again (SDM 3A 11.8.5 "Signaling Interrupt Servicing Completion").
    pub(crate) fn end_of_interrupt(&mut self) -> Option<(u8, bool)> {
        let vector = self.highest_in_service()?;
        self.in_service.remove(vector);
        self.highest_in_service = self.in_service.highest().unwrap_or(0);
        self.update_ppr();
        Some((vector, self.level.contains(vector)))
    }

    pub(crate) fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
        self.update_ppr();
    }

    #[inline(always)]
    pub(crate) fn tpr(&self) -> u8 {
        self.tpr
    }

    #[inline(always)]
    pub(crate) fn ppr(&self) -> u8 {
        self.ppr
    }

    #[inline(always)]
    pub(crate) fn highest_requested(&self) -> Option<u8> {
        (self.highest_requested != 0).then_some(self.highest_requested)
    }

    #[inline(always)]
    pub(crate) fn highest_in_service(&self) -> Option<u8> {
        (self.highest_in_service != 0).then_some(self.highest_in_service)
    }

    pub(crate) fn requested(&self) -> &VectorSet {
        &self.requested
    }

    pub(crate) fn in_service(&self) -> &VectorSet {
        &self.in_service
    }

    pub(crate) fn level(&self) -> &VectorSet {
        &self.level
    }

    /// The class that TPR must fall below for the highest request to become pending; 0 when TPR is not what holds it
    /// back.
    pub(crate) fn tpr_threshold(&self) -> u8 {
        let class = self.highest_requested >> 4;
        if class > self.highest_in_service >> 4 && class <= self.tpr >> 4 { class } else { 0 }
    }

    /// The arbitration priority register's formula (SDM 3A 11.6.2.4 "Lowest Priority Delivery Mode").
    pub(crate) fn arbitration(&self) -> u8 {
        let (task, requested, serviced) = (self.tpr >> 4, self.highest_requested >> 4, self.highest_in_service >> 4);
        if task >= requested && task > serviced { self.tpr } else { (task & serviced).max(requested) << 4 }
    }

    /// SDM 3A 11.8.3.1 "Task and Processor Priorities". Where TPR and the vector in service are of one class the
    /// sub-class is the model's choice; TPR's is what the comparison machine and PPR virtualization (SDM 3C
    /// "PPR Virtualization") use.
    fn update_ppr(&mut self) {
        let serviced = self.highest_in_service & 0xf0;
        self.ppr = if self.tpr & 0xf0 >= serviced { self.tpr } else { serviced };
    }
}
