//! Puppet's node classifier, facts and Ansible's inventory, as programs call them: through a server, on a file, and with nobody there.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::program::{shoal, text};
use crate::served::Served;

/// Runs the classifier with its cache in this folder.
fn enc(store: &str, cache: &Path, line: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    command.arg("enc").args(line).env("SHOAL_STORE", store).env("SHOAL_ENC_CACHE", cache);
    command.output().unwrap()
}

fn classes(run: &Output) -> Value {
    assert!(run.status.success(), "{}", text(&run.stderr));
    let yaml: Value = shoal_core::codec::read(&run.stdout, shoal_core::codec::Format::Yaml).unwrap();
    yaml["classes"].clone()
}

/// Refused with code 1, with nothing where Puppet reads; the words.
fn refused(run: &Output) -> String {
    assert_eq!((run.status.code(), text(&run.stdout)), (Some(1), ""), "{}", text(&run.stderr));
    text(&run.stderr).to_owned()
}

const FLEET: &str = "\
host: web1.example.com
document: {site: rdu3, cpus: two}
---
host: web2.example.com
document: {site: ams1}
---
tag: puppet/base
document: {classes: [base], environment: production}
members: [\"select: site == 'rdu3'\"]
---
tag: puppet/web
document: {classes: {nginx: {workers: 4}}}
members: [web1.example.com]
---
tag: puppet/db
document: {classes: [postgresql]}
";

/// How often a route of the server was asked.
fn asked(url: &str, route: &str) -> u32 {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.contains("shoal_http_requests_total"), "{said}");
    let of = format!("route=\"{route}\"");
    let lines = said.lines().filter(|l| l.starts_with("shoal_http_requests_total") && l.contains(&of));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
}

#[test]
fn a_node_is_classified_and_a_dead_database_answered_for() {
    let mut served = Served::new();
    let cache = served.dir.path().join("cache");
    served.ok(&["apply", "-f", &served.file("fleet.yaml", FLEET), "-m", "fleet"]);
    let url = served.url.clone();
    let read = asked(&url, "/api/v2/store/read");
    let first = enc(&url, &cache, &["WEB1.example.com"]);
    assert_eq!(classes(&first), json!({"nginx": {"workers": 4}, "base": {}}));
    assert_eq!(text(&first.stderr), "");
    assert_eq!(asked(&url, "/api/v2/store/around"), 1, "one question");
    assert_eq!(asked(&url, "/api/v2/store/read"), read, "and nothing else is read");

    served.ok(&["tag", "puppet/web", "-web1.example.com", "-m", "retag"]);
    served.ok(&["tag", "puppet/db", "+web1.example.com", "-m", "retag"]);
    let second = enc(&url, &cache, &["web1.example.com"]);
    assert_eq!(classes(&second), json!({"base": {}, "postgresql": {}}));

    // Nobody knows it, and so it is, whatever was kept.
    assert!(refused(&enc(&url, &cache, &["web9.example.com"])).contains("there is no host web9.example.com"));
    assert!(refused(&enc(&url, &cache, &["../etc/passwd"])).contains("is not a host name"));
    enc(&url, &cache, &["web2.example.com"]);
    assert!(cache.join("web2.example.com").exists());
    served.ok(&["rm", "web2.example.com", "-m", "gone"]);
    assert!(refused(&enc(&url, &cache, &["web2.example.com"])).contains("was deleted in revision"));
    assert!(!cache.join("web2.example.com").exists(), "it will not come back when the database dies");

    served.kill();
    let dead = enc(&url, &cache, &["web1.example.com"]);
    assert_eq!(dead.stdout, second.stdout);
    let said = text(&dead.stderr);
    assert!(said.contains("says nothing of web1.example.com") && said.contains(" ago"), "{said}");
    let never = refused(&enc(&url, &cache, &["web2.example.com"]));
    assert!(never.contains("nothing was ever kept of it"), "{never}");
    std::thread::sleep(Duration::from_millis(20));
    let old = refused(&enc(&url, &cache, &["web1.example.com", "--max-age", "10ms"]));
    assert!(old.contains("at most 10 ms is allowed"), "{old}");
}

/// A server that takes connections and says nothing is not waited for.
#[test]
fn a_hung_database_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let said = refused(&enc(&url, &dir.path().join("cache"), &["web1.example.com", "--deadline", "300ms"]));
    // That it was this bound, its words say below; an answer that is begun may take much longer.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(said.contains("no answer within 300 ms") && said.contains("nothing was ever kept"), "{said}");
}

