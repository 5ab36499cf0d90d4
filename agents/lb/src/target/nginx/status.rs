//! The file by which nginx says with which pools it runs.
//!
//! It names each pool with what its file was when it was last read, and answers with a name of all that. So an answer that is the
//! name of what stands here vouches for each line of it; any other vouches for nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use super::render::{Block, digest};

/// What the file is called, without its ending: no pool can be called so.
pub(super) const NAME: &str = "+status";
const POOL: &str = "# shoal pool ";
const ANSWER: &str = "    return ";

/// The text of the file; each pool with the digest of its file.
pub(super) fn text(block: Block, at: SocketAddr, pools: &BTreeMap<String, String>) -> String {
    let mut text =
        "# Shoal keeps this file: by what nginx answers there it is seen which pools it runs with.\n"
            .to_owned();
    for (name, digest) in pools {
        // Writing into a text cannot fail.
        let _ = writeln!(text, "{POOL}{name} {digest}");
    }
    let listen = format!("{at}{}", if block == Block::Http { " default_server" } else { "" });
    let _ = writeln!(text, "server {{\n    listen {listen};");
    if block == Block::Http {
        text.push_str("    access_log off;\n");
    }
    let (code, name) = (if block == Block::Http { "200 " } else { "" }, digest(&text));
    let _ = writeln!(text, "{ANSWER}{code}\"{name}\";\n}}");
    text
}

/// What nginx answers when it runs with this text.
pub(super) fn name(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix(ANSWER))?.split('"').nth(1)
}

/// The digest of a pool's file in this text.
pub(super) fn of<'t>(text: &'t str, pool: &str) -> Option<&'t str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(POOL)?.split_once(' '));
    lines.filter(|(name, _)| *name == pool).map(|(_, digest)| digest).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_pool_is_another_answer() {
        let at = "127.0.0.1:9107".parse().unwrap();
        let mut pools = BTreeMap::from([("web".to_owned(), "a1".to_owned())]);
        let one = text(Block::Http, at, &pools);
        assert_eq!((of(&one, "web"), of(&one, "we")), (Some("a1"), None));
        pools.insert("dns".to_owned(), "b2".to_owned());
        let two = text(Block::Stream, at, &pools);
        assert!(name(&one).is_some() && name(&two).is_some() && name(&one) != name(&two));
        assert_eq!(name("# nothing"), None);
    }
}
