//! The register page: sizes, alignments, reserved registers.

use arch::Width;
use arch::apic::Register;

use super::Fixture;

/// Bytes 0 to 3 of a slot are the register's, all others 0, however the access is sized.
#[test]
fn reads_name_their_bytes() {
    let mut fixture = Fixture::xapic(0x5a);
    for (offset, width, expected) in [
        (0x20, Width::Dword, 0x5a00_0000),
        (0x23, Width::Byte, 0x5a),
        (0x22, Width::Word, 0x5a00),
        (0x21, Width::Dword, 0x005a_0000),
        (0x20, Width::Qword, 0x5a00_0000),
        (0x24, Width::Dword, 0),
        (0x28, Width::Qword, 0),
        (0x2f, Width::Dword, 0),
    ] {
        assert_eq!(fixture.apic.read_mmio(offset, width, 0), expected, "{offset:#x} {width:?}");
    }
    assert_eq!(fixture.errors(), 0);
}

/// A write of another size or place changes nothing and reports nothing.
#[test]
fn only_aligned_32_bit_writes_count() {
    let mut fixture = Fixture::xapic(0);
    for (offset, width) in
        [(0x80, Width::Byte), (0x80, Width::Word), (0x80, Width::Qword), (0x81, Width::Dword), (0x84, Width::Dword)]
    {
        fixture.apic.write_mmio(offset, width, 0x2020_2020, 0, &fixture.bus);
        assert_eq!(fixture.read(Register::TPR), 0, "{offset:#x} {width:?}");
    }
    fixture.write(Register::TPR, 0xffff_ff20);
    assert_eq!(fixture.read(Register::TPR), 0x20);
    assert_eq!(fixture.errors(), 0);
}
