//! Searching: the same answer as asking everybody, at a price that follows what is found.

use proptest::prelude::*;
use shoal_core::{Change, Document, HostName, Revision, Row, Rule, Subject, View};

/// Every site a thousandth of the fleet, memory rising with the number.
fn fleet(hosts: usize) -> View {
    let mut view = View::new();
    for host in 0..hosts {
        let document = format!(
            r#"{{"id":"{host}","document":{{"site":"s{}","memory":{},"roles":["web"]}}}}"#,
            host % 1000,
            (host as u64) << 20,
        );
        view.load(row(&format!("hosts/h{host:05}"), &document));
    }
    view.loaded(Revision(1));
    view
}

fn row(key: &str, document: &str) -> Row {
    let value = Some(Document::parse(document).unwrap());
    Row { key: key.parse().unwrap(), value, revision: Revision(1), moved: None }
}

/// Evaluations and looks at documents that a search costs, and how many it finds.
fn cost(view: &View, rule: &str) -> (u64, u64, usize) {
    let rule = Rule::compile(rule).unwrap();
    let counts = || (view.counters().rules_evaluated(), view.counters().documents_parsed());
    let before = counts();
    let found = view.search(&rule, None, 10_000).items.len();
    let after = counts();
    (after.0 - before.0, after.1 - before.1, found)
}

#[test]
fn a_search_costs_what_it_finds() {
    let view = fleet(10_000);
    for (rule, found) in [
        ("site == 's7'", 10),
        ("'s7' == site", 10),
        ("site in ['s7', 's8']", 20),
        ("site == 's7' && memory >= mib(5000)", 5),
        ("memory > mib(9990)", 9),
        ("mib(10) > memory", 10),
        ("memory >= mib(5000) && memory < mib(5003)", 3),
        ("name.startsWith('h0123')", 10),
        ("name == 'h00001' || memory == 0", 2),
        ("(site == 's1' || site == 's2') && 'web' in roles", 20),
        ("host['memory'] <= 0", 1),
    ] {
        // The first search by a field makes its index.
        let _ = cost(&view, rule);
        let (asked, looked, got) = cost(&view, rule);
        assert_eq!(got, found, "{rule}");
        // The narrowest part decides: at most as many as it finds.
        let most = if rule.contains("5003") { 5003 } else { 20 };
        assert!(asked <= most && looked <= most, "{rule}: {asked} evaluated, {looked} looked at");
    }
    assert_eq!(cost(&view, "size(roles) == 1 && site.endsWith('7')").0, 10_000, "nothing to narrow by");
}

