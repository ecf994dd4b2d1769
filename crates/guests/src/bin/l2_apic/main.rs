//! An APIC for L2: what the processor virtualizes of it by vmcs12's controls, and what exits.
//! SDM 3C chapter 30 "APIC Virtualization and Virtual Interrupts", 27.2.1.1 "VM-Execution Control Fields", 27.7.7 "VM Exits Induced by
//! the TPR Threshold".
//!
//! What the machine lacks, the log says in a line.
#![no_std]
#![no_main]

mod delivery;
mod elsewhere;
mod page;
mod priority;
mod tpr;
mod x2apic;

use core::sync::atomic::{AtomicU64, Ordering};

use arch::apic::Register;
use guests::vmx::{Controls, Current, Ept, L2, VirtualApic, ept, pages, setup};
use guests::{apic, entry, memory, pic, println};
use vmcs::Access;
use vmcs::controls::{PrimaryBased, SecondaryBased};
use vmcs::fields::{APIC_ACCESS_ADDR, EPT_POINTER};

entry!(main);

/// Where L2 finds its APIC.
static APIC: AtomicU64 = AtomicU64::new(0);

fn main() {
    setup::require();
    pic::remap();
    apic::init();
    setup::on();
    tpr::all();
    page::all();
    delivery::all();
    priority::all();
    elsewhere::all();
    x2apic::all();
    println!("done");
}

/// An L2 with an APIC of its own.
struct Guest {
    l2: L2,
    apic: VirtualApic,
}

impl Guest {
    /// An L2 with a TPR shadow and these secondary controls, if the machine has them. Where accesses to the APIC's page are
    /// virtualized, and there is EPT, it maps that page by 4 KiB, as the manual wants it (SDM 3C 30.4.5 "Issues Pertaining to
    /// Page Size and TLB Management").
    fn new(secondary: SecondaryBased) -> Option<Self> {
        Self::with(|controls| controls.secondary |= secondary)
    }

    /// The same, with other controls besides.
    fn with(change: impl FnOnce(&mut Controls)) -> Option<Self> {
        let mut l2 = L2::new(|| {});
        let has = l2.control(|controls| {
            controls.primary |= PrimaryBased::USE_TPR_SHADOW;
            change(controls);
        });
        if !has {
            println!(" skip: the machine has none of this");
            return None;
        }
        let mut current = Current;
        let apic = VirtualApic::for_current();
        if l2.controls.secondary.contains(SecondaryBased::VIRTUALIZE_APIC_ACCESSES) {
            let access = pages::take();
            current.write(APIC_ACCESS_ADDR, access);
            APIC.store(access, Ordering::Relaxed);
            if l2.control(|controls| controls.secondary |= SecondaryBased::ENABLE_EPT) {
                let tables = Ept::identity();
                memory::write(tables.entry(access, 1), access | ept::ALL | ept::WRITE_BACK);
                current.write(EPT_POINTER, tables.pointer());
            }
        }
        Some(Self { l2, apic })
    }

    /// Lets L2 run `code` from its beginning; prints how it ended.
    fn run(&mut self, what: &str, code: fn()) {
        self.l2.restart(code);
        println!(" {what}: {}", self.l2.run());
    }
}

/// Where L2 finds this register of its APIC.
fn at(register: Register) -> u64 {
    APIC.load(Ordering::Relaxed) + u64::from(register.0)
}
