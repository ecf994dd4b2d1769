//! SDM 3C 27.3.1.2 "Checks on Guest Segment Registers": CS, SS, DS, ES, FS and GS. TR and LDTR are in
//! `guest_descriptor_tables`.
//!
//! The manual goes by attribute (selectors, bases, limits, access rights) and says of each to which registers it applies;
//! here each register has its rules in that order, so that a broken one says which register it is about.

use arch::control::Cr0;

use super::state::{State, is_limit_high_consistent, is_limit_low_consistent};
use crate::field::{Field, W16, W32};
use crate::fields::*;

/// The fields of one segment register that say what it is.
struct Register {
    selector: Field<W16>,
    rights: Field<W32>,
}

/// Whether the access-rights rules do not apply to the register: in virtual-8086 mode one value is asked for instead, and
/// of an unusable register nothing, but that CS is always checked.
#[inline(never)]
fn is_exempt(s: &State<'_>, register: &Register) -> bool {
    s.is_virtual_8086() || register.rights.encoding() != GUEST_CS_ACCESS_RIGHTS.encoding() && !is_usable(s, register)
}

fn is_usable(s: &State<'_>, register: &Register) -> bool {
    !s.rights(register.rights).is_unusable()
}

fn kind(s: &State<'_>, register: &Register) -> u32 {
    s.rights(register.rights).kind()
}

fn dpl(s: &State<'_>, register: &Register) -> u32 {
    s.rights(register.rights).dpl()
}

fn rpl(s: &State<'_>, register: &Register) -> u32 {
    u32::from(s.read(register.selector) & 3)
}

/// Type of a read-write, accessed data segment: what CS may be in an unrestricted guest in real mode.
const DATA_READ_WRITE_ACCESSED: u32 = 3;

/// A module with the rules of one register: those that all six share, and in their places its own.
macro_rules! segment {
    ($module:ident, $prefix:literal, $name:literal,
     [$selector:ident, $base:ident, $limit:ident, $rights:ident], |$s:ident|
     base { $($base_rules:tt)* } kind { $($kind_rules:tt)* } dpl { $($dpl_rules:tt)* } big { $($big_rules:tt)* }) => {
        pub(super) mod $module {
            use super::*;

            const REGISTER: Register = Register { selector: $selector, rights: $rights };

            rules! { $prefix, "27.3.1.2", "Checks on Guest Segment Registers", GUEST, |$s|
                BASE_VIRTUAL_8086 [$base, $selector]
                    concat!("in virtual-8086 mode, ", $name, "'s base must be its selector times 16")
                    => !$s.is_virtual_8086() || $s.read($base) == u64::from($s.read($selector)) << 4;
                $($base_rules)*
                LIMIT_VIRTUAL_8086 [$limit]
                    concat!("in virtual-8086 mode, ", $name, "'s limit must be 0xffff")
                    => !$s.is_virtual_8086() || $s.read($limit) == 0xffff;
                RIGHTS_VIRTUAL_8086 [$rights]
                    concat!("in virtual-8086 mode, ", $name, "'s access rights must be 0xf3")
                    => !$s.is_virtual_8086() || $s.read($rights) == 0xf3;
                $($kind_rules)*
                NOT_SYSTEM [$rights]
                    concat!($name, " must be a code or data segment: S (bit 4 of its access rights) must be 1")
                    => is_exempt($s, &REGISTER) || $s.rights($rights).is_code_or_data();
                $($dpl_rules)*
                PRESENT [$rights]
                    concat!($name, " must be present: P (bit 7 of its access rights) must be 1")
                    => is_exempt($s, &REGISTER) || $s.rights($rights).is_present();
                RIGHTS_RESERVED [$rights]
                    concat!("bits 11:8 of ", $name, "'s access rights must be 0")
                    => is_exempt($s, &REGISTER) || $s.read($rights) & 0xf00 == 0;
                $($big_rules)*
                LIMIT_LOW [$limit, $rights]
                    concat!($name, "'s G (bit 15 of its access rights) must be 0 if any of bits 11:0 of its limit is 0")
                    => is_exempt($s, &REGISTER)
                        || is_limit_low_consistent($s, $limit, $rights);
                LIMIT_HIGH [$limit, $rights]
                    concat!($name, "'s G (bit 15 of its access rights) must be 1 if any of bits 31:20 of its limit is 1")
                    => is_exempt($s, &REGISTER)
                        || is_limit_high_consistent($s, $limit, $rights);
                RIGHTS_RESERVED_HIGH [$rights]
                    concat!("bits 31:17 of ", $name, "'s access rights must be 0")
                    => is_exempt($s, &REGISTER) || $s.read($rights) >> 17 == 0;
            }
        }
    };
}

