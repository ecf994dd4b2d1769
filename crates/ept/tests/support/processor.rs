//! A processor that runs L2: it walks EPT02 and caches what it found until INVEPT, as it may.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use arch::{HostPhys, L2Phys};
use ept::walk::walk;
use ept::{Frames, Leaf, MemoryType, Miss, PageSize, Permissions, Rules};

use crate::support::FakeFrames;

/// Frames that the tables' owner and the processor reach.
#[derive(Clone)]
pub(crate) struct SharedFrames(pub(crate) Rc<RefCell<FakeFrames>>);

impl SharedFrames {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Rc::new(RefCell::new(FakeFrames::new(limit))))
    }
}

impl Frames for SharedFrames {
    fn allocate(&mut self) -> Option<HostPhys> {
        self.0.borrow_mut().allocate()
    }

    fn read(&self, table: HostPhys, index: usize) -> u64 {
        self.0.borrow().read(table, index)
    }

    fn write(&mut self, table: HostPhys, index: usize, entry: u64) {
        self.0.borrow_mut().write(table, index, entry);
    }

    fn free(&mut self, table: HostPhys) {
        self.0.borrow_mut().free(table);
    }
}

/// A 4-KiB page as a processor may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) host: u64,
    pub(crate) permissions: Permissions,
    pub(crate) memory_type: MemoryType,
    pub(crate) ignores_pat: bool,
}

/// A cached translation of a page of any size.
struct Cached {
    eptp: u64,
    start: u64,
    leaf: Leaf,
}

/// One logical processor, with the frames it walks.
pub(crate) struct Processor {
    frames: SharedFrames,
    rules: Rules,
    cached: Vec<Cached>,
}

impl Processor {
    pub(crate) fn new(frames: &SharedFrames, mode_based_execute: bool) -> Self {
        let rules = Rules { execute_only: true, mode_based_execute, largest: PageSize::Size1G, physical_width: 46 };
        Self { frames: frames.clone(), rules, cached: Vec::new() }
    }

    /// What the tables say now, cached or not.
    pub(crate) fn walk(&self, eptp: u64, at: L2Phys) -> Option<Leaf> {
        assert_eq!(eptp & 0xfff & !0x40, 0x1e, "an EPTP is write-back, with four levels");
        let read = |table, index| Ok::<_, Infallible>(self.frames.read(HostPhys(table), index));
        match walk(eptp & !0xfff, &self.rules, at.get(), read) {
            Ok(leaf) => Some(leaf),
            Err(Miss::NotMapped { .. }) => None,
            Err(Miss::Misconfigured { level, entry }) => unreachable!("EPT02 has {entry:?} at level {level}"),
        }
    }

    /// An access: the page if it is allowed, from the cache if anything there allows it. `None` is an EPT violation,
    /// after which nothing is cached of the address.
    pub(crate) fn access(&mut self, eptp: u64, at: L2Phys, needs: Permissions) -> Option<Page> {
        let covers = |c: &Cached| c.eptp == eptp && (at.get() ^ c.start) & !(c.leaf.size.bytes() - 1) == 0;
        let allowed = |leaf: &Leaf| self.counted(leaf).contains(needs);
        if let Some(cached) = self.cached.iter().find(|c| covers(c) && allowed(&c.leaf)) {
            return Some(self.page(&cached.leaf, at));
        }
        if let Some(leaf) = self.walk(eptp, at).filter(allowed) {
            self.cached.push(Cached { eptp, start: at.get() & !(leaf.size.bytes() - 1), leaf });
            return Some(self.page(&leaf, at));
        }
        self.cached.retain(|c| !covers(c));
        None
    }

    /// INVEPT, single context.
    pub(crate) fn invept(&mut self, eptp: u64) {
        self.cached.retain(|c| c.eptp & !0xfff != eptp & !0xfff);
    }

    /// The 4-KiB page at `at` of what `leaf` maps.
    pub(crate) fn page(&self, leaf: &Leaf, at: L2Phys) -> Page {
        let offset = at.get() & (leaf.size.bytes() - 1);
        Page {
            host: (leaf.target & !(leaf.size.bytes() - 1)) + (offset & !0xfff),
            permissions: self.counted(leaf),
            memory_type: leaf.memory_type,
            ignores_pat: leaf.entry.ignores_pat(),
        }
    }

    fn counted(&self, leaf: &Leaf) -> Permissions {
        if self.rules.mode_based_execute { leaf.permissions } else { leaf.permissions.without_modes() }
    }
}
