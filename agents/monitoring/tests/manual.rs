//! The examples of `docs/agents/monitoring.md`: every document is committed, what it promises stands there, every
//! configuration is one that a real Nagios and the program run with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use common::{Alertmanager, Icinga, Nagios, Prometheus, Scratch, has, here, icinga_here, until};
use shoal_agent::secrets::Secrets;
use shoal_monitoring::Settings;

/// The fenced blocks of the manual, with what stands after the fence.
fn blocks() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agents/monitoring.md");
    let text = std::fs::read_to_string(path).unwrap();
    let fences = text.split("\n```").skip(1).step_by(2);
    fences
        .map(|block| block.split_once('\n').map(|(kind, text)| (kind.to_owned(), text.to_owned())).unwrap())
        .collect()
}

fn block(kind: &str) -> String {
    block_with(kind, "")
}

fn block_with(kind: &str, part: &str) -> String {
    blocks().into_iter().find(|(found, text)| found == kind && text.contains(part)).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_for_prometheus_run() {
    for program in ["prometheus", "prometheus-alertmanager"] {
        if !has("the_examples_for_prometheus_run", program) {
            return;
        }
    }
    let (place, rules) = ("/var/lib/prometheus/shoal", "/var/lib/prometheus/shoal-rules");
    let prometheus =
        Prometheus::start(&(block("prometheus.yml").replace(rules, "RULES").replace(place, "DIR") + "\n"));
    let folder = prometheus.targets_folder();
    let toml = block_with("toml", "[agent.prometheus]")
        .replace(rules, &prometheus.rules_folder().display().to_string())
        .replace(place, &folder.display().to_string())
        .replace("127.0.0.1:9104", "127.0.0.1:0")
        .replace("http://127.0.0.1:9090", &prometheus.url());
    let alertmanager = Alertmanager::start();
    let toml = toml.replace("http://127.0.0.1:9093", &alertmanager.url());
    let scratch = Scratch::new(&toml);
    scratch.apply(&block_with("yaml", "scrape:")).await;
    scratch.apply(&block_with("yaml", "rules:")).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 0 && !said.contains("left out"), "{code} {said}");
    let promised = block("targets");
    assert_eq!(promised.lines().count(), 2);
    let file = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let file = file.filter(|path| path.extension().is_some_and(|end| end == "json")).last().unwrap();
    let made = std::fs::read_to_string(file).unwrap();
    for line in promised.lines() {
        assert!(made.contains(line), "{line} is not in\n{made}");
    }
    until("the targets", || prometheus.targets().len() == 2);
    let promised = block("rules");
    assert!(prometheus.rules().contains(promised.trim()), "{promised}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_for_icinga_run() {
    if !icinga_here("the_examples_for_icinga_run") {
        return;
    }
    let mut icinga = Icinga::new();
    let folder = icinga.path("shoal").display().to_string();
    let place = "/var/lib/icinga2/shoal";
    // The lines of the manual instead of those that it has.
    let user = "object ApiUser \"shoal\"";
    let own = std::fs::read_to_string(icinga.path("icinga2.conf")).unwrap();
    let own =
        own.split("if (!globals.contains").next().unwrap().lines().filter(|line| !line.starts_with(user));
    // Whom it tells, the example says itself.
    let own = own.filter(|line| !line.starts_with("object User"));
    let own: String = own.map(|line| format!("{line}\n")).collect();
    std::fs::write(icinga.path("icinga2.conf"), own + &block("icinga2.conf").replace(place, &folder))
        .unwrap();
    // Where things are, the manual cannot know; what is called what, it has to.
    let manual = block_with("toml", "[agent.icinga2]");
    let places = ["directory", "url", "ca", "password_file", "check", "[agent.icinga2]"];
    let place = |line: &&str| places.iter().any(|place| line.starts_with(place));
    let (gone, left): (Vec<&str>, Vec<&str>) = manual.lines().partition(place);
    assert_eq!(gone.len(), places.len());
    assert!(gone.iter().any(|line| line.contains("\"-D\", \"ShoalCurrent={candidate}\"")));
    let scratch = Scratch::new(&format!("{}{}\n", icinga.table(), left.join("\n")));
    scratch.apply(&block("yaml")).await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    icinga.start();
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 0 && !said.contains("left out"), "{code} {said}");
    let promised = block("icinga2 web1.example.com");
    assert_eq!(promised.split_inclusive("\n}\n").count(), 2);
    let files = icinga.files();
    for object in promised.split_inclusive("\n}\n") {
        assert!(files.values().any(|text| text.contains(object)), "{object}\nis not in\n{files:?}");
    }
    assert!(icinga.services().contains("web1.example.com!http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_and_configurations_run() {
    if !here("the_examples_and_configurations_run") {
        return;
    }
    let mut nagios = Nagios::new();
    // The lines of the manual instead of those that it has.
    let config = nagios.path("nagios.cfg");
    let own = std::fs::read_to_string(&config).unwrap();
    let folder = nagios.path("shoal").display().to_string();
    let manual = block("nagios.cfg").replace("/var/lib/nagios4/shoal", &folder);
    let names: Vec<&str> =
        manual.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert_eq!(names.len(), 4);
    let rest = own.lines().filter(|line| !names.iter().any(|name| line.starts_with(name)));
    let made = rest.chain(manual.lines()).map(|line| format!("{line}\n")).collect::<String>();
    std::fs::write(&config, made).unwrap();
    let toml = block("toml")
        .replace("/var/lib/nagios4/shoal", &folder)
        .replace("/etc/nagios4/nagios.cfg", &config.display().to_string())
        .replace("\"nagios4\"", "\"/usr/sbin/nagios4\"");
    let scratch = Scratch::new(&toml);
    // What every Nagios has.
    let library = std::fs::read_to_string(nagios.path("library.cfg")).unwrap();
    // It tells somebody else than the example.
    let library = [
        ("contact_name ann", "contact_name root"),
        ("members ann", "members root"),
        ("_name ops", "_name admins"),
        ("contact_groups ops", "contact_groups admins"),
    ]
    .iter()
    .fold(library, |text, (theirs, other)| text.replace(theirs, other));
    let ways = ["host", "service"].map(|of| {
        format!("define command {{\n command_name notify-{of}-by-email\n command_line /bin/true\n}}\n")
    });
    std::fs::write(nagios.path("library.cfg"), library + &ways.concat()).unwrap();
    scratch.apply(&block("yaml")).await;
    scratch.apply(&block("yaml people")).await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    nagios.start();
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 0 && !said.contains("left out"), "{code} {said}");
    let told: Vec<_> =
        nagios.all("contact").into_iter().map(|contact| contact["contact_name"].clone()).collect();
    assert_eq!(told, ["ann", "bea", "root"]);
    let mut promised = 0;
    for (kind, text) in blocks() {
        let Some(host) = kind.strip_prefix("nagios ") else { continue };
        let files = nagios.files();
        let made = files.values().find(|(_, made)| made.contains(&format!("host_name {host}\n"))).unwrap();
        for object in text.split_inclusive("\n}\n") {
            assert!(made.1.contains(object.trim_start()), "{object}\nis not in\n{}", made.1);
            promised += 1;
        }
    }
    assert_eq!(promised, 4);
    until("the status", || nagios.services().contains("web1.example.com/http"));
    assert!(!nagios.services().contains("web2.example.com/load"));
}

/// What the manual says of what is left out.
#[test]
fn the_configuration_of_rules_is_the_default() {
    let toml = block_with("toml", "[agent.prometheus]").replace("[agent.", "[");
    let (needed, _) = toml.split_once("# The rest").unwrap();
    let settings = |text: &str| format!("{:?}", toml::from_str::<Settings>(text).unwrap());
    assert_eq!(settings(&toml), settings(&format!("{needed}[prometheus.alertmanager]\n")));
}

/// The same of Icinga.
#[test]
fn the_configuration_of_icinga_is_the_default() {
    let toml = block_with("toml", "[agent.icinga2]").replace("[agent.", "[");
    let (needed, _) = toml.split_once("# The rest").unwrap();
    let settings = |text: &str| format!("{:?}", toml::from_str::<Settings>(text).unwrap());
    assert_eq!(settings(&toml), settings(needed));
}

/// The same of Nagios.
#[test]
fn the_configuration_is_the_default() {
    let toml = block("toml");
    let toml = toml.replace("[agent.nagios]", "[nagios]").replace("[agent]\n", "");
    let (needed, _) = toml.split_once("# The rest").unwrap();
    let settings = |text: &str| toml::from_str::<Settings>(text).unwrap();
    assert_eq!(format!("{:?}", settings(&toml)), format!("{:?}", settings(needed)));
    let without = needed.lines().filter(|line| !line.starts_with("commands")).collect::<Vec<_>>().join("\n");
    assert_eq!(format!("{:?}", settings(&without)), format!("{:?}", settings(needed)));
    let why = settings("").open(Secrets::default()).unwrap_err().to_string();
    assert!(why.contains("[agent.nagios]"), "{why}");
}