/// DS, ES, FS or GS.
macro_rules! data_segment {
    ($module:ident, $prefix:literal, $name:literal, [$selector:ident, $base:ident, $limit:ident, $rights:ident],
     |$s:ident| base { $($base_rules:tt)* }) => {
        segment! { $module, $prefix, $name,
            [$selector, $base, $limit, $rights], |$s|
            base { $($base_rules)* }
            kind {
                ACCESSED [$rights]
                    concat!($name, " must be accessed: bit 0 of its type must be 1")
                    => is_exempt($s, &REGISTER) || kind($s, &REGISTER) & 1 != 0;
                READABLE [$rights]
                    concat!($name, " must be readable: bit 1 of its type must be 1 if bit 3 (code) is")
                    => is_exempt($s, &REGISTER) || kind($s, &REGISTER) & 0b1010 != 0b1000;
            }
            dpl {
                DPL_BELOW_RPL [$rights, $selector]
                    concat!("without \"unrestricted guest\", ", $name, "'s DPL must not be below its RPL unless it is a conforming code segment")
                    => is_exempt($s, &REGISTER)
                        || $s.is_unrestricted()
                        || kind($s, &REGISTER) > 11
                        || dpl($s, &REGISTER) >= rpl($s, &REGISTER);
            }
            big {}
        }
    };
}

pub(super) mod selectors {
    use crate::fields::*;

    rules! { "GUEST_", "27.3.1.2", "Checks on Guest Segment Registers", GUEST, |s|
        TR_SELECTOR_TI [GUEST_TR_SELECTOR]
            "TR's selector must have TI (bit 2) clear"
            => s.read(GUEST_TR_SELECTOR) & 4 == 0;
        LDTR_SELECTOR_TI [GUEST_LDTR_SELECTOR]
            "LDTR's selector must have TI (bit 2) clear, if LDTR is usable"
            => s.rights(GUEST_LDTR_ACCESS_RIGHTS).is_unusable() || s.read(GUEST_LDTR_SELECTOR) & 4 == 0;
        SS_SELECTOR_RPL [GUEST_SS_SELECTOR, GUEST_CS_SELECTOR]
            "SS's RPL must equal CS's, outside virtual-8086 mode and without \"unrestricted guest\""
            => s.is_virtual_8086()
                || s.is_unrestricted()
                || s.read(GUEST_SS_SELECTOR) & 3 == s.read(GUEST_CS_SELECTOR) & 3;
    }
}

