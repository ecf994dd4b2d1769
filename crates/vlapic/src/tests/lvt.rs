//! Remote IRR of the local vector table is the APIC's and not software's to set.

use arch::apic::Register;

use super::Fixture;
use crate::Pin;

/// Writing 1 does not set remote IRR, writing 0 does not clear it; turning the entry to edge does.
#[test]
fn remote_irr_is_read_only() {
    let mut fixture = Fixture::xapic(0);
    fixture.write(Register::LVT_LINT0, 0xc044);
    assert_eq!(fixture.read(Register::LVT_LINT0), 0x8044);
    let _ = fixture.apic.lint(Pin::Lint0, true);
    fixture.write(Register::LVT_LINT0, 0x8044);
    assert_eq!(fixture.read(Register::LVT_LINT0), 0xc044);
    fixture.write(Register::LVT_LINT0, 0x0044);
    assert_eq!(fixture.read(Register::LVT_LINT0), 0x0044);
}
