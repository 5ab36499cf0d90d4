//! The connection to etcd: transactions, leases and watches, each bounded in time and with errors that say what was
//! attempted.
//!
//! All reading and writing are etcd transactions: what they read is of one moment, and they are linearizable.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, KeyValue, KvClient,
    LeaseClient, Txn, TxnOp, TxnOpResponse, WatchClient, WatchOptions, WatchStream,
};
use rand::Rng;
use shoal_store::{Result, StoreError};

use crate::address::Address;
use crate::fault::{fault, is_compacted, silent};
use crate::keys::Span;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// For how long what can be sent again is sent again: a restart passes unnoticed, a longer outage is the caller's business.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// For how long it is tried to reach any of several addresses at first.
const FIRST: Duration = Duration::from_secs(2);
/// Larger answers than the client takes by default: a page of rows, some large commits.
const ANSWER: usize = 1 << 30;
/// The most operations of one transaction, less than etcd's 128 by default.
pub(crate) const OPS: usize = 120;
/// The most octets of one transaction, less than etcd's 1.5 MiB by default.
pub(crate) const BYTES: usize = 1_300_000;

/// The way to etcd. A clone is another handle of the same.
#[derive(Clone)]
pub(crate) struct Link {
    kv: KvClient,
    lease: LeaseClient,
    watch: WatchClient,
    /// For errors: where it is.
    pub(crate) place: Arc<str>,
    /// The newest revision of etcd that an answer was of.
    seen: Arc<AtomicI64>,
    /// Whether there is more than one address.
    several: bool,
}

/// What a transaction answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Etcd's own revision at which it was read or written.
    pub(crate) revision: i64,
    /// Whether all that was compared was so.
    pub(crate) done: bool,
    /// What each operation found; nothing for one that writes.
    pub(crate) found: Vec<Found>,
}

/// What a range held.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) kvs: Vec<KeyValue>,
    /// Whether the range holds more than the limit.
    pub(crate) more: bool,
    pub(crate) count: i64,
}

impl Answer {
    /// What the next operation found.
    pub(crate) fn take(&mut self, n: usize) -> Found {
        self.found.get_mut(n).map(std::mem::take).unwrap_or_default()
    }

    /// The one key that an operation asked for.
    pub(crate) fn one(&mut self, n: usize) -> Option<KeyValue> {
        self.take(n).kvs.pop()
    }
}

