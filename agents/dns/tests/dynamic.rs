//! Dynamic updates into a real BIND, in zones that others write into as well.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use common::scratch::{Daemon, Scratch};
use common::{Named, SECRET, dig, here, until, until_async};

const ZONE: &str = "example.com";
const TOOLS: [&str; 4] = ["named", "rndc", "nsupdate", "dig"];

/// What stood in the zone before Shoal came.
const OTHERS: &str = "$TTL 600
@ IN SOA ns1.example.com. admin.example.com. 7 7200 900 1209600 300
@ IN NS ns1
@ IN TXT \"somebody's\"
ns1 IN A 192.0.2.53
printer IN A 192.0.2.9
web1 IN TXT \"somebody's too\"
* IN A 192.0.2.99
";

const FLEET: &str = "
host: web1.example.com
document: {address: 192.0.2.1}
---
host: web2.example.com
document: {address: 192.0.2.2, address6: \"2001:db8::2\"}
---
tag: dns/example.com
document:
  soa: {primary: ns9.example.net.}
  aliases: [\"{label}-a\"]
  static:
    - {type: MX, data: \"10 mail.example.net.\"}
    - {name: txt, type: TXT, data: [\"one\", \"two\"]}
members: [web1.example.com, web2.example.com]
---
tag: dns/www
document: {zone: example.com, name: www, ttl: 30}
members: [web1.example.com, web2.example.com]
";

/// A BIND whose zone may be updated and transferred with the key, and an agent that has it.
fn world(options: &str) -> (Named, Scratch) {
    let named = Named::start_with(&[ZONE], options);
    fs::write(named.file(ZONE), OTHERS).unwrap();
    assert!(named.rndc(&["reload", ZONE]));
    until_served(&named);
    let scratch = Scratch::new(&format!(
        "[agent.update]\nserver = '{}'\nkey = {{ name = 'k', secret_file = 'DIR/secret' }}\n",
        named.address
    ));
    fs::write(scratch.path().join("secret"), format!("{SECRET}\n")).unwrap();
    (named, scratch)
}

const ALLOWED: &str = "allow-update { key k; }; allow-transfer { key k; };";

fn until_served(named: &Named) {
    for _ in 0..3_000 {
        if !soa(named).is_empty() {
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    panic!("not served: {}", named.log());
}

fn soa(named: &Named) -> Vec<String> {
    dig(named.address, "example.com SOA").answer()
}

fn serial(named: &Named) -> u32 {
    soa(named)[0].split(' ').nth(5).unwrap().parse().unwrap()
}

fn answers(named: &Named, question: &str) -> Vec<String> {
    dig(named.address, question).answer()
}

/// Somebody else's update.
fn nsupdate(named: &Named, lines: &str) {
    let mut child = Command::new("nsupdate")
        .args(["-y", &format!("hmac-sha256:k:{SECRET}")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let (ip, port) = (named.address.ip(), named.address.port());
    let text = format!("server {ip} {port}\nzone {ZONE}\n{lines}\nsend\n");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Everything in the zone but its SOA, sorted.
fn all(named: &Named) -> Vec<String> {
    let text = dig(named.address, &format!("-y hmac-sha256:k:{SECRET} example.com AXFR")).text;
    let record = |line: &&str| !line.is_empty() && ![";", "TSIG", "SOA"].iter().any(|not| line.contains(not));
    let mut lines: Vec<String> = text
        .lines()
        .filter(record)
        .map(|line| line.split_whitespace().filter(|word| *word != "IN").collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines
}

const THEIRS: [&str; 5] = [
    "*.example.com. 600 A 192.0.2.99",
    "example.com. 600 TXT \"somebody's\"",
    "ns1.example.com. 600 A 192.0.2.53",
    "printer.example.com. 600 A 192.0.2.9",
    "web1.example.com. 600 TXT \"somebody's too\"",
];

const OURS: [&str; 11] = [
    "example.com. 3600 MX 10 mail.example.net.",
    "txt.example.com. 3600 TXT \"one\"",
    "txt.example.com. 3600 TXT \"two\"",
    "web1-a.example.com. 3600 CNAME web1.example.com.",
    "web1.example.com. 3600 A 192.0.2.1",
    "web2-a.example.com. 3600 CNAME web2.example.com.",
    "web2.example.com. 3600 A 192.0.2.2",
    "web2.example.com. 3600 AAAA 2001:db8::2",
    "www.example.com. 30 A 192.0.2.1",
    "www.example.com. 30 A 192.0.2.2",
    "www.example.com. 30 AAAA 2001:db8::2",
];

fn whole(ours: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = ours.iter().chain(&THEIRS).map(|&line| line.to_owned()).collect();
    lines.push("example.com. 600 NS ns1.example.com.".to_owned());
    lines.sort();
    lines
}

fn expected() -> Vec<String> {
    whole(&OURS)
}

#[tokio::test(flavor = "multi_thread")]
async fn its_records_stand_beside_those_of_others() {
    if !here("its_records_stand_beside_those_of_others", &TOOLS) {
        return;
    }
    let (named, scratch) = world(ALLOWED);
    scratch.apply(FLEET).await;
    let (code, said) = scratch.run(&["--plan"]);
    assert_eq!(code, 3, "{said}");
    assert_eq!(all(&named), whole(&[]), "a plan changes nothing");
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(all(&named), expected());
    let first = serial(&named);
    assert!(first > 7, "the server counts its serial");
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, serial(&named)), (0, first), "nothing is left to do: {said}");
    assert_eq!(scratch.run(&["--plan"]).0, 0);
    // One host changes and one goes; what others have under the same names stays.
    scratch
        .apply(
            "
host: web2.example.com
document: {address: 192.0.2.22}
---
tag: dns/example.com
document: {soa: {primary: ns9.example.net.}}
members: [web2.example.com]
---
tag: dns/www
document: {zone: example.com, name: www, ttl: 30}
members: [web2.example.com]
",
        )
        .await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        all(&named),
        whole(&["web2.example.com. 3600 A 192.0.2.22", "www.example.com. 30 A 192.0.2.22"]),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_is_never_changed() {
    if !here("what_others_have_is_never_changed", &TOOLS) {
        return;
    }
    let (named, scratch) = world(ALLOWED);
    scratch.apply(FLEET).await;
    scratch
        .apply(
            "
host: printer.example.com
document: {address: 192.0.2.10}
---
tag: dns/more
document:
  zone: example.com
  static:
    - {type: TXT, data: ours}
members: [printer.example.com]
",
        )
        .await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("example.com/printer is there already"), "{said}");
    // The zone's own TXT is somebody's, so the zone itself waits with its MX; every other name goes on.
    let mut lines = expected();
    lines.retain(|line| !line.contains(" MX "));
    assert_eq!(all(&named), lines);
    // Somebody writes beside what is Shoal's, and changes what is.
    nsupdate(&named, "update add web2.example.com. 60 TXT beside");
    nsupdate(&named, "update delete web2.example.com. A\nupdate add web2.example.com. 60 A 192.0.2.222");
    nsupdate(&named, "update delete www.example.com. A 192.0.2.1");
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 4, "{said}");
    lines.push("web2.example.com. 60 TXT \"beside\"".to_owned());
    lines.sort();
    assert_eq!(all(&named), lines, "drift is put right, and their record stays");
    // The tag now wants a TXT where somebody has another one, under a name that is Shoal's.
    scratch.apply("host: web2.example.com\ndocument: {address: 192.0.2.2, address6: \"2001:db8::2\", dns: {records: {t: {type: TXT, data: ours}}}}").await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("web2.example.com has a TXT record already that Shoal did not make"), "{said}");
    assert_eq!(all(&named), lines);
    // What others took away is theirs to take: then Shoal's comes.
    nsupdate(
        &named,
        "update delete web2.example.com. TXT\nupdate delete printer.example.com. A\nupdate delete example.com. TXT",
    );
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    let text = all(&named).join("\n");
    for line in [
        "web2.example.com. 3600 TXT \"ours\"",
        "printer.example.com. 3600 A 192.0.2.10",
        "example.com. 3600 TXT \"ours\"",
        " MX ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_adopted_is_shoals_and_goes_with_its_tag() {
    if !here("what_is_adopted_is_shoals_and_goes_with_its_tag", &TOOLS) {
        return;
    }
    let (named, scratch) = world(ALLOWED);
    scratch.apply(FLEET).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    nsupdate(&named, "update add web2.example.com. 60 TXT theirs");
    let clashing = "
host: web2.example.com
document: {address: 192.0.2.2, address6: \"2001:db8::2\", dns: {records: {t: {type: TXT, data: ours}}}}
---
host: printer.example.com
document: {address: 192.0.2.10}
---
tag: dns/more
document: {zone: example.com, static: [{type: TXT, data: ours}]}
members: [printer.example.com]
";
    scratch.apply(clashing).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 4, "{said}");
    let before = all(&named);
    let three = ["example.com/@", "example.com/printer", "example.com/web2"];
    assert_eq!(scratch.adopt("example.com", &three[1..]).await, three);
    // What was seen and what is there now differ: nobody agreed to that.
    nsupdate(
        &named,
        "update delete web2.example.com. TXT\nupdate add web2.example.com. 60 TXT \"theirs again\"",
    );
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 4, "{said}");
    let changed = |lines: Vec<String>, from: &str, to: &str| -> Vec<String> {
        let mut lines: Vec<String> = lines.into_iter().map(|line| line.replace(from, to)).collect();
        lines.sort();
        lines
    };
    let lines =
        changed(before, "printer.example.com. 600 A 192.0.2.9", "printer.example.com. 3600 A 192.0.2.10");
    let lines = changed(lines, "60 TXT \"theirs\"", "60 TXT \"theirs again\"");
    assert_eq!(all(&named), lines, "{said}");
    assert_eq!(scratch.adopt("example.com", &three[2..]).await, [three[0], three[2]]);
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 4, "{said}");
    assert_eq!(all(&named), changed(lines, "60 TXT \"theirs again\"", "3600 TXT \"ours\""), "{said}");
    // Both went to Shoal, so both go with their sources; the zone's own TXT is still somebody's.
    let bare = "host: web2.example.com\ndocument: {address: 192.0.2.2, address6: \"2001:db8::2\"}\n---\n";
    scratch.apply(&[bare, "tag: dns/more\ndocument: {zone: example.com}\nmembers: []\n"].concat()).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    let mut expected = expected();
    expected.retain(|line| !line.starts_with("printer."));
    assert_eq!(all(&named), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_was_wiped_or_restored_is_made_good() {
    if !here("a_zone_that_was_wiped_or_restored_is_made_good", &TOOLS) {
        return;
    }
    let (named, scratch) = world(ALLOWED);
    scratch.apply(FLEET).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    let zone = all(&named);
    let edited = OTHERS.replace("web1 IN TXT", "web1 IN A 192.0.2.200\nweb1 IN TXT");
    for (other, restored) in [(OTHERS.to_owned(), 9000), (edited, 19_000)] {
        assert!(named.rndc(&["freeze", ZONE]));
        // It writes the file when it gets to it.
        until(|| fs::read_to_string(named.file(ZONE)).is_ok_and(|text| text.contains("web1-a"))).await;
        fs::write(named.file(ZONE), other.replace(" 7 7200", &format!(" {restored} 7200"))).unwrap();
        assert!(named.rndc(&["thaw", ZONE]));
        until(|| serial(&named) == restored).await;
        let (code, said) = scratch.run(&["--once"]);
        assert_eq!(code, 0, "{said}");
        assert_eq!(all(&named), zone);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_to_do_and_changes_nothing() {
    if !here("a_refusal_says_what_to_do_and_changes_nothing", &TOOLS) {
        return;
    }
    for (options, hint) in [
        ("allow-transfer { key k; };", "allow-update"),
        ("allow-update { key k; }; allow-transfer { none; };", "allow-transfer"),
    ] {
        let (named, scratch) = world(options);
        scratch.apply(FLEET).await;
        let (code, said) = scratch.once(1, 1, hint);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(hint) && said.contains("the key k."), "{said}");
        assert!(answers(&named, "www.example.com AAAA").is_empty());
    }
    let (_named, scratch) = world(ALLOWED);
    scratch.apply(FLEET).await;
    fs::write(scratch.path().join("secret"), "d3Jvbmc=").unwrap();
    let (code, said) = scratch.once(1, 1, "same secret");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("same secret"), "{said}");
    fs::write(scratch.path().join("secret"), "not base64: d3Jvbmc=").unwrap();
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code != 0 && said.contains("not base64") && !said.contains("d3Jvbmc"), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_ends_where_it_should() {
    if !here("killed_again_and_again_it_ends_where_it_should", &TOOLS) {
        return;
    }
    let (named, scratch) = world(ALLOWED);
    // A killed holder's claim is short, so that the next one need not wait.
    let config = scratch.path().join("dns.toml");
    fs::write(&config, format!("claim = '3s'\n{}", fs::read_to_string(&config).unwrap())).unwrap();
    for round in 0..25u64 {
        scratch.apply(&FLEET.replace("192.0.2.1}", &format!("192.0.2.{}}}", 100 + round))).await;
        let daemon = Daemon::start(&scratch);
        tokio::time::sleep(std::time::Duration::from_millis(rand::random_range(20..400))).await;
        drop(daemon);
    }
    scratch.apply(FLEET).await;
    let _daemon = Daemon::start(&scratch);
    until_async(async || all(&named) == expected()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_made_is_theirs_also_where_the_tag_wants_the_very_same() {
    if !here("what_others_made_is_theirs_also_where_the_tag_wants_the_very_same", &TOOLS) {
        return;
    }
    let (named, scratch) = world(ALLOWED);
    scratch.apply(FLEET).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    nsupdate(
        &named,
        "update add web2.example.com. 3600 TXT \"mine alone\"\nupdate add txt.example.com. 60 A 192.0.2.77",
    );
    let before = all(&named);
    // The very same TXT; and an alias where an address of theirs stands beside what is Shoal's.
    let txt = "host: web2.example.com\ndocument: {address: 192.0.2.2, address6: \"2001:db8::2\", dns: {records: {t: {type: TXT, data: mine alone}}}}\n";
    let bare = "host: web2.example.com\ndocument: {address: 192.0.2.2, address6: \"2001:db8::2\"}\n";
    let alias = FLEET.replace("type: TXT, data: [\"one\", \"two\"]", "type: CNAME, data: web1");
    assert_ne!(alias, FLEET);
    scratch.apply(&alias).await;
    scratch.apply(txt).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("web2.example.com has a TXT record already that Shoal did not make"), "{said}");
    assert!(said.contains("txt.example.com has a A record already that Shoal did not make"), "{said}");
    assert_eq!(all(&named), before);
    // Nobody gave it to Shoal, so it does not go when the tag does not want it any more.
    scratch.apply(FLEET).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, all(&named)), (0, before.clone()), "{said}");
    // Given to Shoal, it is as before, and then it goes.
    scratch.apply(txt).await;
    assert_eq!(scratch.run(&["--once"]).0, 4);
    assert_eq!(scratch.adopt("example.com", &["example.com/web2"]).await, ["example.com/web2"]);
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, all(&named)), (0, before.clone()), "{said}");
    scratch.apply(bare).await;
    let (code, said) = scratch.run(&["--once"]);
    let left: Vec<String> = before.into_iter().filter(|line| !line.contains("mine alone")).collect();
    assert_eq!((code, all(&named)), (0, left), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_took_the_place_of_shoals_stays_when_the_tag_goes() {
    if !here("what_took_the_place_of_shoals_stays_when_the_tag_goes", &TOOLS) {
        return;
    }
    let (named, scratch) = world(ALLOWED);
    scratch.apply(FLEET).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    // An address where Shoal had an alias, and an alias where it had addresses.
    nsupdate(
        &named,
        "update delete web1-a.example.com. CNAME\nupdate add web1-a.example.com. 60 A 192.0.2.77\n\
         update delete www.example.com. A\nupdate delete www.example.com. AAAA\n\
         update add www.example.com. 60 CNAME elsewhere.example.net.",
    );
    let theirs = ["web1-a.example.com. 60 A 192.0.2.77", "www.example.com. 60 CNAME elsewhere.example.net."];
    let before = all(&named);
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, all(&named)), (4, before), "{said}");
    scratch
        .apply("tag: dns/example.com\ndocument: {soa: {primary: ns9.example.net.}}\nmembers: []\n---\ntag: dns/www\ndocument: {zone: example.com, name: www}\nmembers: []\n")
        .await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, all(&named)), (0, whole(&theirs)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_do_not_fit_into_a_message_go_in_several() {
    if !here("changes_that_do_not_fit_into_a_message_go_in_several", &TOOLS) {
        return;
    }
    const BY_ADDRESS: &str = "allow-update { 127.0.0.1; }; allow-transfer { 127.0.0.1; key k; };";
    for options in [ALLOWED, BY_ADDRESS] {
        let (named, scratch) = world(options);
        if options == BY_ADDRESS {
            scratch.configure(&format!("[agent.update]\nserver = '{}'\n", named.address));
        }
        // 70 addresses each: a hundred such names take twice what a message holds.
        let sets: String = (0..130)
            .map(|n| {
                let data: Vec<String> = (0..70).map(|at| format!("10.0.{n}.{at}")).collect();
                format!("    - {{name: many{n}, type: A, data: [{}]}}\n", data.join(", "))
            })
            .collect();
        let long: String = ["TXT", "TYPE65280"]
            .map(|rtype| {
                let data = if rtype == "TXT" {
                    "x".repeat(40_000)
                } else {
                    format!("\\# 40000 {}", "ab".repeat(40_000))
                };
                format!("    - {{name: long, type: {rtype}, data: '{data}'}}\n")
            })
            .concat();
        let tag = |sets: &str| {
            format!(
                "tag: dns/example.com\ndocument:\n  soa: {{primary: ns9.example.net.}}\n  static:\n{sets}members: []\n"
            )
        };
        scratch.apply(&tag(&[sets.clone(), long].concat())).await;
        let (code, said) = scratch.once(5, 1, "all that stands under long.example.com");
        // One name that no message holds costs that name, and says so.
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("all that stands under long.example.com and all that is to come"), "{said}");
        let lines = all(&named);
        assert_eq!(lines.iter().filter(|line| line.contains(" A 10.0.")).count(), 130 * 70, "{said}");
        assert!(!lines.iter().any(|line| line.starts_with("long.")));
        scratch.apply(&tag(&sets)).await;
        let (code, said) = scratch.run(&["--once"]);
        assert_eq!(code, 0, "{said}");
    }
}
