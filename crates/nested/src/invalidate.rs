//! INVEPT and INVVPID by L1.
//!
//! SDM 3C 31.3 "INVEPT—Invalidate Translations Derived from EPT" and "INVVPID—Invalidate Translations Based on VPID". vmcs02
//! has one tag for all VPIDs of L1, which stands for the last one that L1 used; what others had cached went when the tag
//! changed hands.

use arch::Linear;
use vmcs::{EptVpid, InstructionError};

use crate::outcome::Outcome;
use crate::seam::Processor;
use crate::state::Nested;

impl Nested {
    /// INVVPID with the type in its register and the 16 bytes of its descriptor.
    pub fn invvpid<P: Processor>(&mut self, cpu: &mut P, kind: u64, descriptor: [u64; 2]) -> Outcome {
        let [first, linear] = descriptor;
        let supported = match kind {
            0 => EptVpid::INVVPID_INDIVIDUAL_ADDRESS,
            1 => EptVpid::INVVPID_SINGLE_CONTEXT,
            2 => EptVpid::INVVPID_ALL_CONTEXT,
            3 => EptVpid::INVVPID_SINGLE_CONTEXT_RETAINING_GLOBALS,
            _ => return self.fail(InstructionError::INVALID_INVEPT_INVVPID_OPERAND),
        };
        let (vpid, is_reserved_clear) = (first & 0xffff, first >> 16 == 0);
        let needs_vpid = kind != 2;
        let valid = self.capabilities.ept_vpid.contains(supported)
            && is_reserved_clear
            && (!needs_vpid || vpid != 0)
            && (kind != 0 || Linear(linear).is_canonical());
        if !valid {
            return self.fail(InstructionError::INVALID_INVEPT_INVVPID_OPERAND);
        }
        let is_tagged = vpid == u64::from(self.last_vpid);
        match kind {
            0 if is_tagged => cpu.flush_l2_address(linear),
            1 | 3 if is_tagged => cpu.flush_l2(),
            2 => cpu.flush_l2(),
            _ => {}
        }
        Outcome::Succeed
    }
}
