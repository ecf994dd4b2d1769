//! Those who wait for the processor, in the order of their turns.

use crate::Set;
use crate::member::{MAX_VCPUS, MAX_WEIGHTS, bit, small};
use crate::virtual_time::{Pace, VirtualTime};

/// Which line a vCPU stands in, of the four that its weight has. Those of one kind come nearly in the order of their starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    /// A slice, after a whole one: mostly it is the last one of all.
    Next = 0,
    /// The first one after a wake: an eighth of a slice, so that its deadline is early.
    Short = 1,
    /// A slice, after at most half a slice, or none.
    Early = 2,
    /// A slice, after more than half of one that was cut short; or by one who has been in debt.
    Late = 3,
}

/// A line: those of one weight who wait with one kind of request. The number is that of its own place: [`FIRST_LINE`] plus four times the
/// weight's number plus [`Request`].
pub(crate) type Line = u8;

/// Four lines for each weight.
///
/// In a line all requests have the same virtual length. So who starts first has the first deadline too, and the head
/// stands for all. Lines are linked rings, sorted by start; who comes mostly belongs at the end. The lines themselves are linked in
/// the order of their heads' deadlines, where a line mostly keeps its place or moves by one.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// Where each vCPU's next request starts: its service so far, in other words.
    starts: [VirtualTime; MAX_VCPUS],
    /// By vCPU, and the rings' own places behind them; then some, so that no index is out of range.
    links: [Link; PLACES],
    paces: [Pace; LINES],
    /// Ticks of requests, and their virtual lengths.
    ticks: [u64; LINES],
    lengths: [u64; LINES],
    /// Where the heads of lines in which anybody stands start, and their deadlines.
    head_starts: [VirtualTime; LINES],
    head_deadlines: [VirtualTime; LINES],
    /// By line, the ones with the next deadline and with that before. [`END`] stands before the first and after the last.
    later: [Line; PLACES],
    earlier: [Line; PLACES],
    /// By line, where the next request waits of one whose request there is used up.
    after: [Line; PLACES],
}

/// Between whom one stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) next: u8,
    pub(crate) previous: u8,
}

/// As many as a `u8` can name.
pub(crate) const PLACES: usize = 1 << u8::BITS;
const KINDS: usize = 4;
const SHORT: u8 = Request::Short as u8;
const LINES: usize = KINDS * MAX_WEIGHTS;
/// The first line's own place, behind those of the vCPUs.
pub(crate) const FIRST_LINE: Line = small(MAX_VCPUS);
/// What is no line.
const END: Line = FIRST_LINE + small(LINES);
/// The place of the ring of those in debt, which is sorted as a line is.
const DEBTS: u8 = END;

impl Lines {
    /// Lines of nobody. Whole requests are for `slice` ticks, short ones for an eighth.
    pub(crate) const fn new(slice: u64) -> Self {
        Self {
            starts: [VirtualTime::ZERO; MAX_VCPUS],
            links: Self::rings(),
            paces: [Pace::NONE; LINES],
            ticks: Self::requests(slice),
            lengths: [0; LINES],
            head_starts: [VirtualTime::ZERO; LINES],
            head_deadlines: [VirtualTime::ZERO; LINES],
            later: [END; PLACES],
            earlier: [END; PLACES],
            after: Self::after_each(),
        }
    }

    /// Each ring's own place is linked to itself.
    const fn rings() -> [Link; PLACES] {
        let mut links = [Link { next: 0, previous: 0 }; PLACES];
        let mut place = FIRST_LINE;
        while place <= DEBTS {
            links[place as usize] = Link { next: place, previous: place };
            place += 1;
        }
        links
    }

    /// The ticks of each line's requests.
    const fn requests(slice: u64) -> [u64; LINES] {
        let mut ticks = [slice; LINES];
        let mut line = SHORT as usize;
        while line < LINES {
            ticks[line] = slice.div_ceil(8);
            line += KINDS;
        }
        ticks
    }

    const fn after_each() -> [Line; PLACES] {
        let mut after = [0; PLACES];
        let mut line = FIRST_LINE;
        while line < END {
            // An eighth of a slice after a wake starts somewhere among the others.
            after[line as usize] = match kind(line) {
                SHORT => line - SHORT + Request::Early as u8,
                kind => line - kind + Request::Next as u8,
            };
            line += 1;
        }
        after
    }

    /// Where the next request waits of one whose request in `line` is used up.
    #[inline]
    pub(crate) const fn after(&self, line: Line) -> Line {
        self.after[line as usize]
    }

