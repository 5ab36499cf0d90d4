//! The server's certificate, and whom it lets show one.
//!
//! The files are followed: what a renewal writes is taken over for new connections, and connections that are open go on.
//! A pair that cannot be used (half written, no key of this certificate, expired already) leaves the one before it in
//! use, is logged, and shows as `shoal_hostdb_certificate_ok 0`; when the one in use ends is
//! `shoal_hostdb_certificate_expiry_timestamp_seconds`.
//!
//! Sessions are not resumed: every connection proves anew who it is, to the authority of now, and nothing is kept between
//! them. On one that is kept, the client's certificate is looked at with each request ([`Certificate`](crate::certificate::Certificate)).
//! When one has ended is judged by a time that never goes back ([`crate::latest`]). Certificates of clients are not checked for having been revoked;
//! take the name out of the access rules instead.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use notify::Watcher as _;
use prometheus::{IntCounter, IntGauge};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use shoal_client::tls::{self, BadFile};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use x509_cert::der::Decode as _;

use crate::latest::Latest;
use crate::metrics::Metrics;

/// After so long without another change, a renewal is done: it is two files and more, one after the other.
const SETTLE: Duration = Duration::from_millis(250);
/// How often that is waited for.
const SETTLES: usize = 8;
/// How often the files are looked at without being told of a change. Some file systems tell nothing.
const SWEEP: Duration = Duration::from_secs(60);
/// Where certificates and keys are, in PEM form.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, and those that lead from it to its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients' certificates. Without them clients are not asked for any.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    pub demand: bool,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error(transparent)]
    File(#[from] BadFile),
    /// A certificate cannot be understood.
    #[error("the certificate in {} cannot be understood: {why}", .path.display())]
    Odd {
        /// The file.
        path: PathBuf,
        /// What is odd about it.
        why: String,
    },
    /// A renewal that is none.
    #[error("the certificate in {} expired at {at}, and the one before it has not", .path.display())]
    Stale {
        /// The file.
        path: PathBuf,
        /// When it ended.
        at: Timestamp,
    },
}

/// A server's side of TLS. A clone is another handle of the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    now: RwLock<Loaded>,
    time: Clock,
    /// How often other authorities of clients were taken over.
    generation: watch::Sender<u64>,
    expiry: IntGauge,
    ok: IntGauge,
    pub(crate) failures: IntCounter,
}

/// What stood in the files, and what was made of it.
struct Loaded {
    read: Read,
    config: Arc<ServerConfig>,
    /// Who vouches for clients, if they are asked for a certificate.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    expires: Timestamp,
}

/// What time it is for certificates of clients: that of the server, once there is one.
#[derive(Clone, Default)]
struct Clock(Arc<OnceLock<Arc<Latest>>>);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = self.0.get().map_or_else(Timestamp::now, |latest| latest.now());
        let since = u64::try_from(now.as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(since)))
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

