//! `tests/results.sh` reads what test runners print: who failed is named, with the end of what they said. And it judges how long
//! they took.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by it; what cannot run says so"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use shoal_tests::swarm::repository;

/// A crate whose tests pass, fail, cannot run, and die.
const LIB: &str = r#"
#[test]
fn it_passes() {}
#[test]
fn it_cannot_run() { println!("SKIPPED: it_cannot_run: nothing here"); }
#[test]
fn it_fails_with_many_words() {
    for n in 0..500 { println!("word {n}"); }
    panic!("the last word");
}
"#;
const DIES: &str = "#[test]\nfn it_dies() { std::process::abort(); }\n";

/// What a function of the script makes of a text.
fn read(function: &str, text: &str) -> String {
    let script = repository().join("tests/results.sh");
    let mut child = Command::new("bash")
        .args(["-euc", &format!(". {} && {function}", script.display())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = text.to_owned();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A reader that has seen enough may close its input.
    drop(writer.join().unwrap());
    assert!(output.status.success(), "{function}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a runner says of that crate.
fn says(dir: &Path, run: &str) -> String {
    std::fs::create_dir_all(dir.join("src")).unwrap();
    std::fs::create_dir_all(dir.join("tests")).unwrap();
    let manifest = "[package]\nname = \"demo\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(dir.join("src/lib.rs"), LIB).unwrap();
    std::fs::write(dir.join("tests/dies.rs"), DIES).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{run} 2>&1")]).current_dir(dir).env("CARGO_TERM_COLOR", "never");
    command.env("CARGO_TARGET_DIR", dir.join("target")).env_remove("RUSTFLAGS").env_remove("RUST_BACKTRACE");
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn what_cargo_says_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let said = says(dir.path(), "cargo test --offline --no-fail-fast --lib --bins --tests -- --show-output");
    assert_eq!(read("passed_tests", &said), "2\n", "{said}");
    let failed = read("failed_tests", &said);
    let lines: Vec<&str> = failed.lines().collect();
    assert_eq!(lines.len(), 2, "{failed}\nof\n{said}");
    assert!(lines[0].starts_with("--test dies died: ") || lines[0].contains("SIGABRT"), "{failed}");
    assert_eq!(lines[1], "demo it_fails_with_many_words");
    let output = read("failed_output", &said);
    assert!(output.contains("the last word") && output.contains("word 499"), "{output}");
    assert!(!output.contains("word 3\n") && output.lines().count() <= 62, "{output}");
    assert!(!output.contains("SKIPPED"), "{output}");
}

#[test]
fn too_slow_is_a_failure_only_where_the_machine_was_idle() {
    for (took, load, pace) in
        [(900, "0.00", "fast"), (901, "0.99", "slow"), (901, "1.00", "unknown"), (5, "12.5", "fast")]
    {
        assert_eq!(read(&format!("pace {took} 900 {load}"), ""), format!("{pace}\n"), "{took} s at {load}");
    }
}

#[test]
fn what_nextest_says_is_read() {
    let there = Command::new("cargo").args(["nextest", "--version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: what_nextest_says_is_read: cargo-nextest is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = "cargo nextest run --offline --no-fail-fast --success-output final --failure-output immediate";
    let said = says(dir.path(), run);
    assert_eq!(read("passed_tests", &said), "2\n", "{said}");
    assert_eq!(read("failed_tests", &said), "demo it_fails_with_many_words\ndemo::dies it_dies\n", "{said}");
    let output = read("failed_output", &said);
    assert!(output.contains("the last word") && output.contains("demo::dies it_dies"), "{output}");
    assert!(!output.contains("SKIPPED") && !output.contains("word 3\n"), "{output}");
}

/// A cargo that does nothing, and says of the tests what stands beside it.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
    *--version | doc*) ;;
    clippy*) printf 'error: a \033[31mlint\033[0m\a\n'; exit 1 ;;
    *--lib*) cat "$(dirname "$0")/said"; exit 101 ;;
    *--doc*) echo 'test result: ok. 3 passed; 0 failed; 0 ignored' ;;
esac
"#;

#[test]
fn the_last_lines_name_what_failed_and_count() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let said = says(
        &dir.path().join("demo"),
        "cargo test --offline --no-fail-fast --lib --bins --tests -- --show-output",
    );
    std::fs::write(dir.path().join("said"), said).unwrap();
    // Not root, no cargo-nextest, no inventory.
    for (name, text) in [
        ("cargo", CARGO),
        ("id", "#!/bin/sh\necho 1000\n"),
        ("apt-get", "#!/bin/sh\nexit 1\n"),
        ("shellcheck", "#!/bin/sh\n"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut run = Command::new(repository().join("tests/run"));
    run.env("PATH", format!("{}:/usr/bin:/bin", dir.path().display())).env("SHOAL_FLEET", dir.path());
    // What it says of the time is not about these.
    run.env("CARGO_TARGET_DIR", dir.path());
    let output = run.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [.., died, failed, lints, count] = lines[..] else { panic!("{text}") };
    assert!(died.starts_with("FAILED: ") && died.contains("SIGABRT"), "{text}");
    assert_eq!([failed, lints], ["FAILED: demo it_fails_with_many_words", "FAILED: lints"], "{text}");
    let skipped = lines.iter().filter(|line| line.starts_with("SKIPPED: ")).count();
    // The test that says so; the packages, too, where any is missing.
    assert!((1..=2).contains(&skipped), "{text}");
    // It passes, three of the pages, the format, the programs, the docs; and what this machine has.
    let (passed, rest) = count.split_once(" passed, ").unwrap();
    assert_eq!(rest, format!("3 failed, {skipped} skipped"), "{text}");
    assert!(passed.parse::<u32>().unwrap() >= 7, "{text}");
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("error: a lint\n"), "what moves the cursor is cut out: {text}");
    assert!(text.contains("word 499") && !text.contains("word 3\n"), "{text}");
}
