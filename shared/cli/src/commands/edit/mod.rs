//! `shoal edit`: a host, a tag or another row as text, in the editor that people use.
//!
//! What is edited is the form that `get` prints and `apply -f` reads. It is stored only while what was read still stands
//! there. Where somebody else was faster, the two changes are merged, field by field, and the editor opens on what that
//! comes to; what was typed is kept in a file beside, whose path is said. A text that is refused comes back with the
//! reason on top. Whatever else fails, what was typed is kept.
//!
//! Nothing is written when the text is unchanged or empty, or when the editor fails.

mod editor;
mod merge;

use std::path::PathBuf;

use serde_json::{Value, json};
use shoal_core::codec::{self, BadText, Format};
use shoal_core::docs::{Doc, Entry, HostDoc, TagDoc};
use shoal_core::{Edit, Expect, Key, Kind, Revision, Sort};
use shoal_hostdb::{history, reading};
use shoal_store::{StoreError, TransactError};

use self::editor::{Editor, Sheet};
use self::merge::{Clash, merge};
use crate::args::EditKey;
use crate::failure::{Failure, Outcome};
use crate::names::{Name, shown};
use crate::session::{Session, Way, not_done};

/// What stands there: its text as a value, and the revision that it is of.
struct Version {
    value: Value,
    revision: Revision,
}

/// What one look at the edited text came to.
enum Step {
    /// It is stored, or there is nothing to store.
    Done,
    /// It cannot be stored as it is, for this reason.
    Mend(String),
    /// Somebody else was faster.
    Late,
}

pub(crate) async fn run(session: &mut Session, args: EditKey) -> Outcome {
    let Name(key) = args.name;
    let editor = Editor::find(session.env.editor.as_deref(), &key)?;
    // Who forgot to say why is told before anything is typed.
    session.proposal(&args.sign, false, Vec::new()).await?;
    let mut base = version(session, &key).await?;
    let mut sheet = Sheet::new(&key)?;
    let mut text = yaml(&base.value)?;
    let mut head = greeting(&key);
    let mut last: Option<String> = None;
    loop {
        let before = format!("{}{text}", comment(&head));
        text = match sheet.open(&editor, &before).await {
            Ok(edited) => without_head(&edited),
            Err(failure) => return Err(sheet.kept(failure)),
        };
        if !text.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
            return said(session, &format!("{}: the text is empty, so nothing was written", shown(&key)));
        }
        if last.as_ref() == Some(&text) {
            let why = "nothing was written: the text is as it was when it was refused".to_owned();
            return Err(sheet.kept(Failure::Usage(why)));
        }
        last = None;
        match store(session, &args.sign, &key, &base, &text).await {
            Ok(Step::Done) => return Ok(()),
            Ok(Step::Mend(why)) => {
                head = format!(
                    "Nothing was written: {why}\n\nMend it and save it, or leave it as it is to give up."
                );
                last = Some(text.clone());
            }
            Ok(Step::Late) => match sheet.later(session, &key, &base, &text).await {
                Ok((version, merged, why)) => (base, text, head) = (version, merged, why),
                Err(failure) => return Err(sheet.kept(failure)),
            },
            Err(failure) => return Err(sheet.kept(failure)),
        }
    }
}

/// Stores the text if it can be.
async fn store(
    session: &mut Session,
    sign: &crate::args::Sign,
    key: &Key,
    base: &Version,
    text: &str,
) -> Outcome<Step> {
    let edit = match wanted(key, base.revision, text) {
        Ok(edit) => edit,
        Err(why) => return Ok(Step::Mend(why)),
    };
    if plain(text).ok().as_ref() == Some(&base.value) {
        said(session, &format!("{}: nothing was changed, so nothing was written", shown(key)))?;
        return Ok(Step::Done);
    }
    if sign.review {
        session.write(sign, false, vec![edit]).await?;
        return Ok(Step::Done);
    }
    let database = match session.way(sign, false).await? {
        Way::Whole(database) => database,
        Way::Server(denied) => return store_there(session, sign, key, base, edit, &denied).await,
    };
    let proposal = session.proposal(sign, false, vec![edit]).await?;
    let author = proposal.author.clone();
    match database.transact(proposal).await {
        Ok(done) => session.done(&author, &done, &[]).map(|()| Step::Done),
        Err(TransactError::Refused(refusal)) => match refusal.sort() {
            Sort::Stale => Ok(Step::Late),
            Sort::Missing if refusal.key().as_ref() == Some(key) => Ok(Step::Late),
            _ => Ok(Step::Mend(refusal.to_string())),
        },
        Err(TransactError::Store(StoreError::Conflict { .. })) => Ok(Step::Late),
        Err(error) => Err(not_done(error)),
    }
}

