//! Names that stand in documents and mean something in a node's own configuration: images, networks, disks, providers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most octets of one.
pub const MAX_WORD: usize = 63;

/// A name of 1 to 63 lower case letters, digits, `-`, `_` and `.`, that begins with a letter or a digit: `debian-12`. It is no path, no
/// option and no list, wherever it is put.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word(String);

/// Text that is no [`Word`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name here: it is 1 to 63 lower case letters, digits, '-', '_' and '.', and begins with a letter or a digit"
)]
pub struct BadWord(String);

impl Word {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Word {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = text.len() <= MAX_WORD
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || matches!(b, b'-' | b'_' | b'.'));
        if fits { Ok(Self(text.to_owned())) } else { Err(BadWord(text.to_owned())) }
    }
}

impl TryFrom<String> for Word {
    type Error = BadWord;

    fn try_from(text: String) -> Result<Self, BadWord> {
        text.parse()
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_path_or_an_option_is_no_name() {
        for good in ["debian-12", "a", "0", "ubuntu_24.04"] {
            assert_eq!(good.parse::<Word>().unwrap().to_string(), good);
        }
        let long = "a".repeat(64);
        for bad in ["", ".", "..", "../x", "a/b", "-x", "_x", "A", "a b", "a:b", "a,b", "ä", "a\n", &long] {
            bad.parse::<Word>().unwrap_err();
        }
    }
}
