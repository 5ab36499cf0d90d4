//! The program that everything that chooses is: one pass, a plan, or a daemon.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use sd_notify::NotifyState;
use serde::de::DeserializeOwned;
use shoal_core::{HostId, HostName, Namespace, Proposal, Revision, View, docs::Entry, prepare_as};
use shoal_engine::{Clock as _, Fault, Verdict};
use shoal_store::Database;
use tokio::time::Instant;

use super::daemon::Daemon;
use super::said::{self, Plan, Speaker};
use super::{Choice, Chooser, How, NotDone, Passed, pass};
use crate::cli::{Args, Output};
use crate::clock::Wall;
use crate::config::{self, Common, Config};
use crate::daemon::{self, Ears, Word};
use crate::drive::LOGGED;
use crate::exit::{End, Failure};
use crate::http::Http;
use crate::metrics::Board;
use crate::program::{Opened, program_name, to_end};
use crate::setup::{Limit, asked_host, json, node_name, print, transient};
use crate::stores::{Missing, Stores};
use crate::{logs, manual, publish};

/// How many are chosen for in one commit, where the configuration says nothing.
pub(super) const MOST: usize = 1000;
/// How often a choice is made anew in one pass.
const ATTEMPTS: u32 = 24;

/// Runs a [`Chooser`] as a program. `build` makes it from the node's configuration, the table `[agent]` of `/etc/shoal/NAME.toml`; it is called
/// again when the configuration changed.
///
/// Exit codes: 0 nothing is left to choose, 1 failed, 2 usage, 4 held, 5 still waiting; `--plan` and `--preview`: 0 nothing to choose,
/// 3 something would be chosen, 4 something is held.
pub fn main<C, K>(build: impl Fn(C) -> Result<K, Fault> + Send + Sync + 'static) -> ExitCode
where
    C: DeserializeOwned + Send + 'static,
    K: Chooser,
{
    let args = Args::of(&format!("shoal-{}", program_name()));
    let program = Program { build: Box::new(build), stores: Stores::new() };
    to_end(async move { program.run(&args).await })
}

type Build<C, K> = Box<dyn Fn(C) -> Result<K, Fault> + Send + Sync>;

struct Program<C, K> {
    build: Build<C, K>,
    stores: Stores,
}

/// What a configuration says, made ready.
pub(super) struct Part<K> {
    pub(super) common: Common,
    pub(super) chooser: K,
    pub(super) namespace: Namespace,
    pub(super) store: Opened,
    only: Option<HostName>,
}

impl<K: Chooser> Part<K> {
    pub(super) fn name(&self, args: &Args) -> String {
        args.name.clone().or_else(|| self.common.name.clone()).unwrap_or_else(node_name)
    }

    pub(super) fn how(&self, most: usize) -> How {
        How {
            author: format!("agent {}", self.namespace),
            instance: crate::chance::number(),
            most,
            attempts: ATTEMPTS,
            only: self.only.clone(),
            at: None,
        }
    }

    async fn publish(&self) -> Result<(), Failure> {
        publish::row(self.chooser.namespace(), self.chooser.schema(), &*self.store.store).await
    }

    async fn open(&self) -> Result<Database, Failure> {
        Database::open(self.store.store.clone()).await.map_err(Failure::store("read the database"))
    }

    /// What would be chosen, all of it at once.
    async fn decide(&self, database: &Database, view: &View) -> Result<Choice, Failure> {
        let measured = self.chooser.look(view).await;
        Ok(self.chooser.decide(&pass::world(database, view, &self.how(usize::MAX), &measured))?)
    }
}

impl<C, K> Program<C, K>
where
    C: DeserializeOwned + Send + 'static,
    K: Chooser,
{
    async fn run(&self, args: &Args) -> Result<End, Failure> {
        if let Some(what) = args.generate {
            print(manual::text(what, &format!("shoal-{}", program_name())))?;
            return Ok(End::Printed);
        }
        if !args.tag.is_empty() || !args.unit.is_empty() || args.max_change.is_some() {
            let why =
                "it chooses over the whole fleet: --tag, --unit and --max-change are not for it; --host is";
            return Err(Failure::Usage(format!("shoal-{}: {why}", program_name())));
        }
        let path = config::path(args, &program_name());
        let config = Config::<C>::read(&path, args.config.is_some())?;
        logs::start(config.common.log);
        if args.is_daemon() {
            return self.daemon(args, &path, config).await;
        }
        let limit = Limit::new(args, &config.common);
        let part = limit.keep("open the database", self.ready(args, config, None)).await?;
        if args.works() {
            limit.keep("publish the schema", part.publish()).await?;
        }
        let database = limit.keep("read the database", part.open()).await?;
        if let Some(host) = part.only.as_ref().filter(|host| database.view().host(host.as_str()).is_none()) {
            return Err(Failure::Usage(format!("--host {host}: the database has no such host")));
        }
        match &args.preview {
            Some(file) => preview(args, &part, &database, file).await,
            None if args.plan => plan(args, &part, &database).await,
            None => once(args, &part, &database, &limit).await,
        }
    }

    async fn ready(&self, args: &Args, config: Config<C>, open: Option<&Opened>) -> Result<Part<K>, Failure> {
        let (url, access) = (config.store(args), config.access(args));
        let chooser = (self.build)(config.agent)?;
        let namespace = chooser.namespace().parse().map_err(|e| Fault::new("start the agent", e))?;
        let store = match open.filter(|open| open.url == url && open.access == access) {
            Some(open) => open.clone(),
            None => {
                let missing = if args.is_daemon() { Missing::Make } else { Missing::Refuse };
                Opened { store: self.stores.open(&url, missing, &access).await?, url, access }
            }
        };
        Ok(Part { common: config.common, chooser, namespace, store, only: asked_host(args)? })
    }

    /// Runs until it is told to stop. A new configuration is made ready before it takes over; a bad one changes nothing.
    async fn daemon(&self, args: &Args, path: &Path, config: Config<C>) -> Result<End, Failure> {
        let must = args.config.is_some() || !config.text.is_empty();
        let mut ears = Ears::new(path)?;
        let Some(part) = ears.unless_stopped(self.ready(args, config, None)).await else {
            return Ok(End::Stopped);
        };
        let mut part = part?;
        let board = Arc::new(Board::new());
        board.of(part.chooser.namespace());
        let mut http = None;
        listen(&mut http, args.listen.or(part.common.listen), &board).await?;
        loop {
            logs::switch(part.common.log);
            let Some(begun) = ears.unless_stopped(begin(&part)).await else { return Ok(End::Stopped) };
            let mut daemon = Daemon::new(args, &part, begun?, &board);
            daemon::tell_systemd(&[NotifyState::Ready]);
            let next = loop {
                match daemon.work(&mut ears).await {
                    Word::Stop => break None,
                    Word::Reload => {
                        let ready = async {
                            let next = self.ready(args, Config::read(path, must)?, Some(&part.store)).await?;
                            listen(&mut http, args.listen.or(next.common.listen), &board).await?;
                            Ok::<_, Failure>(next)
                        };
                        let Some(ready) = ears.unless_stopped(ready).await else { break None };
                        board.set_config_ok(ready.is_ok());
                        match ready {
                            Ok(next) => break Some(next),
                            Err(e) => tracing::error!("not reloaded, the old configuration stays: {e}"),
                        }
                    }
                }
            };
            match &next {
                Some(_) => {
                    tracing::info!("reloading");
                    let now = NotifyState::monotonic_usec_now().ok();
                    let told = [Some(NotifyState::Reloading), now].into_iter().flatten();
                    daemon::tell_systemd(&told.collect::<Vec<_>>());
                }
                None => {
                    tracing::info!("stopping");
                    daemon::tell_systemd(&[NotifyState::Stopping]);
                }
            }
            daemon.last_word().await;
            let Some(next) = next else {
                daemon::heard().await;
                return Ok(End::Stopped);
            };
            part = next;
        }
    }
}

/// Answers where it is to; where it did before only once the new address is taken.
async fn listen(
    http: &mut Option<Http>,
    at: Option<std::net::SocketAddr>,
    board: &Arc<Board>,
) -> Result<(), Failure> {
    if http.as_ref().map(|http| http.address) == at {
        return Ok(());
    }
    let new = match at {
        Some(address) => Some(Http::start(address, board.clone()).await?),
        None => None,
    };
    if let Some(old) = std::mem::replace(http, new) {
        old.stop().await;
    }
    Ok(())
}

/// Publishes the schema and reads the database. One that is out of reach, or lets nobody in, is waited for.
async fn begin<K: Chooser>(part: &Part<K>) -> Result<Database, Failure> {
    let start = Instant::now();
    loop {
        let opened = match part.publish().await {
            Ok(()) => part.open().await,
            Err(failure) => Err(failure),
        };
        match opened {
            Ok(database) => return Ok(database),
            Err(failure) => transient(failure, start).await?,
        }
    }
}

fn show(args: &Args, plan: &Plan<'_>) -> Result<(), Failure> {
    print(match args.output {
        Output::Text => plan.text(),
        Output::Json => json(plan)?,
    })
}

async fn plan<K: Chooser>(args: &Args, part: &Part<K>, database: &Database) -> Result<End, Failure> {
    let view = database.view();
    let choice = part.decide(database, &view).await?;
    show(args, &Plan::new(part.chooser.namespace(), view.revision(), &choice))?;
    Ok(End::Chosen(!choice.chosen.is_empty(), said::verdict(&choice)))
}

/// What would be chosen if a file's documents were committed, and is not chosen as things stand.
async fn preview<K: Chooser>(
    args: &Args,
    part: &Part<K>,
    database: &Database,
    file: &Path,
) -> Result<End, Failure> {
    let wrong = |why: String| Failure::Usage(format!("the file {} {why}", file.display()));
    let text = std::fs::read(file).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let entries = Entry::all(&text).map_err(|why| wrong(format!("is wrong: {why}")))?;
    let edits = entries.into_iter().map(Entry::into_edit).collect();
    let view = database.view();
    let mut new_id = || HostId(uuid::Uuid::now_v7().to_string());
    let next = Revision(view.revision().0 + 1);
    let (_, after) = prepare_as(&view, &Proposal::new("preview", "preview", edits), &mut new_id, next)
        .map_err(|refusal| wrong(format!("would be refused: {refusal}")))?;
    let before = part.decide(database, &view).await?;
    let mut choice = part.decide(database, &after).await?;
    choice.chosen.retain(|chosen| !before.chosen.contains(chosen));
    let same = |one: &shoal_core::Behind| before.behind.iter().any(|b| b.key == one.key && b.why == one.why);
    choice.behind.retain(|behind| !same(behind));
    choice.quarantined.retain(|one| !before.quarantined.contains(one));
    show(args, &Plan::new(part.chooser.namespace(), view.revision(), &choice))?;
    Ok(End::Chosen(!choice.chosen.is_empty(), said::verdict(&choice)))
}

/// Chooses until nothing is left to choose; with `--wait` also until nobody waits any more, or the time is over.
async fn once<K: Chooser>(
    args: &Args,
    part: &Part<K>,
    database: &Database,
    limit: &Limit,
) -> Result<End, Failure> {
    let how = part.how(part.common.max_batch.unwrap_or(MOST).max(1));
    let asked = part.only.as_ref().map(|host| format!(":{host}")).unwrap_or_default();
    let instance = format!("{}/once{asked}", part.name(args));
    let passed = loop {
        let passed = limit.keep("choose", async { Ok(pass(database, &part.chooser, &how).await?) }).await?;
        told(&passed);
        match said::verdict(&passed.choice) {
            Verdict::Busy => {}
            Verdict::Waiting if args.wait.is_some() => {
                let more = async { Ok::<_, Failure>(database.wait_past(passed.at).await) };
                if limit.keep("room", more).await.is_err() {
                    break passed;
                }
            }
            _ => break passed,
        }
    };
    for behind in passed.choice.behind.iter().take(LOGGED) {
        tracing::warn!(host = behind.key, "{}", behind.why);
    }
    for one in passed.choice.quarantined.iter().take(LOGGED) {
        tracing::warn!(host = one.what, "{}", one.why);
    }
    let now = Wall::new().now();
    let speaker =
        Speaker { agent: &part.namespace, instance: &instance, epoch: database.epoch(), now, expires: None };
    let status = said::status(&speaker, passed.at, &passed.choice, None);
    let said = async { part.store.store.report(status).await.map_err(Failure::store("report")) };
    limit.keep("report", said).await?;
    Ok(End::Once(said::verdict(&passed.choice)))
}

pub(super) fn told(passed: &Passed) {
    for chosen in passed.choice.chosen.iter().filter(|_| !passed.choice.edits.is_empty()) {
        tracing::info!("{chosen}");
    }
}

/// Says once what newly waits for a person, and what does no more: it may be over by itself, and is in no report then.
pub(super) fn told_holds(before: &Choice, now: &Choice) {
    let (begun, over) = said::holds(before, now);
    for one in begun.iter().take(LOGGED) {
        tracing::warn!(of = one.key, "{}", one.why);
    }
    for one in over.iter().take(LOGGED) {
        tracing::info!(of = one.key, "over: {}", one.why);
    }
}

impl From<NotDone> for Failure {
    fn from(error: NotDone) -> Self {
        use shoal_store::TransactError::Store;
        match error {
            NotDone::Fault(fault) => fault.into(),
            NotDone::Commit(Store(source)) => Self::Store { doing: "commit a choice".to_owned(), source },
            NotDone::Commit(error) => Fault::new("commit a choice", error).into(),
        }
    }
}
