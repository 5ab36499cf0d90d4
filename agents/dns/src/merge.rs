//! One name, decided: the records that all sources offer for it, merged, and the offenders left out.
//!
//! * Records of one type merge into one set, whichever tags and members they come from; equal ones count once.
//! * A CNAME beside anything else is left out: the rest is what the name would lose.
//! * A DNAME beside a delegation, or beside name servers of the zone that would be below it, is left out likewise.
//! * Of several different CNAMEs (or DNAMEs, or starts of authority) one stays: the tag's own, else the oldest host's, so
//!   that a newcomer does not take a name that is in use.
//! * TTLs that differ in one set: the smallest counts
//!   ([RFC 2181, section 5.2](https://www.rfc-editor.org/rfc/rfc2181#section-5.2)), and the difference is reported.
//!
//! * Where sets of one type are told apart by a [`Routing`], each merges for itself. All are chosen in one way: the way of whoever is first in
//!   the same order.
//!
//! Every offender is named together with whom it offends against.

use std::collections::{BTreeMap, BTreeSet};

use shoal_agent::{Blocked, Desired, Source};

use crate::name;
use crate::offer::{Field, Offer, Offers};
use crate::rdata::{Rdata, Rtype};
use crate::record::{Key, Node, RecordSet};
use crate::route::Routing;
use crate::spec::Spec;

/// A record that stands, and where it comes from.
struct Claim<'a> {
    source: &'a Source<'a, Spec>,
    field: Field<'a>,
    rtype: Rtype,
    ttl: u32,
    data: Rdata,
    routing: Option<Box<Routing>>,
}

impl<'a> Claim<'a> {
    /// What tells its set from others of the name.
    fn set(&self) -> (Rtype, Option<&str>) {
        (self.rtype, self.routing.as_ref().and_then(|routing| routing.set.as_deref()))
    }

    /// How its set is chosen among others.
    fn chosen(&self) -> Option<&'static str> {
        self.routing.as_ref().and_then(|routing| routing.policy.as_ref()).map(crate::route::Policy::kind)
    }

    /// Put into words only where somebody is told, or to order several: most names have one claim.
    fn who(&self) -> String {
        self.source.name()
    }

    /// The tag itself first, then hosts by age.
    fn rank(&self) -> (bool, &'a str, String) {
        match self.source.host {
            None => (false, "", self.source.tag.to_string()),
            Some(member) => (true, &member.id.0, self.who()),
        }
    }
}

/// What a name should be.
pub(crate) fn decide(key: &Key, from: &[Source<'_, Spec>]) -> Result<Desired<Node>, Blocked> {
    let mut left_out = Vec::new();
    let mut claims = Vec::with_capacity(from.len());
    for source in from {
        let offers = match Offers::of(source, Some(key)) {
            Ok(offers) => offers,
            Err(blocked) => {
                left_out.push(blocked);
                continue;
            }
        };
        left_out.extend(offers.faults.into_iter().map(|fault| Blocked::new(source.name(), fault.why)));
        for offer in offers.records {
            match claim(source, offer) {
                Ok(claim) => claims.push(claim),
                Err(blocked) => left_out.push(blocked),
            }
        }
    }
    claims.sort_by_cached_key(Claim::rank);
    aliases(key, &mut claims, &mut left_out);
    dnames(key, &mut claims, &mut left_out);
    ways(key, &mut claims, &mut left_out);
    let sets = sets(key, claims, &mut left_out);
    left_out.sort();
    left_out.dedup();
    Ok(if sets.is_empty() {
        Desired::nothing(left_out)
    } else {
        Desired { item: Some(Node { sets: sets.into() }), left_out }
    })
}

/// Why no server would load a zone with a record of this type at this name, whatever its data.
fn misplaced(offer: &Offer<'_>) -> Option<&'static str> {
    const DS: Rtype = Rtype(43);
    let owner = offer.key.owner();
    match offer.rtype {
        // RFC 4592, section 4.2.
        Rtype::NS if owner == "*" || owner.starts_with("*.") => {
            Some("a wildcard cannot be given to other name servers")
        }
        DS if offer.key.is_apex() => Some("it belongs to the zone above"),
        _ => None,
    }
}

fn claim<'a>(source: &'a Source<'a, Spec>, offer: Offer<'a>) -> Result<Claim<'a>, Blocked> {
    let data = match misplaced(&offer) {
        Some(why) => Err(why.to_owned()),
        None => offer.rdata(),
    };
    let told = |why| {
        let why = format!("{} ({} of {}): {why}", offer.field, offer.rtype, offer.key.name());
        Blocked::new(source.name(), why)
    };
    let data = data.map_err(told)?;
    Ok(Claim { source, field: offer.field, rtype: offer.rtype, ttl: offer.ttl, data, routing: offer.routing })
}

