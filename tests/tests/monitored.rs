//! A real inventory in front of real monitoring servers: they show the hosts, services and targets that the inventory says, and no others.
//!
//! The names and addresses are other people's: nothing here talks to them. What Nagios calls is `/bin/true`, Icinga checks its
//! configuration and does not run, and Prometheus asks a proxy that is not there.
#![allow(clippy::print_stdout, reason = "what cannot run says so")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::process::{Process, output};
use shoal_tests::swarm::repository;
use shoal_tests::{binaries, ports, wait};

const PATIENCE: Duration = Duration::from_secs(180);

/// What the inventory says of one host that monitoring reaches.
struct Expected {
    /// Its checks, by name.
    checks: BTreeSet<String>,
    /// Warning and critical number of processes, where NRPE counts them.
    processes: Option<(String, String)>,
    /// Its TCP ports.
    ports: BTreeSet<u64>,
}

/// Read from the inventory alone, without anything of Shoal's.
fn expected(inventory: &Path) -> Result<BTreeMap<String, Expected>> {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(inventory)?)?;
    let vars = all["_meta"]["hostvars"].as_object().context("hostvars")?;
    let numbers = |list: &Value| -> BTreeSet<u64> {
        let one = |port: &Value| port.as_u64().or_else(|| port.as_str()?.parse().ok());
        list.as_array().into_iter().flatten().filter_map(one).collect()
    };
    let reached = vars.iter().filter(|(_, vars)| vars["nagios_Can_Connect"] == true);
    let one = |(name, vars): (&String, &Value)| {
        let ports = numbers(&vars["tcp_ports"]);
        let services = vars["nagios_Check_Services"].as_object().context("nagios_Check_Services")?;
        let checks = services.iter().filter(|(_, meant)| **meant == true).map(|(name, _)| name.clone());
        let tcp = ports.iter().map(|port| format!("tcp-{port}"));
        let udp = numbers(&vars["udp_ports"]).into_iter().map(|port| format!("udp-{port}"));
        let threshold = |name: &str| vars[name].to_string().trim_matches('"').to_owned();
        let counted = services.get("nrpe") == Some(&Value::Bool(true));
        let processes = counted.then(|| (threshold("nrpe_procs_warn"), threshold("nrpe_procs_crit")));
        let checks = checks.chain(tcp).chain(udp).chain(counted.then(|| "procs".to_owned())).collect();
        Ok((name.clone(), Expected { checks, processes, ports }))
    };
    reached.map(one).collect()
}

#[test]
fn monitoring_servers_show_what_the_inventory_says() -> Result<()> {
    let name = "monitoring_servers_show_what_the_inventory_says";
    let skipped = |why: &str| {
        println!("SKIPPED: {name}: {why}");
        Ok(())
    };
    let named = std::env::var_os("SHOAL_FLEET").map(PathBuf::from);
    let inventory =
        named.unwrap_or_else(|| repository().join("../shared/data/fedora")).join("inventory.json");
    if !inventory.exists() {
        return skipped("no inventory (SHOAL_FLEET names its folder)");
    }
    if let Some(missing) = ["nagios4", "icinga2", "prometheus", "promtool"]
        .iter()
        .find(|program| binaries::system(program).is_none())
    {
        return skipped(&format!("{missing} is not installed"));
    }
    let expected = expected(&inventory)?;
    ensure!(expected.len() > 300, "the inventory has {} hosts that are monitored", expected.len());
    let dir = tempfile::Builder::new().prefix("shoal-monitored-").tempdir()?;
    let out = dir.path().join("out");
    let mut script = Command::new(repository().join("tests/fleet"));
    script.arg("--inventory").arg(&inventory).arg("--out").arg(&out).env_remove("SHOAL_STORE");
    script.arg("--mapping").arg(repository().join("deploy/example/fedora/mapping.yaml"));
    let said = output(&mut script, &[0])?;
    let services: usize = expected.values().map(|host| host.checks.len()).sum();
    let made = format!("{} hosts, {services} services", expected.len());
    ensure!(said.matches(&made).count() == 2, "not {made} in Nagios and Icinga: {said}");
    nagios(&out, dir.path(), &expected)?;
    icinga(&out, &expected)?;
    prometheus(&out, dir.path(), &expected)
}

/// The blocks `KIND {` of one of Nagios' own files.
fn blocks(path: &Path, kind: &str) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim_start_matches("define ") == format!("{kind} {{") {
            let fields = lines.by_ref().take_while(|line| *line != "}");
            let pair = |line: &str| {
                line.split_once(['\t', '='])
                    .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            };
            found.push(fields.filter_map(pair).collect());
        }
    }
    found
}

