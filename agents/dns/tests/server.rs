//! `dig` asks the built-in server.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use common::fleet::Fleet;
use common::{converge, dig, files, here, observe};
use serde_json::json;
use shoal_agent::Target as _;
use shoal_dns::target::{Listen, Server, ServerSettings};
use shoal_dns::{Key, Node};

const ZONE: &str = "example.com";
const REVERSE: &str = "2.0.192.in-addr.arpa";
const TOOLS: &[&str] = &["dig"];

fn fleet(web1: &str) -> Fleet {
    Fleet::default()
        .tag(
            "dns/example.com",
            json!({
                "soa": {"primary": "ns1", "minimum": 60}, "ttl": 300, "aliases": ["www"], "reverse": [REVERSE],
                "static": [
                    {"name": "ns1", "type": "A", "data": "192.0.2.53"},
                    {"name": "@", "type": "MX", "data": "10 web1"},
                    {"name": "*.dev", "type": "A", "data": "192.0.2.99"},
                    {"name": "*.dev", "type": "TXT", "data": "any"},
                    {"name": "host.dev", "type": "TXT", "data": "here"},
                    {"name": "a.deep.name", "type": "A", "data": "192.0.2.98"},
                    {"name": "chain", "type": "CNAME", "data": "chain2"},
                    {"name": "chain2", "type": "CNAME", "data": "x.dev.example.com"},
                    {"name": "out", "type": "CNAME", "data": "www.example.net."},
                    {"name": "dangling", "type": "CNAME", "data": "nowhere"},
                    {"name": "loop", "type": "CNAME", "data": "loop"},
                    {"name": "sub", "type": "NS", "data": ["ns.sub.example.com", "ns.example.net."]},
                    {"name": "ns.sub", "type": "A", "data": "192.0.2.97"},
                    {"name": "old", "type": "DNAME", "data": "dev"},
                    {"name": "big", "type": "TXT", "data": (0..40).map(|n| format!("{n} {}", "x".repeat(90))).collect::<Vec<_>>()},
                    {"name": "many", "type": "A", "data": (1..=60).map(|n| format!("192.0.2.{n}")).collect::<Vec<_>>()},
                    {"name": "odd", "type": "TYPE65280", "data": "\\# 2 beef"},
                ],
            }),
            &["web1.example.com"],
        )
        .tag("dns/2.0.192.in-addr.arpa", json!({"soa": {"primary": "ns1.example.com."}}), &[])
        .host("web1.example.com", json!({"address": web1, "address6": "2001:db8::1"}))
}

fn zone(web1: &str) -> BTreeMap<Key, Node> {
    fleet(web1).zone(ZONE)
}

