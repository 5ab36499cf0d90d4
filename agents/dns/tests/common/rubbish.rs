//! Tag and host documents that the schema admits, and that nobody in their right mind would write.

use proptest::prelude::*;
use serde_json::{Value, json};

/// A zone's tag, a tag that feeds it, and the members of both.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    pub(crate) tag: Value,
    pub(crate) pool: Value,
    pub(crate) hosts: Vec<Value>,
}

fn select(words: &[&str]) -> BoxedStrategy<String> {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    prop::sample::select(words).boxed()
}

/// Owner names and aliases.
pub(crate) fn name() -> BoxedStrategy<String> {
    prop_oneof![
        4 => select(&[
            "@", "*", "*.dev", "a.*.b", "www", "WWW", "Www.Example.COM", "web1.example.com.", "a.b.c", "b.c", "_sip._tcp",
            "_443._tcp.web1", "bücher", "BÜCHER", "ß.x", "xn--bcher-kva", "☃", "x/y", "a'b", "a,b", "a&b=c", "1", "0-3", "-x", "x-",
            "{label}", "{site}", "{label}.{site}", "sub", "x.sub", "ns.sub", "old", "x.old", "example.com.example.com", "in-addr.arpa",
        ]),
        1 => select(&["$INCLUDE", "$ORIGIN .", "$GENERATE 1-3 a$ A 192.0.2.$", "; x", "a\\.b", "a b", "a\nb", "\"a\"", "(a)", "", ".", "a..b"]),
        2 => "[ab*_]{1,2}(\\.[ab*_]{1,2}){0,2}",
        1 => "\\PC{1,8}",
        1 => (1usize..5, 55usize..65).prop_map(|(labels, len)| vec!["x".repeat(len); labels].join(".")),
        1 => (230usize..250).prop_map(|len| {
            // As long as a name may be, and a little longer.
            let text: String = (0..len).map(|at| if at % 50 == 49 { '.' } else { 'y' }).collect();
            text.trim_end_matches('.').to_owned()
        }),
    ]
    .boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        select(&[
            "v=spf1 mx -all",
            "a; b",
            "\"",
            "\"a\" \"b\"",
            "\"a\\\"b\" c",
            "\\",
            "\\034",
            "\\\"x",
            "a\nb",
            "\n$INCLUDE /etc/passwd",
            "$GENERATE 1-9 x A 192.0.2.$",
            "",
            "\"\"",
            " ",
            "\t",
            "\u{0}\u{7f}",
            "( ) @ ;",
            "ü ☃",
            "\"unclosed",
            "\\# 3 010203",
            "\\# 0",
        ]),
        "[ -~]{0,40}",
        "\\PC{0,20}",
        (200usize..800).prop_map(|len| "k".repeat(len)),
        (200usize..400).prop_map(|len| format!("\"{}\" \"{}\"", "é".repeat(len), "\\\\".repeat(len))),
        prop::collection::vec(any::<char>(), 0..30).prop_map(|all| all.into_iter().collect()),
    ]
    .boxed()
}

/// Types, and data for them, good and bad.
const DATA: &[(&str, &[&str])] = &[
    ("A", &["192.0.2.1", "192.0.2.2", "0.0.0.0", "192.0.2.01", "::ffff:192.0.2.1"]),
    (
        "AAAA",
        &["2001:DB8::1", "::ffff:192.0.2.1", "::192.0.2.1", "::", "fe80::1%eth0", "2001:db8:0:0:1:0:0:1"],
    ),
    (
        "CNAME",
        &[
            "web1",
            "WEB2",
            "@",
            ".",
            "x.old",
            "www.Example.NET.",
            "nowhere",
            "bücher",
            "*.dev",
            "b\\.c.example.net.",
        ],
    ),
    ("NS", &["ns.example.net.", "NS2.example.org.", "ns.example.net"]),
    ("DNAME", &["dev", "example.net.", "old", "."]),
    ("PTR", &["web1", "a\\.b.example.net.", "\\000\\255.example.net."]),
    ("MX", &["10 web1", "0 .", "65535 MAIL.example.net.", "65536 a", "10"]),
    ("SRV", &["0 0 22 {name}.", "0 1 65535 .", "0 0 web1"]),
    (
        "CAA",
        &[
            "0 issue \"ca.example; x=1\"",
            "128 IODEF \"mailto:a@b\"",
            "0 issue \";\"",
            "0 issue \"\"",
            "0 is-sue \"x\"",
        ],
    ),
    ("SSHFP", &["4 1 123456789abcdef67890123456789abcdef67890", "1 2 00ff", "4 9 00FF aa"]),
    ("TLSA", &["3 1 1 00ff", "3 1 1 00 FF", "3 1 1 0"]),
    ("NAPTR", &["100 10 u x \"!^.*$!sip:a@b!\" .", "1 2 \"\" \"\" \"\" rep", "1 2 S SIP+D2U \"\" _sip._udp"]),
    (
        "HTTPS",
        &[
            "1 . alpn=h2,h3 port=8443",
            "0 www.example.net.",
            "1 . ipv4hint=192.0.2.1 ipv6hint=2001:db8::1",
            "1 . mandatory=alpn alpn=h2",
            "16 x key667=hello",
            "1 . alpn=h2 alpn=h3",
            "0 . alpn=h2",
            "1 . no-default-alpn",
            "1 . mandatory=port alpn=h2",
        ],
    ),
    ("SVCB", &["1 svc.example.net. port=53", "\\# 3 000100", "1 @"]),
    ("URI", &["1 1 \"https://x/?a=1;b\"", "1 1 x", "1 1 \"\""]),
    ("HINFO", &["h \"o s\"", "\"\" \"\"", "x"]),
    ("RP", &["ann.example.net. .", "web1 web2"]),
    ("DS", &["12345 8 2 00ff", "12345 8 1 123456789abcdef67890123456789abcdef67890"]),
    ("CERT", &["1 2 3 AAAA", "1 2 3 AA=="]),
    ("TYPE65280", &["\\# 2 beef", "\\# 0", "\\# 1 beef"]),
    ("LOC", &["\\# 16 00000000000000000000000000000000", "51 30 N 0 7 W 0m"]),
    ("LOC", &["\\# 1 00"]),
    ("TYPE1", &["\\# 4 c0000203", "192.0.2.4"]),
    ("EUI48", &["\\# 6 0000 5e00 5301", "00-00-5e-00-53-01"]),
    ("CSYNC", &["\\# 6 000000010000", "\\# 8 0000000100000001", "\\# 3 000000"]),
    ("APL", &["\\# 0", "\\# 4 00010000", "\\# 2 ffff"]),
    ("IPSECKEY", &["\\# 5 0a000200ff", "\\# 3 0a0002", "\\# 1 00"]),
    ("OPENPGPKEY", &["AAAA", "="]),
    ("DNSKEY", &["257 3 8 AwEAAQ==", "257 2 8 AAAA"]),
    ("SPF", &["\"v=spf1\"", "v=spf1 -all"]),
    (
        "ZONEMD",
        &[
            "\\# 4 00000000",
            "\\# 54 000000000101000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
        ],
    ),
];

