//! Who uses the database meanwhile. Each client does one thing at a time and notes it on the board: first that it asks, then what it
//! was answered.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use shoal_client::{HttpStore, Options};
use shoal_core::{BadName, Change, Commit, Committed, Document, Key, Namespace, Pre, Range};
use shoal_store::{
    Claim, ClaimAnswer, ClaimRequest, Feed, Filter, LedgerWrite, Position, Query, Store, StoreError,
};
use shoal_tests::shape;
use stateright::semantics::register::{RegisterOp, RegisterRet};

use crate::seen::{Answer, Board, Said, Taken, Write};

/// How many zones there are.
pub(crate) const ZONES: u64 = 8;
/// Their addresses begin with 10.
const TEN: u32 = 10 << 24;
/// How many claims.
const CLAIMS: u32 = 2;
/// How long one lasts.
const LEASE: Duration = Duration::from_secs(2);
/// How long a register lives, in milliseconds.
const WINDOW: u128 = 200;
/// How often a client reads or writes one.
const TIMES: u32 = 3;
/// Threads of a client's that were not answered are followed by others, this far apart.
pub(crate) const THREADS: u64 = 1_000;

/// The database behind these addresses, for those who give up soon.
pub(crate) fn store(addresses: &str) -> Result<HttpStore> {
    patient(addresses, Duration::from_secs(8))
}

/// The database behind one server, for those who can go to another one at once.
pub(crate) fn alone(address: &str) -> Result<HttpStore> {
    patient(address, Duration::from_secs(1))
}

fn patient(addresses: &str, patience: Duration) -> Result<HttpStore> {
    let options = Options {
        connect: Duration::from_secs(1),
        answer: Duration::from_secs(15),
        hung: Duration::from_secs(1),
        silence: Duration::from_secs(5),
        heartbeat: Duration::from_secs(20),
        patience,
        ..Options::default()
    };
    HttpStore::with(addresses, options).with_context(|| addresses.to_owned())
}

/// A commit of these changes that the database knows again by this text.
pub(crate) fn commit(id: &str, pre: Vec<Pre>, changes: Vec<Change>) -> Commit {
    Commit { pre, idempotency: Some(id.to_owned()), ..Commit::new("chaos", id, changes) }
}

/// The key of a window's register. Those of later windows stand after it.
fn register(window: u64) -> String {
    format!("chaos/w{window:010}")
}

/// A tag that says a number.
fn number(number: u64) -> Document {
    shape::tag_record(&json!({ "number": number }))
}

/// The number that such a tag says.
pub(crate) fn number_of(tag: &Document) -> Option<u64> {
    tag.field("document")?.get("number")?.as_u64()
}

/// A zone whose `www` has the address of this number.
pub(crate) fn zone(zone: u64, address: u32) -> Result<Change> {
    let document = json!({
        "soa": { "primary": "ns1" },
        "static": [
            { "name": "ns1", "type": "A", "data": "192.0.2.53" },
            { "name": "www", "type": "A", "data": Ipv4Addr::from_bits(TEN | address).to_string() },
        ],
    });
    Ok(Change::put(format!("dns/z{zone}.example").parse()?, shape::tag_record(&document)))
}

/// One client.
pub(crate) struct Client {
    number: u64,
    store: HttpStore,
    /// Each server by itself.
    each: Vec<HttpStore>,
    board: Arc<Board>,
    random: StdRng,
    commits: u64,
    claims: u64,
    thread: u64,
    window: u64,
    /// How often it may still use the window's register.
    left: u32,
    next_id: u64,
}

