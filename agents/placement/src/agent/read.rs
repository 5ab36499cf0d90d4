//! What stands in the database, as a fleet.
//!
//! What cannot be understood is not taken for absent: a box whose field `box` is wrong takes nothing new, and what it holds counts; nor does
//! one where a machine stands that cannot be counted. Where what a box has given out cannot be read, nothing is chosen at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shoal_core::{Document, Host, HostId, HostName, Key, Lifecycle, MAX_ROW, Quarantined, Revision, View};
use shoal_machine::place;
pub use shoal_machine::place::{BOX, NAMESPACE, SIZE};

use super::boxes;
use crate::choose::{Fleet, Invalid, Layout, Named, Pick, Policy, Request, Room, Rule, State};

/// What the fact about a machine says ([`Fact`](super::write::Fact), or why it has no room). A machine that is a box as well has both in one.
const OF_MACHINE: [&str; 7] = [BOX, "points", "fallback", "over", "not", "together", "no_room"];

/// So large a fact about a room may become, in octets; then the room takes nothing new. What is left up to [`MAX_ROW`] is for the last one.
const FULL: usize = MAX_ROW / 16 * 15;

/// How many renames of a host are followed.
const RENAMES: usize = 64;

/// What a host says of its place, under the namespace's name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rules {
    /// The group whose layout it keeps.
    group: Option<String>,
    /// Which slot of the group it has. Whoever chooses for groups reads it.
    slot: Option<u32>,
    /// Where a machine stands that was there before placement was: its box or zone.
    on: Option<String>,
    /// What it must be near.
    near: BTreeSet<Rule>,
    /// What it must be apart from.
    apart: BTreeSet<Rule>,
    /// One of these boxes and zones.
    only: BTreeSet<Pick>,
    /// None of these.
    except: BTreeSet<Pick>,
    /// How its group lies.
    layout: Option<Layout>,
}

/// The fact about a box: what it has given out, by machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Promised {
    /// What each machine was promised, by the name that its host had then; where another has that name here, with its id behind.
    pub holds: BTreeMap<String, Named>,
    /// The ids of those hosts: a name may be changed, and given anew.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ids: BTreeMap<String, HostId>,
    /// In which life of the database that was last written.
    pub epoch: Option<String>,
}

impl Promised {
    /// What a fact says of a box, and what it says beside that of the same host as a machine.
    fn read(fact: &Document) -> Result<(Self, Map<String, Value>), serde_json::Error> {
        let mut fields: Map<String, Value> = fact.to()?;
        let own = OF_MACHINE.iter().filter_map(|field| fields.remove_entry(*field)).collect();
        Ok((serde_json::from_value(Value::Object(fields))?, own))
    }

    /// Promises something to a host. Nobody else's promise is overwritten.
    pub(super) fn promise(&mut self, host: String, id: HostId, needs: Named) {
        let key = if self.holds.contains_key(&host) { format!("{host}#{}", id.0) } else { host };
        self.ids.insert(key.clone(), id);
        self.holds.insert(key, needs);
    }

    /// Takes a promise back.
    pub(super) fn forget(&mut self, key: &str) {
        self.holds.remove(key);
        self.ids.remove(key);
    }

    /// What is to be done about a promise to a host that is deleted.
    fn lost(&self, key: &str, room: &str) -> String {
        let id = self.ids.get(key).map(|id| format!(", `id: {}`", id.0)).unwrap_or_default();
        format!(
            "its host is deleted, and it may live: it keeps its room on {room}. If it is gone, write a host with `state: retired`{id}, \
             which gives the room back"
        )
    }

    /// The host that was promised what stands under a key; `None`: it is deleted.
    fn whose<'v>(&self, key: &str, view: &'v View, hosts: &HashMap<&HostId, &'v Host>) -> Option<&'v Host> {
        match self.ids.get(key) {
            Some(id) => hosts.get(id).copied(),
            // What was promised before ids were written down.
            None => view.host(&now(view, key)),
        }
    }
}

/// A machine that is `requested` and has a room already.
#[derive(Clone, Debug)]
pub struct Again {
    /// The room.
    pub room: String,
    /// Why it does not go there again; `None`: it does.
    pub not: Option<String>,
    /// The revision of its host.
    pub revision: Revision,
}

/// A promise to a machine that is gone.
#[derive(Clone, Debug)]
pub struct Gone {
    /// The room.
    pub room: String,
    /// Under which key the room has promised it.
    pub key: String,
    /// What its host is called now, or was when it was placed.
    pub host: HostName,
    /// The revision of its host; `None`: it is deleted, and who makes machines says that it is gone.
    pub revision: Option<Revision>,
}

