//! `[agent]` of the node's configuration: what the names in policies mean here, and with which credentials.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use shoal_agent::secrets::{SecretRef, Secrets};
use shoal_agent::{Base, Fault};

use super::Restic;
use super::ssh::Ssh;
use crate::agent::Backup;
use crate::name::{AbsPath, Label};

/// `[agent]` of the node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the agent keeps what it knows of its runs, restic's cache, dumps under way and what a test restores.
    #[serde(default = "state")]
    pub state: PathBuf,
    /// How restic is called: the program and what stands before its own arguments.
    #[serde(default = "restic")]
    pub restic: Vec<String>,
    /// What this machine is called in the database; by default what it calls itself. Its backups are made here.
    #[serde(default)]
    pub host: Option<String>,
    /// Other hosts whose files are here, and in which folder: a container's root, a guest's file system.
    #[serde(default)]
    pub roots: BTreeMap<String, PathBuf>,
    /// Policies may name paths in these folders only.
    #[serde(default = "everything")]
    pub allow: Vec<AbsPath>,
    /// Policies may remove what is backed up from these folders only; from none where nothing is said.
    #[serde(default)]
    pub purge: Vec<AbsPath>,
    /// Whether files are purged also where some process of the machine cannot be asked what it has open: in a container, for example.
    #[serde(default)]
    pub unseen: bool,
    /// At most so many runs at once on one physical machine.
    #[serde(default = "per_box")]
    pub per_box: u32,
    /// The longest that one run may take.
    #[serde(default = "limit", deserialize_with = "duration")]
    pub limit: Duration,
    /// How long after a first failure something is tried again; doubled each time, up to twelve times that.
    #[serde(default = "retry", deserialize_with = "duration")]
    pub retry: Duration,
    /// How long a repository may take to answer before a run, or it is taken to be away.
    #[serde(default = "answer", deserialize_with = "duration")]
    pub answer: Duration,
    /// Other hosts that are backed up from here, over SSH.
    #[serde(default)]
    pub ssh: Option<Ssh>,
    /// The repositories, by the names that policies have for them.
    pub repositories: BTreeMap<Label, Repository>,
    /// The commands of dumps, by the names that policies have for them: a program with its arguments, `{name}` for what is asked of
    /// it. What it prints is backed up.
    #[serde(default)]
    pub dumps: BTreeMap<Label, Vec<String>>,
}

/// A repository of restic.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Where it is, as restic writes it (`/srv/restic`, `sftp:…`, `rest:https://…`, `s3:…`), or `secret:NAME` where that holds a password.
    pub url: String,
    /// Its password.
    pub password: SecretRef,
    /// Variables of the environment for restic: `AWS_SECRET_ACCESS_KEY = "secret:s3"`.
    #[serde(default)]
    pub environment: BTreeMap<String, SecretRef>,
    /// restic's own extended options: `sftp.command=ssh -i /etc/shoal/id repo -s sftp`.
    #[serde(default)]
    pub options: Vec<String>,
    /// At most so many runs at once.
    #[serde(default = "parallel")]
    pub parallel: u32,
    /// With what snapshots are removed. Without it, this node removes none.
    #[serde(default)]
    pub removal: Option<Removal>,
}

/// With what snapshots are removed: what is left out is as for backups.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// Where the repository is for whoever may remove from it.
    #[serde(default)]
    pub url: Option<String>,
    /// The password.
    #[serde(default)]
    pub password: Option<SecretRef>,
    /// Variables of the environment, instead of those for backups.
    #[serde(default)]
    pub environment: Option<BTreeMap<String, SecretRef>>,
    /// restic's own extended options, instead of those for backups.
    #[serde(default)]
    pub options: Option<Vec<String>>,
}

impl Repository {
    /// This repository as whoever may remove from it comes to it.
    #[must_use]
    pub fn removing(&self) -> Option<Self> {
        let removal = self.removal.as_ref()?;
        Some(Self {
            url: removal.url.clone().unwrap_or_else(|| self.url.clone()),
            password: removal.password.clone().unwrap_or_else(|| self.password.clone()),
            environment: removal.environment.clone().unwrap_or_else(|| self.environment.clone()),
            options: removal.options.clone().unwrap_or_else(|| self.options.clone()),
            ..self.clone()
        })
    }

    /// Whether it is a folder of the machine that restic runs on.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.url.starts_with('/')
    }

    /// Where it is, for people: without what stands before an `@`.
    #[must_use]
    pub fn place(&self) -> String {
        match self.url.split_once("://") {
            Some((scheme, rest)) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                format!("{scheme}://{}/{path}", host.rsplit('@').next().unwrap_or_default())
            }
            None => self.url.clone(),
        }
    }
}

impl Settings {
    /// The agent and its target. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(self, secrets: Secrets, base: Base) -> Result<(Backup, Restic), Fault> {
        let bad = |why: &str| Fault::new("read the configuration", why).permanent();
        if self.restic.is_empty() || self.dumps.values().any(Vec::is_empty) {
            return Err(bad("a command is a program and its arguments, and here one is empty"));
        }
        if self.repositories.is_empty() {
            return Err(bad("it names no repository").next("give it a table [agent.repositories.NAME]"));
        }
        if !self.state.is_absolute() || self.roots.values().any(|root| !root.is_absolute()) {
            return Err(bad("`state` and `roots` are absolute paths"));
        }
        if let Some(why) = self.ssh.as_ref().and_then(|ssh| ssh.check().err()) {
            return Err(bad(why));
        }
        let retry = i64::try_from(self.retry.as_millis()).unwrap_or(i64::MAX / 64).max(1);
        Ok((Backup { retry }, Restic::new(self, secrets, base)))
    }
}

fn state() -> PathBuf {
    "/var/lib/shoal/backup".into()
}

/// With what ends restic when the agent is killed, in a way that it clears its locks.
fn restic() -> Vec<String> {
    ["setpriv", "--pdeathsig", "INT", "restic"].map(str::to_owned).to_vec()
}

fn everything() -> Vec<AbsPath> {
    "/".parse().into_iter().collect()
}

fn per_box() -> u32 {
    2
}

fn parallel() -> u32 {
    4
}

fn limit() -> Duration {
    Duration::from_secs(12 * 3_600)
}

fn answer() -> Duration {
    Duration::from_secs(60)
}

fn retry() -> Duration {
    Duration::from_secs(300)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    shoal_agent::span(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}
