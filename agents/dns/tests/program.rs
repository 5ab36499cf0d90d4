//! The program itself on a real database: `--plan`, `--once`, the daemon.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use common::scratch::{Daemon, FILES, Scratch};
use common::{dig, files, free, here, until};
use serde_json::json;
use shoal_core::Edit;

const FLEET: &str = "
host: web1.example.com
document: {address: 192.0.2.1}
---
host: web2.example.com
document: {address: 192.0.2.2, dns: {aliases: [www]}}
---
tag: dns/example.com
document:
  soa: {primary: web1}
  reverse: [2.0.192.in-addr.arpa]
members: [web1.example.com, web2.example.com]
---
tag: dns/2.0.192.in-addr.arpa
document: {soa: {primary: web1.example.com.}}
";

#[tokio::test(flavor = "multi_thread")]
async fn once_writes_the_zones_and_then_nothing() {
    let scratch = Scratch::new(FILES);
    scratch.apply(FLEET).await;
    let (code, plan) = scratch.run(&["--plan"]);
    assert_eq!(code, 3, "{plan}");
    assert!(plan.contains("example.com/web1") && files(&scratch.path().join("zones")).is_empty(), "{plan}");
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(files(&scratch.path().join("zones")), ["2.0.192.in-addr.arpa", "example.com"]);
    let zone = scratch.zone("example.com");
    assert!(zone.contains("www.example.com.\t3600\tIN\tCNAME\tweb2.example.com.\n"), "{zone}");
    assert!(scratch.zone("2.0.192.in-addr.arpa").contains("\tPTR\tweb1.example.com.\n"));
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, scratch.zone("example.com")), (0, zone), "{said}");
    let (code, plan) = scratch.run(&["--plan"]);
    assert_eq!(code, 0, "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_come_go_and_are_renamed() {
    let scratch = Scratch::new(FILES);
    scratch.apply(FLEET).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    let key = |key: &str| key.parse().unwrap();
    scratch
        .commit(vec![Edit::Rename {
            from: key("hosts/web2.example.com"),
            to: key("hosts/app2.example.com"),
            expect: Default::default(),
        }])
        .await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    let zone = scratch.zone("example.com");
    assert!(zone.contains("app2.example.com.\t3600\tIN\tA\t192.0.2.2\n") && !zone.contains("web2"), "{zone}");
    assert!(scratch.zone("2.0.192.in-addr.arpa").contains("\tapp2.example.com.\n"));
    let edit: Edit =
        serde_json::from_value(json!({"edit": "set_state", "host": "app2.example.com", "state": "retired"}))
            .unwrap();
    scratch.commit(vec![edit]).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    assert!(!scratch.zone("example.com").contains("app2"));
    // The hosts' names and addresses go with their tag, and so does the file.
    scratch
        .commit(vec![Edit::Delete { key: key("dns/example.com"), follow: false, expect: Default::default() }])
        .await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(files(&scratch.path().join("zones")), ["2.0.192.in-addr.arpa"]);
    assert!(!scratch.zone("2.0.192.in-addr.arpa").contains("PTR"));
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_by_hand_are_undone_or_only_reported() {
    let report = format!("drift = 'report'\n{FILES}");
    for (config, code) in [(FILES, 0), (report.as_str(), 4)] {
        let scratch = Scratch::new(config);
        scratch.apply(FLEET).await;
        assert_eq!(scratch.run(&["--once"]).0, 0);
        let edited = scratch
            .zone("example.com")
            .replace("192.0.2.1\n", "192.0.2.77\nx.example.com. 5 IN A 192.0.2.78\n");
        fs::write(scratch.path().join("zones/example.com"), &edited).unwrap();
        let (plan_code, plan) = scratch.run(&["--plan"]);
        assert!(plan.contains("drift") && plan.contains("example.com/x"), "{plan_code}: {plan}");
        let (found, said) = scratch.run(&["--once"]);
        assert_eq!(found, code, "{said}");
        assert_eq!(scratch.zone("example.com") == edited, code == 4);
        assert_eq!(scratch.zone("example.com").contains("192.0.2.77"), code == 4);
        // An intended change goes through, and what is only reported stays beside it.
        scratch.apply("{host: web2.example.com, document: {address: 192.0.2.99}}").await;
        let (_, said) = scratch.run(&["--once"]);
        let zone = scratch.zone("example.com");
        assert!(zone.contains("192.0.2.99"), "{said}\n{zone}");
        assert_eq!(
            (zone.contains("192.0.2.77"), zone.contains("192.0.2.78")),
            (code == 4, code == 4),
            "{zone}"
        );
    }
}

fn free_address() -> SocketAddr {
    ([127, 0, 0, 1], free()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_follows_and_the_built_in_server_answers() {
    if !here("the_daemon_follows_and_the_built_in_server_answers", &["dig"]) {
        return;
    }
    let address = free_address();
    let config = format!("claim = '3s'\n[agent.server]\nlisten = '{address}'\nstate = 'DIR/copies'\n");
    let scratch = Scratch::new(&config);
    scratch.apply(FLEET).await;
    let start = || Daemon(scratch.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let mut daemon = start();
    let answers = |expected: &str| {
        dig(address, "+tries=1 web1.example.com A").answer()
            == [format!("web1.example.com. 3600 A {expected}")]
    };
    until(|| answers("192.0.2.1")).await;
    scratch.apply("{host: web1.example.com, document: {address: 192.0.2.50}}").await;
    until(|| answers("192.0.2.50")).await;
    // Killed: its claim has to run out first. Told to end: it writes its copies.
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    let mut daemon = start();
    until(|| answers("192.0.2.50")).await;
    let pid = daemon.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(daemon.0.wait().unwrap().success());
    let copy = scratch.path().join("copies/example.com.copy");
    let old = fs::read(&copy).unwrap();
    // A name that an old copy brings back, and that the ledger has forgotten, goes again.
    let more = "{host: web3.example.com, document: {address: 192.0.2.3}}\n---\n";
    let member = "{tag: dns/www, document: {zone: example.com}, members: [web3.example.com]}\n---\n";
    let gone = "{host: web2.example.com, state: retired, document: {address: 192.0.2.2}}";
    scratch.apply(&[more, member, gone].concat()).await;
    let mut daemon = start();
    let gone = || dig(address, "+tries=1 web2.example.com A").status() == "NXDOMAIN";
    until(gone).await;
    let pid = daemon.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(daemon.0.wait().unwrap().success());
    fs::write(&copy, old).unwrap();
    let daemon = start();
    until(gone).await;
    drop(daemon);
}

#[test]
fn an_address_that_is_none_is_told_so() {
    let scratch = Scratch::new("[agent.server]\nlisten = '127.0.0.1:99999'\n");
    let (code, said) = scratch.run(&["--plan"]);
    assert!(
        code == 2 && said.contains("line 2") && said.contains("an address with a port"),
        "{code}: {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_and_a_preview_open_nothing() {
    // Somebody has the address: whoever tried to listen there would say so.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).unwrap();
    let scratch = Scratch::new(&format!("[agent.server]\nlisten = '{address}'\nstate = 'DIR/copies'\n"));
    scratch.apply(FLEET).await;
    fs::write(scratch.path().join("change.yaml"), "{host: web9.example.com}").unwrap();
    let change = scratch.path().join("change.yaml").display().to_string();
    for (args, code) in [(&["--plan"][..], 3), (&["--preview", &change], 0)] {
        let (found, said) = scratch.run(args);
        assert!(found == code && !said.contains("listen on"), "{args:?}: {found}: {said}");
        assert!(!scratch.path().join("copies").exists(), "{args:?} made the folder of copies");
    }
    // What works says that it cannot.
    let (_, said) = scratch.run(&["--once"]);
    assert!(said.contains("listen on") && scratch.path().join("copies").is_dir(), "{said}");
    drop((tcp, udp));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_beside_a_running_server_sees_what_it_answers() {
    if !here("a_plan_beside_a_running_server_sees_what_it_answers", &["dig"]) {
        return;
    }
    for state in ["state = 'DIR/copies'\n", ""] {
        let address = free_address();
        let scratch = Scratch::new(&format!("[agent.server]\nlisten = '{address}'\n{state}"));
        scratch.apply(FLEET).await;
        let daemon =
            Daemon(scratch.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        for web1 in ["192.0.2.1", "192.0.2.60"] {
            scratch.apply(&format!("{{host: web1.example.com, document: {{address: {web1}}}}}")).await;
            until(|| {
                let both =
                    ["web1.example.com A", &format!("-x {web1}")].map(|words| dig(address, words).answer());
                both[0] == [format!("web1.example.com. 3600 A {web1}")] && both[1].len() == 1
            })
            .await;
            let (code, plan) = scratch.run(&["--plan"]);
            if state.is_empty() {
                // What is only in the other's memory is not known, and not taken for absent.
                assert!(
                    code == 1 && plan.contains("set state") && !plan.contains("create"),
                    "{code}: {plan}"
                );
            } else {
                assert!(code == 0 && !plan.contains("drift"), "{code}: {plan}");
            }
        }
        drop(daemon);
    }
}

/// No more files may be opened: connections wait, questions by UDP are answered, and nothing spins.
#[tokio::test(flavor = "multi_thread")]
async fn without_files_to_open_it_waits() {
    if !here("without_files_to_open_it_waits", &["dig", "prlimit"]) {
        return;
    }
    let address = free_address();
    let scratch = Scratch::new(&format!("[agent.server]\nlisten = '{address}'\n"));
    scratch.apply(FLEET).await;
    let daemon = Daemon::start(&scratch);
    let answers = |how: &str| dig(address, &format!("{how} web1.example.com A")).answer().len() == 1;
    until(|| answers("+tries=1")).await;
    let proc = format!("/proc/{}", daemon.0.id());
    let open = fs::read_dir(format!("{proc}/fd")).unwrap().count();
    let limit = |files: usize| {
        let (pid, files) = (daemon.0.id().to_string(), format!("--nofile={files}:4096"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &files]).status().unwrap().success());
    };
    limit(open + 2);
    let many: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    // User and system time, in hundredths of a second: the 14th and 15th word, two of them before the last bracket.
    let worked = || {
        let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
        let words = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        words.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    };
    let log = || fs::read_to_string(scratch.path().join("log")).unwrap();
    let told = || log().matches("take a TCP connection").count();
    until(|| told() > 0).await;
    // It goes on answering, and does little else: a loop that spins would take a core.
    let (before, begun) = (worked(), std::time::Instant::now());
    for _ in 0..40 {
        assert!(answers("+notcp"));
    }
    let (ticks, passed) = (worked() - before, begun.elapsed().as_millis() / 10);
    assert!(u128::from(ticks) <= 5 + passed / 3, "{ticks} ticks of {passed}");
    assert_eq!(told(), 1, "{}", log());
    drop(many);
    limit(4096);
    until(|| answers("+tcp +tries=1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_built_or_started_ends_nothing() {
    if !here("a_configuration_that_cannot_be_built_or_started_ends_nothing", &["dig"]) {
        return;
    }
    let (address, web) = (free_address(), free_address());
    let top = format!("claim = '3s'\nlisten = '{web}'\n");
    let server = format!("[agent.server]\nlisten = '{address}'\n");
    let scratch = Scratch::new(&format!("{top}{server}"));
    scratch.apply(FLEET).await;
    let log = scratch.path().join("log");
    let mut daemon = Daemon(scratch.command(&[]).stderr(fs::File::create(&log).unwrap()).spawn().unwrap());
    let mut last = 1;
    let mut answers = async || {
        last += 1;
        scratch.apply(&format!("{{host: web1.example.com, document: {{address: 192.0.2.{last}}}}}")).await;
        let wanted = [format!("web1.example.com. 3600 A 192.0.2.{last}")];
        until(|| dig(address, "+tries=1 web1.example.com A").answer() == wanted).await;
    };
    answers().await;
    let metrics = || {
        let mut stream = std::net::TcpStream::connect(web).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let both = format!("{top}{server}[agent.bind]\ndirectory = '/nowhere'\n");
    let no_folder = format!("{top}{server}state = '{}'\n", file.display());
    for (config, says) in [(both, "an agent has one target"), (no_folder, "back to the old configuration")] {
        scratch.configure(&config);
        until(|| fs::read_to_string(&log).unwrap().contains(says)).await;
        answers().await;
        assert!(metrics().contains("\nshoal_agent_config_ok{agent=\"dns\"} 0\n"), "{}", metrics());
        assert!(daemon.0.try_wait().unwrap().is_none(), "it ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_on_the_same_address_goes_on_where_it_was() {
    if !here("a_reload_on_the_same_address_goes_on_where_it_was", &["dig"]) {
        return;
    }
    let address = free_address();
    let config = |resync: &str| {
        format!(
            "claim = '3s'\nresync = '{resync}'\n[agent.server]\nlisten = '{address}'\nstate = 'DIR/copies'\n"
        )
    };
    let scratch = Scratch::new(&config("10m"));
    scratch.apply(FLEET).await;
    let log = scratch.path().join("log");
    let _daemon = Daemon(scratch.command(&[]).stderr(fs::File::create(&log).unwrap()).spawn().unwrap());
    let soa = || dig(address, "+tries=1 example.com SOA").answer();
    for n in 1..4 {
        scratch.apply(&format!("{{host: web1.example.com, document: {{address: 192.0.2.{n}9}}}}")).await;
        let wanted = [format!("web1.example.com. 3600 A 192.0.2.{n}9")];
        until(|| dig(address, "+tries=1 web1.example.com A").answer() == wanted).await;
        let (before, since) = (soa(), fs::read_to_string(&log).unwrap().len());
        scratch.configure(&config(&format!("{n}1m")));
        let said = || fs::read_to_string(&log).unwrap()[since..].to_owned();
        until(|| said().contains("reloading") && said().contains("answering DNS questions")).await;
        assert_eq!(soa(), before);
        // Half a second of a unit that has nothing to put right.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        assert!(!said().contains("restart") && !said().contains("in use"), "{}", said());
        assert_eq!(soa(), before, "{}", said());
    }
}
