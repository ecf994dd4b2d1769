//! The part of SDM 3C 27.3.1.2 "Checks on Guest Segment Registers" that is about TR and LDTR, and 27.3.1.3 "Checks on
//! Guest Descriptor-Table Registers".

pub(super) mod tr {
    use crate::checks::state::{is_limit_high_consistent, is_limit_low_consistent};
    use crate::fields::*;

    rules! { "GUEST_TR_", "27.3.1.2", "Checks on Guest Segment Registers", GUEST, |s|
        BASE_CANONICAL [GUEST_TR_BASE]
            "TR's base must be canonical"
            => s.is_canonical_field(GUEST_TR_BASE);
        TYPE [GUEST_TR_ACCESS_RIGHTS]
            "TR's type must be 11 (busy TSS), or without \"IA-32e mode guest\" 3 (busy 16-bit TSS)"
            => match s.rights(GUEST_TR_ACCESS_RIGHTS).kind() {
                11 => true,
                3 => !s.is_ia32e_guest(),
                _ => false,
            };
        SYSTEM [GUEST_TR_ACCESS_RIGHTS]
            "TR must be a system segment: S (bit 4 of its access rights) must be 0"
            => !s.rights(GUEST_TR_ACCESS_RIGHTS).is_code_or_data();
        PRESENT [GUEST_TR_ACCESS_RIGHTS]
            "TR must be present: P (bit 7 of its access rights) must be 1"
            => s.rights(GUEST_TR_ACCESS_RIGHTS).is_present();
        RIGHTS_RESERVED [GUEST_TR_ACCESS_RIGHTS]
            "bits 11:8 of TR's access rights must be 0"
            => s.read(GUEST_TR_ACCESS_RIGHTS) & 0xf00 == 0;
        LIMIT_LOW [GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS]
            "TR's G (bit 15 of its access rights) must be 0 if any of bits 11:0 of its limit is 0"
            => is_limit_low_consistent(s, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS);
        LIMIT_HIGH [GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS]
            "TR's G (bit 15 of its access rights) must be 1 if any of bits 31:20 of its limit is 1"
            => is_limit_high_consistent(s, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS);
        USABLE [GUEST_TR_ACCESS_RIGHTS]
            "TR must be usable: bit 16 of its access rights must be 0"
            => !s.rights(GUEST_TR_ACCESS_RIGHTS).is_unusable();
        RIGHTS_RESERVED_HIGH [GUEST_TR_ACCESS_RIGHTS]
            "bits 31:17 of TR's access rights must be 0"
            => s.read(GUEST_TR_ACCESS_RIGHTS) >> 17 == 0;
    }
}

pub(super) mod ldtr {
    use crate::checks::state::{State, is_limit_high_consistent, is_limit_low_consistent};
    use crate::fields::*;

    rules! { "GUEST_LDTR_", "27.3.1.2", "Checks on Guest Segment Registers", GUEST, |s|
        BASE_CANONICAL [GUEST_LDTR_BASE]
            "LDTR's base must be canonical, if LDTR is usable"
            => is_unusable(s) || s.is_canonical_field(GUEST_LDTR_BASE);
        TYPE [GUEST_LDTR_ACCESS_RIGHTS]
            "LDTR's type must be 2 (LDT), if LDTR is usable"
            => is_unusable(s) || s.rights(GUEST_LDTR_ACCESS_RIGHTS).kind() == 2;
        SYSTEM [GUEST_LDTR_ACCESS_RIGHTS]
            "LDTR must be a system segment, if it is usable: S (bit 4 of its access rights) must be 0"
            => is_unusable(s) || !s.rights(GUEST_LDTR_ACCESS_RIGHTS).is_code_or_data();
        PRESENT [GUEST_LDTR_ACCESS_RIGHTS]
            "LDTR must be present, if it is usable: P (bit 7 of its access rights) must be 1"
            => is_unusable(s) || s.rights(GUEST_LDTR_ACCESS_RIGHTS).is_present();
        RIGHTS_RESERVED [GUEST_LDTR_ACCESS_RIGHTS]
            "bits 11:8 of LDTR's access rights must be 0, if LDTR is usable"
            => is_unusable(s) || s.read(GUEST_LDTR_ACCESS_RIGHTS) & 0xf00 == 0;
        LIMIT_LOW [GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS]
            "LDTR's G (bit 15 of its access rights) must be 0 if any of bits 11:0 of its limit is 0"
            => is_unusable(s) || is_limit_low_consistent(s, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS);
        LIMIT_HIGH [GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS]
            "LDTR's G (bit 15 of its access rights) must be 1 if any of bits 31:20 of its limit is 1"
            => is_unusable(s) || is_limit_high_consistent(s, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS);
        RIGHTS_RESERVED_HIGH [GUEST_LDTR_ACCESS_RIGHTS]
            "bits 31:17 of LDTR's access rights must be 0, if LDTR is usable"
            => is_unusable(s) || s.read(GUEST_LDTR_ACCESS_RIGHTS) >> 17 == 0;
    }

    fn is_unusable(s: &State<'_>) -> bool {
        s.rights(GUEST_LDTR_ACCESS_RIGHTS).is_unusable()
    }
}

pub(super) mod tables {
    use crate::fields::*;

    rules! { "GUEST_", "27.3.1.3", "Checks on Guest Descriptor-Table Registers", GUEST, |s|
        TABLE_BASES_CANONICAL [GUEST_GDTR_BASE, GUEST_IDTR_BASE]
            "the guest's GDTR and IDTR bases must be canonical"
            => s.is_canonical_field(GUEST_GDTR_BASE) && s.is_canonical_field(GUEST_IDTR_BASE);
        TABLE_LIMITS_16_BIT [GUEST_GDTR_LIMIT, GUEST_IDTR_LIMIT]
            "bits 31:16 of the guest's GDTR and IDTR limits must be 0"
            => s.read(GUEST_GDTR_LIMIT) >> 16 == 0 && s.read(GUEST_IDTR_LIMIT) >> 16 == 0;
    }
}