/// Has a server store it, because not all of the database is theirs to read.
async fn store_there(
    session: &mut Session,
    sign: &crate::args::Sign,
    key: &Key,
    base: &Version,
    edit: Edit,
    denied: &StoreError,
) -> Outcome<Step> {
    let proposal = session.proposal(sign, false, vec![edit]).await?;
    match session.by_server(denied, &proposal).await {
        Ok(done) => session.done(&proposal.author, &done, &[]).map(|()| Step::Done),
        // It says in words alone what it refuses: whether that is for being late, what stands there shows.
        Err(Failure::Store { error: StoreError::Invalid(why), .. }) => {
            let late = match version(session, key).await {
                Ok(now) => now.revision != base.revision,
                Err(Failure::Missing(_)) => true,
                Err(failure) => return Err(failure),
            };
            Ok(if late { Step::Late } else { Step::Mend(why) })
        }
        Err(failure) => Err(failure),
    }
}

impl Sheet {
    /// What to go on with when somebody else was faster: the new version, both changes in one text, and what to say of it.
    async fn later(
        &mut self,
        session: &Session,
        key: &Key,
        base: &Version,
        text: &str,
    ) -> Outcome<(Version, String, String)> {
        let kept = self.keep_copy(text)?;
        let now = version(session, key).await?;
        let mine = plain(text).map_err(|error| Failure::Text { place: shown(key), error })?;
        let (merged, clashes) = merge(&base.value, &mine, &now.value);
        let by = history::commit(&*session.store, now.revision).await.ok().flatten();
        let by = by.map(|entry| format!(" ({} by {})", entry.info.message.trim(), entry.info.author));
        let mut head = format!(
            "Nothing was written yet: revision {}{} changed {} while you edited it.\n\
             What you typed is kept as {}.\n",
            now.revision,
            by.unwrap_or_default(),
            shown(key),
            kept.display(),
        );
        head += &clashes_said(&clashes);
        head += "\nSave this text to store it, or empty it to give up.";
        let place = kept.display();
        let line = format!("note: {} was changed meanwhile; what you typed is kept as {place}", shown(key));
        let _ = std::io::Write::write_all(&mut anstream::stderr(), format!("{line}\n").as_bytes());
        Ok((now, yaml(&merged)?, head))
    }
}

fn clashes_said(clashes: &[Clash]) -> String {
    if clashes.is_empty() {
        return "Both changes are in the text below: they are of different fields.\n".to_owned();
    }
    let mut text =
        "Both changes are in the text below. Where they differ on a field, yours stands there:\n".to_owned();
    let said = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), crate::out::plain);
    for Clash { path, mine, theirs } in clashes {
        text += &format!("  {path}: yours {}, theirs {}\n", said(mine), said(theirs));
    }
    text
}

/// What stands at the key now, in the form that is edited.
async fn version(session: &Session, key: &Key) -> Outcome<Version> {
    let store = &*session.store;
    let failed = Failure::reading(shown(key));
    let (value, revision) = match key.kind() {
        Kind::Host(name) => match reading::host(store, &name, None).await.map_err(failed)? {
            reading::Found::Here(doc) => (value(&doc)?, doc.revision),
            gone => return Err(session.missing(&gone, key).await),
        },
        Kind::Tag(name) => match reading::tag(store, &name, None, usize::MAX).await.map_err(failed)? {
            reading::Found::Here(doc) => (value(&doc)?, doc.revision),
            gone => return Err(session.missing(&gone, key).await),
        },
        Kind::Member(tag, _) => {
            return Err(Failure::Usage(format!(
                "a member says nothing of itself: edit its tag, `shoal edit {tag}`"
            )));
        }
        _ => match reading::row(store, key, None).await.map_err(failed)? {
            reading::Found::Here(row) => {
                let said = row.value.as_ref().map(|document| document.value()).unwrap_or_default();
                let revision = row.revision;
                let edit = json!({"edit": "write", "key": key, "value": said, "expect": {"at": revision}});
                (edit, Some(revision))
            }
            gone => return Err(session.missing(&gone, key).await),
        },
    };
    Ok(Version { value, revision: revision.unwrap_or_default() })
}

