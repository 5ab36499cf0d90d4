//! However much there is to hear, the loop comes round.

use shoal_core::{Epoch, HostName, Revision};
use shoal_engine::{
    Applied, Blocked, Desired, Fault, Fence, Look, Nature, Observed, Options, Scope, Source, Unit,
};
use shoal_store::MemoryStore;

use super::*;
use crate::clock::Wall;

pub(crate) struct Nobody;

impl Agent for Nobody {
    type Spec = serde_json::Value;
    type Key = HostName;
    type Item = String;
    type Have = String;
    fn namespace(&self) -> &str {
        "nobody"
    }
    fn unit(&self, _: &HostName) -> Unit {
        "all".into()
    }
    fn keys(&self, _: &Source<'_, serde_json::Value>) -> Result<Vec<HostName>, Blocked> {
        Ok(Vec::new())
    }
    fn desired(
        &self,
        _: &HostName,
        _: &[Source<'_, serde_json::Value>],
        _: &dyn Look,
    ) -> Result<Desired<String>, Blocked> {
        Ok(Desired::item(String::new()))
    }
}

pub(crate) struct Nothing;

impl Target<Nobody> for Nothing {
    async fn observe(&self, _: &Unit, _: Scope<'_, HostName>) -> Result<Observed<Nobody>, Fault> {
        Ok(Observed::of([], |_: &HostName| unreachable!()))
    }
    async fn apply(&self, _: &Unit, batch: &Batch<Nobody>, _: &Fence) -> Result<Applied<Nobody>, Fault> {
        Ok(Applied::all(batch))
    }
}

#[tokio::test]
async fn one_turn_takes_in_a_bounded_part_of_what_came() {
    let engine = Engine::new(Arc::new(Nobody), Options::new("test", Nature::default(), 1)).unwrap();
    let limit = std::time::Duration::from_secs(1);
    let store = Arc::new(MemoryStore::new());
    let hands = Hands::new("nobody".into(), "test".into(), store, Nothing, Arc::new(Wall::new()), limit);
    let snapshot = Snapshot::of(Epoch(1), Revision(0), []);
    let board = Arc::new(Board::new());
    let mut driver = Driver::new(engine, Arc::new(hands), snapshot, board);
    let (tell, news) = mpsc::channel(NEWS);
    driver.news = Some(news);
    for revision in 1..=NEWS as u64 {
        tell.send(News::Upto(Revision(revision))).await.unwrap();
    }
    driver.wait(None).await;
    let seen = driver.engine.seen().0 as usize;
    assert!((1..=TURN + 1).contains(&seen), "took in {seen} of {NEWS} in one turn");
}

/// Told to stop while its server is gone, it does not wait until the last word has reached somebody.
#[tokio::test]
async fn a_silent_database_is_not_waited_for_at_the_end() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let store = shoal_client::HttpStore::new(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let engine = Engine::new(Arc::new(Nobody), Options::new("test", Nature::default(), 1)).unwrap();
    let limit = std::time::Duration::from_secs(300);
    let clock = Arc::new(Wall::new());
    let hands = Hands::new("nobody".into(), "test".into(), Arc::new(store), Nothing, clock, limit);
    let snapshot = Snapshot::of(Epoch(1), Revision(0), []);
    let mut driver = Driver::new(engine, Arc::new(hands), snapshot, Arc::new(Board::new()));
    driver.pump();
    let begun = Instant::now();
    crate::daemon::drain(&mut driver, crate::daemon::DRAIN).await;
    assert!(!driver.engine.is_drained(), "somebody heard the last word");
    assert!(begun.elapsed().as_secs() < 20, "it took {:?}", begun.elapsed());
}

#[test]
fn who_is_left_out_is_said_once_and_again_when_it_comes_back() {
    let bad = |key: &str, why: &str| {
        let (key, why) = (key.to_owned(), why.to_owned());
        ("example.com".to_owned(), LeftOut { key, who: vec!["dns/example.com: web1".into()], why })
    };
    let mut told = LeftOuts::default();
    let both = [bad("web1", "no address"), bad("www", "no address")];
    assert_eq!(told.learn(both.clone().into_iter()).len(), 1, "one source, one line");
    assert!(told.learn(both.into_iter()).is_empty());
    assert_eq!(told.learn([bad("web1", "a clash")].into_iter()).len(), 1, "another reason is news");
    assert!(told.learn(std::iter::empty()).is_empty());
    assert_eq!(told.learn([bad("web1", "a clash")].into_iter()).len(), 1);
}
