//! Names and paths that were checked: of what people wrote, nothing else reaches a command line or a file name.

use std::str::FromStr;

use shoal_agent::checked;

/// The longest name, path or word.
const MAX: usize = 1_000;

checked! {
    /// The name of a policy, a repository or a dump: letters, digits, `.`, `_` and `-`, beginning with a letter or a digit. Fit for a file name.
    Label
}

checked! {
    /// What a dump is asked for, the name of a database: one word of letters, digits, `.`, `_`, `-`, `+` and `@`, not beginning with `-` or `.`.
    Word
}

checked! {
    /// An absolute path without `.`, `..`, or what restic or a line of text would read otherwise.
    AbsPath
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if first && text.len() <= 64 && text.chars().all(good) {
            return Ok(Self(text.into()));
        }
        Err(format!("{text:?} is no name: letters, digits, . _ - and at most 64 of them"))
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '@');
        if !text.is_empty() && !text.starts_with(['-', '.']) && text.len() <= 128 && text.chars().all(good) {
            return Ok(Self(text.into()));
        }
        Err(format!("{text:?} is no word that a dump may be asked for: letters, digits, . _ - + @"))
    }
}

impl FromStr for AbsPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || text.split('/').skip(1);
        let plain = text == "/" || parts().all(|part| !part.is_empty() && part != "." && part != "..");
        if text.starts_with('/') && plain && text.len() <= MAX && !text.chars().any(char::is_control) {
            return Ok(Self(text.into()));
        }
        Err(format!("{text:?} is no path to back up: it begins with / and has no . or .. or empty part"))
    }
}

impl AbsPath {
    /// Whether it is `folder` or something in it. In a folder that is empty text, nothing is.
    #[must_use]
    pub fn is_in(&self, folder: &str) -> bool {
        folder == "/"
            || !folder.is_empty()
                && self.0.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_checked() {
        for good in ["/", "/etc", "/var/lib/my sql"] {
            assert!(good.parse::<AbsPath>().is_ok(), "{good}");
        }
        for bad in ["", "etc", "/etc/", "/etc/../shadow", "//x", "/a\nb", "-x"] {
            assert!(bad.parse::<AbsPath>().is_err(), "{bad:?}");
        }
        for bad in ["", ".x", "a/b", "a b", "@x", "--x", "ä"] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
        for bad in ["", "-h", "a b", "$(x)", "a;b", "../x"] {
            assert!(bad.parse::<Word>().is_err(), "{bad:?}");
        }
        let path: AbsPath = "/srv/data".parse().unwrap();
        assert!(path.is_in("/srv") && path.is_in("/") && path.is_in("/srv/data"));
        assert!(!path.is_in("/srv/da") && !path.is_in("/etc") && !path.is_in(""));
    }
}