    /// The same of one who leaves `left` ticks of it.
    #[inline]
    pub(crate) const fn after_cut(&self, line: Line, left: u64) -> Line {
        let is_late = left < self.ticks[Request::Late as usize] / 2;
        line - kind(line) + Request::Early as u8 + is_late as u8
    }

    /// The line for next requests of `weight`, a new one if need be; `None` when there are too many weights.
    pub(crate) fn line_of(&mut self, weight: u32) -> Option<Line> {
        let weight = u64::from(weight);
        let known = |pace: &Pace| pace.weight() == weight || *pace == Pace::NONE;
        let first = (0..LINES).step_by(KINDS).find(|&line| known(&self.paces[line]))?;
        for line in first..first + KINDS {
            self.paces[line] = Pace::new(weight);
            self.lengths[line] = self.paces[line].span(self.ticks[line]);
        }
        Some(FIRST_LINE + small(first))
    }

    #[inline]
    pub(crate) const fn pace(&self, line: Line) -> Pace {
        self.paces[index(line)]
    }

    /// Virtual length of a request in `line`.
    #[inline]
    pub(crate) const fn length(&self, line: Line) -> u64 {
        self.lengths[index(line)]
    }

    /// Whether nobody stands in any line.
    #[inline]
    pub(crate) const fn are_empty(&self) -> bool {
        self.later[END as usize] == END
    }

    /// Those in which anybody stands, by the deadlines of their heads.
    pub(crate) fn occupied(&self) -> impl Iterator<Item = Line> {
        let later = |line: Line| Some(self.later(line)).filter(|&line| line != END);
        core::iter::successors(later(END), move |&line| later(line))
    }

    /// All who stand in a line.
    pub(crate) fn everybody(&self) -> Set {
        let vcpus = self.occupied().flat_map(|line| self.members(line));
        Set(vcpus.fold(0, |all, vcpu| all | bit(vcpu)))
    }

    /// Those in `line`, in the order of their turns.
    pub(crate) fn members(&self, line: Line) -> impl Iterator<Item = u16> {
        let next = |place: u8| Some(self.links[usize::from(place)].next).filter(|&next| next < FIRST_LINE);
        core::iter::successors(next(line), move |&place| next(place)).map(u16::from)
    }

    /// Where the next request of `vcpu` starts.
    #[inline]
    pub(crate) const fn start(&self, vcpu: u16) -> VirtualTime {
        self.starts[vcpu as usize % MAX_VCPUS]
    }

    /// The same, to be changed of one who stands in no line.
    #[inline]
    pub(crate) const fn start_mut(&mut self, vcpu: u16) -> &mut VirtualTime {
        &mut self.starts[vcpu as usize % MAX_VCPUS]
    }

    /// Puts `vcpu`, who stands in no line, into `line`, behind those with the same start.
    #[inline]
    pub(crate) fn put(&mut self, vcpu: u16, line: Line) {
        if self.insert(vcpu, line) {
            if self.link(place(vcpu)).next < FIRST_LINE {
                self.leave(line);
            }
            self.enter(line);
        }
    }

    /// Puts `vcpu` into the ring of `own`. Whether it is the head there.
    #[inline]
    fn insert(&mut self, vcpu: u16, own: u8) -> bool {
        let (place, start) = (place(vcpu), self.start(vcpu));
        let mut previous = self.link(own).previous;
        while previous < FIRST_LINE && self.start(previous.into()) > start {
            previous = self.link(previous).previous;
        }
        let next = core::mem::replace(&mut self.link(previous).next, place);
        self.link(next).previous = place;
        *self.link(place) = Link { next, previous };
        previous >= FIRST_LINE
    }

    /// Takes `vcpu` out of its line.
    pub(crate) fn take(&mut self, vcpu: u16) {
        let line = self.unlink(vcpu);
        if line >= FIRST_LINE {
            self.leave(line);
            if self.link(line).next < FIRST_LINE {
                self.enter(line);
            }
        }
    }

    /// Takes `vcpu` out of its ring; which place was before it.
    fn unlink(&mut self, vcpu: u16) -> u8 {
        let Link { next, previous } = *self.link(place(vcpu));
        self.link(previous).next = next;
        self.link(next).previous = previous;
        previous
    }

    /// Takes `line` out from among the others.
    #[inline]
    const fn leave(&mut self, line: Line) {
        let (earlier, later) = (self.earlier[line as usize], self.later(line));
        self.later[earlier as usize] = later;
        self.earlier[later as usize] = earlier;
    }

