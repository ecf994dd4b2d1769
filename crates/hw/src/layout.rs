//! Where things lie in L0's linear address space, and where the linker put the image.
//!
//! The picture is in `linker/nestling.ld`.

use arch::HostPhys;

/// Linear address of physical address 0 in the direct map.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Bytes of physical address space that the direct map can show: one level-4 entry's 512 GiB.
pub const DIRECT_MAP_BYTES: u64 = 512 << 30;
/// Linear address of the first processor's stacks.
pub const STACKS: u64 = 0xffff_8080_0000_0000;
/// Most processors that L0 uses; further ones stay off.
pub const MAX_PROCESSORS: usize = 64;

/// A 64-bit address or length as this machine's word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a word has 64 bits on the only target")]
pub(crate) const fn word(value: u64) -> usize {
    value as usize
}

macro_rules! linker_symbols {
    ($($(#[$doc:meta])* $function:ident = $symbol:ident;)*) => {
        unsafe extern "C" { $(static $symbol: u8;)* }
        $(
            $(#[$doc])*
            pub fn $function() -> HostPhys {
                HostPhys((&raw const $symbol).addr() as u64)
            }
        )*
    };
}

linker_symbols! {
    /// First byte of the image; its code follows.
    image_start_address = image_start;
    /// End of the code, start of read-only data.
    text_end_address = text_end;
    /// End of read-only data, start of what is written.
    rodata_end_address = rodata_end;
    /// End of what the loader read from the file.
    load_end_address = load_end;
    /// The page under the boot stack that is not mapped.
    boot_stack_guard_address = boot_stack_guard;
    /// Lowest byte of the boot stack.
    boot_stack_bottom_address = boot_stack_bottom;
    /// Where the boot stack begins: it grows down from here.
    boot_stack_top_address = boot_stack_top;
    /// End of the image with all that it reserves.
    image_end_address = image_end;
}