/// A type, and data for it; now and then for another.
fn record() -> BoxedStrategy<(String, String)> {
    let of = |(rtype, data): &(&str, &[&str])| {
        let rtype = (*rtype).to_owned();
        select(data).prop_map(move |data| (rtype.clone(), data)).boxed()
    };
    let known: Vec<_> = DATA.iter().map(of).collect();
    let types = [
        "A",
        "TXT",
        "MX",
        "NAPTR",
        "HTTPS",
        "URI",
        "CAA",
        "TYPE999",
        "HIP",
        "EUI64",
        "NSEC3PARAM",
        "KX",
        "MD",
        "TYPE61440",
        "DHCID",
        "CDS",
    ];
    prop_oneof![
        8 => prop::strategy::Union::new(known),
        4 => text().prop_map(|data| ("TXT".to_owned(), data)),
        2 => (select(&types), text()),
        1 => (any::<u16>(), prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(rtype, octets)| {
            let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            (format!("TYPE{rtype}"), format!("\\# {} {hex}", octets.len()))
        }),
    ]
    .boxed()
}

fn ttl() -> BoxedStrategy<Value> {
    prop_oneof![3 => Just(Value::Null), 1 => prop::sample::select(vec![0u32, 1, 60, 2_147_483_647]).prop_map(Value::from)].boxed()
}

fn records() -> BoxedStrategy<Vec<Value>> {
    let one = (name(), record(), ttl()).prop_map(|(name, (rtype, data), ttl)| {
        let mut record = json!({"name": name, "type": rtype, "data": data});
        if !ttl.is_null() {
            record["ttl"] = ttl;
        }
        record
    });
    // A type that a tag cannot even name is an error when it is committed.
    let one = one.prop_filter("a type", |record| {
        serde_json::from_value::<shoal_dns::Rtype>(record["type"].clone()).is_ok()
    });
    prop::collection::vec(one, 0..14).boxed()
}

fn host() -> BoxedStrategy<Value> {
    let address = select(&[
        "192.0.2.1",
        "192.0.2.2",
        "::ffff:192.0.2.9",
        "2001:DB8::A",
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "192.0.2.300",
        "",
        "ü",
    ]);
    (prop::collection::vec(address, 0..4), prop_oneof![name(), text()], prop::collection::vec(name(), 0..3))
        .prop_map(
            |(address, site, aliases)| json!({"address": address, "site": site, "dns": {"aliases": aliases}}),
        )
        .boxed()
}

/// Everything at once.
pub(crate) fn documents() -> impl Strategy<Value = Documents> {
    let mailbox =
        select(&["hostmaster@example.com", "ann.b@example.net", "root", "a\\.b.example.com.", "x y", ""]);
    let members = (prop::collection::vec(name(), 0..3), records());
    (records(), members, ttl(), mailbox, name(), prop::collection::vec(host(), 2)).prop_map(
        |(statics, (aliases, per_member), ttl, mailbox, pool, hosts)| {
            let labelled: serde_json::Map<String, Value> =
                per_member.into_iter().enumerate().map(|(n, record)| (format!("r{n}"), record)).collect();
            let mut tag = json!({
                "soa": {"primary": "ns.example.net.", "mailbox": mailbox},
                "static": statics, "aliases": aliases, "records": labelled,
            });
            if !ttl.is_null() {
                tag["ttl"] = ttl;
            }
            let pool = json!({"zone": "example.com", "name": pool, "aliases": ["{site}"]});
            Documents { tag, pool, hosts }
        },
    )
}