    /// Puts `line`, in which somebody stands, among the others.
    #[inline(never)]
    fn enter(&mut self, line: Line) {
        let start = self.start(self.links[usize::from(line)].next.into());
        let deadline = start.after(self.length(line));
        self.head_starts[index(line)] = start;
        self.head_deadlines[index(line)] = deadline;
        // The lines of one weight are mostly close to one another.
        let same = line - kind(line);
        let mut earlier = if line != same && self.links[usize::from(same)].next < FIRST_LINE { same } else { END };
        while earlier != END && deadline < self.head_deadlines[index(earlier)] {
            earlier = self.earlier[usize::from(earlier)];
        }
        self.sort_in(line, earlier);
    }

    /// Puts `line`, which is not among the others, there: behind `earlier` and those with deadlines up to its own.
    #[inline]
    fn sort_in(&mut self, line: Line, mut earlier: Line) {
        let deadline = self.head_deadlines[index(line)];
        let mut later = self.later(earlier);
        while later != END && self.head_deadlines[index(later)] <= deadline {
            earlier = later;
            later = self.later(later);
        }
        self.later[usize::from(earlier)] = line;
        self.earlier[usize::from(line)] = earlier;
        self.later[usize::from(line)] = later;
        self.earlier[usize::from(later)] = line;
    }

    /// Takes out who has the earliest deadline among those who may start at `now`; with the line, and the ticks of the request.
    #[inline]
    pub(crate) fn take_first(&mut self, now: VirtualTime) -> Option<(u16, Line, u64)> {
        let mut line = self.later(END);
        let mut at = index(line);
        while line != END && now < self.head_starts[at] {
            line = self.later(line);
            at = index(line);
        }
        if line == END {
            return None;
        }
        let head = self.link(line).next;
        let second = self.link(head).next;
        self.link(line).next = second;
        self.link(second).previous = line;
        if second >= FIRST_LINE {
            self.leave(line);
        } else {
            let start = self.start(second.into());
            let deadline = start.after(self.lengths[at]);
            self.head_starts[at] = start;
            self.head_deadlines[at] = deadline;
            let later = self.later(line);
            if later != END && self.head_deadlines[index(later)] <= deadline {
                self.leave(line);
                self.sort_in(line, later);
            }
        }
        Some((head.into(), line, self.ticks[at]))
    }

    /// Whether a short request that may start at `now` has an earlier deadline than `deadline`.
    pub(crate) fn has_short_before(&self, deadline: VirtualTime, now: VirtualTime) -> bool {
        let mut line = self.later(END);
        while line != END && self.head_deadlines[index(line)] < deadline {
            if kind(line) == SHORT && self.head_starts[index(line)] <= now {
                return true;
            }
            line = self.later(line);
        }
        false
    }

    /// The earliest start of all.
    pub(crate) fn first_start(&self) -> Option<VirtualTime> {
        self.occupied().map(|line| self.head_starts[index(line)]).min()
    }

    /// `vcpu`, who stands in no line, is in debt.
    pub(crate) fn owes(&mut self, vcpu: u16) {
        self.insert(vcpu, DEBTS);
    }

    /// `vcpu`, who was in debt, is no more.
    pub(crate) fn owes_nothing(&mut self, vcpu: u16) {
        self.unlink(vcpu);
    }

    /// Nobody is in debt any more.
    pub(crate) fn forgive(&mut self) {
        *self.link(DEBTS) = Link { next: DEBTS, previous: DEBTS };
    }

    /// Who in debt will have paid first.
    #[inline]
    pub(crate) fn first_debtor(&self) -> Option<u16> {
        Some(self.links[usize::from(DEBTS)].next).filter(|&next| next < FIRST_LINE).map(u16::from)
    }

    #[inline]
    const fn later(&self, line: Line) -> Line {
        self.later[line as usize]
    }

    #[inline]
    const fn link(&mut self, place: u8) -> &mut Link {
        &mut self.links[place as usize]
    }
}

#[inline]
const fn kind(line: Line) -> u8 {
    line & 3
}

/// Where a line's own values are.
#[inline]
const fn index(line: Line) -> usize {
    line as usize % LINES
}

/// The place of a vCPU.
#[inline]
pub(crate) const fn place(vcpu: u16) -> u8 {
    small(vcpu as usize % MAX_VCPUS)
}