#[test]
fn a_file_that_is_gone_or_damaged_is_answered_for() {
    let dir = tempfile::tempdir().unwrap();
    let (path, cache) = (dir.path().join("shoal.db"), dir.path().join("cache"));
    let store = format!("sqlite:{}", path.display());
    let fleet = dir.path().join("fleet.yaml");
    std::fs::write(&fleet, FLEET).unwrap();
    assert!(shoal(&store, &["apply", "-f", fleet.to_str().unwrap(), "-m", "fleet"]).status.success());
    let first = enc(&store, &cache, &["web1.example.com"]);
    assert_eq!(classes(&first), json!({"nginx": {"workers": 4}, "base": {}}));
    let whole = std::fs::read(&path).unwrap();
    for (content, why) in [(&b""[..], "is empty"), (b"rubbish, and a lot of it", "shoal.db")] {
        std::fs::write(&path, content).unwrap();
        let again = enc(&store, &cache, &["web1.example.com"]);
        assert_eq!(again.stdout, first.stdout, "{}", text(&again.stderr));
        assert!(text(&again.stderr).contains(why), "{}", text(&again.stderr));
    }
    std::fs::remove_file(&path).unwrap();
    let again = enc(&store, &cache, &["web1.example.com"]);
    assert_eq!(again.stdout, first.stdout);
    // Another database by mistake, in which it never was: that is no answer, and no reason to forget the last one.
    std::fs::write(&fleet, "host: other.example.com\n").unwrap();
    assert!(shoal(&store, &["apply", "-f", fleet.to_str().unwrap(), "-m", "other"]).status.success());
    assert!(
        refused(&enc(&store, &cache, &["web1.example.com"])).contains("there is no host web1.example.com")
    );
    std::fs::remove_file(&path).unwrap();
    assert_eq!(enc(&store, &cache, &["web1.example.com"]).stdout, first.stdout);
    assert!(text(&again.stderr).contains("there is no database at"), "{}", text(&again.stderr));
    assert!(!path.exists(), "nothing was made");
    // A rule that cannot be evaluated says neither yes nor no.
    std::fs::write(&path, whole).unwrap();
    let doubt = ["put", "puppet/many", "classes=[many]", "--member", "select: cpus > 2", "-m", "m"];
    assert!(shoal(&store, &doubt).status.success());
    let again = enc(&store, &cache, &["web1.example.com"]);
    assert_eq!(again.stdout, first.stdout);
    assert!(
        text(&again.stderr).contains("the rule \"cpus > 2\" in puppet/many cannot be evaluated"),
        "{}",
        text(&again.stderr)
    );
    // An address that is none is nobody's absence.
    assert!(refused(&enc("nonsense:x", &cache, &["web1.example.com"])).contains("is not a store"));
}

#[test]
fn contradictions_are_said_and_refused_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    let ok = |line: &[&str]| assert!(shoal(&store, line).status.success(), "{line:?}");
    ok(&["put", "web1", "-m", "m"]);
    for (tag, environment) in [("puppet/a", "environment=a"), ("puppet/b", "environment=b")] {
        ok(&["put", tag, environment, "--member", "web1", "-m", "m"]);
    }
    let cache = dir.path().join("cache");
    let run = enc(&store, &cache, &["web1"]);
    assert!(text(&run.stdout).contains("environment: b"));
    assert!(
        text(&run.stderr).contains("/environment is contradicted: tag puppet/a says a, tag puppet/b says b")
    );
    let strict = enc(&store, &cache, &["web1", "--strict"]);
    assert_eq!((strict.status.code(), text(&strict.stdout)), (Some(4), ""));
}

