//! Writes: what is asked before anything is worked out, and of what came of it.

use shoal_core::access::{Denied, Facet, Review, ReviewState, Sort, Target, Verb};
use shoal_core::{Change, Commit, Document, Edit, Key, Kind, Member, Pre, Proposal, Range, TagName, View};
use shoal_store::MAX_NAME;

use super::Caller;
use crate::credentials::hash;

impl Caller {
    /// Whether they may write at these places at all. It is asked first, so that nobody learns what stands at a place from how a
    /// write there is refused, or from one that would change nothing. What agents may write is decided by the rows themselves; what they may not
    /// read, and is not their own, they do not write either.
    ///
    /// # Errors
    /// The no.
    pub(crate) fn may_propose(&self, view: &View, edits: &[Edit]) -> Result<(), Denied> {
        if !self.asked {
            return Ok(());
        }
        for edit in edits {
            self.may_edit(edit)?;
            self.may_name(view, edit)?;
        }
        Ok(())
    }

    /// Whether what a proposal rests on is theirs to read, or the answer would tell them of it.
    ///
    /// # Errors
    /// The no.
    pub(crate) fn may_rest(&self, on: &[Pre]) -> Result<(), Denied> {
        if !self.asked {
            return Ok(());
        }
        for pre in on {
            match pre {
                Pre::At(key, _) | Pre::Exists(key) | Pre::Absent(key) => {
                    self.index.may_read_key(&self.who, key)?;
                }
                Pre::Unchanged(range, _) => self.index.may_read(&self.who, range)?,
                Pre::Held { .. } => {}
            }
        }
        Ok(())
    }

    /// The idempotency key as it is remembered: apart from everybody else's keys, so that nobody gets the answer of another's commit, or hears
    /// that there is one. What no store takes for a key stays as it is, to be refused.
    pub(crate) fn own_key(&self, key: &str) -> String {
        if !self.asked || key.trim().is_empty() || key.len() > MAX_NAME {
            return key.to_owned();
        }
        let sort = match self.who.sort {
            Sort::Local => "local",
            Sort::Person => "person",
            Sort::Agent(_) => "agent",
            Sort::Anonymous => "anonymous",
        };
        // No name has a line break in it.
        hash(&format!("{sort}\n{}\n{key}", self.who.name)).0
    }

    fn may_edit(&self, edit: &Edit) -> Result<(), Denied> {
        match edit {
            Edit::PutHost { host, .. } | Edit::SetState { host, .. } => self.may_write(&Key::host(host)),
            Edit::PutTag { tag, members, .. } => {
                if members.is_some() {
                    self.may_write_members(tag)?;
                }
                self.may_write(&Key::tag(tag))
            }
            Edit::Patch { key, patch, .. } => {
                if let (Kind::Tag(tag), Some(_)) = (key.kind(), patch.get("members")) {
                    self.may_write_members(&tag)?;
                }
                self.may_write(key)
            }
            Edit::Delete { key, .. } | Edit::Write { key, .. } => self.may_write(key),
            Edit::Rename { from, to, .. } => self.may_write(from).and_then(|()| self.may_write(to)),
            Edit::AddMembers { tag, .. } | Edit::RemoveMembers { tag, .. } | Edit::SetMembers { tag, .. } => {
                self.may_write_members(tag)
            }
            // What was known of a thing goes with it: whether it does, the whole commit says. Whoever says so row by row has read it.
            Edit::Row { key, moved, value } if value.is_none() || moved.is_some() => {
                moved.iter().try_for_each(|from| self.index.may_read_key(&self.who, from))?;
                match key.namespace() {
                    shoal_core::FACTS | shoal_core::PAUSES => self.index.may_read_key(&self.who, key),
                    _ => self.may_write(key),
                }
            }
            Edit::Row { key, .. } => self.may_write(key),
        }
    }

