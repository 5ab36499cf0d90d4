//! The node's own configuration: `/etc/shoal/<agent>.toml`.
//!
//! Commands, paths, credentials and endpoints stand here and nowhere else. The common part is the same for every
//! agent; the table `[agent]` is the agent's own:
//!
//! ```toml
//! store = "https://hostdb.example.com:8443"
//! ca = "/etc/shoal/ca.pem"     # and `cert` and `key`, or
//! token_file = "/run/credentials/shoal-dns.service/token"    # `password_file` where `store` is etcds://USER@…
//! listen = "127.0.0.1:9101"
//! max_change = "30%"
//! drift = "correct"            # or "report"
//!
//! [max_change_by_tag]
//! "dns/example.com" = "60%"
//!
//! [agent]
//! dir = "/etc/motd.d"
//! ```
//!
//! A field that nobody knows is an error, so that a slip is not taken for a setting.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use shoal_client::Access;
use shoal_core::TagName;
use shoal_engine::{Fault, MaxChange, OnDrift};

use crate::cli::Args;
use crate::exit::Failure;
use crate::secrets::Secrets;

/// The store when nothing says another.
const DEFAULT_STORE: &str = "sqlite:/var/lib/shoal/shoal.db";

/// The part that every agent has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Common {
    pub(crate) store: Option<String>,
    /// What is shown to the servers, and whom they must have their certificates from: see [`Access`].
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    token_file: Option<PathBuf>,
    /// Of the user that an address of etcd names.
    password_file: Option<PathBuf>,
    pub(crate) listen: Option<std::net::SocketAddr>,
    pub(crate) name: Option<String>,
    pub(crate) max_change: Option<MaxChange>,
    pub(crate) max_change_by_tag: BTreeMap<TagName, MaxChange>,
    /// For how long what was removed counts together with what is to be removed.
    #[serde(deserialize_with = "optional_duration")]
    pub(crate) max_change_within: Option<Duration>,
    pub(crate) drift: OnDrift,
    #[serde(deserialize_with = "optional_resync")]
    pub(crate) resync: Option<Duration>,
    /// How long a claim lasts.
    #[serde(deserialize_with = "optional_claim")]
    pub(crate) claim: Option<Duration>,
    /// The longest that one look or one batch may take.
    #[serde(deserialize_with = "optional_duration")]
    pub(crate) timeout: Option<Duration>,
    /// Retries a second of all items together.
    pub(crate) retry_rate: Option<u32>,
    /// The most changes of one batch.
    pub(crate) max_batch: Option<usize>,
    pub(crate) log: LogForm,
    /// Where the secrets are that documents name.
    pub(crate) secrets: Secrets,
    agent: Option<toml::Table>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogForm {
    /// For the journal or a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A configuration that was read, and where from.
#[derive(Clone, Debug)]
pub(crate) struct Config<C> {
    pub(crate) common: Common,
    pub(crate) agent: C,
    /// What stands in the file.
    pub(crate) text: String,
}

/// The file, for the table that is the agent's own.
#[derive(Deserialize)]
struct Own<C> {
    agent: C,
}

/// Where the configuration is: the file that was named, or `/etc/shoal/NAME.toml`.
pub(crate) fn path(args: &Args, program: &str) -> PathBuf {
    args.config.clone().unwrap_or_else(|| Path::new("/etc/shoal").join(format!("{program}.toml")))
}

/// The table `[agent]` and the secrets of a configuration, for what a program does beside being an agent.
///
/// # Errors
/// The file cannot be read, or is wrong, and where.
pub fn settings<C: DeserializeOwned>(path: &Path) -> Result<(C, Secrets), Fault> {
    let config = Config::<C>::read(path, true).map_err(|e| Fault::new("read the configuration", e))?;
    Ok((config.agent, config.common.secrets))
}

impl<C: DeserializeOwned> Config<C> {
    /// Reads it. A file that was named `must` be there, and so must one that was there before: editors take a file away
    /// for a moment, and nothing is no configuration then.
    pub(crate) fn read(path: &Path, must: bool) -> Result<Self, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(text, path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must => Self::none(path),
            Err(e) => Err(Failure::Usage(format!("cannot read the configuration {}: {e}", path.display()))),
        }
    }

    /// What a file of this text says.
    pub(crate) fn parse(text: String, path: &Path) -> Result<Self, Failure> {
        let wrong = |e: toml::de::Error| Failure::Usage(wrong(&e, &text, path));
        let common: Common = toml::from_str(&text).map_err(wrong)?;
        let agent = match &common.agent {
            // From the text, so that an error knows its line.
            Some(_) => toml::from_str::<Own<C>>(&text).map_err(wrong)?.agent,
            None => C::deserialize(toml::Table::new()).map_err(|e| {
                Failure::Usage(format!(
                    "the configuration {} has no table [agent]: {}",
                    path.display(),
                    without_value(e.message())
                ))
            })?,
        };
        Ok(Self { common, agent, text })
    }

    /// No file: all by default, if the agent can do with that.
    fn none(path: &Path) -> Result<Self, Failure> {
        let agent = C::deserialize(toml::Table::new()).map_err(|e| {
            let why = without_value(e.message());
            let field = why.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
            let line = field.map(|(name, _)| format!("\n    {name} = …")).unwrap_or_default();
            Failure::Usage(format!(
                "there is no configuration: {path} does not exist, and --config names no other file; {why}. \
                 Write into {path}:\n\n    [agent]{line}",
                path = path.display()
            ))
        })?;
        Ok(Self { common: Common::default(), agent, text: String::new() })
    }

    /// Which store to open.
    pub(crate) fn store(&self, args: &Args) -> String {
        let chosen = args.store.clone().or_else(|| self.common.store.clone());
        chosen.unwrap_or_else(|| DEFAULT_STORE.to_owned())
    }

    /// What to show to it.
    pub(crate) fn access(&self, args: &Args) -> Access {
        let Common { ca, cert, key, token_file, password_file, .. } = self.common.clone();
        args.access.clone().or(Access { ca, cert, key, token_file, password_file })
    }
}

