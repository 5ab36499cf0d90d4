//! Running the commands of the node's own configuration (checkers, reloads): no shell, bounded time, bounded output.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// The most output that is read.
const MAX_OUTPUT: u64 = 64 * 1024;

/// Runs a command, which is its program and what follows it, with each of `places` (`{file}`, what stands for it) filled in; an
/// empty one does nothing.
///
/// # Errors
/// What it said, at most 64 KiB each of its two outputs, if it failed; that it did not end `within` that time, and was killed;
/// that it cannot be started, and which package it is in.
pub async fn run(command: &[String], places: &[(&str, &str)], within: Duration) -> Result<(), String> {
    let Some((program, args)) = command.split_first() else { return Ok(()) };
    let fill =
        |arg: &String| places.iter().fold(arg.clone(), |arg, (place, value)| arg.replace(place, value));
    let mut child = Command::new(program)
        .args(args.iter().map(fill))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| not_started(program, &e))?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        tokio::join!(
            async {
                if let Some(mut pipe) = stdout {
                    keep(&mut pipe, &mut out).await;
                }
            },
            async {
                if let Some(mut pipe) = stderr {
                    keep(&mut pipe, &mut err).await;
                }
            },
        );
        child.wait().await
    };
    let status = match tokio::time::timeout(within, read).await {
        Err(_) => return Err(format!("{program} did not end within {} seconds", within.as_secs())),
        Ok(Err(e)) => return Err(format!("{program}: {e}")),
        Ok(Ok(status)) => status,
    };
    if status.success() {
        return Ok(());
    }
    out.extend(err);
    Err(format!("{program} ended with {status}: {}", String::from_utf8_lossy(&out).trim()))
}

/// Which package the servers' tools are in where a person can get them.
fn not_started(program: &str, error: &std::io::Error) -> String {
    if error.kind() != std::io::ErrorKind::NotFound {
        return format!("{program} cannot be started: {error}");
    }
    let (server, package) = match program.rsplit('/').next().unwrap_or(program) {
        "named-checkzone" | "named-compilezone" | "named-checkconf" | "rndc" => ("BIND", "bind9-utils"),
        "nsd-checkzone" | "nsd-control" => ("NSD", "nsd"),
        "kzonecheck" => ("Knot", "knot-dnssecutils"),
        "knotc" => ("Knot", "knot"),
        "nagios4" => ("Nagios", "nagios4-core"),
        _ => return format!("{program} is not installed, or not where PATH leads"),
    };
    format!(
        "{program} is not installed: it comes with {server}, on Debian and Ubuntu in the package {package}"
    )
}

/// Keeps the first of what a program says and hears the rest out: one whose pipe closes fails for no fault of its own.
async fn keep(pipe: &mut (impl AsyncRead + Unpin), said: &mut Vec<u8>) {
    // What cannot be read was not said.
    let _ = (&mut *pipe).take(MAX_OUTPUT).read_to_end(said).await;
    let _ = tokio::io::copy(pipe, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_says_much_does_not_fail_for_it() {
        let command = ["sh", "-c", "yes warning | head -c 1000000"].map(str::to_owned);
        run(&command, &[], Duration::from_secs(30)).await.unwrap();
    }
}
