//! Watchers hear all that passes, once and in order, however the hub is told, and whenever they listen.

use std::sync::Mutex;

use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use shoal_core::{CommitInfo, Document, Epoch, Key};

use super::*;
use crate::{Flow, Fut};

const KEYS: [&str; 5] = ["dns/a", "dns/a/members/h1", "hosts/h1", "hosts/h2", "lb/a"];

/// The log of a database whose commits come at [`STEP`] numbers each.
#[derive(Clone)]
struct Log {
    entries: Arc<Mutex<Vec<Arc<LogEntry>>>>,
    /// Whether it knows the shorter way.
    short: bool,
    passed: Arc<Mutex<usize>>,
}

const STEP: u64 = 300;

impl History for Log {
    fn refresh(&self) -> Fut<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn after(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        let entries = self.entries.lock().unwrap();
        let found = entries.iter().filter(|e| e.info.revision > after).take(3).cloned().collect();
        Box::pin(async { Ok(found) })
    }

    fn passing(
        &self,
        filter: &Filter,
        after: Revision,
        upto: Revision,
    ) -> Fut<'_, Result<Option<super::super::Found>>> {
        if !self.short {
            return Box::pin(async { Ok(None) });
        }
        *self.passed.lock().unwrap() += 1;
        let entries = self.entries.lock().unwrap();
        let within = entries.iter().filter(|e| e.info.revision > after && e.info.revision <= upto);
        let found: Vec<_> = within.filter_map(|entry| passing(filter, entry)).take(2).collect();
        let looked = found.last().map_or(upto, |entry| entry.info.revision);
        Box::pin(async move { Ok(Some((found, looked))) })
    }
}

fn passing(filter: &Filter, entry: &LogEntry) -> Option<Arc<LogEntry>> {
    let changes: Vec<_> = entry.changes.iter().filter(|c| filter.passes(&c.key)).cloned().collect();
    (!changes.is_empty()).then(|| Arc::new(LogEntry { info: entry.info.clone(), changes }))
}

fn entry(revision: u64, keys: &[&str]) -> Arc<LogEntry> {
    let change = |key: &&str| Change::put(key.parse().unwrap(), Document::empty());
    let info = CommitInfo {
        revision: Revision(revision),
        author: "a".into(),
        principal: None,
        origin: None,
        message: "m".into(),
        time: jiff::Timestamp::UNIX_EPOCH,
    };
    Arc::new(LogEntry { info, changes: keys.iter().map(change).collect() })
}

