//! How a group of rules is written: each once, with its condition.

/// `rules! { prefix, section, title, outcome, |state| NAME [fields] "what must hold" => condition; ... }` makes a static
/// [`Rule`](super::Rule) for each, a [`Group`](super::Group) `RULES` of them and a function `check` that finds the broken
/// ones. An outcome after `@` replaces the group's.
macro_rules! rules {
    ($prefix:literal, $section:literal, $title:literal, $outcome:ident, |$state:ident|
        $($name:ident [$($field:ident),*] $(@ $other:ident)? $statement:expr => $holds:expr;)*) => {
        static SECTION: $crate::checks::Section = $crate::checks::Section { number: $section, title: $title };

        $(
            static $name: $crate::checks::Rule = $crate::checks::Rule {
                section: &SECTION,
                statement: $statement,
                fields: &[$($crate::fields::$field.encoding()),*],
                outcome: rules!(@outcome $outcome $($other)?),
            };
        )*

        /// The group's rules, in the manual's order.
        pub(in $crate::checks) static RULES: $crate::checks::Group =
            &[$((&$name, concat!($prefix, stringify!($name)))),*];

        /// Hands the group's broken rules to `broken` until it says to stop.
        #[cold]
        pub(in $crate::checks) fn check(
            $state: &$crate::checks::state::State<'_>,
            broken: $crate::checks::Broken<'_>,
        ) -> core::ops::ControlFlow<()> {
            $(if !($holds) { broken(&$name)?; })*
            core::ops::ControlFlow::Continue(())
        }
    };
    (@outcome $group:ident $own:ident) => { &$crate::checks::Outcome::$own };
    (@outcome $group:ident) => { &$crate::checks::Outcome::$group };
}
