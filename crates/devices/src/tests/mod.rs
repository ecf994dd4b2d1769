//! The devices against their data sheets, reference crates and random guests.

mod machine;
mod platform;
