//! What belongs into vmcs01 and came up while L2 ran: written when vmcs01 is current again.

use vmcs::Access;
use vmcs::fields::TSC_OFFSET;

use crate::current::Vmcs01;

/// One slot for each kind of change; a later one takes the place of an earlier one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deferred {
    /// L1's TSC less the machine's.
    pub(crate) tsc_offset: Option<u64>,
}

impl Deferred {
    /// Writes what waits.
    #[inline(always)]
    pub(crate) fn drain(&mut self, vmcs01: &mut Vmcs01<'_, impl Access>) {
        if let Some(offset) = self.tsc_offset.take() {
            vmcs01.write(TSC_OFFSET, offset);
        }
    }
}