/// A box or a zone in the database.
#[derive(Clone, Debug)]
pub struct Known {
    /// The revision of its host.
    pub revision: Revision,
    /// What it has given out.
    pub promised: Promised,
    /// What the fact about it says of it as a machine, where it is one, too.
    pub own: Map<String, Value>,
}

impl Known {
    /// How many octets the fact about it has, at most.
    pub(super) fn octets(&self) -> usize {
        self.fact(self.own.clone()).map_or(0, |fact| fact.to_string().len())
    }

    /// The fact about it, with this said of it as a machine.
    pub(super) fn fact(&self, own: Map<String, Value>) -> Result<Value, String> {
        let mut fact = serde_json::to_value(&self.promised).map_err(|e| e.to_string())?;
        if let Some(fields) = fact.as_object_mut() {
            fields.extend(own);
        }
        Ok(fact)
    }
}

/// What stands where, and who waits.
#[derive(Debug)]
pub struct Standing {
    /// Boxes, zones and what they hold.
    pub fleet: Fleet,
    /// Machines that wait, by name, with the revisions of their rows.
    pub waiting: Vec<(HostName, Request, Revision)>,
    /// The rooms.
    pub rooms: HashMap<String, Known>,
    /// Machines that are `requested` again and have been promised a room, by name: which room, whether it is to stay there, and the
    /// revision of the host.
    pub again: BTreeMap<HostName, Again>,
    /// Promises to machines that are gone: the machine's state is `retired`.
    pub gone: Vec<Gone>,
    /// Machines that would have no room elsewhere if their box died, with their boxes; looked for where any box may die.
    pub bare: Vec<(String, String)>,
    /// Hosts that cannot be understood.
    pub trouble: Vec<Quarantined>,
    /// Why nothing may be chosen: what is not known.
    pub blind: Option<String>,
}

impl Standing {
    /// Reads a view. Costs time in proportion to the hosts.
    ///
    /// # Errors
    /// The fleet as a whole makes no sense.
    pub fn read(view: &View, policy: Policy) -> Result<Self, Invalid> {
        let mut this = Self {
            fleet: Fleet::new(Vec::new(), policy.clone())?,
            waiting: Vec::new(),
            rooms: HashMap::new(),
            again: BTreeMap::new(),
            gone: Vec::new(),
            bare: Vec::new(),
            trouble: Vec::new(),
            blind: None,
        };
        this.broken(view);
        let mut rooms = Vec::new();
        for host in view.hosts().filter(|host| boxes::is_room(view, host)) {
            rooms.push(this.room(view, host));
        }
        this.fleet = this.index(view, rooms, &policy)?;
        this.promised(view);
        this.say_so(view);
        this.unpromised(view);
        // Without this, nothing is kept back for when a box dies.
        if policy.survive {
            this.bare = this.fleet.mend();
        }
        for host in view.hosts().filter(|host| host.state == Lifecycle::Requested) {
            if this.again.contains_key(&host.name) {
                continue;
            }
            let made = request(view, host).and_then(|request| {
                // One that makes no sense here hinders nobody else.
                this.fleet.understands(&request).map(|()| request).map_err(|why| why.to_string())
            });
            match made {
                Ok(request) => this.waiting.push((host.name.clone(), request, host.revision)),
                Err(why) => this.left_out(host, why),
            }
        }
        this.waiting.sort_by(|a, b| a.0.cmp(&b.0));
        this.trouble.sort_by(|a, b| (a.since, &a.what).cmp(&(b.since, &b.what)));
        Ok(this)
    }

    fn left_out(&mut self, host: &Host, why: String) {
        self.trouble.push(Quarantined { what: host.name.to_string(), why, since: host.revision });
    }

    /// Rows that cannot be read: a host that has promises, or promises themselves, are not taken for nothing.
    fn broken(&mut self, view: &View) {
        let facts = format!("facts/{NAMESPACE}/");
        for (key, broken) in view.broken() {
            let text = key.as_str();
            let holds =
                |host: &str| promise(view, host).is_some_and(|fact| fact.document.field("holds").is_some());
            if text.starts_with(&facts) || text.strip_prefix("hosts/").is_some_and(holds) {
                self.blind = Some(format!("the row {key} cannot be understood: {}; mend it", broken.why));
            }
        }
    }

    /// Indexes the boxes. One that makes no sense beside the others takes nothing new.
    fn index(&mut self, view: &View, mut boxes: Vec<Room>, policy: &Policy) -> Result<Fleet, Invalid> {
        for _ in 0..=boxes.len() {
            let invalid = match Fleet::new(boxes.clone(), policy.clone()) {
                Ok(fleet) => return Ok(fleet),
                Err(invalid) => invalid,
            };
            let (Invalid::Kinds(who, _) | Invalid::Large(who, ..)) = &invalid else { return Err(invalid) };
            let Some((room, host)) = boxes.iter_mut().find(|room| room.name == *who).zip(view.host(who))
            else {
                return Err(invalid);
            };
            *room = Room { labels: labels(host), ..closed(host) };
            self.left_out(
                host,
                format!("its `{BOX}` makes no sense: {invalid}; nothing new is placed there"),
            );
        }
        Fleet::new(boxes, policy.clone())
    }

