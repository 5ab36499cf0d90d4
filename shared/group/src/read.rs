//! What stands in the database, as groups with their members and ranges.
//!
//! A slot's member is found by the host's id, so that a renamed host keeps its slot, and a new host under an old name gets nobody's. A
//! host that says `placement: {group: …, slot: …}` and stands in no slot is taken in: so a machine that was there before becomes a member, and a
//! fact that was lost is made again. What members have of ranges by their own documents is written down where nobody did.

use core::net::IpAddr;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_core::{
    Document, Host, HostId, HostName, Key, Lifecycle, Namespace, Quarantined, Revision, Tag, TagName, View,
};
use shoal_machine::{Care, Drift, Life, Volume, Wish, place};

use crate::ranges::{Held, Holdings, Pool, RANGES, Range, Ranges};
use crate::spec::{GROUP, Spec};
use crate::state::{FULL, Slot, State};

/// How many renames of a host are followed.
const RENAMES: usize = 64;
/// The field of its document that says what becomes of members that are not what it says.
const DRIFT: &str = "drift";
/// By which field of its facts about a machine somebody reports it dead.
const HEALTHY: &str = "healthy";

/// All groups, and the ranges.
#[derive(Debug, Default)]
pub struct Groups {
    /// The groups that can be understood, by name.
    pub groups: Vec<Group>,
    /// The ranges.
    pub ranges: Ranges,
    /// What cannot be understood, or contradicts itself. The groups that it is about stay as they are.
    pub trouble: Vec<Quarantined>,
}

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its tag.
    pub tag: TagName,
    /// The revision of the tag's own row.
    pub revision: Revision,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it belongs to.
    pub environment: Option<String>,
    /// When it may go.
    pub expires: Option<Timestamp>,
    /// What it says.
    pub spec: Spec,
    /// The networks that its document names for all members.
    pub networks: Value,
    /// Whether members that are not what its tag and their hosts say by now are replaced (`drift: replace`), where their hosts say nothing of that.
    pub renews: bool,
    /// What is remembered of it, with what was found since.
    pub state: State,
    /// The same as it stands in the database.
    pub stood: Option<State>,
    /// Who has which slot.
    pub members: BTreeMap<u32, Member>,
    /// Tags that its members are to be in, and that are not there.
    pub missing: Vec<TagName>,
    /// Why it is paused.
    pub paused: Option<String>,
}

/// Who has a slot.
#[derive(Clone, Debug)]
pub struct Member {
    /// The host, by its name now.
    pub host: HostName,
    /// Where it is in its life; `None`: it was deleted.
    pub state: Option<Lifecycle>,
    /// The revision of its row.
    pub revision: Revision,
    /// Why it drains, if it is to be destroyed.
    pub wish: Option<Wish>,
    /// Its box, rack and site, as far as they are known.
    pub lies: [Option<String>; 3],
    /// Whether its host is deleted, and its machine gone.
    pub gone: bool,
    /// Whether its host is deleted, and was never seen in another state than `requested`, nor with a room: nothing was made of it, unless
    /// somebody else saw to that.
    pub unmade: bool,
    /// Whether it still has its room: what is placed anew must have given that back.
    pub promised: bool,
    /// Who reports it dead.
    pub reports: BTreeSet<Namespace>,
    /// Why it is paused.
    pub paused: Option<String>,
    /// What it says.
    pub document: Document,
}

impl Groups {
    /// Reads a view. Costs time in proportion to the hosts where there is a group, and nothing to speak of where there is none.
    #[must_use]
    pub fn read(view: &View) -> Self {
        let mut this = Self::default();
        let mut found = Vec::new();
        for tag in view.tags_in(shoal_machine::NAMESPACE) {
            let Some(said) = tag.document.field(GROUP) else { continue };
            match Spec::read(said).and_then(|spec| Group::new(view, tag, spec)) {
                Ok(group) => found.push(group),
                Err(why) => this.left_out(
                    tag.name.as_str(),
                    format!("its `{GROUP}` cannot be understood: {why}"),
                    tag.revision,
                ),
            }
        }
        this.ranges(view);
        if found.is_empty() {
            // Where nobody draws from them, they may be something else.
            this.trouble.retain(|one| !one.what.starts_with("ranges/"));
            return this;
        }
        let ids: HashMap<&HostId, &Host> = view.hosts().map(|host| (&host.id, host)).collect();
        let mut says: BTreeMap<String, Vec<(u32, &Host)>> = BTreeMap::new();
        for host in view.hosts().filter(|host| host.state != Lifecycle::Retired) {
            if let Some((group, slot)) = said(host) {
                says.entry(group).or_default().push((slot, host));
            }
        }
        for mut group in found {
            let mut own = says.remove(group.tag.as_str()).unwrap_or_default();
            own.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
            this.members(view, &mut group, &ids, own);
            this.holdings(&group);
            // A row that is too large is refused, and all that is chosen with it.
            if group.state.octets() > FULL && group.state.written() > FULL {
                let why = format!("what is remembered of its {} members fills a row", group.members.len());
                this.left_out(group.tag.as_str(), why, group.revision);
                continue;
            }
            this.groups.push(group);
        }
        this.trouble.sort_by(|a, b| (a.since, &a.what).cmp(&(b.since, &b.what)));
        this
    }

