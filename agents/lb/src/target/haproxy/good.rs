//! The last good file of a pool, kept beside the new one until it is known what became of that.
//!
//! The check does not find everything (that another process has a port), so a reload may fail, and an agent may be killed in it. Then
//! what HAProxy runs with must not be lost: it would not start any more.

use shoal_agent::{Fault, Seen, files};

use super::{ENDING, Haproxy};

/// What the names of last good files end with. They are hidden, too.
const GOOD: &str = ".good";

impl Haproxy {
    fn good(&self, name: &str) -> std::path::PathBuf {
        self.settings.directory.join(format!(".{name}{GOOD}"))
    }

    /// What stands in the pool's file, whoever wrote it.
    pub(super) fn stands(&self, name: &str) -> Result<Option<String>, Fault> {
        let path = self.path(name);
        text(files::read(&path)).map_err(|why| Fault::new(format!("read {}", path.display()), why))
    }

    /// What stood in the pool's file before a change of which nobody knows what became: empty if there was none.
    pub(super) fn unsettled(&self, name: &str) -> Result<Option<String>, Fault> {
        let path = self.good(name);
        text(files::read(&path)).map_err(|why| Fault::new(format!("read {}", path.display()), why))
    }

    /// Keeps what stands in the pool's file, and answers what is good to go back to.
    pub(super) fn keep_good(&self, name: &str) -> Result<Option<String>, Fault> {
        let stands = self.stands(name)?;
        if stands.is_some()
            && let Some(good) = self.unsettled(name)?
        {
            // What stands there is of a change that was never ended.
            return Ok(Some(good).filter(|good| !good.is_empty()));
        }
        files::put(&self.good(name), Some(stands.as_deref().unwrap_or_default()))?;
        Ok(stands)
    }

    /// Puts the last good file back, unless what stands there is none of `ours`: then somebody else has begun something.
    pub(super) fn go_back(
        &self,
        name: &str,
        good: Option<&str>,
        ours: [Option<&str>; 2],
    ) -> Result<(), Fault> {
        let stands = self.stands(name)?;
        if !ours.contains(&stands.as_deref()) {
            return Ok(());
        }
        if stands.as_deref() != good {
            files::put(&self.path(name), good)?;
        }
        self.settled(name)
    }

    /// What stands in the pool's file is good.
    pub(super) fn settled(&self, name: &str) -> Result<(), Fault> {
        let path = self.good(name);
        if path.exists() { files::put(&path, None) } else { Ok(()) }
    }

    /// Puts back the last good file of each pool whose reload nobody ended, where HAProxy does not run: with the new one it may not start.
    pub(in crate::target) async fn recover(&self) -> Result<(), Fault> {
        let names = files::names::<String>(&self.settings.directory)?;
        let pools: Vec<&str> =
            names.iter().filter_map(|name| name.strip_prefix('.')?.strip_suffix(GOOD)).collect();
        if pools.is_empty() || !self.settings.tell || self.stats.ask("show info").await.is_ok() {
            return Ok(());
        }
        for name in pools {
            // Without a file, the pool was about to go: HAProxy starts without it.
            if names.contains(&format!("{name}{ENDING}"))
                && let Some(good) = self.unsettled(name)?
            {
                tracing::warn!(
                    pool = name,
                    "HAProxy does not run, and its last reload was not ended: the file before it is put back"
                );
                let good = Some(good.as_str()).filter(|good| !good.is_empty());
                files::put(&self.path(name), good)?;
                self.settled(name)?;
            }
        }
        Ok(())
    }
}

fn text(seen: Seen<String>) -> Result<Option<String>, String> {
    match seen {
        Seen::There(text) | Seen::Ours(text) => Ok(Some(text)),
        Seen::Nothing => Ok(None),
        Seen::Unknown(why) => Err(why),
    }
}
