//! One run of an agent: `--once`, `--plan`, `--preview`, or a daemon until it is told otherwise.
//!
//! All but the daemon end by themselves: within `--wait`, or [`MOST`] without it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shoal_core::{Epoch, HostName, Key, Range, TagName, View};
use shoal_engine::{Agent, Engine, Fault, Options, Snapshot, Target, Trouble, Unit, Verdict};
use shoal_store::{Head, Store, StoreError};
use tokio::time::Instant;

use crate::cli::{Args, Output};
use crate::clock::Wall;
use crate::config::Common;
use crate::daemon::{self, Ears, Preparing, Stop, Watch};
use crate::drive::{Driver, LOGGED};
use crate::effects::{Hands, millis};
use crate::exit::{End, Failure};
use crate::feed::read_all;
use crate::metrics::Board;
use crate::{publish, text};

/// The longest that one look or one batch may take, where the configuration says nothing.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(300);
/// The longest that what is no daemon may take without `--wait`: time for a look and a batch to run into their limit.
pub(crate) const MOST: Duration = Duration::from_secs(600);
/// How long draining may take when the time is over.
const BRIEF: Duration = Duration::from_secs(3);
/// After so long, what is waited for is told.
const QUIET: Duration = Duration::from_secs(10);

/// What `--host` takes for this machine's own name.
const SELF: &str = "self";

/// How long something that is no daemon may take.
pub(crate) struct Limit {
    end: Instant,
    within: Duration,
    /// Whether it also goes on while there is nothing to do but wait.
    waits: bool,
}

impl Limit {
    pub(crate) fn new(args: &Args, common: &Common) -> Self {
        let most = common.timeout.map_or(MOST, |timeout| MOST.max(timeout.saturating_mul(2)));
        let within = args.wait.unwrap_or(most);
        Self { end: Instant::now() + within, within, waits: args.wait.is_some() }
    }

    pub(crate) fn late(&self, doing: impl Into<String>) -> Failure {
        Failure::Late { doing: doing.into(), within: self.within }
    }

    /// Does it in time or not at all.
    pub(crate) async fn keep<O>(
        &self,
        what: &str,
        doing: impl Future<Output = Result<O, Failure>>,
    ) -> Result<O, Failure> {
        tokio::time::timeout_at(self.end, doing).await.unwrap_or_else(|_| Err(self.late(what)))
    }
}

/// Runs until nothing more can be done, or the time is over. While something waits or failed, only with `--wait`.
async fn settle<A: Agent, T: Target<A>>(driver: &mut Driver<A, T>, limit: &Limit) -> Verdict {
    let mut tell = Instant::now() + QUIET;
    loop {
        driver.pump();
        let verdict = driver.engine.verdict();
        let now = Instant::now();
        let done = match verdict {
            Verdict::Converged | Verdict::Held => true,
            Verdict::Failed | Verdict::Waiting if !limit.waits => true,
            // It was said why, and it does not pass by itself.
            _ if driver.is_refused() => return Verdict::Failed,
            _ => limit.end <= now,
        };
        if done {
            return verdict;
        }
        if tell <= now {
            tell = now + QUIET;
            tracing::info!("waiting for: {}", driver.waits_for());
        }
        driver.wait(Some(limit.end.min(tell))).await;
    }
}

/// Everything but the target.
pub(crate) struct Setup<'a, A: Agent> {
    pub(crate) args: &'a Args,
    pub(crate) common: Common,
    pub(crate) agent: Arc<A>,
    pub(crate) store: Arc<dyn Store>,
}

