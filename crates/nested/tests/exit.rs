//! Exits of L2 to L1: what L1 is told, what of L2 is saved, what L1 continues with (SDM 3C chapter 28 "VM Exits").

use arch::Msr;
use nested::{Abort, Synthesized, Vectoring, Which};
use testkit::{FakeVmcs, NestedBench};
use vmcs::controls::{EntryControls, ExitControls, PinBased, PrimaryBased, SecondaryBased};
use vmcs::fields::*;
use vmcs::{Access, Encoding, EventInfo, ExitReason};

fn running() -> NestedBench {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    bench.launch();
    bench
}

fn with(change: impl FnOnce(&mut NestedBench)) -> NestedBench {
    let mut bench = NestedBench::new(false).with_valid_vmcs12();
    change(&mut bench);
    bench.launch();
    bench
}

fn vmcs01(bench: &NestedBench) -> &FakeVmcs {
    bench.vmcs(Which::Vmcs01)
}

fn without_exit_control(bench: &mut NestedBench, control: ExitControls) {
    let exit = bench.read(VM_EXIT_CONTROLS);
    bench.write(VM_EXIT_CONTROLS, exit & !control.bits());
}

/// 28.5 "Loading Host State", field by field, for a 64-bit host: vmcs01 then runs L1 with it.
#[test]
fn host_state_is_loaded() {
    let mut bench = with(|l1| {
        l1.write(HOST_CR0, 0x8005_0033);
        l1.write(HOST_CR3, 0x3_1000);
        l1.write(HOST_CR4, 0x26a0);
        l1.write(HOST_IA32_SYSENTER_CS, 0x1234_5678);
        l1.write(HOST_IA32_SYSENTER_ESP, 0xffff_8000_0000_0123);
        l1.write(HOST_IA32_SYSENTER_EIP, 0xffff_8000_0000_0456);
        l1.write(HOST_IA32_EFER, 0xd01);
        l1.write(HOST_IA32_PAT, 0x0606_0606_0606_0606);
        l1.write(HOST_FS_BASE, 0xffff_8000_0000_6000);
        l1.write(HOST_GS_BASE, 0xffff_8000_0000_7000);
        l1.write(HOST_GS_SELECTOR, 0x20);
    });
    bench.exit(ExitReason::CPUID, |vmcs02| {
        vmcs02.write(GUEST_IA32_EFER, 0x500);
        vmcs02.write(GUEST_PENDING_DBG_EXCEPTIONS, 1);
    });
    let unusable = 1 << 16;
    let rows: [(Encoding, u64, &str); 42] = [
        // 28.5.1 "Loading Host Control Registers, Debug Registers, MSRs".
        (CR0_READ_SHADOW.encoding(), 0x8005_0033, "CR0 as L1 sees it"),
        (GUEST_CR0.encoding(), 0x8005_0033, "CR0: NE is L0's, and on"),
        (GUEST_CR3.encoding(), 0x3_1000, "CR3"),
        (CR4_READ_SHADOW.encoding(), 0x26a0, "CR4 as L1 sees it"),
        (GUEST_CR4.encoding(), 0x26e0, "CR4 with MCE, which is L0's"),
        (GUEST_DR7.encoding(), 0x400, "DR7"),
        (GUEST_IA32_DEBUGCTL.encoding(), 0, "IA32_DEBUGCTL"),
        (GUEST_SYSENTER_CS.encoding(), 0x1234_5678, "IA32_SYSENTER_CS"),
        (GUEST_SYSENTER_ESP.encoding(), 0xffff_8000_0000_0123, "IA32_SYSENTER_ESP"),
        (GUEST_SYSENTER_EIP.encoding(), 0xffff_8000_0000_0456, "IA32_SYSENTER_EIP"),
        (GUEST_IA32_EFER.encoding(), 0xd01, "IA32_EFER"),
        (GUEST_IA32_PAT.encoding(), 0x0606_0606_0606_0606, "IA32_PAT"),
        // 28.5.2 "Loading Host Segment and Descriptor-Table Registers".
        (GUEST_CS_SELECTOR.encoding(), 0x08, "CS"),
        (GUEST_CS_BASE.encoding(), 0, "CS base"),
        (GUEST_CS_LIMIT.encoding(), 0xffff_ffff, "CS limit"),
        (GUEST_CS_ACCESS_RIGHTS.encoding(), 0xa09b, "CS: code, accessed, DPL 0, present, L, G"),
        (GUEST_SS_SELECTOR.encoding(), 0x10, "SS"),
        (GUEST_SS_ACCESS_RIGHTS.encoding(), 0xc093, "SS: data, accessed, DPL 0, present, B, G"),
        (GUEST_DS_SELECTOR.encoding(), 0, "DS"),
        (GUEST_DS_ACCESS_RIGHTS.encoding(), 0xc093 | unusable, "DS is null, and unusable"),
        (GUEST_ES_ACCESS_RIGHTS.encoding(), 0xc093 | unusable, "ES likewise"),
        (GUEST_FS_ACCESS_RIGHTS.encoding(), 0xc093 | unusable, "FS likewise"),
        (GUEST_FS_BASE.encoding(), 0xffff_8000_0000_6000, "FS base, of a null selector too"),
        (GUEST_GS_SELECTOR.encoding(), 0x20, "GS"),
        (GUEST_GS_BASE.encoding(), 0xffff_8000_0000_7000, "GS base"),
        (GUEST_GS_ACCESS_RIGHTS.encoding(), 0xc093, "GS is usable"),
        (GUEST_TR_SELECTOR.encoding(), 0x18, "TR"),
        (GUEST_TR_BASE.encoding(), 0xffff_8000_0000_1000, "TR base"),
        (GUEST_TR_LIMIT.encoding(), 0x67, "TR limit"),
        (GUEST_TR_ACCESS_RIGHTS.encoding(), 0x8b, "TR: busy TSS, present"),
        (GUEST_LDTR_SELECTOR.encoding(), 0, "LDTR"),
        (GUEST_LDTR_ACCESS_RIGHTS.encoding(), unusable, "LDTR is unusable"),
        (GUEST_GDTR_BASE.encoding(), 0xffff_8000_0000_2000, "GDTR base"),
        (GUEST_GDTR_LIMIT.encoding(), 0xffff, "GDTR limit"),
        (GUEST_IDTR_BASE.encoding(), 0xffff_8000_0000_3000, "IDTR base"),
        (GUEST_IDTR_LIMIT.encoding(), 0xffff, "IDTR limit"),
        // 28.5.3 "Loading Host RIP, RSP, RFLAGS, and SSP".
        (GUEST_RIP.encoding(), 0xffff_8000_0000_5000, "RIP"),
        (GUEST_RSP.encoding(), 0xffff_8000_0000_4000, "RSP"),
        (GUEST_RFLAGS.encoding(), 2, "RFLAGS"),
        // 28.5.5 "Updating Non-Register State".
        (GUEST_INTERRUPTIBILITY_INFO.encoding(), 0, "no blocking"),
        (GUEST_PENDING_DBG_EXCEPTIONS.encoding(), 0, "no pending debug exceptions"),
        (VM_ENTRY_CONTROLS.encoding(), 0xd3ff, "vmcs01 enters a 64-bit guest"),
    ];
    for (encoding, expected, what) in rows {
        let value = vmcs01(&bench).read_raw(encoding);
        assert_eq!(value, expected, "{what}: {value:#x}, not {expected:#x}");
    }
}

