//! The EPT02s of one vCPU, by the EPTP12 they were made for.
//!
//! They play the part of the vCPU's cached translations: each vCPU has its own, INVEPT by L1 on this vCPU drops what it
//! names, and what L1 does on another one leaves them alone, as on the machine. L1 may use any number of EPTPs in turn,
//! by VM entries or by EPTP switching: the latest eight keep their tables.
//!
//! No processor runs with these tables while they change: that happens between an exit of the vCPU and its next entry.
//! A frame that goes from one EPT02 to another is therefore walked by nobody under its old meaning, once the INVEPT that
//! the results ask for is done. A vCPU that comes back to a processor after running on another needs one more INVEPT
//! there, of all contexts.

use arch::{GuestMemory, GuestPhys, L2Phys};

use crate::backing::{Backed, Backing};
use crate::entry::Entry;
use crate::frames::Frames;
use crate::guest_walk::{Ept12, Translation};
use crate::pml::ModificationLog;
use crate::shadow::Shadow;
use crate::tables::eptp;
use crate::violation::{Access, Denied};

/// How many EPT02s there are.
pub const ROOTS: usize = 8;
/// Fewest frames that `Shadows` can work with: every root, and one table of each lower level.
pub const FEWEST_FRAMES: usize = ROOTS + 3;

/// The EPT02s of one vCPU. Owns the frames they are made of: at least [`FEWEST_FRAMES`], then it never fails for want of
/// one, but drops tables and fills them again.
#[derive(Debug)]
pub struct Shadows<F> {
    frames: F,
    /// The most recently used comes first.
    roots: [Root; ROOTS],
}

#[derive(Debug)]
struct Root {
    ept12: Option<Ept12>,
    shadow: Shadow,
}

/// What to run L2 with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "L2 runs with stale translations"]
pub struct Selected {
    /// EPTP02: for the VMCS field "EPT pointer".
    pub eptp: u64,
    /// Execute INVEPT for it, single context, before the next entry.
    pub flush: bool,
}

/// What became of an access that L1's tables allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "L2 runs with stale translations"]
pub enum Resolved {
    /// EPT02 maps it now: L2 repeats the access.
    Mapped {
        /// Execute INVEPT for EPTP02, single context, before the next entry.
        flush: bool,
    },
    /// L1 has no RAM at this address of its own, or none that may be used so: what a device of L1's does with it.
    Device(GuestPhys),
}

impl<F: Frames> Shadows<F> {
    /// Empty EPT02s. `None` if `frames` cannot give [`FEWEST_FRAMES`].
    pub fn new(mut frames: F) -> Option<Self> {
        let mut roots: [Option<Root>; ROOTS] = [const { None }; ROOTS];
        for root in &mut roots {
            *root = Some(Root { ept12: None, shadow: Shadow::new(&mut frames)? });
        }
        let tables = [frames.allocate()?, frames.allocate()?, frames.allocate()?];
        tables.into_iter().for_each(|table| frames.free(table));
        let [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f), Some(g), Some(h)] = roots else { return None };
        Some(Self { frames, roots: [a, b, c, d, e, f, g, h] })
    }

    /// The EPT02 for `ept12`: the one there is, or an empty one. Call it before each entry of L2 for which the EPTP
    /// may be another one or L1 may have executed INVEPT.
    pub fn select(&mut self, ept12: &Ept12) -> Selected {
        self.bring_to_front(ept12);
        let shadow = &mut self.roots[0].shadow;
        Selected { eptp: eptp(shadow.root(), ept12.has_flags()), flush: shadow.take_stale() }
    }

    /// Finds out what an EPT violation means that L2 met at `at` while running with the EPT02 for `ept12`. Where L1's
    /// tables allow the access, EPT02 does too from now on.
    ///
    /// # Errors
    /// The VM exit that L1 must get. [`select`](Self::select) before the next entry of L2.
    pub fn resolve(
        &mut self,
        ept12: &Ept12,
        memory: &impl GuestMemory,
        backing: &impl Backing,
        log: Option<&ModificationLog>,
        at: L2Phys,
        access: Access,
    ) -> Result<Resolved, Denied> {
        let found = match ept12.translate(memory, log, at, access) {
            Ok(found) => found,
            Err(denied) => {
                if matches!(denied, Denied::Violation(_)) {
                    self.forget(ept12, at, true);
                }
                return Err(denied);
            }
        };
        let backed = backing.backing(found.address).filter(|b| b.permissions.without_modes().contains(found.needed));
        let Some(backed) = backed else {
            return Ok(Resolved::Device(found.address));
        };
        self.map(ept12, at, &found, backed);
        Ok(Resolved::Mapped { flush: self.roots[0].shadow.take_stale() })
    }

    /// L1 gets an EPT violation for `at` that L0 has met in working for L2; [`resolve`](Self::resolve) itself does this for
    /// those of the processor.
    pub fn violated(&mut self, ept12: &Ept12, at: L2Phys) {
        self.forget(ept12, at, false);
    }

    /// INVEPT of a single context, by L1: drops what was made from the tables of `eptp12`.
    pub fn invalidate_single(&mut self, eptp12: u64) {
        for Root { shadow, .. } in self.roots.iter_mut().filter(|r| r.ept12.is_some_and(|e| e.is_named_by(eptp12))) {
            shadow.clear(&mut self.frames);
        }
    }

    /// INVEPT of all contexts, by L1; or L1's RAM has moved.
    pub fn invalidate_all(&mut self) {
        for Root { shadow, .. } in &mut self.roots {
            shadow.clear(&mut self.frames);
        }
    }

    /// L1 gets an EPT violation for `at`. On the machine nothing is cached of that address afterwards, and L1 may count on
    /// it when it changes the entry without INVEPT (SDM 3C, 29.4.3.1 "Operations that Invalidate Cached Mappings").
    fn forget(&mut self, ept12: &Ept12, at: L2Phys, by_processor: bool) {
        self.bring_to_front(ept12);
        self.roots[0].shadow.forget(&mut self.frames, at, by_processor);
    }

    /// Maps the page around `at` by the smaller of L1's page and what the machine has in one piece. Afterwards the EPT02
    /// for `ept12` is the first.
    fn map(&mut self, ept12: &Ept12, at: L2Phys, found: &Translation, backed: Backed) {
        let size = found.size.min(backed.size);
        let permissions = found.permissions & backed.permissions.without_modes();
        let host = backed.host.get() & !(size.bytes() - 1);
        let leaf = Entry::leaf(host, size, permissions, found.memory_type).with_pat_of(found.entry);
        self.bring_to_front(ept12);
        // Frames ran out: the tables that were not used for longest go, in the end this one's own.
        for oldest in (0..ROOTS).rev() {
            if self.roots[0].shadow.insert(&mut self.frames, at, size, leaf).is_ok() {
                return;
            }
            self.roots[oldest].shadow.clear(&mut self.frames);
        }
        // With all the rest given back this has the frames that `new` saw; and if not, L2 comes again.
        let _ = self.roots[0].shadow.insert(&mut self.frames, at, size, leaf);
    }

    /// Makes the EPT02 for `ept12` the first, in place of the last if there is none.
    fn bring_to_front(&mut self, ept12: &Ept12) {
        let found = self.roots.iter().position(|root| root.ept12.as_ref() == Some(ept12));
        self.roots[..=found.unwrap_or(ROOTS - 1)].rotate_right(1);
        if found.is_none() {
            let first = &mut self.roots[0];
            first.shadow.clear(&mut self.frames);
            first.ept12 = Some(*ept12);
        }
    }
}
