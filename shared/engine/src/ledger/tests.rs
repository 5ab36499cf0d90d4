//! Pages: how they are written, split, found and read.

use super::*;
use proptest::prelude::*;

fn entry(text: &str) -> Entry<String> {
    Entry {
        from: vec![SourceId("motd/all".parse().unwrap(), Some("web1.example.com".parse().unwrap()))],
        revision: Revision(3),
        stage: Stage::Made,
        last: Some(Arc::new(text.to_owned())),
        token: "t".into(),
        memo: Value::Null,
        by: 1,
        changing: false,
        tried: Vec::new(),
        agreed: None,
    }
}

fn write(
    pages: &mut Pages<String>,
    of: &BTreeMap<String, Entry<String>>,
    db: &mut BTreeMap<String, Vec<u8>>,
) -> usize {
    let rows = pages
        .take(Epoch(1), |from, to| {
            of.iter()
                .filter(move |(k, _)| from.is_none_or(|f| *k >= f) && to.is_none_or(|t| *k < t))
                .collect::<Vec<_>>()
                .into_iter()
        })
        .unwrap();
    for row in &rows {
        match &row.value {
            Some(value) => db.insert(row.key.clone(), value.clone()),
            None => db.remove(&row.key),
        };
    }
    rows.len()
}

#[test]
fn every_stage_survives_being_written() {
    let stages = [
        Stage::Made,
        Stage::Creating { tried: vec![Arc::new("a".to_owned())], begun: None, adopted: None },
        Stage::Removing { why: Why::HostGone("a.example".parse().unwrap(), Revision(4)) },
        Stage::Removing { why: Why::Drift },
    ];
    for stage in stages {
        let one = Entry { stage, ..entry("x") };
        let text = serde_json::to_string(&Line { key: "k".to_owned(), entry: one.clone() }).unwrap();
        let back: Line<String, String> = serde_json::from_str(&text).unwrap();
        assert_eq!(back.entry, one, "{text}");
    }
}

#[test]
fn a_page_has_the_form_that_it_always_had() {
    let page = r#"{"epoch":1,"spent":"d","removed":{"5":2},"entries":[{"key":"a","entry":{"from":[["motd/all","web1.example.com"]],"revision":3,"stage":"made","last":"x","token":"t","by":1}},{"key":"b","entry":{"from":[["motd/all",null]],"revision":3,"stage":{"creating":{"tried":["y"]}},"last":null,"token":"t","by":1}}]}"#;
    let rows = [("motd/all/00000003".to_owned(), page.as_bytes().to_vec())];
    let mut loaded = load::<String, String>("motd/all/", &rows, Epoch(1), "").unwrap();
    assert_eq!(loaded.entries["a"], entry("x"));
    loaded.pages.touch_all();
    let mut db = BTreeMap::new();
    write(&mut loaded.pages, &loaded.entries, &mut db);
    assert_eq!(String::from_utf8_lossy(&db["motd/all/00000003"]), page);
}

#[test]
fn one_change_of_many_writes_one_page() {
    let (mut pages, mut db) = (Pages::new("motd/all/".to_owned()), BTreeMap::new());
    let mut all: BTreeMap<String, Entry<String>> =
        (0..5000).map(|n| (format!("{n:05}"), entry("some text that is a little longer"))).collect();
    for key in all.keys() {
        pages.touch(key);
    }
    assert!(write(&mut pages, &all, &mut db) > 50);
    all.insert("02500x".into(), entry("new"));
    pages.touch(&"02500x".to_owned());
    assert!(write(&mut pages, &all, &mut db) <= 2);
}

