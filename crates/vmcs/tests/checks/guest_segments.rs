//! SDM 3C 27.3.1.2 and 27.3.1.3: segment and descriptor-table registers.

use vmcs::Access;
use vmcs::controls::{EntryControls, SecondaryBased};
use vmcs::field::{Field, Natural, W16, W32};
use vmcs::fields::*;

use crate::{Machine, NOT_CANONICAL, Row};

/// Without unrestricted guest.
pub(crate) fn restricted(m: &mut Machine) {
    m.clear(SECONDARY_VM_EXEC_CONTROL, SecondaryBased::UNRESTRICTED_GUEST.bits());
}

/// A 32-bit protected-mode guest with 32-bit paging.
pub(crate) fn guest_32_bit(m: &mut Machine) {
    m.clear(VM_ENTRY_CONTROLS, EntryControls::IA32E_MODE_GUEST.bits());
    m.vmcs.write(GUEST_IA32_EFER, 0);
    m.vmcs.write(GUEST_CR4, 0x2000);
    m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
}

/// Selector, base, limit and access rights.
type Segment = (Field<W16>, Field<Natural>, Field<W32>, Field<W32>);

/// ES, CS, SS, DS, FS and GS.
const SEGMENTS: [Segment; 6] = [
    (GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS),
    (GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS),
    (GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS),
    (GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS),
    (GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS),
    (GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS),
];

/// A guest in virtual-8086 mode.
pub(crate) fn virtual_8086(m: &mut Machine) {
    guest_32_bit(m);
    m.vmcs.write(GUEST_RFLAGS, 0x2_0202);
    for (selector, base, limit, rights) in SEGMENTS {
        m.vmcs.write(selector, 0x1234);
        m.vmcs.write(base, 0x1_2340);
        m.vmcs.write(limit, 0xffff);
        m.vmcs.write(rights, 0xf3);
    }
}

/// A 32-bit guest at privilege level 3.
fn user_mode(m: &mut Machine) {
    guest_32_bit(m);
    m.vmcs.write(GUEST_CS_SELECTOR, 0x0b);
    m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc0fb);
    m.vmcs.write(GUEST_SS_SELECTOR, 0x13);
    m.vmcs.write(GUEST_SS_ACCESS_RIGHTS, 0xc0f3);
}

fn usable_ldtr(m: &mut Machine) {
    m.vmcs.write(GUEST_LDTR_ACCESS_RIGHTS, 0x82);
    m.vmcs.write(GUEST_LDTR_LIMIT, 0xfff);
}

/// The rows that all six registers have; `$rights` is what the baseline has.
macro_rules! shared_rows {
    ($($prefix:literal, $selector:ident, $base:ident, $limit:ident, $rights:ident;)*) => {
        &[$(
            (concat!($prefix, "BASE_VIRTUAL_8086"), |m| {
                virtual_8086(m);
                m.vmcs.write($base, 0x1_2341);
            }),
            (concat!($prefix, "LIMIT_VIRTUAL_8086"), |m| {
                virtual_8086(m);
                m.vmcs.write($limit, 0xf_ffff);
            }),
            (concat!($prefix, "RIGHTS_VIRTUAL_8086"), |m| {
                virtual_8086(m);
                m.vmcs.write($rights, 0x93 | 3 << 5 | 1 << 14);
            }),
            (concat!($prefix, "NOT_SYSTEM"), |m| m.clear($rights, 1 << 4)),
            (concat!($prefix, "PRESENT"), |m| m.clear($rights, 1 << 7)),
            (concat!($prefix, "RIGHTS_RESERVED"), |m| m.set($rights, 1 << 8)),
            (concat!($prefix, "LIMIT_LOW"), |m| m.vmcs.write($limit, 0xffff_fffe)),
            (concat!($prefix, "LIMIT_HIGH"), |m| m.clear($rights, 1 << 15)),
            (concat!($prefix, "RIGHTS_RESERVED_HIGH"), |m| m.set($rights, 1 << 17)),
        )*]
    };
}

/// The rows of DS, ES, FS and GS.
macro_rules! data_rows {
    ($($prefix:literal, $selector:ident, $rights:ident;)*) => {
        &[$(
            (concat!($prefix, "ACCESSED"), |m| m.clear($rights, 1)),
            (concat!($prefix, "READABLE"), |m| {
                m.clear($rights, 2);
                m.set($rights, 8);
            }),
            (concat!($prefix, "DPL_BELOW_RPL"), |m| {
                restricted(m);
                m.vmcs.write($selector, 0x13);
            }),
            ("", |m| m.vmcs.write($selector, 0x13)),
            // A conforming code segment may be used from any level.
            ("", |m| {
                restricted(m);
                m.vmcs.write($selector, 0x13);
                m.set($rights, 0xc);
            }),
            // Nothing is asked of a register that is unusable.
            ("", |m| m.vmcs.write($rights, 1 << 16 | 0xf00)),
        )*]
    };
}

