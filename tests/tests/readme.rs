//! What the README says to do by hand, done as it stands.
#![allow(clippy::print_stdout, reason = "what cannot run says so")]

use anyhow::{Context, Result, ensure};
use shoal_tests::swarm::repository;
use shoal_tests::{binaries, pages, ports};

#[test]
fn by_hand_it_answers() -> Result<()> {
    if binaries::system("dig").is_none() {
        println!("SKIPPED: by_hand_it_answers: dig is not installed");
        return Ok(());
    }
    let programs = binaries::binary("shoal")?;
    let programs = programs.parent().context("a folder")?.display().to_string();
    let (dir, port) = (tempfile::tempdir()?, ports::free()?.to_string());
    let blocks = pages::blocks(&repository().join("README.md"))?;
    ensure!(blocks.len() == 1 && blocks[0].contains(":5300"), "{blocks:?}");
    // Building is what this test began with; the port may be somebody's; the scratch folder is this test's.
    let (build, rest) = blocks[0].split_once('\n').context("a first line")?;
    ensure!(build.starts_with("cargo build"), "{build}");
    let path = std::env::var("PATH").unwrap_or_default();
    let env = [("PATH", format!("{programs}:{path}")), ("TMPDIR", dir.path().display().to_string())];
    pages::run(&rest.replace("5300", &port), &repository(), &env)
}
