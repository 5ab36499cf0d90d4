//! What one command works with: the store, where it prints, who writes, and what time it is.

use std::sync::Arc;

use jiff::Timestamp;
use shoal_core::{Committed, Edit, HostName, Key, Proposal, Revision, View, Warning};
use shoal_hostdb::history::Changed;
use shoal_hostdb::reading;
use shoal_store::{Database, Outcome as Done, Proposed, Store, StoreError, TransactError};

use crate::args::Sign;
use crate::changes;
use crate::failure::{Failure, Outcome};
use crate::meant;
use crate::out::Out;
use crate::partly::{self, Of};

/// From so many edits on, a server is asked to prepare them.
const MANY: usize = 256;

/// What the process got from outside. A test hands in its own.
pub(crate) struct Env {
    /// `$SHOAL_AUTHOR`, else `$USER`, with the variable's name.
    pub(crate) author: Option<(String, &'static str)>,
    /// `$VISUAL`, else `$EDITOR`.
    pub(crate) editor: Option<String>,
    /// The time now.
    pub(crate) now: fn() -> Timestamp,
}

impl Env {
    /// The process's own.
    pub(crate) fn real() -> Self {
        let var =
            |name: &'static str| std::env::var(name).ok().filter(|v| !v.trim().is_empty()).map(|v| (v, name));
        let editor = var("VISUAL").or_else(|| var("EDITOR")).map(|(editor, _)| editor);
        Self { author: var("SHOAL_AUTHOR").or_else(|| var("USER")), editor, now: Timestamp::now }
    }
}

/// How a command writes.
pub(crate) enum Way {
    /// With a view of all of it.
    Whole(Database),
    /// By the server, because not all of it is theirs to read, for this reason.
    Server(StoreError),
}

/// One command's session with the database.
pub(crate) struct Session {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) out: Out,
    pub(crate) env: Env,
    /// Whether a server is between: it knows who is who.
    pub(crate) served: bool,
}

impl Session {
    /// The database as of `at`, in memory. Costs a reading of all of it.
    pub(crate) async fn view(&self, at: Option<u64>) -> Outcome<View> {
        reading::view(&*self.store, at.map(Revision)).await.map_err(Failure::reading("the database"))
    }

    /// What tells who is in these tags as of `at`, in memory. Costs a tag and the hosts in it, and of a namespace, or where rules choose among all
    /// hosts, a reading of everything; where that is not for who asks, the ranges that it takes.
    pub(crate) async fn contents(&self, of: &Of<'_>, at: Option<u64>) -> Outcome<View> {
        let view = match of {
            Of::Tag(tag) => reading::below(&*self.store, tag, at.map(Revision)).await,
            Of::Namespace(_) => reading::view(&*self.store, at.map(Revision)).await,
        };
        match view {
            Err(StoreError::Denied { .. }) => {}
            view => return view.map_err(Failure::reading("the database")),
        }
        partly::view(&*self.store, of, at.map(Revision)).await.map_err(Failure::reading(of.shown()))
    }

    /// What the database says of one host as of `at`, in memory: where the store can pick that, it is all that is read.
    pub(crate) async fn around(&self, host: &HostName, at: Option<u64>) -> Outcome<View> {
        let view = reading::around(&*self.store, host, at.map(Revision)).await;
        view.map_err(Failure::reading(format!("host {host}")))
    }

