//! Many watches of one store, each a task, and the commits that they are to hear of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use shoal_core::{Change, Commit, Document, HostRecord, Key, Range};
use shoal_store::{Feed, Filter, Flow, Store};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::shape;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many begin at once.
const PART: usize = 250;

/// The watches; dropping it ends them.
#[derive(Debug)]
pub struct Crowd {
    /// Who has a commit, and when.
    heard: UnboundedReceiver<(u32, Instant)>,
    /// How often any of them was told how far the database is.
    uptos: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// Until the watcher had it, in microseconds.
#[derive(Debug, Default)]
pub struct Times {
    /// From the commit's begin.
    pub begun: Vec<f64>,
    /// From its acknowledgement; 0 where the watcher was first.
    pub answered: Vec<f64>,
}

/// What concerns one host: its row, and every row that names it.
///
/// # Errors
/// Never; the names are made to be good.
pub fn one_host(n: u32) -> Result<Filter> {
    let name = shape::host(n)?;
    let naming = Range::Naming(name.as_str().parse()?);
    Ok(Filter::of(vec![Range::Key(Key::host(&name)), naming]))
}

/// A commit of these changes, on no condition.
#[must_use]
pub fn commit(changes: Vec<Change>) -> Commit {
    Commit::new("bench", "measure", changes)
}

/// Host `n`, as no call with another serial number wrote it.
///
/// # Errors
/// Never; the names are made to be good.
pub fn host(n: u32, serial: u32) -> Result<Change> {
    host_with(n, "serial", serial.into())
}

/// Host `n` with this in a field of its document.
///
/// # Errors
/// As for [`host`].
pub fn host_with(n: u32, field: &str, value: serde_json::Value) -> Result<Change> {
    let mut record: HostRecord = shape::record(n).to()?;
    let mut document = shape::document(n);
    document[field] = value;
    record.document = document.into();
    Ok(Change::put(Key::host(&shape::host(n)?), Document::of(&record)?))
}

impl Crowd {
    /// Begins them, and waits until each says that it listens.
    ///
    /// # Errors
    /// They do not all listen in time.
    pub async fn begin(store: &dyn Store, filters: Vec<(u32, Filter)>) -> Result<Self> {
        let head = store.head().await?;
        let (tell, heard) = unbounded_channel();
        let uptos = Arc::<AtomicUsize>::default();
        let (mut tasks, mut begun) = (JoinSet::new(), 0);
        for part in filters.chunks(PART) {
            for (n, filter) in part {
                let watch = store.watch(filter.clone(), head);
                tasks.spawn(listen(*n, watch, tell.clone(), Arc::clone(&uptos)));
            }
            begun += part.len();
            let start = Instant::now();
            while uptos.load(Ordering::SeqCst) < begun {
                ensure!(start.elapsed() < PATIENCE, "{begun} watches were begun, and not all of them listen");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(Self { heard, uptos, _tasks: tasks })
    }

    /// The next that has a commit.
    ///
    /// # Errors
    /// Nobody has one in time.
    pub async fn next(&mut self) -> Result<(u32, Instant)> {
        let next = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        next.context("no commit was heard")?.context("the watches ended")
    }

    /// How often any of them was told how far the database is.
    #[must_use]
    pub fn uptos(&self) -> usize {
        self.uptos.load(Ordering::SeqCst)
    }

    /// Makes so many commits, to the first `who` hosts, in no order that matters; answers for each how many microseconds after its begin, and
    /// after the acknowledgement, its watcher had it.
    ///
    /// # Errors
    /// A commit came to somebody whom it does not concern, or did not come.
    pub async fn round(&mut self, store: &dyn Store, who: u32, commits: u32, serial: u32) -> Result<Times> {
        let mut times = Times::default();
        for turn in 0..commits {
            let n = turn.wrapping_mul(7919) % who;
            let change = host(n, serial * commits + turn)?;
            let begun = Instant::now();
            store.commit(commit(vec![change])).await?;
            let answered = Instant::now();
            let (by, when) = self.next().await?;
            ensure!(by == n, "a commit on host {n} came to the watcher of host {by}");
            times.begun.push(when.saturating_duration_since(begun).as_secs_f64() * 1e6);
            times.answered.push(when.saturating_duration_since(answered).as_secs_f64() * 1e6);
        }
        ensure!(self.heard.try_recv().is_err(), "a commit came to somebody else as well");
        Ok(times)
    }
}

async fn listen(
    n: u32,
    mut watch: Flow<shoal_store::Result<Feed>>,
    tell: UnboundedSender<(u32, Instant)>,
    uptos: Arc<AtomicUsize>,
) {
    while let Some(Ok(feed)) = watch.next().await {
        match feed {
            Feed::Commit(_) => drop(tell.send((n, Instant::now()))),
            Feed::Upto(_) => drop(uptos.fetch_add(1, Ordering::SeqCst)),
            Feed::Reset(_) => return,
        }
    }
}