/// What the exit controls do not load stays as L2 left it; IA32_EFER's LMA and LME follow "host address-space size".
#[test]
fn what_is_not_loaded_stays() {
    let mut bench = with(|l1| {
        without_exit_control(l1, ExitControls::LOAD_IA32_PAT.union(ExitControls::LOAD_IA32_EFER));
    });
    bench.exit(ExitReason::CPUID, |vmcs02| {
        vmcs02.write(GUEST_IA32_PAT, 0x0505);
        vmcs02.write(GUEST_IA32_EFER, 0x801);
        vmcs02.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
    });
    assert_eq!(vmcs01(&bench).read(GUEST_IA32_PAT), 0x0505);
    assert_eq!(vmcs01(&bench).read(GUEST_IA32_EFER), 0xd01, "NXE and SCE are L2's, LMA and LME the control's");
}

/// CR0.CD and CR0.NW survive the exit: L2's, if L2 owns them, else L1's own. VMREAD shows L2's CR0 with them.
#[test]
fn cache_control_survives() {
    const CD: u64 = 1 << 30;
    for (mask, l1, l2, after) in
        [(0, 0, CD, CD), (0, CD, 0, 0), (0, CD, CD, CD), (CD, CD, CD, CD), (CD, 0, CD, 0), (CD, CD, 0, CD)]
    {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        bench.write(CR0_GUEST_HOST_MASK, mask);
        bench.cpu.vmcs_of_mut(Which::Vmcs01).write(CR0_READ_SHADOW, 0x8001_0033 | l1);
        bench.launch();
        bench.exit(ExitReason::CPUID, |vmcs02| {
            let shadow = vmcs02.read(CR0_READ_SHADOW) & !CD;
            // With the mask L2's MOV would have been L1's to emulate.
            vmcs02.write(CR0_READ_SHADOW, shadow | if mask == 0 { l2 } else { 0 });
        });
        assert_eq!(vmcs01(&bench).read(CR0_READ_SHADOW) & CD, after, "mask {mask:#x}, L1 {l1:#x}, L2 {l2:#x}");
        assert_eq!(vmcs01(&bench).read(GUEST_CR0) & CD, 0, "the machine's caches stay on");
        assert_eq!(bench.read(GUEST_CR0) & CD, after);
    }
}