    fn left_out(&mut self, what: &str, why: String, since: Revision) {
        self.trouble.push(Quarantined { what: what.to_owned(), why, since });
    }

    fn ranges(&mut self, view: &View) {
        for tag in view.tags_in(RANGES) {
            let pool = tag.document.to::<Pool>().map_err(|e| e.to_string()).and_then(Pool::checked);
            if let Err(why) = &pool {
                self.left_out(tag.name.as_str(), format!("it is no range: {why}"), tag.revision);
            }
            let mut range = Range::new(Some(tag.revision), pool, Holdings::default());
            if let Some(fact) = place::fact(view.facts_about(tag.name.as_str())) {
                match fact.document.to::<Holdings>() {
                    Ok(holdings) => range = Range::new(range.revision, range.pool, holdings),
                    Err(why) => {
                        let what =
                            format!("who holds what of it cannot be understood: {why}; mend that fact");
                        self.left_out(tag.name.as_str(), what, fact.revision);
                        range.broken = Some(why.to_string());
                    }
                }
            }
            self.ranges.0.insert(tag.name.key().to_owned(), range);
        }
        for (name, why) in self.ranges.part() {
            let since = self.ranges.0.get(&name).and_then(|range| range.revision).unwrap_or(Revision(0));
            self.left_out(&format!("{RANGES}/{name}"), why, since);
        }
    }

    fn members(
        &mut self,
        view: &View,
        group: &mut Group,
        ids: &HashMap<&HostId, &Host>,
        says: Vec<(u32, &Host)>,
    ) {
        // Looked for only where a host is deleted.
        let mut gone: Option<BTreeSet<HostId>> = None;
        for (number, slot) in &mut group.state.slots {
            let is = match &slot.id {
                Some(id) => ids.get(id).copied(),
                None => view.host(&called(view, slot.host.as_str())),
            };
            match is {
                Some(host) => {
                    (slot.id, slot.host, slot.gone) = (Some(host.id.clone()), host.name.clone(), false);
                    slot.fresh &= host.state == Lifecycle::Requested;
                    let made = !matches!(host.state, Lifecycle::Requested | Lifecycle::Retired);
                    if slot.room.is_none() && made && !group.spec.slots.disks.is_empty() {
                        slot.room = place::room(host, view.facts(host.name.as_str()));
                    }
                }
                None => {
                    let gone = gone.get_or_insert_with(|| said_gone(view));
                    slot.gone |= slot.id.as_ref().is_some_and(|id| gone.contains(id));
                }
            }
            group.members.insert(*number, Member::new(view, slot, is));
        }
        let known: BTreeSet<HostId> = group.state.slots.values().filter_map(|slot| slot.id.clone()).collect();
        for (number, host) in says.into_iter().filter(|(_, host)| !known.contains(&host.id)) {
            if let Some(other) = group.state.slots.get(&number) {
                let why =
                    format!("it says that it has slot {number} of {}, which {} has", group.tag, other.host);
                self.left_out(host.name.as_str(), why, host.revision);
                continue;
            }
            let sites = group.spec.sites();
            let stands = Member::lies(view, host)[2].clone().filter(|site| sites.contains_key(site.as_str()));
            let slot = Slot {
                host: host.name.clone(),
                id: Some(host.id.clone()),
                site: stands,
                failed: None,
                gone: false,
                fresh: false,
                room: None,
                before: Vec::new(),
            };
            group.members.insert(number, Member::new(view, &slot, Some(host)));
            group.state.slots.insert(number, slot);
        }
    }

