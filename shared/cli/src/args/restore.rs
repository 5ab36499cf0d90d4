//! What `shoal restore` may say. What it means, the backup agent's own program knows.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// `restore`
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// Whose files
    host: String,
    /// Only this file or folder, by its path on the host
    path: Option<String>,
    /// As of when: 2026-03-01, 2026-03-01T12:00 (UTC), 2026-03-01T12:00:00+01:00 [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Where to: a folder that is not there yet, or is empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only what this policy backed up
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// From this repository [default: the one with the newest]
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// The backup agent's configuration [default: /etc/shoal/backup.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Restore {
    /// The same, for the program that does it.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["restore".into()];
        let texts = [("--at", &self.at), ("--policy", &self.policy), ("--repository", &self.repository)];
        for (name, value) in texts {
            words.extend(value.iter().flat_map(|value| [name.into(), value.into()]));
        }
        words.extend(["--to".into(), self.to.clone().into()]);
        words.extend(self.config.iter().flat_map(|file| ["--config".into(), file.into()]));
        words.push("--".into());
        words.push(self.host.clone().into());
        words.extend(self.path.iter().map(OsString::from));
        words
    }
}
