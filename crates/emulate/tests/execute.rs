//! Execution against the manual: results, flags, RIP, faults, and what the device sees.

mod support;

use arch::control::{Cr0, Cr4, Rflags};
use arch::segment::{AccessRights, SegmentName};
use arch::{Fault, Gpr, GuestMemory, GuestPhys};
use emulate::{CodeSize, Done, Failure, access};
use proptest::prelude::*;
use support::{DEVICE, machine, run};

const RAX: usize = Gpr::Rax as usize;
const RCX: usize = Gpr::Rcx as usize;
const RSI: usize = Gpr::Rsi as usize;
const RDI: usize = Gpr::Rdi as usize;

/// Loads of each width and what they leave of RAX.
#[test]
fn loads() {
    let value = 0x8899_aabb_ccdd_eeff;
    let old = 0x1122_3344_5566_7788;
    let cases: [(&[u8], usize, u64); 13] = [
        (&[0x8a, 0x07], 1, 0x1122_3344_5566_77ff),               // mov al, [rdi]
        (&[0x8a, 0x27], 1, 0x1122_3344_5566_ff88),               // mov ah, [rdi]
        (&[0x66, 0x8b, 0x07], 2, 0x1122_3344_5566_eeff),         // mov ax, [rdi]
        (&[0x8b, 0x07], 4, 0xccdd_eeff),                         // mov eax, [rdi]
        (&[0x48, 0x8b, 0x07], 8, value),                         // mov rax, [rdi]
        (&[0x0f, 0xb6, 0x07], 1, 0xff),                          // movzx eax, byte [rdi]
        (&[0x66, 0x0f, 0xb6, 0x07], 1, 0x1122_3344_5566_00ff),   // movzx ax, byte [rdi]
        (&[0x48, 0x0f, 0xb7, 0x07], 2, 0xeeff),                  // movzx rax, word [rdi]
        (&[0x0f, 0xbe, 0x07], 1, 0xffff_ffff),                   // movsx eax, byte [rdi]
        (&[0x66, 0x0f, 0xbe, 0x07], 1, 0x1122_3344_5566_ffff),   // movsx ax, byte [rdi]
        (&[0x48, 0x0f, 0xbf, 0x07], 2, 0xffff_ffff_ffff_eeff),   // movsx rax, word [rdi]
        (&[0x48, 0x63, 0x07], 4, 0xffff_ffff_ccdd_eeff),         // movsxd rax, dword [rdi]
        (&[0xa1, 0, 0, 0xe0, 0xfe, 0, 0, 0, 0], 4, 0xccdd_eeff), // mov eax, [0xfee00000]
    ];
    for (bytes, width, expected) in cases {
        let (vcpu, device) = run(bytes, value, |vcpu| vcpu.gprs[RAX] = old);
        assert_eq!(vcpu.gprs[RAX], expected, "{bytes:02x?}");
        let seen = value & (u64::MAX >> (64 - 8 * width));
        assert_eq!(device.accesses, [('r', DEVICE, width, seen)], "{bytes:02x?}");
        assert_eq!(vcpu.rflags, Rflags::RESERVED_1);
    }
}

#[test]
fn stores() {
    let cases: [(&[u8], usize, u64); 7] = [
        (&[0x88, 0x27], 1, 0x77),                                                // mov [rdi], ah
        (&[0x40, 0x88, 0x27], 1, 0x99),                                          // mov [rdi], spl
        (&[0x66, 0x89, 0x07], 2, 0x7788),                                        // mov [rdi], ax
        (&[0x89, 0x07], 4, 0x5566_7788),                                         // mov [rdi], eax
        (&[0x48, 0x0f, 0xc3, 0x07], 8, 0x1122_3344_5566_7788),                   // movnti [rdi], rax
        (&[0x48, 0xc7, 0x07, 0xfe, 0xff, 0xff, 0xff], 8, 0xffff_ffff_ffff_fffe), // mov qword [rdi], -2
        (&[0xc6, 0x07, 0x80], 1, 0x80),                                          // mov byte [rdi], 0x80
    ];
    for (bytes, width, expected) in cases {
        let (_, device) = run(bytes, 0, |vcpu| {
            vcpu.gprs[RAX] = 0x1122_3344_5566_7788;
            vcpu.gprs[Gpr::Rsp as usize] = 0x99;
        });
        assert_eq!(device.accesses, [('w', DEVICE, width, expected)], "{bytes:02x?}");
    }
}

