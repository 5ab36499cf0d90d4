//! Running restic, and the commands of dumps: no shell, an environment of its own, bounded time, and an end in order.
//!
//! Credentials go by the environment of the one process that needs them, and what it says is told without them. restic is interrupted
//! before it is killed, so that it takes its lock back.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shoal_agent::Fault;
use shoal_agent::secrets::{Secret, SecretRef, Secrets};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::settings::Repository;

/// The most of its complaints that is kept, in octets.
const MAX_SAID: u64 = 16 << 10;
/// How long an interrupted program has for its end.
const GRACE: Duration = Duration::from_secs(20);
/// For looking something up.
pub(crate) const SHORT: Duration = Duration::from_secs(600);

/// Why a run is to stop; empty while it is not.
pub(crate) type Stop = watch::Receiver<Option<String>>;

/// restic, for one repository.
#[derive(Clone)]
pub(crate) struct Caller {
    program: Vec<String>,
    environment: Vec<(String, String)>,
    secrets: Vec<Secret>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None`: a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it complained of, without secrets.
    pub(crate) said: String,
}

impl Ended {
    /// What it complained of last, in a few lines.
    pub(crate) fn last(&self) -> String {
        let lines: Vec<&str> = self.said.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.len().saturating_sub(4);
        match (lines.is_empty(), self.code) {
            (false, _) => lines[last..].join(" / "),
            (true, Some(code)) => format!("it ended with code {code} and said nothing"),
            (true, None) => "a signal ended it".to_owned(),
        }
    }
}

impl Caller {
    /// restic as it is called for this repository. Reads its secrets.
    pub(crate) fn new(
        program: &[String],
        cache: &Path,
        repository: &Repository,
        secrets: &Secrets,
    ) -> Result<Self, Fault> {
        let password = secrets.get(&repository.password)?;
        let mut environment = vec![
            ("RESTIC_PASSWORD".to_owned(), password.expose().to_owned()),
            ("RESTIC_CACHE_DIR".to_owned(), cache.display().to_string()),
            ("RESTIC_PROGRESS_FPS".to_owned(), "0.5".to_owned()),
        ];
        let mut hidden = vec![password];
        let url = match repository.url.parse::<SecretRef>() {
            Ok(of) => {
                let url = secrets.get(&of)?;
                hidden.push(url.clone());
                url.expose().to_owned()
            }
            Err(_) => repository.url.clone(),
        };
        environment.push(("RESTIC_REPOSITORY".to_owned(), url));
        for (name, of) in &repository.environment {
            let value = secrets.get(of)?;
            environment.push((name.clone(), value.expose().to_owned()));
            hidden.push(value);
        }
        Ok(Self { program: program.to_vec(), environment, secrets: hidden })
    }

    /// Runs restic and gives each line that it prints to `line`.
    ///
    /// # Errors
    /// It cannot be started, took longer than `limit`, or was told to stop.
    pub(crate) async fn lines(
        &self,
        args: &[String],
        limit: Duration,
        stop: &mut Stop,
        mut line: impl FnMut(&str) + Send,
    ) -> Result<Ended, Fault> {
        let verb = args.first().map_or("", String::as_str);
        let mut command = command(&self.program, args, &self.environment);
        let mut child = command.spawn().map_err(|e| not_started(&self.program, &e))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let hear = async {
            let mut said = Vec::new();
            tokio::join!(
                async {
                    let Some(out) = out else { return };
                    let mut lines = BufReader::new(out).lines();
                    while let Ok(Some(text)) = lines.next_line().await {
                        line(&text);
                    }
                },
                keep(err, &mut said),
            );
            said
        };
        let said = within(&mut child, hear, limit, stop, &format!("restic {verb}")).await?;
        let text = String::from_utf8_lossy(&said.0).into_owned();
        let said_text = self.secrets.iter().fold(text, |text, secret| secret.hide(&text));
        Ok(Ended { code: said.1, said: said_text })
    }

    /// Runs restic to its end, for what it prints.
    ///
    /// # Errors
    /// As [`lines`](Self::lines); and it failed.
    pub(crate) async fn text(&self, args: &[String], stop: &mut Stop) -> Result<String, Fault> {
        let mut text = String::new();
        let ended = self
            .lines(args, SHORT, stop, |line| {
                text.push_str(line);
                text.push('\n');
            })
            .await?;
        match ended.code {
            Some(0) => Ok(text),
            _ => Err(failed(&format!("restic {}", args.join(" ")), &ended)),
        }
    }
}

/// A program that failed, and what to do about it where what it said tells.
pub(crate) fn failed(what: &str, ended: &Ended) -> Fault {
    let fault = Fault::new(what, ended.last());
    let said = ended.said.to_lowercase();
    let hints = [
        ("no space left", "the repository is full: give it room, or keep less; nothing was removed for it"),
        ("quota exceeded", "the repository is full: give it room, or keep less; nothing was removed for it"),
        (
            "is there a repository",
            "if its file system is mounted and it was never made, make it with `restic init`",
        ),
        ("wrong password", "see the repository's `password` in this node's configuration"),
    ];
    match hints.iter().find(|(sign, _)| said.contains(sign)) {
        Some((_, next)) => fault.next(*next),
        None => fault,
    }
}

/// Runs a command of the configuration, what it prints into a file.
///
/// # Errors
/// It cannot be started, failed, took longer than `limit`, or was told to stop.
pub(crate) async fn into_file(
    what: &str,
    program: &[String],
    into: File,
    limit: Duration,
    stop: &mut Stop,
) -> Result<(), Fault> {
    let mut command = command(program, &[], &[]);
    let mut child = command.stdout(into).spawn().map_err(|e| not_started(program, &e))?;
    let err = child.stderr.take();
    let hear = async {
        let mut said = Vec::new();
        keep(err, &mut said).await;
        said
    };
    let (said, code) = within(&mut child, hear, limit, stop, what).await?;
    match code {
        Some(0) => Ok(()),
        _ => Err(failed(what, &Ended { code, said: String::from_utf8_lossy(&said).into_owned() })),
    }
}

fn command(program: &[String], args: &[String], environment: &[(String, String)]) -> Command {
    let (first, rest) = program.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let mut command = Command::new(first);
    command.args(rest).args(args).env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "LANG", "SSH_AUTH_SOCK"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Waits for its end, or brings it about.
async fn within(
    child: &mut Child,
    hear: impl Future<Output = Vec<u8>> + Send,
    limit: Duration,
    stop: &mut Stop,
    what: &str,
) -> Result<(Vec<u8>, Option<i32>), Fault> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let mut end = Box::pin(async {
        let said = hear.await;
        child.wait().await.map(|status| (said, status.code()))
    });
    let why = tokio::select! {
        ended = &mut end => return ended.map_err(|e| Fault::new(what, e)),
        () = tokio::time::sleep(limit) => format!("it took longer than {} s", limit.as_secs()),
        why = stopped(stop) => why,
    };
    if let Some(pid) = pid {
        // It may be gone already.
        let _ = kill_process(pid, Signal::INT);
    }
    // What does not end by then is killed when it is dropped.
    let _ = tokio::time::timeout(GRACE, &mut end).await;
    Err(Fault::new(what, why))
}

/// Waits until a run is to stop, and says why.
pub(crate) async fn stopped(stop: &mut Stop) -> String {
    match stop.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_) => "the agent ends".to_owned(),
    }
}

/// Keeps the first of what a program says and hears the rest out.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, said: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    // What cannot be read was not said.
    let _ = (&mut pipe).take(MAX_SAID).read_to_end(said).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
}

fn not_started(program: &[String], error: &std::io::Error) -> Fault {
    let name = program.first().map_or("", String::as_str);
    Fault::new(format!("start {name}"), error)
        .next("on Debian, restic is in the package of that name, and setpriv in util-linux")
}
