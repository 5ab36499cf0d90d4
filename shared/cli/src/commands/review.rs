//! `shoal review`, and `--review` of every command that writes: a change that waits for a second person.
//!
//! What is proposed is the rows that it would write, and what they rest on; approving it writes exactly those, with the
//! proposal's own row, in one commit. A server lets that pass where it refuses the rows alone.

use std::collections::BTreeMap;

use serde::Serialize;
use shoal_core::access::{Review, ReviewState};
use shoal_core::{Document, Edit, Expect, Key, Pre, Proposal, Revision, Row};
use shoal_store::{Database, TransactError};

use super::access::{key, put, row, rows};
use super::put::edits_of;
use crate::args::{ReviewCommand, ReviewWork, Sign};
use crate::changes;
use crate::failure::{Failure, Outcome};
use crate::session::{Session, not_done};

pub(crate) async fn run(session: &mut Session, args: ReviewCommand) -> Outcome {
    match args.work {
        ReviewWork::Propose { file, sign } => {
            let edits = edits_of(&file)?;
            let sign = Sign { review: true, ..sign };
            session.write(&sign, false, edits).await
        }
        ReviewWork::List { all } => list(session, all).await,
        ReviewWork::Show { id } => show(session, &id).await,
        ReviewWork::Approve { id, sign } => approve(session, &id, &sign).await,
        ReviewWork::Reject { id, sign } => {
            let (key, seen, review) = open(session, &id).await?;
            let (author, _) = session.signed(&sign, false).await?;
            let review = Review { state: ReviewState::Rejected, reviewer: Some(author), ..review };
            let edit = put(key, &review, None)?;
            let pre = vec![Pre::At(seen.key.clone(), seen.revision)];
            commit(session, &sign, None, vec![any(edit)], pre).await
        }
    }
}

/// Proposes what a proposal would write.
pub(crate) async fn propose(session: &mut Session, database: &Database, proposal: Proposal) -> Outcome {
    let prepared = database.preview(&proposal).await.map_err(|r| Failure::Refused(Box::new(r)))?;
    if prepared.commit.changes.is_empty() {
        return session.planned(&[], &prepared.warnings);
    }
    let view = database.view();
    let mut ground = BTreeMap::new();
    let seen = prepared.commit.pre.iter().filter_map(|pre| match pre {
        Pre::At(key, _) | Pre::Absent(key) => Some(key),
        _ => None,
    });
    for key in prepared.commit.changes.iter().map(|change| &change.key).chain(seen) {
        ground.insert(key.clone(), view.revision_of(key).unwrap_or_default());
    }
    let id = uuid::Uuid::now_v7().simple().to_string().split_off(24);
    let review = Review {
        proposer: proposal.author.clone(),
        message: proposal.message.clone(),
        at: (session.env.now)(),
        changes: prepared.commit.changes.clone(),
        ground,
        state: ReviewState::Open,
        reviewer: None,
    };
    let edit = put(key("reviews", &id)?, &review, None)?;
    let asked = Proposal { edits: vec![edit], ..proposal };
    let (author, done) = (asked.author.clone(), database.transact(asked).await.map_err(not_done)?);
    let changes = changes::before(&*session.store, review.changes, None).await?;
    let revision = done.committed.revision;
    let value = serde_json::json!({"review": id, "revision": revision, "author": author, "changes": changes});
    session.out.print(&value, |out| {
        let text = changes::text(out, &changes);
        format!("{text}proposed as {id} (revision {revision}): somebody else approves it with `shoal review approve {id} -m WHY`\n")
    })
}

#[derive(Serialize)]
struct Listed {
    id: String,
    #[serde(flatten)]
    review: Review,
}

async fn list(session: &mut Session, all: bool) -> Outcome {
    let id = |row: &Row| row.key.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    let read = |row: &Row| Some(Listed { id: id(row), review: row.value.as_ref()?.to().ok()? });
    let mut list: Vec<Listed> = rows(session, "access/reviews/").await?.iter().filter_map(read).collect();
    list.retain(|one| all || one.review.state == ReviewState::Open);
    list.sort_by_key(|one| one.review.at);
    session.out.print(&list, |out| {
        let row = |one: &Listed| {
            let Review { proposer, message, changes, state, reviewer, .. } = &one.review;
            let state = match (state, reviewer) {
                (ReviewState::Open, _) => String::new(),
                (ReviewState::Approved, by) => format!("approved by {}", by.as_deref().unwrap_or("?")),
                (ReviewState::Rejected, by) => format!("rejected by {}", by.as_deref().unwrap_or("?")),
            };
            let first = message.lines().next().unwrap_or_default().to_owned();
            let keys: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();
            vec![one.id.clone(), proposer.clone(), first, crate::session::some(&keys), state]
        };
        out.table(
            &["ID", "BY", "WHY", "WHAT", "STATE"],
            list.iter().map(row).collect(),
            "nothing waits for a second person",
        )
    })
}