/// Base, scaled index, displacement, RIP, FS; effective addresses wrap at the address size.
#[test]
fn effective_addresses() {
    let cases: [(&[u8], u64); 5] = [
        (&[0x8b, 0x44, 0xb7, 0xf0], DEVICE + 0x80 - 0x10), // mov eax, [rdi + rsi*4 - 0x10]
        (&[0x8b, 0x05, 0x00, 0x00, 0x00, 0x10], 0x1000_8006), // mov eax, [rip + 0x10000000]
        (&[0x64, 0x8b, 0x06], 0x5000_0020),                // mov eax, fs:[rsi]
        (&[0x67, 0x8b, 0x45, 0xff], 0xffff_f000),          // mov eax, [ebp - 1]
        (&[0x41, 0x8b, 0x04, 0x24], 0x6000_0000),          // mov eax, [r12]
    ];
    for (bytes, expected) in cases {
        let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, bytes, 0);
        vcpu.gprs[RSI] = 0x20;
        vcpu.gprs[Gpr::Rbp as usize] = 0xffff_ffff_ffff_f001;
        vcpu.gprs[Gpr::R12 as usize] = 0x6000_0000;
        vcpu.segments[SegmentName::Fs as usize].base = 0x5000_0000;
        // The offset that exited is another one, so that the guest's tables are walked for the one found here.
        assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE + 1)), Ok(Done::Complete));
        assert_eq!(device.accesses, [('r', expected, 4, 0)], "{bytes:02x?}");
    }
}

/// A store through the page that exited goes to the device page even where RAM lies below it, and one whose page turns
/// out to be RAM is left to the guest.
#[test]
fn device_or_ram() {
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0x89, 0x07], 0);
    vcpu.gprs[RDI] = 0xa010;
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(0xa010)), Ok(Done::Complete));
    assert_eq!(device.accesses, [('w', 0xa010, 4, 0)]);
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0x89, 0x07], 0);
    vcpu.gprs[RDI] = 0xa014;
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE)), Err(Failure::NotDevice));
    assert_eq!((vcpu.rip, device.accesses.len()), (0x8000, 0));
}

/// The operand crosses from RAM into a device page: each byte goes where it belongs.
#[test]
fn operand_crosses_pages() {
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0x89, 0x07], 0);
    vcpu.gprs[RDI] = 0x1_fffe;
    vcpu.gprs[RAX] = 0x4433_2211;
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(0x2_0000)), Ok(Done::Complete));
    assert_eq!(device.accesses, [('w', 0x2_0000, 1, 0x33), ('w', 0x2_0001, 1, 0x44)]);
    assert_eq!(ram.bytes.borrow()[0x1_fffe..], [0x11, 0x22]);
}

/// The instruction crosses into a page that is not present: #PF for the fetch, at the page's first byte.
#[test]
fn instruction_crosses_pages() {
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[], 0);
    // 4-KiB pages for the first 2 MiB: PDPT 0x2000 -> 0x3000 -> 0x4000, where page 9 is absent.
    ram.set_u64(0x2000, 0x3000 | 7);
    ram.set_u64(0x3000, 0x4000 | 7);
    for n in 0..32 {
        ram.set_u64(0x4000 + 8 * n, n << 12 | if n == 9 { 0 } else { 7 });
    }
    ram.write(GuestPhys(0x8fff), &[0x89]).expect("in RAM");
    ram.write(GuestPhys(0xa000), &[0x07]).expect("in RAM");
    vcpu.rip = 0x8fff;
    let result = access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE));
    assert_eq!(result, Err(Failure::Fault(Fault::Pf { address: 0x9000, error: 0x10 })));
    ram.set_u64(0x4000 + 8 * 9, 0xa000 | 7);
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE)), Ok(Done::Complete));
    assert_eq!(vcpu.rip, 0x9001);
}

