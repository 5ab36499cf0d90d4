//! Names and words that are safe wherever a monitoring server puts them.
//!
//! Nagios and Icinga put arguments, names and custom variables into command lines that a shell reads, and their own
//! configuration has characters with a meaning (`!`, `;`, `$`, a newline). So all that comes from the database is one word of
//! characters that mean nothing to any of them, and never begins with `-`, which a plugin would take for an option.
//! What cannot be said so stands in the server's own library of commands.

use shoal_agent::checked;
use shoal_agent::secrets::SecretRef;

/// The label that says why nobody is told of a host, and its values.
pub(crate) const STATE: &str = "state";
/// The host drains.
pub(crate) const DRAINING: &str = "draining";
/// A person holds it as it is.
pub(crate) const PAUSED: &str = "paused";

/// The label of a target that names the secret that it is asked for with. Prometheus drops it once it has chosen how to ask.
pub(crate) const AUTHORIZATION: &str = "__meta_shoal_authorization";

/// The longest name.
const MAX_NAME: usize = 100;
/// The longest word.
const MAX_WORD: usize = 1_000;

checked! {
    /// The name of a check, a command, a group, a contact, a period: letters, digits, `.`, `_` and `-`, beginning with one of the first two.
    Name
}

checked! {
    /// An argument of a check or the value of a label: one word, see the module.
    Word
}

checked! {
    /// The name of a label: small letters (Nagios makes them all large), digits and `_`, not beginning with a digit or with two `_`.
    Label
}

impl Label {
    /// `state`.
    pub(crate) fn state() -> Self {
        Self(STATE.into())
    }
}

impl Word {
    /// The secret of the node that this names, if it is a reference and no text.
    pub(crate) fn secret(&self) -> Option<SecretRef> {
        if self.is_reference() { self.0.parse().ok() } else { None }
    }

    /// Whether it is written as a reference to a secret.
    pub(crate) fn is_reference(&self) -> bool {
        self.0.starts_with("secret:")
    }

    /// `draining`.
    pub(crate) fn draining() -> Self {
        Self(DRAINING.into())
    }

    /// `paused`.
    pub(crate) fn paused() -> Self {
        Self(PAUSED.into())
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && text.len() <= MAX_NAME && text.chars().all(fits) {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "{text:?} is no name: that is up to {MAX_NAME} letters, digits, '.', '_' and '-', beginning with a letter or a digit"
        ))
    }
}

impl std::str::FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_WORD {
            return Err(format!("{text:?} has to have between 1 and {MAX_WORD} characters"));
        }
        if text.starts_with('-') {
            return Err(format!(
                "{text:?} begins with '-', which a plugin takes for an option; options stand in the server's own command"
            ));
        }
        match text.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-,:/@%+=".contains(*c)) {
            None => Ok(Self(text.into())),
            Some(c) => Err(format!(
                "{text:?} has {c:?}, and only letters, digits and . _ - , : / @ % + = are safe in a command line; what needs \
                 more stands in the server's own command"
            )),
        }
    }
}

impl std::str::FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins =
            text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && !text.starts_with("__");
        if begins && text.len() <= MAX_NAME && text.chars().all(fits) {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "{text:?} is no label: that is up to {MAX_NAME} small letters, digits and '_', beginning with neither a digit nor \"__\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_means_something_gets_through() {
        let shell = [
            "a b", "a;b", "$(id)", "`id`", "a|b", "a&b", "a>b", "a<b", "a\nb", "a\\b", "'a'", "\"a\"", "a*",
            "a?", "~a",
        ];
        let nagios =
            ["a!b", "$USER5$", "a#b", "{a}", "[a]", "(a)", "a^b", "-C", "--help", "", "a\tb", "ä", "a\u{0}"];
        for text in shell.into_iter().chain(nagios) {
            assert!(text.parse::<Word>().is_err(), "{text:?}");
            assert!(text.parse::<Name>().is_err(), "{text:?}");
            assert!(text.parse::<Label>().is_err(), "{text:?}");
        }
        for text in ["250", "100.5,20%", "@10:20", "/health?", "__address__"] {
            assert!(text.parse::<Label>().is_err(), "{text:?}");
        }
        for text in ["250", "100.5,20%", "@10:20", "http://web1/health", "a=b", "x-y", "10-20"] {
            text.parse::<Word>().unwrap();
        }
        for text in ["http", "check_http", "check-host-alive", "9p", "a.b"] {
            text.parse::<Name>().unwrap();
        }
        // What is read back from a file passes the same check.
        assert!(serde_json::from_str::<Word>("\"a;b\"").is_err());
        assert_eq!(serde_json::to_string(&"a:b".parse::<Word>().unwrap()).unwrap(), "\"a:b\"");
    }
}