/// A 32-bit host: segments, modes, and with PAE paging the four page-directory-pointer-table entries, which vmcs01 has to
/// hold as it has EPT ("32-bit PAE PDPTEs not reloaded on nested exit: wrong translations"). Reserved bits are a VMX abort.
#[test]
fn host_with_32_bits() {
    for (third, aborts) in [(0x7001, false), (0x7003, true), (0x7002, false), (1 << 46 | 1, true)] {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        let own = bench.cpu.vmcs_of_mut(Which::Vmcs01);
        own.write(GUEST_IA32_EFER, 0);
        bench.write(
            VM_EXIT_CONTROLS,
            0x0003_6dfb | (ExitControls::LOAD_IA32_EFER | ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT).bits(),
        );
        let entry = bench.read(VM_ENTRY_CONTROLS);
        bench.write(VM_ENTRY_CONTROLS, entry & !EntryControls::IA32E_MODE_GUEST.bits());
        bench.write(GUEST_IA32_EFER, 0);
        bench.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
        for (field, value) in [
            (HOST_RIP, 0x5000),
            (HOST_RSP, 0x4000),
            (HOST_TR_BASE, 0x1000),
            (HOST_GDTR_BASE, 0x2000),
            (HOST_IDTR_BASE, 0x3000),
            (HOST_IA32_SYSENTER_ESP, 0),
            (HOST_CR3, 0x3_0fe0),
        ] {
            bench.write(field, value);
        }
        bench.write(HOST_IA32_EFER, 0);
        for (at, entry) in (0x3_0fe0..).step_by(8).zip([0x5001, 0x6001, third, 0]) {
            bench.ram.set(at, entry);
        }
        bench.launch();
        bench.run_l2(ExitReason::CPUID, |_| ());
        let done = bench.reflect();
        assert_eq!(done, if aborts { Err(Abort::HostPdptes) } else { Ok(()) }, "{third:#x}");
        if aborts {
            assert_eq!(bench.ram.get(NestedBench::VMCS) >> 32, 2, "VMX-abort indicator");
            continue;
        }
        let own = vmcs01(&bench);
        let pdptes = [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3].map(|field| own.read(field));
        assert_eq!(pdptes, [0x5001, 0x6001, third, 0]);
        assert_eq!(own.read(GUEST_CS_ACCESS_RIGHTS), 0xc09b);
        assert_eq!(own.read(VM_ENTRY_CONTROLS) & EntryControls::IA32E_MODE_GUEST.bits(), 0);
    }
}

