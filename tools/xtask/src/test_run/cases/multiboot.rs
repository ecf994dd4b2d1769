//! Multiboot kernels, ours and Xen.

use super::{Case, Expect, Kernel, PATIENCE, World};
use crate::board;
use crate::guest_linux::INIT_BOOT;
use anyhow::Result;

/// What a multiboot1 kernel is given, and the status it leaves.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut demo = Case::new("demo", board::DEFAULT, Kernel::Demo, PATIENCE)?;
    demo.expect.push(Expect::Log("end of run: status 0".to_owned()));

    let mut status = Case::new("hello-exit-status", board::DEFAULT, Kernel::Ours("hello"), PATIENCE)?;
    status.world = World::Both;
    status.spec.cmdline = "first second exit=42".to_owned();
    status.modules = vec![("data.bin", b"123456789".to_vec(), "one two"), ("more.bin", vec![7; 70_000], "")];
    status.status = 42;
    for line in [
        "arguments: first second exit=42",
        // FNV-1a, 32 bits, of "123456789" is BB86B11C.
        "module 0: data.bin one two; 9 bytes, checksum bb86b11c",
        "module 1: more.bin; 70000 bytes",
    ] {
        status.expect.push(Expect::Console(line.to_owned()));
    }

    // With Debian's Linux and its initramfs as modules: both command lines, the modules and the machine must be right.
    let mut xen = Case::new("xen-with-linux", board::DEFAULT, Kernel::Xen(INIT_BOOT), 900)?;
    xen.spec.lenient_msrs = true;
    xen.spec.cmdline = "com1=115200,8n1 console=com1 dom0_mem=256M".to_owned();
    // Xen leaves out its own name where the loader is not GRUB, as QEMU's is not.
    for line in ["com1=115200,8n1 console=com1 dom0_mem=256M", "*** Building a PV Dom0 ***", "user space reached"] {
        xen.expect.push(Expect::Console(line.to_owned()));
    }
    Ok(vec![demo, status, xen])
}
