//! Tests that need what the crate does not show.

mod apicv;
