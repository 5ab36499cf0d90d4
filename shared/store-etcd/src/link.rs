//! The connection to etcd: transactions, leases and watches, each bounded in time and with errors that say what was
//! attempted.
//!
//! All reading and writing are etcd transactions: what they read is of one moment, and they are linearizable.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{
    Compare, CompareOp, DeleteOptions, Error, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, WatchOptions,
    WatchResponse, WatchStream,
};
use rand::Rng;
use shoal_store::{Result, StoreError};
use tokio::sync::watch;

use crate::address::Address;
use crate::fault::{cancelled, fault, is_compacted, silent};
use crate::keys::Span;
use crate::members::{Members, REQUEST};
use crate::papers::Papers;

/// For how long what can be sent again is sent again: a restart passes unnoticed, a longer outage is the caller's business.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// For how long it is tried to reach any of several addresses at first.
const FIRST: Duration = Duration::from_secs(2);
/// The most operations of one transaction, less than etcd's 128 by default.
pub(crate) const OPS: usize = 120;
/// The most octets that one transaction writes, keys and values, less than etcd's 1.5 MiB by default.
pub(crate) const BYTES: usize = 1_300_000;
/// The most octets of keys that it compares beside that, and the most of those that it asks for where something is not so: for both there is
/// room, and for the claims that it rests on.
pub(crate) const ASKED: usize = 64 << 10;
/// How much etcd's own database may have where nothing else is said.
const QUOTA: u64 = 2 << 30;

/// The way to etcd. A clone is another handle of the same.
#[derive(Clone)]
pub(crate) struct Link {
    members: Arc<Members>,
    /// For errors: where it is.
    pub(crate) place: Arc<str>,
    /// The newest revision of etcd that an answer was of.
    seen: Arc<AtomicI64>,
    /// How many octets etcd's own database may have, where the address says so.
    quota: Option<u64>,
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

/// How large etcd's own database is, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Its file, which is what etcd compares with its quota.
    pub(crate) file: u64,
    /// What of that is in use.
    pub(crate) used: u64,
    /// What it may have.
    pub(crate) quota: u64,
    /// Whether that is known, and not only what etcd does when it is not told.
    pub(crate) known: bool,
}

impl Link {
    /// Reads the files; connects when it is first asked.
    pub(crate) fn connect(address: &Address, papers: &Papers) -> Result<Self> {
        let members = Arc::new(Members::new(address, papers)?);
        let place = members.place.name.clone();
        Ok(Self { members, place, seen: Arc::new(AtomicI64::new(0)), quota: address.quota })
    }

