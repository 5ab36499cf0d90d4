//! Running restic, and the commands of dumps: no shell, an environment of its own, bounded time, and an end in order.
//!
//! Credentials go by the environment of the one process that needs them, and what it says is told without them. restic is interrupted
//! before it is killed, so that it takes its lock back.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shoal_agent::Fault;
use shoal_agent::secrets::{Secret, SecretRef, Secrets};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};

use super::settings::Repository;
use super::ssh::{Call, Over};
use crate::name::Label;

/// The most of its complaints that is kept, in octets.
const MAX_SAID: u64 = 16 << 10;
/// The most that is kept of what a program prints, in octets: what would be more is a fault, and no end of this process. The snapshots of
/// a repository are one text, of some 500 octets each.
pub(crate) const MAX_TEXT: usize = 256 << 20;
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
    options: Vec<String>,
    password: String,
    url: String,
    cache: String,
    environment: Vec<(String, String)>,
    secrets: Vec<Secret>,
    over: Option<Over>,
}

/// What a program prints, up to a bound.
pub(crate) struct Kept {
    octets: Vec<u8>,
    most: usize,
    /// There was more, which is lost.
    is_more: bool,
}

impl Kept {
    pub(crate) fn of_at_most(most: usize) -> Self {
        Self { octets: Vec::new(), most, is_more: false }
    }