/// What is wrong and where, without the text around it, which may hold a password.
fn wrong(error: &toml::de::Error, text: &str, path: &Path) -> String {
    let at = error.span().and_then(|span| text.get(..span.start)).map(|before| {
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!(", line {line}, column {column}")
    });
    format!(
        "the configuration {}{} is wrong: {}",
        path.display(),
        at.unwrap_or_default(),
        without_value(error.message())
    )
}

/// `invalid type: string "secret", expected u16` without the secret.
fn without_value(message: &str) -> String {
    let parts = ["invalid type: ", "invalid value: "].iter().find_map(|start| {
        let (value, expected) = message.strip_prefix(start)?.rsplit_once(", expected ")?;
        let kind = value.split(['"', '`']).next().unwrap_or_default().trim_end();
        Some(format!("{start}{kind}, expected {expected}"))
    });
    parts.unwrap_or_else(|| message.trim_end().to_owned())
}

/// After how long everything is looked at again. More often, a unit would never be done with looking.
pub(crate) fn resync(text: &str) -> Result<Duration, String> {
    at_least(text, "resync", 1)
}

/// How long a claim lasts. One that lasts no longer would be lost by any pause of the network or the machine.
fn claim(text: &str) -> Result<Duration, String> {
    at_least(text, "claim", 3)
}

fn at_least(text: &str, what: &str, seconds: u64) -> Result<Duration, String> {
    let span = shoal_core::span(text).map_err(|e| e.to_string())?;
    if span < Duration::from_secs(seconds) {
        return Err(format!("{what} is at least {seconds}s"));
    }
    Ok(span)
}

fn optional_resync<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    resync(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

fn optional_claim<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    claim(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

fn optional_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    shoal_core::span(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests;
