//! The files of all pools together: HAProxy reads them all or none.
//!
//! So a candidate is checked together with the others, a reload must not lose one of them, and one odd file (that cannot be read, or that
//! somebody edited) must not stop the other pools.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shoal_agent::{Change, Fault, command, files};
use tokio::time::{Instant, sleep};

use super::reload::reload;
use super::{ENDING, Haproxy, live, render};
use crate::target::coalesce::Coming;
use crate::target::facts::{self, Report};
use crate::target::index::Text;

/// How long the files of other pools may be missing when HAProxy is to be reloaded.
const MOMENT: Duration = Duration::from_secs(2);
/// How often it is looked whether they are there.
const POLL: Duration = Duration::from_millis(50);

impl Haproxy {
    /// The files of all pools.
    fn files(&self) -> Result<Vec<(String, PathBuf)>, Fault> {
        facts::files(&self.settings.directory, ENDING)
    }

    /// What is to be told of hosts. Of a pool whose file is odd, HAProxy says who serves in it.
    ///
    /// # Errors
    /// The folder cannot be read, or HAProxy is to be asked and does not answer.
    pub(super) async fn facts(&self, name: &str, report: &Report) -> Result<Vec<Change>, Fault> {
        if report.hosts.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = self.index.all(&self.language, &self.files()?);
        for (pool, text) in &mut all {
            let Err(odd) = &text.servers else { continue };
            tracing::warn!(pool, why = odd.why, "its file is odd: HAProxy is asked who serves in it");
            if let Some(live) = self.live(pool).await? {
                let drains = |running: &live::Running| running.withdrawn || running.weight == 0;
                let servers: BTreeMap<_, _> =
                    live.servers.iter().map(|(host, running)| (host.clone(), drains(running))).collect();
                *text = Arc::new(Text::of_servers(servers));
            }
        }
        Ok(facts::of(name, report, &all))
    }

    /// Makes HAProxy read its files for this pool.
    pub(super) async fn reload(&self, name: &str, coming: Coming<'_>) -> Result<(), Fault> {
        self.lose_no_other(name).await?;
        self.reloads.run(coming, reload(&self.stats, &self.master, self.settings.limit())).await
    }

    /// Refuses a reload that would take another pool out of work because somebody took its file away. Where several are gone, each is
    /// made anew by whoever looks at it, so it is waited for a moment.
    async fn lose_no_other(&self, name: &str) -> Result<(), Fault> {
        let end = Instant::now() + MOMENT;
        while let Some(pool) = self.lost(name).await? {
            if Instant::now() >= end {
                let why =
                    format!("the file of the pool {pool} is gone, and HAProxy would do without that pool");
                let next = "its next look makes it anew; or reload HAProxy by hand to do without";
                return Err(Fault::new(format!("reload HAProxy for the pool {name}"), why).next(next));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// A pool that HAProxy runs with, that no file has, and that nobody is taking away.
    async fn lost(&self, name: &str) -> Result<Option<String>, Fault> {
        for pool in live::backends(&self.stats).await? {
            let kept = pool == name || self.has(&pool) || self.unsettled(&pool)?.is_some();
            if !kept && live::form(&self.stats, &render::variable(&pool)).await?.is_some() {
                return Ok(Some(pool));
            }
        }
        Ok(None)
    }

    /// Whether HAProxy finds a pool in its file.
    fn has(&self, pool: &str) -> bool {
        let path = self.path(pool);
        // It passes over a folder.
        path.is_file()
            && self.index.look(&self.language, pool, &path).is_some_and(|text| match &text.servers {
                Ok(_) => true,
                // It may be an edit that HAProxy takes; what cannot be read here, it may read.
                Err(odd) => odd.text.as_ref().is_none_or(|text| {
                    text.lines().any(|line| line.split_whitespace().eq(["backend", pool]))
                }),
            })
    }

    /// Puts the text of a pool in place (`None`: away), if HAProxy takes all files together.
    pub(super) async fn place(&self, name: &str, text: Option<&str>) -> Result<(), Fault> {
        let _one = self.placing.lock().await;
        // Hidden, so that HAProxy does not read it: a start of its own may come at any moment.
        let candidate = self.settings.directory.join(format!(".{name}.candidate"));
        let mut pools = self.files()?;
        pools.retain(|(pool, _)| pool != name);
        if let Some(text) = text {
            files::put(&candidate, Some(text))?;
            pools.push((name.to_owned(), candidate.clone()));
        }
        pools.sort_unstable();
        let checked = self.check(name, &pools).await;
        let placed = checked.and_then(|()| files::put(&self.path(name), text));
        if text.is_some() {
            files::put(&candidate, None)?;
        }
        placed
    }

    /// Has HAProxy check these files; where it refuses them, once more without those of other pools that are not as Shoal made them.
    async fn check(&self, name: &str, pools: &[(String, PathBuf)]) -> Result<(), Fault> {
        let Err(why) = self.checked(pools).await else { return Ok(()) };
        let fault = |why: String| Fault::new(format!("have the pool {name} checked"), why);
        let as_made = |(pool, path): &&(String, PathBuf)| {
            pool == name || self.index.look(&self.language, pool, path).is_some_and(|text| text.as_made)
        };
        let (good, edited): (Vec<_>, Vec<_>) = pools.iter().partition(as_made);
        let edited: Vec<&str> = edited.into_iter().map(|(pool, _)| pool.as_str()).collect();
        if edited.is_empty() {
            return Err(fault(why));
        }
        let good: Vec<_> = good.into_iter().cloned().collect();
        let edited = edited.join(", ");
        if self.checked(&good).await.is_err() {
            let next = format!("somebody edited the files of these pools, too: {edited}");
            return Err(fault(why).next(next));
        }
        tracing::warn!(
            pool = name,
            why,
            "HAProxy refuses what somebody edited in the files of these pools: {edited}; this one is checked without"
        );
        Ok(())
    }

    async fn checked(&self, pools: &[(String, PathBuf)]) -> Result<(), String> {
        let all = pools.iter().flat_map(|(_, path)| ["-f".to_owned(), path.display().to_string()]);
        let all: Vec<String> = all.collect();
        let check = self.settings.check.iter();
        let check: Vec<String> =
            check.flat_map(|word| if word == "{pools}" { all.clone() } else { vec![word.clone()] }).collect();
        command::run(&check, &[], self.settings.limit()).await
    }
}
