//! How often the disk is waited for: a cold start syncs once, however many files it writes, and a changed host a few times, however many
//! there are. The program is traced.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use common::{Scratch, traced};

/// The syncs of Shoal's folder, or of what is in it, that one run makes: those of a whole file system, and the others.
fn syncs(scratch: &Scratch) -> (usize, usize) {
    let (program, out) = (scratch.command(&["--once"]), scratch.path().join("calls"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,syncfs", "-o"]).arg(&out);
    let done = strace.arg(program.get_program()).args(program.get_args()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let folder = scratch.path().join("shoal").display().to_string();
    let calls = fs::read_to_string(&out).unwrap();
    let ours = |call: &&str| call.contains(&format!("<{folder}>")) || call.contains(&format!("<{folder}/"));
    let ours: Vec<&str> = calls.lines().filter(ours).collect();
    assert!(!ours.is_empty(), "it wrote nothing: {said}\n{calls}");
    let whole = ours.iter().filter(|call| call.contains("syncfs(")).count();
    (whole, ours.len() - whole)
}

/// A fleet of so many hosts in files for a Nagios that is not there: what a cold start waits for, and then a change of one host.
async fn fleet(hosts: usize) -> [(usize, usize); 2] {
    let scratch = Scratch::new("");
    let at = scratch.path().display().to_string();
    fs::create_dir(scratch.path().join("shoal")).unwrap();
    let own = format!(
        "command_file={at}/cmd\nstatus_file={at}/status\nobject_cache_file={at}/cache\ncfg_dir={at}/shoal/current\n"
    );
    fs::write(scratch.path().join("nagios.cfg"), own).unwrap();
    scratch.configure(&format!(
        "[agent.nagios]\ndirectory = '{at}/shoal'\nconfig = '{at}/nagios.cfg'\ncheck = ['true']\ntell = false\n"
    ));
    let (mut yaml, mut names) = (String::new(), Vec::new());
    for n in 0..hosts {
        writeln!(yaml, "host: web{n}.example.com\ndocument: {{address: 192.0.2.1}}\n---").unwrap();
        names.push(format!("web{n}.example.com"));
    }
    let names = names.join(", ");
    write!(
        yaml,
        "tag: monitoring/web\ndocument: {{checks: {{procs: {{command: check_procs}}}}}}\nmembers: [{names}]\n"
    )
    .unwrap();
    scratch.apply(&yaml).await;
    let cold = syncs(&scratch);
    scratch.apply("{host: web7.example.com, document: {address: 192.0.2.7}}").await;
    [cold, syncs(&scratch)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_syncs_once_whatever_the_fleet() {
    if !traced("a_cold_start_syncs_once_whatever_the_fleet") {
        return;
    }
    let (small, large) = (fleet(40).await, fleet(400).await);
    for [cold, change] in [small, large] {
        // The file system, and what says whose the folder is, and the folder when it leads to the files.
        assert!(cold.0 == 1 && cold.1 <= 6, "{small:?} {large:?}");
        // The files by themselves, at the same time.
        assert!(change.0 == 0 && change.1 <= 12, "{small:?} {large:?}");
    }
    assert_eq!(small[0], large[0]);
}
