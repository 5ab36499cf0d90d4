//! The program that every agent is.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use shoal_client::Access;
use shoal_engine::{Agent, Fault, Nature, Target};
use shoal_store::Store;

use crate::base::Base;
use crate::cli::Args;
use crate::config::{self, Common, Config};
use crate::daemon::{self, Ears, Preparing, Stop};
use crate::exit::{self, End, Failure};
use crate::http::Http;
use crate::metrics::Board;
use crate::secrets::Secrets;
use crate::setup::{Limit, Setup, print};
use crate::stores::{Missing, Stores};
use crate::{logs, manual};

/// Runs an agent as a program. `build` makes the agent and its target from the node's configuration; it is called
/// again when the configuration changed.
///
/// The configuration is `/etc/shoal/NAME.toml`, where NAME is the program's file name without `shoal-`; `build` gets its
/// table `[agent]`. Exit codes: 0 converged, 1 failed, 2 usage, 4 held, 5 still waiting; `--plan`: 0 nothing to do,
/// 3 changes pending, 4 something is held; `--preview`: 3 something would be wanted otherwise.
pub fn main<C, A, T>(build: impl Fn(C) -> Result<(A, T), Fault> + Send + Sync + 'static) -> ExitCode
where
    C: DeserializeOwned + Send + 'static,
    A: Agent,
    T: Target<A>,
{
    Program::new(build).main()
}

type Build<C, A, T> = Box<dyn Fn(C, Secrets, Base) -> Result<(A, T), Fault> + Send + Sync>;

/// A program before it runs: for agents that know more kinds of stores than the usual, or whose targets need secrets that
/// documents name.
pub struct Program<C, A, T> {
    build: Build<C, A, T>,
    stores: Stores,
}

impl<C, A, T> Program<C, A, T>
where
    C: DeserializeOwned + Send + 'static,
    A: Agent,
    T: Target<A>,
{
    /// A program that knows the stores `sqlite:`, `https:`, `http:`, `unix:` and `memory:`.
    pub fn new(build: impl Fn(C) -> Result<(A, T), Fault> + Send + Sync + 'static) -> Self {
        Self::with_secrets(move |config, _| build(config))
    }

    /// The same, and `build` gets the node's `[secrets]` too, for its target.
    pub fn with_secrets(build: impl Fn(C, Secrets) -> Result<(A, T), Fault> + Send + Sync + 'static) -> Self {
        Self::with_base(move |config, secrets, _| build(config, secrets))
    }

    /// The same, and `build` gets what its target may ask of the database, too. It can be asked once the target is started.
    pub fn with_base(
        build: impl Fn(C, Secrets, Base) -> Result<(A, T), Fault> + Send + Sync + 'static,
    ) -> Self {
        Self { build: Box::new(build), stores: Stores::new() }
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
        let args = Args::of(&format!("shoal-{}", program_name()));
        to_end(async move { self.run(&args).await })
    }

    async fn run(&self, args: &Args) -> Result<End, Failure> {
        if let Some(what) = args.generate {
            print(manual::text(what, &format!("shoal-{}", program_name())))?;
            return Ok(End::Printed);
        }
        let path = config::path(args, &program_name());
        let config = Config::<C>::read(&path, args.config.is_some())?;
        logs::start(config.common.log);
        if args.is_daemon() {
            return self.daemon(args, &path, config).await;
        }
        let limit = Limit::new(args, &config.common);
        let part = limit.keep("open the database", self.ready(args, config, None)).await?;
        let setup = Setup::new(args, &part);
        if args.works() {
            let start = async { part.target.start().await.map_err(Failure::from) };
            limit.keep("start the target", start).await?;
        }
        setup.once(part.target, &limit).await
    }

    /// Runs until it is told to stop. What is told by a new configuration is made ready before what runs is ended, so that
    /// a bad one ends nothing.
    async fn daemon(&self, args: &Args, path: &Path, config: Config<C>) -> Result<End, Failure> {
        let mut ears = Ears::new(path)?;
        let Some(part) = ears.unless_stopped(self.ready(args, config, None)).await else {
            return Ok(End::Stopped);
        };
        let mut part = part?;
        let board = Arc::new(Board::new());
        let mut http: Option<Http> = None;
        let mut good: Option<String> = None;
        loop {
            board.of(part.agent.namespace());
            let listen = args.listen.or(part.common.listen);
            if http.as_ref().map(|http| http.address) != listen {
                if let Some(old) = http.take() {
                    old.stop().await;
                }
                http = match (part.http.take(), listen) {
                    (Some(new), _) => Some(new),
                    (None, Some(address)) => Some(Http::start(address, board.clone()).await?),
                    (None, None) => None,
                };
            }
            logs::switch(part.common.log);
            let Some(started) = ears.unless_stopped(part.target.start()).await else {
                return Ok(End::Stopped);
            };
            if let Err(fault) = started {
                // The old one is gone; what it was made from is not.
                let Some(text) = good.take() else { return Err(fault.into()) };
                tracing::error!("not reloaded, back to the old configuration: {fault}");
                board.set_config_ok(false);
                let back = self.ready(args, Config::parse(text, path)?, Some(&part.store));
                let Some(back) = ears.unless_stopped(back).await else { return Ok(End::Stopped) };
                part = back?;
                continue;
            }
            good = Some(part.text.clone());
            let must = args.config.is_some() || !part.text.is_empty();
            let setup = Setup::new(args, &part);
            let (store, address) = (part.store.clone(), http.as_ref().map(|http| http.address));
            let prepare = || -> Preparing<'_, Part<A, T>> {
                Box::pin(async {
                    let next = async {
                        let mut next = self.ready(args, Config::read(path, must)?, Some(&store)).await?;
                        let listen = args.listen.or(next.common.listen).filter(|new| Some(*new) != address);
                        if let Some(new) = listen {
                            next.http = Some(Http::start(new, board.clone()).await?);
                        }
                        Ok::<_, Failure>(next)
                    };
                    let next = next.await;
                    board.set_config_ok(next.is_ok());
                    next.inspect_err(|e| tracing::error!("not reloaded, the old configuration stays: {e}"))
                        .ok()
                })
            };
            match setup.daemon(part.target, &mut ears, &board, &prepare).await? {
                Stop::Told => {
                    daemon::heard().await;
                    return Ok(End::Stopped);
                }
                Stop::Reload(next) => part = next,
            }
        }
    }

    /// Makes everything that a run needs from a configuration, and starts nothing. A store that is open and still meant is
    /// kept.
    async fn ready(
        &self,
        args: &Args,
        config: Config<C>,
        open: Option<&Opened>,
    ) -> Result<Part<A, T>, Failure> {
        let (url, access) = (config.store(args), config.access(args));
        let base = Base::default();
        let (agent, target) = (self.build)(config.agent, config.common.secrets.clone(), base.clone())?;
        let store = match open.filter(|open| open.url == url && open.access == access) {
            Some(open) => open.clone(),
            None => {
                let missing = if args.is_daemon() { Missing::Make } else { Missing::Refuse };
                Opened { store: self.stores.open(&url, missing, &access).await?, url, access }
            }
        };
        base.open(store.store.clone());
        let part = Part {
            common: config.common,
            text: config.text,
            agent: Arc::new(agent),
            target,
            store,
            http: None,
        };
        // What an engine refuses is refused before anything is ended for it.
        Setup::new(args, &part).engine(Nature::default())?;
        Ok(part)
    }
}