    /// The newest revision of etcd that an answer was of.
    pub(crate) fn seen(&self) -> i64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Runs a transaction, once. After an error it may have been done, or may still be.
    pub(crate) async fn once(&self, attempted: &str, txn: Txn) -> Result<Answer> {
        let mut member = self.members.member(attempted).await?;
        let answer = self.within(attempted, member.number, member.kv.txn(txn)).await?;
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
    /// several some may be down, so each is asked.
    pub(crate) async fn at_first(&self, attempted: &str, txn: Txn) -> Result<Answer> {
        let (begun, mut pause, mut asked, all) = (Instant::now(), Pause::new(), 0, self.members.count());
        loop {
            asked += 1;
            match self.once(attempted, txn.clone()).await {
                Err(error) if error.is_transient() && all > 1 && (asked < all || begun.elapsed() < FIRST) => {
                    tracing::debug!(%error, "asking again, at another address");
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
        let (ask, mut pause) = ("asking for a lease", Pause::new());
        loop {
            let granted = async {
                let mut member = self.members.member(ask).await?;
                self.within(ask, member.number, member.lease.grant(seconds, None)).await
            };
            match granted.await {
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
        let ask = "giving a lease back";
        let revoked = async {
            let mut member = self.members.member(ask).await?;
            self.within(ask, member.number, member.lease.revoke(lease)).await
        };
        if let Err(error) = revoked.await {
            tracing::debug!(%error, "a lease is left to end by itself");
        }
    }

    /// Makes a lease last its whole time from now. Whether there was one.
    pub(crate) async fn renew(&self, lease: i64) -> Result<bool> {
        let ask = "renewing a lease";
        let mut member = self.members.member(ask).await?;
        let renewed = async {
            match member.lease.keep_alive(lease).await {
                Ok(_) => Ok(true),
                Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.within(ask, member.number, renewed).await
    }

    /// What is left of a lease, rounded up; `None` where it ended.
    pub(crate) async fn left(&self, lease: i64) -> Result<Option<Duration>> {
        let ask = "looking at a lease";
        let mut member = self.members.member(ask).await?;
        let answer = self.within(ask, member.number, member.lease.time_to_live(lease, None)).await?;
        Ok(u64::try_from(answer.ttl()).ok().map(|seconds| Duration::from_secs(seconds + 1)))
    }

    /// How large etcd's own database is, as the member that is asked has it.
    pub(crate) async fn room(&self) -> Result<Room> {
        let ask = "asking how large it is";
        let mut member = self.members.member(ask).await?;
        let status = self.within(ask, member.number, member.maintenance.status()).await?;
        let octets = |count: i64| u64::try_from(count).unwrap_or(0);
        // Etcd itself says it since 3.6.
        let told = Some(octets(status.db_size_quota())).filter(|quota| *quota > 0).or(self.quota);
        Ok(Room {
            file: octets(status.db_size()),
            used: octets(status.raft_used_db_size()),
            quota: told.unwrap_or(QUOTA),
            known: told.is_some(),
        })
    }

    /// Listens to a range from a revision of etcd on.
    pub(crate) async fn listen(&self, (from, to): Span, revision: i64) -> Result<Listen> {
        let ask = "listening for commits";
        let mut member = self.members.member(ask).await?;
        // In pieces, or a watcher that was away gets all that it missed as one message.
        let options = WatchOptions::new().with_range(to).with_start_revision(revision).with_fragment();
        let stream = self.within(ask, member.number, member.watch.watch(from, Some(options))).await?;
        let (number, newest) = (member.number, self.members.newest());
        Ok(Listen { link: self.clone(), stream, number, newest })
    }

    async fn within<T>(
        &self,
        attempted: &str,
        number: u64,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(REQUEST, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.members.failed(number, &error);
                Err(fault(&self.members.place, attempted, &error))
            }
            Err(_) => {
                self.members.leave(number);
                Err(silent(&self.members.place, attempted, REQUEST.as_secs()))
            }
        }
    }
}

/// What one member tells of a range.
pub(crate) struct Listen {
    link: Link,
    stream: WatchStream,
    number: u64,
    newest: watch::Receiver<u64>,
}

impl Listen {
    /// What it tells next; `None`: another connection is asked by now, and so has to be listened to.
    ///
    /// # Errors
    /// It ended.
    pub(crate) async fn next(&mut self) -> Result<Option<WatchResponse>> {
        let number = self.number;
        tokio::select! {
            told = self.stream.message() => match told {
                Ok(Some(told)) => Ok(Some(told)),
                Ok(None) => Err(self.ended("the connection ended")),
                Err(error) => {
                    self.link.members.failed(number, &error);
                    Err(fault(&self.link.members.place, "listening for commits", &error))
                }
            },
            () = another(&mut self.newest, number) => Ok(None),
        }
    }

    /// The error of an end that was told.
    pub(crate) fn ended(&self, why: &str) -> StoreError {
        self.link.members.leave(self.number);
        cancelled(&self.link.members.place, why)
    }
}

/// Waits until another connection than this one is asked. Who tells is there for as long as the link is.
async fn another(newest: &mut watch::Receiver<u64>, number: u64) {
    drop(newest.wait_for(|newest| *newest != number).await);
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
