//! An access of L2, and what L1 must be told when its tables do not allow it.
//!
//! SDM 3C, 29.3.3 "EPT-Induced VM Exits".

use crate::entry::Permissions;

/// An access to a guest-physical address of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The permissions without which it is a violation. A fetch from a user-mode linear address needs `EXECUTE_USER`,
    /// whether or not mode-based execute control is in use.
    pub needs: Permissions,
    /// It is to an entry of L2's paging structures, in the course of translating a linear address: a write if the EPTP
    /// enables accessed and dirty flags. Loading the PDPTEs by a MOV to a control register is no such access (SDM 3C,
    /// 29.3.3.2 "EPT Violations").
    pub to_paging_structure: bool,
}

impl Access {
    /// A data read.
    pub const READ: Self = Self { needs: Permissions::READ, to_paging_structure: false };
    /// A data write.
    pub const WRITE: Self = Self { needs: Permissions::WRITE, to_paging_structure: false };
    /// A read of an entry of L2's paging structures.
    pub const PAGING_STRUCTURE: Self = Self { needs: Permissions::READ, to_paging_structure: true };

    /// An instruction fetch, from a user-mode or a supervisor-mode linear address.
    pub const fn fetch(user: bool) -> Self {
        let needs = if user { Permissions::EXECUTE_USER } else { Permissions::EXECUTE };
        Self { needs, to_paging_structure: false }
    }

    /// What it needs where the EPTP enables accessed and dirty flags or does not. An access that is both a read and a
    /// write has both bits in the exit qualification.
    pub(crate) const fn needs_with(self, accessed_dirty: bool) -> Permissions {
        if self.to_paging_structure && accessed_dirty {
            self.needs.union(Permissions::READ).union(Permissions::WRITE)
        } else {
            self.needs
        }
    }
}

/// The VM exit that L1 gets because of its tables. The access has not taken place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// EPT violation.
    Violation(Violation),
    /// EPT misconfiguration: no exit qualification.
    Misconfiguration,
    /// Page-modification log full: a flag would have to be set, and is not.
    LogFull,
}

/// An access that the tables do not permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What the access needed.
    pub needed: Permissions,
    /// What all entries used permit together; nothing if one is not present. `EXECUTE_USER` counts only under
    /// mode-based execute control and is otherwise absent.
    pub permitted: Permissions,
}

impl Violation {
    /// Bits 6:0 of the exit qualification (SDM 3C, table "Exit Qualification for EPT Violations"): 2:0 the access,
    /// 5:3 what is permitted, 6 fetches from user-mode addresses.
    pub const fn qualification(self) -> u64 {
        const DATA: u64 = Permissions::READ.bits() | Permissions::WRITE.bits();
        let fetch = Permissions::EXECUTE.union(Permissions::EXECUTE_USER);
        let access = self.needed.bits() & DATA | (self.needed.intersects(fetch) as u64) << 2;
        let user = self.permitted.contains(Permissions::EXECUTE_USER) as u64;
        access | (self.permitted.bits() & 0b111) << 3 | user << 6
    }
}
