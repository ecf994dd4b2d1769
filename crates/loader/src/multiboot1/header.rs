//! The multiboot1 header of a kernel file (Multiboot Specification 0.6.96, 3.1 "OS image format").

use crate::bytes::u32_at;

/// First word of the header (3.1.2 "The magic fields of Multiboot header").
pub const HEADER_MAGIC: u32 = 0x1bad_b002;
/// The header lies, 32-bit aligned, completely in so many first bytes of the file (3.1 "OS image format").
pub const SEARCH_LEN: usize = 8192;

/// Flag: modules must be page-aligned. They always are.
pub const PAGE_ALIGN: u32 = 1 << 0;
/// Flag: the memory fields must be in the information. They always are.
pub const MEMORY_INFO: u32 = 1 << 1;
/// Flag: video mode wanted. The guest has no graphics adapter, and the specification lets a loader give no mode.
pub const VIDEO_MODE: u32 = 1 << 2;
/// Flag: the address fields count, not the file's own format.
pub const ADDRESS_FIELDS: u32 = 1 << 16;
/// The flags that a loader must understand or else refuse the kernel.
const REQUIREMENTS: u32 = 0xffff;

/// A multiboot1 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where in the file it begins.
    pub offset: usize,
    /// Its flags.
    pub flags: u32,
    /// The address fields, when the flags say that they count.
    pub addresses: Option<Addresses>,
}

/// Where to put a kernel of any file format (3.1.3 "The address fields of Multiboot header").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where the header itself is in memory.
    pub header_addr: u32,
    /// Where the text segment begins.
    pub load_addr: u32,
    /// Where the data segment ends; 0: it goes to the end of the file.
    pub load_end_addr: u32,
    /// Where the zeros behind it end; 0: there are none.
    pub bss_end_addr: u32,
    /// Where the kernel starts.
    pub entry_addr: u32,
}

impl Header {
    /// Required features that this loader does not know: 0 when the kernel can be loaded.
    pub const fn unknown_requirements(&self) -> u32 {
        self.flags & REQUIREMENTS & !(PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE)
    }
}

/// The first header in `file` whose magic and checksum are right.
///
/// A header whose address fields lie behind the end of the file is none.
pub fn find(file: &[u8]) -> Option<Header> {
    let searched = &file[..file.len().min(SEARCH_LEN)];
    (0..searched.len()).step_by(4).find_map(|offset| at(searched, offset))
}

/// The header at `offset`, if there is one.
fn at(file: &[u8], offset: usize) -> Option<Header> {
    let word = |index: usize| u32_at(file, offset + 4 * index);
    let (magic, flags, checksum) = (word(0)?, word(1)?, word(2)?);
    if magic != HEADER_MAGIC || magic.wrapping_add(flags).wrapping_add(checksum) != 0 {
        return None;
    }
    let addresses = if flags & ADDRESS_FIELDS == 0 {
        None
    } else {
        Some(Addresses {
            header_addr: word(3)?,
            load_addr: word(4)?,
            load_end_addr: word(5)?,
            bss_end_addr: word(6)?,
            entry_addr: word(7)?,
        })
    };
    Some(Header { offset, flags, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with_header(offset: usize, words: &[u32], len: usize) -> Vec<u8> {
        let mut file = vec![0; len];
        for (index, word) in words.iter().enumerate() {
            file[offset + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
        }
        file
    }

    /// The header must lie wholly in the first 8 KiB, aligned, and its three words must add up to zero.
    #[test]
    fn only_a_right_header_is_found() {
        let good = [HEADER_MAGIC, 3, 0u32.wrapping_sub(HEADER_MAGIC + 3)];
        assert_eq!(find(&file_with_header(0, &good, 12)).map(|header| header.offset), Some(0));
        assert_eq!(find(&file_with_header(8180, &good, 9000)).map(|header| header.offset), Some(8180));
        assert_eq!(find(&file_with_header(8184, &good, 9000)), None, "ends behind 8 KiB");
        assert_eq!(find(&file_with_header(2, &good, 64)), None, "not aligned");
        assert_eq!(find(&file_with_header(0, &[HEADER_MAGIC, 3, 1], 64)), None, "wrong checksum");
        let truncated = [HEADER_MAGIC, 0x1_0003, 0u32.wrapping_sub(HEADER_MAGIC + 0x1_0003)];
        assert_eq!(find(&file_with_header(0, &truncated, 28)), None, "address fields cut off");
    }

    /// A false magic before the header (a constant in the code, say) does not hide it.
    #[test]
    fn a_false_magic_is_skipped() {
        let words = [HEADER_MAGIC, 0, HEADER_MAGIC, 4, 0u32.wrapping_sub(HEADER_MAGIC + 4)];
        assert_eq!(find(&file_with_header(16, &words, 64)).map(|header| (header.offset, header.flags)), Some((24, 4)));
    }
}
