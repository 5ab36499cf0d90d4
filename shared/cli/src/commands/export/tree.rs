//! Where in a git tree a row's document stands.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use shoal_core::{Key, Kind};

/// The longest name of a file, as file systems have it.
const MOST: usize = 255;
/// What every file ends with.
const END: &str = ".yaml";

/// The path of the document that the row is a part of: `hosts/web1.example.com.yaml`, `dns/example.com.yaml`.
pub(super) fn path(key: &Key) -> String {
    let whole = match key.kind() {
        Kind::Member(tag, _) => tag.as_str().to_owned(),
        _ => key.to_string(),
    };
    let mut parts: Vec<String> = whole.split('/').map(plain).collect();
    if let Some(last) = parts.last_mut() {
        *last = cut(last, &whole) + END;
    }
    parts.join("/")
}

/// The name with everything escaped that means something else to git, to file systems or in a stream.
fn plain(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, c) in name.char_indices() {
        let fits =
            c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '=' | ',' | '@') || c == '.' && at > 0;
        if fits {
            text.push(c);
        } else {
            let mut octets = [0; 4];
            for octet in c.encode_utf8(&mut octets).bytes() {
                let _ = write!(text, "%{octet:02X}");
            }
        }
    }
    text
}

/// A name that file systems take; what is cut is told apart by a digest of the whole.
fn cut(name: &str, whole: &str) -> String {
    if name.len() + END.len() <= MOST {
        return name.to_owned();
    }
    let digest: String =
        Sha256::digest(whole.as_bytes()).iter().take(8).map(|octet| format!("{octet:02x}")).collect();
    format!("{}~{digest}", name.get(..200).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_one_place_that_git_and_file_systems_take() {
        let of = |key: &str| path(&key.parse().unwrap());
        assert_eq!(of("hosts/web1.example.com"), "hosts/web1.example.com.yaml");
        assert_eq!(of("dns/example.com"), "dns/example.com.yaml");
        assert_eq!(of("dns/example.com/members/web1"), "dns/example.com.yaml");
        assert_eq!(of("facts/vm/dns/a"), "facts/vm/dns/a.yaml");
        assert_eq!(of("lb/.git"), "lb/%2Egit.yaml");
        assert_eq!(of("lb/a\"b:é"), "lb/a%22b%3A%C3%A9.yaml");
        let long = |end: &str| of(&format!("lb/{}{end}", "x".repeat(252)));
        assert!(long("a").len() <= "lb/".len() + MOST);
        assert_ne!(long("a"), long("b"));
    }
}
