//! What only Route 53 has: sets that it chooses between, aliases, health checks. At a stand-in, as somebody else sees them.

#![cfg(feature = "route53")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;
#[path = "common/hosted.rs"]
mod hosted;

use hosted::{Hosted, Moto, run, scratch, tags};
use shoal_dns::target::{Names, Settings};

const ZONE: &str = "example.com";

/// Two members with a weight each, of which one has its own; and one of everything else.
const FLEET: &str = "
host: web1.example.com
document: {address: 192.0.2.1}
---
host: web2.example.com
document: {address: 192.0.2.2, dns: {records: {www: {route: {weight: 30}}}}}
---
tag: dns/example.com
document:
  soa: {primary: ns9.example.net.}
  ttl: 60
  records:
    www: {name: www, type: A, data: \"{address}\", route: {weight: 10}, health: \"CHECK\"}
  static:
    - {name: near, type: A, data: 192.0.2.11, route: {set: ireland, region: eu-west-1}}
    - {name: near, type: A, data: 192.0.2.12, route: {set: oregon, region: us-west-2}}
    - {name: geo, type: TXT, data: europe, route: {set: eu, location: {continent: EU}}}
    - {name: geo, type: TXT, data: california, route: {set: ca, location: {country: US, subdivision: CA}}}
    - {name: geo, type: TXT, data: all, route: {set: rest, location: {country: \"*\"}}}
    - {name: fail, type: A, data: 192.0.2.21, route: {set: first, failover: primary}, health: CHECK}
    - {name: fail, type: A, data: 192.0.2.22, route: {set: second, failover: secondary}}
    - {name: multi, type: A, data: 192.0.2.31, route: {set: a, multivalue: true}}
    - {name: multi, type: A, data: 192.0.2.32, route: {set: b, multivalue: true}}
    - {type: A, alias: {name: www}}
    - {name: cdn, type: AAAA, alias: {name: D111.cloudfront.net, zone: Z2FDTNDATAQYW2, evaluate: true}}
members: [web1.example.com, web2.example.com]
";

fn expected(hosted: &Hosted<'_>, check: &str) -> Vec<String> {
    let mut lines = vec![
        "cdn.example.com. AAAA alias d111.cloudfront.net. Z2FDTNDATAQYW2 true".to_owned(),
        format!("example.com. A alias www.example.com. {} false", hosted.id),
        format!(
            "fail.example.com. A 60 192.0.2.21 SetIdentifier=first Failover=PRIMARY HealthCheckId={check}"
        ),
        "fail.example.com. A 60 192.0.2.22 SetIdentifier=second Failover=SECONDARY".to_owned(),
        "geo.example.com. TXT 60 \"all\" SetIdentifier=rest CountryCode=*".to_owned(),
        "geo.example.com. TXT 60 \"california\" SetIdentifier=ca CountryCode=US SubdivisionCode=CA"
            .to_owned(),
        "geo.example.com. TXT 60 \"europe\" SetIdentifier=eu ContinentCode=EU".to_owned(),
        "multi.example.com. A 60 192.0.2.31 SetIdentifier=a MultiValueAnswer=true".to_owned(),
        "multi.example.com. A 60 192.0.2.32 SetIdentifier=b MultiValueAnswer=true".to_owned(),
        "near.example.com. A 60 192.0.2.11 SetIdentifier=ireland Region=eu-west-1".to_owned(),
        "near.example.com. A 60 192.0.2.12 SetIdentifier=oregon Region=us-west-2".to_owned(),
        "web1.example.com. A 60 192.0.2.1".to_owned(),
        "web2.example.com. A 60 192.0.2.2".to_owned(),
        format!(
            "www.example.com. A 60 192.0.2.1 SetIdentifier=web1.example.com Weight=10 HealthCheckId={check}"
        ),
        format!(
            "www.example.com. A 60 192.0.2.2 SetIdentifier=web2.example.com Weight=30 HealthCheckId={check}"
        ),
    ];
    lines.sort();
    lines
}

/// A health check that somebody made.
fn check(moto: &Moto) -> String {
    let body = "<CreateHealthCheckRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><CallerReference>1</CallerReference>\
                <HealthCheckConfig><IPAddress>192.0.2.1</IPAddress><Port>80</Port><Type>HTTP</Type></HealthCheckConfig>\
                </CreateHealthCheckRequest>";
    let (status, answer) = moto.call("route53", hosted::ACCOUNT, "POST", "/2013-04-01/healthcheck", body);
    assert_eq!(status, 201, "{answer}");
    tags(&answer, "Id").pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_alias_and_check_is_made_changed_and_left_alone() {
    let Some(moto) = Moto::start("every_policy_alias_and_check") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let check = check(&moto);
    // Somebody else has a set of the same name and type.
    hosted.change(ZONE, "CREATE www A 60 198.51.100.1 weight=theirs:5");
    let theirs = "www.example.com. A 60 198.51.100.1 SetIdentifier=theirs Weight=5".to_owned();
    let scratch = scratch(&moto, &format!("health = {{ web = '{check}' }}\n"));
    scratch.apply(&FLEET.replace("CHECK", "web")).await;
    moto.reset();
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert!(code == 0 && !said.contains("left out"), "{said}");
    let mut all = expected(&hosted, &check);
    all.push(theirs);
    all.sort();
    assert_eq!(hosted.all(), all, "{said}");
    assert_eq!(moto.calls("ChangeResourceRecordSets"), 1);
    assert_eq!(run(&scratch, &moto, &["--plan"]).0, 0, "what is told is what was wanted");
    // One weight changes, and one set.
    scratch.apply("host: web2.example.com\ndocument: {address: 192.0.2.2, dns: {records: {www: {route: {weight: 0}}}}}\n").await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 0, "{said}");
    let changed: Vec<String> = all.iter().map(|line| line.replace("Weight=30", "Weight=0")).collect();
    assert_eq!(hosted.all(), changed);
    // A check that is not there is the fault of its record, and not of the others.
    let wrong =
        FLEET.replace("CHECK\"}", "nobody\"}").replace("CHECK", "web").replace("192.0.2.31", "192.0.2.33");
    scratch.apply(&wrong).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert!(
        code == 1 && said.contains("www.example.com") && said.contains("NoSuchHealthCheck"),
        "{code} {said}"
    );
    assert!(hosted.all().iter().any(|line| line.contains("192.0.2.33")), "{said}");
}

/// What is left of the fleet when every kind of set is taken out: of two names one set each, of the others none.
const LESS: &str = "
host: web2.example.com
document: {address: 192.0.2.2}
---
tag: dns/example.com
document:
  soa: {primary: ns9.example.net.}
  ttl: 60
  static:
    - {name: near, type: A, data: 192.0.2.11, route: {set: ireland, region: eu-west-1}}
    - {name: multi, type: A, data: 192.0.2.32, route: {set: b, multivalue: true}}
members: [web1.example.com, web2.example.com]
";

#[tokio::test(flavor = "multi_thread")]
async fn sets_and_aliases_are_taken_out_one_by_one() {
    let Some(moto) = Moto::start("sets_and_aliases_are_taken_out_one_by_one") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let check = check(&moto);
    hosted.change(ZONE, "CREATE www A 60 198.51.100.1 weight=theirs:5");
    let scratch = scratch(&moto, &format!("health = {{ web = '{check}' }}\n"));
    scratch.apply(&FLEET.replace("CHECK", "web")).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all().len()), (0, expected(&hosted, &check).len() + 1), "{said}");
    scratch.apply(LESS).await;
    moto.reset();
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 0, "{said}");
    let left = [
        "multi.example.com. A 60 192.0.2.32 SetIdentifier=b MultiValueAnswer=true",
        "near.example.com. A 60 192.0.2.11 SetIdentifier=ireland Region=eu-west-1",
        "web1.example.com. A 60 192.0.2.1",
        "web2.example.com. A 60 192.0.2.2",
        "www.example.com. A 60 198.51.100.1 SetIdentifier=theirs Weight=5",
    ];
    assert_eq!(hosted.all(), left, "{said}");
    assert_eq!(moto.calls("ChangeResourceRecordSets"), 1, "as it was told, each is found: {}", moto.state());
    assert_eq!(run(&scratch, &moto, &["--plan"]).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_set_of_another_policy_is_a_clash() {
    let Some(moto) = Moto::start("somebody_elses_set_of_another_policy") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    hosted.change(ZONE, "CREATE www A 60 198.51.100.1 weight=theirs:5");
    let before = hosted.all();
    let scratch = scratch(&moto, "");
    let ours = "{name: www, type: A, data: 192.0.2.1, route: {set: ours, region: eu-west-1}}";
    let tag = "tag: dns/example.com\ndocument:\n  soa: {primary: ns9.example.net.}\n  static:\n";
    scratch.apply(&format!("{tag}    - {ours}\n")).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all()), (4, before), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_that_cannot_stand_together_are_left_out_and_named() {
    let Some(moto) = Moto::start("sets_that_cannot_stand_together") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    scratch
        .apply(
            "
tag: dns/example.com
document:
  soa: {primary: ns9.example.net.}
  static:
    - {name: a, type: A, data: 192.0.2.1, route: {set: one, weight: 1}}
    - {name: a, type: A, data: 192.0.2.2, route: {set: two, region: eu-west-1}}
    - {name: b, type: A, data: 192.0.2.3, route: {set: one, weight: 1, region: eu-west-1}}
    - {name: c, type: A, data: 192.0.2.4, route: {weight: 1}}
    - {name: d, type: A, data: 192.0.2.5, alias: {name: a}}
    - {name: e, type: A, data: 192.0.2.6, route: {set: one, weight: 1}}
    - {name: e, type: A, data: 192.0.2.7, route: {set: one, weight: 2}}
",
        )
        .await;
    let (_, said) = run(&scratch, &moto, &["--once"]);
    for word in [
        "chosen by region",
        "has weight and region",
        "route.set is missing",
        "has data and is an alias",
        "must give way",
    ] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    let only =
        |name: &str, data: &str| format!("{name}.example.com. A 3600 {data} SetIdentifier=one Weight=1");
    assert_eq!(hosted.all(), [only("a", "192.0.2.1"), only("e", "192.0.2.6")]);
}

/// A fenced block of the manual.
fn block(kind: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agents/route53.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("\n```").skip(1).step_by(2);
    let mut blocks = blocks.filter_map(|block| block.split_once('\n'));
    blocks.find(|(found, _)| *found == kind).unwrap().1.to_owned()
}

#[test]
fn every_setting_of_the_examples_is_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/config/dns.toml");
    let installed = std::fs::read_to_string(path).unwrap();
    let (_, installed) = installed.split_once("\n#[agent.aws]").unwrap();
    for text in [block("toml"), format!("[agent.aws]{installed}")] {
        // What stands behind a # is a setting as well, or there is none of that name.
        let all: String =
            text.lines().map(|line| format!("{}\n", line.trim_start_matches(['#', ' ']))).collect();
        let table: toml::Table = toml::from_str(&all).unwrap();
        assert_eq!(table["agent"]["route53"].as_table().unwrap().len(), 4, "{all}");
        let settings: Settings = table["agent"].clone().try_into().unwrap();
        Names::new(settings).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_manual_runs() {
    let Some(moto) = Moto::start("the_example_of_the_manual_runs") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, &format!("health = {{ web = '{}' }}\n", check(&moto)));
    let hosts = "host: web1.example.com\ndocument: {address: 192.0.2.1}\n---\n";
    scratch.apply(&format!("{hosts}{}\nmembers: [web1.example.com]\n", block("yaml"))).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert!(code == 0 && !said.contains("left out"), "{code} {said}");
    // Each of the static ones, and of the member its name and its weighted set.
    assert_eq!(hosted.all().len(), block("yaml").matches("type: ").count() + 1, "{:?}", hosted.all());
}
