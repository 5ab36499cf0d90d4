//! The fleet as the engine follows it: the database's view, with what only agents ask of it.

use std::collections::{BTreeMap, BTreeSet};

use shoal_core::{
    APPROVALS, Approval, Change, Document, Epoch, Fact, HOSTS, Host, HostId, HostName, Key, Kind, Namespace,
    PAUSES, Pause, Quarantined, Revision, Row, TagName, View,
};

use crate::agent::{Holder, Unit};
use crate::options::Options;
use crate::target::Why;

/// How many renames of one host or tag are followed. Back and forth they could go in circles.
const RENAMES: usize = 16;

/// The view, the epoch, and what people paused and approved.
pub(crate) struct Fleet {
    view: View,
    epoch: Epoch,
    pauses: BTreeMap<String, Pause>,
    approvals: BTreeMap<Key, (Revision, Approval)>,
    /// Whether there are rows that cannot be understood.
    broken: bool,
}

/// What a commit touched, for one namespace.
#[derive(Default)]
pub(crate) struct Touched {
    /// Tags whose own document, existence or members changed.
    pub(crate) tags: Vec<TagName>,
    /// Members that came, went, or whose effective document changed.
    pub(crate) pairs: Vec<(TagName, HostName)>,
    /// Hosts whose row changed.
    pub(crate) hosts: Vec<HostName>,
    /// Whether a pause came or went: its scope.
    pub(crate) pauses: Vec<String>,
    /// Agents, and units of theirs, whose approval changed.
    pub(crate) approvals: Vec<(Namespace, Option<String>)>,
}

/// The database while it is read, page by page: a row is taken in and forgotten while the next page is on its way.
pub struct Reading {
    fleet: Fleet,
    at: Revision,
}

/// The whole database as it stood at one revision: what an engine begins with.
pub struct Snapshot(pub(crate) Fleet);

impl Reading {
    /// Nothing yet, of what is to be read as of `at`.
    #[must_use]
    pub fn new(epoch: Epoch, at: Revision) -> Self {
        Self { fleet: Fleet { epoch, ..Fleet::new() }, at }
    }

    /// Takes one row, in any order, tombstones included.
    pub fn take(&mut self, row: Row) {
        self.fleet.control(&row.key, row.value.as_ref(), row.revision, &mut Touched::default());
        self.fleet.view.load(row);
    }

    /// There was no other row. A reading that broke off has to be dropped: what it did not reach would be taken for absent.
    #[must_use]
    pub fn whole(self) -> Snapshot {
        let Self { mut fleet, at } = self;
        fleet.view.loaded(at);
        fleet.broken = fleet.view.broken().next().is_some();
        Snapshot(fleet)
    }
}

impl Snapshot {
    /// The database as these rows say: all that there are, tombstones included.
    pub fn of(epoch: Epoch, at: Revision, rows: impl IntoIterator<Item = Row>) -> Self {
        let mut reading = Reading::new(epoch, at);
        rows.into_iter().for_each(|row| reading.take(row));
        reading.whole()
    }