#[tokio::test]
async fn equal_facts_are_not_written_again() {
    let fleet = Fleet::new().await;
    let facts = |uptime: u32, kernel: &str| {
        fleet.file(
            "facts.json",
            &json!({"uptime": uptime, "os": {"name": "Debian"}, "kernel": kernel}).to_string(),
        )
    };
    let upload = async |file: String, more: &[&str]| {
        fleet.ok(&[&["facts", "upload", "web1.example.com", "-f", &file][..], more].concat()).await
    };
    let first = upload(facts(1, "6.1"), &[]).await;
    assert!(first.contains("1 row by ann"), "{first}");
    let again = upload(facts(2, "6.1"), &[]).await;
    assert!(again.contains("nothing to change"), "{again}");
    let other = upload(facts(2, "6.2"), &["-m", "a new kernel", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&other).unwrap()["changed"], 1);
    let row = fleet.ok(&["get", "facts/puppet/web1.example.com", "-o", "json"]).await;
    let row: Value = serde_json::from_str(&row).unwrap();
    assert_eq!(row["value"], json!({"kernel": "6.2", "os": {"name": "Debian"}}));
    assert!(fleet.ok(&["log", "-n", "1"]).await.contains("a new kernel"));
    // Rules see them.
    let found = fleet.ok(&["search", "facts.puppet.os.name == 'Debian'", "--names"]).await;
    assert_eq!(found, "web1.example.com\n");
    fleet.fails(1, &["facts", "upload", "web9.example.com", "-f", &facts(1, "6.1")]).await;
    let bad = fleet.file("bad.json", "{\"a\": ");
    let said = fleet.fails(1, &["facts", "upload", "web1.example.com", "-f", &bad]).await;
    assert!(said.contains("nothing was written: the facts: this is not JSON"), "{said}");
}

#[test]
fn facts_come_through_a_server_and_in_bounds() {
    let served = Served::new();
    served.ok(&["put", "web1", "-m", "m"]);
    let upload = |facts: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_shoal"))
            .args(["facts", "upload", "web1"])
            .env("SHOAL_STORE", &served.url)
            .env("SHOAL_AUTHOR", "ann")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that has read enough closes it.
        let _ = child.stdin.take().unwrap().write_all(facts);
        child.wait_with_output().unwrap()
    };
    let log = asked(&served.url, "/api/v2/store/watch");
    let run = upload(b"kernel: Linux\nuptime: 3 days\n");
    assert!(text(&run.stdout).contains("1 row by ann"), "{}", text(&run.stderr));
    assert!(served.ok(&["get", "facts/puppet/web1"]).contains("kernel: Linux\n"));
    assert_eq!(asked(&served.url, "/api/v2/store/watch"), log, "the whole database was not followed for it");
    let large = json!({"a": "x".repeat(5 << 20)}).to_string();
    let said = refused(&upload(large.as_bytes()));
    assert!(said.contains("more than 4194304 octets"), "{said}");
}

#[test]
fn an_inventory_is_the_same_through_a_server_and_on_the_file() {
    let served = Served::new();
    let docs = format!(
        "{FLEET}---\ntag: tags/web\ndocument: {{port: 80}}\nmembers: [web1.example.com, '@inner']\n---\ntag: tags/inner\nmembers: [web2.example.com]\n"
    );
    served.ok(&["apply", "-f", &served.file("fleet.yaml", &docs), "-m", "fleet"]);
    let file = format!("sqlite:{}", served.dir.path().join("shoal.db").display());
    for line in [
        &["inventory", "--list"][..],
        &["inventory", "--list", "--namespace", "puppet"],
        &["inventory", "--list", "--where", "cpus > 2"],
        &["inventory", "--host", "web1.example.com"],
    ] {
        let (one, other) = (shoal(&served.url, line), shoal(&file, line));
        assert!(one.status.success(), "{line:?}: {}", text(&one.stderr));
        assert_eq!(
            (text(&one.stdout), text(&one.stderr)),
            (text(&other.stdout), text(&other.stderr)),
            "{line:?}"
        );
        serde_json::from_slice::<Value>(&one.stdout).unwrap();
        let unsure = line.contains(&"--where");
        assert_eq!(
            text(&one.stderr).contains("cannot be evaluated for 1 host"),
            unsure,
            "{}",
            text(&one.stderr)
        );
    }
    let listed: Value = serde_json::from_str(&served.ok(&["inventory", "--list"])).unwrap();
    assert_eq!(
        listed["web"],
        json!({"hosts": ["web1.example.com"], "children": ["inner"], "vars": {"port": 80}})
    );
    // Ansible takes what it gets for the whole fleet: a mistake gives nothing.
    for line in
        [&["inventory", "--list", "--where", "site =="][..], &["inventory"], &["inventory", "--host", "web9"]]
    {
        let run = shoal(&served.url, line);
        assert!(!run.status.success() && run.stdout.is_empty(), "{line:?}");
    }
}

