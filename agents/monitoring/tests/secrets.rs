//! Secrets of the node: what needs them gets them, and nothing that Shoal writes or says holds one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Daemon, Icinga, Nagios, Prometheus, Scratch, has, here, icinga_here, until};
use serde_json::json;

/// Says what it was given, so that nobody who reads it knows what that was.
const LIBRARY: &str = "
define command {
 command_name check_secret
 command_line /bin/sh -c 'printf %s \"$$1\" | sha256sum' - \"$ARG1$\"
}
";

const FLEET: &str = "
host: web1.example.com
document: {address: 192.0.2.1}
---
tag: monitoring/base
document:
  checks:
    snmp: {command: check_secret, args: ['secret:snmp', '{name}']}
    plain: {command: check_echo, args: [plain]}
members: [web1.example.com]
";

fn digest(text: &str) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    said.trim().to_owned()
}

/// All regular files below a folder that hold one of these texts, links not followed; by their paths in it.
fn holding(folder: &Path, texts: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        // What was before is removed meanwhile.
        for entry in fs::read_dir(at).into_iter().flatten() {
            let entry = entry.unwrap();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let Ok(octets) = fs::read(entry.path()) else { continue };
                let holds = |text: &&str| octets.windows(text.len()).any(|part| part == text.as_bytes());
                if texts.iter().any(holds) {
                    found.insert(entry.path().strip_prefix(folder).unwrap().display().to_string());
                }
            }
        }
    }
    found
}

/// A server whose library has a command for secrets, and which reads Shoal's file of them.
fn nagios() -> Nagios {
    let nagios = Nagios::new();
    let add = |name: &str, more: &str| {
        let text = fs::read_to_string(nagios.path(name)).unwrap();
        fs::write(nagios.path(name), text + more).unwrap();
    };
    add("library.cfg", LIBRARY);
    let line = format!("resource_file={}\n", nagios.path("shoal/current/secrets.resource").display());
    add("nagios.cfg", &line);
    nagios
}

/// The configuration with secrets of these names in files of the folder `node`.
fn with_secrets(table: &str, node: &Path, names: &[&str]) -> String {
    let place = |name: &&str| format!("{name} = {{ file = '{}' }}\n", node.join(name).display());
    format!("{table}\n[secrets]\n{}", names.iter().map(place).collect::<String>())
}

