//! The node's own configuration: `/etc/shoal/<agent>.toml`.
//!
//! Commands, paths, credentials and endpoints stand here and nowhere else. The common part is the same for every
//! agent; the table `[agent]` is the agent's own:
//!
//! ```toml
//! store = "sqlite:/var/lib/shoal/shoal.db"
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
use shoal_core::TagName;
use shoal_engine::{MaxChange, OnDrift};

use crate::cli::{Args, duration};
use crate::exit::Failure;

/// The store when nothing says another.
const DEFAULT_STORE: &str = "sqlite:/var/lib/shoal/shoal.db";

/// The part that every agent has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Common {
    pub(crate) store: Option<String>,
    pub(crate) listen: Option<std::net::SocketAddr>,
    pub(crate) name: Option<String>,
    pub(crate) max_change: Option<MaxChange>,
    pub(crate) max_change_by_tag: BTreeMap<TagName, MaxChange>,
    pub(crate) drift: OnDrift,
    #[serde(deserialize_with = "optional_duration")]
    pub(crate) resync: Option<Duration>,
    /// How long a claim lasts.
    #[serde(deserialize_with = "optional_duration")]
    pub(crate) claim: Option<Duration>,
    /// The longest that one look or one batch may take.
    #[serde(deserialize_with = "optional_duration")]
    pub(crate) timeout: Option<Duration>,
    /// Retries a second of all items together.
    pub(crate) retry_rate: Option<u32>,
    /// The most changes of one batch.
    pub(crate) max_batch: Option<usize>,
    pub(crate) log: LogForm,
    agent: toml::Table,
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
    pub(crate) path: PathBuf,
}

impl<C: DeserializeOwned> Config<C> {
    /// Reads it. A file that was named must be there; the default one may be missing.
    pub(crate) fn read(args: &Args, program: &str) -> Result<Self, Failure> {
        let named = args.config.clone();
        let path = named.clone().unwrap_or_else(|| Path::new("/etc/shoal").join(format!("{program}.toml")));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => String::new(),
            Err(e) => {
                return Err(Failure::Usage(format!("cannot read the configuration {}: {e}", path.display())));
            }
        };
        let wrong = |e: toml::de::Error| {
            let hint = if text.is_empty() { " (the file is missing or empty)" } else { "" };
            Failure::Usage(format!(
                "the configuration {} is wrong{hint}: {}",
                path.display(),
                e.to_string().trim_end()
            ))
        };
        let common: Common = toml::from_str(&text).map_err(wrong)?;
        let agent = C::deserialize(common.agent.clone()).map_err(|e| {
            Failure::Usage(format!(
                "the table [agent] of the configuration {} is wrong: {}",
                path.display(),
                e.to_string().trim_end()
            ))
        })?;
        Ok(Self { common, agent, path })
    }

    /// Which store to open.
    pub(crate) fn store(&self, args: &Args) -> String {
        let chosen = args.store.clone().or_else(|| self.common.store.clone());
        chosen.unwrap_or_else(|| DEFAULT_STORE.to_owned())
    }
}

fn optional_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    duration(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Own {
        dir: PathBuf,
    }

    fn read(text: &str) -> Result<Config<Own>, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&Args { config: Some(path), ..Args::default() }, "x")
    }

    #[test]
    fn both_parts_are_typed() {
        let config =
            read("resync = '90s'\nmax_change = '50%'\ndrift = 'report'\n[max_change_by_tag]\n'dns/a' = '70%'\n[agent]\ndir = '/d'")
                .unwrap();
        assert_eq!(config.common.resync, Some(Duration::from_secs(90)));
        assert_eq!(config.common.max_change, Some(MaxChange(50)));
        assert_eq!(config.common.drift, OnDrift::Report);
        assert_eq!(config.agent.dir, Path::new("/d"));
    }

    #[test]
    fn slips_are_errors_that_name_the_file_and_the_field() {
        for (text, names) in [
            ("max_chnge = '5%'\n[agent]\ndir = '/d'", "max_chnge"),
            ("max_change = '500%'\n[agent]\ndir = '/d'", "500%"),
            ("[agent]\ndri = '/d'", "dri"),
            ("", "dir"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(names) && error.contains("x.toml"), "{error}");
        }
    }
}