const SHARED: &[Row] = shared_rows! {
    "GUEST_CS_", GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS;
    "GUEST_SS_", GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS;
    "GUEST_DS_", GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS;
    "GUEST_ES_", GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS;
    "GUEST_FS_", GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS;
    "GUEST_GS_", GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS;
};

const DATA: &[Row] = data_rows! {
    "GUEST_DS_", GUEST_DS_SELECTOR, GUEST_DS_ACCESS_RIGHTS;
    "GUEST_ES_", GUEST_ES_SELECTOR, GUEST_ES_ACCESS_RIGHTS;
    "GUEST_FS_", GUEST_FS_SELECTOR, GUEST_FS_ACCESS_RIGHTS;
    "GUEST_GS_", GUEST_GS_SELECTOR, GUEST_GS_ACCESS_RIGHTS;
};

const OWN: &[Row] = &[
    ("", virtual_8086),
    ("", user_mode),
    ("GUEST_TR_SELECTOR_TI", |m| m.vmcs.write(GUEST_TR_SELECTOR, 0x1c)),
    ("GUEST_LDTR_SELECTOR_TI", |m| {
        usable_ldtr(m);
        m.vmcs.write(GUEST_LDTR_SELECTOR, 4);
    }),
    ("", |m| m.vmcs.write(GUEST_LDTR_SELECTOR, 4)),
    ("GUEST_SS_SELECTOR_RPL", |m| {
        restricted(m);
        m.vmcs.write(GUEST_CS_SELECTOR, 0x0b);
    }),
    ("", |m| m.vmcs.write(GUEST_CS_SELECTOR, 0x0b)),
    ("GUEST_CS_BASE_32_BIT", |m| m.vmcs.write(GUEST_CS_BASE, 1 << 32)),
    ("GUEST_CS_TYPE", |m| m.clear(GUEST_CS_ACCESS_RIGHTS, 1)),
    ("", |m| {
        guest_32_bit(m);
        m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc093);
    }),
    ("GUEST_CS_TYPE", |m| {
        guest_32_bit(m);
        restricted(m);
        m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc093);
    }),
    ("GUEST_CS_DPL_OF_DATA", |m| {
        guest_32_bit(m);
        m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc0f3);
    }),
    ("GUEST_CS_DPL_OF_NON_CONFORMING", |m| m.set(GUEST_CS_ACCESS_RIGHTS, 3 << 5)),
    ("GUEST_CS_DPL_OF_CONFORMING", |m| m.set(GUEST_CS_ACCESS_RIGHTS, 3 << 5 | 4)),
    ("", |m| {
        // Conforming code of level 0, run by level 3.
        user_mode(m);
        m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc09f);
    }),
    ("GUEST_CS_LONG_AND_BIG", |m| m.set(GUEST_CS_ACCESS_RIGHTS, 1 << 14)),
    ("", |m| {
        guest_32_bit(m);
        m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xe09b);
    }),
    // CS is checked even if it is marked unusable.
    ("GUEST_CS_PRESENT", |m| m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 1 << 16 | 0xa01b)),
    ("GUEST_SS_BASE_32_BIT", |m| m.vmcs.write(GUEST_SS_BASE, 1 << 32)),
    ("", |m| {
        m.vmcs.write(GUEST_SS_ACCESS_RIGHTS, 1 << 16);
        m.vmcs.write(GUEST_SS_BASE, 1 << 32);
    }),
    ("GUEST_SS_TYPE", |m| m.clear(GUEST_SS_ACCESS_RIGHTS, 1)),
    ("", |m| m.set(GUEST_SS_ACCESS_RIGHTS, 4)),
    ("GUEST_CS_DPL_OF_NON_CONFORMING GUEST_SS_DPL_OF_RPL", |m| {
        restricted(m);
        m.set(GUEST_SS_ACCESS_RIGHTS, 3 << 5);
    }),
    ("GUEST_SS_DPL_IN_REAL_MODE", |m| {
        user_mode(m);
        m.vmcs.write(GUEST_CR0, 0x20);
    }),
    ("GUEST_SS_DPL_IN_REAL_MODE", |m| {
        user_mode(m);
        m.vmcs.write(GUEST_CS_ACCESS_RIGHTS, 0xc093);
    }),
    ("GUEST_DS_BASE_32_BIT", |m| m.vmcs.write(GUEST_DS_BASE, 1 << 32)),
    ("GUEST_ES_BASE_32_BIT", |m| m.vmcs.write(GUEST_ES_BASE, 1 << 32)),
    ("", |m| m.vmcs.write(GUEST_FS_BASE, 1 << 32)),
    ("GUEST_FS_BASE_CANONICAL", |m| m.vmcs.write(GUEST_FS_BASE, NOT_CANONICAL)),
    ("GUEST_GS_BASE_CANONICAL", |m| {
        // Checked even if the register is unusable: 64-bit mode uses the base all the same.
        m.vmcs.write(GUEST_GS_ACCESS_RIGHTS, 1 << 16);
        m.vmcs.write(GUEST_GS_BASE, NOT_CANONICAL);
    }),
    ("GUEST_TR_BASE_CANONICAL", |m| m.vmcs.write(GUEST_TR_BASE, NOT_CANONICAL)),
    ("GUEST_TR_TYPE", |m| m.vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x89)),
    ("GUEST_TR_TYPE", |m| m.vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x83)),
    ("", |m| {
        guest_32_bit(m);
        m.vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x83);
    }),
    ("GUEST_TR_SYSTEM", |m| m.vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x9b)),
    ("GUEST_TR_PRESENT", |m| m.vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x0b)),
    ("GUEST_TR_RIGHTS_RESERVED", |m| m.vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x18b)),
    ("GUEST_TR_LIMIT_LOW", |m| m.vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x808b)),
    ("GUEST_TR_LIMIT_HIGH", |m| m.vmcs.write(GUEST_TR_LIMIT, 0xffff_ffff)),
    ("GUEST_TR_USABLE", |m| m.vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x1_008b)),
    ("GUEST_TR_RIGHTS_RESERVED_HIGH", |m| m.vmcs.write(GUEST_TR_ACCESS_RIGHTS, 0x2_008b)),
    ("", usable_ldtr),
    ("GUEST_LDTR_BASE_CANONICAL", |m| {
        usable_ldtr(m);
        m.vmcs.write(GUEST_LDTR_BASE, NOT_CANONICAL);
    }),
    ("", |m| m.vmcs.write(GUEST_LDTR_BASE, NOT_CANONICAL)),
    ("GUEST_LDTR_TYPE", |m| {
        usable_ldtr(m);
        m.vmcs.write(GUEST_LDTR_ACCESS_RIGHTS, 0x83);
    }),
    ("GUEST_LDTR_SYSTEM", |m| {
        usable_ldtr(m);
        m.vmcs.write(GUEST_LDTR_ACCESS_RIGHTS, 0x92);
    }),
    ("GUEST_LDTR_PRESENT", |m| {
        usable_ldtr(m);
        m.vmcs.write(GUEST_LDTR_ACCESS_RIGHTS, 0x02);
    }),
    ("GUEST_LDTR_RIGHTS_RESERVED", |m| {
        usable_ldtr(m);
        m.vmcs.write(GUEST_LDTR_ACCESS_RIGHTS, 0x882);
    }),
    ("GUEST_LDTR_LIMIT_LOW", |m| {
        usable_ldtr(m);
        m.vmcs.write(GUEST_LDTR_ACCESS_RIGHTS, 0x8082);
        m.vmcs.write(GUEST_LDTR_LIMIT, 0x7ff);
    }),
    ("GUEST_LDTR_LIMIT_HIGH", |m| {
        usable_ldtr(m);
        m.vmcs.write(GUEST_LDTR_LIMIT, 0x10_0fff);
    }),
    ("GUEST_LDTR_RIGHTS_RESERVED_HIGH", |m| {
        usable_ldtr(m);
        m.vmcs.write(GUEST_LDTR_ACCESS_RIGHTS, 0x2_0082);
    }),
    ("GUEST_TABLE_BASES_CANONICAL", |m| m.vmcs.write(GUEST_GDTR_BASE, NOT_CANONICAL)),
    ("GUEST_TABLE_BASES_CANONICAL", |m| m.vmcs.write(GUEST_IDTR_BASE, NOT_CANONICAL)),
    ("GUEST_TABLE_LIMITS_16_BIT", |m| m.vmcs.write(GUEST_GDTR_LIMIT, 0x1_0000)),
    ("GUEST_TABLE_LIMITS_16_BIT", |m| m.vmcs.write(GUEST_IDTR_LIMIT, 0x1_0000)),
];

pub(crate) const ROWS: &[Row] = &{
    let mut rows = [OWN[0]; OWN.len() + SHARED.len() + DATA.len()];
    let mut at = 0;
    while at < rows.len() {
        rows[at] = if at < OWN.len() {
            OWN[at]
        } else if at < OWN.len() + SHARED.len() {
            SHARED[at - OWN.len()]
        } else {
            DATA[at - OWN.len() - SHARED.len()]
        };
        at += 1;
    }
    rows
};
