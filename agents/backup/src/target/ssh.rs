//! Other machines, by the OpenSSH client that the node's configuration names.
//!
//! What is to be done there goes as a script through the connection's standard input to the one command `sh`, so that nothing of it, no
//! secret above all, is in an argument or an environment on this machine. Over there restic reads its password and its
//! repository's address from pipes; other secrets (`AWS_…`) are in its own environment, which only its user and root can see.
//!
//! * A machine is who `known_hosts` says, or nothing is sent. Whatever `config` says, no key is ever learnt, nobody is asked, and
//!   nothing is forwarded.
//! * Every word of a script that is not ours is quoted. The script is one function, called in its last line: half of it does nothing.
//! * The connection's input stays open for as long as somebody here listens. When it closes, restic over there is interrupted and takes
//!   its lock back, any other script is terminated with all that it called, and dumps and what was restored as a test are removed. What
//!   became of a run whose connection is lost nobody here knows: it is made again, and until the first one has ended a lock on that
//!   machine says so.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use shoal_agent::{Fault, HostName};

use super::program::{self, Ended, Kept, Stop};
use super::settings::duration;
use crate::name::AbsPath;

/// The code of a script for: another run is at it.
const BUSY: i32 = 97;
/// For: the folder cannot be made.
const NO_FOLDER: i32 = 98;
/// For: a program is missing.
const NO_PROGRAM: i32 = 96;
/// The most that a script's answer may be, in octets: one machine that prints without end does not end this process.
const MAX_SAID: usize = 16 << 20;
/// What ssh itself ends with when it fails.
const LOST: i32 = 255;

/// Whether a script that ended so never came to restic: another run is at it, there is no folder, or no such program.
pub(crate) fn never_began(code: Option<i32>) -> bool {
    // The last two are a shell's own.
    matches!(code, Some(BUSY | NO_FOLDER | NO_PROGRAM | 126 | 127))
}