/// L2's registers are saved: each field that vmcs02 holds at the exit is what L1 reads. Two are told by controls.
#[test]
fn guest_state_is_saved() {
    for saves in [false, true] {
        let mut bench = with(|l1| {
            let exit = l1.read(VM_EXIT_CONTROLS);
            let switched =
                ExitControls::SAVE_DEBUG_CONTROLS | ExitControls::SAVE_IA32_PAT | ExitControls::SAVE_IA32_EFER;
            l1.write(VM_EXIT_CONTROLS, if saves { exit | switched.bits() } else { exit & !switched.bits() });
        });
        let rows = [
            (GUEST_CR3.encoding(), 0x77_7000, true),
            (GUEST_RIP.encoding(), 0x1234, true),
            (GUEST_RSP.encoding(), 0x5678, true),
            (GUEST_RFLAGS.encoding(), 0x246, true),
            (GUEST_DR7.encoding(), 0x455, saves),
            (GUEST_IA32_DEBUGCTL.encoding(), 2, saves),
            (GUEST_IA32_PAT.encoding(), 0x0505, saves),
            (GUEST_IA32_EFER.encoding(), 0xd01, saves),
            (GUEST_SYSENTER_CS.encoding(), 0x88, true),
            (GUEST_SYSENTER_ESP.encoding(), 0x99, true),
            (GUEST_SYSENTER_EIP.encoding(), 0xaa, true),
            (GUEST_FS_BASE.encoding(), 0x7fff_0000, true),
            (GUEST_SS_SELECTOR.encoding(), 0x30, true),
            (GUEST_SS_ACCESS_RIGHTS.encoding(), 0xc0f3, true),
            (GUEST_GDTR_LIMIT.encoding(), 0x7f, true),
            (GUEST_PENDING_DBG_EXCEPTIONS.encoding(), 1, true),
            (GUEST_INTERRUPTIBILITY_INFO.encoding(), 8, true),
            (GUEST_PDPTE3.encoding(), 0x9001, true),
        ];
        let before = bench.vmcs(Which::Vmcs02).clone();
        bench.exit(ExitReason::CPUID, |vmcs02| {
            rows.iter().for_each(|&(field, value, _)| vmcs02.write_raw(field, value))
        });
        for (field, value, saved) in rows {
            let expected = if saved { value } else { before.read_raw(field) };
            assert_eq!(bench.read_raw(field), Ok(expected), "{field:?}, saved {saved}");
        }
    }
}

/// Bits of CR0 and CR4 that L1 or L0 owns: L1 reads its own where it is the owner, else what L2 believes.
#[test]
fn masked_bits_are_read_as_l1_left_them() {
    let mut bench = with(|l1| {
        l1.write(CR0_GUEST_HOST_MASK, 0x8);
        l1.write(CR0_READ_SHADOW, 0x8);
        l1.write(CR4_GUEST_HOST_MASK, 0x2000);
        l1.write(CR4_READ_SHADOW, 0);
    });
    bench.exit(ExitReason::CPUID, |vmcs02| {
        vmcs02.write(GUEST_CR0, vmcs02.read(GUEST_CR0) | 2);
        vmcs02.write(GUEST_CR4, vmcs02.read(GUEST_CR4) | 0x80);
    });
    assert_eq!(bench.read(GUEST_CR0), 0x8001_0033 | 2, "TS as L1 wrote it, not as L2 sees it");
    assert_eq!(bench.read(GUEST_CR4), 0x20a0, "VMXE is on, MCE is not L2's");
}