    /// Who writes, and why.
    ///
    /// A server that asks knows who: only administrators name another.
    ///
    /// # Errors
    /// No message, or nobody to name.
    pub(crate) async fn signed(&self, sign: &Sign, plan: bool) -> Outcome<(String, String)> {
        if plan {
            // Nobody is asked for what is not written.
            return Ok(("nobody".to_owned(), "plan".to_owned()));
        }
        // Where nobody answers who it is, the write itself says why.
        let who = if self.served { self.store.who().await.ok().flatten() } else { None };
        let who = who.filter(|who| who.principal != UNASKED);
        let named = sign.author.as_ref().or(self.env.author.as_ref().map(|(author, _)| author));
        let author = match (who, named) {
            (Some(who), None) => who.principal,
            (Some(who), Some(_)) if !who.administrator => who.principal,
            (_, Some(author)) => author.clone(),
            (None, None) => {
                return Err(Failure::Usage(
                    "nothing was written: nobody to name as the author; say who with --author NAME, or set \
                     SHOAL_AUTHOR"
                        .to_owned(),
                ));
            }
        };
        let message = sign.message.clone().filter(|m| !m.trim().is_empty());
        match message {
            Some(message) => Ok((author, message)),
            None => Err(Failure::Usage(
                "nothing was written: a change needs a reason; say why with -m 'TEXT' (it stands in the log)"
                    .to_owned(),
            )),
        }
    }

    /// Does the edits as one commit and says so, or with `plan` shows what they would change.
    pub(crate) async fn write(&mut self, sign: &Sign, plan: bool, edits: Vec<Edit>) -> Outcome {
        let way = self.way(sign, plan).await?;
        self.write_by(&way, sign, plan, edits).await
    }

    /// How edits are written: with a view, or where not all of it is theirs to read, by the server. What would be written, and what a review
    /// rests on, is worked out here, and takes a view.
    pub(crate) async fn way(&self, sign: &Sign, plan: bool) -> Outcome<Way> {
        match Database::open(self.store.clone()).await {
            Ok(database) => Ok(Way::Whole(database)),
            Err(denied @ StoreError::Denied { .. }) if !plan && !sign.review => Ok(Way::Server(denied)),
            Err(error) => Err(Failure::reading("the database")(error)),
        }
    }

    /// Does the edits as one commit in that way, and says so.
    pub(crate) async fn write_by(&mut self, way: &Way, sign: &Sign, plan: bool, edits: Vec<Edit>) -> Outcome {
        match way {
            Way::Whole(database) => self.write_to(database, sign, plan, edits).await,
            Way::Server(denied) => {
                let proposal = self.proposal(sign, plan, edits).await?;
                let done = self.by_server(denied, &proposal).await?;
                self.done(&proposal.author, &done, &[])
            }
        }
    }

    /// Has the server prepare it. `denied` is why it is not prepared here.
    pub(crate) async fn by_server(&self, denied: &StoreError, proposal: &Proposal) -> Outcome<Done> {
        let proposed = self.store.propose(proposal).await;
        match proposed.map_err(|error| not_done(TransactError::Store(error)))? {
            Some(Proposed { committed, warnings }) => {
                Ok(Done { committed, warnings, touched: shoal_core::Touched::default() })
            }
            None => Err(Failure::reading("the database")(denied.clone())),
        }
    }

    /// Does the edits as one commit, and leaves it to the caller to say so.
    pub(crate) async fn write_quietly(&self, sign: &Sign, edits: Vec<Edit>) -> Outcome<(String, Done)> {
        let way = self.way(sign, false).await?;
        let proposal = self.proposal(sign, false, edits).await?;
        let author = proposal.author.clone();
        let done = match way {
            Way::Whole(database) => database.transact(proposal).await.map_err(not_done)?,
            Way::Server(denied) => self.by_server(&denied, &proposal).await?,
        };
        Ok((author, done))
    }

