//! One pass: choose, commit on conditions, and choose anew where somebody else was faster, or where one of many is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use shoal_core::{HostName, Proposal, Revision};
use shoal_engine::{Clock as _, Fault};
use shoal_store::{Database, StoreError, TransactError};

use super::{Choice, Chooser, Measured, World};
use crate::clock::Wall;

/// The longest wait for the view to hold what was committed by others.
const CATCH_UP: Duration = Duration::from_secs(30);

/// So many hosts are looked for one by one because what is written about them is refused. With more, some are left out together, more the more
/// they are: so that a pass that everything refuses ends.
const REFUSED: usize = 64;
/// Of those that were refused so far, this part may be left out together at once.
const TOGETHER: usize = 8;

/// How a pass is made.
#[derive(Clone, Debug)]
pub struct How {
    /// Who signs the commits.
    pub author: String,
    /// See [`World::instance`].
    pub instance: u64,
    /// How many are chosen for in one commit.
    pub most: usize,
    /// How often it is chosen anew what others overtook.
    pub attempts: u32,
    /// Only for this host.
    pub only: Option<HostName>,
    /// What time it is; `None`: the clock says it.
    pub at: Option<Timestamp>,
}

/// What a pass did.
#[derive(Clone, Debug)]
pub struct Passed {
    /// What was chosen and committed, and how things stand.
    pub choice: Choice,
    /// The revision that was chosen at, or that holds what was committed.
    pub at: Revision,
    /// Whether others may have committed between what was chosen from and what was committed: that was not looked at.
    pub overlooked: bool,
    /// How many times somebody else was faster.
    pub overtaken: u32,
}

/// Why a pass was not made.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// Nothing can be decided.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It was not committed.
    #[error("commit a choice: {0}")]
    Commit(#[from] TransactError),
}

/// Chooses once, and commits it whole or not at all. Where it is refused, it chooses for half as many until it is known for whom: that
/// one is left out and named, and the others go on. Where many are refused, a few are left out together whichever of them it is.
///
/// # Errors
/// Nothing can be decided, the database cannot be asked or says no, or others were faster each time. Only after
/// [`StoreError::Unavailable`] is it unknown whether it was committed; the next pass sees.
pub async fn pass<C: Chooser>(database: &Database, chooser: &C, how: &How) -> Result<Passed, NotDone> {
    let mut last = StoreError::Invalid("no attempt was allowed".to_owned());
    let (mut overtaken, mut most, mut refused) = (0, how.most, BTreeMap::new());
    let measured = chooser.look(&database.view()).await;
    while overtaken < how.attempts {
        let view = database.view();
        let world = world(database, &view, how, &measured);
        let choice = chooser.decide(&World { most, refused: Some(&refused), ..world })?;
        if choice.edits.is_empty() {
            return Ok(Passed { choice, at: view.revision(), overlooked: false, overtaken });
        }
        let proposal = Proposal {
            pre: choice.pre.clone(),
            ..Proposal::new(&how.author, choice.message.clone(), choice.edits.clone())
        };
        match database.transact(proposal).await {
            Ok(outcome) => {
                let at = outcome.committed.revision;
                return Ok(Passed { choice, at, overlooked: at.0 > view.revision().0 + 1, overtaken });
            }
            Err(TransactError::Store(error @ StoreError::Conflict { .. })) => {
                caught_up(database).await?;
                last = error;
                overtaken += 1;
            }
            Err(error) if refuses(&error) => match &choice.about[..] {
                some if some.len() > together(refused.len()) && most > 1 => {
                    most = (some.len() / 2).min(most - 1);
                }
                some => {
                    if !leave_out(&mut refused, some, &error) {
                        return Err(error.into());
                    }
                    most = how.most;
                }
            },
            Err(error) => return Err(error.into()),
        }
    }
    Err(TransactError::Busy { attempts: how.attempts, last }.into())
}

/// How many may be left out without a search for who of them it is, where so many are already.
fn together(refused: usize) -> usize {
    if refused < REFUSED { 1 } else { refused / TOGETHER }
}

/// Leaves these out of what is chosen from then on, with why. `false`: there is nobody to leave out, or all of them are already.
fn leave_out(refused: &mut BTreeMap<HostName, String>, some: &[HostName], error: &TransactError) -> bool {
    let before = refused.len();
    for host in some {
        let why = match some.len() {
            1 => error.to_string(),
            n => format!(
                "it, or another of {n} ({before} others are, and no more are looked for one by one): {error}"
            ),
        };
        refused.entry(host.clone()).or_insert(why);
    }
    refused.len() > before
}

