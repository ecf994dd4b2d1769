//! Which vCPU next on this processor, and for how long.
//!
//! Each processor has one [`RunQueue`] of the vCPUs that live on it. A queue knows no clock and no VM: the caller brings the time,
//! says what became of the vCPU that ran and who was woken, and asks [`RunQueue::next`]. What processors tell one another
//! goes through [`Signals`], without a lock.
//!
//! # The policy
//!
//! Earliest eligible virtual deadline first: I. Stoica and H. Abdel-Wahab, "Earliest Eligible Virtual Deadline First: A Flexible
//! and Accurate Mechanism for Proportional Share Resource Allocation", TR-95-22, Old Dominion University, 1995. In its words:
//!
//! - A processor's virtual time *V* goes by at the rate 1/*W*, where *W* is the weight of all who compete. A vCPU of weight
//!   *w* is due *w* ticks in one unit of *V*. Its *start* is where its service stands: it moves by 1/*w* for each tick that it
//!   has used. Its *lag*, *w* (*V* - start), is what it is owed, or owes when that is negative.
//! - Its next *request* is for a slice *q*; its deadline is start + *q*/*w*. Whose lag is not negative is *eligible*. Of
//!   those, the one with the earliest deadline runs, to the end of its request.
//! - After a wake the first request is for *q*/8. Its deadline is early, so a vCPU that owes nothing preempts one that has
//!   had more; but it gets no more than its share by that.
//!
//! What the paper leaves open, or does by moving *V* back, which would let lags grow while vCPUs come and go:
//!
//! - Who halts in debt competes on until *V* has reached its start, and pays so; if it is woken before, it still owes the rest. Who
//!   halts while it is owed time gives that up, and starts at *V* when it is woken. So *V* never goes back.
//! - If nobody ready is eligible, since some have given up what they were owed, *V* jumps to the least start, as in J. Bennett and
//!   H. Zhang, "Hierarchical Packet Fair Queueing Algorithms" (WF2Q+), SIGCOMM 1996. If nobody is ready, all debts are void.
//! - Whose request is preempted makes a new one for a slice. It has been served meanwhile, so its deadline is no earlier.
//!
//! # What it promises
//!
//! **The lag of whoever is ready stays between -*q* and *q*.** It is not below -*q*: only who is eligible begins to run,
//! for *q* at most, and nothing else lowers a lag, since *V* never goes back. It is not above *q*: let *D* be a deadline, and
//! *t* the last time before it at which one with a later deadline began to run. Then nobody with a deadline up to *D* was
//! eligible: all their starts were *V*(*t*) or later, and those of who came afterwards too. From *t* until *V* is *D* they
//! ask for no more than their shares of that time, besides which there are the at most *q* ticks of the one that began at *t*,
//! who has a share itself. So each of them begins its last slice before *V* reaches its deadline, when its lag is *q*.
//!
//! **Whoever is ready and does not run waits at most 2 *q* *W* / *w***, where *W* is the weight of all who live on the
//! processor: its lag is above -*q* when it begins to wait and below *q* when it begins to run, and *V* covers the 2 *q*/*w* between
//! in no more than that. Among *n* of one weight these are 2 *n* slices; *n* - 1 is what they mostly are.
//!
//! Both count from a decision that comes in time: an overrun of the caller adds to them. Both are tested over a
//! million random steps against an ideal processor (`src/tests/fairness.rs`).
//!
//! **A vCPU that spins** lends the rest of its request to another one of its VM ([`RunQueue::spins`]). It is charged for that itself, so
//! a VM's locks cost other VMs nothing.
//!
//! # What it costs
//!
//! All who have one weight make requests of one virtual length. So they stand in lines, sorted by start, whose heads have the
//! first deadlines too; and the lines are linked in the order of these. A decision takes the first head that may start, finds the
//! line's new place, mostly the old one, and puts who has just run at the end of a line. Each weight has four of them, since those who
//! were cut short or have been woken belong somewhere in the middle of the others, but follow one another nearly in order. Those in debt
//! and those who sleep until an alarm stand in the order in which the clocks reach them.
//!
//! With 64 vCPUs a decision is 123 instructions when all compute and have one weight, 135 when they have eight, and at most 150 on
//! average under any load of `tests/cost.rs`, where they halt, wake, and preempt one another. The dearest kind of decision there is 194 on
//! average: a wake that preempts, when everybody's every slice is cut short so. A wake is not counted, neither by a caller nor by an
//! alarm.
//!
//! # Locks
//!
//! One lock for each processor's queue, and nobody holds two. Its own processor takes it for decisions, and to give a vCPU away.
//! Another one takes it to hand one over, and when it has nobody to run and [`Signals::waiting`] says that somebody waits here;
//! so it is free but for moments in which a vCPU moves. Who wakes takes no lock at all: it sets a bit in [`Signals`], and
//! the vCPU's processor calls [`RunQueue::wake`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod alarms;
mod compete;
mod lend;
mod lines;
mod member;
mod place;
mod run_queue;
mod signals;
mod virtual_time;

pub use member::{Counters, MAX_PROCESSORS, MAX_VCPUS, MAX_WEIGHT, MAX_WEIGHTS, Member, Migrant, Set, State};
pub use place::{Homeless, place};
pub use run_queue::{Decision, Refused, RunQueue, Wake};
pub use signals::Signals;

#[cfg(test)]
mod tests;