    /// What members have of ranges by their own documents.
    fn holdings(&mut self, group: &Group) {
        let lives = |member: &&Member| member.state.is_some_and(|state| state != Lifecycle::Retired);
        let slots = &group.spec.slots;
        for (number, member) in group.members.iter().filter(|(_, member)| lives(member)) {
            let site = group.state.slots.get(number).and_then(|slot| slot.site.as_deref());
            let drawn = slots.addresses.keys();
            let drawn = drawn.filter_map(|field| Some((field, &group.spec.range_of(field, site)?.range)));
            for (field, range) in slots.ids.iter().chain(drawn) {
                let what = match member.document.field(field) {
                    // An address in the words in which ranges have it.
                    Some(Value::String(text)) => text.parse::<IpAddr>().map_or(text, |ip| ip.to_string()),
                    Some(Value::Number(number)) => number.to_string(),
                    _ => continue,
                };
                let by = Held {
                    group: group.tag.clone(),
                    slot: *number,
                    field: field.clone(),
                    host: member.host.clone(),
                };
                if let Err(why) = self.ranges.found(range, &what, &by) {
                    self.left_out(member.host.as_str(), format!("its {field}: {why}"), member.revision);
                }
            }
        }
    }
}

impl Group {
    fn new(view: &View, tag: &Tag, spec: Spec) -> Result<Self, String> {
        if !spec.slots.disks.is_empty() {
            Volume::new(tag.name.key(), u32::MAX)?;
        }
        if spec.replace.quarantine.is_some() {
            spec.outlasts(grace(tag)?)?;
        }
        let fact = place::fact(view.facts_about(tag.name.as_str()));
        let stood = fact.map(|fact| fact.document.to::<State>()).transpose();
        let stood =
            stood.map_err(|e| format!("what is remembered of it: {e}; mend facts/placement/{}", tag.name))?;
        let missing = spec.tags.iter().filter(|tag| view.tag(tag).is_none()).cloned().collect();
        Ok(Self {
            tag: tag.name.clone(),
            revision: tag.revision,
            owner: tag.owner.clone(),
            environment: tag.environment.clone(),
            expires: tag.expires,
            networks: tag.document.field("networks").unwrap_or_default(),
            renews: tag.document.field(DRIFT).is_some_and(|drift| drift == json!(Drift::Replace)),
            state: stood.clone().unwrap_or_default(),
            stood,
            members: BTreeMap::new(),
            missing,
            paused: paused(view, &format!("tag/{}", tag.name)),
            spec,
        })
    }
}

impl Member {
    fn new(view: &View, slot: &Slot, host: Option<&Host>) -> Self {
        let Some(host) = host else {
            return Self {
                host: slot.host.clone(),
                state: None,
                revision: Revision(0),
                wish: None,
                lies: [None, None, None],
                gone: slot.gone,
                unmade: slot.fresh && !has_room(view, slot),
                promised: true,
                reports: BTreeSet::new(),
                paused: None,
                document: Document::empty(),
            };
        };
        let facts = view.facts(host.name.as_str());
        let dead = |fact: &&shoal_core::Fact| {
            fact.namespace.as_str() != place::NAMESPACE && fact.document.raw(HEALTHY) == Some("false")
        };
        Self {
            host: host.name.clone(),
            state: Some(host.state),
            revision: host.revision,
            wish: Life::of(host).ok().and_then(|life| life.wish),
            lies: Self::lies(view, host),
            gone: false,
            unmade: false,
            promised: promised(view, host),
            reports: facts.iter().filter(dead).map(|fact| fact.namespace.clone()).collect(),
            paused: paused(view, &format!("host/{}", host.name)),
            document: host.document.clone(),
        }
    }

    fn lies(view: &View, host: &Host) -> [Option<String>; 3] {
        let Some(room) = place::room(host, view.facts(host.name.as_str())) else { return [None, None, None] };
        let room = called(view, &room);
        let label = |name: &str| view.host(&room)?.text(name).map(Cow::into_owned);
        let (rack, site) = (label("rack"), label("site"));
        [Some(room), rack, site]
    }

    /// Whether it serves, as far as anybody knows.
    pub(crate) fn is_well(&self, sources: u32) -> bool {
        self.state == Some(Lifecycle::Active) && !self.is_reported(sources)
    }