async fn open(state: Option<&std::path::Path>) -> (Server, SocketAddr) {
    let listen = Listen::One(([127, 0, 0, 1], 0).into());
    let state = state.map(Into::into);
    let server = Server::open(ServerSettings { listen, state, ..ServerSettings::default() }).unwrap();
    server.start().await.unwrap();
    let address = server.addresses()[0];
    (server, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_question_is_answered() {
    if !here("every_kind_of_question_is_answered", TOOLS) {
        return;
    }
    let (server, at) = open(None).await;
    converge(&server, ZONE, &zone("192.0.2.1")).await;
    converge(&server, REVERSE, &fleet("192.0.2.1").zone(REVERSE)).await;
    let answer = |words: &str| dig(at, words).answer();

    let found = dig(at, "web1.example.com A");
    assert_eq!(found.answer(), ["web1.example.com. 300 A 192.0.2.1"]);
    assert_eq!((found.status(), found.flags()), ("NOERROR", "qr aa"));
    assert_eq!(answer("WEB1.example.COM AAAA"), ["WEB1.example.COM. 300 AAAA 2001:db8::1"]);
    assert_eq!(answer("-x 192.0.2.1"), ["1.2.0.192.in-addr.arpa. 300 PTR web1.example.com."]);
    assert_eq!(answer("odd.example.com TYPE65280"), ["odd.example.com. 300 TYPE65280 \\# 2 BEEF"]);
    // Aliases are followed inside the zone.
    assert_eq!(
        answer("www.example.com"),
        ["web1.example.com. 300 A 192.0.2.1", "www.example.com. 300 CNAME web1.example.com."]
    );
    assert_eq!(answer("chain.example.com").len(), 3);
    assert_eq!(answer("out.example.com"), ["out.example.com. 300 CNAME www.example.net."]);
    assert_eq!(answer("chain.example.com CNAME").len(), 1);
    assert_eq!(dig(at, "dangling.example.com").status(), "NXDOMAIN");
    assert!(!answer("loop.example.com").is_empty());
    assert_eq!(
        answer("x.old.example.com"),
        [
            "old.example.com. 300 DNAME dev.example.com.",
            "x.dev.example.com. 300 A 192.0.2.99",
            "x.old.example.com. 300 CNAME x.dev.example.com."
        ]
    );
    // Wildcards: below what is not there, not beside what is, and not over empty non-terminals.
    assert_eq!(answer("x.dev.example.com"), ["x.dev.example.com. 300 A 192.0.2.99"]);
    assert_eq!(answer("a.b.dev.example.com"), ["a.b.dev.example.com. 300 A 192.0.2.99"]);
    let nodata = dig(at, "host.dev.example.com A");
    assert_eq!((nodata.status(), nodata.answer().len()), ("NOERROR", 0));
    assert_eq!(dig(at, "x.host.dev.example.com A").status(), "NXDOMAIN");
    assert_eq!(dig(at, "dev.example.com A").status(), "NOERROR");
    assert_eq!(dig(at, "deep.name.example.com A").status(), "NOERROR");
    // What is not there, with the SOA that says for how long.
    let nothing = dig(at, "nothing.example.com");
    assert_eq!((nothing.status(), nothing.flags()), ("NXDOMAIN", "qr aa"));
    let soa = "example.com. 60 SOA ns1.example.com. hostmaster.example.com. 7 7200 900 1209600 60";
    assert_eq!(nothing.section("AUTHORITY"), [soa]);
    assert_eq!(dig(at, "web1.example.com MX").section("AUTHORITY"), [soa]);
    assert!(answer("example.com SOA")[0].contains(" 7 7200 "));
    // A cut: who knows, and where they are.
    let cut = dig(at, "host.sub.example.com");
    assert_eq!((cut.status(), cut.flags(), cut.answer().len()), ("NOERROR", "qr", 0));
    assert_eq!(cut.section("AUTHORITY").len(), 2);
    assert!(
        cut.section("ADDITIONAL").contains(&"ns.sub.example.com. 300 A 192.0.2.97".to_owned()),
        "{}",
        cut.text
    );
    assert_eq!(dig(at, "sub.example.com DS").section("AUTHORITY"), [soa]);
    assert!(
        dig(at, "example.com MX")
            .section("ADDITIONAL")
            .contains(&"web1.example.com. 300 A 192.0.2.1".to_owned())
    );
    // Not ours, not now, not like that.
    assert_eq!(dig(at, "example.net").status(), "REFUSED");
    assert_eq!(dig(at, "version.bind CH TXT").status(), "REFUSED");
    assert_eq!(dig(at, "+opcode=notify example.com SOA").status(), "NOTIMP");
    assert_eq!(answer("web1.example.com ANY"), ["web1.example.com. 3600 HINFO \"RFC8482\" \"\""]);
    assert!(dig(at, "+tcp example.com AXFR").text.contains("Transfer failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_go_by_tcp_and_edns_is_spoken() {
    if !here("large_answers_go_by_tcp_and_edns_is_spoken", TOOLS) {
        return;
    }
    let (server, at) = open(None).await;
    converge(&server, ZONE, &zone("192.0.2.1")).await;
    let cut = dig(at, "+ignore +noedns many.example.com A");
    assert_eq!((cut.flags(), cut.answer().len()), ("qr aa tc", 0));
    assert_eq!(dig(at, "+ignore +bufsize=1232 many.example.com A").answer().len(), 60);
    let cut = dig(at, "+ignore +bufsize=4096 big.example.com TXT");
    assert!(cut.flags().contains("tc") && cut.text.contains("EDNS: version: 0"), "{}", cut.text);
    assert_eq!(dig(at, "big.example.com TXT").answer().len(), 40);
    assert_eq!(dig(at, "+tcp web1.example.com A").answer().len(), 1);
    let bad = dig(at, "+edns=1 +noednsnegotiation web1.example.com A");
    assert!(bad.text.contains("BADVERS"), "{}", bad.text);
    assert!(dig(at, "+dnssec web1.example.com A").text.contains("flags: do"));
    assert!(!dig(at, "+noedns web1.example.com A").text.contains("EDNS"));

    // Rubbish gets FORMERR if it has a header, answers get nothing, and the server lives on.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(at).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut buffer = [0; 512];
    for rubbish in [
        &b"x"[..],
        &[0; 5],
        &[1, 2, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        &[1, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 7],
    ] {
        socket.send(rubbish).unwrap();
    }
    let len = socket.recv(&mut buffer).unwrap();
    assert_eq!((&buffer[..2], buffer[3] & 15, len), (&[1, 2][..], 1, 12));
    // Two questions down one connection, split where it hurts.
    let question = b"\0\x21\0\x07\0\0\0\x01\0\0\0\0\0\0\x03ns1\x07example\x03com\0\0\x01\0\x01";
    let mut tcp = TcpStream::connect(at).unwrap();
    let both = [&question[..], &question[..]].concat();
    tcp.write_all(&both[..40]).unwrap();
    tcp.write_all(&both[40..]).unwrap();
    let mut replies = [0; 2 * (2 + 33 + 16)];
    tcp.read_exact(&mut replies).unwrap();
    assert_eq!(&replies[47..51], [192, 0, 2, 53]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_show_at_once_and_serials_rise() {
    if !here("changes_show_at_once_and_serials_rise", TOOLS) {
        return;
    }
    let (server, at) = open(None).await;
    converge(&server, ZONE, &zone("192.0.2.1")).await;
    assert_eq!(converge(&server, ZONE, &zone("192.0.2.5")).await, 1);
    assert_eq!(dig(at, "web1.example.com").answer(), ["web1.example.com. 300 A 192.0.2.5"]);
    assert!(
        dig(at, "example.com SOA").answer()[0].contains(" 8 7200 "),
        "the same revision again still raises the serial"
    );
    assert_eq!(converge(&server, ZONE, &BTreeMap::new()).await, zone("192.0.2.5").len());
    assert_eq!(dig(at, "web1.example.com").status(), "REFUSED");
    assert!(observe(&server, ZONE).await.seen.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_answers_after_a_restart() {
    if !here("a_copy_answers_after_a_restart", TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = open(Some(dir.path())).await;
    converge(&server, ZONE, &zone("192.0.2.1")).await;
    drop(server);
    assert_eq!(files(dir.path()), ["example.com.copy"]);
    let (server, at) = open(Some(dir.path())).await;
    assert_eq!(dig(at, "web1.example.com").answer(), ["web1.example.com. 300 A 192.0.2.1"]);
    assert_eq!(converge(&server, ZONE, &zone("192.0.2.1")).await, 0);
    drop(server);
    // A damaged copy is not served, and no obstacle.
    let path = dir.path().join("example.com.copy");
    let text = std::fs::read_to_string(&path).unwrap().replace("192.0.2.1\n", "192.0.2.7\n");
    std::fs::write(&path, text).unwrap();
    let (server, at) = open(Some(dir.path())).await;
    assert_eq!(dig(at, "web1.example.com").status(), "REFUSED");
    assert!(observe(&server, ZONE).await.seen.is_empty());
}
