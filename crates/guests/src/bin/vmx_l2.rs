//! The shortest L1: enters VMX operation, runs an L2 that calls, and leaves.
#![no_std]
#![no_main]

use guests::vmx::{L2, call, instructions, setup};
use guests::{cpu, entry, println};

entry!(main);

fn main() {
    setup::require();
    setup::on();
    let mut l2 = L2::new(|| {
        call(1);
        cpu::cpuid(0, 0);
    });
    for _ in 0..4 {
        let report = l2.run();
        println!("{report}");
        if report.is_done() {
            break;
        }
        l2.skip();
    }
    println!("VMXOFF: {:?}", instructions::vmxoff());
}
