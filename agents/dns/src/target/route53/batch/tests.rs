#![allow(clippy::unwrap_used, reason = "this is test code")]

use serde_json::Value;
use shoal_agent::{Revision, Why};

use super::super::Route53Settings;
use super::super::blame::{Blame, blamed, messages_of};
use super::*;
use crate::name::Zone;
use crate::rdata::Rtype;
use crate::record::Have;
use crate::route::{Alias, Policy, Routing};

fn edit(owner: &str, from: Vec<RecordSet>, to: Vec<RecordSet>) -> Edit<Dns> {
    let node = |sets: Vec<RecordSet>| Some(Node { sets: sets.into() }).filter(|node| !node.sets.is_empty());
    Edit {
        key: Key::new(&Zone::parse("example.com").unwrap(), owner),
        verb: "change",
        from: node(from).map(Have::of),
        to: node(to),
        memo: Value::Null,
        token: String::new(),
        because: Why::Wanted(Revision(1)),
    }
}

fn set(rtype: Rtype, data: &[&str]) -> RecordSet {
    RecordSet::plain(rtype, 60, data.iter().map(|&data| data.to_owned()).collect())
}

fn with<O>(check: impl FnOnce(Place<'_>) -> O) -> O {
    let (zone, settings) = (Zone::parse("example.com").unwrap(), Route53Settings::default());
    check(Place { zone: &zone, id: "Z1", settings: &settings })
}

fn actions(work: &Work<'_>) -> Vec<String> {
    let told = |change: &Change| {
        let set = change.resource_record_set.as_ref().unwrap();
        format!("{} {} {}", change.action.as_str(), set.r#type.as_str(), set.resource_records().len())
    };
    work.changes.iter().map(told).collect()
}

#[test]
fn ten_thousand_new_addresses_are_ten_batches() {
    let edits: Vec<_> = (0..10_000)
        .map(|n| {
            edit(&format!("h{n}"), vec![], vec![set(Rtype::A, &[&format!("10.0.{}.{}", n / 250, n % 250)])])
        })
        .collect();
    with(|place| {
        let work: Vec<_> = edits.iter().map(|edit| Work::of(place, edit, None).unwrap()).collect();
        let characters: usize = work.iter().map(|work| work.size.characters).sum();
        let fewest = 10_000_usize.div_ceil(ELEMENTS).max(characters.div_ceil(CHARACTERS));
        let batches = pack(work);
        assert_eq!((batches.len(), fewest), (10, 10));
        assert!(batches.iter().all(|batch| batch.len() == ELEMENTS));
    });
}

#[test]
fn what_changes_is_deleted_as_it_was_and_made_as_it_shall_be() {
    let (one, two) = (set(Rtype::A, &["192.0.2.1"]), set(Rtype::A, &["192.0.2.2", "192.0.2.3"]));
    let txt = set(Rtype::TXT, &["\"x\""]);
    with(|place| {
        let edit = edit("www", vec![one.clone(), txt.clone()], vec![txt, two]);
        assert_eq!(actions(&Work::of(place, &edit, None).unwrap()), ["DELETE A 1", "CREATE A 2"]);
        // After a second look it is the other way, and counts as much.
        let again = Work::of(place, &edit, Some(&[])).unwrap();
        assert_eq!(actions(&again), ["UPSERT A 2"]);
        assert_eq!(again.size, Size { changes: 1, elements: 4, characters: 2 * 18 });
    });
}

#[test]
fn the_start_of_the_zone_and_its_servers_are_never_named() {
    let soa = set(Rtype::SOA, &["ns1.example.com. a.example.com. 0 1 1 1 1"]);
    let ns = set(Rtype::NS, &["ns1.example.com."]);
    with(|place| {
        let edit = edit("@", vec![], vec![ns, soa, set(Rtype::TXT, &["\"x\""])]);
        assert_eq!(actions(&Work::of(place, &edit, None).unwrap()), ["CREATE TXT 1"]);
    });
}

#[test]
fn the_limits_hold_for_every_batch_and_no_edit_is_torn() {
    // Sizes that do not divide the limits: by number for the first, by characters for the second.
    let long = format!("\"{}\"", "x".repeat(250));
    let many: Vec<String> = (0..7).map(|n| format!("10.1.{n}.1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let edits: Vec<_> = (0..700)
        .map(|n| {
            let sets = vec![set(Rtype::A, &many), set(Rtype::TXT, &[&long])];
            edit(&format!("h{n}"), vec![], if n % 2 == 0 { sets } else { vec![sets[0].clone()] })
        })
        .collect();
    with(|place| {
        let work: Vec<_> = edits.iter().map(|edit| Work::of(place, edit, None).unwrap()).collect();
        let all = work.iter().fold(Size::default(), |all, one| all.plus(one.size));
        let batches = pack(work);
        for batch in &batches {
            let size = batch.iter().fold(Size::default(), |size, one| size.plus(one.size));
            assert!(size.fits(), "{size:?}");
        }
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 700);
        let fewest = all.elements.div_ceil(ELEMENTS).max(all.characters.div_ceil(CHARACTERS));
        assert!(batches.len() <= fewest + 1, "{} batches, {fewest} are needed at least", batches.len());
    });
}

#[test]
fn what_cannot_be_one_batch_is_refused_with_why() {
    let long = format!("\"{}\"", "x".repeat(250));
    let many: Vec<&str> = vec![&long; 200];
    with(|place| {
        let big = edit("big", vec![], vec![set(Rtype::TXT, &many)]);
        assert!(Work::of(place, &big, None).err().unwrap().contains("32000"));
        let odd = edit("odd", vec![], vec![set(Rtype(13), &["a b"])]);
        assert!(Work::of(place, &odd, None).err().unwrap().contains("HINFO"));
    });
}

#[test]
fn an_alias_of_another_name_comes_after_it() {
    let routing = Routing {
        alias: Some(Alias { name: "web.example.com.".to_owned(), zone: None, evaluate: false }),
        ..Routing::default()
    };
    let alias = RecordSet { rtype: Rtype::A, ttl: 0, data: vec![], routing: Some(Box::new(routing)) };
    let mut edits = vec![edit("@", vec![], vec![alias])];
    edits.extend((0..1_500).map(|n| edit(&format!("h{n}"), vec![], vec![set(Rtype::A, &["192.0.2.1"])])));
    with(|place| {
        let batches = pack(edits.iter().map(|edit| Work::of(place, edit, None).unwrap()).collect());
        assert_eq!(batches.len(), 2);
        assert!(batches[1].last().unwrap().points);
        let sent = batches[1].last().unwrap().changes[0].resource_record_set.as_ref().unwrap();
        assert_eq!(sent.alias_target.as_ref().unwrap().hosted_zone_id, "Z1");
        assert_eq!(
            (sent.ttl, place.told(sent).unwrap().1),
            (None, edits[0].to.as_ref().unwrap().sets[0].clone())
        );
    });
}

#[test]
fn sets_are_told_apart_by_name_type_and_identifier() {
    let weighted = |set: &str, weight, data: &str| RecordSet {
        routing: Some(Box::new(Routing {
            set: Some(set.to_owned()),
            policy: Some(Policy::Weight(weight)),
            ..Routing::default()
        })),
        ..RecordSet::plain(Rtype::A, 60, vec![data.to_owned()])
    };
    with(|place| {
        let was = vec![weighted("a", 1, "192.0.2.1"), weighted("b", 1, "192.0.2.2")];
        let now = vec![weighted("a", 9, "192.0.2.1"), weighted("b", 1, "192.0.2.2")];
        let edit = edit("www", was, now.clone());
        let work = Work::of(place, &edit, None).unwrap();
        assert_eq!(actions(&work), ["DELETE A 1", "CREATE A 1"]);
        let sent = work.changes[1].resource_record_set.as_ref().unwrap();
        assert_eq!((sent.weight, place.told(sent).unwrap().1), (Some(9), now[0].clone()));
        let told = |message: &str| blamed(&[message.to_owned()], std::slice::from_ref(&work));
        let named = "[Tried to delete resource record set [name='www.example.com.', type='A', set-identifier='a'] but it was not found]";
        assert_eq!(told(named)[&0], Blame::Stale);
        assert!(told(&named.replace("='a'", "='b'")).is_empty());
        assert!(told(&named.replace("'A'", "'AAAA'")).is_empty());
    });
}

#[test]
fn refusals_name_records_in_several_ways() {
    let edits = [
        edit("a", vec![], vec![set(Rtype::A, &["192.0.2.1"])]),
        edit("*", vec![], vec![set(Rtype::CNAME, &["x.example.com."])]),
        edit("c", vec![set(Rtype::TXT, &["\"t\""])], vec![]),
        edit("d", vec![], vec![set(Rtype(15), &["10 mx.example.com."])]),
    ];
    with(|place| {
        let work: Vec<_> = edits.iter().map(|edit| Work::of(place, edit, None).unwrap()).collect();
        let told = |message: &str| blamed(&[message.to_owned()], &work);
        let found = told(
            "[Tried to create resource record set [name='a.example.com.', type='A'] but it already exists, RRSet of type CNAME \
             with DNS name \\052.example.com. is not permitted as it conflicts with other records with the same DNS name in zone \
             example.com., Tried to delete resource record set [name='c.example.com.', type='TXT'] but the values provided do not \
             match the current values, Invalid Resource Record: FATAL problem: Bad (Value, is bad) encountered with '10 mx.example.com.']",
        );
        assert_eq!((&found[&0], &found[&1], &found[&2]), (&Blame::Stale, &Blame::Stale, &Blame::Differs));
        assert!(matches!(&found[&3], Blame::Bad(why) if why.contains("FATAL")), "{found:?}");
        assert!(told("[Invalid request]").is_empty());
        let outside = "RRSet with DNS name d.example.com. is not permitted in zone example.org.";
        assert!(matches!(&told(outside)[&3], Blame::Bad(_)));
    });
    let body = "<?xml version=\"1.0\"?><InvalidChangeBatch><Messages><Message>one &amp; &apos;two&apos;</Message></Messages></InvalidChangeBatch>";
    assert_eq!(messages_of(body), ["one & 'two'"]);
    assert!(messages_of("<ErrorResponse/>").is_empty());
}