impl Client {
    /// The client of this number, which is above 0 and below [`THREADS`].
    pub(crate) fn new(
        number: u64,
        seed: u64,
        store: HttpStore,
        each: Vec<HttpStore>,
        board: Arc<Board>,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(THREADS).wrapping_add(number));
        Self {
            number,
            store,
            each,
            board,
            random,
            commits: 0,
            claims: 0,
            thread: number,
            window: 0,
            left: 0,
            next_id: 0,
        }
    }

    /// Uses the database until it is over.
    pub(crate) async fn live(mut self) -> Result<()> {
        while !self.board.is_over() {
            match self.random.random_range(0..100) {
                0..60 => self.register().await?,
                60..75 => self.fleet().await?,
                75..88 => self.id().await?,
                _ => self.claim().await?,
            }
            let pause = Duration::from_millis(self.random.random_range(1..30));
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Commits one change, and notes it.
    async fn commit(&mut self, pre: Vec<Pre>, change: Change) -> Answer {
        self.commits += 1;
        let id = format!("c{}-{}", self.number, self.commits);
        let asked = self.board.now();
        let answer = self.store.commit(commit(&id, pre, vec![change])).await;
        let answer = self.judge(&id, asked, answer);
        self.board.seen().said.push(Said { id, answer });
        answer
    }

    fn judge(&self, id: &str, asked: Duration, answer: Result<Committed, StoreError>) -> Answer {
        match answer {
            Ok(done) => Answer::Done(done.revision.0),
            Err(StoreError::Conflict { .. } | StoreError::Fenced { .. }) => Answer::Refused,
            Err(StoreError::Unavailable { .. }) => Answer::Unknown,
            Err(StoreError::Full { .. }) => {
                self.board.no_room(asked);
                Answer::Full
            }
            Err(other) => {
                self.board.wrong(format!("{id} was refused: {other}"));
                Answer::Refused
            }
        }
    }

    /// Reads or writes the register of now.
    async fn register(&mut self) -> Result<()> {
        let window = u64::try_from(self.board.now().as_millis() / WINDOW).unwrap_or(u64::MAX);
        if window != self.window {
            (self.window, self.left) = (window, TIMES);
        }
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let (thread, key): (u64, Key) = (self.thread, register(window).parse()?);
        let answered = if self.random.random_bool(0.4) {
            // No two writes are of one value.
            let value = (self.commits + 1) * THREADS + self.number;
            self.board.begins(window, thread, RegisterOp::Write(value));
            let answer = self.commit(Vec::new(), Change::put(key, number(value))).await;
            let answered = matches!(answer, Answer::Done(_));
            if answered {
                self.board.ends(window, thread, RegisterRet::WriteOk);
            }
            answered
        } else {
            let asked = self.board.now();
            self.board.begins(window, thread, RegisterOp::Read);
            let in_view = self.random.random_bool(0.5);
            // One of the servers, or whichever is asked first.
            let server = self.random.random_range(0..=self.each.len());
            let store = self.each.get(server).unwrap_or(&self.store);
            let read = if in_view { read_view(store, window).await } else { read_row(store, key).await };
            match read {
                Ok(value) => {
                    if server < self.each.len() {
                        self.board.at(window, thread, server);
                    }
                    self.board.ends(window, thread, RegisterRet::ReadOk(value));
                    let mut seen = self.board.seen();
                    seen.reads += 1;
                    seen.views += u64::from(in_view);
                    true
                }
                Err(error) => {
                    self.board.forgets(window, thread);
                    self.failed("a read", asked, &error);
                    false
                }
            }
        };
        if !answered {
            (self.left, self.thread) = (0, self.thread + THREADS);
        }
        Ok(())
    }

    /// Changes what the agents make.
    async fn fleet(&mut self) -> Result<()> {
        let which = self.random.random_range(0..ZONES);
        // Another one each time: what changes nothing is acknowledged, and is no commit.
        let address = u32::try_from(self.number * 1_000_000 + self.commits)?;
        self.commit(Vec::new(), zone(which, address)?).await;
        Ok(())
    }

    /// Takes the next ID that is not known to be taken. All clients want the same ones.
    async fn id(&mut self) -> Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let key: Key = format!("ids/n{id}").parse()?;
        let answer = self.commit(vec![Pre::Absent(key.clone())], Change::put(key, number(self.number))).await;
        if matches!(answer, Answer::Done(_)) {
            self.board.seen().taken.push((id, self.number));
        }
        Ok(())
    }

    /// Takes a claim, works under it, and gives it back, leaves it, or outlives it and tries to go on.
    async fn claim(&mut self) -> Result<()> {
        let which = self.random.random_range(0..CLAIMS);
        self.claims += 1;
        let want = ClaimRequest {
            name: format!("chaos/lock-{which}"),
            of: 1,
            // Another one each time: who holds it already is granted it once more, and that is no second claim.
            holder: format!("chaos/{}-{}", self.number, self.claims),
            ttl: Some(LEASE),
        };
        let asked = self.board.now();
        let claim = match self.store.claim(&want).await {
            Ok(ClaimAnswer::Granted(claim)) => claim,
            Ok(ClaimAnswer::Taken { .. }) => return Ok(()),
            Err(error) => {
                self.failed("a claim", asked, &error);
                return Ok(());
            }
        };
        let grant = self.board.granted(&claim.name, self.number, claim.number, asked, LEASE);
        self.ledger(&claim).await;
        let key: Key = format!("chaos/held-{which}").parse()?;
        self.commit(vec![claim.held()], Change::put(key, number(claim.number))).await;
        match self.random.random_range(0..4) {
            0 => {
                let over = (asked + LEASE).saturating_sub(self.board.now());
                tokio::time::sleep(over + Duration::from_millis(self.random.random_range(0..1_500))).await;
                self.ledger(&claim).await;
            }
            1 => {}
            _ => {
                self.board.lets_go(grant);
                let asked = self.board.now();
                // One that did not get there ends by itself.
                if let Err(error) = self.store.release(&claim).await {
                    self.failed("giving a claim back", asked, &error);
                }
            }
        }
        Ok(())
    }

    /// Writes the claim's number into the ledger.
    async fn ledger(&self, claim: &Claim) {
        let begun = self.board.now();
        let value = Some(claim.number.to_string().into_bytes());
        let rows = vec![LedgerWrite { key: format!("{}/1", claim.name), value }];
        let taken = match self.store.write_ledger(rows, claim).await {
            Ok(()) => Taken::Done,
            // The claim is over: that is what it is for.
            Err(StoreError::Fenced { .. }) => Taken::Fenced,
            Err(error) => {
                self.failed("a write under a claim", begun, &error);
                Taken::Unknown
            }
        };
        let (name, number) = (claim.name.clone(), claim.number);
        self.board.seen().writes.push(Write { name, number, begun, taken });
    }

    /// What is done to the world explains that nobody answered, and may explain that there is no room; any other failure must not
    /// be.
    fn failed(&self, what: &str, asked: Duration, error: &StoreError) {
        match error {
            StoreError::Full { .. } => self.board.no_room(asked),
            error if error.is_transient() => {}
            error => self.board.wrong(format!("{what}, of client {}, was refused: {error}", self.number)),
        }
    }
}

