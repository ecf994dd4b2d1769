//! What the machine's processor says of itself: a board's `vmx-caps.toml`.

use crate::places;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use vmcs::Capabilities;

/// A processor, as far as VM entry goes.
pub(super) struct Machine {
    pub(super) capabilities: Capabilities,
    /// Width of physical addresses in bits.
    pub(super) physical_address_bits: u8,
}

#[derive(serde::Deserialize)]
struct Capture {
    msr: BTreeMap<String, String>,
    cpuid: BTreeMap<String, BTreeMap<String, [u32; 4]>>,
}

/// Reads the capture of `board`.
pub(super) fn read(board: &str) -> Result<Machine> {
    let path = places::workspace().join("boards").join(board).join("vmx-caps.toml");
    let text = String::from_utf8(places::read(&path)?)?;
    let capture: Capture = toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    let mut msrs = BTreeMap::new();
    for (number, value) in &capture.msr {
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
        msrs.insert(hex(number)?, hex(value)?);
    }
    let width = capture.cpuid.get("0x80000008").and_then(|leaf| leaf.get("0x0")).context("no leaf 0x80000008")?;
    Ok(Machine {
        // An MSR that is not in the capture does not exist, and is asked for only if another says that it does.
        capabilities: Capabilities::read(|msr| msrs.get(&u64::from(msr.0)).copied().unwrap_or(0)),
        physical_address_bits: width[0].to_le_bytes()[0],
    })
}