    /// Whether what the members name that an edit would add is theirs to read: that there is no such host, the answer would say otherwise.
    fn may_name(&self, view: &View, edit: &Edit) -> Result<(), Denied> {
        // Agents are told by the rows themselves that no member is theirs to write.
        if matches!(self.who.sort, Sort::Agent(_)) {
            return Ok(());
        }
        let stands = |tag: &TagName, member: &Member| view.revision_of(&Key::member(tag, member)).is_some();
        let one = |tag: &TagName, member: &Member| match stands(tag, member) {
            true => Ok(()),
            false => self.index.may_name(&self.who, tag, member),
        };
        let all = |tag: &TagName, members: &[Member]| members.iter().try_for_each(|member| one(tag, member));
        match edit {
            Edit::PutTag { tag, members: Some(members), .. }
            | Edit::AddMembers { tag, members }
            | Edit::SetMembers { tag, members, .. } => all(tag, members),
            Edit::Patch { key, patch, .. } => match (key.kind(), patch.get("members")) {
                (Kind::Tag(tag), Some(members)) => {
                    let texts = members.as_array().into_iter().flatten().filter_map(|member| member.as_str());
                    // What is no member is refused for that.
                    all(&tag, &texts.filter_map(|text| text.parse().ok()).collect::<Vec<Member>>())
                }
                _ => Ok(()),
            },
            Edit::Write { key, .. } | Edit::Row { key, value: Some(_), moved: None } => match key.kind() {
                Kind::Member(tag, member) => one(&tag, &member),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether they may write who is in a tag; of agents it is asked whether that is theirs to read.
    ///
    /// # Errors
    /// The no.
    pub(crate) fn may_write_members(&self, tag: &TagName) -> Result<(), Denied> {
        if !self.asked {
            return Ok(());
        }
        let target = Target { namespace: tag.namespace(), key: Some(tag.key()), facet: Facet::Members };
        let verb = if matches!(self.who.sort, Sort::Agent(_)) { Verb::Read } else { Verb::Write };
        self.index.may(&self.who, verb, target).map(drop)
    }

    /// Whether they may write at a place. Of agents it is asked whether it is theirs, or theirs to read: the rest the rows decide.
    ///
    /// # Errors
    /// The no.
    pub(crate) fn may_write(&self, key: &Key) -> Result<(), Denied> {
        if !self.asked {
            return Ok(());
        }
        if let Sort::Agent(own) = &self.who.sort {
            let theirs = match key.kind() {
                Kind::Fact(of, _) | Kind::Schema(of) => of == *own,
                _ => false,
            };
            return if theirs { Ok(()) } else { self.index.may_read_key(&self.who, key) };
        }
        match Target::of(key) {
            Some(target) => self.index.may(&self.who, Verb::Write, target).map(drop),
            None if key.as_str().starts_with("access/reviews/") && !self.who.is_anonymous() => Ok(()),
            None => self
                .index
                .administers(&self.who)
                .map(drop)
                .map_err(|denied| Denied { wanted: format!("write {key}"), ..denied }),
        }
    }

    /// Who a proposal is of: what is said of that in it is replaced by what is known.
    ///
    /// The author is who was authenticated. Administrators may name another: they could write into the file anyway, and
    /// what comes from elsewhere (an import, a gateway) keeps its author; the principal stands beside it. One that does nothing is not
    /// remembered, since it passes no gate.
    pub(crate) fn signed(&self, mut proposal: Proposal) -> Proposal {
        proposal.origin.clone_from(&self.origin);
        proposal.principal = None;
        if self.asked {
            for edit in &mut proposal.edits {
                self.sign_review(edit);
            }
            if proposal.edits.is_empty() {
                proposal.idempotency = None;
            }
            proposal.principal = Some(self.who.name.clone());
            if !self.index.is_admin(&self.who) || proposal.author.trim().is_empty() {
                proposal.author.clone_from(&self.who.name);
            }
        }
        proposal
    }

    /// Whoever sends a proposal is its proposer, and who decides on one its reviewer: a client need not know its own name here.
    fn sign_review(&self, edit: &mut Edit) {
        let (key, value) = match edit {
            Edit::Write { key, value, .. } | Edit::Row { key, value: Some(value), .. } => (key, value),
            _ => return,
        };
        if !key.as_str().starts_with("access/reviews/") {
            return;
        }
        // What is no review is refused for that.
        let Ok(mut review) = value.to::<Review>() else { return };
        if review.state == ReviewState::Open {
            review.proposer.clone_from(&self.who.name);
        } else {
            review.reviewer = Some(self.who.name.clone());
        }
        if let Ok(signed) = Document::of(&review) {
            *value = signed;
        }
    }

    /// What a review rests on and was not shown to whoever decides on it stays in it.
    fn whole_review(&self, view: &View, change: &mut Change) {
        if change.key.as_str().starts_with("access/reviews/")
            && let (Some(is), Some(was)) = (&change.value, view.plain_row(&change.key))
            && let Some(whole) = self.index.review_with(&self.who, is, &was.document)
        {
            change.value = Some(whole);
        }
    }

    /// Whether the commit may happen; what it has to rest on, besides, is added to it.
    ///
    /// # Errors
    /// The no.
    pub(crate) fn judge(&self, view: &View, commit: &mut Commit) -> Result<(), Denied> {
        if !self.asked {
            return Ok(());
        }
        for change in &mut commit.changes {
            self.whole_review(view, change);
        }
        let judged = self.index.judge(&self.who, view, &commit.changes)?;
        commit.pre.extend(judged.pre);
        if !self.index.is_admin(&self.who) {
            commit.author.clone_from(&self.who.name);
        }
        if let Some(author) = judged.author {
            commit.author = author;
        }
        // What let it pass must still stand when it happens, on whichever server a right is taken away: the rows that were asked, and
        // not those of the view, which may be newer.
        let rules = Range::Prefix(format!("{}/", shoal_core::ACCESS));
        commit.pre.push(Pre::Unchanged(rules, self.index.as_of()));
        Ok(())
    }
}
