//! The program: what `shoal-hostdb` and `shoal serve` take, and how they run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, ValueEnum};
use shoal_client::Access;
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::listen::{Listen, ListenError, Listener};
use crate::open::open_store;
use crate::server::Server;
use crate::tls::{Tls, TlsFiles};

/// The store when none is named.
pub const DEFAULT_STORE: &str = "sqlite:/var/lib/shoal/shoal.db";

#[derive(Parser)]
#[command(name = "shoal-hostdb", version, about = "The host database server", after_help = EXAMPLES)]
struct Cli {
    /// The database: sqlite:PATH, https://HOST:PORT, http://HOST:PORT or unix:/PATH of another server, etcds://HOST,HOST, or memory: to try things out
    #[arg(long, value_name = "URL", env = "SHOAL_STORE", default_value = DEFAULT_STORE)]
    store: String,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    serve: ServeArgs,
}

const EXAMPLES: &str = "\
Examples:
  shoal-hostdb --store sqlite:/var/lib/shoal/shoal.db
  shoal-hostdb --listen unix:/run/shoal/hostdb.sock --listen 127.0.0.1:8053
  shoal-hostdb --listen https://0.0.0.0:8443 --tls-cert hostdb.pem --tls-key hostdb.key --client-ca agents.pem
  curl http://127.0.0.1:8053/api/v2/hosts";

/// What a server can be told.
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "an address in brackets is shown by --help, and is no link"
)]
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Where to listen: https://ADDRESS:PORT, 127.0.0.1:PORT, [::1]:PORT or unix:/PATH; may be given more than once
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8053")]
    pub listen: Vec<Listen>,
    /// The certificate for https://, with those that lead to its authority, as a PEM file; a renewed one is taken over
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, as a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The authority of clients' certificates, as a PEM file; without it, clients are asked for none
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// Whether clients may come without a certificate
    #[arg(long, value_enum, default_value_t = ClientCert::Optional)]
    pub client_cert: ClientCert,
    /// Listen without TLS also where others on the way can read everything, tokens too
    #[arg(long)]
    pub allow_plain_http: bool,
    /// Take no writes
    #[arg(long)]
    pub read_only: bool,
    /// Answer HostDB's own interface too, below /v1: see docs/hostdb-v1.md
    #[arg(long, env = "SHOAL_HOSTDB_V1")]
    pub hostdb_v1: bool,
    /// Whether it is asked who may do what, and by what they show: off, everybody who reaches the server may do everything
    #[arg(long, value_enum, default_value_t = AccessMode::On)]
    pub access: AccessMode,
    /// The most connections at once
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub max_connections: usize,
    /// The most watches at once
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_watchers: usize,
    /// The largest body of a transaction, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub max_body: u64,
    /// How logs are written to standard error; SHOAL_LOG (else RUST_LOG) sets how much
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Whether it is asked who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessMode {
    /// It is.
    On,
    /// Everybody who reaches the server may do everything.
    Off,
}

/// Whether clients may come without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientCert {
    /// They are asked for one, and may show another thing.
    Optional,
    /// Who has none is turned away.
    Required,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl ServeArgs {
    /// That all of it can be meant together.
    ///
    /// # Errors
    /// What contradicts itself, or would show to others what nobody said they may see.
    pub fn check(&self) -> Result<(), ListenError> {
        for listen in &self.listen {
            match (listen, listen.readable()) {
                (_, Some(open)) if !self.allow_plain_http => return Err(ListenError::Open(open)),
                (Listen::Tls(addr), _) if self.tls_cert.is_none() => {
                    return Err(ListenError::NoCertificate(*addr));
                }
                _ => {}
            }
        }
        if self.tls_cert.is_some() && !self.listen.iter().any(|l| matches!(l, Listen::Tls(_))) {
            return Err(ListenError::NoTls);
        }
        if self.client_cert == ClientCert::Required && self.client_ca.is_none() {
            return Err(ListenError::NoAuthority);
        }
        Ok(())
    }

    fn tls(&self) -> anyhow::Result<Option<Tls>> {
        let (Some(cert), Some(key)) = (self.tls_cert.clone(), self.tls_key.clone()) else { return Ok(None) };
        let demand = self.client_cert == ClientCert::Required;
        let files = TlsFiles { cert, key, client_ca: self.client_ca.clone(), demand };
        Ok(Some(Tls::load(files).context("cannot set up TLS")?))
    }

    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            watchers: self.max_watchers,
            body: usize::try_from(self.max_body << 20).unwrap_or(usize::MAX),
            ..Limits::default()
        }
    }
}

