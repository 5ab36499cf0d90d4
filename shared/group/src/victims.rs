//! Who goes when a group gets smaller, and in which site a new one is.
//!
//! Those go first that serve least: retired, draining, failed, not yet made. Among those that serve alike, where most of the group are: by the
//! shares of the sites, then in the rack, then on the box; and of these the highest slot.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use shoal_core::Lifecycle;

use crate::read::Member;
use crate::spec::Spec;

/// A slot that counts, with who has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat<'a> {
    pub(crate) slot: u32,
    pub(crate) member: &'a Member,
    /// Where it is, or is to be.
    pub(crate) site: Option<&'a str>,
}

/// How much would be lost with it; `None`: it may live, and nobody can be told to go.
fn class(member: &Member) -> Option<u8> {
    if member.gone {
        return Some(0);
    }
    Some(match member.state? {
        Lifecycle::Retired => 0,
        Lifecycle::Draining => 1,
        Lifecycle::Failed => 2,
        Lifecycle::Requested => 3,
        Lifecycle::Placed => 4,
        Lifecycle::Building => 5,
        Lifecycle::Active => 6,
    })
}

/// Who goes first of these: its place among them, and why it.
pub(crate) fn pick(
    seats: &[Seat<'_>],
    spec: &Spec,
    may: impl Fn(&Seat<'_>) -> bool,
) -> Option<(usize, String)> {
    let (mut sites, mut racks, mut boxes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for Seat { member, site, .. } in seats {
        let [room, rack, _] = &member.lies;
        *sites.entry(*site).or_insert(0_u64) += 1;
        *racks.entry((*site, rack)).or_insert(0_u64) += 1;
        *boxes.entry(room).or_insert(0_u64) += 1;
    }
    let shares = spec.sites();
    // By how far a site has more than its share, in millionths of a machine; without shares, all are alike.
    let crowd = |site: Option<&str>| {
        let count = sites.get(&site).copied().unwrap_or(0);
        let share = site.and_then(|site| shares.get(site)).copied().unwrap_or(0);
        match (shares.is_empty(), share) {
            (true, _) => count,
            (false, 0) => u64::MAX,
            (false, share) => count * 1_000_000 / u64::from(share),
        }
    };
    let known = |at: &Option<String>, count: u64| if at.is_some() { count } else { 0 };
    let weighed = seats.iter().enumerate().filter(|(_, seat)| may(seat)).filter_map(|(at, seat)| {
        let [room, rack, _] = &seat.member.lies;
        let in_rack = known(rack, racks.get(&(seat.site, rack)).copied().unwrap_or(0));
        let on_box = known(room, boxes.get(room).copied().unwrap_or(0));
        let site = crowd(seat.site);
        Some((class(seat.member)?, Reverse(site), Reverse(in_rack), Reverse(on_box), Reverse(seat.slot), at))
    });
    let (class, _, Reverse(in_rack), Reverse(on_box), _, at) = weighed.min()?;
    let seat = seats.get(at)?;
    let state = seat.member.state.map_or("deleted", Lifecycle::as_str);
    let mut why = if class < 6 {
        format!("it is {state}")
    } else {
        "it has the highest slot of those that are alike".to_owned()
    };
    if let Some(site) = seat.site.filter(|_| class == 6) {
        why = format!("{} are in {site}", sites.get(&seat.site).copied().unwrap_or(0));
        if in_rack > 1 {
            why += &format!(", {in_rack} in its rack");
        }
        if on_box > 1 {
            why += &format!(", {on_box} on its box");
        }
    }
    Some((at, why))
}

/// The site of a new one, by the shares: where the fewest are for the share. `None`: nobody says sites.
pub(crate) fn site<'a>(spec: &'a Spec, seats: &[Option<String>], seed: u64, name: &str) -> Option<&'a str> {
    let have = |site: &str| seats.iter().filter(|at| at.as_deref() == Some(site)).count() as u64;
    let shares = spec.sites().into_iter().filter(|(_, share)| *share > 0);
    // Compared as fractions, without dividing: (have + 1) / share.
    let mut best: Option<(u64, u64, u64, &'a str)> = None;
    for (site, share) in shares {
        let (more, share, tie) = (have(site) + 1, u64::from(share), hash(seed, &[name, site]));
        let better = best.is_none_or(|(least, of, first, _)| (more * of, tie) < (least * share, first));
        if better {
            best = Some((more, share, tie, site));
        }
    }
    best.map(|(.., site)| site)
}

/// A number that is the same everywhere: FNV-1a, then mixed (splitmix64).
pub(crate) fn hash(seed: u64, of: &[&str]) -> u64 {
    let octets = of.iter().flat_map(|text| text.bytes().chain([0]));
    let hash = octets.fold(0xcbf2_9ce4_8422_2325_u64 ^ seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut mixed = hash;
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9_u64), (27, 0x94d0_49bb_1331_11eb)] {
        mixed = (mixed ^ (mixed >> shift)).wrapping_mul(factor);
    }
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use shoal_core::{Document, Revision};

    use super::*;

    fn member(slot: u32, state: Lifecycle, lies: [Option<&str>; 3]) -> Member {
        Member {
            host: format!("kafka-{slot}.example.com").parse().unwrap(),
            state: Some(state),
            revision: Revision(1),
            wish: None,
            lies: lies.map(|at| at.map(str::to_owned)),
            gone: false,
            unmade: false,
            promised: true,
            reports: BTreeSet::new(),
            paused: None,
            document: Document::of(&json!({})).unwrap(),
        }
    }

    /// Members that are active, slot by slot, each on a box in a rack of a site.
    fn active(lie: &[[&str; 3]]) -> Vec<Member> {
        (0..).zip(lie).map(|(slot, lies)| member(slot, Lifecycle::Active, lies.map(Some))).collect()
    }

    /// The slot of who goes first, and why it; some are kept.
    fn first(layout: &Value, members: &[Member], kept: &[u32]) -> Option<(u32, String)> {
        let slots = json!({"name": "kafka-{slot}.example.com"});
        let spec = json!({"count": 3, "size": {"cpu": 1}, "slots": slots, "layout": layout});
        let numbered = (0..).zip(members);
        let seats: Vec<Seat<'_>> =
            numbered.map(|(slot, member)| Seat { slot, member, site: member.lies[2].as_deref() }).collect();
        let (at, why) = pick(&seats, &Spec::read(spec).unwrap(), |seat| !kept.contains(&seat.slot))?;
        Some((seats[at].slot, why))
    }

    fn says(slot: u32, why: &str) -> Option<(u32, String)> {
        Some((slot, why.to_owned()))
    }

    #[test]
    fn who_is_in_the_site_with_most_for_its_share_goes_first() {
        // In the one site they lie apart; in the other all on one box.
        let c = ["c1", "r1", "c"];
        let members = active(&[["a1", "r1", "a"], ["a2", "r2", "a"], c, c, c]);
        let shares = json!({"sites": {"a": 1, "c": 2}});
        assert_eq!(first(&shares, &members, &[]), says(1, "2 are in a"));
        assert_eq!(first(&shares, &members, &[1]), says(0, "2 are in a"));
        // Where one is as crowded as the other, the rack says.
        let even = active(&[c, c, ["a1", "r1", "a"]]);
        assert_eq!(first(&shares, &even, &[]).unwrap().0, 1);
        // Where nobody says shares, the number does; a site without a share is crowded by one.
        let told = "3 are in c, 3 in its rack, 3 on its box";
        assert_eq!(first(&Value::Null, &members, &[]), says(4, told));
        assert_eq!(first(&json!({"sites": {"a": 1}}), &members, &[]), says(4, told));
    }

    #[test]
    fn of_a_site_who_is_in_the_rack_with_most_then_on_the_box_with_most_then_of_the_highest_slot() {
        let box4 = ["b4", "r2", "a"];
        let rack = active(&[["b1", "r1", "a"], ["b2", "r1", "a"], ["b3", "r1", "a"], box4, box4]);
        assert_eq!(first(&Value::Null, &rack, &[]), says(2, "5 are in a, 3 in its rack"));
        let box1 = ["b1", "r1", "a"];
        let on_box = active(&[box1, box1, ["b2", "r1", "a"], ["b3", "r1", "a"]]);
        let told = "4 are in a, 4 in its rack, 2 on its box";
        assert_eq!(first(&Value::Null, &on_box, &[]), says(1, told));
        let alike = active(&[["b1", "r1", "a"], ["b2", "r2", "a"], ["b3", "r3", "a"]]);
        assert_eq!(first(&Value::Null, &alike, &[]), says(2, "3 are in a"));
        assert_eq!(first(&Value::Null, &alike, &[2]), says(1, "3 are in a"));
        // Where nothing is known of where they are, nothing is said of it.
        let unknown: Vec<Member> = (0..3).map(|slot| member(slot, Lifecycle::Active, [None; 3])).collect();
        let told = "it has the highest slot of those that are alike";
        assert_eq!(first(&Value::Null, &unknown, &[]), says(2, told));
    }

    #[test]
    fn who_serves_least_goes_first_wherever_it_is() {
        use Lifecycle::{Active, Building, Draining, Failed, Placed, Requested, Retired};
        // The longer they serve, the more crowded it is where they are, and the higher is their slot.
        let crowd = [Some("b1"), Some("r1"), Some("a")];
        let states = [Retired, Draining, Failed, Requested, Placed, Building, Active, Active];
        let mut members: Vec<Member> = (0..).zip(states).map(|(slot, is)| member(slot, is, crowd)).collect();
        members[0].lies = [Some("b2"), Some("r2"), Some("c")].map(|at| at.map(str::to_owned));
        let mut kept = Vec::new();
        while let Some((slot, _)) = first(&Value::Null, &members, &kept) {
            kept.push(slot);
        }
        assert_eq!(kept, [0, 1, 2, 3, 4, 5, 7, 6]);
        assert_eq!(first(&Value::Null, &members, &[0, 1]), says(2, "it is failed"));
        // One that is deleted may live, and is told nothing; when it is gone it is the first.
        (members[7].state, members[0].state) = (None, Some(Active));
        assert_eq!(first(&Value::Null, &members[7..], &[]), None);
        assert_eq!(first(&Value::Null, &members, &[]).unwrap().0, 1);
        members[7].gone = true;
        assert_eq!(first(&Value::Null, &members, &[]), says(7, "it is deleted"));
    }
}
