//! Those who wait for the processor, in the order of their turns.

use crate::Set;
use crate::member::{MAX_VCPUS, MAX_WEIGHTS, bit, small};
use crate::virtual_time::{Pace, VirtualTime};

/// How long a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    /// A slice.
    Whole,
    /// The first one after a wake: an eighth of a slice, so that its deadline is early.
    Short,
}

/// A line: those of one weight who wait with one kind of request.
pub(crate) type Line = u8;

/// Two lines for each weight, one for each kind of request: whole ones have even numbers, short ones odd.
///
/// In a line all requests have the same virtual length. So who starts first has the first deadline too, and the head
/// stands for all. The lines are linked rings, sorted by start; who comes mostly belongs at the end.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// Ticks of requests.
    ticks: [u64; LINES],
    /// Where each vCPU's next request starts: its service so far, in other words.
    starts: [VirtualTime; MAX_VCPUS],
    /// By vCPU, and the lines' own places behind them; then some, so that no index is out of range.
    links: [Link; PLACES],
    paces: [Pace; LINES],
    /// Virtual lengths of requests.
    lengths: [u64; LINES],
    /// Lines in which anybody stands, a bit each; where their heads start, and the heads' deadlines.
    occupied: u64,
    head_starts: [VirtualTime; LINES],
    head_deadlines: [VirtualTime; LINES],
}

#[derive(Clone, Copy, Debug)]
struct Link {
    next: u8,
    previous: u8,
}

const PLACES: usize = 1 << u8::BITS;
const LINES: usize = 2 * MAX_WEIGHTS;
/// The first line's own place.
const FIRST_PLACE: u8 = small(MAX_VCPUS);
/// As many as lines, as a line's number.
const COUNT: Line = small(LINES);
/// Lines of short requests.
const SHORT: u64 = 0xaaaa_aaaa_aaaa_aaaa;

impl Lines {
    /// Lines of nobody. Whole requests are for `slice` ticks, short ones for an eighth.
    pub(crate) const fn new(slice: u64) -> Self {
        Self {
            ticks: Self::requests(slice),
            starts: [VirtualTime::ZERO; MAX_VCPUS],
            links: Self::rings(),
            paces: [Pace::NONE; LINES],
            lengths: [0; LINES],
            occupied: 0,
            head_starts: [VirtualTime::ZERO; LINES],
            head_deadlines: [VirtualTime::ZERO; LINES],
        }
    }

    /// Each line's own place is linked to itself.
    const fn rings() -> [Link; PLACES] {
        let mut links = [Link { next: 0, previous: 0 }; PLACES];
        let mut place = FIRST_PLACE;
        while place < FIRST_PLACE + COUNT {
            links[place as usize] = Link { next: place, previous: place };
            place += 1;
        }
        links
    }

    /// The ticks of each line's requests.
    const fn requests(slice: u64) -> [u64; LINES] {
        let mut ticks = [0; LINES];
        let mut line = 0;
        while line < LINES {
            ticks[line] = if line.is_multiple_of(2) { slice } else { slice.div_ceil(8) };
            line += 1;
        }
        ticks
    }

    /// The line for whole requests of `weight`, a new one if need be; `None` when there are too many weights.
    pub(crate) fn line_of(&mut self, weight: u32) -> Option<Line> {
        let weight = u64::from(weight);
        let known = |pace: &Pace| pace.weight() == weight || *pace == Pace::NONE;
        let line = (0..LINES).step_by(2).find(|&line| known(&self.paces[line]))?;
        for line in [line, line + 1] {
            self.paces[line] = Pace::new(weight);
            self.lengths[line] = self.paces[line].span(self.ticks[line]);
        }
        u8::try_from(line).ok()
    }

    #[inline]
    pub(crate) const fn pace(&self, line: Line) -> Pace {
        self.paces[line as usize % LINES]
    }

    /// Ticks of a request in `line`.
    #[inline]
    pub(crate) const fn ticks(&self, line: Line) -> u64 {
        self.ticks[line as usize % LINES]
    }

    /// Virtual length of a request in `line`.
    pub(crate) const fn length(&self, line: Line) -> u64 {
        self.lengths[line as usize % LINES]
    }

