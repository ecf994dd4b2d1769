//! Those who wait for the processor, in the order of their turns.

use core::num::NonZeroU64;

use crate::Set;
use crate::member::{MAX_VCPUS, bit};
use crate::virtual_time::VirtualTime;

/// Virtual time ahead, cut into slots of a *granule*, with those in each whose turn comes there; who shares a slot has equal claims, and
/// the lowest number goes first.
///
/// So nobody is ever sorted in or searched for: coming, going, and finding who is next each take a few instructions, however many
/// wait. The slots are used again and again, and always reach two requests ahead of the first one.
#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    slots: [u64; SLOTS as usize],
    /// The slots in which anybody waits.
    occupied: u64,
    /// Those whose turn comes after all slots, and where the first of their requests starts, or earlier. One of them who asked for a
    /// short request when it came has its turn there too, later than it would have had.
    far: u64,
    far_begin: VirtualTime,
    /// Where the first slot begins of those that may be occupied, and which one that is.
    begin: VirtualTime,
    first: u32,
    /// A granule is two to this power.
    granule: u32,
    /// Virtual length of a request.
    length: u64,
    /// Where each vCPU's next request starts: its service so far, in other words.
    starts: [VirtualTime; MAX_VCPUS],
}

const SLOTS: u32 = u64::BITS;

/// Whose turn is next.
pub(crate) enum First {
    Vcpu(u16),
    Nobody,
    /// That is not known before [`Calendar::bring_nearer`].
    Far,
}

impl Calendar {
    /// Nobody waits. A request and two granules are `slice` of virtual time together.
    pub(crate) const fn new(slice: u64) -> Self {
        // At least a thirtieth, so that the slots reach over two slices and a little more.
        let granule = slice.div_ceil(30).next_power_of_two();
        Self {
            slots: [0; SLOTS as usize],
            occupied: 0,
            far: 0,
            far_begin: VirtualTime::ZERO,
            begin: VirtualTime::ZERO,
            first: 0,
            granule: granule.trailing_zeros(),
            length: slice.saturating_sub(2 * granule),
            starts: [VirtualTime::ZERO; MAX_VCPUS],
        }
    }

    /// Virtual length of a request; of a short one it is an eighth.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// When it is the turn of a short request from `start` on: its deadline is that of a whole one which started earlier.
    pub(crate) const fn turn_of_short(&self, start: VirtualTime) -> VirtualTime {
        start.before(self.length - self.length / 8)
    }

    /// When it is the turn of one who lets those go first whose turn has come at `now`.
    pub(crate) const fn turn_after(&self, now: VirtualTime) -> VirtualTime {
        now.after(1 << self.granule)
    }

    /// Where the next request of `vcpu` starts.
    #[inline]
    pub(crate) const fn start(&self, vcpu: u16) -> VirtualTime {
        self.starts[vcpu as usize % MAX_VCPUS]
    }

    /// The same, to be changed of one who does not wait.
    #[inline]
    pub(crate) const fn start_mut(&mut self, vcpu: u16) -> &mut VirtualTime {
        &mut self.starts[vcpu as usize % MAX_VCPUS]
    }

    /// `vcpu`, who does not wait yet, waits for its turn at `turn` if the slots reach there; whether they do.
    #[inline]
    pub(crate) fn put_inside(&mut self, vcpu: u16, turn: VirtualTime) -> bool {
        let ahead = turn.since(self.begin) >> self.granule;
        let is_inside = ahead < SLOTS.into();
        if is_inside {
            #[expect(clippy::cast_possible_truncation, reason = "it was just compared")]
            self.put_into(vcpu, self.first + ahead as u32);
        }
        is_inside
    }

    #[inline]
    const fn put_into(&mut self, vcpu: u16, slot: u32) {
        self.slots[(slot % SLOTS) as usize] |= bit(vcpu);
        self.occupied |= 1 << (slot % SLOTS);
    }

    /// `vcpu`, who does not wait yet, waits for its turn at `turn`.
    #[inline]
    pub(crate) fn put_at(&mut self, vcpu: u16, turn: VirtualTime) {
        if !self.put_inside(vcpu, turn) {
            self.put_outside(vcpu, turn);
        }
    }

    #[inline(never)]
    fn put_outside(&mut self, vcpu: u16, turn: VirtualTime) {
        if turn < self.begin {
            // One who was woken comes before all others.
            self.move_back(self.begin.since(turn.floor(self.granule)) >> self.granule);
            self.put_into(vcpu, self.first);
        } else {
            self.put_far(bit(vcpu));
        }
    }