segment! { cs, "GUEST_CS_", "CS", [GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS], |s|
    base {
        BASE_32_BIT [GUEST_CS_BASE]
            "bits 63:32 of CS's base must be 0"
            => s.read(GUEST_CS_BASE) >> 32 == 0;
    }
    kind {
        TYPE [GUEST_CS_ACCESS_RIGHTS]
            "CS's type must be 9, 11, 13 or 15, or 3 with \"unrestricted guest\""
            => is_exempt(s, &REGISTER) || match kind(s, &REGISTER) {
                DATA_READ_WRITE_ACCESSED => s.is_unrestricted(),
                9 | 11 | 13 | 15 => true,
                _ => false,
            };
    }
    dpl {
        DPL_OF_DATA [GUEST_CS_ACCESS_RIGHTS]
            "CS's DPL must be 0 if its type is 3"
            => is_exempt(s, &REGISTER) || kind(s, &REGISTER) != DATA_READ_WRITE_ACCESSED || dpl(s, &REGISTER) == 0;
        DPL_OF_NON_CONFORMING [GUEST_CS_ACCESS_RIGHTS, GUEST_SS_ACCESS_RIGHTS]
            "CS's DPL must equal SS's if CS's type is 9 or 11"
            => is_exempt(s, &REGISTER)
                || !matches!(kind(s, &REGISTER), 9 | 11)
                || dpl(s, &REGISTER) == s.rights(GUEST_SS_ACCESS_RIGHTS).dpl();
        DPL_OF_CONFORMING [GUEST_CS_ACCESS_RIGHTS, GUEST_SS_ACCESS_RIGHTS]
            "CS's DPL must not be above SS's if CS's type is 13 or 15"
            => is_exempt(s, &REGISTER)
                || !matches!(kind(s, &REGISTER), 13 | 15)
                || dpl(s, &REGISTER) <= s.rights(GUEST_SS_ACCESS_RIGHTS).dpl();
    }
    big {
        LONG_AND_BIG [GUEST_CS_ACCESS_RIGHTS]
            "CS's D/B must be 0 if L is 1, with \"IA-32e mode guest\""
            => is_exempt(s, &REGISTER) || !s.is_64_bit_code() || !s.rights(GUEST_CS_ACCESS_RIGHTS).is_big();
    }
}

segment! { ss, "GUEST_SS_", "SS", [GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS], |s|
    base {
        BASE_32_BIT [GUEST_SS_BASE]
            "bits 63:32 of SS's base must be 0, if SS is usable"
            => !is_usable(s, &REGISTER) || s.read(GUEST_SS_BASE) >> 32 == 0;
    }
    kind {
        TYPE [GUEST_SS_ACCESS_RIGHTS]
            "SS's type must be 3 or 7, if SS is usable"
            => is_exempt(s, &REGISTER) || matches!(kind(s, &REGISTER), 3 | 7);
    }
    dpl {
        DPL_OF_RPL [GUEST_SS_ACCESS_RIGHTS, GUEST_SS_SELECTOR]
            "SS's DPL must equal its RPL, without \"unrestricted guest\""
            => s.is_virtual_8086() || s.is_unrestricted() || dpl(s, &REGISTER) == rpl(s, &REGISTER);
        DPL_IN_REAL_MODE [GUEST_SS_ACCESS_RIGHTS, GUEST_CS_ACCESS_RIGHTS, GUEST_CR0]
            "SS's DPL must be 0 if CS's type is 3 or CR0.PE is 0"
            => s.is_virtual_8086()
                || dpl(s, &REGISTER) == 0
                || s.rights(GUEST_CS_ACCESS_RIGHTS).kind() != DATA_READ_WRITE_ACCESSED
                    && s.guest_cr0().contains(Cr0::PE);
    }
    big {}
}

data_segment! { ds, "GUEST_DS_", "DS", [GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS], |s|
    base {
        BASE_32_BIT [GUEST_DS_BASE]
            "bits 63:32 of DS's base must be 0, if DS is usable"
            => !is_usable(s, &REGISTER) || s.read(GUEST_DS_BASE) >> 32 == 0;
    }
}

data_segment! { es, "GUEST_ES_", "ES", [GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS], |s|
    base {
        BASE_32_BIT [GUEST_ES_BASE]
            "bits 63:32 of ES's base must be 0, if ES is usable"
            => !is_usable(s, &REGISTER) || s.read(GUEST_ES_BASE) >> 32 == 0;
    }
}

data_segment! { fs, "GUEST_FS_", "FS", [GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS], |s|
    base {
        BASE_CANONICAL [GUEST_FS_BASE]
            "FS's base must be canonical"
            => s.is_canonical_field(GUEST_FS_BASE);
    }
}

data_segment! { gs, "GUEST_GS_", "GS", [GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS], |s|
    base {
        BASE_CANONICAL [GUEST_GS_BASE]
            "GS's base must be canonical"
            => s.is_canonical_field(GUEST_GS_BASE);
    }
}
