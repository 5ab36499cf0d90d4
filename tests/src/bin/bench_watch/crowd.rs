//! Many watches of one store, each a task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use shoal_core::{Key, Range};
use shoal_store::{Feed, Filter, Flow, Store};
use shoal_store_sqlite::SqliteStore;
use shoal_tests::shape;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::{COMMITS, commit, host};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many begin at once.
const PART: usize = 250;

/// The watches; dropping it ends them.
pub(crate) struct Crowd {
    /// Who has a commit, and when.
    heard: UnboundedReceiver<(u32, Instant)>,
    /// How often any of them was told how far the database is.
    pub(crate) uptos: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// Until the watcher had it, in microseconds.
#[derive(Default)]
pub(crate) struct Times {
    /// From the commit's begin.
    pub(crate) begun: Vec<f64>,
    /// From its acknowledgement; 0 where the watcher was first.
    pub(crate) answered: Vec<f64>,
}

/// What concerns one host: its row, and every row that names it.
pub(crate) fn one_host(n: u32) -> Result<Filter> {
    let name = shape::host(n)?;
    let naming = Range::Naming(name.as_str().parse()?);
    Ok(Filter::of(vec![Range::Key(Key::host(&name)), naming]))
}

impl Crowd {
    /// Begins them, and waits until each says that it listens.
    pub(crate) async fn begin(store: &dyn Store, filters: Vec<(u32, Filter)>) -> Result<Self> {
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
    pub(crate) async fn next(&mut self) -> Result<(u32, Instant)> {
        let next = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        next.context("no commit was heard")?.context("the watches ended")
    }

    /// Commits to the first `who` hosts, in no order that matters; answers for each how many microseconds after its begin, and after the
    /// acknowledgement, its watcher had it.
    pub(crate) async fn round(&mut self, store: &SqliteStore, who: u32, serial: u32) -> Result<Times> {
        let mut times = Times::default();
        for turn in 0..COMMITS {
            let n = turn * 7919 % who;
            let change = host(n, serial * COMMITS + turn)?;
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
