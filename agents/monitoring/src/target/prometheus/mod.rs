//! Prometheus: files of targets that it watches (`file_sd_configs`), and files of alert rules.
//!
//! The hosts stand in 64 files, by their names, and each tag with rules has one. A change writes the files that it touches, each whole or not at all. Prometheus reads targets by
//! itself; rules are checked by `promtool` first, and then it is told to read them. What is wanted is what stands in the files, so what is there is known from them alone.
//!
//! **Stopped anywhere**, the next look tells the truth: it reads the files, and asks the server whether it read its rules since they were written.
//!
//! **Fencing**: a file checks no number. No file is replaced after the claim's end.

mod endpoint;
mod rules;
mod targets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shoal_agent::{Applied, Batch, Fault, Fence, Observed, Scope, owner};

use endpoint::Endpoint;
use rules::Rules;
pub use rules::RulesSettings;
use targets::Targets;

use crate::agent::Monitoring;
use crate::item::Key;

/// `[agent.prometheus]` in the node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrometheusSettings {
    /// Shoal's own folder. Prometheus reads `shoal-*.json` in it.
    pub directory: PathBuf,
    /// Where the targets are answered over HTTP, too; nowhere.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Alert rules; without it, none are written.
    #[serde(default)]
    pub rules: Option<RulesSettings>,
}

/// A Prometheus server.
#[derive(Debug)]
pub struct Prometheus {
    targets: Targets,
    endpoint: Option<Endpoint>,
    rules: Option<Rules>,
}

impl Prometheus {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(settings: PrometheusSettings) -> Result<Self, Fault> {
        let PrometheusSettings { directory, listen, rules } = settings;
        let relative =
            !directory.is_absolute() || rules.as_ref().is_some_and(|rules| !rules.directory.is_absolute());
        if relative || rules.as_ref().is_some_and(|rules| rules.directory == directory) {
            let why =
                "each directory must be a path that begins with /, and those of targets and rules are two";
            return Err(Fault::new("read [agent.prometheus] of the configuration", why).permanent());
        }
        Ok(Self {
            targets: Targets { directory },
            endpoint: listen.map(Endpoint::new),
            rules: rules.map(Rules::open).transpose()?,
        })
    }

    pub(super) fn location(&self) -> String {
        format!("files for Prometheus in {}", self.targets.directory.display())
    }

    pub(super) async fn start(&self) -> Result<(), Fault> {
        match &self.endpoint {
            Some(endpoint) => endpoint.start(self.targets.clone()).await,
            None => Ok(()),
        }
    }

    pub(super) async fn stop(&self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.stop().await;
        }
    }

    pub(super) async fn look(&self, scope: Scope<'_, Key>) -> Result<Observed<Monitoring>, Fault> {
        let mut seen = BTreeMap::new();
        self.targets.look(scope, &mut seen)?;
        if let Some(rules) = &self.rules {
            rules.look(&mut seen).await?;
        }
        Ok(Observed { seen, complete: true })
    }

    pub(super) async fn change(
        &self,
        batch: &Batch<Monitoring>,
        fence: &Fence,
    ) -> Result<Applied<Monitoring>, Fault> {
        fence.check()?;
        let folders = [Some(&self.targets.directory), self.rules.as_ref().map(Rules::directory)];
        for folder in folders.into_iter().flatten() {
            claim(folder, fence)?;
        }
        let mut each = self.targets.change(batch, fence);
        each.extend(Rules::change(self.rules.as_ref(), batch, fence).await);
        Ok(Applied { each, facts: Vec::new() })
    }
}

fn claim(folder: &Path, fence: &Fence) -> Result<(), Fault> {
    let kind = owner::Kind {
        what: "folder for Prometheus",
        files: "files for Prometheus",
        page: "docs/agents/monitoring.md, One folder, one database",
    };
    owner::claim(folder, fence.epoch, &kind)
}

/// Prometheus is somebody else, whatever the umask.
fn open_to_readers(path: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .map_err(|e| Fault::new(format!("let Prometheus read {}", path.display()), e))
}