impl<A: Agent> Setup<'_, A> {
    pub(crate) async fn once<T: Target<A>>(&self, target: T, limit: &Limit) -> Result<End, Failure> {
        if let Some(file) = &self.args.preview {
            let preview = limit.keep("read the database", crate::preview::preview(self, file)).await?;
            print(match self.args.output {
                Output::Text => text::preview(&preview),
                Output::Json => json(&preview)?,
            })?;
            return Ok(End::Previewed(preview));
        }
        if !self.args.plan {
            limit.keep("publish the schema", publish::schema(&*self.agent, &*self.store)).await?;
        }
        let (head, snapshot) = limit.keep("read the database", self.read(self.range()?)).await?;
        let board = Arc::new(Board::new());
        let nature = target.nature();
        let mut driver = self.driver(target, snapshot, board)?;
        if self.args.plan {
            driver.plans();
            let verdict = settle(&mut driver, limit).await;
            if verdict == Verdict::Busy {
                return Err(limit.late(driver.waits_for()));
            }
            let plan = driver.engine.plan();
            print(match self.args.output {
                Output::Text => text::plan(&plan),
                Output::Json => json(&plan)?,
            })?;
            return Ok(End::Planned(plan, verdict));
        }
        driver.follow(self.range()?, head);
        // What it began tells when it has ended.
        driver.listen();
        let verdict = settle(&mut driver, limit).await;
        let late = (verdict == Verdict::Busy).then(|| limit.late(driver.waits_for()));
        let mut troubles = driver.engine.troubles();
        // Said of the unit, and the same of each of its items.
        let asked: BTreeMap<String, String> = driver
            .engine
            .holds()
            .map(|(unit, hold)| (unit.0.clone(), format!("held: guard: {}", hold.why)))
            .collect();
        for (unit, _, why) in &mut troubles {
            if asked.get(unit.as_str()).is_some_and(|asked| why.starts_with(asked.as_str())) {
                "held: guard: as said of the unit".clone_into(why);
            }
        }
        if driver.is_refused() {
            // Nothing was looked at, which says no more than the refusal.
            troubles.retain(|(_, _, why)| *why != Trouble::Dirty.to_string());
        }
        // What did not come in all that time is not waited for much longer.
        daemon::drain(&mut driver, if late.is_some() { BRIEF } else { daemon::DRAIN }).await;
        // What goes on beside the engine ends in order, and not with the process.
        daemon::close(driver.target()).await;
        for (unit, item, why) in troubles.iter().take(LOGGED) {
            if item.is_empty() {
                tracing::warn!(unit, "{why}");
            } else {
                tracing::warn!(unit, item, "{why}");
            }
        }
        if let Some(more) = troubles.len().checked_sub(LOGGED).filter(|more| *more > 0) {
            tracing::warn!("and {more} more are not as they should be; see --plan");
        }
        if let Ok(empty) = self.engine(nature) {
            // The process ends: to take a fleet apart piece by piece would only take time.
            std::mem::forget(std::mem::replace(&mut driver.engine, empty));
        }
        late.map_or(Ok(End::Once(verdict)), Err)
    }

    pub(crate) async fn daemon<'d, T: Target<A>, N>(
        &self,
        target: T,
        ears: &'d mut Ears,
        board: &Arc<Board>,
        prepare: &'d (dyn Fn() -> Preparing<'d, N> + Sync),
    ) -> Result<Stop<N>, Failure> {
        let mut watch = Watch::new(ears, prepare);
        let (head, snapshot) = match watch.over(self.begin()).await {
            Ok(read) => read?,
            Err(stop) => {
                daemon::close(&target).await;
                return Ok(stop);
            }
        };
        let mut driver = self.driver(target, snapshot, board.clone())?;
        driver.follow(self.range()?, head);
        driver.listen();
        let stop = daemon::run(&mut driver, &mut watch).await;
        daemon::close(driver.target()).await;
        Ok(stop)
    }

    /// Publishes the schema and reads the database. One that is out of reach, or lets nobody in, is waited for; anything else is
    /// an error.
    async fn begin(&self) -> Result<(Head, Snapshot), Failure> {
        let start = Instant::now();
        loop {
            match publish::schema(&*self.agent, &*self.store).await {
                Ok(()) => match self.read(self.range()?).await {
                    Ok(read) => return Ok(read),
                    Err(failure) => transient(failure, start).await?,
                },
                Err(failure) => transient(failure, start).await?,
            }
        }
    }

    /// Reads what of the database is in `range`, and looks whether what was asked for is there.
    pub(crate) async fn read(&self, range: Range) -> Result<(Head, Snapshot), Failure> {
        let read =
            async |range| read_all(&*self.store, &range).await.map_err(Failure::store("read the database"));
        let (head, snapshot) = read(range.clone()).await?;
        let known = match self.known(snapshot.view()) {
            // Who else there is tells what it may have been meant to be.
            Err(_) if range != Range::All && !self.args.is_daemon() => {
                self.known(read(Range::All).await?.1.view())
            }
            known => known,
        };
        match known {
            // It may be written later, and a daemon may be there before it.
            Err(unknown) if self.args.is_daemon() => tracing::warn!("{unknown}; waiting for it"),
            known => known?,
        }
        if head.epoch == Epoch(0) {
            return Err(Fault::new("read the database", "it says no epoch").into());
        }
        Ok((head, snapshot))
    }

    /// What this agent needs of the database: what concerns the host that was asked for, where nothing else says what is wanted of it.
    fn range(&self) -> Result<Range, Failure> {
        let host = asked_host(self.args)?.filter(|host| self.agent.units_of(host).is_some());
        Ok(host.map_or(Range::All, Range::Concerning))
    }

    /// Whether the tags and the host that were asked for are in the database, or were.
    fn known(&self, view: &View) -> Result<(), Failure> {
        let there = |key: &Key| {
            let broken = || view.broken().any(|(one, _)| one == key);
            view.exists(key) || view.tombstone(key).is_some() || broken()
        };
        for tag in self.tags()?.into_iter().flatten() {
            let key = Key::tag(&tag);
            if !there(&key) {
                let next = format!("`shoal get {}/` lists those that there are", tag.namespace());
                return Err(Failure::Usage(format!("--tag {tag}: the database has no such tag; {next}")));
            }
        }
        let (Some(asked), Some(host)) = (&self.args.host, asked_host(self.args)?) else { return Ok(()) };
        if there(&Key::host(&host)) {
            return Ok(());
        }
        let own =
            if asked == SELF { format!(" (so this machine calls itself: {host})") } else { String::new() };
        let first = format!("{}.", host.as_str().split('.').next().unwrap_or_default());
        let names = view.hosts().map(|host| host.name.as_str());
        let mut like: Vec<_> = names.filter(|name| name.starts_with(&first)).collect();
        like.sort_unstable();
        like.truncate(3);
        let next = match like[..] {
            [] if own.is_empty() => "`shoal get hosts` lists those that there are".to_owned(),
            [] => "write the host, or name one: --host web1.example.com".to_owned(),
            _ => format!("is it {}? Then name it: --host {}", like.join(" or "), like[0]),
        };
        Err(Failure::Usage(format!("--host {asked}{own}: the database has no host {host}; {next}")))
    }

    /// An engine with nothing in it yet.
    pub(crate) fn engine(&self, nature: shoal_engine::Nature) -> Result<Engine<A>, Failure> {
        let (args, common) = (self.args, &self.common);
        let name = args.name.clone().or_else(|| common.name.clone()).unwrap_or_else(node_name);
        let instance = format!("{name}/{}", uuid::Uuid::now_v7());
        let mut options = Options::new(instance, nature, crate::chance::number());
        options.write = args.works();
        options.once = args.once;
        options.share = true;
        options.tags = self.tags()?;
        options.host = asked_host(self.args)?;
        options.units = self.units();
        options.drift = common.drift;
        options.max_change_by_tag.clone_from(&common.max_change_by_tag);
        if let Some(share) = args.max_change.or(common.max_change) {
            options.max_change = share;
        }
        if let Some(within) = common.max_change_within {
            options.max_change_within = millis(within);
        }
        if let Some(resync) = args.resync.or(common.resync) {
            options.resync = millis(resync);
        }
        if let Some(ttl) = common.claim {
            options.ttl = millis(ttl);
            options.margin = options.ttl / 12;
        }
        options.retry_rate = common.retry_rate.unwrap_or(options.retry_rate);
        options.max_batch = common.max_batch.unwrap_or(options.max_batch);
        let bad =
            |e| Fault::new("start the agent", e).next("Agent::namespace must be a namespace that holds tags");
        Engine::new(self.agent.clone(), options).map_err(|e| bad(e).into())
    }

    fn driver<T: Target<A>>(
        &self,
        target: T,
        snapshot: Snapshot,
        board: Arc<Board>,
    ) -> Result<Driver<A, T>, Failure> {
        let engine = self.engine(target.nature())?;
        let namespace = self.agent.namespace().to_owned();
        let timeout = self.common.timeout.unwrap_or(TIMEOUT);
        let holder = engine.instance().to_owned();
        let clock = Arc::new(Wall::new());
        let hands = Hands::new(namespace, holder, self.store.clone(), target, clock, timeout);
        Ok(Driver::new(engine, Arc::new(hands), snapshot, board))
    }

    fn units(&self) -> Option<BTreeSet<Unit>> {
        (!self.args.unit.is_empty()).then(|| self.args.unit.iter().map(Unit::from).collect())
    }

    fn tags(&self) -> Result<Option<BTreeSet<TagName>>, Failure> {
        let name = |text: &String| {
            let full =
                if text.contains('/') { text.clone() } else { format!("{}/{text}", self.agent.namespace()) };
            full.parse::<TagName>().map_err(|e| Failure::Usage(format!("--tag {text}: {e}")))
        };
        let tags = self.args.tag.iter().map(name).collect::<Result<BTreeSet<_>, _>>()?;
        Ok((!tags.is_empty()).then_some(tags))
    }
}

