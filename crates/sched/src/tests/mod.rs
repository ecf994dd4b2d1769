//! What the queues promise: about time ([`fairness`]), about wakes and processors ([`explore`]), and the policy's single rules ([`rules`]).

mod explore;
mod fairness;
mod random;
mod rules;
