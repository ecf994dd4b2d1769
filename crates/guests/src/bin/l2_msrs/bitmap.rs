//! Which RDMSR and WRMSR exit: SDM 3C 25.6.9 "MSR-Bitmap Address".

use arch::msr::Msr;
use guests::vmx::{Current, L2, equal, follow, pages};
use guests::{expect_fault, memory, msr, println};
use vmcs::Access;
use vmcs::controls::PrimaryBased;
use vmcs::fields::MSR_BITMAP;

use crate::UNKNOWN;

fn read(number: u32) {
    let _ = expect_fault(|| _ = msr::read(Msr(number)));
}

/// A fault in L2, as a number for a check.
fn fault(action: impl FnMut()) -> u64 {
    expect_fault(action).map_or(0, |fault| fault.vector.0.into())
}

pub(crate) fn all() {
    println!("without bitmaps");
    let l2 = &mut L2::new(|| {});
    follow(l2, "RDMSR", || read(Msr::SYSENTER_CS.0));
    follow(l2, "WRMSR", || msr::write(Msr::SYSENTER_CS, 0));
    follow(l2, "RDMSR of what is not there", || read(UNKNOWN.0));
    println!("with bitmaps that are 0");
    let page = pages::take();
    l2.control(|controls| controls.primary |= PrimaryBased::USE_MSR_BITMAPS);
    Current.write(MSR_BITMAP, page);
    follow(l2, "RDMSR and WRMSR", || msr::write(Msr::SYSENTER_CS, msr::read(Msr::SYSENTER_CS)));
    follow(l2, "RDMSR of c0000082", || read(Msr::LSTAR.0));
    follow(l2, "RDMSR of what is not there", || equal("#GP", fault(|| _ = msr::read(UNKNOWN)), 13));
    follow(l2, "WRMSR of what is not there", || equal("#GP", fault(|| msr::write(UNKNOWN, 0)), 13));
    follow(l2, "WRMSR of a value that is refused", || equal("#GP", fault(|| msr::write(Msr::PAT, 2)), 13));
    follow(l2, "RDMSR of 1fff", || equal("#GP", fault(|| _ = msr::read(Msr(0x1fff))), 13));
    follow(l2, "RDMSR of 2000", || read(0x2000));
    follow(l2, "RDMSR of bfffffff", || read(0xbfff_ffff));
    follow(l2, "RDMSR of c0002000", || read(0xc000_2000));
    println!("with bits for reading 174 and c0000082, for writing 175 and c0000083");
    for (part, number) in [(0, 0x174_u64), (0x400, 0x82), (0x800, 0x175), (0xc00, 0x83)] {
        let byte = page + part + number / 8;
        memory::write(byte, memory::read::<u8>(byte) | 1 << (number % 8));
    }
    follow(l2, "RDMSR of 174", || read(0x174));
    follow(l2, "WRMSR of 174", || msr::write(Msr(0x174), 0));
    follow(l2, "RDMSR of 175", || read(0x175));
    follow(l2, "WRMSR of 175", || msr::write(Msr(0x175), 0));
    follow(l2, "RDMSR of c0000082", || read(0xc000_0082));
    follow(l2, "WRMSR of c0000082", || msr::write(Msr::LSTAR, 0));
    follow(l2, "RDMSR of c0000083", || read(0xc000_0083));
    follow(l2, "WRMSR of c0000083", || msr::write(Msr::CSTAR, 0));
}