#[derive(Clone, Debug)]
enum Op {
    Watch(Vec<Range>, u64),
    Commit(Vec<&'static str>),
    /// A commit that the hub is told of only by number.
    Moved(Vec<&'static str>),
    Listen(usize, usize),
    Leave(usize),
    /// Another life of the database, that lacks the last commit.
    Epoch,
}

fn op() -> impl Strategy<Value = Op> {
    let range = prop_oneof![
        Just(Range::All),
        Just(Range::hosts()),
        Just(Range::namespace("dns")),
        Just(Range::Naming("h1".parse().unwrap())),
        Just(Range::Concerning("h1".parse().unwrap())),
        prop::sample::select(&KEYS[..]).prop_map(|key| Range::Key(key.parse().unwrap())),
    ];
    let keys = || prop::sample::subsequence(&KEYS[..], 1..4);
    prop_oneof![
        4 => (prop::collection::vec(range, 0..3), 0..8u64).prop_map(|(ranges, back)| Op::Watch(ranges, back)),
        10 => keys().prop_map(Op::Commit),
        2 => keys().prop_map(Op::Moved),
        10 => (0..20usize, 1..6usize).prop_map(|(who, times)| Op::Listen(who, times)),
        1 => (0..20usize).prop_map(Op::Leave),
        2 => Just(Op::Epoch),
    ]
}

/// A watch, and what it has said.
struct Heard {
    filter: Filter,
    watch: Flow<Result<Feed>>,
    /// After which revision of which epoch it is to tell all.
    from: Head,
    commits: Vec<Arc<LogEntry>>,
    upto: Revision,
}

impl Heard {
    /// Takes what there is to hear, at most `times` messages. Answers whether there was as much.
    fn listen(&mut self, times: usize) -> bool {
        for _ in 0..times {
            let Some(message) = self.watch.next().now_or_never() else { return false };
            match message.unwrap().unwrap() {
                Feed::Commit(entry) => {
                    assert!(entry.info.revision > self.upto, "it was said that nothing is missing");
                    self.commits.push(entry);
                }
                Feed::Upto(revision) => {
                    assert!(self.commits.last().is_none_or(|last| last.info.revision <= revision));
                    assert!(self.upto <= revision);
                    self.upto = revision;
                }
                Feed::Reset(head) => (self.from, self.upto, self.commits) = (head, Revision(0), Vec::new()),
            }
        }
        true
    }
}

fn run(ops: Vec<Op>, short: bool) -> usize {
    let log = Log { entries: Arc::default(), short, passed: Arc::default() };
    let mut head = Head { epoch: Epoch(1), revision: Revision(0) };
    let hub = Arc::new(Hub::new(head));
    let mut all: Vec<Heard> = Vec::new();
    for op in ops {
        match op {
            Op::Watch(ranges, back) => {
                let after = Head {
                    epoch: head.epoch,
                    revision: Revision(head.revision.0.saturating_sub(back * STEP)),
                };
                let filter = Filter { ranges, progress: std::time::Duration::ZERO };
                let watch = hub.watch(Arc::new(log.clone()), filter.clone(), after);
                all.push(Heard { filter, watch, from: after, commits: Vec::new(), upto: Revision(0) });
            }
            Op::Commit(ref keys) | Op::Moved(ref keys) => {
                head.revision.0 += STEP;
                let entry = entry(head.revision.0, keys);
                log.entries.lock().unwrap().push(Arc::clone(&entry));
                match op {
                    Op::Commit(_) => hub.publish([entry]),
                    _ => hub.moved(head),
                }
            }
            Op::Listen(who, times) if !all.is_empty() => {
                let who = who % all.len();
                all[who].listen(times);
            }
            Op::Leave(who) if !all.is_empty() => drop(all.swap_remove(who % all.len())),
            Op::Epoch => {
                let mut log = log.entries.lock().unwrap();
                log.pop();
                head = Head {
                    epoch: Epoch(head.epoch.0 + 1),
                    revision: log.last().map_or(Revision(0), |entry| entry.info.revision),
                };
                hub.moved(head);
            }
            Op::Listen(..) | Op::Leave(_) => {}
        }
    }
    for heard in &mut all {
        while heard.listen(1) {}
        assert_eq!(heard.from.epoch, head.epoch);
        let log = log.entries.lock().unwrap();
        let after = log.iter().filter(|entry| entry.info.revision > heard.from.revision);
        let expected: Vec<_> = after.filter_map(|entry| passing(&heard.filter, entry)).collect();
        assert_eq!(heard.commits, expected, "{:?} from {:?}", heard.filter, heard.from);
        let last = heard.commits.last().map_or(Revision(0), |last| last.info.revision);
        assert!(heard.upto.max(last) <= head.revision);
    }
    drop(all);
    assert!(!hub.is_watched());
    *log.passed.lock().unwrap()
}

proptest! {
    #[test]
    fn all_that_passes_is_heard_once_and_in_order(ops in prop::collection::vec(op(), 0..80), short: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { run(ops, short) });
    }

    /// Searching a large commit finds what asking for each of its changes does.
    #[test]
    fn what_is_searched_is_what_is_scanned(
        hosts in prop::collection::btree_set(0..400u32, 70..200),
        ranges in prop::collection::vec(prop_oneof![
            (0..400u32).prop_map(|n| Range::Key(Key::host(&format!("h{n}").parse().unwrap()))),
            (0..40u32).prop_map(|n| Range::Prefix(format!("hosts/h{n}"))),
            Just(Range::Prefix(String::new())),
            Just(Range::Naming("h1".parse().unwrap())),
            (0..400u32).prop_map(|n| Range::Concerning(format!("h{n}").parse().unwrap())),
        ], 0..5),
    ) {
        let mut keys: Vec<Key> = hosts.iter().map(|n| Key::host(&format!("h{n}").parse().unwrap())).collect();
        keys.sort();
        let changes: Vec<Change> = keys.into_iter().map(|key| Change::put(key, Document::empty())).collect();
        let filter = Filter::of(ranges);
        let scanned: Vec<_> = changes.iter().filter(|change| filter.passes(&change.key)).collect();
        prop_assert_eq!(pick(&filter, &changes), scanned);
    }
}

/// Who is far behind is told by the store what concerns it; who is a little behind reads, and the next one finds it in the ring.
#[tokio::test]
async fn what_one_read_the_next_one_finds() {
    let log = Log { entries: Arc::default(), short: true, passed: Arc::default() };
    for n in 1..=6 {
        log.entries.lock().unwrap().push(entry(n * STEP, &["hosts/h1"]));
    }
    let head = Head { epoch: Epoch(1), revision: Revision(6 * STEP) };
    let hub = Arc::new(Hub::new(head));
    let back = |n: u64| Head { revision: Revision(head.revision.0 - n * STEP), ..head };
    let passed = || *log.passed.lock().unwrap();
    let listen = async |back: Head, expected: usize| {
        let mut watch = hub.watch(Arc::new(log.clone()), Filter::of(vec![Range::hosts()]), back);
        for _ in 0..expected {
            assert!(matches!(watch.next().await, Some(Ok(Feed::Commit(_)))));
        }
        assert_eq!(watch.next().await, Some(Ok(Feed::Upto(head.revision))));
    };
    listen(back(1), 1).await;
    assert_eq!(
        (passed(), hub.desk().recent(back(1).revision, head.revision).map(|found| found.len())),
        (0, Some(1))
    );
    assert_eq!(hub.desk().recent(back(2).revision, head.revision), None);
    listen(back(4), 4).await;
    assert!(passed() > 0);
    // Now nothing but the ring can answer.
    log.entries.lock().unwrap().clear();
    listen(back(1), 1).await;
}
