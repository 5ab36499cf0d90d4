//! The programs under test, built from this tree.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, bail};

/// The path of one of our programs: in the folder that `SHOAL_BINARIES` names, where somebody built them from this tree just before. Else
/// the first call in a process has cargo build all of them, which costs a moment when they are up to date.
///
/// # Errors
/// They do not build.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let dir = BUILT.get_or_init(|| build().map_err(|why| format!("{why:#}")));
    match dir {
        Ok(dir) => Ok(dir.join(name)),
        Err(why) => bail!("{why}"),
    }
}

/// Whether a program of the system is there; the folders of administrators are looked at, too.
#[must_use]
pub fn system(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|file| file.exists())
}

/// Builds what is called by name, in the profile that this test was built in, and answers where it lies.
fn build() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("SHOAL_BINARIES") {
        return Ok(dir.into());
    }
    let this = std::env::current_exe().context("where this test lies")?;
    // target/debug/deps/test-0123456789abcdef, or target/release/bench
    let mut dir = this.parent().context("where this test lies")?.to_owned();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--bins"]);
    command.args(
        [
            "shoal-hostdb",
            "shoal-cli",
            "shoal-dns",
            "shoal-lb",
            "shoal-backup",
            "shoal-placement",
            "shoal-vm",
            "shoal-example",
        ]
        .map(|name| format!("--package={name}")),
    );
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    if dir.ends_with("release") {
        command.arg("--release");
    }
    let out = command.output().context("cannot run cargo")?;
    if !out.status.success() {
        bail!("the programs do not build:\n{}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(dir)
}
