//! The program that every agent is.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use serde::de::DeserializeOwned;
use shoal_core::{Epoch, Row, TagName};
use shoal_engine::{Agent, Engine, Fault, Options, Target, Verdict};
use shoal_store::{Head, Store};
use tokio::time::Instant;

use crate::cli::{Args, Output};
use crate::clock::Wall;
use crate::config::Config;
use crate::daemon::{self, Ears, Stop};
use crate::drive::Driver;
use crate::effects::{Hands, millis};
use crate::exit::{self, End, Failure};
use crate::feed::read_all;
use crate::metrics::Board;
use crate::stores::Stores;
use crate::{http, logs, publish, text};

/// Runs an agent as a program. `build` makes the agent and its target from the node's configuration; it is called
/// again when the configuration changed.
///
/// The configuration is `/etc/shoal/NAME.toml`, where NAME is the program's file name without `shoal-`; `build` gets its
/// table `[agent]`. Exit codes: 0 converged, 1 failed, 2 usage, 4 held, 5 still waiting; `--plan`: 0 nothing to do,
/// 3 changes pending.
pub fn main<C, A, T>(build: impl Fn(C) -> Result<(A, T), Fault>) -> ExitCode
where
    C: DeserializeOwned,
    A: Agent,
    T: Target<A>,
{
    Program::new(build).main()
}

/// A program before it runs: for agents that know more kinds of stores than the usual.
pub struct Program<C, A, T, F> {
    build: F,
    stores: Stores,
    of: PhantomData<fn(C) -> (A, T)>,
}

impl<C, A, T, F> Program<C, A, T, F>
where
    C: DeserializeOwned,
    A: Agent,
    T: Target<A>,
    F: Fn(C) -> Result<(A, T), Fault>,
{
    /// A program that knows the stores `sqlite:` and `memory:`.
    pub fn new(build: F) -> Self {
        Self { build, stores: Stores::new(), of: PhantomData }
    }

    /// Makes `--store scheme:…` known. The opener gets what follows the colon.
    #[must_use]
    pub fn store<O, Fut>(mut self, scheme: &str, open: O) -> Self
    where
        O: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Arc<dyn Store>, Fault>> + Send + 'static,
    {
        self.stores.add(scheme, open);
        self
    }

    /// Runs as the command line says, and answers the exit code.
    pub fn main(self) -> ExitCode {
        let args = Args::parse();
        let result = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::from(Fault::new("start", e)))
            .and_then(|runtime| {
                let result = runtime.block_on(self.run(&args));
                runtime.shutdown_timeout(Duration::from_secs(1));
                result
            });
        if let Err(failure) = &result {
            eprint_line(&failure.to_string());
        }
        exit::code(&result)
    }

    async fn run(&self, args: &Args) -> Result<End, Failure> {
        let name = program_name();
        let mut config = Config::<C>::read(args, &name)?;
        logs::start(config.common.log);
        let store = self.stores.open(&config.store(args)).await?;
        let mut ears = None;
        loop {
            let path = config.path.clone();
            let common = config.common.clone();
            let (agent, target) = (self.build)(config.agent)?;
            let setup = Setup { args, common, agent: Arc::new(agent), store: store.clone() };
            if args.works() {
                target.start().await?;
            }
            if args.preview.is_some() || args.plan || args.once {
                return setup.once(target).await;
            }
            let ears = match &mut ears {
                Some(ears) => ears,
                none => none.insert(Ears::new(&path)?),
            };
            let readable = || Config::<C>::read(args, &name).map(drop);
            if setup.daemon(target, ears, readable).await? == Stop::Told {
                return Ok(End::Stopped);
            }
            config = Config::read(args, &name)?;
        }
    }
}

/// Everything but the target.
pub(crate) struct Setup<'a, A: Agent> {
    args: &'a Args,
    common: crate::config::Common,
    agent: Arc<A>,
    store: Arc<dyn Store>,
}