/// The host that was asked for.
pub(crate) fn asked_host(args: &Args) -> Result<Option<HostName>, Failure> {
    let Some(asked) = &args.host else { return Ok(None) };
    let own = (asked == SELF).then(node_name);
    let name = own.as_deref().unwrap_or(asked);
    name.parse().map(Some).map_err(|e| Failure::Usage(format!("--host {asked}: {e}")))
}

/// Waits a little after a failure that may pass; gives any other back. A right may be given, and a token or a certificate be
/// renewed, while it waits.
pub(crate) async fn transient(failure: Failure, start: Instant) -> Result<(), Failure> {
    match &failure {
        Failure::Store { source, .. }
            if source.is_transient() || matches!(source, StoreError::Denied { .. }) =>
        {
            tracing::warn!("{failure}; trying again");
            let wait = (start.elapsed() / 2).clamp(Duration::from_millis(100), Duration::from_secs(10));
            tokio::time::sleep(wait).await;
            Ok(())
        }
        _ => Err(failure),
    }
}

pub(crate) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Fault::new("print as JSON", e))?;
    Ok(text + "\n")
}

/// Prints what a program was run for. A reader that went away has read enough.
///
/// # Errors
/// Standard output took only a part.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut to = std::io::stdout();
    match to.write_all(text.as_ref()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Fault::new("print the result", error).next("what was printed is only a part").into())
        }
        _ => Ok(()),
    }
}