fn checked(nagios: &Nagios, host: &str, name: &str, digest: &str) {
    until("a check with the secret", || {
        nagios.tell(&format!("SCHEDULE_FORCED_SVC_CHECK;{host};{name};1"));
        std::thread::sleep(std::time::Duration::from_millis(500));
        nagios.output(host, name) == digest
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn nagios_gets_secrets_and_no_object_holds_one() {
    if !here("nagios_gets_secrets_and_no_object_holds_one") {
        return;
    }
    let (mut nagios, node) = (nagios(), tempfile::tempdir().unwrap());
    let (old, new) = ("pl4nted-C0mmunity #1;x", "pl4nted-Rotated&2");
    fs::write(node.path().join("snmp"), format!("{old}\n")).unwrap();
    let scratch = Scratch::new(&with_secrets(&nagios.table(), node.path(), &["snmp", "late", "odd"]));
    scratch.apply(FLEET).await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    nagios.accepts().unwrap();
    nagios.start();
    scratch.converge();
    assert_eq!(
        nagios.service("web1.example.com", "snmp")["check_command"],
        "check_secret!$USER256$!web1.example.com"
    );
    checked(&nagios, "web1.example.com", "snmp", &digest(old));
    let file = nagios.path("shoal/current/secrets.resource");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    let held = holding(nagios.path("").as_path(), &[old]);
    assert!(held.len() == 1 && held.iter().all(|path| path.ends_with("/secrets.resource")), "{held:?}");

    // A rotated secret is taken over.
    fs::write(node.path().join("snmp"), new).unwrap();
    assert_eq!(scratch.run(&["--plan"]).0, 3);
    scratch.converge();
    checked(&nagios, "web1.example.com", "snmp", &digest(new));
    assert!(holding(nagios.path("").as_path(), &[old]).is_empty(), "the old one is still there");

    // What cannot be had harms the check that needs it, and no other.
    fs::write(node.path().join("odd"), "pl4nted'quote").unwrap();
    let more = FLEET.replace(
        "    plain:",
        "    late: {command: check_secret, args: ['secret:late']}\n    odd: {command: check_secret, args: ['secret:odd']}\n    \
         none: {command: check_secret, args: ['secret:none']}\n    bad: {command: check_echo, args: ['secret:']}\n    \
         more: {command: check_echo, args: [more]}\n    plain:",
    );
    scratch.apply(&more).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("secret:late") && !said.contains("pl4nted"), "{code} {said}");
    assert!(scratch.status().await.contains("a secret is named as secret:NAME"));
    for bad in ["late", "odd", "none", "bad"] {
        assert!(nagios.service("web1.example.com", bad).is_empty(), "{bad}");
    }
    assert_eq!(nagios.service("web1.example.com", "more")["check_command"], "check_echo!more");
    // One that cannot be read any more goes on as it was.
    fs::remove_file(node.path().join("snmp")).unwrap();
    fs::write(node.path().join("late"), "pl4nted-late").unwrap();
    scratch.run(&["--once"]);
    assert_eq!(nagios.service("web1.example.com", "late")["check_command"], "check_secret!$USER255$");
    checked(&nagios, "web1.example.com", "snmp", &digest(new));
    checked(&nagios, "web1.example.com", "late", &digest("pl4nted-late"));

    // A file of secrets that somebody damaged is made anew, with all that refers to it.
    fs::write(node.path().join("snmp"), new).unwrap();
    scratch.apply(FLEET).await;
    scratch.converge();
    fs::write(&file, "# nothing\n").unwrap();
    scratch.converge();
    checked(&nagios, "web1.example.com", "snmp", &digest(new));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_line_for_them_the_check_is_left_out() {
    if !here("without_a_line_for_them_the_check_is_left_out") {
        return;
    }
    let (nagios, node) = (Nagios::new(), tempfile::tempdir().unwrap());
    fs::write(node.path().join("snmp"), "pl4nted").unwrap();
    let table = format!("{}tell = false\n", nagios.table());
    let scratch = Scratch::new(&with_secrets(&table, node.path(), &["snmp"]));
    scratch.apply(FLEET).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("has no line resource_file="), "{code} {said}");
    nagios.accepts().unwrap();
    assert!(holding(nagios.path("").as_path(), &["pl4nted"]).is_empty());
    assert!(nagios.files().values().any(|(_, text)| text.contains("check_echo!plain")));
}

#[tokio::test(flavor = "multi_thread")]
async fn icinga_gets_secrets_and_no_object_holds_one() {
    if !icinga_here("icinga_gets_secrets_and_no_object_holds_one") {
        return;
    }
    let (mut icinga, node) = (Icinga::new(), tempfile::tempdir().unwrap());
    let more = "object CheckCommand \"check_secret\" { command = [ \"/bin/sh\", \"-c\", \"printf %s \\\"$$1\\\" | sha256sum\", \"-\", \"$arg1$\" ] }\n";
    let config = fs::read_to_string(icinga.path("icinga2.conf")).unwrap();
    fs::write(icinga.path("icinga2.conf"), format!("{more}{config}")).unwrap();
    let (old, new) = ("pl4nted community #1;x", "pl4nted-Rotated&2");
    fs::write(node.path().join("snmp"), old).unwrap();
    let scratch = Scratch::new(&with_secrets(&icinga.table(), node.path(), &["snmp", "late"]));
    scratch.apply(FLEET).await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    icinga.accepts().unwrap();
    icinga.start();
    scratch.converge();
    let checked = |secret: &str| {
        until("a check with the secret", || {
            let body = json!({"type": "Service", "filter": "service.name == \"snmp\"", "force": true});
            icinga.ask("/v1/actions/reschedule-check", &body);
            std::thread::sleep(std::time::Duration::from_millis(500));
            let result = icinga.objects("services")["web1.example.com!snmp"]["last_check_result"].clone();
            result["output"].as_str().is_some_and(|output| output.trim() == digest(secret))
        });
    };
    checked(old);
    // Neither what an object says nor a variable shows it, nor what the server writes down of them.
    let said: Vec<serde_json::Value> =
        icinga.objects("services").into_values().map(|mut service| service["vars"].take()).collect();
    let shown = format!("{said:?} {:?}", icinga.ask("/v1/variables", &json!(null)));
    assert!(shown.contains("ShoalSecret") && !shown.contains("pl4nted"));
    // Its last result has the command line, as `ps` does: that is the server's own file, for it alone.
    let mut held = holding(icinga.path("").as_path(), &[old]);
    held.retain(|path| !path.ends_with("icinga2.state"));
    assert!(held.len() == 1 && held.iter().all(|path| path.ends_with("/secrets.conf")), "{held:?}");
    fs::write(node.path().join("snmp"), new).unwrap();
    scratch.converge();
    checked(new);
    scratch
        .apply(&FLEET.replace("plain:", "late: {command: check_secret, args: ['secret:late']}\n    plain:"))
        .await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("secret:late"), "{code} {said}");
    assert!(!icinga.services().contains("web1.example.com!late"));
}

/// Answers one scrape after the other, and says with which authorisation each came.
fn scraped() -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut part = [0; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut part) {
                    Ok(size) if size > 0 => request.extend_from_slice(&part[..size]),
                    _ => break,
                }
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let header = text.lines().find_map(|line| line.strip_prefix("Authorization: "));
            if tell.send(header.unwrap_or("none").to_owned()).is_err() {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nup_there 1\n");
        }
    });
    (port, hear)
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_asks_with_the_secret() {
    if !has("prometheus_asks_with_the_secret", "prometheus") {
        return;
    }
    let (port, hear) = scraped();
    let prometheus = Prometheus::start(
        "scrape_configs:
  - job_name: plain
    file_sd_configs: [{files: ['DIR/shoal-*.json']}]
    relabel_configs: [{source_labels: [__meta_shoal_authorization], regex: .+, action: drop}]
  - job_name: app_token
    authorization: {credentials_file: DIR/credentials/app_token}
    file_sd_configs: [{files: ['DIR/shoal-*.json']}]
    relabel_configs: [{source_labels: [__meta_shoal_authorization], regex: app_token, action: keep}]
",
    );
    let (folder, node) = (prometheus.targets_folder(), tempfile::tempdir().unwrap());
    fs::write(node.path().join("app_token"), "pl4nted-token\n").unwrap();
    let table = format!("[agent.prometheus]\ndirectory = '{}'\n", folder.display());
    let scratch = Scratch::new(&with_secrets(&table, node.path(), &["app_token", "late"]));
    let fleet = format!(
        "host: web1.example.com\ndocument: {{address: 127.0.0.1}}\n---\ntag: monitoring/metrics\ndocument:\n  scrape:\n    \
         app: {{port: {port}, interval: 1, authorization: 'secret:app_token'}}\n    node: {{port: 9100, interval: 3600}}\n\
         members: [web1.example.com]\n"
    );
    scratch.apply(&fleet).await;
    scratch.converge();
    let asks = |with: &str| {
        until("a scrape with the secret", || {
            hear.recv_timeout(std::time::Duration::from_secs(30)).unwrap() == format!("Bearer {with}")
        });
    };
    asks("pl4nted-token");
    assert_eq!(holding(&folder, &["pl4nted"]), BTreeSet::from(["credentials/app_token".to_owned()]));
    let mode = fs::metadata(folder.join("credentials/app_token")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
    until("both targets", || prometheus.targets().len() == 2);
    // Rotated: the next scrape has it, without a reload.
    fs::write(node.path().join("app_token"), "pl4nted-rotated").unwrap();
    assert_eq!(scratch.run(&["--plan"]).0, 3);
    scratch.converge();
    asks("pl4nted-rotated");
    // One that cannot be had leaves out its job alone.
    let more = fleet.replace("    node:", "    late: {port: 9200, authorization: 'secret:late'}\n    node:");
    scratch.apply(&more).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("secret:late"), "{code} {said}");
    assert_eq!(prometheus.targets().len(), 2);
    // Written where a reference belongs, it is refused and not said again.
    scratch.apply(&fleet.replace("secret:app_token", "pl4nted-in-a-tag")).await;
    let (_, said) = scratch.run(&["--once"]);
    assert!(!said.contains("pl4nted"), "{said}");
    assert!(scratch.status().await.contains("a secret is named here, as secret:NAME, and never written"));
    assert!(!scratch.status().await.contains("pl4nted"));
    // Nobody names it any more: it goes.
    scratch.apply(&fleet.replace(", authorization: 'secret:app_token'", "")).await;
    scratch.converge();
    assert!(!folder.join("credentials").exists());
}

