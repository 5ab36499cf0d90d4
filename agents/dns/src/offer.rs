//! What one source offers: its records, name by name, before it is known who else has something to say there.
//!
//! The work is proportional to the source. The data of a record is not looked at until its name is decided about;
//! owner names are, because they say which items the source feeds. What cannot be placed under any name is a
//! [`Fault`], told where the zone itself stands, so that it is reported and harms nobody.

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;
use shoal_agent::{Blocked, Host, Source, pattern};

use crate::name::{self, Zone};
use crate::pattern::{As, fill};
use crate::rdata::{self, Rdata, Rtype};
use crate::record::Key;
use crate::reverse::{self, Place};
use crate::route::{Alias, Route, Routing};
use crate::spec::{MAX_TTL, MemberRecord, ReverseZones, Spec};

/// One record that a source wants.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    pub(crate) key: Key,
    pub(crate) zone: &'a Zone,
    pub(crate) rtype: Rtype,
    pub(crate) ttl: u32,
    pub(crate) data: Data,
    pub(crate) field: Field<'a>,
    pub(crate) routing: Option<Box<Routing>>,
}

impl Offer<'_> {
    /// What it says.
    ///
    /// # Errors
    /// Text that is no data of its type.
    pub(crate) fn rdata(&self) -> Result<Rdata, String> {
        match &self.data {
            Data::Text(text) => rdata::parse(self.rtype, text, self.zone),
            Data::Address(ip) => Ok(rdata::address(*ip)),
            Data::Alias => Ok(Rdata { wire: Vec::new(), text: String::new() }),
        }
    }
}

/// What a record says beside its data; nothing, where it says nothing of the kind.
///
/// # Errors
/// What cannot stand together.
fn routing(
    (alias, route, health): (Option<Alias>, Option<&Route>, Option<String>),
    set: Option<String>,
    has_data: bool,
    zone: &Zone,
) -> Result<Option<Box<Routing>>, String> {
    let alias = match alias {
        Some(_) if has_data => return Err("it has data and is an alias; drop one".to_owned()),
        None if !has_data => return Err("it has neither data nor an alias".to_owned()),
        Some(Alias { name, zone: None, evaluate }) => {
            let owner = name::owner(&name, zone).map_err(|why| format!("alias.name: {why}"))?;
            Some(Alias { name: format!("{}.", Key::new(zone, &owner).name()), zone: None, evaluate })
        }
        Some(Alias { name, zone: other, evaluate }) => {
            let name = format!("{}.", name.trim_end_matches('.').to_ascii_lowercase());
            Some(Alias { name, zone: other, evaluate })
        }
        None => None,
    };
    let policy = match (route, &set) {
        (Some(route), Some(set)) => Some(route.policy(set).map_err(|why| format!("route: {why}"))?),
        (Some(_), None) => {
            return Err(
                "route.set is missing: what tells this set from the others of its name and type".to_owned()
            );
        }
        (None, _) => None,
    };
    if policy.is_none() && alias.is_none() && health.is_none() {
        return Ok(None);
    }
    Ok(Some(Box::new(Routing { set: set.filter(|_| policy.is_some()), policy, health, alias })))
}

/// The data of a record that is offered.
#[derive(Debug)]
pub(crate) enum Data {
    /// As a zone file writes it, relative to the zone.
    Text(String),
    /// Of the type that the address has.
    Address(IpAddr),
    /// None: the set is an alias.
    Alias,
}

/// Which part of the tag or the host says so. Put into words only where somebody is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    /// A field of the tag, or what it makes of a host.
    Named(&'static str),
    /// One of its static records.
    Static(usize),
    /// One of the aliases.
    Alias(usize),
    /// A member's record, by label.
    Record(&'a str),
    /// The name of an address.
    Reverse(IpAddr),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Static(at) => write!(f, "static[{at}]"),
            Self::Alias(at) => write!(f, "aliases[{at}]"),
            Self::Record(label) => write!(f, "records.{label}"),
            Self::Reverse(ip) => write!(f, "reverse ({ip})"),
        }
    }
}

/// Something of a source that cannot be a record.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Where it is told.
    pub(crate) key: Key,
    pub(crate) why: String,
}

/// What a source offers.
#[derive(Debug, Default)]
pub(crate) struct Offers<'a> {
    pub(crate) records: Vec<Offer<'a>>,
    pub(crate) faults: Vec<Fault>,
}