impl<A: Agent> Setup<'_, A> {
    async fn once<T: Target<A>>(&self, target: T) -> Result<End, Failure> {
        if let Some(file) = &self.args.preview {
            let preview = crate::preview::preview(self, file).await?;
            print(&match self.args.output {
                Output::Text => text::preview(&preview),
                Output::Json => json(&preview)?,
            });
            return Ok(End::Previewed);
        }
        if !self.args.plan {
            publish::schema(&*self.agent, &*self.store).await?;
        }
        let (head, rows) = self.read().await?;
        let mut driver = self.driver(target, head, rows)?;
        if self.args.plan {
            self.settle(&mut driver, None).await;
            let plan = driver.engine.plan();
            print(&match self.args.output {
                Output::Text => text::plan(&plan),
                Output::Json => json(&plan)?,
            });
            return Ok(End::Planned(plan));
        }
        driver.follow(head);
        let deadline = self.args.wait.map(|wait| Instant::now() + wait);
        let verdict = self.settle(&mut driver, deadline).await;
        let troubles = driver.engine.troubles();
        daemon::drain(&mut driver).await;
        for (unit, item, why) in troubles {
            tracing::warn!(unit, item, "{why}");
        }
        Ok(End::Once(verdict))
    }

    /// Runs until nothing more can be done, or, while something waits or fails, until the deadline.
    async fn settle<T: Target<A>>(&self, driver: &mut Driver<A, T>, deadline: Option<Instant>) -> Verdict {
        loop {
            driver.pump();
            let verdict = driver.engine.verdict();
            let over = deadline.is_none_or(|at| at <= Instant::now());
            let done = match verdict {
                Verdict::Busy => false,
                Verdict::Converged | Verdict::Held => true,
                Verdict::Failed | Verdict::Waiting => over,
            };
            if done {
                return verdict;
            }
            driver.wait(deadline.filter(|_| verdict != Verdict::Busy)).await;
        }
    }

    async fn daemon<T: Target<A>>(
        &self,
        target: T,
        ears: &mut Ears,
        readable: impl Fn() -> Result<(), Failure>,
    ) -> Result<Stop, Failure> {
        let start = Instant::now();
        let (head, rows) = loop {
            // A database that is not there yet is waited for; anything else is an error.
            match publish::schema(&*self.agent, &*self.store).await {
                Ok(()) => match self.read().await {
                    Ok(read) => break read,
                    Err(failure) => transient(failure, start).await?,
                },
                Err(failure) => transient(failure, start).await?,
            }
        };
        let mut driver = self.driver(target, head, rows)?;
        driver.follow(head);
        driver.listen();
        let listen = self.args.listen.or(self.common.listen);
        let server = match listen {
            Some(address) => Some(http::serve(address, driver.board.clone()).await?),
            None => None,
        };
        let stop = daemon::run(&mut driver, ears, readable).await;
        if let Some(server) = server {
            server.abort();
        }
        Ok(stop)
    }

    pub(crate) async fn read(&self) -> Result<(Head, Vec<Row>), Failure> {
        read_all(&*self.store).await.map_err(Failure::store("read the database"))
    }

    /// An engine with nothing in it yet.
    pub(crate) fn engine(&self, nature: shoal_engine::Nature) -> Result<Engine<A>, Failure> {
        let (args, common) = (self.args, &self.common);
        let name = args.name.clone().or_else(|| common.name.clone()).unwrap_or_else(node_name);
        let instance = format!("{name}/{}", uuid::Uuid::now_v7());
        let mut options = Options::new(instance, nature, crate::chance::number());
        options.write = args.works();
        options.once = args.once;
        options.tags = self.tags()?;
        if let Some(host) = &args.host {
            // A unit's ledger is shared by all hosts: an engine that sees one of them would take the others for gone.
            return Err(Failure::Usage(format!(
                "--host {host}: an agent cannot be kept to one host yet; use --tag, or leave it out"
            )));
        }
        options.drift = common.drift;
        options.max_change_by_tag.clone_from(&common.max_change_by_tag);
        if let Some(share) = args.max_change.or(common.max_change) {
            options.max_change = share;
        }
        if let Some(resync) = args.resync.or(common.resync) {
            options.resync = millis(resync).max(1_000);
        }
        if let Some(ttl) = common.claim {
            options.ttl = millis(ttl).max(1_000);
            options.margin = options.ttl / 12;
        }
        options.retry_rate = common.retry_rate.unwrap_or(options.retry_rate);
        options.max_batch = common.max_batch.unwrap_or(options.max_batch);
        let bad =
            |e| Fault::new("start the agent", e).next("Agent::namespace must be a namespace that holds tags");
        Engine::new(self.agent.clone(), options).map_err(|e| bad(e).into())
    }

    fn driver<T: Target<A>>(&self, target: T, head: Head, rows: Vec<Row>) -> Result<Driver<A, T>, Failure> {
        if head.epoch == Epoch(0) {
            return Err(Fault::new("read the database", "it says no epoch").into());
        }
        let engine = self.engine(target.nature())?;
        let namespace = self.agent.namespace().to_owned();
        let board = Arc::new(Board::new(namespace.clone()));
        let timeout = self.common.timeout.unwrap_or(Duration::from_secs(300));
        let holder = engine.instance().to_owned();
        let clock = Arc::new(Wall::new());
        let hands = Hands::new(namespace, holder, self.store.clone(), target, clock, timeout);
        Ok(Driver::new(engine, Arc::new(hands), head, rows, board))
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

/// Waits a little after a failure that may pass; gives any other back.
async fn transient(failure: Failure, start: Instant) -> Result<(), Failure> {
    match &failure {
        Failure::Store { source, .. } if source.is_transient() => {
            tracing::warn!("{failure}; trying again");
            let wait = (start.elapsed() / 2).clamp(Duration::from_millis(100), Duration::from_secs(10));
            tokio::time::sleep(wait).await;
            Ok(())
        }
        _ => Err(failure),
    }
}

fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// The file name that this runs as, without `shoal-`.
fn program_name() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name =
        std::path::Path::new(&path).file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_prefix("shoal-").map(str::to_owned).unwrap_or(name)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Fault::new("print as JSON", e))?;
    Ok(text + "\n")
}

fn print(text: &str) {
    use std::io::Write as _;
    // A reader that went away has read enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn eprint_line(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
