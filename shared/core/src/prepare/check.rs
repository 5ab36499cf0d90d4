//! Whether the rows of a proposal can stand together with all the others.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::reads::Reads;
use super::refusal::Refusal;
use super::{MAX_ROW, Warning};
use crate::access::{Facet, Index, Target};
use crate::key::Access;
use crate::schema::{Checker, Fault};
use crate::{
    Change, Document, EffectiveDocument, HostName, Key, Kind, Member, MemberKind, Namespace, Origin, Rule,
    SCHEMAS, TagName, Touched, View,
};

/// The most warnings of one kind; the rest is counted.
const MAX_WARNINGS: usize = 10;
/// How a warning ends that only says how many others there are.
const MORE: &str = "more of this kind";
/// Up to so many members, each is read for itself; beyond, all hosts are.
const FEW: usize = 64;

pub(super) struct Check<'c> {
    pub(super) before: &'c View,
    pub(super) after: &'c View,
    pub(super) touched: &'c Touched,
    pub(super) reads: &'c mut Reads,
}

impl Check<'_> {
    pub(super) fn all(mut self, changes: &[Change]) -> Result<Vec<Warning>, Refusal> {
        let mut warnings = Warnings::default();
        let (mut nesting, mut ruled) = (BTreeSet::new(), false);
        for change in changes {
            if let Some(value) = change.value.as_ref().filter(|v| v.as_str().len() > MAX_ROW) {
                return Err(Refusal::TooLarge {
                    key: change.key.clone(),
                    octets: value.as_str().len(),
                    most: MAX_ROW,
                });
            }
            match (change.key.kind(), &change.value) {
                (Kind::Member(tag, member), Some(_)) => self.member(&tag, &member, &mut nesting)?,
                (Kind::Tag(tag), Some(_)) => self.tag(&tag)?,
                (Kind::Tag(tag), None) => self.gone(&tag)?,
                (Kind::Host(host), Some(_)) => self.host(&host, &mut warnings)?,
                (Kind::Host(host), None) => self.left(&host)?,
                (Kind::Schema(namespace), Some(_)) => self.schema(&namespace, &mut warnings)?,
                (Kind::Access(Access::Rules(..)), _) => ruled = true,
                _ => {}
            }
        }
        for tag in nesting {
            self.cycle(&tag)?;
        }
        if ruled {
            self.protection(&mut warnings);
        }
        self.pairs(&mut warnings)?;
        Ok(warnings.done())
    }

    /// What other rules leave open: a protected tag nests one that is not, so that one person alone changes who is in it. Nobody can write
    /// such a member; this is of those that stand. Costs a look at all protected tags.
    fn protection(&self, warnings: &mut Warnings) {
        let (before, after) = (Index::of(self.before), Index::of(self.after));
        let protected = |index: &Index, tag: &TagName| {
            let (namespace, key) = (tag.namespace(), Some(tag.key()));
            index.protected(Target { namespace, key, facet: Facet::Members }).is_some()
        };
        for tag in self.after.tags().map(|tag| &tag.name).filter(|tag| protected(&after, tag)) {
            for (member, _) in self.after.direct_members(tag) {
                let Some(nested) = member.as_tag(tag.namespace()) else { continue };
                let open = |index: &Index| protected(index, tag) && !protected(index, &nested);
                if open(&after) && !open(&before) {
                    let text = format!(
                        "it is protected and nests {nested}, which is not: who writes that changes who is in {tag} alone; \
                         `shoal acl set {nested} --protected`, or take it out"
                    );
                    warnings.add("nests-unprotected", Key::tag(tag), text);
                }
            }
        }
    }

    /// A member names what exists, in a tag that exists.
    fn member(
        &mut self,
        tag: &TagName,
        member: &Member,
        nesting: &mut BTreeSet<TagName>,
    ) -> Result<(), Refusal> {
        let moved = |key: &Key| self.after.tombstone(key).and_then(|t| t.moved.clone());
        let key = Key::tag(tag);
        if self.after.tag(tag).is_none() {
            return Err(Refusal::Missing { moved: moved(&key), key });
        }
        if self.before.exists(&key) {
            self.reads.exists(key);
        }
        let named = match (member.kind(), member.as_tag(tag.namespace())) {
            (MemberKind::Rule(text), _) => {
                return match Rule::compile(text) {
                    Ok(_) => Ok(()),
                    Err(rule) => Err(Refusal::Rule { tag: tag.clone(), rule }),
                };
            }
            (_, Some(nested)) => {
                nesting.insert(tag.clone());
                Key::tag(&nested)
            }
            (_, None) => Key::host(&member.as_str().parse().map_err(|e: crate::BadName| Refusal::Form {
                key: Key::member(tag, member),
                why: e.to_string(),
            })?),
        };
        if !self.after.exists(&named) {
            let (tag, member) = (tag.clone(), member.clone());
            return Err(Refusal::UnknownMember { tag, member, moved: moved(&named) });
        }
        if self.before.exists(&named) {
            self.reads.exists(named);
        }
        Ok(())
    }

    /// No tag contains itself, now and after whatever commits in between: who nests this one or any above it is read.
    fn cycle(&mut self, tag: &TagName) -> Result<(), Refusal> {
        if let Some(path) = self.after.cycle(tag) {
            return Err(Refusal::Cycle { path });
        }
        for above in self.after.above(tag) {
            self.reads.nesting(&above);
        }
        Ok(())
    }

    /// A host that is gone is in no tag.
    fn left(&self, host: &HostName) -> Result<(), Refusal> {
        match self.after.named_in(host) {
            tags if tags.is_empty() => Ok(()),
            tags => Err(Refusal::Named { host: host.clone(), tags }),
        }
    }

    /// A tag that is gone has no members and is in no other.
    fn gone(&self, tag: &TagName) -> Result<(), Refusal> {
        let parents = self.after.tag_parents(tag);
        if !parents.is_empty() {
            return Err(Refusal::Nested { tag: tag.clone(), parents });
        }
        if !self.after.direct_members(tag).is_empty() {
            let why = "the tag goes, so its members must go in the same commit".to_owned();
            return Err(Refusal::Form { key: Key::tag(tag), why });
        }
        Ok(())
    }

    fn checker(&self, namespace: &str) -> Option<Arc<Checker>> {
        let namespace: Namespace = namespace.parse().ok()?;
        self.after.checker(&namespace)?.ok()
    }

    fn reads_schema(&mut self, namespace: &str) {
        if let Ok(namespace) = namespace.parse() {
            self.reads.unchanged(Key::schema(&namespace));
        }
    }

    /// A tag's own document fits the schema.
    fn tag(&mut self, name: &TagName) -> Result<(), Refusal> {
        self.reads_schema(name.namespace());
        let (Some(checker), Some(tag)) = (self.checker(name.namespace()), self.after.tag(name)) else {
            return Ok(());
        };
        let unchanged = self.before.tag(name).is_some_and(|t| t.document == tag.document);
        match checker.check_tag(&tag.document.value()) {
            Err(fault) if !unchanged => Err(Refusal::TagBreaks { tag: name.clone(), fault }),
            _ => Ok(()),
        }
    }

    /// What a host overrides fits every schema there is.
    fn host(&mut self, name: &HostName, warnings: &mut Warnings) -> Result<(), Refusal> {
        let Some(host) = self.after.host(name.as_str()) else { return Ok(()) };
        let before = self.before.host(name.as_str());
        let schemas: Vec<String> = self.schemas();
        for (namespace, raw) in host.document.fields() {
            if !schemas.iter().any(|s| *s == namespace) {
                continue;
            }
            let Some(checker) = self.checker(&namespace) else { continue };
            self.reads_schema(&namespace);
            let over = serde_json::from_str(raw).unwrap_or_default();
            let Err(fault) = checker.check_host(&over) else { continue };
            let namespace: Namespace = match namespace.parse() {
                Ok(namespace) => namespace,
                Err(_) => continue,
            };
            if before.is_some_and(|b| b.document.raw(namespace.as_str()) == Some(raw)) {
                let text = format!(
                    "what {name} overrides under {namespace:?} breaks the schema of {namespace}, as before: {fault}"
                );
                warnings.add("breaks-schema", Key::host(name), text);
                continue;
            }
            return Err(Refusal::OverrideBreaks { host: name.clone(), namespace, fault });
        }
        Ok(())
    }

    /// The namespaces that have a schema.
    fn schemas(&self) -> Vec<String> {
        let prefix = format!("{SCHEMAS}/");
        self.after
            .plain(&prefix)
            .filter_map(|(key, _)| Some(key.as_str().strip_prefix(&prefix)?.to_owned()))
            .collect()
    }

    /// A new schema is one; what it finds fault with is listed.
    fn schema(&self, namespace: &Namespace, warnings: &mut Warnings) -> Result<(), Refusal> {
        let checker = match self.after.checker(namespace) {
            Some(Ok(checker)) => checker,
            Some(Err(why)) => return Err(Refusal::Schema { namespace: namespace.clone(), why }),
            None => return Ok(()),
        };
        let mut seen = HashSet::new();
        for tag in self.after.tags_in(namespace.as_str()) {
            let changed = self.touched.tags.contains(&tag.name)
                && self.before.tag(&tag.name).is_none_or(|t| t.document != tag.document);
            if changed {
                continue;
            }
            seen.insert(tag.document.clone());
            if let Err(fault) = checker.check_tag(&tag.document.value()) {
                let text = format!("the document of {} breaks the new schema: {fault}", tag.name);
                warnings.add("breaks-schema", Key::tag(&tag.name), text);
            }
            for host in self.after.members(&tag.name) {
                let Some(effective) = self.after.effective_document(&tag.name, Some(&host)) else { continue };
                if !seen.insert(effective.document.clone()) {
                    continue;
                }
                if let Err(fault) = checker.check_tag(&effective.document.value()) {
                    let text = format!("what {} says of {host} breaks the new schema: {fault}", tag.name);
                    warnings.add("breaks-schema", Key::tag(&tag.name), text);
                }
            }
        }
        for host in self.after.hosts() {
            if let Some(over) = host.field(namespace.as_str())
                && let Err(fault) = checker.check_host(&over)
            {
                let name = &host.name;
                let text =
                    format!("what {name} overrides under {namespace:?} breaks the new schema: {fault}");
                warnings.add("breaks-schema", Key::host(name), text);
            }
        }
        Ok(())
    }

    /// What tags say of members: each distinct document that is new once.
    fn pairs(&mut self, warnings: &mut Warnings) -> Result<(), Refusal> {
        for (tag, hosts) in &self.touched.pairs {
            let checker = self.checker(tag.namespace());
            let nests = self.after.nests_own(tag);
            if checker.is_none() && nests.is_empty() {
                continue;
            }
            let new: Vec<(&HostName, EffectiveDocument)> =
                hosts.iter().filter_map(|host| Some((host, self.new_document(tag, host)?))).collect();
            disputes(tag, &new, warnings);
            let Some(checker) = checker.filter(|_| !new.is_empty()) else { continue };
            self.rests_on(tag, &new, &nests, &checker);
            self.members_of(tag, &new, &checker, warnings)?;
        }
        Ok(())
    }

    /// What the tag says of the host, if that is not what it said before. What a proposal does not change is no reason
    /// to refuse it.
    fn new_document(&self, tag: &TagName, host: &HostName) -> Option<EffectiveDocument> {
        let now = self.after.effective_document(tag, Some(host))?;
        let was = self.before.effective_document(tag, Some(host));
        was.is_none_or(|was| was.document != now.document).then_some(now)
    }

    fn members_of(
        &self,
        tag: &TagName,
        new: &[(&HostName, EffectiveDocument)],
        checker: &Checker,
        warnings: &mut Warnings,
    ) -> Result<(), Refusal> {
        let own = self.after.tag(tag).map(|t| &t.document);
        let own_stands = own == self.before.tag(tag).map(|t| &t.document);
        let mut seen: HashSet<&Document> = HashSet::new();
        for (host, effective) in new.iter().filter(|(_, e)| seen.insert(&e.document)) {
            let Err(fault) = checker.check_tag(&effective.document.value()) else { continue };
            // Joining a tag whose document a newer schema finds fault with makes nothing worse.
            if own_stands && own == Some(&effective.document) {
                let text = format!("what {tag} says of {host} breaks its schema, as before: {fault}");
                warnings.add("breaks-schema", Key::tag(tag), text);
                continue;
            }
            let (tag, host, origin) = (tag.clone(), HostName::clone(host), self.origin(tag, host, &fault));
            return Err(Refusal::EffectiveBreaks { tag, host, fault, origin });
        }
        Ok(())
    }

    /// Who says what is at fault: the origin of the nearest value at or above the place.
    fn origin(&self, tag: &TagName, host: &HostName, fault: &Fault) -> Option<Origin> {
        let effective = self.after.effective(tag, Some(host))?;
        let mut path = fault.path.as_str();
        loop {
            if let Some(origin) = effective.origins.get(path) {
                return Some(origin.clone());
            }
            path = &path[..path.rfind('/')?];
        }
    }

    /// States what the effective documents of a tag were made of.
    fn rests_on(
        &mut self,
        tag: &TagName,
        new: &[(&HostName, EffectiveDocument)],
        nests: &[TagName],
        checker: &Checker,
    ) {
        self.reads_schema(tag.namespace());
        for layer in nests.iter().chain([tag]) {
            self.reads.unchanged(Key::tag(layer));
        }
        if !checker.allows_override() {
            return;
        }
        if new.len() > FEW {
            return self.reads.all_hosts();
        }
        for (host, _) in new {
            if self.touched.hosts.contains(*host) {
                self.reads.naming(Member::host(host));
                self.reads.nesting(tag);
            } else {
                self.reads.row(self.before, &Key::host(host));
            }
        }
    }
}