fn nagios(out: &Path, dir: &Path, expected: &BTreeMap<String, Expected>) -> Result<()> {
    let program = binaries::system("nagios4").context("nagios4")?;
    let config = out.join("nagios/nagios.cfg");
    output(Command::new(&program).arg("-v").arg(&config), &[0])?;
    let mut server = Process::start("nagios", dir, Command::new(program).arg(&config))?;
    let name = |fields: &BTreeMap<String, String>| {
        format!("{} {}", fields["host_name"], fields.get("service_description").map_or("", |name| name))
    };
    let shown = |kind: &str| -> BTreeSet<String> {
        blocks(&out.join("nagios/status.dat"), kind).iter().map(name).collect()
    };
    let hosts: BTreeSet<String> = expected.keys().map(|host| format!("{host} ")).collect();
    let of = |(host, expected): (&String, &Expected)| -> Vec<String> {
        expected.checks.iter().map(|check| format!("{host} {check}")).collect()
    };
    let services: BTreeSet<String> = expected.iter().flat_map(of).collect();
    wait::until("what Nagios shows", PATIENCE, || {
        server.alive()?;
        let (is_hosts, is_services) = (shown("hoststatus"), shown("servicestatus"));
        let differ: Vec<_> = is_hosts
            .symmetric_difference(&hosts)
            .chain(is_services.symmetric_difference(&services))
            .collect();
        ensure!(
            differ.is_empty(),
            "{} differ: {:?}",
            differ.len(),
            differ.iter().take(5).collect::<Vec<_>>()
        );
        Ok(())
    })?;
    // Thresholds are each host's own.
    let read = blocks(&out.join("nagios/objects.cache"), "service");
    let procs: BTreeMap<&str, &str> = read
        .iter()
        .filter(|service| service["service_description"] == "procs")
        .map(|service| (service["host_name"].as_str(), service["check_command"].as_str()))
        .collect();
    for (host, Expected { processes, .. }) in expected {
        let command = processes.as_ref().map(|(warn, critical)| format!("check_procs!{warn}!{critical}"));
        let found = procs.get(host.as_str()).copied();
        ensure!(found == command.as_deref(), "{host}: {found:?}, not {command:?}");
    }
    ensure!(procs.len() > 90, "{} hosts count processes", procs.len());
    Ok(())
}

fn icinga(out: &Path, expected: &BTreeMap<String, Expected>) -> Result<()> {
    let config: String = std::fs::read_to_string(out.join("monitoring.toml"))?;
    let config: toml::Table = config.parse()?;
    let check = config["agent"]["icinga2"]["check"].as_array().context("check")?;
    let current = out.join("icinga2/shoal/current").display().to_string();
    let mut words =
        check.iter().filter_map(toml::Value::as_str).map(|word| word.replace("{candidate}", &current));
    let mut command = Command::new(words.next().context("check")?);
    let said = output(command.args(words), &[0])?;
    let services: usize = expected.values().map(|host| host.checks.len()).sum();
    for line in
        [format!("Instantiated {} Hosts.", expected.len()), format!("Instantiated {services} Services.")]
    {
        ensure!(said.contains(&line), "{line} is not in {said}");
    }
    // What it would check of each, by name.
    let mut found = BTreeSet::new();
    for set in std::fs::read_dir(out.join("icinga2/shoal/current"))? {
        for file in std::fs::read_dir(set?.path()).into_iter().flatten() {
            let text = std::fs::read_to_string(file?.path())?;
            for object in text.split("\nobject Service \"").skip(1) {
                let mut words = object.split('"');
                let (name, host) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
                found.insert(format!("{host} {name}"));
            }
        }
    }
    let of = |(host, expected): (&String, &Expected)| -> Vec<String> {
        expected.checks.iter().map(|check| format!("{host} {check}")).collect()
    };
    ensure!(found == expected.iter().flat_map(of).collect(), "Icinga would check something else");
    Ok(())
}

fn prometheus(out: &Path, dir: &Path, expected: &BTreeMap<String, Expected>) -> Result<()> {
    let config = out.join("prometheus/prometheus.yml");
    output(Command::new("promtool").args(["check", "config"]).arg(&config), &[0])?;
    // What it scrapes is other people's: it asks a proxy that nobody runs, and not before an hour.
    let (port, nobody) = (ports::free()?, ports::free()?);
    let text = std::fs::read_to_string(&config)?;
    let safe =
        text.replace("  - job_name: ", &format!("  - proxy_url: http://127.0.0.1:{nobody}\n    job_name: "));
    ensure!(safe.matches("proxy_url").count() == 2, "{safe}");
    let config = dir.join("prometheus.yml");
    std::fs::write(&config, format!("global: {{scrape_interval: 1h}}\n{safe}"))?;
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let mut server = Process::start("prometheus", dir, &mut command)?;
    let of = |(host, expected): (&String, &Expected)| -> Vec<String> {
        let tcp = expected.ports.iter().map(|port| format!("tcp-{port} {host}:{port}"));
        let node = expected.ports.contains(&9100).then(|| format!("node {host}:9100"));
        tcp.chain(node).collect()
    };
    let targets: BTreeSet<String> = expected.iter().flat_map(of).collect();
    wait::until("what Prometheus scrapes", PATIENCE, || {
        server.alive()?;
        let said = get(port, "/api/v1/targets?state=active")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = said["data"]["activeTargets"].as_array().context("activeTargets")?;
        let shown: BTreeSet<String> = all
            .iter()
            .map(|target| {
                format!("{} {}", text(&target["labels"]["job"]), text(&target["labels"]["instance"]))
            })
            .collect();
        ensure!(
            shown == targets && all.len() == targets.len(),
            "{} of {} are there",
            shown.len(),
            targets.len()
        );
        Ok(())
    })?;
    let rules = get(port, "/api/v1/rules")?;
    ensure!(rules["data"]["groups"][0]["rules"][0]["name"] == "PortClosed", "{rules}");
    Ok(())
}

fn get(port: u16, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    let (_, body) = said.split_once("\r\n\r\n").context("an answer")?;
    Ok(serde_json::from_str(body)?)
}