/// Leaves out CNAMEs beside other data.
fn aliases(key: &Key, claims: &mut Vec<Claim<'_>>, left_out: &mut Vec<Blocked>) {
    let Some(other) = claims.iter().find(|claim| claim.rtype != Rtype::CNAME) else { return };
    let (who, what) = (other.who(), format!("{} ({})", other.rtype, other.field));
    claims.retain(|claim| {
        if claim.rtype == Rtype::CNAME {
            left_out.push(Blocked {
                who: vec![claim.who(), who.clone()],
                why: format!(
                    "{}: the CNAME to {} ({}) cannot stand beside the {what} of {who}; drop one of them",
                    key.name(),
                    claim.data.text,
                    claim.field
                ),
            });
        }
        claim.rtype != Rtype::CNAME
    });
}

/// Leaves out DNAMEs beside name servers that they cannot stand beside: those of a delegation, anywhere but at the zone
/// itself ([RFC 6672, section 2.3](https://www.rfc-editor.org/rfc/rfc6672#section-2.3)), and the zone's own where they
/// would be below the DNAME, where nobody finds them. The delegation is what the name would lose.
fn dnames(key: &Key, claims: &mut Vec<Claim<'_>>, left_out: &mut Vec<Blocked>) {
    if claims.iter().all(|claim| claim.rtype != Rtype::DNAME) {
        return;
    }
    let zone = name::to_wire(key.zone()).unwrap_or_default();
    let clashes = |claim: &&Claim<'_>| {
        let below = claim.data.wire != zone && name::is_within(&claim.data.wire, &zone);
        claim.rtype == Rtype::NS && (below || !key.is_apex())
    };
    let Some(server) = claims.iter().find(clashes) else { return };
    let (who, server, field) = (server.who(), server.data.text.clone(), server.field);
    claims.retain(|claim| {
        if claim.rtype == Rtype::DNAME {
            let (at, to, from) = (key.name(), &claim.data.text, &claim.field);
            let why = if key.is_apex() {
                format!("the DNAME to {to} ({from}) would have the name server {server} ({field}) of {who} below it")
            } else {
                format!("the DNAME to {to} ({from}) cannot stand beside the delegation to {server} ({field}) of {who}")
            };
            let both = vec![claim.who(), who.clone()];
            left_out.push(Blocked { who: both, why: format!("{at}: {why}; drop one of them") });
        }
        claim.rtype != Rtype::DNAME
    });
}