    /// What it says.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.0.view
    }
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Self {
            view: View::new(),
            epoch: Epoch(0),
            pauses: BTreeMap::new(),
            approvals: BTreeMap::new(),
            broken: false,
        }
    }

    pub(crate) fn apply(&mut self, revision: Revision, changes: &[Change], namespace: &str) -> Touched {
        let mut touched = Touched::default();
        for change in changes {
            self.control(&change.key, change.value.as_ref(), revision, &mut touched);
        }
        let all = self.view.apply(revision, changes);
        self.broken = self.view.broken().next().is_some();
        touched.hosts = all.hosts.into_iter().collect();
        touched.tags = all.tags.into_iter().filter(|t| t.namespace() == namespace).collect();
        let ours = all.pairs.into_iter().filter(|(tag, _)| tag.namespace() == namespace);
        touched.pairs =
            ours.flat_map(|(tag, hosts)| hosts.into_iter().map(move |h| (tag.clone(), h))).collect();
        // What an item is may depend on whether its host is paused.
        let paused = touched.pauses.iter().filter_map(|scope| scope.strip_prefix("host/")?.parse().ok());
        let paused: Vec<HostName> = paused.collect();
        for host in paused {
            let tags = self.view.memberships(host.as_str()).into_iter().map(|(tag, _)| tag);
            let ours = tags.filter(|tag| tag.namespace() == namespace);
            touched.pairs.extend(ours.map(|tag| (tag, host.clone())));
        }
        touched
    }

    fn control(&mut self, key: &Key, value: Option<&Document>, revision: Revision, touched: &mut Touched) {
        // Most rows are others, and need not be taken apart to know it.
        if ![PAUSES, APPROVALS].contains(&key.namespace()) {
            return;
        }
        match key.kind() {
            Kind::Pause(scope) => {
                match value {
                    // A pause that cannot be read is a pause all the same.
                    Some(value) => self.pauses.insert(scope.clone(), value.to().unwrap_or_default()),
                    None => self.pauses.remove(&scope),
                };
                touched.pauses.push(scope);
            }
            Kind::Approval(agent, unit) => {
                match value.and_then(|v| v.to::<Approval>().ok()) {
                    Some(approval) => self.approvals.insert(key.clone(), (revision, approval)),
                    None => self.approvals.remove(key),
                };
                touched.approvals.push((agent, unit));
            }
            _ => {}
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The newest revision that it holds.
    pub(crate) fn revision(&self) -> Revision {
        self.view.revision()
    }

    pub(crate) fn host(&self, name: &str) -> Option<&Host> {
        self.view.host(name)
    }

    /// Who has this id, of the hosts that were read.
    pub(crate) fn holder(&self, id: &HostId) -> Holder<'_> {
        if let Some(host) = self.view.hosts().find(|host| host.id == *id) {
            return Holder::Host(host, self.facts(host.name.as_str()));
        }
        // One that could be read before may be another by now.
        let unread = self.broken && self.view.broken().any(|(key, _)| matches!(key.kind(), Kind::Host(_)));
        if unread { Holder::Unknown } else { Holder::Nobody }
    }

    /// What is reported about the host.
    pub(crate) fn facts(&self, host: &str) -> &[Fact] {
        self.view.facts(host)
    }

    /// The tags of the namespace.
    pub(crate) fn tags(&self, namespace: &str) -> Vec<TagName> {
        self.view.tags_in(namespace).map(|tag| tag.name.clone()).collect()
    }

    pub(crate) fn has_tag(&self, tag: &TagName) -> bool {
        self.view.tag(tag).is_some()
    }

    pub(crate) fn members(&self, tag: &TagName) -> Vec<HostName> {
        self.view.members(tag)
    }

    /// The hosts that may be members of the tag: it is known of those, and not known of these.
    pub(crate) fn candidates(&self, tag: &TagName) -> Vec<HostName> {
        let mut all = self.members(tag);
        all.extend(self.view.doubtful(tag));
        all
    }

    /// Why it is not known what the host is in the tag, where that is so.
    pub(crate) fn doubt(&self, tag: &TagName, host: &HostName) -> Option<String> {
        self.view.doubt(tag, host.as_str()).map(|doubt| doubt.to_string())
    }

    pub(crate) fn is_member(&self, tag: &TagName, host: &HostName) -> bool {
        self.view.contains(tag, host.as_str())
    }

    /// What the tag says of this member (or of itself), and the newest revision that it was made from; `None`: there is no
    /// such tag, or the host is not in it.
    pub(crate) fn effective(
        &self,
        tag: &TagName,
        host: Option<&HostName>,
    ) -> Option<Result<(Document, Revision), String>> {
        let effective = self.view.effective_document(tag, host)?;
        Some(match effective.conflicts.first() {
            None => Ok((effective.document, effective.revision)),
            Some(conflict) => {
                let who: Vec<_> = conflict.between.iter().map(|said| said.origin.key.to_string()).collect();
                Err(format!(
                    "{} disagree about {}: give one of them the word, or override it on the host",
                    who.join(" and "),
                    conflict.path
                ))
            }
        })
    }

    /// What holds the whole agent, what no source feeds any more included: the scope, and why.
    pub(crate) fn agent_pause(&self, namespace: &str) -> Option<String> {
        if self.pauses.is_empty() {
            return None;
        }
        self.paused(format!("agent/{namespace}"))
    }

    /// What holds this source: the scope, and why. A pause goes along when its host or tag is renamed, and what was made
    /// under the old name is held all the same.
    pub(crate) fn pause(&self, tag: &TagName, host: Option<&HostName>) -> Option<String> {
        if self.pauses.is_empty() {
            return None;
        }
        let tag = || self.names(Key::tag(tag)).find_map(|key| self.paused(format!("tag/{key}")));
        tag().or_else(|| self.host_pause(host?))
    }

    /// The same of a host alone.
    pub(crate) fn host_pause(&self, host: &HostName) -> Option<String> {
        if self.pauses.is_empty() {
            return None;
        }
        let scope = |key: Key| Some(format!("host/{}", key.as_str().strip_prefix(HOSTS)?.strip_prefix('/')?));
        self.names(Key::host(host)).find_map(|key| self.paused(scope(key)?))
    }

    /// The key, and what it was renamed to since.
    fn names(&self, key: Key) -> impl Iterator<Item = Key> {
        let next = |key: &Key| self.view.tombstone(key)?.moved.clone();
        std::iter::successors(Some(key), next).take(RENAMES)
    }

    fn paused(&self, scope: String) -> Option<String> {
        self.pauses.get(&scope).map(|pause| match pause.why.as_str() {
            "" => scope,
            why => format!("{scope}: {why}"),
        })
    }

    /// The digest that a person agreed to for this unit; without one, the epoch.
    pub(crate) fn approval(&self, agent: &str, unit: Option<&Unit>) -> Option<&str> {
        let (_, approval) = self.word(agent, unit)?;
        Some(&*approval.digest).filter(|digest| !digest.is_empty())
    }

    /// The digests of clashes of this unit that Shoal is to have, and the revision at which a person said so.
    pub(crate) fn adoption(&self, agent: &str, unit: &Unit) -> Option<(Revision, &BTreeMap<String, String>)> {
        let (revision, approval) = self.word(agent, Some(unit))?;
        Some((*revision, &approval.adopt)).filter(|(_, adopt)| !adopt.is_empty())
    }

    fn word(&self, agent: &str, unit: Option<&Unit>) -> Option<&(Revision, Approval)> {
        if self.approvals.is_empty() {
            return None;
        }
        let key = Key::approval(&agent.parse().ok()?, unit.map(|unit| unit.0.as_str())).ok()?;
        self.approvals.get(&key)
    }

    /// What of this source cannot be read and is therefore not known at all, neither there nor gone: its host, its tag,
    /// or something that the tag nests.
    pub(crate) fn unreadable(&self, tag: &TagName, host: Option<&HostName>) -> Option<String> {
        if !self.broken {
            return None;
        }
        let say = |key: &Key, why: &str| format!("the row {key} cannot be understood: {why}");
        let row = |key: Key| Some(say(&key, &self.view.broken().find(|(k, _)| **k == key)?.1.why));
        if let Some(name) = host.filter(|name| self.host(name.as_str()).is_none())
            && let Some(why) = row(Key::host(name))
        {
            return Some(why);
        }
        for tag in std::iter::once(tag.clone()).chain(self.view.tags_below(tag)) {
            if !self.has_tag(&tag)
                && let Some(why) = row(Key::tag(&tag))
            {
                return Some(why);
            }
            for (key, broken) in self.view.broken() {
                if matches!(key.as_member(), Some((of, _)) if of == tag.as_str()) {
                    return Some(say(key, &broken.why));
                }
            }
        }
        None
    }

    /// Whether the tag is of this namespace, or nested in one that is.
    fn reaches(&self, tag: &TagName, namespace: &str) -> bool {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![tag.clone()]);
        while let Some(tag) = todo.pop() {
            if tag.namespace() == namespace {
                return true;
            }
            todo.extend(self.view.tag_parents(&tag).into_iter().filter(|t| seen.insert(t.clone())));
        }
        false
    }

    /// A row that cannot be read, of any host, or of a tag of this namespace or nested in one: what it feeds is not known.
    pub(crate) fn unreadable_row(&self, namespace: &str) -> Option<&Key> {
        let mut rows = self.view.broken().map(|(key, _)| key);
        rows.find(|key| match key.kind() {
            // One that could be read before is still known as it was.
            Kind::Host(host) => self.host(host.as_str()).is_none(),
            Kind::Tag(tag) | Kind::Member(tag, _) => self.reaches(&tag, namespace),
            _ => false,
        })
    }

    /// Rows that cannot be read and may matter to this namespace: any host, its own tags and their members, and those of
    /// tags that its own nest. Of these, what the options concern.
    pub(crate) fn unreadable_rows(&self, namespace: &str, options: &Options) -> Vec<Quarantined> {
        // Of a tag that another nests, nobody asked by name.
        let concerns = |tag: &TagName, host| {
            self.reaches(tag, namespace)
                && options.concerns(Some(tag).filter(|tag| tag.namespace() == namespace), host)
        };
        let name = |key: &Key| match key.kind() {
            Kind::Host(host) if options.concerns(None, Some(&host)) => Some(host.to_string()),
            Kind::Tag(tag) if concerns(&tag, None) => Some(tag.to_string()),
            Kind::Member(tag, member) if concerns(&tag, None) => Some(format!("{tag}: {member}")),
            _ => None,
        };
        let one = |(key, broken): (&Key, &shoal_core::Broken)| {
            let why = format!("its row cannot be understood: {}", broken.why);
            Some(Quarantined { what: name(key)?, why, since: broken.revision })
        };
        self.view.broken().filter_map(one).collect()
    }

    /// Since when the host is no member of the tag: when it was taken out of it, or of a tag that it nests. Where neither
    /// happened, a rule or a nested tag went, or the host does not fit a rule any more: then since the newest change of any.
    fn left(&self, tag: &TagName, host: &Host, then: Revision) -> Revision {
        let tags: Vec<TagName> = std::iter::once(tag.clone()).chain(self.view.tags_below(tag)).collect();
        let member = shoal_core::Member::host(&host.name);
        let grave = |key: &Key| self.view.tombstone(key).map(|grave| grave.revision);
        // It may have been in by another way since it was taken out.
        let out = tags.iter().filter_map(|tag| grave(&Key::member(tag, &member))).filter(|r| *r > then).max();
        let changed = |tag: &TagName| self.view.tag_revision(tag).or_else(|| grave(&Key::tag(tag)));
        out.unwrap_or_else(|| tags.iter().filter_map(changed).fold(host.revision, Revision::max))
    }

    /// What became of a host that is not there; `None`: it is there, or the database does not say.
    pub(crate) fn host_gone(&self, name: &HostName) -> Option<Why> {
        let grave = self.view.tombstone(&Key::host(name)).filter(|_| self.host(name.as_str()).is_none())?;
        let moved = grave.moved.as_ref().and_then(|key| match key.kind() {
            Kind::Host(to) => Some(to),
            _ => None,
        });
        Some(match moved {
            Some(to) => Why::HostRenamed(name.clone(), to, grave.revision),
            None => Why::HostGone(name.clone(), grave.revision),
        })
    }

    /// Why this tag, or this member of it, feeds nothing any more; `None`: the database does not say. `then` is the newest
    /// revision that it fed something from.
    pub(crate) fn gone(
        &self,
        tag: &TagName,
        host: Option<&HostName>,
        then: Revision,
        serves: impl Fn(shoal_core::Lifecycle) -> bool,
    ) -> Option<Why> {
        if !self.has_tag(tag) {
            return self
                .view
                .tombstone(&Key::tag(tag))
                .map(|grave| Why::TagGone(tag.clone(), grave.revision));
        }
        let Some(name) = host else {
            return Some(Why::Edited(tag.to_string(), self.view.tag(tag)?.revision));
        };
        let Some(host) = self.host(name.as_str()) else { return self.host_gone(name) };
        if !self.is_member(tag, name) {
            return Some(Why::NotMember(tag.clone(), name.clone(), self.left(tag, host, then)));
        }
        if !serves(host.state) {
            return Some(Why::Lifecycle(name.clone(), host.revision));
        }
        let said = self.effective(tag, Some(name)).and_then(Result::ok);
        let since = said.map_or(host.revision, |(_, revision)| revision);
        Some(Why::Edited(format!("{tag}: {name}"), since.max(host.revision)))
    }
}
