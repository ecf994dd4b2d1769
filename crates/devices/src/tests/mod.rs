//! The devices against their data sheets, reference crates and random guests.

mod calendar;
mod counter;
mod ioapic;
mod machine;
mod pic;
mod platform;
mod pm;
mod random_guest;
mod rtc;
mod timer_interrupts;
mod uart;
mod uart_oracle;