/// Leaves out what would be chosen in another way than the first of its type.
fn ways(key: &Key, claims: &mut Vec<Claim<'_>>, left_out: &mut Vec<Blocked>) {
    if claims.iter().all(|claim| claim.routing.is_none()) {
        return;
    }
    let mut first: BTreeMap<Rtype, (Option<&'static str>, String)> = BTreeMap::new();
    claims.retain(|claim| {
        let (way, who) = first.entry(claim.rtype).or_insert_with(|| (claim.chosen(), claim.who()));
        if *way != claim.chosen() {
            let say = |way: Option<&str>| way.map_or_else(|| "as the only set".to_owned(), |way| format!("by {way}"));
            left_out.push(Blocked {
                who: vec![claim.who(), who.clone()],
                why: format!(
                    "{}: the {} records of {} ({}) would be chosen {}, and those of {who} are chosen {}; sets of one name and type are \
                     chosen in one way",
                    key.name(),
                    claim.rtype,
                    claim.who(),
                    claim.field,
                    say(claim.chosen()),
                    say(*way),
                ),
            });
        }
        *way == claim.chosen()
    });
}

/// Merges claims into sets.
fn sets(key: &Key, mut claims: Vec<Claim<'_>>, left_out: &mut Vec<Blocked>) -> Vec<RecordSet> {
    // In one type they stay in order of rank.
    claims.sort_by(|one, two| one.set().cmp(&two.set()));
    let mut sets = Vec::with_capacity(1);
    let mut claims = claims.into_iter().peekable();
    while let Some(first) = claims.next() {
        let rtype = first.rtype;
        let mut set = vec![first];
        while let Some(claim) =
            claims.next_if(|claim| set.first().is_some_and(|first| first.set() == claim.set()))
        {
            match set.first() {
                Some(first) if rtype.is_single() && first.data != claim.data => {
                    left_out.push(rivals(key, first, &claim));
                }
                Some(first) if first.routing != claim.routing => left_out.push(otherwise(key, first, &claim)),
                _ => set.push(claim),
            }
        }
        fit(key, rtype, &mut set, left_out);
        if !set.is_empty() {
            sets.push(merge(key, rtype, set, left_out));
        }
    }
    sets
}

/// Two that want different records where there can be one.
fn rivals(key: &Key, first: &Claim<'_>, claim: &Claim<'_>) -> Blocked {
    let (who, has) = (claim.who(), first.who());
    let why = format!(
        "{}: {who} wants the {} {} ({}), and {has} has it as {} ({}); one of them must give way",
        key.name(),
        claim.rtype,
        claim.data.text,
        claim.field,
        first.data.text,
        first.field
    );
    Blocked { who: vec![who, has], why }
}

/// Two that want one set, each with something else said about it.
fn otherwise(key: &Key, first: &Claim<'_>, claim: &Claim<'_>) -> Blocked {
    let (who, has) = (claim.who(), first.who());
    let say =
        |claim: &Claim<'_>| claim.routing.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let why = format!(
        "{}: {who} ({}) says {} of the {} set, and {has} ({}) says {}; one of them must give way",
        key.name(),
        claim.field,
        say(claim),
        claim.rtype,
        first.field,
        say(first)
    );
    Blocked { who: vec![who, has], why }
}

/// The most octets of one set, each record with its owner, type, TTL and length: what an answer has room for beside a question
/// and EDNS ([RFC 1035, section 4.2.2](https://www.rfc-editor.org/rfc/rfc1035#section-4.2.2)). BIND refuses the zone
/// for a few octets more.
const MAX_SET: usize = 64_000;
/// What a record has around its data, its owner being a pointer.
const AROUND: usize = 12;

/// Leaves out what no answer has room for: what comes later, the tag's own first, then hosts by age.
fn fit(key: &Key, rtype: Rtype, claims: &mut Vec<Claim<'_>>, left_out: &mut Vec<Blocked>) {
    let most: usize = claims.iter().map(|claim| AROUND + claim.data.wire.len()).sum();
    if most <= MAX_SET {
        return;
    }
    let mut octets = 0;
    let mut counted = BTreeSet::new();
    claims.retain(|claim| {
        let needed = AROUND + claim.data.wire.len();
        if counted.contains(&claim.data) {
            return true;
        }
        if octets + needed <= MAX_SET {
            octets += needed;
            counted.insert(claim.data.clone());
            return true;
        }
        left_out.push(Blocked::new(
            claim.who(),
            format!(
                "{} ({rtype} of {}): with this, the set has more than {MAX_SET} octets, and no answer has room for it",
                claim.field,
                key.name()
            ),
        ));
        false
    });
}

fn merge(key: &Key, rtype: Rtype, mut claims: Vec<Claim<'_>>, left_out: &mut Vec<Blocked>) -> RecordSet {
    let ttl = claims.iter().map(|claim| claim.ttl).min().unwrap_or_default();
    if let Some(high) = claims.iter().find(|claim| claim.ttl != ttl) {
        let low = claims.iter().find(|claim| claim.ttl == ttl).map(Claim::who).unwrap_or_default();
        left_out.push(Blocked {
            who: vec![high.who(), low.clone()],
            why: format!(
                "{}: the records of one {rtype} set have one TTL; {} says {}, {low} says {ttl}, and {ttl} is used",
                key.name(),
                high.who(),
                high.ttl
            ),
        });
    }
    claims.sort_by(|a, b| a.data.cmp(&b.data));
    claims.dedup_by(|a, b| a.data == b.data);
    let routing = claims.first_mut().and_then(|first| first.routing.take());
    let alias = routing.as_ref().is_some_and(|routing| routing.alias.is_some());
    // Not collected in place: what is kept would be as large as the claims.
    let mut data = Vec::with_capacity(claims.len());
    data.extend(claims.into_iter().filter(|_| !alias).map(|claim| claim.data.text));
    RecordSet { rtype, ttl, data, routing }
}
