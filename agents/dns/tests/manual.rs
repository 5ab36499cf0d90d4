//! The examples of `docs/agents/dns.md`: every document is committed, every record it promises is there, every
//! configuration is one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use common::scratch::{Daemon, FILES, Scratch};
use common::{Named, Primary, SECRET, dig, free, here, tools, until};
use serde_json::json;
use shoal_core::Edit;
use shoal_dns::target::{Listen, Names, ServerKind, ServerSettings, Settings, ZoneFileSettings, ZoneFiles};

/// The fenced blocks of the manual, with what stands after the fence.
fn blocks() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agents/dns.md");
    let text = std::fs::read_to_string(path).unwrap();
    let fences = text.split("\n```").skip(1).step_by(2);
    fences
        .map(|block| block.split_once('\n').map(|(kind, text)| (kind.to_owned(), text.to_owned())).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_give_what_they_promise() {
    let mut scratch = Scratch::new(FILES);
    let mut promised = 0;
    for (kind, text) in blocks() {
        if kind == "yaml" {
            scratch = Scratch::new(FILES);
            scratch.apply(&text).await;
            let (code, said) = scratch.run(&["--once"]);
            assert!(code == 0 && !said.contains("left out"), "{code} {said}");
        } else if let Some(zone) = kind.strip_prefix("zone ") {
            let found = scratch.zone(zone).replace('\t', " ");
            for line in text.lines() {
                assert!(found.lines().any(|l| l == line), "{line} is not in\n{found}");
                promised += 1;
            }
        }
    }
    assert!(promised > 15);
}

/// The configuration of the manual for this target, with places of this test in place of those of a real node.
fn configuration(target: &str, places: &[(&str, String)]) -> String {
    let found = blocks().into_iter().find(|(kind, text)| kind == "toml" && text.contains(target));
    let mut text = found.unwrap().1;
    for (from, to) in places {
        assert!(text.contains(from), "{from} is not in {text}");
        text = text.replace(from, to);
    }
    text
}

/// The first fleet of the manual.
fn fleet() -> String {
    blocks().into_iter().find(|(kind, _)| kind == "yaml").unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_for_bind_runs() {
    if !here("the_configuration_for_bind_runs", &["named", "rndc", "named-checkzone", "dig"]) {
        return;
    }
    let named = Named::start(&[]);
    let rndc = named.delzone()[..3].iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let places = [
        ("/var/lib/bind/shoal", named.zones().display().to_string()),
        ("\"rndc\"", rndc),
        ("127.0.0.1:53", named.address.to_string()),
    ];
    let scratch = Scratch::new(&configuration("[agent.bind]", &places));
    scratch.apply(&fleet()).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(dig(named.address, "www.example.com A").answer().len(), 2);
    assert_eq!(
        dig(named.address, "-x 192.0.2.1").answer(),
        ["1.2.0.192.in-addr.arpa. 300 PTR web1.example.com."]
    );
    let key = "dns/2.0.192.in-addr.arpa".parse().unwrap();
    scratch.commit(vec![Edit::Delete { key, follow: false, expect: Default::default() }]).await;
    // The names in it are another tag's: somebody has to agree.
    assert_eq!(scratch.run(&["--once"]).0, 4);
    assert_eq!(dig(named.address, "-x 192.0.2.1").status(), "NOERROR");
    scratch.approve("2.0.192.in-addr.arpa").await;
    scratch.run(&["--once"]);
    assert_eq!(dig(named.address, "-x 192.0.2.1").status(), "REFUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_for_the_built_in_server_runs() {
    if !here("the_configuration_for_the_built_in_server_runs", &["dig"]) {
        return;
    }
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free()));
    let secondary = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    secondary.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let places = [
        ("127.0.0.1:5300", address.to_string()),
        ("/var/lib/shoal/dns", "DIR/copies".to_owned()),
        ("192.0.2.53:53", secondary.local_addr().unwrap().to_string()),
        ("/etc/shoal/dns.key", "DIR/key".to_owned()),
    ];
    let scratch = Scratch::new(&configuration("[agent.server]", &places));
    std::fs::write(scratch.path().join("key"), SECRET).unwrap();
    scratch.apply(&fleet()).await;
    let _daemon = Daemon::start(&scratch);
    let mut told = [0; 512];
    // The third octet of the header says what it is: NOTIFY, and authoritative.
    assert!(secondary.recv(&mut told).unwrap() > 50 && told[2] == 0b0010_0100, "{told:?}");
    until(|| dig(address, "+tries=1 www.example.com A").answer().len() == 2).await;
    until(|| scratch.path().join("copies/example.com.copy").exists()).await;
}

/// A server with the configuration that the manual wants of it, in front of it an agent with that of the manual.
async fn the_configurations_run(kind: ServerKind, conf: &str, place: &str, control: (&str, &str)) {
    let found = blocks().into_iter().find(|(kind, text)| kind == "text" && text.contains(conf)).unwrap();
    let conf = found.1.replace(place, "DIR/zones").replace("/run/nsd/nsd.ctl", "DIR/ctl");
    let primary = Primary::start_with(kind, &format!("{conf}\n"));
    let table = format!("[agent.{}]", format!("{kind:?}").to_lowercase());
    let quoted =
        |words: Vec<String>| words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let (program, in_a_shell) = control;
    let places = [
        (place, primary.zones().display().to_string()),
        ("127.0.0.1:53", primary.address.to_string()),
        (program, quoted(primary.here(&[program.trim_matches('"').to_owned()]))),
        (in_a_shell, primary.here(&["".to_owned(), in_a_shell.to_owned()])[1].clone()),
    ];
    let places: Vec<_> = places.into_iter().filter(|(from, _)| !from.is_empty()).collect();
    let scratch = Scratch::new(&configuration(&table, &places));
    scratch.apply(&fleet()).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(dig(primary.address, "www.example.com A").answer().len(), 2);
    scratch.apply("{host: web1.example.com, document: {address: 192.0.2.7}}").await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    assert_eq!(primary.web1(), ["192.0.2.7"]);
    let key = "dns/8.b.d.0.1.0.0.2.ip6.arpa".parse().unwrap();
    scratch.commit(vec![Edit::Delete { key, follow: false, expect: Default::default() }]).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    assert_eq!(dig(primary.address, "8.b.d.0.1.0.0.2.ip6.arpa SOA").status(), "REFUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configurations_for_nsd_run() {
    if here("the_configurations_for_nsd_run", tools(ServerKind::Nsd)) {
        the_configurations_run(ServerKind::Nsd, "pattern:", "/var/lib/nsd/shoal", ("\"nsd-control\"", ""))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configurations_for_knot_run() {
    if here("the_configurations_for_knot_run", tools(ServerKind::Knot)) {
        the_configurations_run(
            ServerKind::Knot,
            "template:",
            "/var/lib/knot/shoal",
            ("\"knotc\"", "knotc conf"),
        )
        .await;
    }
}

/// What the manual says of what is left out.
#[test]
fn the_configurations_are_the_defaults() {
    for kind in [ServerKind::Nsd, ServerKind::Knot] {
        let name = format!("{kind:?}").to_lowercase();
        let text = configuration(&format!("[agent.{name}]"), &[]);
        let text = text.split_once('\n').unwrap().1;
        let (needed, _) = text.split_once("# The rest").unwrap();
        let of = |text: &str| format!("{:?}", ZoneFileSettings::new(kind, toml::from_str(text).unwrap()));
        assert_eq!(of(text), of(needed));
        let alone = ZoneFileSettings::new(kind, toml::from_str("directory = 'x'").unwrap());
        let why = ZoneFiles::open(alone).unwrap_err().to_string();
        assert!(
            why.contains(&format!("read [agent.{name}] of the configuration: server is missing")),
            "{why}"
        );
    }
    let both: Settings = toml::from_str("bind = { directory = 'x' }\nknot = { directory = 'x' }").unwrap();
    assert!(Names::new(both).unwrap_err().to_string().contains("an agent has one target"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_for_updates_runs() {
    if !here("the_configuration_for_updates_runs", &["named", "rndc", "dig"]) {
        return;
    }
    let zones = ["example.com", "2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"];
    let named = Named::start_with(&zones, "allow-update { key k; }; allow-transfer { key k; };");
    for zone in zones {
        let text = "$TTL 60\n@ IN SOA a.example. b.example. 1 60 60 60 60\n@ IN NS ns.example.net.\n";
        std::fs::write(named.file(zone), text).unwrap();
        assert!(named.rndc(&["reload", zone]));
        until(|| dig(named.address, &format!("+tries=1 {zone} SOA")).status() == "NOERROR").await;
    }
    let places = [
        ("127.0.0.1:53", named.address.to_string()),
        ("/etc/shoal/dns.key", "DIR/key".to_owned()),
        ("name = \"shoal\"", "name = \"k\"".to_owned()),
    ];
    let scratch = Scratch::new(&configuration("[agent.update]", &places));
    std::fs::write(scratch.path().join("key"), SECRET).unwrap();
    scratch.apply(&fleet()).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(dig(named.address, "www.example.com A").answer().len(), 2);
    assert_eq!(dig(named.address, "-x 192.0.2.1").answer().len(), 1);
}

#[test]
fn without_a_table_it_is_the_built_in_server() {
    let settings: Settings = toml::from_str("").unwrap();
    assert!(settings.bind.is_none() && settings.update.is_none() && settings.server.is_none());
    let Listen::One(address) = ServerSettings::default().listen else { panic!("more than one address") };
    assert_eq!(address.to_string(), "127.0.0.1:5300");
    assert!(ServerSettings::default().state.is_none());
    assert!(matches!(Names::new(settings).unwrap(), Names::Server(_)));
}

/// What the manual says of a pause: of the zone's names, those go on that have no source in the paused tag.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_one_tag_holds_its_names() {
    let scratch = Scratch::new(FILES);
    scratch.apply(&fleet()).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    let pause = Edit::Write {
        key: "pauses/tag/dns/www".parse().unwrap(),
        value: json!({"why": "a test"}).into(),
        expect: Default::default(),
    };
    let change = "{host: web1.example.com, document: {address: 192.0.2.7}}";
    scratch.commit(vec![pause]).await;
    scratch.apply(change).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 4 && said.contains("paused"), "{code} {said}");
    let zone = scratch.zone("example.com").replace('\t', " ");
    assert!(zone.contains("web1.example.com. 300 IN A 192.0.2.7\n"), "{zone}");
    assert!(zone.contains("www.example.com. 30 IN A 192.0.2.1\n"), "{zone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_fleet_leaves_nobody_out() {
    let scratch = Scratch::new(FILES);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/example");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    let all = ["hosts.yaml", "tags.yaml", "dns.yaml"].map(read).join("\n---\n");
    scratch.apply(&all).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    let (code, plan) = scratch.run(&["--plan", "--output", "json"]);
    assert_eq!(code, 0, "{plan}");
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let units = plan["units"].as_array().unwrap();
    assert_eq!(units.len(), 6);
    for unit in units {
        assert_eq!(unit["left_out"], serde_json::json!([]));
    }
}
