//! Why a VMX instruction failed.

macro_rules! errors {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// A VM-instruction error number (SDM 3C 31.4 "VM Instruction Error Numbers"), as VMfailValid leaves it in
        /// `VM_INSTRUCTION_ERROR`. `Display` gives the manual's explanation in our words.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[repr(transparent)]
        pub struct InstructionError(pub u32);

        impl InstructionError {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// Every error that the manual defines.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What went wrong.
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "an error number that the manual does not define",
                }
            }
        }
    };
}

errors! {
    VMCALL_IN_VMX_ROOT = 1, "VMCALL was executed in VMX root operation";
    VMCLEAR_INVALID_ADDRESS = 2, "VMCLEAR was given an invalid physical address";
    VMCLEAR_VMXON_POINTER = 3, "VMCLEAR was given the VMXON pointer";
    VMLAUNCH_NOT_CLEAR = 4, "VMLAUNCH was executed with a VMCS that is not clear";
    VMRESUME_NOT_LAUNCHED = 5, "VMRESUME was executed with a VMCS that is not launched";
    VMRESUME_AFTER_VMXOFF = 6, "VMRESUME was executed after VMXOFF and VMXON without a VMLAUNCH between";
    INVALID_CONTROL_FIELDS = 7, "VM entry found invalid control fields";
    INVALID_HOST_STATE = 8, "VM entry found invalid host-state fields";
    VMPTRLD_INVALID_ADDRESS = 9, "VMPTRLD was given an invalid physical address";
    VMPTRLD_VMXON_POINTER = 10, "VMPTRLD was given the VMXON pointer";
    VMPTRLD_WRONG_REVISION = 11, "VMPTRLD was given a region with the wrong VMCS revision identifier";
    UNSUPPORTED_FIELD = 12, "VMREAD or VMWRITE named a VMCS component that does not exist";
    READ_ONLY_FIELD = 13, "VMWRITE named a read-only VMCS component";
    VMXON_IN_VMX_ROOT = 15, "VMXON was executed in VMX root operation";
    INVALID_EXECUTIVE_VMCS = 16, "VM entry found an invalid executive-VMCS pointer";
    EXECUTIVE_VMCS_NOT_LAUNCHED = 17, "VM entry found an executive VMCS that is not launched";
    EXECUTIVE_VMCS_NOT_VMXON = 18, "VM entry found an executive-VMCS pointer that is not the VMXON pointer";
    VMCALL_NOT_CLEAR = 19, "VMCALL found a VMCS that is not clear when activating the dual-monitor treatment";
    VMCALL_INVALID_EXIT_CONTROLS = 20, "VMCALL found invalid VM-exit control fields";
    VMCALL_WRONG_MSEG_REVISION = 22, "VMCALL found the wrong MSEG revision identifier";
    VMXOFF_DUAL_MONITOR = 23, "VMXOFF was executed under the dual-monitor treatment of SMIs and SMM";
    VMCALL_INVALID_SMM_FEATURES = 24, "VMCALL found invalid SMM-monitor features";
    INVALID_EXECUTION_CONTROLS_IN_EXECUTIVE_VMCS = 25, "VM entry found invalid VM-execution control fields in the executive VMCS";
    BLOCKED_BY_MOV_SS = 26, "VM entry was executed while MOV SS blocked events";
    INVALID_INVEPT_INVVPID_OPERAND = 28, "INVEPT or INVVPID was given an invalid operand";
}

impl core::fmt::Debug for InstructionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "VM-instruction error {} ({})", self.0, self.text())
    }
}

impl core::fmt::Display for InstructionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} (VM-instruction error {})", self.text(), self.0)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for InstructionError {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=str} (VM-instruction error {=u32})", self.text(), self.0);
    }
}