impl Link {
    pub(crate) async fn connect(address: &Address) -> Result<Self> {
        let place: Arc<str> = format!("etcd at {}", address.hosts.join(",")).into();
        let options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(3))
            // A member that was cut off says nothing: it is left after these, and where it has no leader at once.
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_require_leader(true);
        let client = Client::connect(&address.hosts, Some(options)).await;
        let client = client.map_err(|e| fault(&place, "connecting", &e))?;
        Ok(Self {
            kv: client.kv_client().max_decoding_message_size(ANSWER).max_encoding_message_size(ANSWER),
            lease: client.lease_client(),
            watch: client.watch_client().max_decoding_message_size(ANSWER),
            place,
            seen: Arc::new(AtomicI64::new(0)),
            several: address.hosts.len() > 1,
        })
    }

    /// The newest revision of etcd that an answer was of.
    pub(crate) fn seen(&self) -> i64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Runs a transaction, once. After an error it may have been done, or may still be.
    pub(crate) async fn once(&self, attempted: &str, txn: Txn) -> Result<Answer> {
        let mut kv = self.kv.clone();
        let answer = self.within(attempted, kv.txn(txn)).await?;
        let found = answer.op_responses().into_iter().map(|one| match one {
            TxnOpResponse::Get(mut got) => {
                Found { more: got.more(), count: got.count(), kvs: got.take_kvs() }
            }
            _ => Found::default(),
        });
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        self.seen.fetch_max(revision, Ordering::SeqCst);
        Ok(Answer { revision, done: answer.succeeded(), found: found.collect() })
    }

    /// Runs the first transaction. One address that nobody answers at is most likely a wrong one, and a person waits; of
    /// several one may be down, and chance decides which is asked.
    pub(crate) async fn at_first(&self, attempted: &str, txn: Txn) -> Result<Answer> {
        let (begun, mut pause) = (Instant::now(), Pause::new());
        loop {
            match self.once(attempted, txn.clone()).await {
                Err(error) if error.is_transient() && self.several && begun.elapsed() < FIRST => {
                    tracing::debug!(%error, "asking again, maybe at another address");
                    pause.wait().await;
                }
                other => return other,
            }
        }
    }

    /// Runs a transaction that says the same twice, again and again while etcd cannot be reached.
    pub(crate) async fn again(&self, attempted: &str, txn: Txn) -> Result<Answer> {
        let mut pause = Pause::new();
        loop {
            match self.once(attempted, txn.clone()).await {
                Err(error) if error.is_transient() && !is_compacted(&error) => pause.after(error).await?,
                other => return other,
            }
        }
    }

    /// Reads some ranges as of one moment.
    pub(crate) async fn read(&self, attempted: &str, ranges: Vec<TxnOp>) -> Result<Answer> {
        self.again(attempted, Txn::new().and_then(ranges)).await
    }

    /// A lease of at least so long; etcd counts whole seconds, and has a shortest one.
    pub(crate) async fn grant(&self, ttl: Duration) -> Result<i64> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX).min(MOST_SECONDS);
        let (mut lease, mut pause) = (self.lease.clone(), Pause::new());
        loop {
            match self.within("asking for a lease", lease.grant(seconds, None)).await {
                Ok(granted) => return Ok(granted.id()),
                // One whose answer was lost ends by itself.
                Err(error) if error.is_transient() => pause.after(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends a lease, and what hangs on it. One that ended by itself is no error; nor is one that could not be ended,
    /// because it will.
    pub(crate) async fn revoke(&self, lease: i64) {
        let mut client = self.lease.clone();
        if let Err(error) = self.within("giving a lease back", client.revoke(lease)).await {
            tracing::debug!(%error, "a lease is left to end by itself");
        }
    }

    /// Makes a lease last its whole time from now. Whether there was one.
    pub(crate) async fn renew(&self, lease: i64) -> Result<bool> {
        let mut client = self.lease.clone();
        match tokio::time::timeout(REQUEST, client.keep_alive(lease)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(Error::LeaseKeepAliveError(_))) => Ok(false),
            Ok(Err(error)) => Err(fault(&self.place, "renewing a lease", &error)),
            Err(_) => Err(silent(&self.place, "renewing a lease", REQUEST.as_secs())),
        }
    }

    /// What is left of a lease, rounded up; `None` where it ended.
    pub(crate) async fn left(&self, lease: i64) -> Result<Option<Duration>> {
        let mut client = self.lease.clone();
        let answer = self.within("looking at a lease", client.time_to_live(lease, None)).await?;
        Ok(u64::try_from(answer.ttl()).ok().map(|seconds| Duration::from_secs(seconds + 1)))
    }

    /// Listens to a range from a revision of etcd on.
    pub(crate) async fn listen(&self, (from, to): Span, revision: i64) -> Result<WatchStream> {
        let mut client = self.watch.clone();
        let options = WatchOptions::new().with_range(to).with_start_revision(revision);
        self.within("listening for commits", client.watch(from, Some(options))).await
    }

    async fn within<T>(&self, attempted: &str, request: impl Future<Output = Result<T, Error>>) -> Result<T> {
        match tokio::time::timeout(REQUEST, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(fault(&self.place, attempted, &error)),
            Err(_) => Err(silent(&self.place, attempted, REQUEST.as_secs())),
        }
    }
}

/// Etcd takes no longer leases: nine billion seconds.
const MOST_SECONDS: i64 = 9_000_000_000;

/// Pauses between attempts, longer each time and never all alike, and an end to patience.
pub(crate) struct Pause {
    begun: Instant,
    most: u64,
}

impl Pause {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), most: 20 }
    }

    /// Waits, or gives the error back when there is no patience left.
    pub(crate) async fn after(&mut self, error: StoreError) -> Result<()> {
        if self.begun.elapsed() >= PATIENCE {
            return Err(error);
        }
        self.wait().await;
        Ok(())
    }

    /// Waits, however long it has been.
    pub(crate) async fn wait(&mut self) {
        let wait = rand::rng().random_range(1..=self.most);
        self.most = (self.most * 2).min(1000);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

/// Asks for one key.
pub(crate) fn get(key: Vec<u8>) -> TxnOp {
    TxnOp::get(key, None)
}

/// Asks for the first keys of a range.
pub(crate) fn first((from, to): Span, limit: usize) -> TxnOp {
    TxnOp::get(from, Some(some(to, limit)))
}

/// Asks for the first names of a range.
pub(crate) fn names((from, to): Span, limit: usize) -> TxnOp {
    TxnOp::get(from, Some(some(to, limit).with_keys_only()))
}

/// The options for the first keys up to an end.
fn some(to: Vec<u8>, limit: usize) -> GetOptions {
    GetOptions::new().with_range(to).with_limit(i64::try_from(limit).unwrap_or(i64::MAX))
}

/// Writes a key.
pub(crate) fn put(key: Vec<u8>, value: Vec<u8>) -> TxnOp {
    TxnOp::put(key, value, None)
}

/// Deletes a range.
pub(crate) fn clear((from, to): Span) -> TxnOp {
    TxnOp::delete(from, Some(DeleteOptions::new().with_range(to)))
}

/// That nothing stands at the key.
pub(crate) fn absent(key: Vec<u8>) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, 0)
}

/// That nothing stands in the range.
pub(crate) fn none((from, to): Span) -> Compare {
    // Holds for each key of the range, and so for none.
    Compare::create_revision(from, CompareOp::Equal, 0).with_range(to)
}

/// That the key was last written at this revision of etcd.
pub(crate) fn unmoved(key: Vec<u8>, revision: i64) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, revision)
}

/// That the key was made at this revision of etcd, and stands since.
pub(crate) fn made(key: Vec<u8>, revision: u64) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, i64::try_from(revision).unwrap_or(-1))
}
