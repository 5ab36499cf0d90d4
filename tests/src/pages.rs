//! The examples of a page, run as they stand.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::process::output;

/// The `sh` blocks of a page.
///
/// # Errors
/// The page cannot be read, or has none.
pub fn blocks(page: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let all: Vec<String> = text
        .split("\n```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("\n```").map(|(block, _)| block.to_owned()))
        .collect();
    ensure!(!all.is_empty(), "{} has no example", page.display());
    Ok(all)
}

/// The examples that are for a server that asks, at `$HOSTDB`, after the first one, which fills the database; and all others.
///
/// # Errors
/// As for [`blocks`].
pub fn served(page: &Path) -> anyhow::Result<(String, String)> {
    let all = blocks(page)?;
    let (mut served, other): (Vec<_>, Vec<_>) = all.iter().partition(|block| block.contains("$HOSTDB"));
    ensure!(!served.is_empty(), "{} has no example with a server", page.display());
    served.insert(0, &all[0]);
    let text = |blocks: Vec<&String>| blocks.into_iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    Ok((text(served), text(other)))
}

/// The first block of a page that is written in this language.
///
/// # Errors
/// The page cannot be read, or has none.
pub fn first(page: &Path, language: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let block = text.split_once(&format!("\n```{language}\n")).and_then(|(_, rest)| rest.split_once("```"));
    Ok(block.with_context(|| format!("{} has no block of {language}", page.display()))?.0.to_owned())
}

/// Runs a block in `dir` with this environment. What stands after `# prints: ` must have been printed since the last such line;
/// a block without one fails, because it shows nothing. What it leaves running is ended.
///
/// # Errors
/// A command failed, or something was not printed; with all that was said.
pub fn run(block: &str, dir: &Path, env: &[(&str, String)]) -> anyhow::Result<()> {
    let said = tempfile::NamedTempFile::new().context("a file for what is printed")?;
    let out = said.path().display().to_string();
    let mut script = format!("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\nexec >>{out}\n");
    for line in block.lines() {
        let _ = match line.strip_prefix("# prints: ") {
            Some(text) => {
                let text = text.replace('\'', r#"'"'"'"#);
                writeln!(
                    script,
                    "grep -qF -e '{text}' {out} || {{ echo 'not printed: {text}' >&2; cat {out} >&2; exit 99; }}\n: >{out}"
                )
            }
            None => writeln!(script, "{line}"),
        };
    }
    ensure!(block.contains("# prints: "), "a block that promises nothing:\n{block}");
    let mut command = Command::new("timeout");
    command.args(["120", "bash", "-c", &script]).current_dir(dir).envs(env.iter().map(|(k, v)| (k, v)));
    output(&mut command, &[0]).map(drop)
}