    fn room(&mut self, view: &View, host: &Host) -> Room {
        let mut room = boxes::read(host).unwrap_or_else(|why| {
            self.left_out(host, format!("{why}; nothing new is placed there"));
            closed(host)
        });
        room.name = host.name.to_string();
        for (label, value) in labels(host) {
            room.labels.entry(label).or_insert(value);
        }
        room.state = match host.state {
            Lifecycle::Active => room.state,
            Lifecycle::Draining => State::Draining,
            Lifecycle::Failed | Lifecycle::Retired => State::Dead,
            Lifecycle::Requested | Lifecycle::Placed | Lifecycle::Building => State::Closed,
        };
        let promised =
            promise(view, host.name.as_str()).map(|fact| Promised::read(&fact.document)).transpose();
        let promised = promised.unwrap_or_else(|e| {
            self.blind =
                Some(format!("what {} has given out cannot be understood: {e}; mend that fact", host.name));
            None
        });
        let octets = promise(view, host.name.as_str()).map_or(0, |fact| fact.document.as_str().len());
        if octets > FULL && room.state == State::Open {
            room.state = State::Closed;
            let why = format!(
                "what it has given out fills a row ({octets} octets of {MAX_ROW}); nothing new is placed there: make another box or zone of it"
            );
            self.left_out(host, why);
        }
        let (promised, own) = promised.unwrap_or_default();
        self.rooms.insert(room.name.clone(), Known { revision: host.revision, promised, own });
        room
    }

    /// What was promised.
    fn promised(&mut self, view: &View) {
        let mut promised: Vec<(&String, &String, &Named)> = Vec::new();
        for (room, known) in &self.rooms {
            promised.extend(known.promised.holds.iter().map(|(machine, needs)| (room, machine, needs)));
        }
        promised.sort_unstable();
        let hosts: HashMap<&HostId, &Host> = match promised.is_empty() {
            true => HashMap::new(),
            false => view.hosts().map(|host| (&host.id, host)).collect(),
        };
        let mut wronged = Vec::new();
        for (room, machine, needs) in promised {
            // A machine whose host is deleted may live: it holds its room until somebody says that it is gone.
            let is = self.rooms.get(room).and_then(|known| known.promised.whose(machine, view, &hosts));
            if let Some(host) = is.filter(|host| host.state == Lifecycle::Retired) {
                self.gone.push(Gone {
                    room: room.clone(),
                    key: machine.clone(),
                    host: host.name.clone(),
                    revision: Some(host.revision),
                });
                continue;
            }
            if is.is_none()
                && self.is_gone(view, room, machine)
                && let Ok(host) = machine.split('#').next().unwrap_or_default().parse()
            {
                self.gone.push(Gone { room: room.clone(), key: machine.clone(), host, revision: None });
                continue;
            }
            if let Some(host) = is.filter(|host| host.state == Lifecycle::Requested) {
                let again =
                    Again { room: room.clone(), not: self.fleet.leaves(room), revision: host.revision };
                self.again.entry(host.name.clone()).or_insert(again);
            }
            let name = is.map_or_else(|| machine.clone(), |host| host.name.to_string());
            // Two promises of one name both count: another host may have the name by now of one that is deleted.
            let first = self.fleet.room_of(&name).map(str::to_owned);
            let other = first.is_some() || is.is_none() && view.host(&name).is_some();
            let name = if other { format!("{machine}#{room}") } else { name };
            if let (Some(host), Some(first)) = (is, first) {
                let why = format!("it was promised room on {first} and on {room}; both count");
                wronged.push(Quarantined { what: host.name.to_string(), why, since: host.revision });
            }
            let (rules, wrong) = is.map(|host| ruled(view, host)).unwrap_or_default();
            let stands = Request { name: name.clone(), needs: needs.clone(), ..rules };
            let stood = self.fleet.stands(&stands, room).map_err(|why| {
                self.fleet.shut(room);
                format!("{why}; nothing new is placed on {room}")
            });
            let known = self.rooms.get(room).filter(|_| is.is_none());
            let lost = known.map(|known| known.promised.lost(machine, room));
            if let Some(why) = stood.err().or(wrong).or(lost) {
                let what = is.map_or_else(|| machine.clone(), |host| host.name.to_string());
                wronged.push(Quarantined { what, why, since: is.map_or(Revision(0), |host| host.revision) });
            }
        }
        self.trouble.append(&mut wronged);
    }

