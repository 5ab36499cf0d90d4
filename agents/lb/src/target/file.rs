//! The file of a pool: one for each, which Shoal owns whole.
//!
//! Beside every server, in a comment, stands what its line was made from, and so does what the rest was made from. So a look knows what was
//! made without reading the load balancer's language, and an edit is what differs from making it once more. A server's line that Shoal
//! did not make stays as it is until somebody wants that server; the rest of the file is made anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use shoal_agent::HostName;

use crate::item::{Pool, Server};

/// What begins the file.
const MARK: &str =
    "# Shoal keeps this file, and makes it anew: an edit is undone. It is made from the tag lb/";
/// What comes before the JSON of a pool.
const POOL: &str = "# shoal pool ";
/// What comes before the JSON of a server, on its line.
const SERVER: &str = " # shoal ";

/// How a load balancer is told of a pool.
pub(super) trait Dialect {
    /// What stands before the servers, whole lines.
    fn head(&self, name: &str, pool: &Pool) -> String;
    /// The line of a server, without its end.
    fn server(&self, pool: &Pool, kept: &Kept) -> String;
    /// What stands after the servers, whole lines. `empty`: there are none, but for backups.
    fn tail(&self, name: &str, pool: &Pool, empty: bool) -> String;
    /// Names a text, where the load balancer is asked for it.
    fn digest(&self, _: &str) -> Option<String> {
        None
    }
    /// What the line of a server begins with.
    const LINE: &'static str;
}

/// What a server's line is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// Whose line it is: not every load balancer gives its servers names.
    pub(super) host: HostName,
    pub(super) server: Server,
    /// It gets no new work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) draining: bool,
}

/// A server's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Made from this.
    Made(Kept),
    /// Somebody wrote it or changed it.
    Odd(String),
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// What the pool was made from.
    pub(super) pool: Pool,
    /// Whether all but the lines of servers is as it was made.
    pub(super) whole: bool,
    /// The servers.
    pub(super) servers: BTreeMap<HostName, Line>,
}

/// The text of a file.
pub(super) fn text<D: Dialect>(dialect: &D, name: &str, said: &Said) -> String {
    let mut text = around(dialect, name, &said.pool);
    for line in said.servers.values() {
        match line {
            Line::Made(kept) => push(&mut text, &line_of(dialect, &said.pool, kept)),
            Line::Odd(line) => push(&mut text, line),
        }
    }
    text + &dialect.tail(name, &said.pool, empty(&said.servers))
}

fn empty(servers: &BTreeMap<HostName, Line>) -> bool {
    servers.values().all(|line| matches!(line, Line::Made(kept) if kept.server.backup))
}

fn around<D: Dialect>(dialect: &D, name: &str, pool: &Pool) -> String {
    let json = serde_json::to_string(pool).unwrap_or_default();
    let mut text = String::new();
    // Writing into a text cannot fail.
    let _ = writeln!(text, "{MARK}{name}\n{POOL}{json}");
    text + &dialect.head(name, pool)
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn line_of<D: Dialect>(dialect: &D, pool: &Pool, kept: &Kept) -> String {
    let json = serde_json::to_string(kept).unwrap_or_default();
    format!("{}{SERVER}{json}", dialect.server(pool, kept))
}

/// Reads what the pool was made from, and nothing of its servers: the beginning of a file is enough.
///
/// # Errors
/// Shoal did not write it, or that cannot be read.
pub(super) fn pool(lines: impl IntoIterator<Item = String>) -> Result<Pool, String> {
    let mut lines = lines.into_iter();
    if !lines.next().is_some_and(|line| line.starts_with(MARK)) {
        return Err("Shoal did not write it: move it away".to_owned());
    }
    let json = lines.next();
    let pool = json.and_then(|line| serde_json::from_str(line.strip_prefix(POOL)?).ok());
    pool.ok_or_else(|| {
        "its line `# shoal pool` cannot be read: put back what stood there, or remove the file".to_owned()
    })
}

/// Reads a file.
///
/// # Errors
/// Shoal did not write it, or what it was made from cannot be read: nobody knows what it holds.
pub(super) fn read<D: Dialect>(dialect: &D, name: &str, text: &str) -> Result<Said, String> {
    let pool = pool(text.lines().take(2).map(str::to_owned))?;
    let mut servers = BTreeMap::new();
    let mut rest = String::new();
    for line in text.lines() {
        match line.strip_prefix(D::LINE).and_then(|_| server(dialect, &pool, line)) {
            Some((host, line)) => drop(servers.insert(host, line)),
            None => push(&mut rest, line),
        }
    }
    let made = around(dialect, name, &pool) + &dialect.tail(name, &pool, empty(&servers));
    Ok(Said { whole: rest == made && text.ends_with('\n'), pool, servers })
}

/// The server of a line, which names it in Shoal's comment or, where that is gone, as its first word.
fn server<D: Dialect>(dialect: &D, pool: &Pool, line: &str) -> Option<(HostName, Line)> {
    let (before, json) = line.split_once(SERVER).map_or((line, ""), |(before, json)| (before, json));
    if let Ok(kept) = serde_json::from_str::<Kept>(json) {
        let host = kept.host.clone();
        let made = line_of(dialect, pool, &kept) == line;
        return Some((host, if made { Line::Made(kept) } else { Line::Odd(line.to_owned()) }));
    }
    let word = before.strip_prefix(D::LINE)?.split_whitespace().next()?;
    Some((word.parse().ok()?, Line::Odd(line.to_owned())))
}
