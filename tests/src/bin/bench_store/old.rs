//! What a tag said of a host at an old revision: the first question about that revision, after 20,000 commits of all kinds.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use shoal_core::{Change, Document, HostName, Key, Member, Revision, TagName, View};
use shoal_store::{Database, Store};
use shoal_store_sqlite::SqliteStore;
use shoal_tests::figure::Figure;
use shoal_tests::shape;

use crate::{commit, row, since};

/// Commits between the oldest revision that is asked for and now.
const COMMITS: u32 = 20_000;
/// Commits that are under way at once.
const CLIENTS: u32 = 50;
/// Questions, each of another host and revision.
const ASKED: u32 = 2_000;
/// How often a whole old revision is read.
const WHOLE: u32 = 3;
/// How many commits ago is lately.
const LATE: u64 = 100;
/// The largest time that we want for the first question, in microseconds.
const GOAL: f64 = 1300.0;

/// Numbers that are spread evenly, the same in every run.
fn spread(n: u32, below: u32) -> u32 {
    let mixed = n.wrapping_add(1).wrapping_mul(2_654_435_761);
    (mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519) % below
}

/// One of many commits: of a hundred, some 84 write a host's document, ten put a host in a group or take it out, four write a group's
/// document, two a fact; of a thousand, one or two nest a group, and one puts a rule into one.
fn change(n: u32, hosts: u32) -> Result<Change> {
    let which = spread(n, hosts);
    let group: TagName = format!("tags/role-{}", 2 * (n % 20)).parse()?;
    let host = shape::host(which)?;
    let text = |value: serde_json::Value| shape::tag_record(&value);
    Ok(match n % 1000 {
        0 => Change::put(Key::member(&group, &format!("select: cpus == {n}").parse()?), Document::empty()),
        500 => {
            Change::put(Key::member(&"tags/all".parse()?, &Member::nested(&group, "tags")), Document::empty())
        }
        501 => Change::delete(Key::member(&"tags/all".parse()?, &Member::nested(&group, "tags"))),
        502 => Change::put(Key::tag(&"tags/all".parse()?), text(serde_json::json!({"serial": n}))),
        _ => match n % 50 {
            1 | 2 => Change::put(Key::tag(&group), text(serde_json::json!({"serial": n}))),
            3 => Change::put(
                Key::fact(&"vm".parse()?, host.as_str())?,
                Document::parse(&format!("{{\"n\":{n}}}"))?,
            ),
            4..=6 => Change::put(Key::member(&group, &Member::host(&host)), Document::empty()),
            7..=8 => Change::delete(Key::member(&group, &Member::host(&host))),
            _ => row(which, n as usize)?,
        },
    })
}

/// How long the questions took, in microseconds, in order.
struct Times(Vec<f64>);

impl Times {
    fn share(&self, percent: usize) -> f64 {
        self.0.get(self.0.len() * percent / 100).copied().unwrap_or(f64::NAN)
    }
}

pub(crate) async fn measure(hosts: u32, store: &SqliteStore) -> Result<()> {
    let store: Arc<dyn Store> = Arc::new(store.clone());
    let followed = Database::open(store.clone()).await?;
    let first = followed.view().revision();
    let begun = Instant::now();
    let writers = (0..CLIENTS).map(|client| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (client..COMMITS).step_by(CLIENTS as usize) {
                store.commit(commit(vec![change(n, hosts)?])).await?;
            }
            anyhow::Ok(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    let head = store.head().await?.revision;
    followed.wait_for(head).await;
    eprintln!("{} commits, followed, in {:.1} s", head.0 - first.0, begun.elapsed().as_secs_f64());
    let opened = Database::open(store).await?;
    let all: TagName = "tags/all".parse()?;
    let mut whole = Vec::new();
    for n in 0..WHOLE {
        // So long ago that nothing is taken back: it is read anew.
        let at = Revision(first.0 + u64::from(n));
        let begun = Instant::now();
        let view = followed.view_at(at).await?;
        whole.push(since(begun));
        let host = shape::host(spread(n, hosts))?;
        for database in [&followed, &opened] {
            let excerpt =
                database.excerpt_at(at, Some(&host), Some(&all)).await?.context("too much counts")?;
            ensure!(excerpt.effective() == view.effective(&all, Some(&host)), "it is not what stood then");
        }
    }
    let whole = Figure::median("the whole of 20,000 commits ago", "us", whole);
    let mut late = Vec::new();
    for n in 0..WHOLE {
        let begun = Instant::now();
        let view = followed.view_at(Revision(head.0 - LATE - u64::from(n))).await?;
        late.push(since(begun));
        ensure!(view.hosts().count() == hosts as usize, "hosts are missing");
    }
    Figure::median("the whole view of some hundred commits ago", "us", late)
        .hosts(hosts)
        .beside("of 20,000 commits ago", whole.value)
        .print();
    let now = asked(hosts, |host, _| now(followed.view(), host, &all)).await?;
    // Each asks for other revisions than those before, and each question for one that was not asked for.
    let one = asked(hosts, |host, n| then(&followed, between(first, head, n), host, &all)).await?;
    let other = asked(hosts, |host, n| then(&opened, between(first, head, n + ASKED), host, &all)).await?;
    Figure {
        value: one.share(50),
        ..Figure::median("effective document at an old revision, first question", "us", one.0.clone())
    }
    .hosts(hosts)
    .beside("99th of a hundred", one.share(99))
    .beside("freshly opened", other.share(50))
    .beside("freshly opened, 99th of a hundred", other.share(99))
    .beside("now", now.share(50))
    .beside("now, 99th of a hundred", now.share(99))
    .beside("the whole of 20,000 commits ago", whole.value)
    .goal(GOAL)
    .print();
    Ok(())
}

/// A revision of those that were committed here.
fn between(first: Revision, head: Revision, n: u32) -> Revision {
    let commits = u32::try_from(head.0 - first.0).unwrap_or(u32::MAX);
    Revision(first.0 + u64::from(spread(n ^ 0x5555, commits)))
}

async fn now(view: Arc<View>, host: HostName, tag: &TagName) -> Result<bool> {
    Ok(view.effective(tag, Some(&host)).is_some())
}

async fn then(database: &Database, at: Revision, host: HostName, tag: &TagName) -> Result<bool> {
    let excerpt = database.excerpt_at(at, Some(&host), Some(tag)).await?.context("too much counts")?;
    Ok(excerpt.effective().is_some())
}

/// Asks for one host after the other.
async fn asked<F: Future<Output = Result<bool>>>(
    hosts: u32,
    ask: impl Fn(HostName, u32) -> F,
) -> Result<Times> {
    let mut times = Vec::new();
    for n in 0..ASKED {
        let host = shape::host(spread(n, hosts))?;
        let begun = Instant::now();
        ensure!(ask(host, n).await?, "a host of the fleet is in no site");
        times.push(since(begun));
    }
    times.sort_by(f64::total_cmp);
    Ok(Times(times))
}
