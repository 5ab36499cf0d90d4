//! A batch of changes of one pool: a candidate in its place, the check of nginx's whole configuration, a reload, and what stood there
//! before where either fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_agent::{Applied, Batch, Edit, Fault, Fence, TagName, command, files, owner};
use tokio::time::{Instant, sleep};

use super::render::{Block, Language};
use super::running::{self, Complaints};
use super::{Nginx, Texts, at_work, serves, status};
use crate::agent::Lb;
use crate::item::Pool;
use crate::leave::Told;
use crate::target::changes::{self, Each};
use crate::target::facts::Report;
use crate::target::file::{self, Said};

const KIND: owner::Kind<'static> =
    owner::Kind { what: "folder of pools", files: "pools", page: "docs/agents/lb.md" };
/// How often it is looked whether nginx has read its configuration.
const POLL: Duration = Duration::from_millis(10);
/// How long nginx may go on after a complaint: it tries five times, half a second apart, whether a port has come free.
const AFTER: Duration = Duration::from_secs(4);
/// How long a request that an old process took, and has not passed on yet, is given after a reload.
const LAST: Duration = Duration::from_millis(300);

impl Nginx {
    /// Makes the changes of a pool.
    pub(in crate::target) async fn apply(
        &self,
        tag: &TagName,
        batch: &Batch<Lb>,
        fence: &Fence,
    ) -> Result<Applied<Lb>, Fault> {
        let name = tag.key();
        fence.check()?;
        owner::claim(&self.settings.directory, fence.epoch, &KIND)?;
        let texts = self.texts(name)?;
        let before = self.said(name, &texts)?;
        if let Some(Edit { to: None, .. }) = changes::of_pool(batch) {
            return self.remove(name, batch, before, fence).await;
        }
        let before = match before {
            None => self.lost(name).await?,
            before => before,
        };
        let stands = before.as_ref().map(|said| said.pool.clone());
        let Some(pool) = changes::pool_of(batch, stands) else {
            let facts = self.facts(name, &changes::report_no_pool(batch))?;
            return Ok(changes::no_pool(batch, facts));
        };
        self.takes(name, &pool)?;
        let mut each = Each::new();
        if let Some(said) = before.as_ref().filter(|_| self.settings.tell && changes::anybody_leaves(batch)) {
            let spare = at_work(said).saturating_sub(pool.least);
            changes::keep_least(batch, spare, &mut each, |host| serves(said, host));
        }
        let block = Block::of(pool.protocol);
        let mut after =
            Said { pool, whole: true, servers: before.map(|said| said.servers).unwrap_or_default() };
        changes::enter_all(&mut after, batch, &each);
        let texts = Texts::of(block, file::text(&Language, name, &after));
        self.put(name, texts.clone()).await?;
        files::put(&self.remembered(name), Some(&serde_json::to_string(&texts).unwrap_or_default()))?;
        files::put(&self.last_good(name), None)?;
        let facts = self.facts(name, &changes::report(batch, &each))?;
        Ok(changes::applied(batch, each, fence, facts))
    }

    /// Refuses a pool that nginx would not read.
    fn takes(&self, name: &str, pool: &Pool) -> Result<(), Fault> {
        let (word, said) = match Block::of(pool.protocol) {
            Block::Http => ("http", self.settings.http),
            Block::Stream => ("stream", self.settings.stream),
        };
        if said {
            return Ok(());
        }
        let why =
            format!("its protocol belongs into the block `{word}`, and this nginx reads no pools there");
        let next = format!("have the block include the folder, and write {word} = true in [agent.nginx]");
        Err(Fault::new(format!("give nginx the pool {name}"), why).next(next).permanent())
    }

    /// Puts the texts of a pool in place, and has nginx run with them; else what stood there stands there again.
    ///
    /// What stood there before is kept beside it until nginx runs with what stands there now: of a pool that has such a file nobody knows
    /// what nginx runs with, whatever stands in its place. Who calls this takes it away when all is done.
    async fn put(&self, name: &str, after: Texts) -> Result<(), Fault> {
        let coming = self.settings.tell.then(|| self.reloads.coming());
        let last_good = self.place(name, &after).await?;
        let reloaded = match coming {
            Some(coming) if last_good.is_some() || !self.runs(name, &after).await? => {
                self.reloads.run(coming, self.reload()).await
            }
            _ => Ok(()),
        };
        if let Some(last_good) = last_good.filter(|_| reloaded.is_err()) {
            let _one = self.placing.lock().await;
            self.write(name, &last_good)?;
            files::put(&self.last_good(name), None)?;
        }
        reloaded
    }

    /// Whether nginx runs with these texts, as far as it says.
    async fn runs(&self, name: &str, texts: &Texts) -> Result<bool, Fault> {
        Ok(self.live().await?.is_some_and(|live| match texts.one() {
            Some(text) => live.runs(name, text),
            None => live.status.is_some_and(|status| status::of(&status, name).is_none()),
        }))
    }

