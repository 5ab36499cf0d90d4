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