/// Warns where tags of equal depth disagree.
fn disputes(tag: &TagName, new: &[(&HostName, EffectiveDocument)], warnings: &mut Warnings) {
    let mut seen = BTreeSet::new();
    for (host, effective) in new {
        for conflict in effective.conflicts.iter().filter(|c| seen.insert(c.path.as_str())) {
            let who: Vec<String> =
                conflict.between.iter().map(|s| format!("{} says {}", s.origin.key, s.value)).collect();
            let text = format!("{tag} has no one answer at {} for {host}: {}", conflict.path, who.join(", "));
            warnings.add("conflict", Key::tag(tag), text);
        }
    }
}

impl Warning {
    /// Whether it says nothing but how many others of its kind there are.
    #[must_use]
    pub fn is_count(&self) -> bool {
        self.text.starts_with("and ") && self.text.ends_with(MORE)
    }
}

/// Warnings, bounded per kind.
#[derive(Default)]
struct Warnings {
    all: Vec<Warning>,
    counts: BTreeMap<&'static str, usize>,
}

impl Warnings {
    fn add(&mut self, code: &'static str, key: Key, text: String) {
        let count = self.counts.entry(code).or_default();
        *count += 1;
        if *count <= MAX_WARNINGS {
            self.all.push(Warning { code: code.to_owned(), key, text });
        }
    }

    fn done(mut self) -> Vec<Warning> {
        for (code, count) in self.counts {
            let more = count.saturating_sub(MAX_WARNINGS);
            if let Some(last) = self.all.iter().rev().find(|w| w.code == code).cloned().filter(|_| more > 0) {
                self.all.push(Warning { text: format!("and {more} {MORE}"), ..last });
            }
        }
        self.all
    }
}
