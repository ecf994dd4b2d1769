//! Mistakes that others made with APIC virtualization and nested VMX, where each would be in this code, and who notices.

/// One mistake, and a change of this code that makes it.
pub(super) struct Mistake {
    /// What was wrong, and what came of it.
    pub(super) story: &'static str,
    /// Where it would be here.
    pub(super) file: &'static str,
    /// What stands there, once.
    pub(super) right: &'static str,
    /// What would stand there.
    pub(super) wrong: &'static str,
    /// The package of the test that fails then, and the test.
    pub(super) package: &'static str,
    pub(super) test: &'static str,
}

const QUEUE: &str = "crates/nested/src/deferred_apicv.rs";
const L1_APIC: &str = "crates/nested/src/l1_apic.rs";
const VIRTUAL: &str = "crates/nested/src/virtual_interrupts.rs";
const L2_EVENTS: &str = "crates/vcpu/src/l2_events.rs";
const INHIBIT: &str = "tests::apicv::mistakes::an_inhibit_comes_and_goes_while_l2_runs";
const INTERRUPTS: &str = "tests::apicv::mistakes::what_happens_to_l1s_interrupts_while_l2_runs_is_there_afterwards";

/// All of them, those of one row of the design beside each other.
pub(super) const MISTAKES: [Mistake; 26] = [
    Mistake {
        story: "the deferred refresh became a request that found its cached answer unchanged: APICv stayed on or off in vmcs01",
        file: QUEUE,
        right: "                update.write(vmcs01);",
        wrong: "                if update.kind() > 2 { update.write(vmcs01); }",
        package: "nested",
        test: INHIBIT,
    },
    Mistake {
        story: "SVI was not set when APICv came on with an interrupt in service: it blocked all lower ones for ever",
        file: L1_APIC,
        right: "submit(Update::InService(now.in_service));",
        wrong: "if !is_new { submit(Update::InService(now.in_service)); }",
        package: "nested",
        test: INHIBIT,
    },
    Mistake {
        story: "an EOI for L1 while L2 ran left SVI stale: L1 lost interrupts",
        file: QUEUE,
        right: "        self.slots[kind] = Some(update);",
        wrong: "        if !matches!(update, Update::InService(_)) { self.slots[kind] = Some(update); }",
        package: "nested",
        test: INTERRUPTS,
    },
    Mistake {
        story: "virtual PPR was not refreshed at nested entry, and the old one decided: lost interrupt",
        file: VIRTUAL,
        right: "const VTPR: usize = 0x80 / 8;",
        wrong: "const VTPR: usize = 0xa0 / 8;",
        package: "vcpu",
        test: "tests::posted_interrupts::posted_interrupt_ends_hlt",
    },
    Mistake {
        story: "an interrupt for L2 counted as a wake event by L1's RFLAGS.IF, not by what makes L2 exit: hang",
        file: L2_EVENTS,
        right: "        if !nested.takes_interrupts() {",
        wrong: "        if !nested.takes_interrupts() || !interrupts_on(cpu.vmcs()) {",
        package: "vcpu",
        test: "tests::l2_events::halted_l2_wakes_by_its_own_flags",
    },
    Mistake {
        story: "the same, the other way: L2 woke although it takes no interrupt",
        file: L2_EVENTS,
        right: "        if self.nmi_pending || !interrupts_on(cpu.vmcs()) {",
        wrong: "        if self.nmi_pending {",
        package: "vcpu",
        test: "tests::l2_events::halted_l2_wakes_by_its_own_flags",
    },
    Mistake {
        story: "a pending posted interrupt was not seen as a nested event: L2 stayed in HLT",
        file: L2_EVENTS,
        right: "nested.has_virtual_interrupt(cpu.vmcs(), world.memory())",
        wrong: "nested.has_virtual_interrupt(cpu.vmcs(), world.memory()) && false",
        package: "vcpu",
        test: "tests::posted_interrupts::posted_interrupt_ends_hlt",
    },
    Mistake {
        story: "a posted interrupt for L2 was delivered as an exit instead of being processed: wrong vector path",
        file: L2_EVENTS,
        right: "Some(nested) if nested.is_notification(vector) =>",
        wrong: "Some(nested) if nested.is_notification(vector) && false =>",
        package: "vcpu",
        test: "tests::posted_interrupts::notification_is_processed_while_l2_runs",
    },
    Mistake {
        story: "an interrupt-window request was taken from vmcs02's controls: spurious window exits",
        file: "crates/nested/src/route.rs",
        right: "ExitReason::INTERRUPT_WINDOW => by_primary(PrimaryBased::INTERRUPT_WINDOW_EXITING),",
        wrong: "ExitReason::INTERRUPT_WINDOW => by(PrimaryBased::from_bits_retain(vmcs02.read(CPU_BASED_VM_EXEC_CONTROL)).contains(PrimaryBased::INTERRUPT_WINDOW_EXITING)),",
        package: "vcpu",
        test: "tests::l2_events::interrupt_goes_into_l2",
    },
    Mistake {
        story: "the same of an NMI-window request",
        file: "crates/nested/src/route.rs",
        right: "ExitReason::NMI_WINDOW => by_primary(PrimaryBased::NMI_WINDOW_EXITING),",
        wrong: "ExitReason::NMI_WINDOW => by(PrimaryBased::from_bits_retain(vmcs02.read(CPU_BASED_VM_EXEC_CONTROL)).contains(PrimaryBased::NMI_WINDOW_EXITING)),",
        package: "vcpu",
        test: "tests::l2_events::nmi_goes_into_l2",
    },
    Mistake {
        story: "an interrupt was acknowledged before the switch to vmcs01: SVI was written into vmcs02",
        file: QUEUE,
        right: "        if self.in_l2() {\n            self.deferred.defer(update);",
        wrong: "        if self.in_l2() && !matches!(update, Update::InService(_)) {\n            self.deferred.defer(update);",
        package: "nested",
        test: "an_update_while_l2_runs_reaches_vmcs01_alone",
    },
    Mistake {
        story: "INIT pending at VMXOFF was forgotten: processor bring-up hung",
        file: "crates/vcpu/src/exits/vmx.rs",
        right: "Ok(finish(vcpu, cpu, outcome).attending())",
        wrong: "Ok(finish(vcpu, cpu, outcome))",
        package: "vcpu",
        test: "tests::l2_events::init_waits_for_vmxoff",
    },
    Mistake {
        story: "INIT pending at a nested exit was forgotten",
        file: "crates/vcpu/src/exits/l2.rs",
        right: "    vcpu.leaves_l2_at_once = false;\n",
        wrong: "    vcpu.leaves_l2_at_once = false;\n    vcpu.init_latched = false;\n",
        package: "vcpu",
        test: "tests::l2_events::init_outlives_an_exit",
    },
    Mistake {
        story: "a start-up IPI for an L2 that waits for one was forgotten",
        file: L2_EVENTS,
        right: "        if let Some(page) = startup\n",
        wrong: "        if let Some(page) = startup.filter(|_| false)\n",
        package: "vcpu",
        test: "tests::l2_events::startup_ipi_is_an_exit",
    },
    Mistake {
        story: "an APIC id was compared in 8 bits: false inhibit beyond 255 vCPUs",
        file: "crates/vlapic/src/apicv/inhibits.rs",
        right: "self.id != self.initial_id & 0xff",
        wrong: "self.id != self.initial_id",
        package: "vlapic",
        test: "tests::apicv::an_id_beyond_255_is_not_modified",
    },
    Mistake {
        story: "the request register was updated in two steps while a device posted: spurious and lost vectors",
        file: "crates/vlapic/src/mailbox.rs",
        right: "*word = bits.swap(0, Ordering::AcqRel);",
        wrong: "*word = bits.load(Ordering::Relaxed); bits.store(0, Ordering::Relaxed);",
        package: "vlapic",
        test: "tests::mailbox::every_post_is_taken",
    },
    Mistake {
        story: "requests in L1's descriptor were taken in two steps while another processor posted",
        file: VIRTUAL,
        right: "*posted = requests.swap(0, Ordering::AcqRel);",
        wrong: "*posted = requests.load(Ordering::Relaxed); requests.store(0, Ordering::Relaxed);",
        package: "nested",
        test: "nothing_posted_is_lost",
    },
    Mistake {
        story: "an exit qualification was left over in a synthesized EPT misconfiguration: L1 was misled",
        file: "crates/nested/src/exit.rs",
        right: "        vmcs12.write(EXIT_QUALIFICATION, exit.qualification);",
        wrong: "        if exit.qualification != 0 { vmcs12.write(EXIT_QUALIFICATION, exit.qualification); }",
        package: "nested",
        test: "synthesized_exit_leaves_nothing_over",
    },
    Mistake {
        story: "32-bit PAE's four entries were not loaded at nested entry with a pending MTF: wrong translations",
        file: "crates/nested/src/entry.rs",
        right: "        if self.loads_pdptes_from_memory(vmcs02) {",
        wrong: "        if event.kind() != vmcs::EventKind::Other && self.loads_pdptes_from_memory(vmcs02) {",
        package: "nested",
        test: "pdptes",
    },
    Mistake {
        story: "the same on nested exit, of L1's own",
        file: "crates/nested/src/exit.rs",
        right: "if !exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE) {",
        wrong: "if false {",
        package: "nested",
        test: "host_with_32_bits",
    },
    Mistake {
        story: "nested entry with a failing MSR load left half of L2's state in L1",
        file: "crates/nested/src/exit.rs",
        right: "        self.load_host_state(&mut vmcs01, carried.as_ref());",
        wrong: "        if carried.is_some() { self.load_host_state(&mut vmcs01, carried.as_ref()); }",
        package: "nested",
        test: "failing_msr_load_leaves_nothing_behind",
    },
    Mistake {
        story: "the same in vmcs02: the next entry began with it",
        file: "crates/nested/src/entry.rs",
        right: "            // vmcs02 has what was loaded before.\n            self.is_merged = false;",
        wrong: "",
        package: "nested",
        test: "failing_msr_load_leaves_nothing_behind",
    },
    Mistake {
        story: "a page that vmcs12 names outside L1's memory was taken for one of the machine's: L2 read L0's memory",
        file: "crates/nested/src/merge.rs",
        right: "memory.host(GuestPhys(at)).unwrap_or(self.pages.nowhere.at)",
        wrong: "memory.host(GuestPhys(at)).unwrap_or(HostPhys(at))",
        package: "nested",
        test: "pages_outside_l1s_memory",
    },
    Mistake {
        story: "the refresh wrote L1's APICv controls into vmcs02: the entry failed, and L1 was blamed",
        file: QUEUE,
        right: "        if self.in_l2() {\n            self.deferred.defer(update);",
        wrong: "        if self.in_l2() && update.kind() > 1 {\n            self.deferred.defer(update);",
        package: "nested",
        test: "an_update_while_l2_runs_reaches_vmcs01_alone",
    },
    Mistake {
        story: "on inhibit the mapping of 0xFEE00000 stayed: stores went to memory instead of the APIC",
        file: L1_APIC,
        right: "submit(Update::ApicPage { eptp: if assist.accesses { pages.eptp_with_apic } else { pages.eptp } });",
        wrong: "if assist.accesses { submit(Update::ApicPage { eptp: pages.eptp_with_apic }); }",
        package: "nested",
        test: INHIBIT,
    },
    Mistake {
        story: "one of the paths back to L1, that of a failed entry, did not bring vmcs01 up to date",
        file: "crates/nested/src/exit.rs",
        right: "        self.deferred.drain(&mut vmcs01);",
        wrong: "        if carried.is_some() { self.deferred.drain(&mut vmcs01); }",
        package: "nested",
        test: "an_update_while_l2_runs_reaches_vmcs01_alone",
    },
];