/// With the schema that comes with Shoal, what Puppet would not take is refused when it is written.
#[test]
fn a_schema_refuses_what_puppet_would_not_take() {
    let served = Served::new();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/puppet/schema.yaml");
    served.ok(&["apply", "-f", schema, "-m", "what Puppet takes"]);
    served.ok(&["apply", "-f", &served.file("fleet.yaml", FLEET), "-m", "fleet"]);
    served.ok(&["put", "web1.example.com", "puppet.classes.nginx.workers=8", "-m", "more of them"]);
    for (line, place) in [
        (["put", "puppet/base", "classes=[../x]"], "/classes"),
        (["put", "puppet/base", "clases=[ntp]"], "clases"),
        (["put", "puppet/web", "environment=../x"], "/environment"),
        (["put", "web1.example.com", "puppet.classes.nginx=5"], "/puppet"),
    ] {
        let run = shoal(&served.url, &[&line[..], &["-m", "x"]].concat());
        let said = text(&run.stderr);
        assert!(!run.status.success() && said.contains(place), "{line:?}: {said}");
    }
    let cache = served.dir.path().join("cache");
    let run = enc(&served.url, &cache, &["web1.example.com"]);
    assert_eq!(classes(&run), json!({"nginx": {"workers": 8}, "base": {}}));
}

/// What is asked about one tag reads that tag, and where no rule is in it not the whole database.
#[test]
fn questions_about_one_tag_read_what_is_in_it() {
    let served = Served::new();
    let docs = format!(
        "{FLEET}---\ntag: tags/web\ndocument: {{port: 80}}\nmembers: [web1.example.com, '@inner', '@puppet/db']\n---\n\
         tag: tags/inner\ndocument: {{port: 81}}\nmembers: [web2.example.com]\n"
    );
    served.ok(&["apply", "-f", &served.file("fleet.yaml", &docs), "-m", "fleet"]);
    served.ok(&["tag", "tags/inner", "+web1.example.com", "-m", "retag"]);
    let file = format!("sqlite:{}", served.dir.path().join("shoal.db").display());
    let lines: [(&[&str], u32, &str); 9] = [
        // Whether it is there; of each tag the row and the members; then each host.
        (&["members", "tags/web"], 1 + 3 * 2 + 2, "web2.example.com  active  @tags/inner > named"),
        (&["members", "tags/inner", "--revision", "1"], 1 + 2 + 1, "web2.example.com"),
        (&["members", "tags/web", "--direct"], 2, "@inner"),
        (&["members", "puppet/base", "--direct"], 2, "select: site == 'rdu3'"),
        (&["effective", "tags/web"], 2, "80"),
        (&["effective", "tags/inner", "--revision", "1"], 2, "81"),
        (&["parents", "tags/inner"], 4, "tags/web"),
        (&["parents", "puppet/db"], 4, "tags/web"),
        // A rule chooses among all hosts: they are read.
        (&["members", "puppet/base"], 1 + 2 + 1, "select: site == 'rdu3'"),
    ];
    for (line, most, says) in lines {
        let read = asked(&served.url, "/api/v2/store/read");
        let (one, other) = (shoal(&served.url, line), shoal(&file, line));
        assert!(one.status.success(), "{line:?}: {}", text(&one.stderr));
        assert_eq!(text(&one.stdout), text(&other.stdout), "{line:?}");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(text(&one.stdout)).contains(&words(says)), "{line:?}: {}", text(&one.stdout));
        assert_eq!(asked(&served.url, "/api/v2/store/read") - read, most, "{line:?}");
    }
}

/// What a server says of one host is what everything says, now and at an old revision.
#[test]
fn questions_about_one_host_are_one_question() {
    let served = Served::new();
    served.ok(&["apply", "-f", &served.file("fleet.yaml", FLEET), "-m", "fleet"]);
    served.ok(&["put", "puppet/base", "classes=[other]", "-m", "changed"]);
    served.ok(&["tag", "puppet/web", "-web1.example.com", "-m", "retag"]);
    let file = format!("sqlite:{}", served.dir.path().join("shoal.db").display());
    let (read, around) =
        (asked(&served.url, "/api/v2/store/read"), asked(&served.url, "/api/v2/store/around"));
    let lines: [&[&str]; 4] = [
        &["parents", "web1.example.com"],
        &["parents", "web1.example.com", "--revision", "1"],
        &["effective", "puppet/base", "web1.example.com"],
        &["effective", "puppet/web", "web1.example.com", "--revision", "1"],
    ];
    for line in lines {
        let (one, other) = (shoal(&served.url, line), shoal(&file, line));
        assert!(one.status.success(), "{line:?}: {}", text(&one.stderr));
        assert_eq!(text(&one.stdout), text(&other.stdout), "{line:?}");
    }
    assert_eq!(asked(&served.url, "/api/v2/store/around") - around, 4);
    // One look at whether each name is there.
    assert_eq!(asked(&served.url, "/api/v2/store/read") - read, 6);
}