    /// Whether who makes machines says that this one is gone, whose host is deleted: nobody else can.
    fn is_gone(&self, view: &View, room: &str, key: &str) -> bool {
        let id = self.rooms.get(room).and_then(|known| known.promised.ids.get(key));
        let made = view.facts(room).iter().find(|fact| fact.namespace.as_str() == shoal_machine::NAMESPACE);
        let gone = made.and_then(|fact| fact.document.field(place::GONE));
        let gone = gone.and_then(|gone| serde_json::from_value::<BTreeSet<HostId>>(gone).ok());
        id.zip(gone).is_some_and(|(id, gone)| gone.contains(id))
    }

    /// What says itself where it stands.
    fn say_so(&mut self, view: &View) {
        let mut says: Vec<(&Host, String)> = view
            .hosts()
            .filter(|host| lives(host))
            .filter_map(|host| Some((host, place::says(host)?)))
            .collect();
        says.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        for (host, on) in says {
            if self.fleet.room_of(host.name.as_str()).is_some() {
                continue;
            }
            let on = self.called(view, on);
            let stood =
                request(view, host).and_then(|r| self.fleet.stands(&r, &on).map_err(|why| why.to_string()));
            if let Err(why) = stood {
                let shut = self.fleet.shut(&on);
                let why = if shut { format!("{why}; nothing new is placed on {on}") } else { why };
                self.left_out(host, why);
            }
        }
    }

    /// Machines that were placed on a box that has promised them nothing: somebody deleted its host and wrote it anew, say, and what it
    /// had given out went with that. It is not empty.
    fn unpromised(&mut self, view: &View) {
        for host in view.hosts().filter(|host| lives(host)) {
            let said = place::given(view.facts(host.name.as_str()));
            let Some(room) = said.filter(|_| self.fleet.room_of(host.name.as_str()).is_none()) else {
                continue;
            };
            let room = self.called(view, room);
            if self.fleet.shut(&room) {
                let say = format!("say `{NAMESPACE}: {{on: {room}}}` of the machine, or that it is retired");
                let why = format!(
                    "it was placed on {room}, which has promised it nothing; nothing new is placed there; {say}"
                );
                self.left_out(host, why);
            }
        }
    }

    /// What the room is called now that had this name when somebody wrote it down.
    fn called(&self, view: &View, room: String) -> String {
        if self.rooms.contains_key(&room) { room } else { now(view, &room) }
    }
}

/// What the host is called now that had this name.
fn now(view: &View, machine: &str) -> String {
    let Ok(name) = machine.parse::<HostName>() else { return machine.to_owned() };
    let next = |key: &Key| view.tombstone(key)?.moved.clone();
    let last = std::iter::successors(Some(Key::host(&name)), next).take(RENAMES).last();
    let host = last.and_then(|key| Some(key.as_str().strip_prefix("hosts/")?.to_owned()));
    host.unwrap_or_else(|| machine.to_owned())
}

/// Whether a machine may be there.
fn lives(host: &Host) -> bool {
    !matches!(host.state, Lifecycle::Requested | Lifecycle::Retired)
}

fn promise<'v>(view: &'v View, host: &str) -> Option<&'v shoal_core::Fact> {
    place::fact(view.facts(host))
}

fn closed(host: &Host) -> Room {
    Room { name: host.name.to_string(), state: State::Closed, ..Room::default() }
}

fn labels(host: &Host) -> BTreeMap<String, String> {
    let label = |name: &str| Some((name.to_owned(), host.text(name)?.into_owned()));
    ["site", "rack"].into_iter().filter_map(label).collect()
}

fn request(view: &View, host: &Host) -> Result<Request, String> {
    let size = host
        .field(SIZE)
        .ok_or("it is to be placed and has no `size`: say what it needs, `size: {cpu: 2, …}`")?;
    let needs: Named = serde_json::from_value(size)
        .map_err(|e| format!("its `{SIZE}` is not resources with amounts: {e}"))?;
    match ruled(view, host) {
        (ruled, None) => Ok(Request { needs, ..ruled }),
        (_, Some(why)) => Err(why),
    }
}

/// A machine's tags and rules. Where the rules cannot be understood: what is known of it all the same, and why.
fn ruled(view: &View, host: &Host) -> (Request, Option<String>) {
    let tags = view.memberships(host.name.as_str()).into_iter().map(|(tag, _)| tag.to_string()).collect();
    let request = Request { name: host.name.to_string(), tags, ..Request::default() };
    let rules = host.field(NAMESPACE).map(serde_json::from_value::<Rules>).transpose();
    match rules.map(Option::unwrap_or_default) {
        Ok(Rules { group, near, apart, only, except, layout, slot: _, on: _ }) => {
            (Request { group, near, apart, only, except, layout, ..request }, None)
        }
        Err(e) => (request, Some(format!("its `{NAMESPACE}` cannot be understood: {e}"))),
    }
}