    /// Whether nobody stands in any line.
    #[inline]
    pub(crate) const fn are_empty(&self) -> bool {
        self.occupied == 0
    }

    /// All who stand in a line.
    pub(crate) fn everybody(&self) -> Set {
        let vcpus = (0..FIRST_PLACE).take(LINES).flat_map(|line| self.members(line));
        Set(vcpus.fold(0, |all, vcpu| all | bit(vcpu)))
    }

    /// Those in `line`, in the order of their turns.
    pub(crate) fn members(&self, line: Line) -> impl Iterator<Item = u16> {
        let next = |place: u8| Some(self.links[usize::from(place)].next).filter(|&next| next < FIRST_PLACE);
        core::iter::successors(next(FIRST_PLACE + line), move |&place| next(place)).map(u16::from)
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
        let (start, place, line) = (self.start(vcpu), place(vcpu), line % COUNT);
        let mut previous = self.link(FIRST_PLACE + line).previous;
        while previous < FIRST_PLACE && self.start(previous.into()) > start {
            previous = self.link(previous).previous;
        }
        let next = core::mem::replace(&mut self.link(previous).next, place);
        self.link(next).previous = place;
        *self.link(place) = Link { next, previous };
        if previous >= FIRST_PLACE {
            self.occupied |= 1 << line;
            self.set_head(line, start);
        }
    }

    /// Takes `vcpu` out of its line.
    pub(crate) fn take(&mut self, vcpu: u16) {
        let Link { next, previous } = *self.link(place(vcpu));
        if previous >= FIRST_PLACE {
            self.take_head(previous - FIRST_PLACE);
        } else {
            self.link(previous).next = next;
            self.link(next).previous = previous;
        }
    }

    /// Takes the head out of `line`, in which somebody stands.
    #[inline]
    pub(crate) fn take_head(&mut self, line: Line) -> u16 {
        let own = FIRST_PLACE + line % COUNT;
        let head = self.link(own).next;
        let next = self.link(head).next;
        self.link(own).next = next;
        self.link(next).previous = own;
        if next >= FIRST_PLACE {
            self.occupied &= !(1 << (line % COUNT));
        } else {
            self.set_head(line, self.start(next.into()));
        }
        head.into()
    }

    #[inline]
    fn set_head(&mut self, line: Line, start: VirtualTime) {
        let line = usize::from(line) % LINES;
        self.head_starts[line] = start;
        self.head_deadlines[line] = start.after(self.lengths[line]);
    }

    /// The line whose head has the earliest deadline among those who may start at `now`.
    #[inline]
    pub(crate) fn first_deadline(&self, now: VirtualTime) -> Option<Line> {
        self.first_of(self.occupied, now).map(|(line, _)| line)
    }

    /// The earliest deadline of a short request that may start at `now`.
    pub(crate) fn first_short_deadline(&self, now: VirtualTime) -> Option<VirtualTime> {
        self.first_of(self.occupied & SHORT, now).map(|(_, deadline)| deadline)
    }

    /// The earliest start of all.
    pub(crate) fn first_start(&self) -> Option<VirtualTime> {
        Set(self.occupied).iter().map(|line| self.head_starts[usize::from(line) % LINES]).min()
    }

    #[inline]
    fn first_of(&self, mut lines: u64, now: VirtualTime) -> Option<(Line, VirtualTime)> {
        let (mut first, mut deadline) = (LINES, now.after(VirtualTime::NEVER));
        while lines != 0 {
            let line = lines.trailing_zeros() as usize % LINES;
            lines &= lines - 1;
            if now < self.head_starts[line] {
                continue;
            }
            if self.head_deadlines[line] < deadline {
                (first, deadline) = (line, self.head_deadlines[line]);
            }
        }
        (first < LINES).then_some((small(first), deadline))
    }

    #[inline]
    fn link(&mut self, place: u8) -> &mut Link {
        &mut self.links[usize::from(place)]
    }
}

#[inline]
const fn place(vcpu: u16) -> u8 {
    small(vcpu as usize % MAX_VCPUS)
}
