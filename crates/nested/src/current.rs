//! vmcs01 and vmcs02 as different types.
//!
//! Who holds one of these has it as the processor's current VMCS. They are made in this crate only, where the right one
//! was just made current, so that what belongs to L1 cannot be written into the VMCS that runs L2, nor the other way.

use vmcs::field::{Field, Width};
use vmcs::{Access, Encoding};

macro_rules! current {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'a, V>(&'a mut V);

        impl<'a, V: Access> $name<'a, V> {
            /// The current VMCS, which the caller knows to be this one.
            #[inline(always)]
            pub(crate) const fn assume(vmcs: &'a mut V) -> Self {
                Self(vmcs)
            }
        }

        impl<V: Access> Access for $name<'_, V> {
            #[inline(always)]
            fn read<W: Width>(&self, field: Field<W>) -> W::Value {
                self.0.read(field)
            }

            #[inline(always)]
            fn write<W: Width>(&mut self, field: Field<W>, value: W::Value) {
                self.0.write(field, value);
            }

            #[inline(always)]
            fn read_raw(&self, encoding: Encoding) -> u64 {
                self.0.read_raw(encoding)
            }

            #[inline(always)]
            fn write_raw(&mut self, encoding: Encoding, value: u64) {
                self.0.write_raw(encoding, value);
            }
        }
    };
}

current!(
    /// vmcs01, with which L0 runs L1, while it is current.
    Vmcs01
);
current!(
    /// vmcs02, with which L0 runs L2, while it is current.
    Vmcs02
);
