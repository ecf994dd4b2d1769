//! Runs that end before the guest starts.

use super::{Case, Expect, Kernel, Made, PATIENCE};
use crate::board;
use crate::guest_linux::INIT_BOOT;
use anyhow::Result;

/// What Nestling refuses: one clear sentence, status 125, the machine stopped.
pub(super) fn all() -> Result<Vec<Case>> {
    let hello = || Kernel::Ours("hello");
    let mut cases = vec![
        Case::new("refusal-qemu-no-vmx", "qemu-q35", Kernel::Demo, PATIENCE)?.refused("VMX"),
        Case::new("refusal-unknown-kernel", board::DEFAULT, Kernel::Made(Made::Bytes(vec![0x90; 9000])), PATIENCE)?
            .refused("kernel"),
        Case::new("refusal-empty-kernel", board::DEFAULT, Kernel::Made(Made::Bytes(Vec::new())), PATIENCE)?
            .refused("kernel"),
        Case::new("refusal-truncated-linux", board::DEFAULT, Kernel::Made(Made::TruncatedLinux(100_000)), PATIENCE)?
            .refused("truncated"),
        Case::new(
            "refusal-truncated-multiboot",
            board::DEFAULT,
            Kernel::Made(Made::TruncatedGuest("hello", 9000)),
            PATIENCE,
        )?
        .refused("truncated"),
    ];
    let mut amd = Case::new("refusal-amd", board::DEFAULT, hello(), PATIENCE)?.refused("VMX");
    amd.spec.cpu_model = Some("ryzen".to_owned());
    cases.push(amd);
    let mut old =
        Case::new("refusal-no-unrestricted-guest", board::DEFAULT, hello(), PATIENCE)?.refused("unrestricted guest");
    // Lynnfield has EPT and no unrestricted guest; Penryn has VMX without EPT.
    old.spec.cpu_model = Some("corei5_lynnfield_750".to_owned());
    cases.push(old);
    let mut older = Case::new("refusal-no-ept", board::DEFAULT, hello(), PATIENCE)?.refused("EPT");
    older.spec.cpu_model = Some("core2_penryn_t9600".to_owned());
    cases.push(older);
    let mut locked = Case::new("refusal-vmx-locked-off", board::DEFAULT, hello(), PATIENCE)?.refused("firmware");
    locked.spec.vmx_locked_off = true;
    cases.push(locked);
    let mut small = Case::new("refusal-too-little-memory", board::DEFAULT, hello(), PATIENCE)?.refused("memory");
    small.spec.machine_memory = Some(128);
    cases.push(small);
    let mut initrd =
        Case::new("refusal-initrd-does-not-fit", board::DEFAULT, Kernel::Linux(INIT_BOOT), PATIENCE)?.refused("initrd");
    // The kernel takes 72 MiB of the 96.
    initrd.initrd_size = Some(40 << 20);
    initrd.spec.memory = 96;
    cases.push(initrd);
    cases.extend(failures()?);
    Ok(cases)
}

/// What Nestling says of its own failures.
fn failures() -> Result<Vec<Case>> {
    let demo = |name: &str, word| -> Result<Case> {
        let mut case = Case::new(name, board::DEFAULT, Kernel::Demo, PATIENCE)?;
        case.spec.image_words = vec![word];
        Ok(case)
    };
    let mut entry = demo("failure-vm-entry", "selftest=entry")?.refused("VM entry failed");
    // The rule that is broken, and the state.
    entry.expect.extend(["RFLAGS", "GUEST_RIP"].map(|text| Expect::Log(text.to_owned())));
    let mut panic = demo("failure-panic", "selftest=panic")?.refused("selftest=panic");
    panic.expect.push(Expect::Log("GUEST_RIP".to_owned()));
    let option = demo("refusal-image-option", "verbose=1")?.refused("verbose=1");
    Ok(vec![entry, panic, option])
}
