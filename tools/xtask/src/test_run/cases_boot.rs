//! Ways of booting: one image, and each way in that there is.
//!
//! QEMU without KVM has no VT-x, so there the way ends at the refusal that says so: the image, its command line and the
//! machine's tables have arrived by then. In Bochs the guest runs.

use super::cases::{Case, Expect, Kernel};
use crate::board::{self, Boot, Firmware};
use anyhow::Result;

/// Seconds for a machine that only boots.
const PATIENCE: u64 = 90;

/// The tests of this file.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (boot, firmware, name, loader) in [
        (Boot::GrubIso, Firmware::Bios, "iso-bios", "GRUB"),
        (Boot::GrubIso, Firmware::Uefi, "iso-uefi", "GRUB"),
        (Boot::GrubUsb, Firmware::Bios, "usb-bios", "GRUB"),
        (Boot::GrubUsb, Firmware::Uefi, "usb-uefi", "GRUB"),
        (Boot::GrubPxe, Firmware::Bios, "pxe-bios", "GRUB"),
        (Boot::GrubPxe, Firmware::Uefi, "pxe-uefi", "GRUB"),
        (Boot::Ipxe, Firmware::Bios, "ipxe", "iPXE"),
        (Boot::Kernel, Firmware::Bios, "kernel", "qemu"),
    ] {
        let mut case = Case::new(&format!("boot-qemu-{name}"), "qemu-q35", Kernel::Demo, PATIENCE)?.refused("no VMX");
        case.spec.board.boot = boot;
        case.spec.board.firmware = firmware;
        case.expect.push(Expect::Log(format!("booted by {loader}")));
        cases.push(case);
    }
    for (boot, name) in [(Boot::GrubUsb, "usb"), (Boot::GrubPxe, "pxe"), (Boot::Ipxe, "ipxe")] {
        let mut case = Case::new(&format!("boot-bochs-{name}"), board::DEFAULT, Kernel::Demo, PATIENCE)?;
        case.spec.board.boot = boot;
        case.expect.push(Expect::Console("Goodbye.".to_owned()));
        cases.push(case);
    }
    Ok(cases)
}
