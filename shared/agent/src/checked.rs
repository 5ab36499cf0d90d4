//! Text that is checked when it is read, so that nothing else reaches a command line, a file name or a configuration.

/// A type of such text, cheap to copy: `checked! { /// What it is. Name }`. What its `FromStr`, which who calls this writes, refuses is
/// refused wherever it is read from, with the same words.
#[macro_export]
macro_rules! checked {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, $crate::Serialize, $crate::Deserialize,
        )]
        #[serde(try_from = "String", crate = "shoal_agent::serde")]
        pub struct $type(::std::sync::Arc<str>);

        impl $type {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}