impl<'a> Offers<'a> {
    /// All that a source offers, or only what it offers under one name.
    ///
    /// # Errors
    /// The tag does not say which zone it is or feeds.
    pub(crate) fn of(from: &Source<'a, Spec>, only: Option<&Key>) -> Result<Self, Blocked> {
        let mut offers = Self::default();
        let zone = from.spec.feeds(from.tag.key()).map_err(|why| Blocked::new(from.name(), why))?;
        let Some((zone, reverse)) = zone else { return Ok(offers) };
        match from.host {
            None => offers.tag(from.spec, (zone, reverse), only),
            Some(host) => {
                Member { spec: from.spec, zone, reverse, host, only, offers: &mut offers }.all();
            }
        }
        if let Some(only) = only {
            offers.records.retain(|offer| offer.key == *only);
            offers.faults.retain(|fault| fault.key == *only);
        }
        Ok(offers)
    }

    /// What the tag itself offers: the start of the zone, and its static records.
    fn tag(&mut self, spec: &'a Spec, (zone, reverse): (&'a Zone, &ReverseZones), only: Option<&Key>) {
        let apex = Key::apex(zone);
        if only.is_none_or(|key| *key == apex) {
            self.apex(spec, (zone, reverse), &apex);
        }
        let all = 0..spec.statics.len();
        let some = only.map(|key| spec.statics_of(key.owner(), zone));
        let chosen: Vec<usize> = some.map_or_else(|| all.collect(), <[usize]>::to_vec);
        for at in chosen {
            let record = &spec.statics[at];
            // Unplaceable ones are told by `apex`.
            let Ok(rtype) = record.rtype.plain() else { continue };
            let Ok(owner) = name::owner(&record.name, zone) else { continue };
            let key = Key::new(zone, &owner);
            let said = (record.alias.clone(), record.route.as_ref(), record.health.clone());
            let set = record.route.as_ref().and_then(|route| route.set.clone());
            let routing = match routing(said, set, !record.data.each().is_empty(), zone) {
                Ok(routing) => routing,
                Err(why) => {
                    self.fault(&key, format!("static[{at}]: {why}"));
                    continue;
                }
            };
            let ttl = record.ttl.unwrap_or_else(|| spec.ttl());
            self.add(
                Offer { key, zone, rtype, ttl, data: Data::Alias, field: Field::Static(at), routing },
                record.data.each(),
            );
        }
    }

    /// One record for each of these data, or the alias that it is.
    fn add(&mut self, offer: Offer<'a>, data: &[String]) {
        for data in data {
            let (key, routing, data) = (offer.key.clone(), offer.routing.clone(), Data::Text(data.clone()));
            self.records.push(Offer { key, routing, data, ..offer });
        }
        if data.is_empty() {
            self.records.push(Offer { ttl: 0, ..offer });
        }
    }

    fn apex(&mut self, spec: &'a Spec, (zone, reverse): (&'a Zone, &ReverseZones), apex: &Key) {
        if let Some(soa) = &spec.soa {
            let mut add = |rtype, data: &str, field| {
                let own = soa.ttl.filter(|_| rtype == Rtype::SOA);
                self.records.push(Offer {
                    key: apex.clone(),
                    zone,
                    rtype,
                    ttl: own.map_or_else(|| spec.ttl(), |ttl| ttl.min(MAX_TTL)),
                    data: Data::Text(data.to_owned()),
                    field: Field::Named(field),
                    routing: None,
                });
            };
            add(Rtype::SOA, &soa.data(), "soa");
            if spec.ns.is_empty() {
                add(Rtype::NS, &soa.primary, "soa.primary");
            }
            for ns in &spec.ns {
                add(Rtype::NS, ns, "ns");
            }
        } else if !spec.ns.is_empty() {
            self.fault(
                apex,
                "ns belongs to a tag with soa; name servers of a name below are static records".to_owned(),
            );
        }
        for (at, record) in spec.statics.iter().enumerate() {
            if let Err(why) = record.rtype.plain() {
                self.fault(apex, format!("static[{at}]: {why}"));
            } else if let Err(why) = name::owner(&record.name, zone) {
                self.fault(apex, format!("static[{at}].name: {why}"));
            }
        }
        for why in &reverse.wrong {
            // A reverse zone without members may have any name.
            if !spec.reverse.is_empty() || !spec.holds.is_empty() {
                self.fault(apex, format!("reverse: {why}"));
            }
        }
    }

    fn fault(&mut self, key: &Key, why: String) {
        self.faults.push(Fault { key: key.clone(), why });
    }
}

/// The fields of a host that hold its addresses, where a tag says nothing of them.
const ADDRESS_FIELDS: [&str; 2] = ["address", "address6"];

/// What a member offers.
struct Member<'a, 'o> {
    spec: &'a Spec,
    zone: &'a Zone,
    reverse: &'a ReverseZones,
    host: &'a Host,
    /// The one name that is asked about; none: all.
    only: Option<&'o Key>,
    offers: &'o mut Offers<'a>,
}

