//! The dump of a failed entry.

use arch::Msr;
use testkit::{FakeVmcs, capability_msrs};
use vmcs::Capabilities;
use vmcs::dump::dump_existing;
use vmcs::field::Group;

/// Exit information comes first, groups stay together, values are the VMCS's, and a field that the processor lacks is not
/// read: its VMREAD would fail in the middle of a panic.
#[test]
fn dump_reads_what_exists_by_groups() {
    let without_secondary = Capabilities::read(|msr| match msr {
        Msr::VMX_TRUE_PROCBASED_CTLS => capability_msrs(msr) & !(1 << 63),
        other => capability_msrs(other),
    });
    let vmcs = FakeVmcs::valid();
    let mut lines = Vec::new();
    dump_existing(&vmcs, &without_secondary, |field, value| lines.push((field.name, field.group, value)));
    let mut groups: Vec<_> = lines.iter().map(|(_, group, _)| *group).collect();
    groups.dedup();
    assert_eq!(groups, Group::ALL);
    let value = |name| lines.iter().find(|line| line.0 == name).map(|line| line.2);
    assert_eq!(value("GUEST_RIP"), Some(0x10_0000));
    assert_eq!(value("EPT_POINTER"), None);
    assert_eq!(lines.len(), vmcs.reads().len());
}
