//! What a member of a tag names: who writes it down must be able to read that.
//!
//! A tag of one's own shows whatever it contains. So a member that names what is kept from somebody would show it to them: a nested tag by
//! who is in it, a rule by whom it selects, a host's name by being taken or refused.

use std::collections::BTreeMap;

use super::{Denied, Facet, Index, Principal, Scope, Target, Verb};
use crate::select::ALL_FACTS;
use crate::{Change, FACTS, HOSTS, Key, Kind, Member, MemberKind, Rule, TagName, View};

impl Index {
    /// Whether somebody may write down this member of a tag, as far as what it names is concerned:
    ///
    /// * a host: to read it. That is asked of the person: a token whose scope has no hosts still puts them into its tags.
    /// * a nested tag: to read who is in it, and in the tag's own namespace its document, too.
    /// * a rule: to read all hosts, and all facts of each namespace that it reads.
    ///
    /// # Errors
    /// The no, with what decided it.
    pub fn may_name(&self, who: &Principal, tag: &TagName, member: &Member) -> Result<(), Denied> {
        let named = match member.kind() {
            MemberKind::Host(host) => {
                let whole = Principal { scope: Scope::default(), ..who.clone() };
                self.must_read(&whole, Target { namespace: HOSTS, key: Some(host), facet: Facet::Data })
            }
            MemberKind::Nested(_) | MemberKind::Foreign(_) => self.may_nest(who, tag, member),
            MemberKind::Rule(text) => self.may_evaluate(who, text),
        };
        named.map_err(|denied| Denied {
            wanted: format!("write the member {member} of {tag}, for which one has to {}", denied.wanted),
            ..denied
        })
    }

    fn may_nest(&self, who: &Principal, tag: &TagName, member: &Member) -> Result<(), Denied> {
        // What is no tag is refused for that.
        let Some(nested) = member.as_tag(tag.namespace()) else { return Ok(()) };
        let (namespace, key) = (nested.namespace(), Some(nested.key()));
        self.must_read(who, Target { namespace, key, facet: Facet::Members })?;
        if namespace != tag.namespace() {
            return Ok(());
        }
        self.must_read(who, Target { namespace, key, facet: Facet::Data })
    }

    /// Whether somebody may know what an expression says of each host.
    ///
    /// # Errors
    /// The no, with what decided it.
    pub fn may_evaluate(&self, who: &Principal, expression: &str) -> Result<(), Denied> {
        self.all_of(who, HOSTS, None)?;
        let Err(all) = self.all_of(who, FACTS, None) else { return Ok(()) };
        // Some are kept from them: which ones it reads is worth knowing. One that does not compile could read any.
        let Ok(rule) = Rule::compile(expression) else { return Err(all) };
        for field in rule.reads() {
            match field.strip_prefix(ALL_FACTS) {
                Some("") => return Err(all),
                Some(of) if of.starts_with('.') => self.all_of(who, FACTS, Some(&of[1..]))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// [`Index::may_name`] of a row of a commit. What stands already is not asked about again, nor what moves along with a tag to its new
    /// name (`renamed`: the old ones by the new).
    pub(super) fn names(
        &self,
        who: &Principal,
        view: &View,
        change: &Change,
        renamed: &BTreeMap<TagName, TagName>,
    ) -> Result<(), Denied> {
        let Kind::Member(tag, member) = change.key.kind() else { return Ok(()) };
        if change.value.is_none() || view.revision_of(&change.key).is_some() {
            return Ok(());
        }
        // Whoever writes the members of the old one as well: they learn nothing by it.
        let along = renamed.get(&tag).is_some_and(|old| {
            let target = Target { namespace: old.namespace(), key: Some(old.key()), facet: Facet::Members };
            view.revision_of(&Key::member(old, &member)).is_some()
                && self.may(who, Verb::Write, target).is_ok()
        });
        if along { Ok(()) } else { self.may_name(who, &tag, &member) }
    }

    /// A tag that is protected nests only such: whoever may change a nested one changes who is in it, alone.
    pub(super) fn nests_protected(&self, who: &Principal, change: &Change) -> Result<(), Denied> {
        let Kind::Member(tag, member) = change.key.kind() else { return Ok(()) };
        let members = |tag: &TagName| {
            self.protected(Target { namespace: tag.namespace(), key: Some(tag.key()), facet: Facet::Members })
        };
        let Some(nested) = member.as_tag(tag.namespace()).filter(|_| change.value.is_some()) else {
            return Ok(());
        };
        let Some(rule) = members(&tag).filter(|_| members(&nested).is_none()) else { return Ok(()) };
        let rule = format!("{rule}, and nests only tags that are protected, too");
        let hint = format!("an administrator protects it first: `shoal acl set {nested} --protected`");
        let target = Target { namespace: tag.namespace(), key: Some(tag.key()), facet: Facet::Members };
        let denied = self.denied(who, Verb::Write, target, rule, hint);
        Err(Denied { wanted: format!("nest {nested}, which is not protected, in {tag}"), ..denied })
    }
}