/// A register as the store has it.
async fn read_row(store: &HttpStore, key: Key) -> Result<u64, StoreError> {
    let page = store.read(&Query::new(Range::Key(key))).await?;
    let row = page.rows.first().and_then(|row| row.value.as_ref());
    Ok(row.and_then(number_of).unwrap_or(0))
}

/// The same as a server has it in memory: `/api/v2/tags/chaos`, from there on.
async fn read_view(store: &HttpStore, window: u64) -> Result<u64, StoreError> {
    let namespace: Namespace =
        "chaos".parse().map_err(|bad: BadName| StoreError::Invalid(bad.to_string()))?;
    // Whatever begins with this comes after it: ten registers at most, and then none.
    let (own, mut after) = (register(window), register(window));
    after.pop();
    let listed = store.list_tags(Some(&namespace), None, Some(&after)).await?;
    let tags = listed.into_iter().flat_map(|listed| listed.items);
    let found = tags.into_iter().find(|tag| tag.tag.as_str() == own);
    Ok(found.and_then(|tag| tag.document.field("number")?.as_u64()).unwrap_or(0))
}

/// Notes every commit after `from` as a watch gives it. One that ends, because nobody answered for too long, is begun again where it
/// was, as agents do.
pub(crate) async fn watch(watcher: usize, store: HttpStore, board: Arc<Board>, from: Position) {
    let mut position = from;
    loop {
        let mut flow = store.watch(Filter::all(), position);
        while let Some(feed) = flow.next().await {
            match feed {
                Ok(Feed::Commit(entry)) => {
                    board.gives(watcher, position.revision.0, entry.info.revision.0);
                    position.revision = entry.info.revision;
                }
                Ok(Feed::Upto(revision)) => position.revision = position.revision.max(revision),
                Ok(Feed::Reset(head)) => {
                    board.wrong(format!(
                        "watch {watcher} lost its place at {position:?} and begins at {head:?}"
                    ));
                    position = head;
                }
                Err(error) if error.is_transient() => {}
                Err(error) => board.wrong(format!("watch {watcher} ended: {error}")),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
