//! I/O instructions: SDM 3C 26.1.3 "Instructions That Cause VM Exits Conditionally"; 25.6.4 "I/O-Bitmap Addresses".

use core::sync::atomic::AtomicU64;

use guests::vmx::{Current, L2, follow, pages};
use guests::{memory, println};
use vmcs::Access;
use vmcs::controls::PrimaryBased;
use vmcs::fields::{IO_BITMAP_A, IO_BITMAP_B};

use crate::code;

/// What string instructions read and write.
static BUFFER: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

pub(crate) fn all() {
    println!("I/O, unconditional");
    let l2 = &mut L2::new(|| {});
    l2.control(|controls| controls.primary |= PrimaryBased::UNCONDITIONAL_IO_EXITING);
    follow(l2, "IN AL, 80", code!("in al, 0x80", out("al") _));
    follow(l2, "IN EAX, DX", code!("in eax, dx", out("eax") _, in("dx") 0x1234));
    follow(l2, "OUT 80, AX", code!("out 0x80, ax", in("ax") 0));
    follow(l2, "OUT DX, AL", code!("out dx, al", in("dx") 0xffff_u16, in("al") 0_u8));
    follow(l2, "OUTSB", || code!("outsb", in("dx") 0x80, inout("rsi") &raw const BUFFER as u64 => _)());
    follow(l2, "REP OUTSD", || {
        code!("rep outsd", in("dx") 0x80, inout("rsi") &raw const BUFFER as u64 => _, inout("rcx") 3_u64 => _)()
    });
    follow(l2, "INSW", || code!("insw", in("dx") 0x80, inout("rdi") &raw const BUFFER as u64 => _)());
    follow(l2, "REP INSB", || {
        code!("rep insb", in("dx") 0x80, inout("rdi") &raw const BUFFER as u64 => _, inout("rcx") 3_u64 => _)()
    });

    println!("I/O by bitmap: 21, 80, ffff");
    let (a, b) = (pages::take(), pages::take());
    for (bitmap, port) in [(a, 0x21_u64), (a, 0x80), (b, 0x7fff)] {
        let byte = bitmap + port / 8;
        memory::write(byte, memory::read::<u8>(byte) | 1 << (port % 8));
    }
    Current.write(IO_BITMAP_A, a);
    Current.write(IO_BITMAP_B, b);
    // The bitmaps count, not the other control.
    l2.control(|controls| controls.primary |= PrimaryBased::USE_IO_BITMAPS);
    follow(l2, "IN AL, 21", code!("in al, 0x21", out("al") _));
    follow(l2, "IN AL, A1", code!("in al, 0xa1", out("al") _));
    follow(l2, "IN AX, 7F", code!("in ax, 0x7f", out("ax") _));
    follow(l2, "IN EAX, 7D", code!("in eax, 0x7d", out("eax") _));
    follow(l2, "IN EAX, 7C", code!("in eax, 0x7c", out("eax") _));
    follow(l2, "IN AX, FFFF, which wraps around", code!("in ax, dx", out("ax") _, in("dx") 0xffff));
    follow(l2, "IN AL, FFFE", code!("in al, dx", out("al") _, in("dx") 0xfffe));
    memory::write(b + 0xfff, 0_u8);
    follow(l2, "IN AX, FFFF, with no bit set", code!("in ax, dx", out("ax") _, in("dx") 0xffff));
}