/// restic speaks into pipes that are read to their end also when nobody listens any more: it would die of a broken one, and leave its lock.
const PIPES: &str = "pipes=$(mktemp -d) && mkfifo \"$pipes/1\" \"$pipes/2\" || exit 98
exec 3<&0 </dev/null
pass() { trap '' PIPE; cat 2>/dev/null; exec cat >/dev/null 2>&1; }
pass <\"$pipes/1\" 3<&- 9>&- &
out=$!
pass <\"$pipes/2\" >&2 3<&- 9>&- &
err=$!
";
/// Interrupts it when nobody listens any more, and waits for its end.
const WAIT: &str = "pid=$!
( exec 9>&-; while read -r _; do :; done; : >\"$pipes/over\"; kill -INT \"$pid\" ) <&3 >/dev/null 2>&1 &
watch=$!
wait \"$pid\"; code=$?
kill \"$watch\" 2>/dev/null
";
/// The end of it.
const END: &str = "wait \"$out\" \"$err\"
rm -rf \"$pipes\"
exit \"$code\"
";

/// Terminates a script, with all that it called, when nobody listens any more, and waits for its end. It is a session of its own.
const WAIT_FOR_SCRIPT: &str = "pid=$!
( exec 9>&-; while read -r _; do :; done
kill -s TERM -- \"-$pid\"; sleep 10; kill -s KILL -- \"-$pid\" ) <&3 >/dev/null 2>&1 &
watch=$!
wait \"$pid\"; code=$?
kill \"$watch\" 2>/dev/null
";

/// `[agent.ssh]`: hosts that are backed up from this node, and how they are reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    /// Which hosts, by name, or `*.example.com` for all below.
    pub hosts: Vec<String>,
    /// The machines' public keys, as `ssh` writes them. One that is not in it is not spoken to.
    pub known_hosts: PathBuf,
    /// How `ssh` is called.
    #[serde(default = "command")]
    pub command: Vec<String>,
    /// A configuration of `ssh`: addresses, ports, users, jump hosts. Without it there is none.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// The private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// As whom.
    #[serde(default)]
    pub user: Option<String>,
    /// What reads scripts over there: `["sudo", "-n", "sh"]`.
    #[serde(default = "shell")]
    pub shell: Vec<String>,
    /// How restic is called over there.
    #[serde(default = "restic")]
    pub restic: Vec<String>,
    /// The folder for restic's cache, dumps and tests over there.
    #[serde(default = "state")]
    pub state: Option<AbsPath>,
    /// How long a connection may take to stand.
    #[serde(default = "connect", deserialize_with = "duration")]
    pub connect: Duration,
}

fn command() -> Vec<String> {
    ["setpriv", "--pdeathsig", "TERM", "ssh"].map(str::to_owned).to_vec()
}

fn shell() -> Vec<String> {
    vec!["sh".to_owned()]
}

fn restic() -> Vec<String> {
    vec!["restic".to_owned()]
}

fn state() -> Option<AbsPath> {
    "/var/lib/shoal/backup".parse().ok()
}

fn connect() -> Duration {
    Duration::from_secs(20)
}

impl Ssh {
    /// Whether this host is reached so.
    pub(crate) fn reaches(&self, host: &HostName) -> bool {
        let fits = |pattern: &String| match pattern.strip_prefix('*') {
            Some(end) => host.as_str().ends_with(end),
            None => pattern == host.as_str(),
        };
        self.hosts.iter().any(fits)
    }

    /// Whether it can work.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.command.is_empty() || self.shell.is_empty() || self.restic.is_empty() || self.state.is_none()
        {
            return Err("[agent.ssh] has an empty command");
        }
        let odd = |pattern: &String| {
            let rest = pattern.strip_prefix('*').unwrap_or(pattern);
            rest.contains('*') || (rest.len() < pattern.len() && !rest.is_empty() && !rest.starts_with('.'))
        };
        match self.hosts.iter().any(odd) {
            true => Err("[agent.ssh] hosts: names, \"*.example.com\", or \"*\""),
            false => Ok(()),
        }
    }
}

/// One word for a shell.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Ends a script where it has no such program.
fn needs(program: &str) -> String {
    format!("command -v {program} >/dev/null || {{ echo 'there is no {program}' >&2; exit {NO_PROGRAM}; }}\n")
}

/// How a script runs on another machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'w> {
    /// Whatever else does.
    Beside {
        /// What is removed where it does not come to its end.
        leaves: Option<&'w str>,
    },
    /// While no backup and no dump of the host is under way there.
    Alone {
        /// What is removed where it does not come to its end.
        leaves: Option<&'w str>,
    },
}

/// Another machine.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    ssh: Ssh,
    host: HostName,
}

/// What restic is called with over there.
pub(crate) struct Call<'c> {
    pub(crate) password: &'c str,
    pub(crate) url: &'c str,
    pub(crate) environment: &'c [(String, String)],
    pub(crate) args: Vec<&'c str>,
}

impl Over {
    pub(crate) fn new(ssh: &Ssh, host: &HostName) -> Self {
        Self { ssh: ssh.clone(), host: host.clone() }
    }

    /// The folder of the agent over there that is this host's.
    pub(crate) fn folder(&self) -> String {
        let state = self.ssh.state.as_ref().map_or("/var/lib/shoal/backup", AbsPath::as_str);
        format!("{state}/hosts/{}", self.host)
    }

