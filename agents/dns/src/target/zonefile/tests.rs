use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fleet::Fleet;
use crate::record::RecordSet;

fn zone() -> Zone {
    Zone::parse("example.com").unwrap()
}

fn nodes() -> BTreeMap<Key, Node> {
    Fleet::default()
        .tag(
            "dns/example.com",
            json!({
                "soa": {"primary": "ns1"}, "ttl": 300, "aliases": ["alias-{label}"],
                "static": [
                    {"name": "ns1", "type": "A", "data": "192.0.2.53"},
                    {"name": "@", "type": "TXT", "data": "v=spf1 mx -all"},
                    {"name": "k._domainkey", "type": "TXT", "data": "k".repeat(300)},
                    {"name": "*", "type": "MX", "data": "10 mail.example.net."},
                    {"name": "x", "type": "TXT", "data": "tab\there; \"quoted\" \\ ü"},
                    {"name": "x", "type": "TYPE65280", "data": "\\# 2 beef"},
                ],
            }),
            &["web10.example.com", "web9.example.com"],
        )
        .host("web9.example.com", json!({"address": ["192.0.2.10", "192.0.2.9"]}))
        .host("web10.example.com", json!({"address6": "2001:db8::a"}))
        .zone("example.com")
}

fn text(serial: u32, nodes: &BTreeMap<Key, Node>) -> String {
    let Rendered { head, body, .. } = render(&zone(), serial, nodes);
    head + &body
}

#[test]
fn a_zone_file_is_canonical() {
    assert_snapshot!(text(42, &nodes()));
}

#[test]
fn what_is_written_reads_back_both_ways() {
    let text = text(42, &nodes());
    let file = read(&text, &zone());
    assert!(file.ours && file.intact && file.odd.is_none());
    assert_eq!((file.serial, &file.nodes), (Some(42), &nodes()));
    // The same, word by word, as if the digest were wrong.
    let file = read(&text.replace("shoal-zone 1 example.com ", "shoal-zone 1 example.com 0"), &zone());
    assert!(file.ours && !file.intact && file.odd.is_none(), "{:?}", file.odd);
    assert_eq!((file.serial, file.nodes), (Some(42), nodes()));
}

#[test]
fn a_foreign_file_is_read_as_zone_files_are() {
    let text = "\
$TTL 1h
@   IN SOA ns1 hostmaster ( 2024010101 ; serial
        7200 900 1209600 300 )
    NS ns1
ns1 A 192.0.2.53
    300 IN A 192.0.2.54
$ORIGIN sub
a   CNAME b ; c
t   TXT \"semi;colon\" (
        second )
";
    let file = read(text, &zone());
    assert!(!file.ours && !file.intact);
    assert_eq!((file.odd, file.serial), (None, Some(2_024_010_101)));
    assert_snapshot!(render(&zone(), 1, &file.nodes).body, @r#"
    example.com.	3600	IN	SOA	ns1.example.com. hostmaster.example.com. 1 7200 900 1209600 300
    example.com.	3600	IN	NS	ns1.example.com.
    ns1.example.com.	299	IN	A	192.0.2.53
    ns1.example.com.	299	IN	A	192.0.2.54
    a.sub.example.com.	3600	IN	CNAME	b.sub.example.com.
    t.sub.example.com.	3600	IN	TXT	"semi;colon" "second"
    "#);
}

#[test]
fn rubbish_is_odd_and_kept() {
    let mut text = text(42, &nodes());
    text.push_str(
        "new.example.com. 5 IN A nonsense\nout.example.org. 5 IN A 192.0.2.1\n$INCLUDE /etc/passwd\n",
    );
    let file = read(&text, &zone());
    assert!(file.ours && !file.intact);
    assert!(file.odd.unwrap().contains("out.example.org"));
    assert_eq!(file.nodes[&Key::new(&zone(), "new")].sets[0].data, ["nonsense"]);
}

#[test]
fn lines_lead_to_names() {
    let nodes = nodes();
    let rendered = render(&zone(), 1, &nodes);
    let text = rendered.head.clone() + &rendered.body;
    for (at, line) in text.lines().enumerate().skip(2) {
        let name = line.split('\t').next().unwrap().trim_end_matches('.');
        assert_eq!(rendered.record_at(at + 1).unwrap().0.name(), name, "{line}");
    }
    assert!(rendered.record_at(1).is_none());
}

/// Prints what a large zone costs; run optimised it says something about the product.
#[test]
fn a_large_zone_is_written_and_read() {
    const NAMES: u32 = if cfg!(debug_assertions) { 2_000 } else { 100_000 };
    let record = |rtype, data: String| RecordSet::plain(rtype, 300, vec![data]);
    let address = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
    let mut nodes = nodes();
    for n in 0..NAMES {
        let node = Node { sets: vec![record(Rtype::A, address(n))].into() };
        nodes.insert(Key::new(&zone(), &format!("host{n}.rack{}", n % 97)), node);
    }
    let start = std::time::Instant::now();
    let rendered = render(&zone(), 1, &nodes);
    let written = start.elapsed();
    let text = rendered.head + &rendered.body;
    let start = std::time::Instant::now();
    let file = read(&text, &zone());
    let intact = start.elapsed();
    assert!(file.intact && file.nodes == nodes);
    let edited = text.replace("\t10.0.0.1\n", "\t10.9.9.9\n");
    let start = std::time::Instant::now();
    let file = read(&edited, &zone());
    println!(
        "{NAMES} names: written in {written:?}, read in {intact:?}, read when edited in {:?}",
        start.elapsed()
    );
    assert!(!file.intact && file.nodes.len() == nodes.len() && file.nodes != nodes);
}

proptest! {
    #[test]
    fn no_file_panics(text in "(\\PC|[\\n\\t\"();$@]|IN|A|TTL|192.0.2.1 |SOA ){0,200}") {
        let file = read(&text, &zone());
        prop_assert!(!file.ours);
    }
}