    /// Whether enough report it dead.
    pub(crate) fn is_reported(&self, sources: u32) -> bool {
        u32::try_from(self.reports.len()).unwrap_or(u32::MAX) >= sources
    }
}

/// How long whoever makes machines waits before it destroys one, as the tag says.
fn grace(tag: &Tag) -> Result<Duration, String> {
    let own: shoal_machine::Spec = tag.document.to().map_err(|e| e.to_string())?;
    let care = Care::new(&own).map_err(|e| e.to_string())?;
    Ok(Duration::from_millis(u64::try_from(care.grace).unwrap_or_default()))
}

/// Which slot of which group a host says that it has.
fn said(host: &Host) -> Option<(String, u32)> {
    #[derive(Deserialize)]
    struct Says {
        group: String,
        slot: u32,
    }
    let says: Says = serde_json::from_str(host.under(place::NAMESPACE)?).ok()?;
    Some((says.group, says.slot))
}

/// The machines of which whoever made them says that they are gone, though their hosts are not there to say so.
fn said_gone(view: &View) -> BTreeSet<HostId> {
    let facts = view.hosts().flat_map(|host| view.facts(host.name.as_str()));
    let made = facts.filter(|fact| fact.namespace.as_str() == shoal_machine::NAMESPACE);
    let gone = made.filter_map(|fact| fact.document.field(place::GONE));
    gone.filter_map(|gone| serde_json::from_value::<BTreeSet<HostId>>(gone).ok()).flatten().collect()
}

/// Whether some room has promised something to a host that is deleted: to its id, or to its name. What a room says that cannot be
/// understood may be that.
fn has_room(view: &View, slot: &Slot) -> bool {
    if place::given(view.facts_about(slot.host.as_str())).is_some() {
        return true;
    }
    let mut rooms = view.hosts().filter_map(|host| place::fact(view.facts(host.name.as_str())));
    rooms.any(|fact| {
        let holds = fact.document.field("holds").unwrap_or_default();
        let ids = fact.document.field("ids").unwrap_or_default();
        let (Some(holds), Some(ids)) = (named(&holds), named(&ids)) else { return true };
        let mut names = holds.keys().filter_map(|key| key.split('#').next());
        let is = |id: &Value| slot.id.as_ref().is_some_and(|own| id.as_str() == Some(own.0.as_str()));
        names.any(|name| name == slot.host.as_str()) || ids.values().any(is)
    })
}

/// A map, empty where nothing stands; `None`: it is something else.
fn named(value: &Value) -> Option<Cow<'_, serde_json::Map<String, Value>>> {
    match value {
        Value::Object(map) => Some(Cow::Borrowed(map)),
        Value::Null => Some(Cow::Owned(serde_json::Map::new())),
        _ => None,
    }
}

/// Whether a room has promised something to this very host.
fn promised(view: &View, host: &Host) -> bool {
    let Some(room) = place::given(view.facts(host.name.as_str())) else { return false };
    let Some(fact) = place::fact(view.facts(&called(view, &room))) else { return false };
    let ids: BTreeMap<String, HostId> =
        fact.document.field("ids").and_then(|ids| serde_json::from_value(ids).ok()).unwrap_or_default();
    let holds = fact.document.field("holds").is_some_and(|holds| holds.get(host.name.as_str()).is_some());
    ids.values().any(|id| *id == host.id) || holds && !ids.contains_key(host.name.as_str())
}

fn paused(view: &View, scope: &str) -> Option<String> {
    let key: Key = format!("pauses/{scope}").parse().ok()?;
    let row = view.row(&key)?;
    let why = row.text("why").map(Cow::into_owned).filter(|why| !why.is_empty());
    Some(why.map_or_else(|| scope.to_owned(), |why| format!("{scope}: {why}")))
}

/// What the host is called now that had this name.
pub(crate) fn called(view: &View, name: &str) -> String {
    if view.host(name).is_some() {
        return name.to_owned();
    }
    let Ok(host) = name.parse::<HostName>() else { return name.to_owned() };
    let next = |key: &Key| view.tombstone(key)?.moved.clone();
    let last = std::iter::successors(Some(Key::host(&host)), next).take(RENAMES).last();
    let now = last.and_then(|key| Some(key.as_str().strip_prefix("hosts/")?.to_owned()));
    now.unwrap_or_else(|| name.to_owned())
}
