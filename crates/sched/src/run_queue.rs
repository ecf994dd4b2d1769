//! The run queue of one processor.

use heapless::Vec;

/// What a vCPU is up to, apart from whether it is the one on the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum State {
    /// It could run, or is running.
    Ready,
    /// It waits for an interrupt.
    Halted,
    /// It waits for a start-up IPI.
    WaitsForSipi,
    /// It never runs again; wakes do not reach it.
    Stopped,
}

/// What the processor does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Decision {
    /// Run this vCPU.
    Run {
        /// Whom.
        vcpu: u16,
        /// Time, in TSC ticks, at which its slice is over; `u64::MAX` while nobody else is ready.
        until: u64,
    },
    /// Nobody is ready: wait for a wake.
    Idle,
    /// Nobody here will ever run again. So too for a queue to which nobody was added yet.
    AllStopped,
}

/// The queue has as many vCPUs as it can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Full;

#[derive(Debug)]
struct Entry {
    vcpu: u16,
    state: State,
}

/// The vCPU that has the processor.
#[derive(Clone, Copy, Debug)]
struct Running {
    vcpu: u16,
    /// When it got it, in TSC ticks.
    since: u64,
    /// It was woken since then. What it was woken for may have come after it last looked, so it must not go to sleep.
    woken: bool,
}

/// The vCPUs of one processor, at most `N`.
#[derive(Debug)]
pub struct RunQueue<const N: usize> {
    /// Those who are ready stand here in the order of their turns.
    line: Vec<Entry, N>,
    running: Option<Running>,
    slice: u64,
}

impl<const N: usize> RunQueue<N> {
    /// A queue of nobody. `slice`, in TSC ticks and not 0, is how long a vCPU runs while others wait.
    #[must_use]
    pub const fn new(slice: u64) -> Self {
        Self { line: Vec::new(), running: None, slice }
    }

    /// Adds a vCPU at the end of the line. One that is already here stays as it is.
    ///
    /// # Errors
    /// [`Full`] when `N` others are here.
    pub fn add(&mut self, vcpu: u16, state: State) -> Result<(), Full> {
        match self.position(vcpu) {
            Some(_) => Ok(()),
            None => self.line.push(Entry { vcpu, state }).map_err(|_| Full),
        }
    }

    /// What to do at time `now`, in TSC ticks.
    ///
    /// May also be asked while a vCPU runs of which nothing has been said yet, and must be when a wake made another
    /// one ready: the answer is then the same vCPU and the end of its slice, or, when that has passed, another one.
    pub fn next(&mut self, now: u64) -> Decision {
        if let Some(running) = self.running {
            let until = self.until(running);
            if now < until {
                return Decision::Run { vcpu: running.vcpu, until };
            }
            self.preempted(running.vcpu);
        }
        if let Some(first) = self.line.iter().find(|entry| entry.state == State::Ready) {
            let running = Running { vcpu: first.vcpu, since: now, woken: false };
            self.running = Some(running);
            Decision::Run { vcpu: running.vcpu, until: self.until(running) }
        } else if self.line.iter().all(|entry| entry.state == State::Stopped) {
            Decision::AllStopped
        } else {
            Decision::Idle
        }
    }

    /// The running vCPU waits for an interrupt. If it was woken while it ran, it is ready instead. Of a vCPU that is not
    /// running here, this says nothing.
    pub fn halted(&mut self, vcpu: u16) {
        self.left(vcpu, State::Halted);
    }

    /// The running vCPU waits for a start-up IPI; otherwise as [`Self::halted`].
    pub fn waits_for_sipi(&mut self, vcpu: u16) {
        self.left(vcpu, State::WaitsForSipi);
    }

    /// The running vCPU has left the processor although it could go on: it goes to the end of the line, whatever is left
    /// of its slice. Of a vCPU that is not running here, this says nothing.
    pub fn preempted(&mut self, vcpu: u16) {
        self.left(vcpu, State::Ready);
    }

    /// The vCPU, running or not, never runs again.
    pub fn stopped(&mut self, vcpu: u16) {
        if self.running.is_some_and(|running| running.vcpu == vcpu) {
            self.running = None;
        }
        if let Some(at) = self.position(vcpu) {
            self.line[at].state = State::Stopped;
        }
    }

    /// Something has happened that the vCPU must look at, whatever it is up to at the moment.
    ///
    /// `true` when that made it ready: the processor is then to ask [`Self::next`]. `false` when it was ready already and
    /// will look when its turn comes, when it is running and is remembered as woken until it leaves the processor, when
    /// it is stopped, and when it is not here.
    pub fn wake(&mut self, vcpu: u16) -> bool {
        if let Some(running) = self.running.as_mut().filter(|running| running.vcpu == vcpu) {
            running.woken = true;
            return false;
        }
        match self.position(vcpu) {
            Some(at) if matches!(self.line[at].state, State::Halted | State::WaitsForSipi) => {
                self.move_to_end(at, State::Ready);
                true
            }
            _ => false,
        }
    }

    /// What `vcpu` is up to; `None` when it is not here.
    #[must_use]
    pub fn state(&self, vcpu: u16) -> Option<State> {
        self.position(vcpu).map(|at| self.line[at].state)
    }

    /// The vCPU that has the processor.
    #[must_use]
    pub fn running(&self) -> Option<u16> {
        self.running.map(|running| running.vcpu)
    }

    fn position(&self, vcpu: u16) -> Option<usize> {
        self.line.iter().position(|entry| entry.vcpu == vcpu)
    }

    /// When the slice of the running vCPU is over.
    fn until(&self, running: Running) -> u64 {
        let others = self.line.iter().any(|entry| entry.vcpu != running.vcpu && entry.state == State::Ready);
        if others { running.since.saturating_add(self.slice) } else { u64::MAX }
    }

    /// `vcpu`, if it is the running one, leaves the processor in `state`, or ready if it was woken.
    fn left(&mut self, vcpu: u16, state: State) {
        let Some(running) = self.running.take_if(|running| running.vcpu == vcpu) else { return };
        let state = if running.woken { State::Ready } else { state };
        if let Some(at) = self.position(vcpu) {
            self.move_to_end(at, state);
        }
    }

    /// Moves the vCPU at `at` to the end of the line.
    fn move_to_end(&mut self, at: usize, state: State) {
        self.line[at].state = state;
        self.line[at..].rotate_left(1);
    }
}
