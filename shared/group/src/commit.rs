//! From what is decided to what is committed, and on which conditions.
//!
//! Everything rests on that no fact of placement was written meanwhile: who has which slot, number and address stands there alone. So of many that
//! decide at once one is committed, and the others read again. The tags and hosts that were read stand as they were, too.

use serde_json::{Value, json};
use shoal_core::{
    Document, Edit, Expect, HostName, Key, Lifecycle, Member as Named, Namespace, Pre, Range, TagName, View,
};
use shoal_machine::{DESTROY, NAMESPACE, place};

use crate::decide::{Act, Decision, Step};
use crate::ranges::{RANGES, Ranges};
use crate::read::Group;
use crate::state::State;

/// What is to be written, and what it rests on.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// What is to be written.
    pub edits: Vec<Edit>,
    /// What all of it rests on.
    pub pre: Vec<Pre>,
    /// For whom.
    pub about: Vec<HostName>,
}

/// What a decision writes: the hosts, who is in which tag, and what is remembered of the group. `epoch` names this life of the database.
///
/// # Errors
/// Something cannot be written down.
pub fn written(view: &View, group: &Group, decision: &Decision, epoch: &str) -> Result<Written, String> {
    let mut out = Written::default();
    for step in &decision.steps {
        out.step(view, group, step)?;
    }
    let state = State { epoch: Some(epoch.to_owned()), ..decision.state.clone() };
    if group.stood.as_ref() != Some(&state) {
        out.fact(group.tag.as_str(), &json!(state))?;
    }
    if !out.edits.is_empty() {
        out.pre.push(Pre::At(Key::tag(&group.tag), group.revision));
        out.alone(view);
    }
    Ok(out)
}

/// What was taken of ranges and given back, by all decisions together.
///
/// # Errors
/// Something cannot be written down.
pub fn written_of(view: &View, ranges: &Ranges) -> Result<Written, String> {
    let mut out = Written::default();
    for (name, range) in ranges.changed() {
        let tag: TagName =
            format!("{RANGES}/{name}").parse().map_err(|e: shoal_core::BadName| e.to_string())?;
        out.fact(tag.as_str(), &json!(range.holdings))?;
        out.pre.extend(range.revision.map(|revision| Pre::At(Key::tag(&tag), revision)));
    }
    if !out.edits.is_empty() {
        out.alone(view);
    }
    Ok(out)
}

impl Written {
    /// Both together.
    pub fn and(&mut self, other: Self) {
        self.edits.extend(other.edits);
        self.pre.extend(other.pre);
        self.about.extend(other.about);
    }

    /// That nobody wrote a fact of placement meanwhile.
    fn alone(&mut self, view: &View) {
        self.pre.push(Pre::Unchanged(Range::Prefix(format!("facts/{}/", place::NAMESPACE)), view.revision()));
    }

    fn fact(&mut self, subject: &str, value: &Value) -> Result<(), String> {
        let namespace: Namespace =
            place::NAMESPACE.parse().map_err(|e: shoal_core::BadName| e.to_string())?;
        let key = Key::fact(&namespace, subject).map_err(|e| e.to_string())?;
        let value = Document::of(value).map_err(|e| e.to_string())?;
        self.edits.push(Edit::Write { key, value, expect: Expect::Any });
        Ok(())
    }

    fn step(&mut self, view: &View, group: &Group, step: &Step) -> Result<(), String> {
        let Step { slot, host, act, .. } = step;
        let key = Key::host(host);
        let member = group.members.get(slot);
        let state = |state| Edit::SetState { host: host.clone(), state, expect: Expect::Any };
        self.about.push(host.clone());
        match act {
            Act::Make { stands, document, .. } => {
                self.pre.push(stands.map_or_else(|| Pre::Absent(key.clone()), |at| Pre::At(key.clone(), at)));
                self.edits.push(Edit::PutHost {
                    host: host.clone(),
                    id: None,
                    state: Some(Lifecycle::Requested),
                    owner: group.owner.clone(),
                    environment: group.environment.clone(),
                    expires: group.expires,
                    document: document.clone(),
                    expect: Expect::Any,
                });
                for tag in group.tags() {
                    self.edits.push(Edit::AddMembers { tag: tag.clone(), members: vec![Named::host(host)] });
                }
                return Ok(());
            }
            Act::Drain(wish) => {
                let patch = json!({"state": Lifecycle::Draining, "document": {NAMESPACE: {DESTROY: wish}}});
                self.edits.push(Edit::Patch { key: key.clone(), patch, expect: Expect::Any });
            }
            Act::Keep => {
                let patch = json!({"document": {NAMESPACE: {DESTROY: null}}});
                self.edits.push(Edit::Patch { key: key.clone(), patch, expect: Expect::Any });
            }
            Act::Retire => self.edits.push(state(Lifecycle::Retired)),
            // Nothing of it stands any more; who has its name by now is somebody else.
            Act::Release if member.is_some_and(|member| member.gone) => return Ok(()),
            Act::Release => {
                // It was never made.
                if member.is_some_and(|member| member.state == Some(Lifecycle::Requested)) {
                    self.edits.push(state(Lifecycle::Retired));
                }
                for tag in group.tags() {
                    let key = Key::member(tag, &Named::host(host));
                    if view.exists(&key) {
                        self.edits.push(Edit::Row { key, value: None, moved: None });
                    }
                }
            }
        }
        let stood = member.ok_or_else(|| format!("slot {slot} of {} is nobody's", group.tag))?;
        self.pre.push(Pre::At(key, stood.revision));
        Ok(())
    }
}

impl Group {
    /// The tags that its members are in by being its members.
    fn tags(&self) -> impl Iterator<Item = &TagName> {
        std::iter::once(&self.tag).chain(&self.spec.tags)
    }
}