    /// The client, as it is started.
    pub(crate) fn command(&self) -> Vec<String> {
        let ssh = &self.ssh;
        let mut command = ssh.command.clone();
        let config = ssh.config.as_ref().map_or("none".to_owned(), |path| path.display().to_string());
        command.extend(["-F".to_owned(), config, "-T".to_owned()]);
        let options = [
            "BatchMode=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile=\"{}\"", ssh.known_hosts.display()),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "UpdateHostKeys=no".to_owned(),
            "VerifyHostKeyDNS=no".to_owned(),
            format!("ConnectTimeout={}", ssh.connect.as_secs().max(1)),
            "ConnectionAttempts=1".to_owned(),
            "ServerAliveInterval=15".to_owned(),
            "ServerAliveCountMax=3".to_owned(),
            "ControlMaster=no".to_owned(),
            "ControlPath=none".to_owned(),
            "ClearAllForwardings=yes".to_owned(),
            "ForwardAgent=no".to_owned(),
            "ForwardX11=no".to_owned(),
            "PermitLocalCommand=no".to_owned(),
            "EscapeChar=none".to_owned(),
        ];
        command.extend(options.into_iter().flat_map(|option| ["-o".to_owned(), option]));
        if let Some(key) = &ssh.key {
            command.extend(["-o".to_owned(), "IdentitiesOnly=yes".to_owned()]);
            command.extend(["-i".to_owned(), key.display().to_string()]);
        }
        if let Some(user) = &ssh.user {
            command.extend(["-l".to_owned(), user.clone()]);
        }
        command.extend(["--".to_owned(), self.host.to_string()]);
        command.extend(ssh.shell.iter().map(|word| quote(word)));
        command
    }

    /// A script that calls restic, and interrupts it when nobody listens any more.
    ///
    /// # Errors
    /// A secret that cannot be handed over so.
    pub(crate) fn restic(&self, call: &Call<'_>) -> Result<String, Fault> {
        let what = format!("hand a secret over to {}", self.host);
        for secret in [call.password, call.url] {
            if secret.trim() != secret || secret.contains(['\n', '\r']) {
                return Err(
                    Fault::new(what, "it begins or ends with a space, or has several lines").permanent()
                );
            }
        }
        let end = format!("END_{}", uuid::Uuid::now_v7().simple());
        let mut line = format!(
            "RESTIC_PROGRESS_FPS=0.5 RESTIC_CACHE_DIR={}",
            quote(&format!("{}/cache", self.folder()))
        );
        for (name, value) in call.environment {
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(good) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(
                    Fault::new(what, format!("{name:?} is no variable of an environment")).permanent()
                );
            }
            let _ = write!(line, " {name}={}", quote(value));
        }
        let words = self.ssh.restic.iter().map(String::as_str);
        let words = words.chain(["--password-file", "/dev/fd/5", "--repository-file", "/dev/fd/6"]);
        words.chain(call.args.iter().copied()).for_each(|word| {
            let _ = write!(line, " {}", quote(word));
        });
        let lock = if call.args.contains(&"backup") { self.lock() } else { String::new() };
        // Otherwise it is used once more, or whoever listens has it removed.
        let clear = match self.of_the_run(&call.args) {
            Some(folder) => format!("if [ -e \"$pipes/over\" ]; then rm -rf {}; fi\n", quote(&folder)),
            None => String::new(),
        };
        Ok(format!(
            "main() {{\n{}{lock}{PIPES}{line} 3<&- >\"$pipes/1\" 2>\"$pipes/2\" 5<<'{end}' 6<<'{end}' &\n{}\n{end}\n{}\n{end}\n{WAIT}{clear}{END}}}\nmain\n",
            self.prepare(),
            call.password,
            call.url,
        ))
    }

    /// The folder over there that is this call's alone: its dumps, or what it restores as a test.
    fn of_the_run(&self, args: &[&str]) -> Option<String> {
        let kind = match args.first() {
            Some(&"backup") => "spool",
            Some(&"restore") => "test",
            _ => return None,
        };
        let all = format!("{}/{kind}/", self.folder());
        let name = args.iter().find_map(|arg| arg.strip_prefix(all.as_str())?.split('/').next())?;
        (!name.is_empty()).then(|| format!("{all}{name}"))
    }

    fn prepare(&self) -> String {
        format!(
            "umask 077\nLC_ALL=C; export LC_ALL\nmkdir -p {} || exit {NO_FOLDER}\n",
            quote(&self.folder())
        )
    }

    /// Held for as long as restic runs, also when the connection is lost.
    fn lock(&self) -> String {
        let path = quote(&format!("{}/lock", self.folder()));
        format!("{}exec 9>{path}\nflock -n 9 || exit {BUSY}\n", needs("flock"))
    }

    /// A script that is terminated when nobody listens any more; `Alone`: not while another one is at it.
    fn script(&self, body: &str, way: Way<'_>) -> String {
        let end = format!("END_{}", uuid::Uuid::now_v7().simple());
        let (lock, leaves) = match way {
            Way::Beside { leaves } => (String::new(), leaves),
            Way::Alone { leaves } => (self.lock(), leaves),
        };
        let clear = leaves.map(|folder| format!("rm -rf {}; ", quote(folder))).unwrap_or_default();
        // One that was killed, because what it called took no notice, removed nothing.
        let gone = leaves
            .map(|folder| format!("case \"$code\" in 137 | 143) rm -rf {};; esac\n", quote(folder)))
            .unwrap_or_default();
        // It waits for what it called, and then does no more.
        let trap = format!("trap {} TERM", quote(&format!("{clear}exit 143")));
        format!(
            "main() {{\n{}{}{lock}exec 3<&0 </dev/null\nsetsid sh /dev/fd/4 3<&- 4<<'{end}' &\n{trap}\n{body}\n{end}\n{WAIT_FOR_SCRIPT}{gone}exit \"$code\"\n}}\nmain\n",
            self.prepare(),
            needs("setsid"),
        )
    }

    /// Runs a script to its end, for what it prints.
    ///
    /// # Errors
    /// The machine cannot be reached, or the script failed, and what it said.
    pub(crate) async fn shell(
        &self,
        what: &str,
        body: &str,
        way: Way<'_>,
        limit: Duration,
        stop: &mut Stop,
    ) -> Result<String, Fault> {
        let script = self.script(body, way);
        // A line for each path at most.
        let mut text = Kept::of_at_most(MAX_SAID);
        let ended = program::over(self, script, limit, stop, what, |octets| text.keep(octets)).await?;
        match ended.code {
            Some(0) => Ok(String::from_utf8_lossy(&text.all(what)?).into_owned()),
            _ => Err(program::failed(what, &ended)),
        }
    }

    /// What an end means that is not restic's.
    ///
    /// # Errors
    /// The connection did not come about or was lost; another run is at it; there is no folder.
    pub(crate) fn judge(&self, what: &str, ended: Ended) -> Result<Ended, Fault> {
        let host = &self.host;
        match ended.code {
            Some(LOST) | None => {
                let said = ended.said.trim();
                let why = if said.is_empty() { "it ended".to_owned() } else { ended.last() };
                let next = match said.contains("Host key verification failed")
                    || said.contains("IDENTIFICATION HAS CHANGED")
                {
                    true => {
                        "where the machine's key is known to be right, write it into `known_hosts` of [agent.ssh]; nothing was sent"
                    }
                    false => {
                        "see whether the machine answers; what had begun there ends by itself, and is made again"
                    }
                };
                Err(Fault::new(what, format!("the connection to {host} failed or was lost: {why}"))
                    .next(next))
            }
            Some(BUSY) => {
                let why = format!("a run whose connection was lost is still at it on {host}");
                Err(Fault::new(what, why).next("it ends by itself"))
            }
            Some(NO_PROGRAM) => Err(Fault::new(what, format!("on {host}: {}", ended.last()))
                .next("install it there: on Debian it is in util-linux")),
            Some(NO_FOLDER) => Err(Fault::new(what, format!("on {host}: {}", ended.last()))
                .next("see `state` of [agent.ssh] in this node's configuration")),
            Some(_) => Ok(ended),
        }
    }
}

#[cfg(test)]
mod tests;
