//! Executable files of a few instructions, for what busybox cannot do or does too slowly.

/// Where it is loaded.
const ADDRESS: u64 = 0x40_0000;
/// The ELF header and one program header.
const HEADERS: u16 = 64 + 56;

/// An ELF file of this code, which starts at its first byte: System V ABI, "ELF Header" and "Program Header".
pub(super) fn executable(code: &[&[u8]]) -> Vec<u8> {
    let code = code.concat();
    let size = u64::from(HEADERS) + code.len() as u64;
    let half = |value: u16| value.to_le_bytes().to_vec();
    let word = |value: u32| value.to_le_bytes().to_vec();
    let long = |value: u64| value.to_le_bytes().to_vec();
    [
        // 64 bits, little-endian, version 1, System V; executable, x86-64.
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        half(2),
        half(62),
        word(1),
        long(ADDRESS + u64::from(HEADERS)),
        // Program headers behind this one, no section headers.
        long(64),
        long(0),
        word(0),
        half(64),
        half(56),
        half(1),
        half(0),
        half(0),
        half(0),
        // Loaded whole, to be read and executed.
        word(1),
        word(5),
        long(0),
        long(ADDRESS),
        long(ADDRESS),
        long(size),
        long(size),
        long(4096),
        code,
    ]
    .concat()
}