/// The command line of `shoal-hostdb`, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The program `shoal-hostdb`.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors; clap prints either where it belongs.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    if let Err(wrong) = cli.serve.check() {
        let _ = Cli::command().error(ErrorKind::ValueValidation, wrong).print();
        return ExitCode::from(2);
    }
    match run(&cli.store, &cli.access, &cli.serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a server on the store of this URL until SIGTERM or SIGINT.
///
/// # Errors
/// The store cannot be opened, an address cannot be listened on, or TLS cannot be set up.
pub fn run(store: &str, access: &Access, args: &ServeArgs) -> anyhow::Result<()> {
    start_logs(args.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(store, access, args))
}

async fn serve(url: &str, access: &Access, args: &ServeArgs) -> anyhow::Result<()> {
    args.check()?;
    // Signals first: one that comes while the database is read must end the program in order, too.
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;
    if args.access == AccessMode::On
        && ["http:", "https:", "unix:"].iter().any(|scheme| url.starts_with(scheme))
    {
        anyhow::bail!(
            "{url} is another server: it decides who may do what, and sees everybody who comes through this one as this one. \
             Run this one with --access off where only those reach it who may do what it may, or on the database itself"
        );
    }
    raise_open_files();
    let tls = args.tls()?;
    let store = open_store(url, access).await?;
    if let Some(why) = crate::open::readable_by_all(url) {
        tracing::warn!("{why}");
    }
    let mut listeners = Vec::new();
    for address in &args.listen {
        listeners.push(Listener::with(address, tls.as_ref()).await?);
    }
    if let Some(tls) = tls {
        tokio::spawn(tls.follow(stop.clone()));
    }
    let server = Server::start(Arc::clone(&store), args.limits(), args.read_only, stop.clone()).await?;
    let mut server = server.with_hostdb_v1(args.hostdb_v1);
    match args.access {
        AccessMode::On => server = server.with_access(),
        AccessMode::Off => {
            tracing::warn!("--access off: everybody who reaches this server may do everything");
        }
    }
    for listener in &listeners {
        tracing::info!(at = %listener.at(), store = url, read_only = args.read_only, "listening");
    }
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::spawn(beat());
    let stopping = stop.clone();
    tokio::spawn(async move {
        stopping.cancelled().await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("stopping: no new connections, requests under way finish");
    });
    server.serve(listeners).await;
    tracing::info!("stopped");
    Ok(())
}

/// As many files may be open as the system lets this process have: each connection is one.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("no more files can be open than before: {error}");
    }
}

/// Tells systemd's watchdog that the server lives, twice in the time that it has. On the threads that answer requests, so that it
/// proves that those go on. Also while it stops: what is under way may take longer than the watchdog waits.
async fn beat() {
    let Some(within) = sd_notify::watchdog_enabled().filter(|within| !within.is_zero()) else { return };
    loop {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        tokio::time::sleep(within / 2).await;
    }
}

fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

fn start_logs(format: LogFormat) {
    let filter = ["SHOAL_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let filter = tracing_subscriber::EnvFilter::new(filter.as_deref().unwrap_or("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second server in one process (tests) keeps the first one's logs.
    let _ = match format {
        // The journal has times of its own.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            logs.with_ansi(false).without_time().try_init()
        }
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}
