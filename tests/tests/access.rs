//! The page about who may do what, run as it stands against a server that asks.

use std::process::Command;

use anyhow::{Context, Result};
use shoal_tests::binaries::binary;
use shoal_tests::process::Process;
use shoal_tests::swarm::repository;
use shoal_tests::{pages, ports, wait};

#[test]
#[allow(clippy::print_stdout, reason = "what cannot run says so")]
fn the_page_is_true() -> Result<()> {
    if shoal_tests::binaries::system("curl").is_none() {
        println!("SKIPPED: the_page_is_true: curl is not installed");
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("shoal-access-").tempdir().context("a scratch folder")?;
    let (store, port) = (format!("sqlite:{}", dir.path().join("shoal.db").display()), ports::free()?);
    let bin = binary("shoal-hostdb")?;
    let mut command = Command::new(&bin);
    command.args(["--store", &store, "--listen", &format!("127.0.0.1:{port}")]);
    let mut server = Process::start("hostdb", dir.path(), &mut command)?;
    let url = format!("http://127.0.0.1:{port}");
    wait::until("the server", wait::PATIENCE, || {
        server.alive()?;
        let ready = Command::new("curl").args(["-fsS", &format!("{url}/readyz")]).output();
        anyhow::ensure!(ready.is_ok_and(|ready| ready.status.success()), "not ready:\n{}", server.tail());
        Ok(())
    })?;
    let path = format!(
        "{}:{}",
        bin.parent().context("a folder")?.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let env = [
        ("SHOAL_STORE", store),
        ("HOSTDB", url),
        ("PATH", path),
        ("SHOAL_AUTHOR", "me".to_owned()),
        ("no_proxy", "*".to_owned()),
    ];
    // They go on where the ones before them ended, in one shell.
    let all = pages::blocks(&repository().join("docs/access.md"))?.join("\n");
    pages::run(&all, dir.path(), &env)
}