    pub(crate) fn keep(&mut self, octets: &[u8]) {
        self.is_more |= self.octets.len().saturating_add(octets.len()) > self.most;
        if !self.is_more {
            self.octets.extend_from_slice(octets);
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// It was more than is kept.
    pub(crate) fn all(self, what: &str) -> Result<Vec<u8>, Fault> {
        match self.is_more {
            false => Ok(self.octets),
            true => Err(Fault::new(what, format!("it prints more than {} octets", self.most))),
        }
    }
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
        let mut hidden = vec![password.clone()];
        let url = match repository.url.parse::<SecretRef>() {
            Ok(of) => {
                let url = secrets.get(&of)?;
                hidden.push(url.clone());
                url.expose().to_owned()
            }
            Err(_) => repository.url.clone(),
        };
        let mut environment = Vec::new();
        for (name, of) in &repository.environment {
            let value = secrets.get(of)?;
            environment.push((name.clone(), value.expose().to_owned()));
            hidden.push(value);
        }
        Ok(Self {
            program: program.to_vec(),
            options: repository.options.iter().flat_map(|one| ["-o".to_owned(), one.clone()]).collect(),
            password: password.expose().to_owned(),
            url,
            cache: cache.display().to_string(),
            environment,
            secrets: hidden,
            over: None,
        })
    }

    /// The same restic, on another machine.
    pub(crate) fn on(self, over: &Over) -> Self {
        Self { over: Some(over.clone()), ..self }
    }

    /// The machine that it runs on; `None`: this one.
    pub(crate) fn over(&self) -> Option<&Over> {
        self.over.as_ref()
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
        line: impl FnMut(&str) + Send,
    ) -> Result<Ended, Fault> {
        let ended = self.lines_to_the_end(args, limit, stop, line).await?;
        self.judge(args, ended)
    }

    /// The same, and whatever it ends with is answered: also what is not restic's own end, which [`judge`](Self::judge) tells.
    ///
    /// # Errors
    /// It cannot be started, took longer than `limit`, or was told to stop.
    pub(crate) async fn lines_to_the_end(
        &self,
        args: &[String],
        limit: Duration,
        stop: &mut Stop,
        mut line: impl FnMut(&str) + Send,
    ) -> Result<Ended, Fault> {
        let mut part = Kept::of_at_most(MAX_TEXT);
        let ended = self
            .to_the_end(args, limit, stop, |octets| {
                let mut pieces = octets.split(|octet| *octet == b'\n');
                part.keep(pieces.next().unwrap_or_default());
                for piece in pieces {
                    if !part.is_more {
                        line(&String::from_utf8_lossy(&part.octets));
                    }
                    part.octets.clear();
                    part.keep(piece);
                }
            })
            .await?;
        let last = part.all(&called(args))?;
        if !last.is_empty() {
            line(&String::from_utf8_lossy(&last));
        }
        Ok(ended)
    }

    /// Runs restic and gives what it prints to `heard`, piece by piece.
    ///
    /// # Errors
    /// As [`lines`](Self::lines).
    pub(crate) async fn octets(
        &self,
        args: &[String],
        limit: Duration,
        stop: &mut Stop,
        heard: impl FnMut(&[u8]) + Send,
    ) -> Result<Ended, Fault> {
        let ended = self.to_the_end(args, limit, stop, heard).await?;
        self.judge(args, ended)
    }

    async fn to_the_end(
        &self,
        args: &[String],
        limit: Duration,
        stop: &mut Stop,
        heard: impl FnMut(&[u8]) + Send,
    ) -> Result<Ended, Fault> {
        let what = called(args);
        let ended = match &self.over {
            None => {
                let mut environment = self.environment.clone();
                environment.extend(
                    [
                        ("RESTIC_PASSWORD", &self.password),
                        ("RESTIC_REPOSITORY", &self.url),
                        ("RESTIC_CACHE_DIR", &self.cache),
                    ]
                    .map(|(name, value)| (name.to_owned(), value.clone())),
                );
                environment.push(("RESTIC_PROGRESS_FPS".to_owned(), "0.5".to_owned()));
                // The word after the program's own stays the command: options may stand anywhere.
                let args: Vec<String> = match args.split_first() {
                    Some((first, rest)) => [std::slice::from_ref(first), &self.options, rest].concat(),
                    None => self.options.clone(),
                };
                heard_of(command(&self.program, &args, &environment), None, limit, stop, &what, heard).await?
            }
            Some(over) => {
                let (password, url) = (&self.password, &self.url);
                let words = args.iter().take(1).chain(&self.options).chain(args.iter().skip(1));
                let args = words.map(String::as_str).collect();
                let script = over.restic(&Call { password, url, environment: &self.environment, args })?;
                heard_of(command(&over.command(), &[], &[]), Some(script), limit, stop, &what, heard).await?
            }
        };
        // What is quoted of it is quoted without secrets.
        let said = self.secrets.iter().fold(ended.said, |text, secret| secret.hide(&text));
        Ok(Ended { code: ended.code, said })
    }

    /// What an end means that is not restic's own.
    ///
    /// # Errors
    /// The other machine was not reached, or restic was not begun there.
    pub(crate) fn judge(&self, args: &[String], ended: Ended) -> Result<Ended, Fault> {
        match &self.over {
            Some(over) => over.judge(&called(args), ended),
            None => Ok(ended),
        }
    }

    /// Runs restic to its end, for what it prints.
    ///
    /// # Errors
    /// As [`lines`](Self::lines); and it failed.
    pub(crate) async fn text(&self, args: &[String], stop: &mut Stop) -> Result<String, Fault> {
        let mut text = Kept::of_at_most(MAX_TEXT);
        let ended = self.octets(args, SHORT, stop, |octets| text.keep(octets)).await?;
        let what = format!("restic {}", args.join(" "));
        match ended.code {
            Some(0) => Ok(String::from_utf8_lossy(&text.all(&what)?).into_owned()),
            _ => Err(failed(&what, &ended)),
        }
    }

    /// Asks the repository, by this name, for what it is. restic itself tries one that is away for a quarter of an hour.
    ///
    /// # Errors
    /// It does not answer within `limit`, or not as a repository of this password.
    pub(crate) async fn answers(&self, name: &Label, limit: Duration, stop: &mut Stop) -> Result<(), Fault> {
        let what = format!("use the repository {name}");
        let args = ["cat", "config", "--no-lock"].map(str::to_owned);
        let ended = self.lines(&args, limit, stop, |_| {}).await.map_err(|fault| Fault::new(&what, fault))?;
        match ended.code {
            Some(0) => Ok(()),
            _ => Err(failed(&what, &ended)),
        }
    }
}

/// What restic is called for, for people.
fn called(args: &[String]) -> String {
    format!("restic {}", args.first().map_or("", String::as_str))
}

/// Runs a script on another machine and gives what it prints to `heard`.
///
/// # Errors
/// It cannot be reached, took longer than `limit`, or was told to stop: then its input is closed, and it ends.
pub(crate) async fn over(
    over: &Over,
    script: String,
    limit: Duration,
    stop: &mut Stop,
    what: &str,
    heard: impl FnMut(&[u8]) + Send,
) -> Result<Ended, Fault> {
    let command = command(&over.command(), &[], &[]);
    let ended = heard_of(command, Some(script), limit, stop, what, heard).await?;
    over.judge(what, ended)
}

/// Runs a program, says this to it and leaves its input open, and gives what it prints to `heard`.
async fn heard_of(
    mut command: Command,
    say: Option<String>,
    limit: Duration,
    stop: &mut Stop,
    what: &str,
    mut heard: impl FnMut(&[u8]) + Send,
) -> Result<Ended, Fault> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let err = complaints(&mut command, say.is_some()).map_err(|e| not_started(&name, &e))?;
    let mut child = command.spawn().map_err(|e| not_started(&name, &e))?;
    // It holds the end that is written into, and nobody would hear when the program has closed its own.
    drop(command);
    let out = child.stdout.take();
    // Who is told something listens until nothing is said any more; others are interrupted.
    let hold = say.zip(child.stdin.take()).map(|(say, mut input)| {
        let (hold, held) = oneshot::channel::<()>();
        tokio::spawn(async move {
            // What ends before it has heard all says so by its code.
            let _ = input.write_all(say.as_bytes()).await;
            let _ = input.flush().await;
            let _ = held.await;
        });
        hold
    });
    let hear = async {
        let mut said = Vec::new();
        tokio::join!(
            async {
                let Some(mut out) = out else { return };
                let mut octets = vec![0; 1 << 16];
                while let Ok(read @ 1..) = out.read(&mut octets).await {
                    heard(&octets[..read]);
                }
            },
            keep(Some(err), &mut said),
        );
        said
    };
    let (said, code) = within(&mut child, hold, hear, limit, stop, what).await?;
    Ok(Ended { code, said: String::from_utf8_lossy(&said).into_owned() })
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
    let name = program.first().map_or("", String::as_str);
    let mut child = command.stdout(into).spawn().map_err(|e| not_started(name, &e))?;
    let err = child.stderr.take();
    let hear = async {
        let mut said = Vec::new();
        keep(err, &mut said).await;
        said
    };
    let (said, code) = within(&mut child, None, hear, limit, stop, what).await?;
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

/// Gives a program what it complains into, and answers where that is heard. What it complains into can also be read, and a pipe that is
/// opened so has somebody to read it for as long as the program lives (Linux, fifo(7)). Otherwise, interrupted because the agent was killed,
/// restic would be killed itself by what it says of that (SIGPIPE), before it has taken its lock back. Who listens is told by its input.
fn complaints(command: &mut Command, is_told: bool) -> io::Result<pipe::Receiver> {
    let (heard, said) = io::pipe()?;
    let both = || File::options().read(true).write(true).open(format!("/proc/self/fd/{}", said.as_raw_fd()));
    match is_told {
        true => _ = command.stdin(Stdio::piped()).stderr(said),
        // Where there is no /proc, it has what everybody has.
        false => _ = command.stderr(both().map_or_else(|_| Stdio::from(said), Stdio::from)),
    }
    pipe::Receiver::from_owned_fd(heard.into())
}

/// Waits for its end, or brings it about.
async fn within(
    child: &mut Child,
    hold: Option<oneshot::Sender<()>>,
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
    // One that listens ends in order when nothing is said to it any more; others are interrupted. It may be gone already.
    match (hold.filter(|hold| !hold.is_closed()), pid) {
        (Some(hold), _) => drop(hold),
        (None, Some(pid)) => _ = kill_process(pid, Signal::INT),
        (None, None) => {}
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

fn not_started(name: &str, error: &std::io::Error) -> Fault {
    Fault::new(format!("start {name}"), error).next(
        "on Debian, restic is in the package of that name, setpriv in util-linux, and ssh in openssh-client",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_without_end_is_a_fault_and_takes_no_more_room() {
        let mut kept = Kept::of_at_most(10);
        kept.keep(b"12345");
        kept.keep(b"67890");
        assert_eq!(kept.octets, b"1234567890");
        for _ in 0..1_000 {
            kept.keep(b"more");
        }
        assert_eq!(kept.octets.len(), 10);
        assert!(kept.all("ask").unwrap_err().to_string().contains("more than 10 octets"));
    }

    /// A machine whose `ssh` says a secret as it fails.
    #[tokio::test]
    async fn what_a_lost_connection_said_is_quoted_without_secrets() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), "hunter22").unwrap();
        let secrets: serde_json::Value = serde_json::json!({"restic": {"file": dir.path().join("password")}});
        let secrets: Secrets = serde_json::from_value(secrets).unwrap();
        let repository: Repository =
            serde_json::from_value(serde_json::json!({"url": "/repo", "password": "secret:restic"})).unwrap();
        for code in [255, 98, 96] {
            let ssh: super::super::Ssh = serde_json::from_value(serde_json::json!({
                "hosts": ["*"],
                "known_hosts": "/dev/null",
                "command": ["sh", "-c", format!("echo it is hunter22 >&2; exit {code}")],
            }))
            .unwrap();
            let over = Over::new(&ssh, &"web1.example.com".parse().unwrap());
            let caller = Caller::new(&["restic".to_owned()], dir.path(), &repository, &secrets).unwrap();
            let stop = watch::Sender::new(None);
            let said = caller.on(&over).text(&["snapshots".to_owned()], &mut stop.subscribe()).await;
            let said = said.unwrap_err().to_string();
            assert!(said.contains("it is ") && !said.contains("hunter22"), "{said}");
        }
    }
}
