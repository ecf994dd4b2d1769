//! The field table: every field of SDM 3D appendix B "Field Encoding in VMCS", typed once.
//!
//! Each row makes a typed constant (`GUEST_RIP: Field<Natural>`) and a row of [`FIELDS`]. The names are those that
//! hypervisors use; the files are the manual's groups.

use crate::field::FieldInfo;

/// One group's rows: `NAME: width = encoding, "what it is";`, and after `if` what the processor must have for the field
/// to exist (any one of the list).
macro_rules! fields {
    ($group:ident, $rows:ident; $($name:ident: $width:ident = $encoding:literal, $doc:literal $(if [$($needs:expr),+])?;)*) => {
        $(
            #[doc = $doc]
            pub const $name: crate::field::Field<crate::field::$width> = crate::field::Field::new($encoding);
        )*

        pub(super) const $rows: &[crate::field::FieldInfo] = &[
            $(crate::field::FieldInfo {
                name: stringify!($name),
                encoding: $name.encoding(),
                group: crate::field::Group::$group,
                needs: &[$($($needs),+)?],
            },)*
        ];
    };
}

mod entry;
mod execution;
mod exit;
mod exit_information;
mod guest;
mod host;

pub use entry::*;
pub use execution::*;
pub use exit::*;
pub use exit_information::*;
pub use guest::*;
pub use host::*;

const GROUPS: [&[FieldInfo]; 6] = [EXIT_INFORMATION, GUEST, HOST, EXECUTION, EXIT, ENTRY];

const COUNT: usize = {
    let mut count = 0;
    let mut group = 0;
    while group < GROUPS.len() {
        count += GROUPS[group].len();
        group += 1;
    }
    count
};

/// All fields, by groups.
pub static FIELDS: &[FieldInfo] = &{
    let mut all = [GROUPS[0][0]; COUNT];
    let mut at = 0;
    let mut group = 0;
    while group < GROUPS.len() {
        let mut row = 0;
        while row < GROUPS[group].len() {
            all[at] = GROUPS[group][row];
            at += 1;
            row += 1;
        }
        group += 1;
    }
    all
};