    /// The slots begin so many earlier. Whom they do not reach any more is far.
    fn move_back(&mut self, back: u64) {
        let reached = if back < u64::from(SLOTS) { u64::MAX >> back } else { 0 };
        let beyond = (self.occupied.rotate_right(self.first) & !reached).rotate_left(self.first);
        self.occupied &= !beyond;
        self.begin = self.begin.before(back << self.granule);
        #[expect(clippy::cast_possible_truncation, reason = "all that counts is in the last digits")]
        let first = self.first.wrapping_sub(back as u32) % SLOTS;
        self.first = first;
        for slot in Set(beyond).iter() {
            let vcpus = core::mem::take(&mut self.slots[usize::from(slot)]);
            self.put_far(vcpus);
        }
    }

    /// These are far.
    fn put_far(&mut self, vcpus: u64) {
        for vcpu in Set(vcpus).iter() {
            let start = self.start(vcpu);
            self.far_begin = if self.far == 0 { start } else { self.far_begin.min(start) };
            self.far |= bit(vcpu);
        }
    }

    /// Puts those who are far into slots, as far as these reach.
    pub(crate) fn bring_nearer(&mut self) {
        let far = Set(core::mem::take(&mut self.far));
        if self.occupied == 0 {
            let first = far.iter().map(|vcpu| self.start(vcpu)).min();
            self.begin_at(first.unwrap_or(self.begin));
        }
        for vcpu in far.iter() {
            if !self.put_inside(vcpu, self.start(vcpu)) {
                self.put_far(bit(vcpu));
            }
        }
    }

    /// Takes out whose turn is next.
    #[inline]
    pub(crate) fn take_first(&mut self) -> First {
        let Some(occupied) = NonZeroU64::new(self.occupied.rotate_right(self.first)) else {
            return if self.far == 0 { First::Nobody } else { First::Far };
        };
        let ahead = occupied.trailing_zeros();
        let begin = self.begin.after(u64::from(ahead) << self.granule);
        if self.far != 0 && self.far_begin < begin {
            return First::Far;
        }
        self.begin = begin;
        self.first = (self.first + ahead) % SLOTS;
        let slot = &mut self.slots[self.first as usize];
        // What is occupied is not empty.
        let Some(vcpus) = NonZeroU64::new(*slot) else { return First::Nobody };
        *slot &= *slot - 1;
        if *slot == 0 {
            self.occupied &= !(1 << self.first);
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is less than 64")]
        First::Vcpu(vcpus.trailing_zeros() as u16)
    }

    /// Takes `vcpu` out, who waits.
    pub(crate) fn take(&mut self, vcpu: u16) {
        self.far &= !bit(vcpu);
        for slot in Set(self.occupied).iter() {
            let vcpus = &mut self.slots[usize::from(slot)];
            *vcpus &= !bit(vcpu);
            if *vcpus == 0 {
                self.occupied &= !bit(slot);
            }
        }
    }

    /// Whether nobody waits.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.occupied | self.far == 0
    }

    /// Where the slot begins that came last.
    #[inline]
    pub(crate) const fn begin(&self) -> VirtualTime {
        self.begin
    }

    /// Whether somebody may have come since then whose turn is before the slot that begins at `turn`, which came last.
    #[inline]
    pub(crate) fn has_before(&self, turn: VirtualTime) -> bool {
        self.begin < turn
    }

    /// The slots of an empty calendar begin with the one of `turn`.
    pub(crate) const fn begin_at(&mut self, turn: VirtualTime) {
        self.begin = turn.floor(self.granule);
    }

    /// All who wait.
    pub(crate) fn everybody(&self) -> Set {
        Set(Set(self.occupied).iter().fold(self.far, |all, slot| all | self.slots[usize::from(slot)]))
    }

    /// The same, in the order of their turns as far as the slots reach.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = u16> {
        let slots = (self.first..self.first + SLOTS).map(|slot| self.slots[(slot % SLOTS) as usize]);
        slots.chain([self.far]).flat_map(|vcpus| Set(vcpus).iter())
    }

    /// Each stands in one place, where its turn is, and the words about the slots are right.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut seen = self.far;
        for (slot, &vcpus) in (0..).zip(&self.slots) {
            assert_eq!(vcpus != 0, Set(self.occupied).has(slot), "slot {slot}");
            assert_eq!(seen & vcpus, 0, "in two places");
            seen |= vcpus;
            let ahead = (u32::from(slot) + SLOTS - self.first) % SLOTS;
            let begin = self.begin.after(u64::from(ahead) << self.granule);
            for vcpu in Set(vcpus).iter() {
                let start = self.start(vcpu).floor(self.granule);
                let turns = [start, self.turn_after(start), self.turn_of_short(self.start(vcpu)).floor(self.granule)];
                assert!(turns.contains(&begin), "the turn of {vcpu} is elsewhere");
            }
        }
        assert!(Set(self.far).iter().all(|vcpu| self.far_begin <= self.start(vcpu)), "whose turn comes sooner");
    }
}
