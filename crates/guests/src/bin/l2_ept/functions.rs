//! VM function 0, EPTP switching: SDM 3C 26.5.6.3 "EPTP Switching".

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guests::vmx::ept::{ALL, Ept, WRITE_BACK};
use guests::vmx::{Current, equal, pages};
use guests::{memory, println};
use vmcs::Access;
use vmcs::controls::SecondaryBased;
use vmcs::fields::{EPT_POINTER, EPTP_LIST_ADDRESS, VM_FUNCTION_CONTROL};

use crate::{PAGE, with_ept};

static READ: AtomicU64 = AtomicU64::new(0);
static INDEX: AtomicU64 = AtomicU64::new(0);
const OTHER: u64 = PAGE + (2 << 20);

fn switch() {
    // SAFETY: the page that is looked at is the only one that changes.
    unsafe { asm!(".byte 0x0f, 0x01, 0xd4", in("rax") 0_u64, in("rcx") INDEX.load(Ordering::Relaxed)) };
    READ.store(memory::read_register(PAGE).into(), Ordering::Relaxed);
}

pub(crate) fn all() {
    println!("EPTP switching");
    let (mut l2, first) = with_ept();
    let second = Ept::identity();
    memory::write(second.entry(PAGE, 1), OTHER | ALL | WRITE_BACK);
    let saved: u64 = memory::read(PAGE);
    memory::write(PAGE, 0x1111_u32);
    memory::write(OTHER, 0x2222_u32);
    let list = pages::take();
    memory::write(list, [first.pointer(), second.pointer(), second.pointer() | 1 << 8]);
    memory::write(list + 511 * 8, second.pointer());
    let mut current = Current;
    if !l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_VM_FUNCTIONS) {
        println!(" not offered");
        return;
    }
    current.write(EPTP_LIST_ADDRESS, list);
    current.write(VM_FUNCTION_CONTROL, 1);
    for (what, index, eptp, value) in [
        ("0", 0, first.pointer(), 0x1111),
        ("1", 1, second.pointer(), 0x2222),
        ("0 again", 0, first.pointer(), 0x1111),
        ("511", 511, second.pointer(), 0x2222),
    ] {
        INDEX.store(index, Ordering::Relaxed);
        l2.restart(switch);
        println!(" {what}: {}", l2.run());
        equal("EPTP", current.read(EPT_POINTER), eptp);
        equal("read", READ.load(Ordering::Relaxed), value);
    }
    for (what, index) in
        [("an EPTP that no entry would take", 2), ("0 in the list", 3), ("512", 512), ("bit 31", 1 << 31)]
    {
        INDEX.store(index, Ordering::Relaxed);
        l2.restart(switch);
        println!(" {what}: {}", l2.run());
        equal("EPTP", current.read(EPT_POINTER), second.pointer());
    }
    memory::write(PAGE, saved);
}