/// Whether it is what was to be written that was refused: the same again is refused again, and less of it may not be.
fn refuses(error: &TransactError) -> bool {
    use StoreError::{Denied, Invalid};
    match error {
        TransactError::Refused(_) | TransactError::Denied(_) => true,
        TransactError::Store(error) => matches!(error, Denied { .. } | Invalid(_)),
        TransactError::Busy { .. } => false,
    }
}

/// What there is to choose from, as the view has it.
pub(super) fn world<'a>(
    database: &Database,
    view: &'a shoal_core::View,
    how: &'a How,
    measured: &'a Measured,
) -> World<'a> {
    let How { instance, most, only, at, .. } = how;
    let now = || Timestamp::from_millisecond(Wall::new().now()).unwrap_or_default();
    World {
        view,
        epoch: database.epoch(),
        now: at.unwrap_or_else(now),
        measured,
        instance: *instance,
        most: *most,
        only: only.as_ref(),
        refused: None,
    }
}

async fn caught_up(database: &Database) -> Result<(), TransactError> {
    let head = database.store().head().await?;
    let why = || "the view of it does not follow".to_owned();
    let late = |_| {
        let silent = StoreError::Unavailable { place: "the database".to_owned(), why: why() };
        TransactError::Store(database.trouble().unwrap_or(silent))
    };
    tokio::time::timeout(CATCH_UP, database.wait_for(head.revision)).await.map_err(late)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use serde_json::json;
    use shoal_core::{Change, Commit, Document, Edit, Expect, Lifecycle, Quarantined, Schema};
    use shoal_store::{MemoryStore, Store as _};

    use super::*;

    /// Sets hosts to `placed`, whether they are there or not.
    struct Toy(Vec<HostName>);

    impl Chooser for Toy {
        fn namespace(&self) -> &'static str {
            "toy"
        }

        fn schema(&self) -> Schema {
            Schema { tag: json!({}), host: None, agent: None, writes: None }
        }

        fn decide(&self, world: &World<'_>) -> Result<Choice, Fault> {
            let mut choice = Choice { message: "placed".to_owned(), ..Choice::default() };
            for host in &self.0 {
                let is = world.view.host(host.as_str());
                if is.is_some_and(|is| is.state == Lifecycle::Placed) {
                    continue;
                }
                if let Some(why) = world.refused.and_then(|refused| refused.get(host)) {
                    let (what, why) = (host.to_string(), why.clone());
                    choice.quarantined.push(Quarantined { what, why, since: Revision(0) });
                } else if choice.about.len() < world.most {
                    choice.about.push(host.clone());
                    let state = Lifecycle::Placed;
                    choice.edits.push(Edit::SetState { host: host.clone(), state, expect: Expect::Any });
                } else {
                    choice.more = true;
                }
            }
            Ok(choice)
        }
    }

    /// Measures something, and makes sure that it and the time are known when it decides.
    struct Looks(Timestamp);

    impl Chooser for Looks {
        fn namespace(&self) -> &'static str {
            "looks"
        }

        fn schema(&self) -> Schema {
            Schema { tag: json!({}), host: None, agent: None, writes: None }
        }

        fn look(&self, view: &shoal_core::View) -> impl Future<Output = Measured> + Send {
            let hosts = view.hosts().count();
            async move {
                [("hosts".to_owned(), u32::try_from(hosts).map(f64::from).map_err(|e| e.to_string()))].into()
            }
        }

        fn decide(&self, world: &World<'_>) -> Result<Choice, Fault> {
            assert_eq!(world.now, self.0);
            let message = format!("{:?}", world.measured);
            Ok(Choice { message, ..Choice::default() })
        }
    }

    #[tokio::test]
    async fn what_was_measured_and_the_time_are_known() {
        let database = Database::open(Arc::new(MemoryStore::new())).await.unwrap();
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let how =
            How { author: "looks".to_owned(), instance: 0, most: 1, attempts: 3, only: None, at: Some(at) };
        let passed = pass(&database, &Looks(at), &how).await.unwrap();
        assert_eq!(passed.choice.message, r#"{"hosts": Ok(0.0)}"#);
    }

    async fn all(hosts: usize, there: impl Fn(usize) -> bool) -> Result<(usize, Choice), NotDone> {
        let database = Database::open(Arc::new(MemoryStore::new())).await.unwrap();
        let name = |n: usize| -> HostName { format!("m{n:02}.example.com").parse().unwrap() };
        let put = |n: usize| Edit::PutHost {
            host: name(n),
            id: None,
            state: Some(Lifecycle::Requested),
            owner: None,
            environment: None,
            expires: None,
            document: Document::of(&json!({})).unwrap(),
            expect: Expect::Any,
        };
        let edits = (0..hosts).filter(|n| there(*n)).map(put).collect();
        database.transact(Proposal::new("ann", "hosts", edits)).await.unwrap();
        let toy = Toy((0..hosts).map(name).collect());
        let how = How { author: "toy".to_owned(), instance: 0, most: 100, attempts: 3, only: None, at: None };
        for _ in 0..hosts {
            let choice = pass(&database, &toy, &how).await?.choice;
            if !choice.more {
                let placed = database.view().hosts().filter(|host| host.state == Lifecycle::Placed).count();
                return Ok((placed, choice));
            }
        }
        panic!("it goes round and round");
    }

    #[tokio::test]
    async fn one_that_is_refused_holds_nobody_else_up_and_is_named() {
        let (placed, choice) = all(20, |n| n != 3 && n != 17).await.unwrap();
        assert_eq!(placed, 18);
        let named: Vec<&str> = choice.quarantined.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(named, ["m03.example.com", "m17.example.com"]);
        assert!(choice.quarantined[0].why.contains("m03.example.com"), "{}", choice.quarantined[0].why);
    }

    #[tokio::test]
    async fn however_many_are_refused_the_others_go_on() {
        for many in [1, REFUSED - 1, REFUSED] {
            let (placed, choice) = all(many + 1, |n| n >= many).await.unwrap();
            assert_eq!((placed, choice.quarantined.len()), (1, many));
        }
        // More of them than are looked for one by one: a few others may be left out with them, and are named, too.
        let many = 3 * REFUSED;
        let (placed, choice) = all(2 * many, |n| n >= many).await.unwrap();
        assert_eq!(placed + choice.quarantined.len(), 2 * many);
        assert!(placed >= many - many / TOGETHER, "{placed} of {many}");
        assert!(
            choice.quarantined.iter().any(|one| one.why.contains("it, or another of")),
            "{:?}",
            choice.quarantined
        );
    }

    #[tokio::test]
    async fn what_others_committed_meanwhile_was_not_looked_at() {
        /// While it decides, somebody else commits.
        struct Slow(Toy, Arc<MemoryStore>);
        impl Chooser for Slow {
            fn namespace(&self) -> &'static str {
                "slow"
            }

            fn schema(&self) -> Schema {
                Schema { tag: json!({}), host: None, agent: None, writes: None }
            }

            fn decide(&self, world: &World<'_>) -> Result<Choice, Fault> {
                let value = Document::of(&json!({"cpu": 1})).unwrap();
                let change = Change::put("facts/seen/m01.example.com".parse().unwrap(), value);
                let commit = Commit::new("ann", "meanwhile", vec![change]);
                let done = self.1.commit(commit).as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(done, Poll::Ready(Ok(_))));
                self.0.decide(world)
            }
        }
        let store = Arc::new(MemoryStore::new());
        let database = Database::open(store.clone()).await.unwrap();
        let name = |n: &str| -> HostName { format!("{n}.example.com").parse().unwrap() };
        let names = vec![name("m00"), name("m01")];
        let put = |name: &HostName| Edit::PutHost {
            host: name.clone(),
            id: None,
            state: Some(Lifecycle::Requested),
            owner: None,
            environment: None,
            expires: None,
            document: Document::of(&json!({})).unwrap(),
            expect: Expect::Any,
        };
        database.transact(Proposal::new("ann", "hosts", names.iter().map(put).collect())).await.unwrap();
        let how = How { author: "slow".to_owned(), instance: 0, most: 9, attempts: 3, only: None, at: None };
        let alone = pass(&database, &Toy(vec![names[0].clone()]), &how).await.unwrap();
        assert!(!alone.overlooked && !alone.choice.edits.is_empty());
        let passed = pass(&database, &Slow(Toy(names.clone()), store), &how).await.unwrap();
        assert!(passed.overlooked && !passed.choice.edits.is_empty());
        assert!(!pass(&database, &Toy(names), &how).await.unwrap().overlooked);
    }

    #[tokio::test]
    async fn a_choice_about_nobody_that_is_refused_is_a_fault() {
        struct Wrong;
        impl Chooser for Wrong {
            fn namespace(&self) -> &'static str {
                "wrong"
            }

            fn schema(&self) -> Schema {
                Schema { tag: json!({}), host: None, agent: None, writes: None }
            }

            fn decide(&self, _: &World<'_>) -> Result<Choice, Fault> {
                let host = "none.example.com".parse().unwrap();
                let edits = vec![Edit::SetState { host, state: Lifecycle::Placed, expect: Expect::Any }];
                Ok(Choice { message: "placed".to_owned(), edits, ..Choice::default() })
            }
        }
        let database = Database::open(Arc::new(MemoryStore::new())).await.unwrap();
        let how = How { author: "wrong".to_owned(), instance: 0, most: 9, attempts: 3, only: None, at: None };
        assert!(matches!(pass(&database, &Wrong, &how).await, Err(NotDone::Commit(_))));
    }
}