/// What the exit brings: the fields of the machine's exit, those that depend on another only if it says so.
#[test]
fn exit_information() {
    for shadowing in [false, true] {
        let mut bench = NestedBench::new(shadowing).with_valid_vmcs12();
        bench.launch();
        let gp = EventInfo::hardware_exception(arch::Vector::GP, true);
        bench.exit(ExitReason::EXCEPTION_OR_NMI, |vmcs02| {
            vmcs02.write(EXIT_QUALIFICATION, 0x11);
            vmcs02.write(GUEST_LINEAR_ADDRESS, 0x22);
            vmcs02.write(GUEST_PHYSICAL_ADDRESS, 0x33);
            vmcs02.write(VM_EXIT_INTERRUPTION_INFO, gp.0);
            vmcs02.write(VM_EXIT_INTERRUPTION_ERROR_CODE, 0x44);
            vmcs02.write(IDT_VECTORING_INFO, gp.0);
            vmcs02.write(IDT_VECTORING_ERROR_CODE, 0x55);
            vmcs02.write(VM_EXIT_INSTRUCTION_LEN, 6);
            vmcs02.write(VM_EXIT_INSTRUCTION_INFO, 0x77);
        });
        assert_eq!((bench.read(EXIT_REASON), bench.read(EXIT_QUALIFICATION)), (0, 0x11));
        assert_eq!((bench.read(GUEST_LINEAR_ADDRESS), bench.read(GUEST_PHYSICAL_ADDRESS)), (0x22, 0));
        assert_eq!((bench.read(VM_EXIT_INTERRUPTION_INFO), bench.read(VM_EXIT_INTERRUPTION_ERROR_CODE)), (gp.0, 0x44));
        assert_eq!((bench.read(IDT_VECTORING_INFO), bench.read(IDT_VECTORING_ERROR_CODE)), (gp.0, 0x55));
        assert_eq!((bench.read(VM_EXIT_INSTRUCTION_LEN), bench.read(VM_EXIT_INSTRUCTION_INFO)), (6, 0x77));
        bench.resume();
        bench.exit(ExitReason::EPT_VIOLATION, |vmcs02| vmcs02.write(GUEST_PHYSICAL_ADDRESS, 0x66_6000));
        assert_eq!((bench.read(EXIT_REASON), bench.read(GUEST_PHYSICAL_ADDRESS)), (48, 0x66_6000));
        assert_eq!((bench.read(VM_EXIT_INTERRUPTION_INFO), bench.read(IDT_VECTORING_INFO)), (0, 0), "not left over");
    }
}

/// "Exit qualification left over in a synthesized EPT misconfiguration: L1 misled." An exit of L0's making brings what it
/// says, and 0 where it says nothing, whatever the machine's last exit brought, and the last one that L1 saw.
#[test]
fn synthesized_exit_leaves_nothing_over() {
    let mut bench = running();
    bench.exit(ExitReason::CONTROL_REGISTER, |vmcs02| vmcs02.write(EXIT_QUALIFICATION, 0x10c));
    assert_eq!(bench.read(EXIT_QUALIFICATION), 0x10c);
    bench.enter(false);
    bench.run_l2(ExitReason::EPT_VIOLATION, |vmcs02| {
        vmcs02.write(EXIT_QUALIFICATION, 0x181);
        vmcs02.write(VM_EXIT_INTERRUPTION_INFO, EventInfo::external(0x31).0);
        vmcs02.write(GUEST_LINEAR_ADDRESS, 0x123);
    });
    let exit = Synthesized {
        reason: ExitReason::EPT_MISCONFIGURATION.0,
        guest_physical: Some(0x66_6000),
        vectoring: Some(Vectoring { info: EventInfo::software_interrupt(0x80), error_code: 0, instruction_length: 2 }),
        ..Synthesized::default()
    };
    assert_eq!(bench.synthesize(exit), Ok(()));
    assert_eq!((bench.read(EXIT_REASON), bench.read(EXIT_QUALIFICATION)), (49, 0));
    assert_eq!((bench.read(GUEST_PHYSICAL_ADDRESS), bench.read(VM_EXIT_INTERRUPTION_INFO)), (0x66_6000, 0));
    let vectoring = EventInfo::software_interrupt(0x80).0;
    assert_eq!((bench.read(IDT_VECTORING_INFO), bench.read(VM_EXIT_INSTRUCTION_LEN)), (vectoring, 2));
}