#[test]
fn canonical_addresses() {
    for (bytes, fault) in [(&[0x8b, 0x07][..], Fault::Gp(0)), (&[0x8b, 0x45, 0x00], Fault::Ss(0))] {
        for address in [0x8000_0000_0000, 0x7fff_ffff_fffd, 0xffff_7fff_ffff_ffff] {
            let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, bytes, 0);
            vcpu.gprs[RDI] = address;
            vcpu.gprs[Gpr::Rbp as usize] = address;
            let result = access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE));
            assert_eq!(result, Err(Failure::Fault(fault)), "{address:#x}");
        }
    }
    // 57-bit linear addresses reach further.
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0x8b, 0x07], 0);
    vcpu.paging.cr4 |= Cr4::LA57;
    ram.set_u64(0x1000, 0x5000 | 7);
    ram.set_u64(0x5000, 0x2000 | 7);
    vcpu.gprs[RDI] = 0x8000_0000_0000;
    let result = access(&mut vcpu, &ram, &mut device, GuestPhys(0x123));
    assert_eq!(result, Err(Failure::Fault(Fault::Pf { address: 0x8000_0000_0000, error: 0 })));
}

/// Segment limits and types in protected mode: flat is fine, everything else is #GP(0), or #SS(0) for the stack.
#[test]
fn segment_checks() {
    const STORE: &[u8] = &[0x89, 0x07]; // mov [edi], eax
    const LOAD: &[u8] = &[0x8b, 0x07]; // mov eax, [edi]
    const STORE_SS: &[u8] = &[0x36, 0x89, 0x07];
    const STORE_CS: &[u8] = &[0x2e, 0x89, 0x07];
    const LOAD_CS: &[u8] = &[0x2e, 0x8b, 0x07];
    let gp = Err(Failure::Fault(Fault::Gp(0)));
    let fine = Ok(Done::Complete);
    // Bytes, which segment, its limit and rights, EDI, and what comes of it.
    for (bytes, name, limit, rights, edi, expected) in [
        (STORE, SegmentName::Ds, 0xffff_ffff, 0xc093, 0xfee0_0000, fine),
        (STORE, SegmentName::Ds, 0xfee0_0003, 0xc093, 0xfee0_0000, fine),
        (STORE, SegmentName::Ds, 0xfee0_0002, 0xc093, 0xfee0_0000, gp),
        (STORE, SegmentName::Ds, 0xffff_ffff, 0xc093, 0xffff_fffe, gp),
        (STORE, SegmentName::Ds, 0xffff_ffff, 0xc091, 0xfee0_0000, gp), // read-only
        (LOAD, SegmentName::Ds, 0xffff_ffff, 0xc091, 0xfee0_0000, fine),
        (LOAD, SegmentName::Ds, 0xffff_ffff, 0x1_0000, 0xfee0_0000, gp), // unusable
        (STORE_SS, SegmentName::Ss, 0xfff, 0xc093, 0xfee0_0000, Err(Failure::Fault(Fault::Ss(0)))),
        (STORE_CS, SegmentName::Cs, 0xffff_ffff, 0xc09b, 0xfee0_0000, gp), // code is not writable
        (LOAD_CS, SegmentName::Cs, 0xffff_ffff, 0xc09b, 0xfee0_0000, fine),
        (LOAD_CS, SegmentName::Cs, 0xffff_ffff, 0xc099, 0xfee0_0000, gp), // execute-only
        // Expand-down: from the limit (excluded) to 4 GiB, or 64 KiB without B.
        (STORE, SegmentName::Ds, 0xfedf_ffff, 0xc097, 0xfee0_0000, fine),
        (STORE, SegmentName::Ds, 0xfee0_0000, 0xc097, 0xfee0_0000, gp),
        (STORE, SegmentName::Ds, 0xfff, 0x8097, 0xfee0_0000, gp),
    ] {
        let (ram, mut vcpu, mut device) = machine(CodeSize::Bits32, bytes, 0);
        vcpu.segments[name as usize].limit = limit;
        vcpu.segments[name as usize].rights = AccessRights(rights);
        vcpu.gprs[RDI] = edi;
        let result = access(&mut vcpu, &ram, &mut device, GuestPhys(edi));
        assert_eq!(result, expected, "{bytes:02x?} {limit:#x} {rights:#x} {edi:#x}");
    }
}

