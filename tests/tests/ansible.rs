//! Ansible on our inventory: the script, the plugin, and a real fleet that goes in and comes out again.
#![allow(clippy::print_stdout, reason = "what cannot run says so")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use shoal_client::certificates::{Authority, Wish};
use shoal_tests::binaries::{binary, system};
use shoal_tests::hostdb::Hostdb;
use shoal_tests::process::{Process, output};
use shoal_tests::swarm::repository;
use shoal_tests::{pages, ports, wait};

const FLEET: &str = "\
host: web1.example.com
document: {site: rdu3, port: 80}
---
host: web2.example.com
document: {site: ams1, port: 81, tags: {port: 8081}}
---
host: db1.example.com
document: {site: ams1}
---
tag: tags/web
document: {who: web}
members: [web1.example.com, '@inner']
---
tag: tags/inner
document: {who: inner}
members: [web2.example.com]
---
tag: tags/ams
members: [\"select: site == 'ams1'\"]
";

fn skipped(test: &str, why: &str) -> Result<()> {
    println!("SKIPPED: {test}: {why}");
    Ok(())
}

/// The folder of a real inventory, where there is one.
fn real_fleet() -> Option<PathBuf> {
    let named = std::env::var_os("SHOAL_FLEET").map(PathBuf::from);
    let dir = named.unwrap_or_else(|| repository().join("../shared/data/fedora"));
    dir.join("inventory.json").exists().then_some(dir)
}

fn script() -> PathBuf {
    repository().join("deploy/ansible/shoal-inventory")
}

/// A server with the fleet above.
fn fleet() -> Result<Hostdb> {
    let hostdb = Hostdb::start()?;
    let file = hostdb.write("fleet.yaml", FLEET)?.display().to_string();
    hostdb.shoal(&["apply", "-f", &file, "-m", "fleet"])?;
    Ok(hostdb)
}

/// One of Ansible's programs, with all that it keeps in the scratch folder, failing where an inventory fails.
fn ansible(hostdb: &Hostdb, program: &str) -> Result<Command> {
    let mut command = Command::new(program);
    command.env("PATH", hostdb.path()?).env("SHOAL_STORE", hostdb.url());
    command
        .env("ANSIBLE_HOME", hostdb.dir().join("ansible"))
        .env("ANSIBLE_LOCAL_TEMP", hostdb.dir().join("tmp"));
    command.env("ANSIBLE_INVENTORY_PLUGINS", repository().join("deploy/ansible/inventory_plugins"));
    command.env("ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED", "1").env("ANSIBLE_NOCOLOR", "1");
    Ok(command)
}

/// What Ansible makes of an inventory.
fn listed(hostdb: &Hostdb, inventory: &str, env: &[(&str, &str)]) -> Result<Value> {
    let mut command = ansible(hostdb, "ansible-inventory")?;
    command.args(["-i", inventory, "--list"]).envs(env.iter().copied());
    serde_json::from_str(&output(&mut command, &[0])?).context("what ansible-inventory prints")
}

fn hosts(listed: &Value, group: &str) -> Vec<String> {
    let mut names: Vec<String> = listed[group]["hosts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

fn vars<'l>(listed: &'l Value, host: &str) -> &'l Value {
    &listed["_meta"]["hostvars"][host]
}

#[test]
fn ansible_reads_the_script() -> Result<()> {
    let name = "ansible_reads_the_script";
    if system("ansible-inventory").is_none() || system("ansible").is_none() {
        return skipped(name, "ansible is not installed");
    }
    let mut hostdb = fleet()?;
    let script = script().display().to_string();
    let all = listed(&hostdb, &script, &[])?;
    ensure!(
        all["web"]["children"] == json!(["inner"]) && hosts(&all, "web") == ["web1.example.com"],
        "{all}"
    );
    ensure!(hosts(&all, "ams") == ["db1.example.com", "web2.example.com"], "{all}");
    // The group's variables reach the hosts, the child's over the parent's; the host's own over both.
    ensure!(*vars(&all, "web1.example.com") == json!({"site": "rdu3", "port": 80, "who": "web"}), "{all}");
    ensure!(
        *vars(&all, "web2.example.com") == json!({"site": "ams1", "port": 8081, "who": "inner"}),
        "{all}"
    );
    let some = listed(&hostdb, &script, &[("SHOAL_INVENTORY_WHERE", "site == 'rdu3'")])?;
    let named = some["_meta"]["hostvars"].as_object().context("hostvars")?;
    ensure!(named.keys().collect::<Vec<_>>() == ["web1.example.com"], "{some}");

    // It works with them, group by group, and follows a change.
    let ping = |group: &str| {
        let mut command = ansible(&hostdb, "ansible")?;
        command.args([
            "-i",
            &script,
            group,
            "-m",
            "ping",
            "-c",
            "local",
            "-o",
            "-e",
            "ansible_python_interpreter=python3",
        ]);
        let said = output(&mut command, &[0])?;
        let mut pong: Vec<String> = said
            .lines()
            .filter(|line| line.contains("SUCCESS") && line.contains("pong"))
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect();
        pong.sort();
        Ok::<_, anyhow::Error>(pong)
    };
    ensure!(ping("web")? == ["web1.example.com", "web2.example.com"]);
    hostdb.shoal(&["tag", "tags/inner", "-web2.example.com", "-m", "retag"])?;
    ensure!(ping("web")? == ["web1.example.com"]);

    // A database that does not answer is a failure, and no empty fleet.
    hostdb.kill();
    let mut command = ansible(&hostdb, "ansible-inventory")?;
    let dead = command.args(["-i", &script, "--list"]).output()?;
    let said = String::from_utf8_lossy(&dead.stderr).into_owned();
    ensure!(!dead.status.success() && said.contains("is shoal-hostdb running there?"), "{said}");
    Ok(())
}

#[test]
fn ansible_reads_the_plugin() -> Result<()> {
    if system("ansible-inventory").is_none() {
        return skipped("ansible_reads_the_plugin", "ansible is not installed");
    }
    let mut hostdb = fleet()?;
    let by_script = listed(&hostdb, &script().display().to_string(), &[])?;
    let cache = hostdb.dir().join("cache").display().to_string();
    let url = format!("plugin: shoal\nurl: {}\n", hostdb.url());
    let constructed =
        "where: has(host.port)\nkeyed_groups: [{key: site, prefix: site}]\ncompose: {twice: port * 2}\n";
    let cached =
        format!("cache: true\ncache_plugin: jsonfile\ncache_connection: {cache}\ncache_timeout: 600\n");
    let of = |name: &str, text: &str| Ok::<_, anyhow::Error>(hostdb.write(name, text)?.display().to_string());
    let asks = of("asks/shoal.yml", &url)?;
    let runs = of("runs/shoal.yml", "plugin: shoal\n")?;
    let keeps = of("keeps.shoal.yml", &format!("{url}{constructed}{cached}"))?;
    for file in [&asks, &runs] {
        let by_plugin = listed(&hostdb, file, &[])?;
        ensure!(sorted(&by_plugin) == sorted(&by_script), "{by_plugin}\n{by_script}");
    }
    let some = listed(&hostdb, &keeps, &[])?;
    ensure!(hosts(&some, "site_ams1") == ["web2.example.com"], "{some}");
    let twice = vars(&some, "web2.example.com")["twice"].to_string();
    // What a template gives is text to some versions of Ansible.
    ensure!(twice.trim_matches('"') == "16162", "{some}");

    hostdb.kill();
    ensure!(sorted(&listed(&hostdb, &keeps, &[])?) == sorted(&some), "Ansible's own cache was not used");
    for file in [&asks, &runs] {
        let mut command = ansible(&hostdb, "ansible-inventory")?;
        let dead = command.args(["-i", file, "--list"]).output()?;
        ensure!(!dead.status.success(), "{file} gave something although nobody was there");
    }
    Ok(())
}

/// The examples of the page as they stand.
#[test]
fn the_page_says_what_is_so() -> Result<()> {
    let page = repository().join("docs/ansible.md");
    let dir = tempfile::tempdir()?;
    let ours = binary("shoal")?;
    let ours = ours.parent().context("the folder of our programs")?.display().to_string();
    let env = [("PATH", format!("{ours}:{}", std::env::var("PATH").unwrap_or_default()))];
    let (served, other) = pages::served(&page)?;
    pages::run(&other, dir.path(), &env)?;
    let asking = Hostdb::asking()?;
    let [path] = env;
    pages::run(&served, asking.dir(), &[path, ("HOSTDB", asking.url())])?;
    if system("ansible-inventory").is_none() {
        return skipped("the_page_says_what_is_so (the plugin's file)", "ansible is not installed");
    }
    let hostdb = fleet()?;
    let file = pages::first(&page, "yaml")?.replace("https://shoal.example.com:8053", &hostdb.url());
    let dir = hostdb.dir().display().to_string();
    let file =
        file.replace("~/.cache", &dir).replace("~/.config/shoal", &dir).replace("/etc/shoal/tls", &dir);
    hostdb.write("token", "shoal_whatever\n")?;
    hostdb.write("ca.pem", &Authority::new()?.pem)?;
    let file = hostdb.write("shoal.yml", &file)?.display().to_string();
    ensure!(hosts(&listed(&hostdb, &file, &[])?, "site_rdu3") == ["web1.example.com"]);
    Ok(())
}

/// A server elsewhere: it asks who somebody is, and Ansible asks whether it is the server.
#[test]
fn the_plugin_reads_a_server_that_asks_over_tls() -> Result<()> {
    if system("ansible-inventory").is_none() {
        return skipped("the_plugin_reads_a_server_that_asks_over_tls", "ansible is not installed");
    }
    let world = Asking::new()?;
    let dir = |name: &str| world.dir.path().join(name).display().to_string();
    let plain = format!("plugin: shoal\nurl: {}\n", world.url());
    std::fs::write(
        dir("options.shoal.yml"),
        format!("{plain}token_file: {}\nca: {}\n", dir("token"), dir("ca.pem")),
    )?;
    std::fs::write(dir("plain.shoal.yml"), &plain)?;
    std::fs::write(
        dir("command.shoal.yml"),
        format!(
            "plugin: shoal\nstore: {}\ntoken_file: {}\nca: {}\n",
            world.url(),
            dir("token"),
            dir("ca.pem")
        ),
    )?;
    let (token, ca) = (("SHOAL_TOKEN_FILE", dir("token")), ("SHOAL_CA", dir("ca.pem")));
    let has = |file: &str, env: &[&(&str, String)]| -> Result<()> {
        let said = output(world.ansible(file)?.envs(env.iter().map(|(name, value)| (name, value))), &[0])?;
        let all: Value = serde_json::from_str(&said)?;
        ensure!(hosts(&all, "ams") == ["db1.example.com", "web2.example.com"], "{all}");
        Ok(())
    };
    has("options.shoal.yml", &[])?;
    has("plain.shoal.yml", &[&token, &ca])?;
    has("command.shoal.yml", &[])?;
    // Whom Ansible does not believe is shown nothing; who does not say who it is, and who may not read it all, is told what would do.
    let refused = |env: &[&(&str, String)], why: &[&str]| -> Result<()> {
        let run =
            world.ansible("plain.shoal.yml")?.envs(env.iter().map(|(name, value)| (name, value))).output()?;
        let said = String::from_utf8_lossy(&run.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(!run.status.success() && why.iter().all(|why| said.contains(why)), "{said}");
        ensure!(!said.contains(world.secret.as_str()), "it tells the token");
        Ok(())
    };
    refused(&[&token], &["certificate verify failed"])?;
    refused(&[&ca], &["answers 401", "SHOAL_TOKEN_FILE"])?;
    refused(&[&ca, &("SHOAL_TOKEN_FILE", dir("narrow"))], &["answers 403", "--namespace hosts"])?;
    // Nor is it sent where others can read it on the way.
    std::fs::write(dir("plain.shoal.yml"), "plugin: shoal\nurl: http://shoal.example.com:8053\n")?;
    refused(&[&token, &ca], &["not sent to shoal.example.com:8053 without TLS"])
}

/// A server that asks, with TLS, the fleet above, a token that reads (`token`) and one that reads tags alone (`narrow`).
struct Asking {
    // Before the folder: fields are dropped in order.
    _server: Process,
    port: u16,
    secret: String,
    dir: tempfile::TempDir,
}

impl Asking {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-ansible-").tempdir().context("a scratch folder")?;
        let (authority, port) = (Authority::new()?, ports::free()?);
        std::fs::write(dir.path().join("ca.pem"), &authority.pem)?;
        let wish = Wish { names: &["localhost"], ..Wish::default() };
        let (cert, key) = authority.issue(&wish)?.write(dir.path(), "server")?;
        let file = format!("sqlite:{}", dir.path().join("shoal.db").display());
        let on_file = |line: &[&str]| {
            let mut command = Command::new(binary("shoal")?);
            output(command.args(line).env("SHOAL_STORE", &file).env("SHOAL_AUTHOR", "tests"), &[0])
        };
        std::fs::write(dir.path().join("fleet.yaml"), FLEET)?;
        on_file(&["apply", "-f", &dir.path().join("fleet.yaml").display().to_string(), "-m", "fleet"])?;
        let token = |name: &str, more: &[&str]| -> Result<String> {
            let line = [&["token", "create", "--owner", "ansible", "--read-only", "-m", "x"], more].concat();
            let token = on_file(&line)?.lines().next().context("a token")?.to_owned();
            std::fs::write(dir.path().join(name), format!("{token}\n"))?;
            Ok(token)
        };
        let all = ["hosts", "tags", "schemas", "facts"].map(|name| ["--namespace", name]).concat();
        let secret = token("token", &all)?;
        token("narrow", &["--namespace", "tags"])?;
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.args(["--store", &file, "--listen", &format!("https://127.0.0.1:{port}")]);
        command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
        let mut server = Process::start("hostdb", dir.path(), &mut command)?;
        wait::until("hostdb", wait::PATIENCE, || {
            server.alive()?;
            std::net::TcpStream::connect(("127.0.0.1", port)).map_err(anyhow::Error::from)
        })?;
        Ok(Self { _server: server, port, secret, dir })
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// What lists the inventory of a file in the folder.
    fn ansible(&self, file: &str) -> Result<Command> {
        let ours = binary("shoal")?;
        let ours = ours.parent().context("the folder of our programs")?.display().to_string();
        let mut command = Command::new("ansible-inventory");
        command.arg("-i").arg(self.dir.path().join(file)).arg("--list");
        command.env("PATH", format!("{ours}:{}", std::env::var("PATH").unwrap_or_default()));
        command
            .env("ANSIBLE_HOME", self.dir.path().join("ansible"))
            .env("ANSIBLE_LOCAL_TEMP", self.dir.path().join("tmp"));
        command.env("ANSIBLE_INVENTORY_PLUGINS", repository().join("deploy/ansible/inventory_plugins"));
        command.env("ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED", "1").env("ANSIBLE_NOCOLOR", "1");
        for name in ["SHOAL_STORE", "SHOAL_TOKEN_FILE", "SHOAL_CA"] {
            command.env_remove(name);
        }
        Ok(command)
    }
}

/// An inventory with its lists in order: Ansible keeps the order in which it hears of groups.
fn sorted(listed: &Value) -> Value {
    let mut all = listed.clone();
    for group in all.as_object_mut().into_iter().flat_map(Map::values_mut) {
        for field in ["hosts", "children"] {
            if let Some(list) = group[field].as_array_mut() {
                list.sort_by_key(ToString::to_string);
            } else if let Some(group) = group.as_object_mut() {
                group.remove(field);
            }
        }
        if let Some(group) = group.as_object_mut() {
            group.sort_keys();
        }
    }
    all.sort_all_objects();
    all
}

/// What Ansible itself says of an inventory before it is imported and after, on the real fleet.
#[test]
fn a_real_fleet_comes_out_as_it_went_in() -> Result<()> {
    let name = "a_real_fleet_comes_out_as_it_went_in";
    let Some(dir) = real_fleet() else {
        return skipped(name, "no inventory (SHOAL_FLEET names its folder)");
    };
    if system("ansible-inventory").is_none() {
        return skipped(name, "ansible is not installed");
    }
    let hostdb = Hostdb::start()?;
    let inventory = dir.join("inventory.json").display().to_string();
    let printer = hostdb.write("before.sh", &format!("#!/bin/sh\nexec cat '{inventory}'\n"))?;
    output(Command::new("chmod").arg("755").arg(&printer), &[0])?;
    let before = listed(&hostdb, &printer.display().to_string(), &[])?;
    let shipped = repository().join("deploy/example/fedora/mapping.yaml");
    let import = |mapping: &str| {
        hostdb.shoal(&["import", "ansible", &inventory, "--mapping", mapping, "-m", "the real fleet"])
    };
    let after = || listed(&hostdb, &script().display().to_string(), &[]);

    // As it is shipped, groups that are named and not there are left out, and nothing else.
    import(&shipped.display().to_string())?;
    let found = after()?;
    let absent = named_and_not_there(&before);
    ensure!(absent.len() == 15, "{absent:?}");
    // Of a group that holds nothing Ansible prints no entry: `ungrouped`, and one that held only such groups.
    let bare = |name: &str| {
        let children = before[name]["children"].as_array().into_iter().flatten();
        children.filter_map(Value::as_str).all(|child| absent.contains_key(child))
    };
    let still = named_and_not_there(&found);
    ensure!(still.keys().all(|name| bare(name) && before[name]["hosts"].is_null()), "{still:?}");
    let (mut expected, mut found) = (sorted(&before), sorted(&found));
    for group in
        [&mut expected, &mut found].into_iter().filter_map(Value::as_object_mut).flat_map(Map::values_mut)
    {
        if let Some(children) = group["children"].as_array_mut() {
            children.retain(|child| child.as_str().is_none_or(|child| !absent.contains_key(child)));
        }
    }
    same(&without_nothing(&expected), &without_nothing(&found))?;
    ensure!(found["_meta"]["hostvars"].as_object().context("hostvars")?.len() > 300);

    // With empty tags for those, it is the same to the last word.
    let text = std::fs::read_to_string(&shipped)?.replacen("absent: leave_out", "absent: empty", 1);
    import(&hostdb.write("mapping.yaml", &text)?.display().to_string())?;
    same(&sorted(&before), &sorted(&after()?))
}

/// The groups that others name as children and that have no entry, each with how many do.
fn named_and_not_there(listed: &Value) -> BTreeMap<String, u32> {
    let groups = listed.as_object().into_iter().flatten();
    let children = groups.flat_map(|(_, group)| group["children"].as_array().into_iter().flatten());
    let mut absent = BTreeMap::new();
    for child in children.filter_map(Value::as_str).filter(|child| listed.get(*child).is_none()) {
        *absent.entry(child.to_owned()).or_default() += 1;
    }
    absent
}

/// The same without lists that are empty.
fn without_nothing(listed: &Value) -> Value {
    let mut all = listed.clone();
    for (name, group) in all.as_object_mut().into_iter().flatten() {
        if let (true, Some(group)) = (name != "_meta", group.as_object_mut()) {
            group.retain(|_, list| list.as_array().is_none_or(|list| !list.is_empty()));
        }
    }
    if let Some(groups) = all.as_object_mut() {
        groups.retain(|_, group| group.as_object().is_none_or(|group| !group.is_empty()));
    }
    all
}

/// That both are equal; else the first part in which they are not.
fn same(before: &Value, after: &Value) -> Result<()> {
    let of = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (groups, others) = (of(before), of(after));
    for name in groups.keys().chain(others.keys()) {
        let (one, other) = (&before[name], &after[name]);
        let (vars, others) = (of(&one["hostvars"]), of(&other["hostvars"]));
        for host in vars.keys() {
            ensure!(
                vars.get(host) == others.get(host),
                "{host}: {:?}\n{:?}",
                vars.get(host),
                others.get(host)
            );
        }
        ensure!(one == other, "{name}: {one}\n{other}");
    }
    Ok(())
}
