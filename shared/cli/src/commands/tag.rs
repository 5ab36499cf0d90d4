//! `shoal tag`: members come and go, also under the short names that people type.
//!
//! In `dns/example.com`, `web4` is `web4.example.com`, as it would be in the zone itself. Only a host (or, to take out, a
//! member) of exactly that name is taken for it, and that is said; where the short name stands alone, it means itself. Of
//! what else may have been meant the full names are told, and a person chooses.

use shoal_core::{Edit, Key, Member, MemberKind, Range, TagName, View};
use shoal_hostdb::reading;
use shoal_store::{Query, StoreError};

use crate::args::TagCommand;
use crate::failure::{Failure, Outcome};
use crate::meant;
use crate::names::shown;
use crate::session::{Session, Way};

/// The most names that are suggested.
const MEANT: usize = 3;

pub(crate) async fn run(session: &mut Session, args: TagCommand) -> Outcome {
    let TagCommand { tag, add, remove, plan, sign } = args;
    let way = session.way(&sign, plan).await?;
    let view = match &way {
        Way::Whole(database) => Some(database.view()),
        Way::Server(_) => None,
    };
    let mut short = Short { session, view: view.as_deref(), tag: &tag, taken: Vec::new(), sought: false };
    let add = short.all(add, Side::Comes).await?;
    let remove = short.all(remove, Side::Goes).await?;
    let taken = short.taken;
    if session.out.is_text() {
        for (short, full) in taken {
            session.out.write(&format!("{short} = {full}\n"))?;
        }
    }
    let mut edits = Vec::new();
    if !add.is_empty() {
        edits.push(Edit::AddMembers { tag: tag.clone(), members: add });
    }
    if !remove.is_empty() {
        edits.push(Edit::RemoveMembers { tag, members: remove });
    }
    session.write_by(&way, &sign, plan, edits).await
}

/// Whether a member is to be added, and then a host, or to be taken out, and then in the tag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Comes,
    Goes,
}

/// Turns short names into full ones.
struct Short<'a> {
    session: &'a Session,
    /// Without one, rows are read one by one.
    view: Option<&'a View>,
    tag: &'a TagName,
    /// What was taken for what.
    taken: Vec<(Member, Member)>,
    /// Whether it was looked for what may be meant by a name: that reads thousands of rows, and where nothing is like it the check fails anyway.
    sought: bool,
}

impl Short<'_> {
    async fn all(&mut self, members: Vec<Member>, side: Side) -> Outcome<Vec<Member>> {
        let mut all = Vec::with_capacity(members.len());
        for member in members {
            all.push(self.one(member, side).await?);
        }
        Ok(all)
    }

    async fn one(&mut self, member: Member, side: Side) -> Outcome<Member> {
        let MemberKind::Host(name) = member.kind() else { return Ok(member) };
        let Some(key) = self.key(name, side) else { return Ok(member) };
        // What one may not look at is taken as it is written: whoever prepares the change knows.
        if self.exists(&key).await?.unwrap_or(true) {
            return Ok(member);
        }
        let full = format!("{name}.{}", self.tag.key());
        if let (Some(key), Ok(full)) = (self.key(&full, side), full.parse::<Member>())
            && self.exists(&key).await? == Some(true)
        {
            self.taken.push((member, full.clone()));
            return Ok(full);
        }
        let names = match side {
            Side::Comes if self.sought => meant::full(&*self.session.store, &key).await,
            Side::Comes => {
                self.sought = true;
                meant::names(&*self.session.store, &key).await
            }
            Side::Goes => self.like(&key).await,
        };
        if names.is_empty() {
            // The check says what is wrong with it.
            return Ok(member);
        }
        let names = names.join(", or ");
        Err(Failure::Missing(match side {
            Side::Comes => format!("nothing was written: there is no host {name}; do you mean {names}?"),
            Side::Goes => format!(
                "nothing was written: {name} is no member of {} by name; do you mean {names}?",
                self.tag
            ),
        }))
    }

    /// Whether there is such a row; `None`: that is not for who asks.
    async fn exists(&self, key: &Key) -> Outcome<Option<bool>> {
        if let Some(view) = self.view {
            return Ok(Some(view.exists(key)));
        }
        match reading::row(&*self.session.store, key, None).await {
            Ok(found) => Ok(Some(matches!(found, reading::Found::Here(_)))),
            Err(StoreError::Denied { .. }) => Ok(None),
            Err(error) => Err(Failure::reading(shown(key))(error)),
        }
    }

    /// The row that says that there is such a host, or such a member.
    fn key(&self, name: &str, side: Side) -> Option<Key> {
        Some(match side {
            Side::Comes => Key::host(&name.parse().ok()?),
            Side::Goes => Key::member(self.tag, &name.parse().ok()?),
        })
    }

    /// The members that begin with this one and a dot.
    async fn like(&self, key: &Key) -> Vec<String> {
        let range = Range::Prefix(format!("{key}."));
        // This is about something else that failed: what cannot be read is not suggested.
        let page = self.session.store.read(&Query { limit: MEANT, ..Query::new(range) }).await;
        let rows = page.map(|page| page.rows).unwrap_or_default();
        let name = |key: &Key| key.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        rows.iter().filter(|row| row.value.is_some()).map(|row| name(&row.key)).collect()
    }
}
