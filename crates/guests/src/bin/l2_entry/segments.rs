//! SDM 3C 27.3.1.2 "Checks on Guest Segment Registers", 27.3.1.3 "Checks on Guest Descriptor-Table Registers".

use guests::println;
use guests::vmx::L2;
use guests::vmx::state::{CS, DS, ES, FS, GS, LDTR, SS, Segment, TR};
use vmcs::Access;
use vmcs::fields::{GUEST_GDTR_BASE, GUEST_GDTR_LIMIT, GUEST_IDTR_BASE, GUEST_IDTR_LIMIT, GUEST_RFLAGS};

use crate::{NOT_CANONICAL, row};

pub(crate) fn all(l2: &mut L2) {
    code(l2);
    stack(l2);
    data(l2);
    system(l2);
    tables(l2);
}

/// One segment with other access rights.
fn rights(l2: &mut L2, segment: Segment, rows: &[(&str, u32)]) {
    for &(what, rights) in rows {
        row(l2, what, |_, c| c.write(segment.rights, rights));
    }
}

fn code(l2: &mut L2) {
    println!("CS");
    rights(
        l2,
        CS,
        &[
            ("a data segment", 0xa093),
            ("not accessed", 0xa09a),
            ("a system segment", 0xa08b),
            ("DPL 3", 0xa0fb),
            ("conforming", 0xa09f),
            ("conforming, DPL 3", 0xa0ff),
            ("not present", 0xa01b),
            ("reserved bit 8", 0xa19b),
            ("reserved bit 17", 0x2_a09b),
            ("both L and D", 0xe09b),
            ("not granular, limit of 4 GiB", 0x209b),
        ],
    );
    row(l2, "granular, limit without ones", |_, c| c.write(CS.limit, 0xffff_0000));
    row(l2, "base above 4 GiB", |_, c| c.write(CS.base, 1 << 32));
    row(l2, "RPL 3", |_, c| c.write(CS.selector, 0x0b));
}

fn stack(l2: &mut L2) {
    println!("SS");
    rights(
        l2,
        SS,
        &[
            ("unusable", 0x1_c093),
            ("read-only", 0xc091),
            ("a code segment", 0xc09b),
            ("a system segment", 0xc083),
            ("not present", 0xc013),
            ("expand-down", 0xc097),
            ("DPL 3", 0xc0f3),
            ("reserved bit 11", 0xc893),
        ],
    );
    row(l2, "RPL 3", |_, c| c.write(SS.selector, 0x13));
    row(l2, "base above 4 GiB", |_, c| c.write(SS.base, 1 << 32));
    row(l2, "unusable, base above 4 GiB", |_, c| {
        c.write(SS.rights, 0x1_0000);
        c.write(SS.base, 1 << 32);
    });
}

fn data(l2: &mut L2) {
    println!("DS and ES");
    rights(
        l2,
        DS,
        &[
            ("unusable", 0x1_0000),
            ("not accessed", 0xc092),
            ("code that cannot be read", 0xc099),
            ("code that can be read", 0xc09b),
            ("a system segment", 0xc083),
            ("not present", 0xc013),
            ("reserved bit 31", 0x8000_c093),
            ("not granular, limit of 4 GiB", 0x4093),
        ],
    );
    row(l2, "RPL 3, DPL 0", |_, c| c.write(DS.selector, 0x13));
    row(l2, "base above 4 GiB", |_, c| c.write(ES.base, 1 << 32));
    row(l2, "granular, limit of 1 MiB", |_, c| c.write(ES.limit, 0xf_ffff));
    println!("FS and GS");
    row(l2, "base not canonical", |_, c| c.write(FS.base, NOT_CANONICAL));
    row(l2, "base not canonical", |_, c| c.write(GS.base, NOT_CANONICAL));
    row(l2, "base above 4 GiB", |_, c| c.write(GS.base, 1 << 40));
}

fn system(l2: &mut L2) {
    println!("TR");
    rights(
        l2,
        TR,
        &[
            ("unusable", 0x1_008b),
            ("available", 0x89),
            ("a busy 16-bit TSS", 0x83),
            ("an LDT", 0x82),
            ("a code segment", 0x9b),
            ("not present", 0x0b),
            ("granular, limit of 103", 0x808b),
            ("reserved bit 8", 0x18b),
        ],
    );
    row(l2, "in the LDT", |_, c| c.write(TR.selector, 0x44));
    row(l2, "base not canonical", |_, c| c.write(TR.base, NOT_CANONICAL));
    row(l2, "not granular, limit of 1 MiB", |_, c| c.write(TR.limit, 0xf_ffff));
    row(l2, "not granular, limit of 4 GiB", |_, c| c.write(TR.limit, 0xffff_ffff));
    println!("LDTR");
    rights(
        l2,
        LDTR,
        &[("right", 0x82), ("a TSS", 0x8b), ("a data segment", 0x93), ("not present", 0x02), ("reserved bit 9", 0x282)],
    );
    row(l2, "in the LDT", |_, c| {
        c.write(LDTR.rights, 0x82);
        c.write(LDTR.selector, 4);
    });
    row(l2, "unusable, in the LDT", |_, c| c.write(LDTR.selector, 4));
    row(l2, "base not canonical", |_, c| {
        c.write(LDTR.rights, 0x82);
        c.write(LDTR.base, NOT_CANONICAL);
    });
    row(l2, "unusable, base not canonical", |_, c| c.write(LDTR.base, NOT_CANONICAL));
}

fn tables(l2: &mut L2) {
    println!("GDTR and IDTR");
    row(l2, "GDTR base not canonical", |_, c| c.write(GUEST_GDTR_BASE, NOT_CANONICAL));
    row(l2, "GDTR limit above 64 KiB", |_, c| c.write(GUEST_GDTR_LIMIT, 0x1_0000));
    row(l2, "IDTR base not canonical", |_, c| c.write(GUEST_IDTR_BASE, NOT_CANONICAL));
    row(l2, "IDTR limit above 64 KiB", |_, c| c.write(GUEST_IDTR_LIMIT, 0x1_0000));
    println!("virtual-8086 mode and 64 bits");
    row(l2, "VM in 64-bit mode", |_, c| c.write(GUEST_RFLAGS, 1 << 17 | 2));
}
