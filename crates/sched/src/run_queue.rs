//! Round robin over the vCPUs of one processor.
//!
//! How a vCPU is run, so that no wake is lost: [`RunQueue::next`] names it; it looks for events, then runs; when it finds
//! nothing more to do, it halts. An event that comes after the look and before [`RunQueue::halt`] finds it
//! [`State::Running`] and leaves a mark, which turns the halt into going to the end of the queue: it looks again.

use heapless::{Deque, Vec};

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum State {
    /// It is the one that the processor runs.
    Running,
    /// It could run.
    Ready,
    /// It waits for an event: HLT.
    Halted,
    /// It waits to be started: after INIT (SDM 3A, 9.4.3 "MP Initialization Protocol Algorithm for MP Systems").
    WaitingForSipi,
    /// It never runs again.
    Stopped,
}

/// What the processor does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Decision {
    /// Run this vCPU.
    Run {
        /// The vCPU.
        vcpu: u16,
        /// When to ask again at the latest; `u64::MAX` while no other vCPU is ready. Ask also after each wake.
        until: u64,
    },
    /// No vCPU can run until one is woken.
    Idle,
}

/// Why a vCPU was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum AddError {
    /// The queue has its full number of vCPUs.
    Full,
    /// A vCPU with this number is there already.
    Present,
}

struct Member {
    vcpu: u16,
    state: State,
    /// Woken since it was last chosen to run.
    woken: bool,
}

/// The vCPUs of one processor, at most `N`.
pub struct RunQueue<const N: usize> {
    members: Vec<Member, N>,
    /// Those that are [`State::Ready`], the next one first.
    ready: Deque<u16, N>,
    /// The one that is [`State::Running`], and the end of its slice.
    running: Option<(u16, u64)>,
    slice: u64,
}

impl<const N: usize> RunQueue<N> {
    /// An empty queue. `slice` is how long a vCPU runs while another one is ready.
    pub const fn new(slice: u64) -> Self {
        Self { members: Vec::new(), ready: Deque::new(), running: None, slice }
    }

    /// Adds a vCPU: ready, or waiting to be started.
    pub fn add(&mut self, vcpu: u16, waits_for_sipi: bool) -> Result<(), AddError> {
        if self.state(vcpu).is_some() {
            return Err(AddError::Present);
        }
        let state = State::WaitingForSipi;
        self.members.push(Member { vcpu, state, woken: false }).map_err(|_| AddError::Full)?;
        if !waits_for_sipi {
            self.start(vcpu);
        }
        Ok(())
    }

    /// What `vcpu` is doing; `None` if it is not one of this queue's.
    pub fn state(&self, vcpu: u16) -> Option<State> {
        self.members.iter().find(|member| member.vcpu == vcpu).map(|member| member.state)
    }

    /// Who runs from `now` on. The running vCPU goes on until its slice is over and another one is ready.
    pub fn next(&mut self, now: u64) -> Decision {
        if self.running.is_some_and(|(_, end)| now >= end) && !self.ready.is_empty() {
            self.yield_now();
        }
        if self.running.is_none() {
            self.running = self.ready.pop_front().map(|vcpu| (vcpu, now.saturating_add(self.slice)));
        }
        let Some((vcpu, end)) = self.running else { return Decision::Idle };
        if let Some(member) = self.member(vcpu) {
            member.state = State::Running;
            member.woken = false;
        }
        Decision::Run { vcpu, until: if self.ready.is_empty() { u64::MAX } else { end } }
    }

    /// An event came for `vcpu`. Returns whether it was halted and is now ready: ask [`RunQueue::next`].
    ///
    /// One that waits for SIPI, is stopped or is not of this queue is left alone.
    pub fn wake(&mut self, vcpu: u16) -> bool {
        self.rouse(vcpu, State::Halted)
    }

    /// A start-up IPI came for `vcpu`. Returns whether it waited for it and is now ready: ask [`RunQueue::next`].
    ///
    /// One that is halted, stopped or not of this queue is left alone.
    pub fn start(&mut self, vcpu: u16) -> bool {
        self.rouse(vcpu, State::WaitingForSipi)
    }

    /// The running vCPU has nothing to do until an event comes. If one came since it was chosen, it stays ready.
    pub fn halt(&mut self) {
        self.leave(State::Halted);
    }

    /// The running vCPU waits to be started. If a wake or start came since it was chosen, it stays ready.
    pub fn wait_for_sipi(&mut self) {
        self.leave(State::WaitingForSipi);
    }

    /// The running vCPU gives the rest of its slice to the others.
    pub fn yield_now(&mut self) {
        self.leave(State::Ready);
    }

    /// `vcpu` never runs again, whatever it is doing.
    pub fn stop(&mut self, vcpu: u16) {
        if let Some(member) = self.member(vcpu) {
            member.state = State::Stopped;
        }
        if self.running.is_some_and(|(running, _)| running == vcpu) {
            self.running = None;
        }
        self.ready.retain(|&ready| ready != vcpu);
    }

    fn member(&mut self, vcpu: u16) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.vcpu == vcpu)
    }

    /// Makes `vcpu` ready if it is `blocked`, and leaves the mark if it is running.
    fn rouse(&mut self, vcpu: u16, blocked: State) -> bool {
        match self.member(vcpu) {
            Some(member) if member.state == blocked => self.enqueue(vcpu),
            Some(member) => {
                member.woken |= member.state == State::Running;
                false
            }
            None => false,
        }
    }

    /// The running vCPU stops running and is in `state` now, unless the mark says that it must look again.
    fn leave(&mut self, state: State) {
        let Some((vcpu, _)) = self.running.take() else { return };
        match self.member(vcpu) {
            Some(member) if state != State::Ready && !member.woken => member.state = state,
            _ => {
                self.enqueue(vcpu);
            }
        }
    }

    /// Puts `vcpu` at the end of the queue. There is room: each of the at most `N` members is in it at most once.
    fn enqueue(&mut self, vcpu: u16) -> bool {
        let queued = self.ready.push_back(vcpu).is_ok();
        if let Some(member) = self.member(vcpu) {
            member.state = State::Ready;
        }
        queued
    }
}
