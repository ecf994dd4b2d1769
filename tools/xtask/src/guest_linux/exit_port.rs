//! A program for Linux in the emulator: `exit-port N` ends the machine with status N, as a guest of ours does.
//!
//! /dev/port, with which busybox could reach an I/O port, writes single bytes; the exit port takes 32 bits.

use super::elf;

/// The argument is decimal. Without the right to use I/O ports the program ends by a signal.
const CODE: &[&[u8]] = &[
    &[0x48, 0x8b, 0x74, 0x24, 0x10], // mov rsi, [rsp + 16]: the first argument
    &[0x31, 0xdb],                   // xor ebx, ebx
    &[0x0f, 0xb6, 0x06],             // digit: movzx eax, byte [rsi]
    &[0x83, 0xe8, 0x30],             // sub eax, 0x30: "0"
    &[0x72, 0x0a],                   // jb end: the zero byte
    &[0x6b, 0xdb, 0x0a],             // imul ebx, ebx, 10
    &[0x01, 0xc3],                   // add ebx, eax
    &[0x48, 0xff, 0xc6],             // inc rsi
    &[0xeb, 0xee],                   // jmp digit
    &[0xb8, 0xac, 0x00, 0x00, 0x00], // end: mov eax, 172: iopl
    &[0xbf, 0x03, 0x00, 0x00, 0x00], // mov edi, 3
    &[0x0f, 0x05],                   // syscall
    &[0x89, 0xd8],                   // mov eax, ebx
    &[0xe7, 0xf4],                   // out 0xf4, eax
    &[0xeb, 0xfe],                   // jmp here: the machine ends by itself
];

/// The file.
pub(super) fn program() -> Vec<u8> {
    elf::executable(CODE)
}