/// Real mode: base from the selector, 16-bit offsets, no types; a limit raised in protected mode stays ("unreal" mode).
#[test]
fn real_mode() {
    // mov [bx+si+0x10], al
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits16, &[0x88, 0x40, 0x10], 0);
    vcpu.segments[SegmentName::Ds as usize].base = 0xa_0000;
    (vcpu.gprs[Gpr::Rbx as usize], vcpu.gprs[RSI]) = (0xfff8, 0x10);
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(0xa_0018)), Ok(Done::Complete));
    assert_eq!(device.accesses, [('w', 0xa_0018, 1, 0)]);
    // mov cs:[0xffff], ax reaches beyond the limit; then mov [edi], eax above 64 KiB, without and with a raised limit.
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits16, &[0x2e, 0xa3, 0xff, 0xff], 0);
    let at = GuestPhys(DEVICE);
    assert_eq!(access(&mut vcpu, &ram, &mut device, at), Err(Failure::Fault(Fault::Gp(0))));
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits16, &[0x67, 0x66, 0x89, 0x07], 0);
    assert_eq!(access(&mut vcpu, &ram, &mut device, at), Err(Failure::Fault(Fault::Gp(0))));
    vcpu.segments[SegmentName::Ds as usize].limit = 0xffff_ffff;
    assert_eq!(access(&mut vcpu, &ram, &mut device, at), Ok(Done::Complete));
    assert_eq!(device.accesses, [('w', DEVICE, 4, 0)]);
}

/// At CPL 3 the translation that the processor made is checked again: the page is not writable for the store that another
/// vCPU has put in the place of the load.
#[test]
fn user_mode_is_checked_again() {
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0x89, 0x07], 0);
    vcpu.paging.cpl = 3;
    ram.set_u64(0x2018, 3 << 30 | 0xe5);
    let fault = Fault::Pf { address: DEVICE, error: 7 };
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE)), Err(Failure::Fault(fault)));
    // And #AC where it is asked for.
    ram.set_u64(0x2018, 3 << 30 | 0xe7);
    vcpu.gprs[RDI] = DEVICE + 2;
    (vcpu.paging.ac, vcpu.paging.cr0) = (true, vcpu.paging.cr0 | Cr0::AM);
    let result = access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE + 2));
    assert_eq!(result, Err(Failure::Fault(Fault::Ac)));
    assert_eq!(device.accesses, []);
}

/// Bytes that are no instruction of the subset come back, for a message that a person can act on.
#[test]
fn unsupported() {
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0x0f, 0x11, 0x07, 0x90], 0); // movups [rdi], xmm0
    let Err(Failure::Unsupported { bytes, length }) = access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE)) else {
        unreachable!("movups is not of the subset");
    };
    assert_eq!((&bytes[..4], length, vcpu.rip), (&[0x0f, 0x11, 0x07, 0x90][..], 15, 0x8000));
}

/// Too long, or beyond the limit of CS: #GP(0).
#[test]
fn fetch_faults() {
    let gp = Err(Failure::Fault(Fault::Gp(0)));
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0x66; 16], 0);
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE)), gp);
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits32, &[0x89, 0x07], 0);
    vcpu.segments[SegmentName::Cs as usize].limit = 0x8000;
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE)), gp);
    vcpu.segments[SegmentName::Cs as usize].limit = 0x8001;
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(DEVICE)), Ok(Done::Complete));
}