impl<'a> Member<'a, '_> {
    fn all(&mut self) {
        if self.spec.omit {
            return;
        }
        if self.zone.is_reverse() {
            let target = self.reverse_target();
            let apex = Key::apex(self.zone);
            for ip in self.addresses(&apex) {
                self.pointer(ip, &target, &apex);
            }
            return;
        }
        let own = self.own_name();
        let target = own.as_ref().map_or_else(|| self.host.name.to_string(), Key::name) + ".";
        if let Some(own) = &own {
            for ip in self.addresses(own) {
                let rtype = if ip.is_ipv4() { Rtype::A } else { Rtype::AAAA };
                self.record(own, rtype, self.spec.ttl(), || Data::Address(ip), Field::Named("addresses"));
                self.pointer(ip, &target, own);
            }
        }
        // In a tag that only feeds the zone, what the host says of itself belongs to the zone's own tag.
        let feeder = self.spec.soa.is_none();
        let own_aliases = feeder && pattern::field(self.host, "dns.aliases").is_some();
        for (at, alias) in self.spec.aliases.iter().enumerate().filter(|_| !own_aliases) {
            if let Some(key) = self.owner(alias, Field::Alias(at)) {
                let data = || Data::Text(target.clone());
                self.record(&key, Rtype::CNAME, self.spec.ttl(), data, Field::Alias(at));
            }
        }
        let own_records = feeder.then(|| pattern::field(self.host, "dns.records")).flatten();
        for (label, record) in &self.spec.records {
            if own_records.as_ref().is_some_and(|own| own.get(label).is_some_and(|r| r.get("type").is_some()))
            {
                continue;
            }
            self.further(label, record, own.as_ref());
        }
    }

    /// The name its addresses stand under.
    fn own_name(&mut self) -> Option<Key> {
        match &self.spec.name {
            Some(pattern) => self.owner(pattern, "name"),
            None => match name::within(self.host.name.as_str(), self.zone)? {
                "" => Some(Key::apex(self.zone)),
                owner => Some(Key::new(self.zone, owner)),
            },
        }
    }

    /// What its addresses point back at, in a reverse zone: a complete name.
    fn reverse_target(&self) -> String {
        let said =
            self.spec.name.as_ref().and_then(|p| fill(p, self.host, self.zone, As::Plain).ok().flatten());
        let name = said.filter(|name| name.trim_end_matches('.').contains('.'));
        format!("{}.", name.as_deref().unwrap_or(self.host.name.as_str()).trim_end_matches('.'))
    }

    /// Its addresses; bad ones are told at `tell`.
    fn addresses(&mut self, tell: &Key) -> Vec<IpAddr> {
        let mut found = Vec::new();
        let Some(said) = &self.spec.addresses else {
            // As most have it: both in one go.
            let [four, six] = self.host.document.raws(ADDRESS_FIELDS);
            for (field, raw) in ADDRESS_FIELDS.into_iter().zip([four, six]) {
                match raw.map(|raw| (raw, plain_text(raw))) {
                    None => {}
                    Some((_, Some(text))) => self.address(field, tell, address_of(text), &mut found),
                    Some((raw, None)) => {
                        self.address_values(field, tell, serde_json::from_str(raw).ok(), &mut found);
                    }
                }
            }
            return found;
        };
        for field in said {
            self.address_values(field, tell, pattern::field(self.host, field), &mut found);
        }
        found
    }

    fn address_values(&mut self, field: &str, tell: &Key, value: Option<Value>, found: &mut Vec<IpAddr>) {
        match value {
            None | Some(Value::Null) => {}
            Some(Value::Array(values)) => {
                values.iter().for_each(|value| self.address(field, tell, address(value), found));
            }
            Some(value) => self.address(field, tell, address(&value), found),
        }
    }

    fn address(&mut self, field: &str, tell: &Key, ip: Result<IpAddr, String>, found: &mut Vec<IpAddr>) {
        match ip {
            Ok(ip) if found.contains(&ip) => {}
            Ok(ip) => found.push(ip),
            Err(why) => self.offers.fault(tell, format!("the host's field {field}: {why}")),
        }
    }

    /// The PTR record of an address. That it cannot be said where it belongs is told at `tell`.
    fn pointer(&mut self, ip: IpAddr, target: &str, tell: &Key) {
        let ReverseZones { zones, wrong } = self.reverse;
        let (zone, owner) = match reverse::place(ip, zones) {
            Place::At(zone, owner) => (zone, owner),
            Place::Unclear(_, why) => {
                return self.offers.fault(tell, format!("reverse ({ip}): {why}"));
            }
            Place::Nowhere => {
                // Members of a reverse zone are there for nothing else.
                if let Some(why) = wrong.first().filter(|_| self.zone.is_reverse()) {
                    self.offers.fault(tell, format!("reverse ({ip}): {why}"));
                }
                return;
            }
        };
        if self.only.is_some_and(|only| (only.zone(), only.owner()) != (zone.as_str(), &*owner)) {
            return;
        }
        self.offers.records.push(Offer {
            key: Key::new(zone, &owner),
            zone,
            rtype: Rtype::PTR,
            ttl: self.spec.ttl(),
            data: Data::Text(target.to_owned()),
            field: Field::Reverse(ip),
            routing: None,
        });
    }

    fn further(&mut self, label: &'a str, record: &MemberRecord, own: Option<&Key>) {
        let field = Field::Record(label);
        let apex = Key::apex(self.zone);
        let rtype = match record.rtype.plain() {
            Ok(rtype) => rtype,
            Err(why) => return self.offers.fault(&apex, format!("{field}: {why}")),
        };
        let key = match &record.name {
            Some(pattern) => self.owner(pattern, format_args!("{field}.name")),
            None => own.cloned(),
        };
        let Some(key) = key else { return };
        let routing = match self.routing(record) {
            Ok(routing) => routing,
            Err(why) => return self.offers.fault(&key, format!("{field}: {why}")),
        };
        let mut filled = Vec::new();
        for pattern in record.data.each() {
            let verbatim = rtype == Rtype::TXT && !pattern.trim_start().starts_with(['"', '\\']);
            let how = if verbatim { As::Plain } else { As::Escaped };
            match fill(pattern, self.host, self.zone, how) {
                Ok(Some(data)) => filled.push(data),
                Ok(None) => {}
                Err(why) => self.offers.fault(&key, format!("{field}.data: {why}")),
            }
        }
        let alias = routing.as_ref().is_some_and(|routing| routing.alias.is_some());
        if self.only.is_some_and(|only| *only != key) || filled.is_empty() && !alias {
            return;
        }
        let ttl = record.ttl.unwrap_or_else(|| self.spec.ttl());
        self.offers
            .add(Offer { key, zone: self.zone, rtype, ttl, data: Data::Alias, field, routing }, &filled);
    }

    /// What a record of this member says beside its data, patterns filled.
    fn routing(&self, record: &MemberRecord) -> Result<Option<Box<Routing>>, String> {
        if record.route.is_none() && record.alias.is_none() && record.health.is_none() {
            return if record.data.each().is_empty() {
                Err("it has neither data nor an alias".to_owned())
            } else {
                Ok(None)
            };
        }
        let fill = |pattern: &str, what: &str| {
            let filled =
                fill(pattern, self.host, self.zone, As::Plain).map_err(|why| format!("{what}: {why}"))?;
            filled.ok_or_else(|| format!("{what}: the host says nothing of what {pattern:?} names"))
        };
        let set = match &record.route {
            Some(route) => Some(fill(route.set.as_deref().unwrap_or("{name}"), "route.set")?),
            None => None,
        };
        let health = record.health.as_deref().map(|health| fill(health, "health")).transpose()?;
        let alias = match &record.alias {
            Some(alias) => Some(Alias { name: fill(&alias.name, "alias.name")?, ..alias.clone() }),
            None => None,
        };
        routing((alias, record.route.as_ref(), health), set, !record.data.each().is_empty(), self.zone)
    }

    /// The item of a name pattern; what is wrong with it is told at the zone itself.
    fn owner(&mut self, pattern: &str, field: impl fmt::Display) -> Option<Key> {
        let filled = match fill(pattern, self.host, self.zone, As::Plain) {
            Ok(filled) => filled?,
            Err(why) => {
                self.offers.fault(&Key::apex(self.zone), format!("{field}: {why}"));
                return None;
            }
        };
        match name::owner(&filled, self.zone) {
            Ok(owner) => Some(Key::new(self.zone, &owner)),
            Err(why) => {
                self.offers.fault(&Key::apex(self.zone), format!("{field}: {why}"));
                None
            }
        }
    }

    fn record(&mut self, key: &Key, rtype: Rtype, ttl: u32, data: impl FnOnce() -> Data, field: Field<'a>) {
        if self.only.is_some_and(|only| only != key) {
            return;
        }
        let (key, zone) = (key.clone(), self.zone);
        self.offers.records.push(Offer { key, zone, rtype, ttl, data: data(), field, routing: None });
    }
}

/// What is between the quotes of JSON text that is a string without escapes.
fn plain_text(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"').filter(|text| !text.contains('\\'))
}

/// An address that a host can have.
fn address(value: &Value) -> Result<IpAddr, String> {
    address_of(value.as_str().ok_or_else(|| format!("{value} is not text"))?)
}

fn address_of(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.trim().parse().map_err(|_| format!("{text:?} is not an IP address"))?;
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || mapped || broadcast {
        return Err(format!("{ip} is not an address that a host can have"));
    }
    Ok(ip)
}
