//! L1's APIC while L2 runs, and interrupts that are posted for L2.

use core::sync::atomic::Ordering;

use arch::{GuestPhys, HostPhys};
use nested::{L1Memory, Update, Which};
use testkit::NestedBench;
use vlapic::VectorSet;
use vmcs::controls::{PinBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::qualification::EptQualification;
use vmcs::{Access, EventInfo, ExitReason};

/// Every kind of update, submitted while L2 runs, leaves vmcs02 as it is, and is in vmcs01 when L1 runs again: after an exit, and
/// after an entry that the processor refused.
#[test]
fn an_update_while_l2_runs_reaches_vmcs01_alone() {
    let mut vectors = VectorSet::EMPTY;
    vectors.insert(0x61);
    let updates = [
        Update::Controls { delivery: true, posting: true },
        Update::Mode { accesses: false, x2apic: true, msr_bitmap: HostPhys(0x7_7000) },
        Update::ApicPage { eptp: 0x8_801e },
        Update::InService(0x51),
        Update::Requested(0x61),
        Update::TprThreshold(7),
        Update::EoiExits(vectors),
        Update::TscOffset(0x1234),
    ];
    for refused in [false, true] {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        bench.launch();
        let before: Vec<_> = bench.vmcs(Which::Vmcs02).values().collect();
        for update in updates {
            let NestedBench { nested, cpu, .. } = &mut bench;
            nested.submit(nested::Processor::vmcs(cpu), update);
        }
        assert_eq!(bench.vmcs(Which::Vmcs02).values().collect::<Vec<_>>(), before, "vmcs02 is L2's");
        if refused {
            let NestedBench { nested, cpu, ram, msrs, .. } = &mut bench;
            assert_eq!(nested.exit_from_refused_entry(cpu, ram, msrs), Ok(()));
        } else {
            bench.exit(ExitReason::CPUID, |_| ());
        }
        let vmcs01 = bench.vmcs(Which::Vmcs01);
        let pin = PinBased::from_bits_retain(vmcs01.read(PIN_BASED_VM_EXEC_CONTROL));
        assert!(pin.contains(PinBased::PROCESS_POSTED_INTERRUPTS));
        let secondary = SecondaryBased::from_bits_retain(vmcs01.read(SECONDARY_VM_EXEC_CONTROL));
        assert!(secondary.contains(
            SecondaryBased::VIRTUAL_INTERRUPT_DELIVERY
                | SecondaryBased::APIC_REGISTER_VIRTUALIZATION
                | SecondaryBased::VIRTUALIZE_X2APIC_MODE
        ));
        assert_eq!(vmcs01.read(MSR_BITMAP), 0x7_7000);
        assert_eq!(vmcs01.read(EPT_POINTER), 0x8_801e);
        assert_eq!(vmcs01.read(GUEST_INTERRUPT_STATUS), 0x5161);
        assert_eq!(vmcs01.read(TPR_THRESHOLD), 7);
        assert_eq!(vmcs01.read(EOI_EXIT_BITMAP1), 1 << 0x21);
        assert_eq!(vmcs01.read(TSC_OFFSET), 0x1234);
    }
}

/// "Interrupt request register updated non-atomically while a device posts: spurious vector", or a lost one: while one processor
/// posts without end, the other one takes; in the end each post has been taken, once.
#[test]
fn nothing_posted_is_lost() {
    const PAGE: u64 = 0x6_0000;
    const DESCRIPTOR: u64 = 0x6_1040;
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    bench.write(VIRTUAL_APIC_PAGE_ADDR, PAGE);
    bench.write(POSTED_INTR_DESC_ADDR, DESCRIPTOR);
    bench.launch();
    let NestedBench { nested, cpu, ram, .. } = &mut bench;
    let ram = &*ram;
    let words = |at: u64| ram.words(GuestPhys(at & !0xfff)).expect("RAM");
    let first = usize::try_from(DESCRIPTOR & 0xfff).expect("an offset") / 8;
    let requests = |taken: &mut u32| {
        for index in 0..8 {
            *taken += words(PAGE)[0x200 / 8 + 2 * index].swap(0, Ordering::Relaxed).count_ones();
        }
    };
    std::thread::scope(|scope| {
        let poster = scope.spawn(move || {
            let mut posted = 0;
            let mut bit = 1_u64;
            for round in 0..8_000_000 {
                let before = words(DESCRIPTOR)[first + round % 4].fetch_or(bit, Ordering::SeqCst);
                // What is there already is one request with this.
                posted += u32::from(before & bit == 0);
                bit = bit.rotate_left(1);
            }
            posted
        });
        let mut taken = 0;
        while !poster.is_finished() {
            nested.process_posted(cpu, ram);
            requests(&mut taken);
        }
        nested.process_posted(cpu, ram);
        requests(&mut taken);
        assert_eq!(taken, poster.join().expect("the poster comes to its end"));
    });
}

/// An access of L2 to vmcs12's APIC-access page where L1 has no memory is an exit that says where and what (SDM 3C table
/// "Exit Qualification for APIC-Access VM Exits from Linear Accesses and Guest-Physical Accesses"); any other address is none.
#[test]
fn accesses_to_an_apic_page_without_memory() {
    const APIC: u64 = 0xfee0_0000;
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    let secondary = bench.read(SECONDARY_VM_EXEC_CONTROL);
    bench.write(SECONDARY_VM_EXEC_CONTROL, secondary | SecondaryBased::VIRTUALIZE_APIC_ACCESSES.bits());
    bench.write(APIC_ACCESS_ADDR, APIC);
    bench.launch();
    for (access, delivers, at, expected) in [
        (0x181, false, APIC + 0x20, Some(0x20)),
        (0x182, false, APIC + 0x300, Some(0x1300)),
        (0x183, false, APIC + 0x80, Some(0x1080)),
        (0x184, false, APIC, Some(0x2000)),
        (0x182, true, APIC + 0xff8, Some(0x3ff8)),
        (0x81, true, APIC + 8, Some(0xa008)),
        (0x81, false, APIC + 8, Some(0xf008)),
        (0x181, false, APIC + 0x1000, None),
        (0x181, false, APIC - 1, None),
    ] {
        let event = EventInfo::hardware_exception(arch::Vector(6), false);
        bench.run_l2(ExitReason::EPT_VIOLATION, |vmcs02| {
            vmcs02.write(IDT_VECTORING_INFO, if delivers { event.0 } else { 0 });
        });
        let access = EptQualification::from_bits_retain(access);
        let exit = bench.nested.apic_access_exit(bench.vmcs(Which::Vmcs02), GuestPhys(at), access);
        assert_eq!(exit.map(|exit| exit.qualification), expected, "{access:?} at {at:#x}");
        if let Some(exit) = exit {
            assert_eq!(exit.reason, ExitReason::APIC_ACCESS.0);
            assert_eq!(exit.vectoring.map(|vectoring| vectoring.info), delivers.then_some(event));
        }
    }
}