/// REP MOVSD from the device to RAM in batches, then REP STOSB to it backwards.
#[test]
fn string_instructions() {
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0xf3, 0xa5], 0x1234_5678);
    (vcpu.gprs[RSI], vcpu.gprs[RDI], vcpu.gprs[RCX]) = (DEVICE, 0x9000, 100);
    let at = GuestPhys(DEVICE);
    assert_eq!(access(&mut vcpu, &ram, &mut device, at), Ok(Done::Repeating));
    assert_eq!((vcpu.rip, vcpu.gprs[RCX], vcpu.gprs[RSI], vcpu.gprs[RDI]), (0x8000, 36, DEVICE + 256, 0x9100));
    assert_eq!(access(&mut vcpu, &ram, &mut device, at), Ok(Done::Complete));
    assert_eq!((vcpu.rip, vcpu.gprs[RCX], vcpu.gprs[RSI], vcpu.gprs[RDI]), (0x8002, 0, DEVICE + 400, 0x9190));
    assert_eq!((ram.get_u64(0x9188), ram.get_u64(0x9190)), (0x1234_5678_1234_5678, 0));
    assert_eq!(device.accesses.len(), 100);

    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits32, &[0xf3, 0xaa], 0);
    (vcpu.gprs[RDI], vcpu.gprs[RCX], vcpu.gprs[RAX]) = (DEVICE + 1, 2, 0x5a);
    vcpu.rflags |= Rflags::DF | Rflags::TF;
    // Each iteration owes its single-step trap.
    assert_eq!(access(&mut vcpu, &ram, &mut device, at), Ok(Done::Repeating));
    assert_eq!(access(&mut vcpu, &ram, &mut device, at), Ok(Done::Complete));
    assert_eq!(device.accesses, [('w', DEVICE + 1, 1, 0x5a), ('w', DEVICE, 1, 0x5a)]);
    assert_eq!((vcpu.gprs[RDI], vcpu.gprs[RCX]), (DEVICE - 1, 0));
}

/// REP with a count of 0 does nothing; one that leaves the device goes on in the guest; a page fault in the midst keeps
/// what is done, and the device is not read for the element that has no place to go.
#[test]
fn string_instruction_ends_early() {
    let at = GuestPhys(DEVICE);
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0xf3, 0xa4], 0);
    assert_eq!(access(&mut vcpu, &ram, &mut device, at), Ok(Done::Complete));
    assert_eq!((vcpu.rip, device.accesses.len()), (0x8002, 0));

    // From the device page at 0xa000 into the RAM that follows it.
    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0xf3, 0xa4], 0);
    (vcpu.gprs[RSI], vcpu.gprs[RDI], vcpu.gprs[RCX]) = (0xaffe, 0xc000, 5);
    assert_eq!(access(&mut vcpu, &ram, &mut device, GuestPhys(0xaffe)), Ok(Done::Repeating));
    assert_eq!((vcpu.gprs[RCX], device.accesses.len(), vcpu.rip), (3, 2, 0x8000));

    let (ram, mut vcpu, mut device) = machine(CodeSize::Bits64, &[0xf3, 0xa4], 0);
    (vcpu.gprs[RSI], vcpu.gprs[RDI], vcpu.gprs[RCX]) = (DEVICE, (4 << 30) - 3, 5);
    let fault = Fault::Pf { address: 4 << 30, error: 2 };
    assert_eq!(access(&mut vcpu, &ram, &mut device, at), Err(Failure::Fault(fault)));
    let reads = device.accesses.iter().filter(|access| access.0 == 'r').count();
    assert_eq!((vcpu.gprs[RCX], vcpu.gprs[RSI], reads, vcpu.rip), (2, DEVICE + 3, 3, 0x8000));
}