    /// The same on a database that was opened before.
    pub(crate) async fn write_to(
        &mut self,
        database: &Database,
        sign: &Sign,
        plan: bool,
        edits: Vec<Edit>,
    ) -> Outcome {
        let proposal = self.proposal(sign, plan, edits).await?;
        if sign.review && !plan {
            return crate::commands::review::propose(self, database, proposal).await;
        }
        if plan {
            let prepared = database.preview(&proposal).await.map_err(|r| Failure::Refused(Box::new(r)))?;
            let changes = changes::before(&*self.store, prepared.commit.changes, None).await?;
            return self.planned(&changes, &prepared.warnings);
        }
        let made = made(&database.view(), &proposal.edits);
        if proposal.edits.len() > MANY {
            match self.store.propose(&proposal).await {
                Ok(Some(Proposed { committed, warnings })) => {
                    let done = Done { committed, warnings, touched: shoal_core::Touched::default() };
                    return self.done(&proposal.author, &done, &made);
                }
                // Nothing was written. Prepared here, it is refused in the words of all refusals.
                Ok(None) | Err(StoreError::Invalid(_)) => {}
                Err(error) => return Err(not_done(TransactError::Store(error))),
            }
        }
        let done = database.transact(proposal.clone()).await.map_err(not_done)?;
        self.done(&proposal.author, &done, &made)
    }

    /// The database with a view that follows it. Costs a reading of all of it.
    pub(crate) async fn database(&self) -> Outcome<Database> {
        Database::open(self.store.clone()).await.map_err(Failure::reading("the database"))
    }

    /// The edits with who and why.
    pub(crate) async fn proposal(&self, sign: &Sign, plan: bool, edits: Vec<Edit>) -> Outcome<Proposal> {
        let (author, message) = self.signed(sign, plan).await?;
        // A retry after a lost answer must not be done twice.
        let idempotency = Some(uuid::Uuid::now_v7().to_string());
        Ok(Proposal { idempotency, ..Proposal::new(author, message, edits) })
    }

    /// Prints what would change; fails with [`Failure::Pending`] if something would.
    pub(crate) fn planned(&mut self, changes: &[Changed], warnings: &[Warning]) -> Outcome {
        let value = serde_json::json!({"changes": changes, "warnings": warnings});
        self.out.print(&value, |out| {
            if changes.is_empty() {
                return "nothing to change: everything stands there already\n".to_owned();
            }
            let mut text = changes::text(out, changes);
            text.push_str(&warned(warnings));
            text
        })?;
        if changes.is_empty() { Ok(()) } else { Err(Failure::Pending) }
    }

    /// Says what a proposal came to, and which hosts and tags are new through it: a mistyped name makes one, too.
    pub(crate) fn done(&mut self, author: &str, done: &Done, made: &[Key]) -> Outcome {
        let Committed { revision, changed, .. } = done.committed;
        let value = serde_json::json!({
            "revision": revision, "changed": changed, "made": made, "author": author, "warnings": done.warnings,
        });
        let by = self.env.author.as_ref().filter(|(name, _)| *name == author && !self.served);
        let by = by.map(|(_, var)| format!(" (from ${var})")).unwrap_or_default();
        self.out.print(&value, |_| {
            let rows = if changed == 1 { "1 row".to_owned() } else { format!("{changed} rows") };
            let said = match changed {
                0 => format!("nothing to change: everything stands there already (revision {revision})\n"),
                _ => format!("revision {revision}: {rows} by {author}{by}\n"),
            };
            let made = if made.is_empty() { String::new() } else { format!("made {}\n", some(made)) };
            said + &made + &warned(&done.warnings)
        })
    }

    /// What stands at each key, or the failure that something is not there.
    pub(crate) async fn exists(&self, key: &Key, at: Option<u64>) -> Outcome {
        let found = reading::row(&*self.store, key, at.map(Revision)).await;
        let found = found.map_err(Failure::reading(crate::names::shown(key)))?;
        match found {
            reading::Found::Here(_) => Ok(()),
            gone => Err(self.missing(&gone, key).await),
        }
    }

    /// The failure that `key` is not there, with what may have been meant.
    pub(crate) async fn missing<T>(&self, found: &reading::Found<T>, key: &Key) -> Failure {
        if !matches!(found, reading::Found::Never) {
            return missing(found, key);
        }
        let names = meant::names(&*self.store, key).await;
        if names.is_empty() {
            return missing(found, key);
        }
        let what = crate::names::shown(key);
        Failure::Missing(format!("there is no {what}; do you mean {}?", names.join(", or ")))
    }
}