/// Runs a program to its end, says why it failed, and answers the exit code.
pub(crate) fn to_end(run: impl Future<Output = Result<End, Failure>> + Send + 'static) -> ExitCode {
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::from(Fault::new("start", e)))
        .and_then(|runtime| {
            // A task among the others: what wakes it need not wake another thread first.
            let work = runtime.spawn(run);
            let result = runtime.block_on(work).unwrap_or_else(|e| Err(Fault::new("run", e).into()));
            runtime.shutdown_timeout(Duration::from_secs(1));
            result
        });
    if let Err(failure) = &result {
        eprint_line(&failure.to_string());
    }
    exit::code(&result)
}

/// An open store, and which.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) url: String,
    pub(crate) access: Access,
    pub(crate) store: Arc<dyn Store>,
}

/// What a configuration says, made ready.
struct Part<A, T> {
    common: Common,
    text: String,
    agent: Arc<A>,
    target: T,
    store: Opened,
    /// Where it is to answer from now on, if not where it does.
    http: Option<Http>,
}

impl<'a, A: Agent> Setup<'a, A> {
    fn new<T>(args: &'a Args, part: &Part<A, T>) -> Self {
        Self { args, common: part.common.clone(), agent: part.agent.clone(), store: part.store.store.clone() }
    }
}

/// The file name that this runs as, without `shoal-`.
pub(crate) fn program_name() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name =
        std::path::Path::new(&path).file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_prefix("shoal-").map(str::to_owned).unwrap_or(name)
}

fn eprint_line(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
