//! A program for the exercised Linux: writes 256 MiB of memory, each word different, and reads them back.
//!
//! The tools of busybox that could do it take an instruction or ten for each byte, which is minutes on an emulator. This
//! takes half an instruction for each byte, and needs no C library.

use super::elf;

/// Exits with 0 if all words came back, with 1 at the first that did not, by a signal if there is no such memory.
const CODE: &[&[u8]] = &[
    &[0xb8, 0x09, 0x00, 0x00, 0x00],                               // mov eax, 9: mmap
    &[0x31, 0xff],                                                 // xor edi, edi: anywhere
    &[0xbe, 0x00, 0x00, 0x00, 0x10],                               // mov esi, 0x10000000: 256 MiB
    &[0xba, 0x03, 0x00, 0x00, 0x00],                               // mov edx, 3: to be read and written
    &[0x41, 0xba, 0x22, 0x00, 0x00, 0x00],                         // mov r10d, 0x22: private, anonymous
    &[0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff],                   // mov r8, -1: no file
    &[0x45, 0x31, 0xc9],                                           // xor r9d, r9d
    &[0x0f, 0x05],                                                 // syscall
    &[0x48, 0x89, 0xc3],                                           // mov rbx, rax
    &[0x48, 0x8d, 0xb3, 0x00, 0x00, 0x00, 0x10],                   // lea rsi, [rbx + 0x10000000]
    &[0x48, 0xba, 0x15, 0x7c, 0x4a, 0x7f, 0xb9, 0x79, 0x37, 0x9e], // mov rdx, 0x9e3779b97f4a7c15: odd, so no word repeats
    &[0x48, 0x89, 0xdf],                                           // mov rdi, rbx
    &[0x31, 0xc0],                                                 // xor eax, eax
    &[0x48, 0x89, 0x07],                                           // write: mov [rdi], rax
    &[0x48, 0x83, 0xc7, 0x08],                                     // add rdi, 8
    &[0x48, 0x01, 0xd0],                                           // add rax, rdx
    &[0x48, 0x39, 0xf7],                                           // cmp rdi, rsi
    &[0x75, 0xf1],                                                 // jne write
    &[0x48, 0x89, 0xdf],                                           // mov rdi, rbx
    &[0x31, 0xc0],                                                 // xor eax, eax
    &[0x48, 0x39, 0x07],                                           // read: cmp [rdi], rax
    &[0x75, 0x0c],                                                 // jne end
    &[0x48, 0x83, 0xc7, 0x08],                                     // add rdi, 8
    &[0x48, 0x01, 0xd0],                                           // add rax, rdx
    &[0x48, 0x39, 0xf7],                                           // cmp rdi, rsi
    &[0x75, 0xef],                                                 // jne read
    &[0x40, 0x0f, 0x95, 0xc7],                                     // end: setne dil
    &[0x40, 0x0f, 0xb6, 0xff],                                     // movzx edi, dil
    &[0xb8, 0x3c, 0x00, 0x00, 0x00],                               // mov eax, 60: exit
    &[0x0f, 0x05],                                                 // syscall
];

/// The file.
pub(super) fn program() -> Vec<u8> {
    elf::executable(CODE)
}