#[test]
fn a_first_page_that_grew_downwards_and_was_split_is_still_found() {
    let (mut pages, mut db) = (Pages::new("motd/all/".to_owned()), BTreeMap::new());
    let mut all = BTreeMap::new();
    let mut put = |key: &str, text: &str, pages: &mut Pages<String>| {
        all.insert(key.to_owned(), entry(text));
        pages.touch(&key.to_owned());
        let written = write(pages, &all, &mut db);
        let rows: Vec<_> = db.clone().into_iter().collect();
        assert_eq!(load::<String, String>("motd/all/", &rows, Epoch(1), "").unwrap().entries, all);
        written
    };
    put("5", "small", &mut pages);
    let large = "x".repeat(MAX_PAGE / 2 + 100);
    put("4", &large, &mut pages);
    assert_eq!(put("3", &large, &mut pages), 3);
    assert_eq!(put("3", "small", &mut pages), 1);
    assert_eq!(put("5", "large", &mut pages), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_written_is_what_is_read(steps in proptest::collection::vec((0u8..60, 0usize..3, 0usize..3000), 1..80)) {
        let (mut pages, mut db) = (Pages::new("motd/all/".to_owned()), BTreeMap::new());
        let mut all = BTreeMap::new();
        for (n, (key, what, len)) in steps.into_iter().enumerate() {
            let key = format!("{key:02}");
            if what == 0 { all.remove(&key); } else { all.insert(key.clone(), entry(&"x".repeat(len))); }
            pages.touch(&key);
            if n % 3 == 0 { write(&mut pages, &all, &mut db); }
            if n % 7 == 0 {
                write(&mut pages, &all, &mut db);
                let rows: Vec<_> = db.clone().into_iter().collect();
                let loaded = load::<String, String>("motd/all/", &rows, Epoch(1), "").unwrap();
                prop_assert_eq!(&loaded.entries, &all);
                pages = loaded.pages;
            }
        }
    }
}

#[test]
fn a_damaged_page_and_another_epoch_are_noticed() {
    let rows = vec![("motd/all/00000000".to_owned(), b"{".to_vec())];
    assert!(load::<String, String>("motd/all/", &rows, Epoch(1), "").is_err());
    let rows = vec![("motd/all/00000000".to_owned(), br#"{"epoch":2,"entries":[]}"#.to_vec())];
    assert_eq!(
        load::<String, String>("motd/all/", &rows, Epoch(1), "").unwrap().other_life.epoch,
        Some(Epoch(2))
    );
}

#[test]
fn a_page_of_another_location_keeps_it_and_one_that_holds_or_says_nothing_is_of_this_one() {
    let load = |page: &str, location: &str| {
        let rows = vec![("motd/all/00000000".to_owned(), page.as_bytes().to_vec())];
        let loaded = load::<String, String>("motd/all/", &rows, Epoch(1), location).unwrap();
        (loaded.other_life.moved.map(|moved| moved.from), loaded.pages.location)
    };
    let entry = serde_json::to_string(&Line { key: "a".to_owned(), entry: entry("x") }).unwrap();
    let page = format!(r#"{{"epoch":1,"location":"A","entries":[{entry}]}}"#);
    assert_eq!(load(&page, "A"), (None, "A".into()));
    assert_eq!(load(&page, "B"), (Some("A".into()), "A".into()));
    assert_eq!(load(&page, ""), (None, "A".into()));
    assert_eq!(load(r#"{"epoch":1,"location":"A","entries":[]}"#, "B"), (None, "B".into()));
    assert_eq!(load(&page.replace(r#""location":"A","#, ""), "B"), (None, "B".into()));
}

#[test]
fn the_pages_of_one_unit_never_stand_among_those_of_another() {
    let namespace: Namespace = "dns".parse().unwrap();
    let units = ["a", "a/b", "a%2Fb", "a%", "%25", "/", "a/b/00000001"].map(Unit::from);
    for unit in &units {
        let prefix = prefix_of(&namespace, unit);
        assert_eq!(unit_of("dns/", &format!("{prefix}00000001")).as_ref(), Some(unit));
        for other in units.iter().filter(|other| *other != unit) {
            assert!(!prefix_of(&namespace, other).starts_with(&prefix), "{unit} and {other}");
        }
    }
}
