//! A command line in a terminal of its own, by script(1).

use std::process::Command;

/// The line on a new terminal. Its standard output is what the terminal shows, its exit code the line's.
pub(crate) fn terminal(line: &str) -> Command {
    let mut command = Command::new("script");
    command.args(["-qec", line, "/dev/null"]).stdin(std::process::Stdio::null()).env("SHELL", "/bin/sh");
    command
}
