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
//! - Its next *request* has a deadline, as far behind its start as the request is long in virtual time. Whose lag is not negative is
//!   *eligible*. Of those, the one with the earliest deadline runs, to the end of its request.
//! - After a wake the first request is an eighth of one. Its deadline is early, so a vCPU that owes nothing preempts one that has
//!   had more; but it gets no more than its share by that.
//!
//! What the paper leaves open:
//!
//! - All requests have one virtual length *L*, as in J. Nieh, C. Vaill and H. Zhong, "Virtual-Time Round-Robin: An O(1) Proportional Share
//!   Scheduler", USENIX 2001: the heaviest vCPU that may come to the processor asks for nearly a slice *q*, one with half its
//!   weight for half of that. So who starts first has the first deadline and is eligible, and a light vCPU gets little, but often.
//! - The lags of all who compete add up to nothing, as in the paper; in other words *V* is the mean of their starts, each counted as
//!   often as its weight. So nobody needs to keep it: it is computed when somebody is woken.
//! - Who halts in debt competes on until *V* has reached its start, and pays so; if it is woken before, it still owes the rest. Who
//!   halts while it is owed time leaves that to the others, and starts at *V* when it is woken. So *V* never goes back.
//! - Whose request is preempted makes a new one. It has been served meanwhile, so its deadline is no earlier.
//!
//! # What it promises
//!
//! Let *B* be *q* divided by the weight of the heaviest; *L* is that less two granules of the calendar (below), whose order is
//! right to within one.
//!
//! **The lag of whoever is ready stays between -*w* *B* and *w* *B***, which is a slice for the heaviest and as much less for others as they
//! weigh less. It is not below: nobody begins to run who is more than two granules ahead of *V*, and it runs for *L* at most. It is not
//! above: while one with a start *s* waits, whoever begins to run has a deadline of at most *s* + *B*, so that all starts are at
//! most *s* + *B*, those of debtors too. *V* is the mean of them and *s*; so *V* - *s* is at most *B* (1 - *w*/*W*).
//!
//! **Whoever is ready and does not run waits at most 2 *B* *W***, where *W* is the weight of all who live on the
//! processor or have left it in debt: its lag is above -*w* *B* when it begins to wait and at most *w* *B* when it begins to run, and
//! *V* covers the 2 *B* between in no more than that. Among *n* of one weight these are 2 *n* slices; *n* - 1 is what they mostly are.
//!
//! Both count from decisions that come in time: what one overruns adds to its own debt, and to what the others are owed together, up to
//! 2^30 ticks each time. Both are tested over a million random steps against an ideal processor (`src/tests/fairness.rs`).
//!
//! **A vCPU that spins** lends the rest of its request to another one of its VM ([`RunQueue::spins`]). It is charged for that itself, so
//! a VM's locks cost other VMs nothing, and both promises hold for it as if it ran.
//!
//! # What it costs
//!
//! Who waits stands in a calendar: 64 slots of virtual time, each a word with a bit for each vCPU, and a word that tells which are not
//! empty. That virtual deadlines can be kept by rounding them to slots is the idea of F. Checconi, L. Rizzo and P. Valente, "QFQ:
//! Efficient Packet Scheduling With Tight Guarantees", IEEE/ACM Transactions on Networking 21(3), 2013. So a decision neither sorts nor
//! searches, divides nothing, and has no loop.
//!
//! With 64 vCPUs a decision is 112 instructions when all compute, and at most 145 whatever they do and whatever came before it: slices
//! that end, halts, wakes that preempt, alarms, spinning, moves (`tests/cost.rs`, which counts each one). A wake is not counted, neither
//! by a caller nor by an alarm.
//!
//! That too is about decisions that come in time. Who runs for longer than about two of its own requests because a decision is late, as one
//! easily does whose requests are a thousandth of a slice, is put aside; decisions look through those when the time of one may have
//! come, a few dozen instructions for each.
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
mod calendar;
mod compete;
mod decide;
mod lend;
mod member;
mod place;
mod run_queue;
mod signals;
mod virtual_time;

pub use decide::Decision;
pub use member::{Counters, MAX_PROCESSORS, MAX_VCPUS, MAX_WEIGHT, Member, Migrant, Set, State};
pub use place::{Homeless, place};
pub use run_queue::{Refused, RunQueue, Wake};
pub use signals::Signals;

#[cfg(test)]
mod tests;