/// A proposal, whatever became of it.
async fn find(session: &Session, id: &str) -> Outcome<(Key, Row, Review)> {
    let key = key("reviews", id)?;
    let found = row(session, &key).await?;
    let Some(found) = found else {
        return Err(Failure::Missing(format!(
            "there is no proposal {id}; `shoal review list --all` shows all"
        )));
    };
    let review = found.value.as_ref().map(Document::to::<Review>);
    match review {
        Some(Ok(review)) => Ok((key, found, review)),
        Some(Err(error)) => Err(Failure::Other(anyhow::anyhow!("{key} cannot be read: {error}"))),
        None => Err(Failure::Missing(format!("the proposal {id} is gone"))),
    }
}

async fn open(session: &Session, id: &str) -> Outcome<(Key, Row, Review)> {
    let (key, row, review) = find(session, id).await?;
    let by = review.reviewer.as_deref().unwrap_or("somebody");
    match review.state {
        ReviewState::Open => Ok((key, row, review)),
        ReviewState::Approved => {
            Err(Failure::Held(format!("{id} was approved by {by} (revision {})", row.revision)))
        }
        ReviewState::Rejected => {
            Err(Failure::Held(format!("{id} was rejected by {by} (revision {})", row.revision)))
        }
    }
}

async fn show(session: &mut Session, id: &str) -> Outcome {
    let (_, _, review) = find(session, id).await?;
    let changes = changes::before(&*session.store, review.changes.clone(), None).await?;
    let value = serde_json::json!({"id": id, "review": review, "changes": changes});
    session.out.print(&value, |out| {
        let head = format!("{id} by {} at {}: {}\n\n", review.proposer, review.at, review.message);
        head + &changes::text(out, &changes)
    })
}

async fn approve(session: &mut Session, id: &str, sign: &Sign) -> Outcome {
    let (key, seen, review) = open(session, id).await?;
    let (author, message) = session.signed(sign, false).await?;
    let mut pre = vec![Pre::At(seen.key.clone(), seen.revision)];
    for (key, revision) in &review.ground {
        pre.push(if *revision == Revision(0) {
            Pre::Absent(key.clone())
        } else {
            Pre::At(key.clone(), *revision)
        });
    }
    let row = |change: &shoal_core::Change| Edit::Row {
        key: change.key.clone(),
        value: change.value.clone(),
        moved: change.moved.clone(),
    };
    let mut edits: Vec<Edit> = review.changes.iter().map(row).collect();
    let message = format!("{}\n\nreviewed as {id}: {message}", review.message);
    let sign = Sign { message: Some(message), review: false, ..sign.clone() };
    let done = Review { state: ReviewState::Approved, reviewer: Some(author), ..review };
    edits.push(any(put(key, &done, None)?));
    commit(session, &sign, Some(&done), edits, pre).await
}

/// The row is written whatever stands there: what was seen of it is a precondition, because a view may not hold such rows.
fn any(edit: Edit) -> Edit {
    match edit {
        Edit::Write { key, value, .. } => Edit::Write { key, value, expect: Expect::Any },
        other => other,
    }
}

async fn commit(
    session: &mut Session,
    sign: &Sign,
    approved: Option<&Review>,
    edits: Vec<Edit>,
    pre: Vec<Pre>,
) -> Outcome {
    let mut proposal = Proposal { pre, ..session.proposal(sign, false, edits).await? };
    if let Some(review) = approved {
        // Without a server nobody says who is who: the author is the proposer here, too.
        if review.reviewer.as_deref() == Some(review.proposer.as_str()) && !session.served {
            return Err(Failure::Held(format!(
                "{} proposed it: another person approves it",
                review.proposer
            )));
        }
        proposal.author.clone_from(&review.proposer);
        // Whose change it is stands in the proposal.
        session.env.author = None;
    }
    let author = proposal.author.clone();
    let database = session.database().await?;
    match database.transact(proposal).await {
        Ok(done) => session.done(&author, &done, &[]),
        Err(TransactError::Store(error @ shoal_store::StoreError::Conflict { .. })) => Err(Failure::Store {
            what: "nothing was written: it is not what it was when it was proposed; look again with `shoal review show`".to_owned(),
            error,
        }),
        Err(error) => Err(not_done(error)),
    }
}