#[test]
fn an_index_follows_every_change_at_the_price_of_the_change() {
    let mut view = fleet(1_000);
    let found = |view: &View, rule: &str| {
        let hits = view.search(&Rule::compile(rule).unwrap(), None, 100);
        hits.items.iter().map(|host| host.host.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(&view, "site == 's5'"), ["h00005"]);
    let before = view.counters().documents_parsed();
    let put = |key: &str, document: Option<&str>| Change {
        key: key.parse().unwrap(),
        value: document.map(|text| Document::parse(text).unwrap()),
        moved: None,
    };
    let old = view.clone();
    view.apply(
        Revision(2),
        &[
            put("hosts/h00005", Some(r#"{"id":"5","document":{"site":"s6"}}"#)),
            put("hosts/new", Some(r#"{"id":"n","document":{"site":"s5"}}"#)),
            put("hosts/h00006", None),
        ],
    );
    assert_eq!(found(&view, "site == 's5'"), ["new"]);
    assert_eq!(found(&view, "site == 's6'"), ["h00005"]);
    assert!(view.counters().documents_parsed() - before < 10, "nothing was indexed again");
    assert_eq!(found(&old, "site == 's6'"), ["h00006"], "who reads the old view sees the old hosts");
}

#[test]
fn pages_follow_each_other_and_end() {
    let view = fleet(2_500);
    for rule in ["true", "memory >= 0", "size(roles) == 1"] {
        let rule = Rule::compile(rule).unwrap();
        let (mut after, mut all, mut pages): (Option<HostName>, Vec<HostName>, usize) = (None, Vec::new(), 0);
        loop {
            let page = view.search(&rule, after.as_ref(), 1000);
            assert!(page.items.len() <= 1000);
            all.extend(page.items.into_iter().map(|host| host.host));
            pages += 1;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!((all.len(), pages), (2_500, 3));
        assert!(all.is_sorted());
    }
}

#[test]
fn a_page_is_bounded_by_what_it_costs_too() {
    let mut view = View::new();
    let list = (0..900).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    for host in 0..20 {
        view.load(row(
            &format!("hosts/h{host:02}"),
            &format!(r#"{{"id":"{host}","document":{{"a":[{list}]}}}}"#),
        ));
    }
    view.loaded(Revision(1));
    // It may take some 800,000 steps for each.
    let rule = Rule::compile("a.exists(x, a.exists(y, x == y))").unwrap();
    let page = view.search(&rule, None, 100);
    assert!(page.items.len() < 20 && page.next.is_some(), "{} in one page", page.items.len());
}

#[test]
fn what_cannot_be_evaluated_is_told() {
    let mut view = fleet(10);
    view.load(row("hosts/odd", r#"{"id":"odd","document":{"memory":"much"}}"#));
    view.loaded(Revision(1));
    let hits = view.search(&Rule::compile("memory > mib(8)").unwrap(), None, 100);
    assert_eq!((hits.items.len(), hits.unsure_total), (1, 1));
    assert_eq!(hits.unsure[0].host.as_str(), "odd");
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        (-3i64..4).prop_map(|n| n.to_string()),
        (-3i64..4).prop_map(|n| format!("{n}.5")),
        prop::sample::select(vec!["\"a\"", "\"ab\"", "\"b\"", "\"\"", "true", "false", "null", "[1]", "{}"])
            .prop_map(str::to_owned),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let field = || prop::sample::select(vec!["x", "y", "host['x']", "name", "state", "owner"]);
    let literal = || {
        let some = vec!["1", "-2", "0", "1.5", "'a'", "'ab'", "'active'", "'h1'", "true", "gib(0)", "2u"];
        prop::sample::select(some)
    };
    let op = prop::sample::select(vec!["==", "<", "<=", ">", ">=", "!="]);
    let leaf = prop_oneof![
        (field(), op, literal(), any::<bool>()).prop_map(|(f, op, l, turned)| if turned {
            format!("{l} {op} {f}")
        } else {
            format!("{f} {op} {l}")
        }),
        (field(), literal(), literal()).prop_map(|(f, a, b)| format!("{f} in [{a}, {b}]")),
        field().prop_map(|f| format!("{f}.startsWith('a')")),
        Just("has(host.x)".to_owned()),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// The index leaves nobody out and lets nobody in.
    #[test]
    fn the_index_answers_as_asking_everybody_does(
        hosts in prop::collection::vec((prop::option::of(value()), prop::option::of(value())), 1..8),
        rule in rule(),
    ) {
        let mut view = View::new();
        for (at, (x, y)) in hosts.iter().enumerate() {
            let field = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("\"{name}\":{value}"));
            let fields: Vec<String> = field("x", x).into_iter().chain(field("y", y)).collect();
            view.load(row(&format!("hosts/h{at}"), &format!(r#"{{"id":"{at}","document":{{{}}}}}"#, fields.join(","))));
        }
        view.loaded(Revision(1));
        let compiled = Rule::compile(&rule).unwrap();
        let mut everybody: Vec<&str> = view
            .hosts()
            .filter(|host| compiled.selects(&Subject::new(host, &[])))
            .map(|host| host.name.as_str())
            .collect();
        everybody.sort_unstable();
        let hits = view.search(&compiled, None, 100);
        let found: Vec<&str> = hits.items.iter().map(|host| host.host.as_str()).collect();
        prop_assert_eq!(found, everybody, "{}", rule);
    }
}
