//! A processor with the three VMCSs of a vCPU whose L1 has VMX.

use std::collections::BTreeMap;

use arch::HostPhys;
use ept::{Frames, Shadows};
use nested::{Processor, Which};
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Capabilities, Encoding};

use crate::FakeVmcs;

/// Where the shadow VMCS is.
pub const SHADOW_VMCS: HostPhys = HostPhys(0x90_0000_3000);

/// What the processor was told to drop of its cached translations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// All of L1's.
    L1,
    /// All of L2's.
    L2,
    /// One linear address of L2's.
    L2Address(u64),
    /// What came by way of this EPTP.
    Ept(u64),
}

/// A processor with vmcs01, vmcs02 and a shadow VMCS, that remembers what was asked of it.
#[derive(Debug)]
pub struct FakeProcessor {
    vmcss: [FakeVmcs; 2],
    shadow: FakeVmcs,
    current: Which,
    /// The time-stamp counter.
    pub tsc: u64,
    /// How often another VMCS was made current.
    pub loads: u64,
    /// What was flushed, in order.
    pub flushes: Vec<Flush>,
    ept02: Shadows<TableFrames>,
}

impl FakeProcessor {
    /// A processor with these capabilities, whose VMCSs are 0; vmcs01 is current.
    ///
    /// # Panics
    /// Not with the frames that it has.
    #[expect(clippy::expect_used, reason = "the frames are enough")]
    pub fn new(machine: &Capabilities) -> Self {
        let [vmcs01, vmcs02, shadow] = [(); 3].map(|()| FakeVmcs::of(machine));
        let vmcss = [vmcs01, vmcs02];
        let ept02 = Shadows::new(TableFrames::default()).expect("enough frames");
        Self { vmcss, shadow, current: Which::Vmcs01, tsc: 1000, loads: 0, flushes: Vec::new(), ept02 }
    }

    /// Which VMCS is current.
    pub const fn current(&self) -> Which {
        self.current
    }

    /// One of the VMCSs, as it lies in memory.
    pub const fn vmcs_of(&self, which: Which) -> &FakeVmcs {
        &self.vmcss[which as usize]
    }

    /// The shadow VMCS, as it lies in memory.
    pub const fn shadow_vmcs(&self) -> &FakeVmcs {
        &self.shadow
    }

    /// One of the VMCSs, to change it.
    pub const fn vmcs_of_mut(&mut self, which: Which) -> &mut FakeVmcs {
        &mut self.vmcss[which as usize]
    }

    /// The shadow VMCS, if L1's VMREAD and VMWRITE act on it: the processor takes it from vmcs01's link pointer.
    fn linked(&mut self) -> Option<&mut FakeVmcs> {
        assert_eq!(self.current, Which::Vmcs01, "L1 runs with vmcs01");
        let vmcs01 = self.vmcs_of(Which::Vmcs01);
        let on = vmcs01.read(CPU_BASED_VM_EXEC_CONTROL) & PrimaryBased::ACTIVATE_SECONDARY_CONTROLS.bits() != 0
            && vmcs01.read(SECONDARY_VM_EXEC_CONTROL) & SecondaryBased::VMCS_SHADOWING.bits() != 0;
        let linked = on && vmcs01.read(VMCS_LINK_POINTER) == SHADOW_VMCS.get();
        linked.then_some(&mut self.shadow)
    }

    /// VMREAD by L1 of a field that does not exit.
    pub fn shadow_read(&mut self, encoding: Encoding) -> Option<u64> {
        self.linked().map(|shadow| shadow.read_raw(encoding))
    }

    /// VMWRITE by L1 of a field that does not exit; false if it exits or fails.
    pub fn shadow_write(&mut self, encoding: Encoding, value: u64) -> bool {
        self.linked().map(|shadow| shadow.write_raw(encoding, value)).is_some()
    }
}

impl Processor for FakeProcessor {
    type Vmcs = FakeVmcs;
    type Tables = TableFrames;

    fn vmcs(&mut self) -> &mut FakeVmcs {
        &mut self.vmcss[self.current as usize]
    }

    fn make_current(&mut self, which: Which) {
        assert_ne!(self.current, which, "a VMPTRLD of what is current already costs time for nothing");
        self.loads += 1;
        self.current = which;
    }

    fn with_shadow(&mut self, then: Which, work: impl FnOnce(&mut FakeVmcs)) {
        self.loads += 2;
        work(&mut self.shadow);
        self.current = then;
    }

    fn tsc(&self) -> u64 {
        self.tsc
    }

    fn flush_l1(&mut self) {
        self.flushes.push(Flush::L1);
    }

    fn flush_l2(&mut self) {
        self.flushes.push(Flush::L2);
    }

    fn flush_l2_address(&mut self, linear: u64) {
        self.flushes.push(Flush::L2Address(linear));
    }

    fn ept02(&mut self) -> &mut Shadows<TableFrames> {
        &mut self.ept02
    }

    fn flush_ept(&mut self, eptp: u64) {
        self.flushes.push(Flush::Ept(eptp));
    }
}

/// Frames for the tables that map L2's memory.
#[derive(Debug, Default)]
pub struct TableFrames {
    tables: BTreeMap<u64, Vec<u64>>,
    given: u64,
}

impl Frames for TableFrames {
    fn allocate(&mut self) -> Option<HostPhys> {
        self.given += 1;
        let at = 0xc0_0000_0000 + (self.given << 12);
        self.tables.insert(at, vec![0; ept::frames::ENTRIES]);
        Some(HostPhys(at))
    }

    fn read(&self, table: HostPhys, index: usize) -> u64 {
        self.tables[&table.get()][index]
    }

    #[expect(clippy::expect_used, reason = "a test that gets here is wrong")]
    fn write(&mut self, table: HostPhys, index: usize, entry: u64) {
        self.tables.get_mut(&table.get()).expect("a frame that is out")[index] = entry;
    }

    fn free(&mut self, table: HostPhys) {
        assert!(self.tables.remove(&table.get()).is_some(), "{table:?} was freed twice");
    }
}
