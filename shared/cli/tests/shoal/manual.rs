//! Completions that shells take, and manual pages that formatters take without a word.

use std::process::{Command, Stdio};

use crate::program::{shoal, text};

#[allow(clippy::print_stdout, reason = "what is skipped is said")]
fn there(program: &str, test: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        println!("SKIPPED: {test}: {program} is not installed");
    }
    there
}

/// What bash offers for the last of these words.
fn bash(words: &[&str]) -> Vec<String> {
    let script = "\
source <(shoal completions bash)
complete -p shoal > /dev/null || exit 9
COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_LINE=\"$*\"; COMP_POINT=${#COMP_LINE}
_shoal shoal \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"
printf '%s\\n' \"${COMPREPLY[@]}\"";
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_shoal")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run =
        Command::new("bash").args(["-c", script, "bash"]).args(words).env("PATH", path).output().unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    text(&run.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    if !there("bash", "bash_completes_commands_options_and_values") {
        return;
    }
    assert_eq!(bash(&["shoal", "ex"]), ["explain", "export"]);
    assert_eq!(bash(&["shoal", "apply", "--pl"]), ["--plan"]);
    assert_eq!(bash(&["shoal", "database", "re"]), ["restore", "renew"]);
    assert_eq!(bash(&["shoal", "get", "-o", ""]), ["text", "json", "yaml"]);
}

#[test]
fn zsh_and_fish_take_theirs() {
    for (shell, check) in [("zsh", "zsh -n"), ("fish", "fish --no-execute")] {
        let run = shoal("memory:", &["completions", shell]);
        assert!(run.status.success() && text(&run.stdout).contains("shoal"), "{}", text(&run.stderr));
        if !there(shell, "zsh_and_fish_take_theirs") {
            continue;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &run.stdout).unwrap();
        let checked =
            Command::new("sh").args(["-c", &format!("{check} {}", file.path().display())]).output().unwrap();
        assert!(checked.status.success() && checked.stderr.is_empty(), "{shell}: {}", text(&checked.stderr));
    }
    let server = shoal("memory:", &["completions", "bash", "--for", "shoal-hostdb"]);
    assert!(text(&server.stdout).contains("--max-watchers"));
}

#[test]
fn every_command_has_a_page_that_formatters_take_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let run = shoal("memory:", &["man", pages.to_str().unwrap()]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let names: Vec<String> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    for page in ["shoal.1", "shoal-apply.1", "shoal-database-restore.1", "shoal-hostdb.1"] {
        assert!(names.iter().any(|name| name == page), "{page}: {names:?}");
    }
    assert!(
        names.iter().all(|name| std::path::Path::new(name).extension().is_some_and(|end| end == "1")),
        "{names:?}"
    );
    let apply = std::fs::read_to_string(pages.join("shoal-apply.1")).unwrap();
    assert!(apply.contains("shoal apply \\-f fleet.yaml \\-\\-plan\n"), "{apply}");
    for (program, line) in [("groff", "groff -man -ww -z -Tutf8"), ("mandoc", "mandoc -T lint -W error")] {
        if !there(program, "every_command_has_a_page_that_formatters_take_without_a_word") {
            continue;
        }
        for name in &names {
            let line = format!("{line} {}", pages.join(name).display());
            let run = Command::new("sh").args(["-c", &line]).output().unwrap();
            let said = format!("{}{}", text(&run.stdout), text(&run.stderr));
            assert!(run.status.success() && said.is_empty(), "{program} {name}: {said}");
        }
    }
}