#[derive(PartialEq, Eq)]
struct Read {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read, or they do not go together. An expired certificate is no error here, but logged: whoever has
    /// only that still wants to read the metrics.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let time = Clock::default();
        let loaded = Read::from(&files)?.load(&files, &time)?;
        let cannot = |e: prometheus::Error| TlsError::Odd { path: files.cert.clone(), why: e.to_string() };
        let (expiry, ok) = (
            IntGauge::new(
                "shoal_hostdb_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends, in seconds since 1970.",
            ),
            IntGauge::new(
                "shoal_hostdb_certificate_ok",
                "1 when the certificate in the file is the one in use; 0 when it cannot be used and an older one is.",
            ),
        );
        let failures = IntCounter::new(
            "shoal_http_tls_failures_total",
            "Connections on which TLS could not be agreed on.",
        );
        let (expiry, ok) = (expiry.map_err(cannot)?, ok.map_err(cannot)?);
        ok.set(1);
        expiry.set(loaded.expires.as_second());
        loaded.tell(&files.cert);
        let failures = failures.map_err(cannot)?;
        let generation = watch::Sender::new(0);
        Ok(Self(Arc::new(Inner { files, now: RwLock::new(loaded), time, generation, expiry, ok, failures })))
    }

    /// Judges by this time from now on, unless there is one already: all servers of one program have one certificate.
    pub(crate) fn judge_by(&self, time: Arc<Latest>) {
        let _ = self.0.time.0.set(time);
    }

    /// What new connections get.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// Which authorities of clients are believed: another number, others.
    pub(crate) fn generation(&self) -> u64 {
        *self.0.generation.borrow()
    }

    /// Waits until other authorities than those of `generation` are believed.
    pub(crate) async fn past(&self, generation: u64) {
        // It fails only without a sender, and `self` holds one.
        let _ = self.0.generation.subscribe().wait_for(|now| *now != generation).await;
    }

    /// Whether the authorities of now vouch for these certificates of a client, the client's own first.
    ///
    /// # Errors
    /// Why they do not.
    pub(crate) fn vouches(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> Result<(), String> {
        let verifier = self.0.now.read().unwrap_or_else(PoisonError::into_inner).verifier.clone();
        let (Some(verifier), Some((own, more))) = (verifier, chain.split_first()) else {
            return Err("certificates of clients are not believed here".to_owned());
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verifier.verify_client_cert(own, more, at).map(drop).map_err(|error| tls::explain(&error))
    }

    /// Counts a connection that came to nothing.
    pub(crate) fn count_failure(&self) {
        self.0.failures.inc();
    }

    /// Shows its metrics among those of a server.
    ///
    /// # Errors
    /// They are shown there already.
    pub(crate) fn register(&self, metrics: &Metrics) -> prometheus::Result<()> {
        metrics.add(Box::new(self.0.expiry.clone()))?;
        metrics.add(Box::new(self.0.ok.clone()))?;
        metrics.add(Box::new(self.0.failures.clone()))
    }

    /// Takes over what the files say now.
    fn reload(&self) {
        let Inner { files, now, time, generation, expiry, ok, .. } = &*self.0;
        let fresh = Read::from(files).and_then(|read| {
            let before = now.read().unwrap_or_else(PoisonError::into_inner);
            if before.read == read { Ok(None) } else { read.after(&before, files, time).map(Some) }
        });
        match fresh {
            Ok(None) => ok.set(1),
            Ok(Some(loaded)) => {
                loaded.tell(&files.cert);
                ok.set(1);
                expiry.set(loaded.expires.as_second());
                let mut now = now.write().unwrap_or_else(PoisonError::into_inner);
                let others = now.read.authorities != loaded.read.authorities;
                *now = loaded;
                drop(now);
                if others {
                    generation.send_modify(|generation| *generation += 1);
                }
            }
            Err(error) => {
                // Each sweep finds it again; it is said when it begins.
                if ok.get() == 1 {
                    tracing::error!("the renewed certificate is not used, the one before it stays: {error}");
                }
                ok.set(0);
            }
        }
    }

    /// Follows the files until `stop`: what is told about their folders, SIGHUP, and now and then without either. From this call on SIGHUP
    /// ends the program no more, also before the answer is first waited for.
    pub fn follow(self, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let hup = signal(SignalKind::hangup()).ok();
        self.following(stop, hup)
    }

    async fn following(self, stop: CancellationToken, mut hup: Option<Signal>) {
        let (tell, mut told) = mpsc::channel(1);
        let watcher = watching(&self.0.files, tell);
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let hangup = async {
                match &mut hup {
                    Some(hup) => hup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = told.recv() => {
                    // What comes in this time is part of the same renewal; but where something else is written all the time, nobody waits
                    // for ever.
                    for _ in 0..SETTLES {
                        tokio::time::sleep(SETTLE).await;
                        if told.try_recv().is_err() {
                            break;
                        }
                    }
                }
                _ = hangup => {}
                _ = sweep.tick() => {}
            }
            self.reload();
        }
        drop(watcher);
    }
}

impl Read {
    fn from(files: &TlsFiles) -> Result<Self, TlsError> {
        let authorities = match &files.client_ca {
            Some(path) => tls::certificates(path)?,
            None => Vec::new(),
        };
        Ok(Self { chain: tls::certificates(&files.cert)?, key: tls::key(&files.key)?, authorities })
    }

    /// What to use in the place of `before`.
    fn after(self, before: &Loaded, files: &TlsFiles, time: &Clock) -> Result<Loaded, TlsError> {
        let (loaded, now) = (self.load(files, time)?, Timestamp::now());
        if loaded.expires <= now && now < before.expires {
            return Err(TlsError::Stale { path: files.cert.clone(), at: loaded.expires });
        }
        Ok(loaded)
    }

    fn load(self, files: &TlsFiles, time: &Clock) -> Result<Loaded, TlsError> {
        let expires =
            expiry(&self.chain[0]).map_err(|why| TlsError::Odd { path: files.cert.clone(), why })?;
        let apart = |e: rustls::Error| BadFile::Apart {
            cert: files.cert.clone(),
            key: files.key.clone(),
            why: tls::apart(&e),
        };
        let builder = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(apart)?;
        let verifier = match &files.client_ca {
            None => None,
            Some(path) => {
                let broken = |why: String| BadFile::Broken { path: path.clone(), why };
                let roots = Arc::new(tls::authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider());
                let verifier = if files.demand { verifier } else { verifier.allow_unauthenticated() };
                Some(verifier.build().map_err(|e| broken(e.to_string()))?)
            }
        };
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key()).map_err(apart)?;
        config.alpn_protocols = vec![tls::PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.time_provider = Arc::new(time.clone());
        Ok(Loaded { read: self, config: Arc::new(config), verifier, expires })
    }
}

impl Loaded {
    fn tell(&self, path: &Path) {
        let (path, expires) = (path.display(), self.expires);
        if expires <= Timestamp::now() {
            tracing::error!(
                "the certificate in {path} expired at {expires}: clients will refuse it; renew it"
            );
        } else {
            tracing::info!("the certificate in {path} is in use; it ends at {expires}");
        }
    }
}

/// Tells of changes in the folders of these files: a renewal may put other files in their place, or another folder in
/// the place of the one that links lead through.
fn watching(files: &TlsFiles, tell: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        // To read them is no change.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // One that waits says enough.
            let _ = tell.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(told).ok()?;
    let mut folders: Vec<PathBuf> = Vec::new();
    for file in [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()].into_iter().flatten() {
        for path in [Some(file.clone()), file.canonicalize().ok()].into_iter().flatten() {
            let folder = match path.parent() {
                Some(folder) if folder.as_os_str().is_empty() => Path::new(".").to_owned(),
                Some(folder) => folder.to_owned(),
                None => continue,
            };
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    for folder in folders {
        if let Err(error) = watcher.watch(&folder, notify::RecursiveMode::NonRecursive) {
            let (folder, seconds) = (folder.display(), SWEEP.as_secs());
            tracing::warn!("changes in {folder} are noticed after {seconds} s only: {error}");
        }
    }
    Some(watcher)
}

/// When a certificate ends.
pub(crate) fn expiry(certificate: &CertificateDer<'_>) -> Result<Timestamp, String> {
    let certificate = x509_cert::Certificate::from_der(certificate).map_err(|e| e.to_string())?;
    let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    let end = i64::try_from(end.as_secs()).map_err(|e| e.to_string())?;
    Timestamp::from_second(end).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