/// XCHG, XADD, CMPXCHG and the bit instructions, by hand.
#[test]
fn read_modify_write() {
    let (vcpu, device) = run(&[0x87, 0x07], 0x1111_2222, |vcpu| vcpu.gprs[RAX] = 0xffff_ffff_3333_4444);
    assert_eq!((vcpu.gprs[RAX], device.value), (0x1111_2222, 0x3333_4444));
    let (vcpu, device) = run(&[0xf0, 0x0f, 0xc1, 0x07], 0xffff_ffff, |vcpu| vcpu.gprs[RAX] = 2);
    assert_eq!((vcpu.gprs[RAX], device.value), (0xffff_ffff, 1));
    assert_eq!(vcpu.rflags, Rflags::RESERVED_1 | Rflags::CF | Rflags::AF);
    // cmpxchg [rdi], ecx: equal, then not; then RAX is loaded and memory is written with its own value.
    let (vcpu, device) = run(&[0x0f, 0xb1, 0x0f], 5, |vcpu| (vcpu.gprs[RAX], vcpu.gprs[RCX]) = (1 << 40 | 5, 9));
    assert_eq!((vcpu.gprs[RAX], device.value), (1 << 40 | 5, 9));
    assert!(vcpu.rflags.contains(Rflags::ZF));
    let (vcpu, device) = run(&[0x0f, 0xb1, 0x0f], 7, |vcpu| (vcpu.gprs[RAX], vcpu.gprs[RCX]) = (1 << 40 | 5, 9));
    assert_eq!((vcpu.gprs[RAX], device.value), (7, 7));
    assert_eq!(device.accesses, [('r', DEVICE, 4, 7), ('w', DEVICE, 4, 7)]);
    assert!(!vcpu.rflags.contains(Rflags::ZF) && vcpu.rflags.contains(Rflags::CF));
    // bts dword [rdi], 35: the immediate counts modulo 32. bt [rdi], eax: the register reaches anywhere.
    let (vcpu, device) = run(&[0x0f, 0xba, 0x2f, 35], 0, |_| ());
    assert_eq!((device.value, vcpu.rflags.contains(Rflags::CF)), (8, false));
    let (vcpu, device) = run(&[0x0f, 0xa3, 0x07], 1 << 31, |vcpu| vcpu.gprs[RAX] = 0xffff_ffff);
    assert_eq!((device.accesses, vcpu.rflags.contains(Rflags::CF)), (vec![('r', DEVICE - 4, 4, 1 << 31)], true));
    let (_, device) = run(&[0x0f, 0xbb, 0x07], 1, |vcpu| vcpu.gprs[RAX] = 64);
    assert_eq!((device.value, device.accesses[0].1), (0, DEVICE + 8));
    // not byte [rdi] leaves the flags alone.
    let (vcpu, device) = run(&[0xf6, 0x17], 0x0f, |vcpu| vcpu.rflags |= Rflags::CF | Rflags::ZF);
    assert_eq!((device.value, vcpu.rflags), (0xf0, Rflags::RESERVED_1 | Rflags::CF | Rflags::ZF));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Hostile code, registers and segments: no panic, and nothing but the device and RAM is touched.
    #[test]
    fn anything(
        bytes: [u8; 15],
        gprs: [u64; 16],
        rip in prop_oneof![Just(0x8000), 0x1_fff0u64..0x2_0010, any::<u64>()],
        code in prop::sample::select(vec![CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64]),
        (base, limit, rights) in any::<(u32, u32, u32)>(),
        cpl in 0u8..4,
        exited: u64,
    ) {
        let (ram, mut vcpu, mut device) = machine(code, &bytes, 0);
        (vcpu.gprs, vcpu.rip, vcpu.paging.cpl) = (gprs, rip, cpl);
        let segment = &mut vcpu.segments[usize::from(bytes[14]) % 6];
        (segment.base, segment.limit, segment.rights) = (base.into(), limit, AccessRights(rights));
        let result = access(&mut vcpu, &ram, &mut device, GuestPhys(exited));
        prop_assert!(result == Ok(Done::Complete) || vcpu.rip == rip);
        prop_assert!(!device.accesses.is_empty() || matches!(result, Err(_) | Ok(Done::Complete)));
    }
}