    /// Puts the texts of a pool in place, if nginx takes its whole configuration with them. Answers what is good to go back to;
    /// nothing, if they stand there already.
    ///
    /// The candidate stands in its own place while it is checked: a copy of the configuration elsewhere would not find what it includes
    /// by relative paths, and the folder may be included from anywhere.
    async fn place(&self, name: &str, after: &Texts) -> Result<Option<Texts>, Fault> {
        let _one = self.placing.lock().await;
        let kept = self.last_good(name);
        let stands = self.texts(name)?;
        if !kept.exists() && stands == *after {
            return Ok(None);
        }
        // Of a change that was not brought to its end: what stands there may be what nginx does not take.
        let before = self.interrupted(name)?.unwrap_or(stands);
        files::put(&kept, Some(&serde_json::to_string(&before).unwrap_or_default()))?;
        self.write(name, after)?;
        let checked = command::run(&self.settings.check, &[], self.settings.limit()).await;
        if let Err(why) = checked {
            self.write(name, &before)?;
            files::put(&kept, None)?;
            return Err(Fault::new(format!("have the pool {name} checked"), why));
        }
        Ok(Some(before))
    }

    fn write(&self, name: &str, texts: &Texts) -> Result<(), Fault> {
        for block in Block::ALL {
            let path = self.path(name, block);
            let text = texts.get(block);
            if std::fs::read_to_string(&path).ok().as_ref() != text {
                files::put(&path, text.map(String::as_str))?;
            }
        }
        Ok(())
    }

    /// Has nginx read all files as they stand, and waits until it runs with them.
    async fn reload(&self) -> Result<(), Fault> {
        let limit = self.settings.limit();
        let master = running::master(&self.settings.pid)?;
        let (block, path) = (self.block(), self.path(status::NAME, self.block()));
        // One that cannot be read is its own pool's fault: of that nobody says that nginx runs with it.
        let all = self.index.all(&Language, &self.files()?).into_iter();
        let pools: BTreeMap<_, _> =
            all.filter_map(|(name, text)| Some((name, text.digest.clone()?))).collect();
        let text = status::text(block, self.settings.status, &pools);
        let old = std::fs::read_to_string(&path).ok();
        files::put(&path, Some(&text))?;
        let before = running::workers(master)?.active;
        let complaints = Complaints::from_now(&self.settings.log);
        let reloaded = match command::run(&self.settings.reload, &[], limit).await {
            Ok(()) => self.ran(status::name(&text).unwrap_or_default(), master, &before, &complaints).await,
            Err(why) => Err(Fault::new("reload nginx", why)),
        };
        if reloaded.is_err() {
            files::put(&path, old.as_deref())?;
        }
        reloaded
    }

    /// Waits until nginx answers with this name, and none of the processes of before takes requests.
    async fn ran(
        &self,
        name: &str,
        master: u32,
        before: &BTreeSet<u32>,
        complaints: &Complaints,
    ) -> Result<(), Fault> {
        let mut end = Instant::now() + self.settings.limit();
        let mut complaint = None;
        loop {
            let answer = running::answer(self.settings.status, self.block(), self.settings.limit()).await;
            let workers = running::workers(master)?;
            let new = workers.active.is_disjoint(before) && !workers.active.is_empty();
            if new && matches!(answer, Ok(Some(answer)) if answer == name) {
                break;
            }
            if complaint.is_none() {
                complaint = complaints.last();
                end = if complaint.is_some() { end.min(Instant::now() + AFTER) } else { end };
            }
            if Instant::now() >= end {
                let why = complaints.last().unwrap_or_else(|| {
                    format!("it does not run with its new configuration within {} s", self.settings.within)
                });
                let next = format!("it goes on with what it had; look into {}", self.settings.log.display());
                return Err(Fault::new("reload nginx", why).next(next));
            }
            sleep(POLL).await;
        }
        let end = Instant::now() + LAST;
        while Instant::now() < end && !running::workers(master)?.leaving.is_disjoint(before) {
            sleep(POLL).await;
        }
        Ok(())
    }

    /// The pool goes as a whole, with one reload: what goes on in the processes before ends by itself.
    ///
    /// What stood there is kept beside until it is written down what became of its servers: it is all that tells whose they were.
    async fn remove(
        &self,
        name: &str,
        batch: &Batch<Lb>,
        stands: Option<Said>,
        fence: &Fence,
    ) -> Result<Applied<Lb>, Fault> {
        files::put(&self.remembered(name), None)?;
        let told = changes::of_pool(batch).is_some_and(|edit| Told::is(&edit.memo));
        if told && stands.is_none() {
            files::put(&self.last_good(name), None)?;
            return Ok(changes::removed(batch, &BTreeSet::new(), Vec::new(), None));
        }
        let before = match self.interrupted(name)?.filter(|_| stands.is_none()) {
            Some(texts) => self.said(name, &texts).ok().flatten(),
            None => stands,
        };
        self.put(name, Texts::default()).await?;
        let named = batch.changes.iter().filter_map(|edit| edit.key.host.clone());
        let kept = before.into_iter().flat_map(|said| said.servers.into_keys());
        let report = Report { hosts: kept.chain(named).collect(), ..Report::default() };
        let facts = self.facts(name, &report)?;
        let later = self.last_good(name).exists().then(|| fence.clock.now());
        Ok(changes::removed(batch, &report.hosts, facts, later))
    }
}