/// The valid bit of the injected event is cleared, "IA-32e mode guest" follows IA32_EFER.LMA (SDM 3C 28.2 "Recording VM-Exit
/// Information and Updating VM-Entry Control Fields").
#[test]
fn entry_controls_are_updated() {
    for shadowing in [false, true] {
        let mut bench = NestedBench::new(shadowing).with_valid_vmcs12();
        bench.write(VM_ENTRY_INTERRUPTION_INFO, EventInfo::external(0x31).0);
        bench.launch();
        assert_eq!(bench.vmcs(Which::Vmcs02).read(VM_ENTRY_INTERRUPTION_INFO), EventInfo::external(0x31).0);
        bench.exit(ExitReason::CPUID, |vmcs02| {
            vmcs02.write(GUEST_CR0, 0x33);
            vmcs02.write(GUEST_IA32_EFER, 0);
            vmcs02.write(GUEST_CS_ACCESS_RIGHTS, 0xc09b);
        });
        assert_eq!(bench.read(VM_ENTRY_INTERRUPTION_INFO), 0x31);
        assert_eq!(bench.read(VM_ENTRY_CONTROLS) & EntryControls::IA32E_MODE_GUEST.bits(), 0);
        bench.resume();
        assert!(!EventInfo(bench.vmcs(Which::Vmcs02).read(VM_ENTRY_INTERRUPTION_INFO)).is_valid());
    }
}

/// Blocking by NMI: an exit by an NMI blocks further ones in L1; without "virtual NMIs" L2's blocking is the processor's own,
/// and goes on in L1 (SDM 3C 28.5.5 "Updating Non-Register State").
#[test]
fn blocking_by_nmi() {
    for (virtual_nmis, blocked, is_nmi, after) in
        [(true, 8, false, 0), (true, 0, true, 8), (false, 8, false, 8), (false, 0, false, 0), (false, 0, true, 8)]
    {
        let mut bench = with(|l1| {
            let pin = l1.read(PIN_BASED_VM_EXEC_CONTROL) & !PinBased::VIRTUAL_NMIS.bits();
            l1.write(PIN_BASED_VM_EXEC_CONTROL, if virtual_nmis { pin | PinBased::VIRTUAL_NMIS.bits() } else { pin });
        });
        bench.run_l2(ExitReason::EXTERNAL_INTERRUPT, |vmcs02| vmcs02.write(GUEST_INTERRUPTIBILITY_INFO, blocked));
        let exit = if is_nmi {
            Synthesized { reason: 0, interruption: EventInfo::nmi(), ..Synthesized::default() }
        } else {
            Synthesized { reason: 1, ..Synthesized::default() }
        };
        assert_eq!(bench.synthesize(exit), Ok(()));
        assert_eq!(vmcs01(&bench).read(GUEST_INTERRUPTIBILITY_INFO), after, "{virtual_nmis} {blocked} {is_nmi}");
        assert_eq!(bench.read(GUEST_INTERRUPTIBILITY_INFO), blocked);
    }
}

/// The lists of an exit: what is stored, what is loaded, and the abort where one cannot be (28.4 "Saving MSRs", 28.6 "Loading
/// MSRs", 28.7 "VMX Aborts").
#[test]
fn lists_at_exit() {
    let lstar = u64::from(Msr::LSTAR.0);
    for (store, load, done) in [
        (&[(lstar, 0), (0x277, 0)][..], &[(lstar, 7), (0x277, 0x0404)][..], Ok(())),
        (&[(lstar, 0), (0x1234, 0)], &[], Err(Abort::SavingGuestMsrs)),
        (&[(0x808, 0)], &[], Err(Abort::SavingGuestMsrs)),
        (&[(1 << 32 | lstar, 0)], &[], Err(Abort::SavingGuestMsrs)),
        (&[], &[(lstar, 7), (0x1234, 0)], Err(Abort::LoadingHostMsrs)),
        (&[], &[(0xc000_0100, 0)], Err(Abort::LoadingHostMsrs)),
        (&[], &[(0x83f, 0)], Err(Abort::LoadingHostMsrs)),
    ] {
        let mut bench = NestedBench::new(false).with_valid_vmcs12();
        bench.msrs.values.insert(Msr::LSTAR.0, 5);
        for (list, entries) in [(0x6_0000, store), (0x6_1000, load)] {
            for (at, &(msr, value)) in (list..).step_by(16).zip(entries) {
                bench.ram.set(at, msr);
                bench.ram.set(at + 8, value);
            }
        }
        for (count, address, list, entries) in [
            (VM_EXIT_MSR_STORE_COUNT, VM_EXIT_MSR_STORE_ADDR, 0x6_0000, store),
            (VM_EXIT_MSR_LOAD_COUNT, VM_EXIT_MSR_LOAD_ADDR, 0x6_1000, load),
        ] {
            bench.write(count, u32::try_from(entries.len()).unwrap());
            bench.write(address, list);
        }
        bench.launch();
        bench.run_l2(ExitReason::CPUID, |vmcs02| vmcs02.write(GUEST_IA32_PAT, 0x0505));
        assert_eq!(bench.reflect(), done, "store {store:x?}, load {load:x?}");
        match done {
            Ok(()) => {
                assert_eq!((bench.ram.get(0x6_0008), bench.ram.get(0x6_0018)), (5, 0x0505), "L2's");
                assert_eq!(
                    (bench.msrs.values[&Msr::LSTAR.0], vmcs01(&bench).read(GUEST_IA32_PAT)),
                    (7, 0x0404),
                    "L1's"
                );
            }
            Err(abort) => assert_eq!(bench.ram.get(NestedBench::VMCS) >> 32, abort as u64, "abort indicator"),
        }
    }
}

