//! What the queues promise: about time ([`fairness`]), about wakes and processors ([`explore`]), the policy's single rules ([`rules`]), and
//! that whatever happens leaves nobody out ([`storm`]).

mod explore;
mod fairness;
mod random;
mod rules;
mod storm;
