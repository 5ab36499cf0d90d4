//! Puppet on our node classifier: what a real `puppet` compiles and applies, and what an agent gets from a real Puppet server.
#![allow(clippy::print_stdout, reason = "what cannot run says so")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::binaries::{binary, system};
use shoal_tests::hostdb::Hostdb;
use shoal_tests::process::{Process, output};
use shoal_tests::swarm::repository;
use shoal_tests::{pages, ports, wait};

const FLEET: &str = "\
host: web1.example.com
document: {site: rdu3}
---
tag: puppet/base
document: {classes: [base], parameters: {role: none}}
members: [\"select: site == 'rdu3'\", '@web', '@db']
---
tag: puppet/web
document: {classes: {greets: {word: hello}}, parameters: {role: web}, environment: production}
members: [web1.example.com]
---
tag: puppet/db
document: {classes: {stores: {}}, environment: staging}
";

/// Puppet in a folder of its own, in front of our database.
struct Puppet {
    hostdb: Hostdb,
}

impl Puppet {
    fn new() -> Result<Self> {
        let hostdb = Hostdb::start()?;
        let fleet = hostdb.write("fleet.yaml", FLEET)?;
        hostdb.shoal(&["apply", "-f", &fleet.display().to_string(), "-m", "fleet"])?;
        let this = Self { hostdb };
        for environment in ["production", "staging"] {
            let modules = format!("env/{environment}/modules");
            this.hostdb.write(&format!("env/{environment}/manifests/site.pp"), "")?;
            this.hostdb.write(&format!("{modules}/base/manifests/init.pp"), "class base { }\n")?;
            this.hostdb.write(&format!("{modules}/stores/manifests/init.pp"), "class stores { }\n")?;
            let file = this.hostdb.dir().join("greeting");
            let class = format!(
                "class greets(String $word) {{\n  file {{ '{}': content => \"${{word}} from ${{role}} in ${{shoal['tags']}}\\n\" }}\n}}\n",
                file.display()
            );
            this.hostdb.write(&format!("{modules}/greets/manifests/init.pp"), &class)?;
        }
        this.configure(8140)?;
        Ok(this)
    }

    fn configure(&self, port: u16) -> Result<()> {
        let dir = self.hostdb.dir().display();
        // Puppet gives its own environment to what it runs; the server starts without any of ours.
        let enc = format!(
            "#!/bin/sh\nSHOAL_STORE={} SHOAL_ENC_CACHE={dir}/enc exec {} enc \"$@\"\n",
            self.hostdb.url(),
            binary("shoal")?.display()
        );
        let script = self.hostdb.write("enc.sh", &enc)?;
        output(Command::new("chmod").arg("755").arg(&script), &[0])?;
        let conf = format!(
            "[main]\ncodedir={dir}/code\nenvironmentpath={dir}/env\nnode_terminus=exec\nexternal_nodes={}\nserver=localhost\nserverport={port}\ncertname=localhost\nautosign=true\ndns_alt_names=localhost\n",
            script.display()
        );
        self.hostdb.write("conf/puppet.conf", &conf).map(drop)
    }

    /// Runs `puppet` and answers the codes that are fine and what it printed.
    fn run(&self, line: &[&str], fine: &[i32]) -> Result<String> {
        let dir = self.hostdb.dir();
        let mut command = Command::new("puppet");
        command.args(line).arg("--confdir").arg(dir.join("conf")).arg("--vardir").arg(dir.join("var"));
        output(command.args(["--color", "false"]), fine)
    }

    /// The catalog of a node.
    fn catalog(&self, node: &str) -> Result<Value> {
        let said = self.run(&["catalog", "compile", node, "--render-as", "json"], &[0])?;
        let json = said.lines().find(|line| line.starts_with('{')).context("no catalog is printed")?;
        Ok(serde_json::from_str(json)?)
    }
}

/// The names of a catalog's classes, and its environment.
fn classes(catalog: &Value) -> (Vec<&str>, &str) {
    let mut names: Vec<&str> =
        catalog["classes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| *name != "settings");
    (names, catalog["environment"].as_str().unwrap_or_default())
}

fn skipped(test: &str, why: &str) -> Result<()> {
    println!("SKIPPED: {test}: {why}");
    Ok(())
}

#[test]
fn puppet_does_what_the_tags_say() -> Result<()> {
    if system("puppet").is_none() {
        return skipped("puppet_does_what_the_tags_say", "puppet is not installed");
    }
    let mut puppet = Puppet::new()?;
    let found = puppet.run(&["node", "find", "web1.example.com", "--render-as", "yaml"], &[0])?;
    ensure!(found.contains("greets") && found.contains("environment: production"), "{found}");
    let catalog = puppet.catalog("web1.example.com")?;
    ensure!(classes(&catalog) == (vec!["base", "greets"], "production"), "{catalog}");

    // What it compiles can be applied: class parameters, top-scope variables, and the list of tags.
    puppet.run(&["apply", "--certname", "web1.example.com", &site(&puppet)], &[0])?;
    let greeting = std::fs::read_to_string(puppet.hostdb.dir().join("greeting"))?;
    ensure!(greeting == "hello from none in [puppet/base, puppet/web]\n", "{greeting}");

    // Another tag, other classes, another environment.
    puppet.hostdb.shoal(&["tag", "puppet/web", "-web1.example.com", "-m", "retag"])?;
    puppet.hostdb.shoal(&["tag", "puppet/db", "+web1.example.com", "-m", "retag"])?;
    let catalog = puppet.catalog("web1.example.com")?;
    ensure!(classes(&catalog) == (vec!["base", "stores"], "staging"), "{catalog}");
    let unknown = puppet.run(&["catalog", "compile", "web9.example.com"], &[1, 30])?;
    ensure!(!unknown.contains('{'), "an unknown node has a catalog: {unknown}");

    // Nobody there: what was said last, and for a node that was never asked about, nothing.
    puppet.hostdb.kill();
    let catalog = puppet.catalog("web1.example.com")?;
    ensure!(classes(&catalog) == (vec!["base", "stores"], "staging"), "{catalog}");
    let never = puppet.run(&["catalog", "compile", "web2.example.com"], &[1, 30])?;
    ensure!(!never.contains('{'), "a node of which nothing is known has a catalog: {never}");
    Ok(())
}

fn site(puppet: &Puppet) -> String {
    puppet.hostdb.dir().join("env/production/manifests/site.pp").display().to_string()
}

#[test]
fn what_facter_prints_becomes_facts() -> Result<()> {
    if system("facter").is_none() {
        return skipped("what_facter_prints_becomes_facts", "facter is not installed");
    }
    let hostdb = Hostdb::start()?;
    hostdb.shoal(&["put", "web1.example.com", "-m", "a host"])?;
    for (form, again) in [("--json", false), ("--yaml", true)] {
        // It ends with 1 where something of the machine cannot be read.
        let printed = output(Command::new("facter").arg(form), &[0, 1])?;
        ensure!(printed.contains("load_averages"), "{printed}");
        let file = hostdb.write("facts", &printed)?.display().to_string();
        let said = hostdb.shoal(&["facts", "upload", "web1.example.com", "-f", &file])?;
        // Seconds later, in another notation: the same.
        ensure!(said.contains("nothing to change") == again, "{said}");
    }
    let facts: Value =
        serde_json::from_str(&hostdb.shoal(&["get", "facts/puppet/web1.example.com", "-o", "json"])?)?;
    ensure!(facts["value"]["kernel"] == "Linux" && facts["value"]["load_averages"].is_null(), "{facts}");
    ensure!(hostdb.shoal(&["search", "facts.puppet.kernel == 'Linux'", "--names"])? == "web1.example.com\n");
    Ok(())
}

/// A Puppet server, with everything that it keeps in the scratch folder.
fn server(puppet: &Puppet, port: u16) -> Result<Process> {
    let dir = puppet.hostdb.dir();
    let (root, system) = (dir.join("server"), PathBuf::from("/etc/puppet/puppetserver"));
    for folder in ["conf.d", "services.d", "var", "run", "log.d"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    for file in ["auth", "ca", "metrics", "web-routes"] {
        let file = format!("conf.d/{file}.conf");
        std::fs::copy(system.join(&file), root.join(&file)).context(file)?;
    }
    for entry in std::fs::read_dir(system.join("services.d"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), root.join("services.d").join(entry.file_name()))?;
    }
    let (at, conf) = (root.display(), dir.display());
    let write = |name: &str, text: String| puppet.hostdb.write(&format!("server/{name}"), &text).map(drop);
    write("logback.xml", "<configuration><appender name=\"S\" class=\"ch.qos.logback.core.ConsoleAppender\"><encoder><pattern>%d %-5p %c - %m%n</pattern></encoder></appender><root level=\"info\"><appender-ref ref=\"S\"/></root></configuration>".to_owned())?;
    write("conf.d/global.conf", format!("global: {{ logging-config: {at}/logback.xml }}\n"))?;
    write(
        "conf.d/webserver.conf",
        format!("webserver: {{ client-auth: want, ssl-host: 127.0.0.1, ssl-port: {port} }}\n"),
    )?;
    write(
        "conf.d/puppetserver.conf",
        format!(
            "jruby-puppet: {{ ruby-load-path: [/usr/lib/puppetserver/ruby/vendor_ruby], gem-home: {at}/var/jruby-gems,\n  gem-path: [\"{at}/var/jruby-gems\", \"/usr/lib/puppetserver/vendored-jruby-gems\"], max-active-instances: 1,\n  server-conf-dir: {conf}/conf, server-code-dir: {conf}/code, server-var-dir: {at}/var, server-run-dir: {at}/run, server-log-dir: {at}/log.d }}\nhttp-client: {{}}\nprofiler: {{ enabled: false }}\n"
        ),
    )?;
    let mut java = Command::new("java");
    java.args(["-Xms256m", "-Xmx1g", "-Djruby.logger.class=com.puppetlabs.jruby_utils.jruby.Slf4jLogger"]);
    java.args(["-Djruby.lib=/usr/share/jruby/lib", "--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED"]);
    java.args([
        "--add-opens",
        "java.base/java.io=ALL-UNNAMED",
        "-jar",
        "/usr/share/puppetserver/puppetserver.jar",
    ]);
    java.arg("--config").arg(root.join("conf.d")).arg("--bootstrap-config").arg(root.join("services.d"));
    let mut process = Process::start("puppetserver", dir, &mut java)?;
    let url = format!("https://127.0.0.1:{port}/status/v1/simple");
    wait::until("the Puppet server", Duration::from_secs(300), || {
        process.alive()?;
        output(Command::new("curl").args(["-fsSk", "--max-time", "5", &url]), &[0])
    })?;
    Ok(process)
}

/// An agent run against a real server, which calls the classifier itself.
#[test]
fn an_agent_gets_what_the_tags_say_from_a_server() -> Result<()> {
    let name = "an_agent_gets_what_the_tags_say_from_a_server";
    if system("puppetserver").is_none() || system("puppet").is_none() {
        return skipped(name, "puppetserver is not installed");
    }
    if std::env::var_os("SHOAL_LONG").is_none_or(|long| long.is_empty()) {
        return skipped(name, "a Puppet server takes a minute and 1 GB (tests/run --all)");
    }
    let mut puppet = Puppet::new()?;
    let port = ports::free()?;
    puppet.configure(port)?;
    let _server = server(&puppet, port)?;
    let own = puppet.hostdb.dir().join("agent");
    let conf = format!("[main]\nserver=localhost\nserverport={port}\ncertname=web1.example.com\n");
    puppet.hostdb.write("agent/puppet.conf", &conf)?;
    let run = || {
        // It would wait for a server that hangs for as long.
        let mut agent = Command::new("timeout");
        agent
            .args(["300", "puppet", "agent", "--test", "--color", "false", "--waitforcert", "5", "--confdir"])
            .arg(&own);
        output(agent.arg("--vardir").arg(own.join("var")), &[0, 2])
    };
    let greeting = puppet.hostdb.dir().join("greeting");
    let said = run()?;
    ensure!(greeting.exists(), "{said}");
    let text = std::fs::read_to_string(&greeting)?;
    ensure!(text == "hello from none in [puppet/base, puppet/web]\n", "{text}\n{said}");
    // The tag's word reaches the agent, also when the database is gone by then.
    puppet.hostdb.shoal(&["put", "puppet/web", "classes.greets.word=again", "-m", "another word"])?;
    run()?;
    ensure!(std::fs::read_to_string(&greeting)?.starts_with("again from"), "the agent has not followed");
    puppet.hostdb.kill();
    std::fs::remove_file(&greeting)?;
    run()?;
    ensure!(std::fs::read_to_string(&greeting)?.starts_with("again from"), "not answered from what was kept");
    Ok(())
}

/// The examples of the page as they stand, and the answer that it shows.
#[test]
fn the_page_says_what_is_so() -> Result<()> {
    let page = repository().join("docs/puppet.md");
    let blocks = pages::blocks(&page)?;
    let dir = tempfile::tempdir()?;
    let ours = binary("shoal")?;
    let ours = ours.parent().context("the folder of our programs")?.display().to_string();
    let env = [("PATH", format!("{ours}:{}", std::env::var("PATH").unwrap_or_default()))];
    pages::run(&blocks[0], dir.path(), &env)?;
    let mut enc = Command::new(binary("shoal")?);
    enc.args(["enc", "web1.example.com"]).env("SHOAL_STORE", "sqlite:shoal.db").current_dir(dir.path());
    let said = output(enc.env("SHOAL_ENC_CACHE", dir.path().join("enc")), &[0])?;
    ensure!(said == pages::first(&page, "yaml")?, "it prints\n{said}");
    let (served, other) = pages::served(&page)?;
    let dir = tempfile::tempdir()?;
    pages::run(&other, dir.path(), &env)?;
    let hostdb = Hostdb::asking()?;
    let [path] = env;
    pages::run(&served, hostdb.dir(), &[path, ("HOSTDB", hostdb.url())])
}