/// The processor's refusal of vmcs02, if it has one that the checks do not know: L1 gets what the processor said, nothing of
/// L2 is saved, and the next entry begins anew.
#[test]
fn refused_entry() {
    let mut bench = running();
    bench.exit(ExitReason::CPUID, |vmcs02| vmcs02.write(GUEST_CR3, 0x77_7000));
    bench.resume();
    let vmcs02 = bench.cpu.vmcs_of_mut(Which::Vmcs02);
    vmcs02.write(EXIT_REASON, 0x8000_0021);
    vmcs02.write(EXIT_QUALIFICATION, 3);
    assert_eq!(bench.nested.exit_from_refused_entry(&mut bench.cpu, &bench.ram, &mut bench.msrs), Ok(()));
    assert_eq!((bench.read(EXIT_REASON), bench.read(EXIT_QUALIFICATION)), (0x8000_0021, 3));
    assert_eq!(bench.read(GUEST_CR3), 0x77_7000);
    bench.resume();
}

/// L1's TSC jumps while L2 runs: L2's moves with it at once, L1's own is right when it runs again. Offset and multiplier of
/// vmcs12 come on top (SDM 3C 26.3 "Changes to Instruction Behavior in VMX Non-Root Operation", RDTSC).
#[test]
fn tsc() {
    let minus = |ticks: u64| 0u64.wrapping_sub(ticks);
    for (offsets, multiplier, own, offset02, multiplier02) in [
        (false, 1 << 47, 1000, minus(500), 1 << 48),
        (true, 0, 1000, 500, 1 << 48),
        (true, 1 << 47, 1000, 750, 1 << 47),
        (true, 3 << 47, minus(10), minus(760), 3 << 47),
    ] {
        let mut bench = with(|l1| {
            let primary = l1.read(CPU_BASED_VM_EXEC_CONTROL);
            let offsetting = if offsets { PrimaryBased::USE_TSC_OFFSETTING.bits() } else { 0 };
            l1.write(CPU_BASED_VM_EXEC_CONTROL, primary | offsetting);
            l1.write(TSC_OFFSET, own);
            if multiplier != 0 {
                let secondary = l1.read(SECONDARY_VM_EXEC_CONTROL);
                l1.write(SECONDARY_VM_EXEC_CONTROL, secondary | SecondaryBased::USE_TSC_SCALING.bits());
                l1.write(TSC_MULTIPLIER, multiplier);
            }
        });
        let vmcs02 = bench.vmcs(Which::Vmcs02);
        assert_eq!((vmcs02.read(TSC_OFFSET), vmcs02.read(TSC_MULTIPLIER)), (offset02, multiplier02));
        bench.nested.move_tsc(&mut bench.cpu, 0);
        assert_eq!(vmcs01(&bench).read(TSC_OFFSET), minus(500), "vmcs01 is not current");
        let moved = bench.vmcs(Which::Vmcs02).read(TSC_OFFSET);
        assert_eq!(moved, if offsets { own } else { 0 });
        bench.exit(ExitReason::CPUID, |_| ());
        assert_eq!(vmcs01(&bench).read(TSC_OFFSET), 0);
    }
}