/// Runs the program with a log of everything, and answers its exit code with all that it said.
fn told(scratch: &Scratch, args: &[&str], said: &mut String) -> i32 {
    let output = scratch.command(args).env("SHOAL_LOG", "trace").output().unwrap();
    *said += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    output.status.code().unwrap()
}

/// A host with a check for each of these secrets, and two jobs.
fn fleet_with(names: &[&str]) -> String {
    let checks: String = names
        .iter()
        .map(|name| format!("    {name}: {{command: check_secret, args: ['secret:{name}']}}\n"))
        .collect();
    format!(
        "host: web1.example.com\ndocument: {{address: 192.0.2.1}}\n---\ntag: monitoring/base\ndocument:\n  scrape:\n    \
         app: {{port: 80, authorization: 'secret:app'}}\n    late: {{port: 81, authorization: 'secret:long'}}\n  checks:\n{checks}\
         members: [web1.example.com]\n"
    )
}

/// A checker that fails, and says all that it reads.
fn telltale(nagios: &Nagios) -> String {
    let check = nagios.path("check");
    fs::write(&check, "#!/bin/sh\ncat \"$1\"/*/secrets.resource; exit 1\n").unwrap();
    fs::set_permissions(&check, fs::Permissions::from_mode(0o755)).unwrap();
    format!("['{}', '{}']", check.display(), nagios.path("shoal/gens").display())
}