/// As whom a server has everybody that asks nobody.
const UNASKED: &str = "anybody";

/// The failure that `key` is not there, with what to try.
pub(crate) fn missing<T>(found: &reading::Found<T>, key: &Key) -> Failure {
    let hint = match (found, key.kind()) {
        (reading::Found::Gone { to: Some(_), .. }, _) => "use its new name".to_owned(),
        (reading::Found::Gone { revision, .. }, kind) => {
            let name = match kind {
                shoal_core::Kind::Host(host) => host.to_string(),
                _ => key.to_string(),
            };
            let last = revision.0.saturating_sub(1);
            format!(
                "`shoal get {name} --revision {last}` shows it as it was; `shoal rollback {name} --to {last} -m WHY` brings \
                 it back"
            )
        }
        (_, shoal_core::Kind::Host(_)) => "`shoal get hosts` lists all".to_owned(),
        (_, shoal_core::Kind::Tag(_)) => "`shoal get tags` lists all".to_owned(),
        _ => "`shoal log` shows what was written".to_owned(),
    };
    Failure::Missing(format!("{}; {hint}", found.missing(&crate::names::shown(key))))
}

/// The hosts and tags that these edits make where there are none.
pub(crate) fn made(view: &View, edits: &[Edit]) -> Vec<Key> {
    let key = |edit: &Edit| match edit {
        Edit::PutHost { host, .. } => Some(Key::host(host)),
        Edit::PutTag { tag, .. } => Some(Key::tag(tag)),
        _ => None,
    };
    edits.iter().filter_map(key).filter(|key| !view.exists(key)).collect()
}

/// The most names that are said one by one.
const SOME: usize = 8;

/// What these are called; how many of each, where they are many.
pub(crate) fn some(keys: &[Key]) -> String {
    if keys.len() <= SOME {
        return keys.iter().map(crate::names::shown).collect::<Vec<_>>().join(", ");
    }
    let hosts = keys.iter().filter(|key| matches!(key.kind(), shoal_core::Kind::Host(_))).count();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match (hosts, keys.len() - hosts) {
        (hosts, 0) => count(hosts, "host"),
        (0, tags) => count(tags, "tag"),
        (hosts, tags) => format!("{} and {}", count(hosts, "host"), count(tags, "tag")),
    }
}

fn warned(warnings: &[Warning]) -> String {
    warnings.iter().map(|w| format!("warning: {}: {}\n", w.key, w.text)).collect()
}

/// The failure of a proposal.
pub(crate) fn not_done(error: TransactError) -> Failure {
    match error {
        TransactError::Refused(refusal) => Failure::Refused(Box::new(refusal)),
        TransactError::Store(error) => {
            let what = match &error {
                // It says itself that nothing was written.
                StoreError::Full { .. } => "the commit was not made",
                StoreError::Unavailable { .. } => {
                    "the commit was not acknowledged (`shoal log` shows whether it was made all the same)"
                }
                _ => "nothing was written",
            };
            Failure::Store { what: what.to_owned(), error }
        }
        TransactError::Busy { .. } => Failure::Busy(error),
        // Only a server judges, and it says so in its store's words.
        TransactError::Denied(denied) => {
            let error = StoreError::Denied { place: "the database".to_owned(), why: denied.to_string() };
            Failure::Store { what: "nothing was written".to_owned(), error }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_acknowledged_is_not_called_undone() {
        let (place, why) = ("x.db".to_owned(), "gone".to_owned());
        let said = |error| crate::failure::report(&not_done(TransactError::Store(error))).unwrap();
        let unknown = said(StoreError::Unavailable { place: place.clone(), why: why.clone() });
        assert!(unknown.contains("`shoal log`") && !unknown.contains("nothing was written"), "{unknown}");
        let full = said(StoreError::Full { place, why });
        assert_eq!(full.matches("nothing was written").count(), 1, "{full}");
    }
}
