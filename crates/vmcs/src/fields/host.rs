//! SDM 3C 25.5 "Host-State Area".

use crate::controls::ExitControls as Exit;
use crate::field::Needs;

fields! { Host, HOST;
    HOST_CR0: Natural = 0x6c00, "CR0.";
    HOST_CR3: Natural = 0x6c02, "CR3.";
    HOST_CR4: Natural = 0x6c04, "CR4.";
    HOST_RSP: Natural = 0x6c14, "RSP.";
    HOST_RIP: Natural = 0x6c16, "RIP: where a VM exit continues.";
    HOST_ES_SELECTOR: W16 = 0x0c00, "ES: selector.";
    HOST_CS_SELECTOR: W16 = 0x0c02, "CS: selector.";
    HOST_SS_SELECTOR: W16 = 0x0c04, "SS: selector.";
    HOST_DS_SELECTOR: W16 = 0x0c06, "DS: selector.";
    HOST_FS_SELECTOR: W16 = 0x0c08, "FS: selector.";
    HOST_GS_SELECTOR: W16 = 0x0c0a, "GS: selector.";
    HOST_TR_SELECTOR: W16 = 0x0c0c, "TR: selector.";
    HOST_FS_BASE: Natural = 0x6c06, "FS: base address.";
    HOST_GS_BASE: Natural = 0x6c08, "GS: base address.";
    HOST_TR_BASE: Natural = 0x6c0a, "TR: base address.";
    HOST_GDTR_BASE: Natural = 0x6c0c, "GDTR: base address.";
    HOST_IDTR_BASE: Natural = 0x6c0e, "IDTR: base address.";
    HOST_IA32_SYSENTER_CS: W32 = 0x4c00, "IA32_SYSENTER_CS.";
    HOST_IA32_SYSENTER_ESP: Natural = 0x6c10, "IA32_SYSENTER_ESP.";
    HOST_IA32_SYSENTER_EIP: Natural = 0x6c12, "IA32_SYSENTER_EIP.";
    HOST_IA32_PAT: W64 = 0x2c00, "IA32_PAT." if [Needs::Exit(Exit::LOAD_IA32_PAT)];
    HOST_IA32_EFER: W64 = 0x2c02, "IA32_EFER." if [Needs::Exit(Exit::LOAD_IA32_EFER)];
    HOST_IA32_PERF_GLOBAL_CTRL: W64 = 0x2c04, "IA32_PERF_GLOBAL_CTRL." if [Needs::Exit(Exit::LOAD_IA32_PERF_GLOBAL_CTRL)];
    HOST_IA32_PKRS: W64 = 0x2c06, "IA32_PKRS." if [Needs::Exit(Exit::LOAD_PKRS)];
    HOST_S_CET: Natural = 0x6c18, "IA32_S_CET." if [Needs::Exit(Exit::LOAD_CET_STATE)];
    HOST_SSP: Natural = 0x6c1a, "SSP, the shadow-stack pointer." if [Needs::Exit(Exit::LOAD_CET_STATE)];
    HOST_INTR_SSP_TABLE: Natural = 0x6c1c, "IA32_INTERRUPT_SSP_TABLE_ADDR." if [Needs::Exit(Exit::LOAD_CET_STATE)];
}
