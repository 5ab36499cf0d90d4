//! Hosted zones at a stand-in for Route 53 that others write into as well: what is made, in how many calls, and what is left alone.

#![cfg(feature = "route53")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;
#[path = "common/hosted.rs"]
mod hosted;

use common::until_async;
use hosted::{Hosted, Moto, daemon, run, scratch};

const ZONE: &str = "example.com";
const WAIT: [&str; 3] = ["--once", "--wait", "120s"];

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
    - {name: txt, type: TXT, data: [\"one\", \"with \\\"quotes\\\" and ü\"]}
    - {name: \"*.wild\", type: A, data: 192.0.2.7}
members: [web1.example.com, web2.example.com]
";

const OURS: [&str; 8] = [
    "\\052.wild.example.com. A 3600 192.0.2.7",
    "example.com. MX 3600 10 mail.example.net.",
    "txt.example.com. TXT 3600 \"one\"|\"with \\\"quotes\\\" and \\303\\274\"",
    "web1-a.example.com. CNAME 3600 web1.example.com.",
    "web1.example.com. A 3600 192.0.2.1",
    "web2-a.example.com. CNAME 3600 web2.example.com.",
    "web2.example.com. A 3600 192.0.2.2",
    "web2.example.com. AAAA 3600 2001:db8::2",
];

const THEIRS: [&str; 3] = [
    "example.com. TXT 600 \"somebody's\"",
    "printer.example.com. A 600 192.0.2.9",
    "web1.example.com. TXT 600 \"somebody's too\"",
];

fn theirs(hosted: &Hosted<'_>) {
    hosted.change(
        ZONE,
        "CREATE @ TXT 600 \"somebody's\"
         CREATE printer A 600 192.0.2.9
         CREATE web1 TXT 600 \"somebody's too\"",
    );
}

fn whole(ours: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = ours.iter().chain(&THEIRS).map(|&line| line.to_owned()).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn its_records_stand_beside_those_of_others() {
    let Some(moto) = Moto::start("its_records_stand_beside_those_of_others") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    theirs(&hosted);
    let scratch = scratch(&moto, "");
    scratch.apply(FLEET).await;
    assert_eq!(run(&scratch, &moto, &["--plan"]).0, 3);
    assert_eq!(hosted.all(), whole(&[]), "a plan changes nothing");
    moto.reset();
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(hosted.all(), whole(&OURS));
    assert_eq!(moto.calls("ChangeResourceRecordSets"), 1, "all of it is one batch");
    moto.reset();
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, moto.calls("ChangeResourceRecordSets")), (0, 0), "nothing is left to do: {said}");
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
",
        )
        .await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(hosted.all(), whole(&["web2.example.com. A 3600 192.0.2.22"]), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_is_never_changed_and_what_they_change_is_put_right() {
    let Some(moto) = Moto::start("what_others_have_is_never_changed") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    theirs(&hosted);
    hosted.change(ZONE, "CREATE web1 A 600 192.0.2.66");
    let scratch = scratch(&moto, "");
    scratch.apply(FLEET).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("example.com/web1 is there already"), "{said}");
    assert!(hosted.all().contains(&"web1.example.com. A 600 192.0.2.66".to_owned()));
    assert!(hosted.all().contains(&OURS[6].to_owned()), "the others are made: {said}");
    // A person lets Shoal have it.
    scratch.adopt(ZONE, &["example.com/web1"]).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(hosted.all(), whole(&OURS));
    // Somebody changes one of ours, writes another in another way, and takes one out.
    hosted.change(
        ZONE,
        "UPSERT web2 A 60 192.0.2.67
         UPSERT web2 AAAA 3600 2001:0DB8:0:0::2
         DELETE web1-a CNAME 3600 web1.example.com.",
    );
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 0, "{said}");
    let same = "web2.example.com. AAAA 3600 2001:0DB8:0:0::2".to_owned();
    assert!(hosted.all().contains(&same), "what only looks different stays: {:?}", hosted.all());
    assert_eq!(hosted.all().len(), whole(&OURS).len());
    // What is written otherwise can be taken out all the same.
    scratch.apply("host: web2.example.com\ndocument: {address: 192.0.2.2}\n").await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 0, "{said}");
    assert!(!hosted.all().contains(&same), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_records_are_ten_calls_and_one_is_one() {
    let Some(moto) = Moto::start("ten_thousand_records_are_ten_calls_and_one_is_one") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    for first in (0..10_000).step_by(500) {
        let hosts = (first..first + 500).map(|n| {
            format!("host: h{n:05}.example.com\ndocument: {{address: 10.0.{}.{}}}\n", n / 250, n % 250 + 1)
        });
        scratch.apply(&hosts.collect::<Vec<_>>().join("---\n")).await;
    }
    let mut zone =
        "tag: dns/example.com\ndocument: {soa: {primary: ns9.example.net.}, ttl: 60}\nmembers:\n".to_owned();
    zone.extend((0..10_000).map(|n| format!("  - h{n:05}.example.com\n")));
    scratch.apply(&zone).await;
    moto.reset();
    let (code, said) = run(&scratch, &moto, &WAIT);
    assert_eq!(code, 0, "{said}");
    // A batch has room for 1,000 records.
    assert_eq!(moto.calls("ChangeResourceRecordSets"), 10_000_u64.div_ceil(1_000));
    assert_eq!(moto.calls("ListResourceRecordSets"), 1, "an empty zone is one page");
    assert_eq!(hosted.all().len(), 10_000);
    // A daemon has looked at all of it, page by page.
    moto.reset();
    let _daemon = daemon(&scratch, &moto);
    until_async(async || moto.calls("ListResourceRecordSets") >= 10_002_u64.div_ceil(300)).await;
    until_async(async || scratch.status().await.contains("\"behind\":[]")).await;
    moto.reset();
    scratch.apply("host: h00007.example.com\ndocument: {address: 192.0.2.7}\n").await;
    until_async(async || moto.calls("ChangeResourceRecordSets") > 0).await;
    until_async(async || scratch.status().await.contains("\"behind\":[]")).await;
    let state = moto.state();
    assert_eq!(state["calls"], serde_json::json!({"ChangeResourceRecordSets": 1}), "no look, one call");
    assert!(hosted.all().contains(&"h00007.example.com. A 60 192.0.2.7".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_texts_are_as_few_calls_as_their_characters_allow() {
    let Some(moto) = Moto::start("long_texts_are_as_few_calls_as_their_characters_allow") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    let mut zone =
        "tag: dns/example.com\ndocument:\n  soa: {primary: ns9.example.net.}\n  static:\n".to_owned();
    let text = "x".repeat(250);
    zone.extend((0..200).map(|n| format!("    - {{name: t{n:03}, type: TXT, data: {text}}}\n")));
    scratch.apply(&zone).await;
    moto.reset();
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all().len()), (0, 200), "{said}");
    // With its quotes each has 252 characters; a batch has room for 32,000, and for all of them by their number.
    assert_eq!(moto.calls("ChangeResourceRecordSets"), (200_u64 * 252).div_ceil(32_000), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn which_hosted_zone_is_meant_is_never_guessed() {
    let Some(moto) = Moto::start("which_hosted_zone_is_meant_is_never_guessed") else { return };
    let scratch = scratch(&moto, "");
    scratch.apply(FLEET).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert!(code == 1 && said.contains("none of this name"), "{code} {said}");
    let (public, private) = (Hosted::public(&moto, ZONE), Hosted::private(&moto, ZONE));
    scratch.configure(&hosted::configuration(&moto, "[agent.route53]\nprivate = true\nrate = 500\n"));
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!((private.all().len(), public.all().len()), (OURS.len(), 0));
    // Of two that it may be, one has to be named; and a name for the wrong one is seen.
    let second = Hosted::private(&moto, ZONE);
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert!(code == 1 && said.contains(&private.id) && said.contains(&second.id), "{code} {said}");
    let zones =
        |id: &str| format!("[agent.route53]\nprivate = true\nrate = 500\nzones = {{ '{ZONE}' = '{id}' }}\n");
    scratch.configure(&hosted::configuration(&moto, &zones(&public.id)));
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert!(code != 0 && said.contains("it is public"), "{code} {said}");
    assert_eq!((second.all().len(), public.all().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_for_another_account() {
    let Some(moto) = Moto::start("a_role_is_assumed_for_another_account") else { return };
    let theirs = Hosted::make(&moto, ZONE, "210987654321", "");
    let scratch = scratch(&moto, "");
    let config = format!(
        "[agent.aws]\nendpoint = '{}'\nregion = 'us-east-1'\nrole_arn = 'arn:aws:iam::210987654321:role/dns'\n\
         external_id = 'shoal'\n[agent.route53]\nrate = 500\n",
        moto.url()
    );
    scratch.configure(&config);
    scratch.apply(FLEET).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!((theirs.all().len(), moto.calls("AssumeRole")), (OURS.len(), 1));
}