/// A whole run with secrets everywhere, and a target that fails: what it leaves and says holds none of them.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_whole_run_holds_a_secret() {
    if !here("nothing_of_a_whole_run_holds_a_secret") {
        return;
    }
    let (nagios, node) = (nagios(), tempfile::tempdir().unwrap());
    let (at, targets) = (nagios.path(""), nagios.path("targets"));
    fs::create_dir(&targets).unwrap();
    for (name, value) in
        [("snmp", "pl4nted-one"), ("app", "pl4nted-two"), ("odd", "pl4nted'three"), ("long", "pl4nted\nfour")]
    {
        fs::write(node.path().join(name), value).unwrap();
    }
    let port = common::free();
    let names = ["snmp", "app", "odd", "long", "gone"];
    let config = |check: &str| {
        let table = format!(
            "listen = '127.0.0.1:{port}'\n[agent.nagios]\ndirectory = '{0}/shoal'\nconfig = '{0}/nagios.cfg'\ncheck = {check}\ntell = false\n\
             [agent.prometheus]\ndirectory = '{0}/targets'\n",
            at.display()
        );
        with_secrets(&table, node.path(), &names)
    };
    let scratch = Scratch::new(&config(&telltale(&nagios)));
    scratch.apply(&fleet_with(&names)).await;
    let change = scratch.path().join("change.json");
    let edits =
        json!([{"edit": "put_host", "host": "web2.example.com", "document": {"address": "192.0.2.2"}}]);
    fs::write(&change, edits.to_string()).unwrap();
    let change = change.display().to_string();
    let mut said = String::new();
    told(&scratch, &["--plan"], &mut said);
    told(&scratch, &["--plan", "--output", "json"], &mut said);
    assert_eq!(told(&scratch, &["--once"], &mut said), 1);
    assert!(said.contains("$=secret:snmp"), "the checker said nothing: {said}");
    scratch.configure(&config("['/usr/sbin/nagios4', '-v', '{config}']"));
    told(&scratch, &["--preview", &change], &mut said);
    told(&scratch, &["--preview", &change, "--output", "json"], &mut said);
    let log = fs::File::create(scratch.path().join("log")).unwrap();
    let daemon = scratch.command(&[]).env("SHOAL_LOG", "trace").stdout(Stdio::null()).stderr(log).spawn();
    let daemon = Daemon(daemon.unwrap());
    until("the file of targets", || holding(&targets, &["web1.example.com"]).len() == 1);
    until("the file of secrets", || !holding(&at, &["pl4nted-one"]).is_empty());
    fs::write(node.path().join("snmp"), "pl4nted-five").unwrap();
    scratch.apply("{host: web3.example.com, document: {address: 192.0.2.3}}").await;
    scratch.apply("{tag: monitoring/more, document: {checks: {more: {command: check_secret, args: ['secret:snmp']}}}, members: [web3.example.com]}").await;
    until("the rotated secret", || !holding(&at, &["pl4nted-five"]).is_empty());
    for path in ["/metrics", "/healthz", "/status"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        stream.read_to_string(&mut said).unwrap();
    }
    said += &scratch.status().await;
    drop(daemon);
    for part in ["secret:gone", "secret:odd", "secret:long"] {
        assert!(said.contains(part), "{part} is not in what was said");
    }
    assert!(!said.contains("pl4nted"), "{said}");
    // The database, its journal, the logs, the configuration.
    assert_eq!(holding(scratch.path(), &["pl4nted"]), BTreeSet::new());
    let held = holding(&at, &["pl4nted"]);
    let allowed = |path: &String| path.ends_with("/secrets.resource") || path == "targets/credentials/app";
    assert!(held.len() >= 2 && held.iter().all(allowed), "{held:?}");
}