fn value<T: serde::Serialize>(doc: &T) -> Outcome<Value> {
    serde_json::to_value(doc).map_err(|e| Failure::Other(anyhow::anyhow!("cannot show it for editing: {e}")))
}

fn yaml(value: &Value) -> Outcome<String> {
    codec::write(value, Format::Yaml)
        .map_err(|e| Failure::Other(anyhow::anyhow!("cannot show it for editing: {e}")))
}

fn plain(text: &str) -> Result<Value, BadText> {
    codec::read(text.as_bytes(), Format::Yaml)
}

/// The edit that the text asks for, of this row and on this revision whatever it says itself; or why there is none.
fn wanted(key: &Key, at: Revision, text: &str) -> Result<Edit, String> {
    let mut all = Entry::all(text.as_bytes()).map_err(|bad| bad.to_string())?;
    let (Some(entry), true) = (all.pop(), all.is_empty()) else {
        return Err(
            "the text holds several documents: only one is edited here (`shoal apply -f` takes many)"
                .to_owned(),
        );
    };
    let (of, edit) = match entry {
        Entry::Doc(doc) => {
            let of = match &doc {
                Doc::Host(HostDoc { host, .. }) => Key::host(host),
                Doc::Tag(TagDoc { tag, .. }) => Key::tag(tag),
            };
            (of, doc.into_edit(Expect::At(at)))
        }
        Entry::Edit(Edit::Write { key, value, .. }) => {
            (key.clone(), Edit::Write { key, value, expect: Expect::At(at) })
        }
        Entry::Edit(_) => return Err("the text asks for something else than what was opened".to_owned()),
    };
    if of == *key {
        return Ok(edit);
    }
    Err(format!("the text is about {}, not {}: `shoal mv` renames", shown(&of), shown(key)))
}

fn said(session: &mut Session, text: &str) -> Outcome {
    session.out.print(&json!({"changed": 0}), |_| format!("{text}\n"))
}

fn greeting(key: &Key) -> String {
    format!("{}: save to store it, empty it or leave it as it is to write nothing.", shown(key))
}

/// How a line of ours begins; what people comment stays theirs.
const MARK: &str = "#: ";

fn comment(head: &str) -> String {
    head.lines().map(|line| format!("{MARK}{line}").trim_end().to_owned() + "\n").collect()
}

/// The text without our lines at its top.
fn without_head(text: &str) -> String {
    let ours = |line: &&str| line.starts_with(MARK.trim_end());
    let lines = text.split_inclusive('\n');
    lines.skip_while(ours).collect()
}

impl Sheet {
    /// The failure, with where the edited text is kept if anything was typed.
    fn kept(&mut self, failure: Failure) -> Failure {
        match self.keep() {
            Some(path) => failure.kept(path),
            None => failure,
        }
    }
}

impl Failure {
    /// The same failure, and a text that is not lost by it.
    fn kept(self, path: PathBuf) -> Self {
        Self::Kept { path, failure: Box::new(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_lines_at_the_top_go() {
        let text = format!("{}# theirs\nhost: a\n#: below\n", comment("one\n\ntwo"));
        assert!(text.starts_with("#: one\n#:\n#: two\n"), "{text}");
        assert_eq!(without_head(&text), "# theirs\nhost: a\n#: below\n");
    }

    #[test]
    fn a_text_is_of_the_row_that_was_opened_and_of_the_revision_that_was_read() {
        let key = Key::host(&"web1.example.com".parse().unwrap());
        let at = |text: &str| wanted(&key, Revision(7), text);
        // Taking the revision out of the text does not take the precondition away.
        for text in ["host: web1.example.com\n", "host: web1.example.com\nrevision: 3\n"] {
            assert!(matches!(at(text).unwrap(), Edit::PutHost { expect: Expect::At(Revision(7)), .. }));
        }
        assert!(at("host: web2.example.com\n").unwrap_err().contains("shoal mv"));
        assert!(at("host: web1.example.com\n---\nhost: web1.example.com\n").unwrap_err().contains("several"));
        assert!(at("edit: delete\nkey: hosts/web1.example.com\n").unwrap_err().contains("something else"));
        assert!(at("host: web1.example.com\nstat: active\n").unwrap_err().contains("stat"));
    }
}
