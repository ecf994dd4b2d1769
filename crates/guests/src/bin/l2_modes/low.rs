//! Events of a guest in real-address mode, and virtual-8086 mode. SDM 3C 27.6.1 "Vectored-Event Injection"; 27.3.1.2 "Checks on Guest
//! Segment Registers".

use guests::vmx::ept::Ept;
use guests::vmx::state::{CS, DS, ES, FS, GS, SS};
use guests::vmx::{Current, L2, equal, pages, setup};
use guests::{memory, println};
use vmcs::Access;
use vmcs::controls::{EntryControls, ExitControls, SecondaryBased};
use vmcs::fields::*;

use crate::code::LOW;
use crate::{paged, real_mode};

/// Where the code for here is, in the segment of [`LOW`].
const CODE: u64 = 0x100;
/// The handler of [`VECTOR`].
const HANDLER: u64 = 0x180;
const VECTOR: u64 = 0x77;
/// RFLAGS.
const VM: u64 = 1 << 17;

pub(crate) fn all() {
    events();
    virtual_8086();
}

fn place(at: u64, code: &[u8]) {
    for (offset, byte) in code.iter().enumerate() {
        memory::write(LOW + at + offset as u64, *byte);
    }
}

fn events() {
    println!("events in real-address mode");
    let mut l2 = L2::new(|| {});
    let has = l2.control(|controls| {
        controls.secondary |= SecondaryBased::ENABLE_EPT | SecondaryBased::UNRESTRICTED_GUEST;
        controls.entry |= EntryControls::LOAD_IA32_EFER;
        controls.exit |= ExitControls::SAVE_IA32_EFER;
        controls.entry -= EntryControls::IA32E_MODE_GUEST;
    });
    if !has {
        println!(" not offered");
        return;
    }
    let mut current = Current;
    current.write(EPT_POINTER, Ept::identity().pointer());
    // mov eax, 1; vmcall - and the handler: mov eax, 2; vmcall; iret.
    place(CODE, &[0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0x01, 0xc1]);
    place(HANDLER, &[0x66, 0xb8, 2, 0, 0, 0, 0x0f, 0x01, 0xc1, 0xcf]);
    let before: u32 = memory::read(4 * VECTOR);
    memory::write(4 * VECTOR, (HANDLER | (LOW >> 4) << 16) as u32);
    let error_code_is_free = setup::capabilities().basic.has_free_error_codes();
    for (what, info, error, length) in [
        ("external interrupt", 0x8000_0000 | VECTOR as u32, 0, 0),
        ("INT", 0x8000_0400 | VECTOR as u32, 0, 2),
        ("#GP with an error code", 0x8000_0b0d, 0, 0),
    ] {
        if error_code_is_free && info & 1 << 11 != 0 {
            // Bochs lets it in, the manual does not.
            println!(" {what}: skip");
            continue;
        }
        real_mode();
        current.write(GUEST_RIP, CODE - u64::from(length));
        current.write(GUEST_RFLAGS, 0x202);
        current.write(VM_ENTRY_INTERRUPTION_INFO, info);
        current.write(VM_ENTRY_EXCEPTION_ERROR_CODE, error);
        current.write(VM_ENTRY_INSTRUCTION_LEN, length);
        println!(" {what}: {}", l2.run());
        if !l2.launched || current.read(GUEST_RIP) & !0xf != HANDLER {
            continue;
        }
        let stack = current.read(GUEST_RSP);
        equal("pushed RIP", memory::read::<u16>(stack).into(), CODE);
        equal("pushed CS", memory::read::<u16>(stack + 2).into(), LOW >> 4);
        equal("interrupts are off", current.read(GUEST_RFLAGS) & 0x200, 0);
        l2.skip();
        println!(" then: {}", l2.run());
    }
    memory::write(4 * VECTOR, before);
}

fn virtual_8086() {
    println!("virtual-8086 mode");
    let mut l2 = L2::new(|| {});
    let mut current = Current;
    // cpuid; mov eax, 3; vmcall; hlt
    place(CODE, &[0x0f, 0xa2, 0x66, 0xb8, 3, 0, 0, 0, 0x0f, 0x01, 0xc1, 0xf4]);
    // Its code is of ring 3, which L1's tables do not let in.
    let (pointers, directory) = (pages::take(), pages::take());
    memory::write(pointers, directory | 1);
    memory::write(directory, 0x87_u64);
    let state = |l2: &mut L2| {
        paged(l2, CODE);
        Current.write(GUEST_CR3, pointers);
        for segment in [CS, ES, SS, DS, FS, GS] {
            segment.write((LOW >> 4) as u16, LOW, 0xffff, 0xf3);
        }
        Current.write(GUEST_RSP, 0xf00);
        Current.write(GUEST_RFLAGS, VM | 2);
    };
    state(&mut l2);
    current.write(EXCEPTION_BITMAP, 1 << 13);
    for _ in 0..3 {
        let report = l2.run();
        println!(" {report}");
        if !report.is_instruction() {
            break;
        }
        l2.skip();
    }
    equal("the HLT faulted", current.read(GUEST_RIP), CODE + 11);
    equal("RFLAGS.VM", current.read(GUEST_RFLAGS) & VM, VM);
    for (what, breaking) in [
        ("a base that is not the selector's", (|| Current.write(DS.base, LOW + 16)) as fn()),
        ("a limit of 4 GiB", || Current.write(ES.limit, 0xffff_ffff)),
        ("rights of ring 0", || Current.write(SS.rights, 0x93)),
        ("a code segment", || Current.write(CS.rights, 0xfb)),
        ("unusable", || Current.write(FS.rights, 0x1_00f3)),
    ] {
        state(&mut l2);
        breaking();
        println!(" {what}: {}", l2.run());
    }
}
