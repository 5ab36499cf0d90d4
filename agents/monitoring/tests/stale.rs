//! Two instances that each think that the server is theirs: the one whose claim has ended does no more, and what it checks is not what the
//! other one does. And what the checker refuses takes nothing good away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_agent::secrets::Secrets;
use shoal_agent::{
    Applied, Batch, Clock, Edit, Epoch, Fault, Fence, Moment, Outcome, Target as _, Unit, Why,
};
use shoal_core::Revision;
use shoal_monitoring::{Have, Item, Key, Monitoring, Server, Servers, Settings, Subject};

/// The claim of these tests ends then: when this file is there.
struct Ended(PathBuf);

impl Clock for Ended {
    fn now(&self) -> Moment {
        if self.0.exists() { 100 } else { 0 }
    }
}

/// A server whose checker is a line of shell, in a folder of its own: `$0` is what it is to check, `calls` has a line for each call.
struct Scene {
    dir: tempfile::TempDir,
    server: Server,
}

impl Scene {
    fn new(server: Server) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("shoal")).unwrap();
        fs::create_dir(dir.path().join("rules")).unwrap();
        let at = dir.path().join("shoal/current");
        let own = format!(
            "command_file=cmd\nstatus_file=status\nobject_cache_file=cache\ncfg_dir={}\n",
            at.display()
        );
        fs::write(dir.path().join("nagios.cfg"), own).unwrap();
        Self { dir, server }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn instance(&self, checker: &str) -> Servers {
        let line = format!("echo $0 >> {}; {checker}", self.at("calls").display());
        let table = match self.server {
            Server::Prometheus => json!({"directory": self.at("shoal"),
                "rules": {"directory": self.at("rules"), "check": ["sh", "-c", line, "{file}"], "tell": false}}),
            _ => {
                json!({"directory": self.at("shoal"), "config": self.at("nagios.cfg"), "check": ["sh", "-c", line, "{config}"],
                "tell": false})
            }
        };
        let settings: Settings = serde_json::from_value(json!({self.server.name(): table})).unwrap();
        settings.open(Secrets::default()).unwrap().1
    }

    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.at("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    async fn apply(
        &self,
        servers: &Servers,
        number: u64,
        changes: Vec<(Subject, Option<Item>, Item)>,
    ) -> Result<Applied<Monitoring>, Fault> {
        let edit = |(subject, from, to): (Subject, Option<Item>, Item)| Edit::<Monitoring> {
            key: Key { server: self.server, subject },
            verb: "update",
            from: from.map(Have::from),
            to: Some(to),
            memo: Value::Null,
            token: String::new(),
            because: Why::Wanted(Revision(1)),
        };
        let changes = changes.into_iter().map(edit).collect();
        let batch = Batch { changes, after: Vec::new(), revision: Revision(1) };
        let clock = Arc::new(Ended(self.at("ended")));
        let fence = Fence { number, not_after: 50, epoch: Epoch(1), clock };
        servers.apply(&Unit::from(self.server.name()), &batch, &fence).await
    }
}

fn host(address: &str) -> (Subject, Item) {
    let timing = json!({"interval": 300, "retry": 60, "attempts": 3});
    let host = json!({"address": address, "timing": timing, "services": {"a": {"check": "check_echo!a"}}});
    let item = serde_json::from_value(json!({"host": host})).unwrap();
    (Subject::Host("web1.example.com".parse().unwrap()), item)
}

/// Rules by their expressions.
fn rules(rules: &Value) -> (Subject, Item) {
    let each = |(name, rule): (&String, &Value)| (name.clone(), json!({"expr": rule["expr"], "for": "0s"}));
    let rules: serde_json::Map<_, _> = rules.as_object().unwrap().iter().map(each).collect();
    let item = serde_json::from_value(json!({"rules": rules})).unwrap();
    (Subject::Rules("monitoring/web".parse().unwrap()), item)
}

/// What is left in a folder that is a candidate of somebody's.
fn left(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("candidate") || name.starts_with("check")).collect()
}

#[tokio::test]
async fn each_checks_its_own_candidate_and_leaves_none() {
    for (server, one) in
        [(Server::Nagios, host("192.0.2.1")), (Server::Prometheus, rules(&json!({"Down": {"expr": "up"}})))]
    {
        let scene = Scene::new(server);
        let folder = if server == Server::Prometheus { "rules" } else { "shoal" };
        // One that was killed while the checker ran left its own; a stranger's file is not ours.
        fs::write(scene.at(folder).join(".candidate-1.json"), "").unwrap();
        fs::write(scene.at(folder).join("check-0000000000000001.cfg"), "").unwrap();
        for number in [7, 8] {
            // Another instance: it knows nothing of the first, and both may be at it.
            let from = (number == 8).then(|| one.1.clone());
            let to = match server {
                Server::Prometheus => rules(&json!({"Down": {"expr": format!("up == {number}")}})),
                _ => host(&format!("192.0.2.{number}")),
            };
            let first = (one.0.clone(), None, one.1.clone());
            let changes = match (number, server) {
                (7, Server::Nagios) => vec![(Subject::Server, None, Item::Server), first],
                (7, _) => vec![first],
                _ => vec![(to.0, from, to.1)],
            };
            let done = scene.apply(&scene.instance("true"), number, changes).await.unwrap();
            assert!(
                done.each.iter().all(|(_, outcome)| *outcome == Outcome::Done),
                "{server} {:?}",
                done.each
            );
        }
        let calls = scene.calls();
        assert!(
            calls.len() >= 2 && calls.iter().collect::<BTreeSet<_>>().len() == calls.len(),
            "{server} {calls:?}"
        );
        let strangers: BTreeSet<String> = match server {
            Server::Prometheus => ["check-0000000000000001.cfg".to_owned()].into(),
            _ => [".candidate-1.json".to_owned()].into(),
        };
        // What is left of others goes in its own time.
        let end = Instant::now() + Duration::from_secs(90);
        while left(&scene.at(folder)) != strangers {
            assert!(Instant::now() < end, "{server}: {:?}", left(&scene.at(folder)));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The main configuration may hold a password: what is checked is a copy of it for nobody else.
#[tokio::test]
async fn the_copy_that_is_checked_is_read_by_nobody_else() {
    for mode in [0o644, 0o640, 0o600] {
        let scene = Scene::new(Server::Nagios);
        fs::set_permissions(scene.at("nagios.cfg"), fs::Permissions::from_mode(mode)).unwrap();
        let checker = format!("stat -c %a $0 >> {}", scene.at("modes").display());
        let (subject, item) = host("192.0.2.1");
        let changes = vec![(Subject::Server, None, Item::Server), (subject, None, item)];
        scene.apply(&scene.instance(&checker), 7, changes).await.unwrap();
        let modes = fs::read_to_string(scene.at("modes")).unwrap();
        let same = modes.lines().all(|line| line == format!("{mode:o}"));
        assert!(same && !modes.is_empty(), "{mode:o}: {modes}");
    }
}

/// The checker takes its time, and the claim ends meanwhile: there is no second round, and nothing is written.
#[tokio::test]
async fn nothing_is_begun_after_the_end_of_the_claim() {
    for server in [Server::Nagios, Server::Prometheus] {
        let scene = Scene::new(server);
        let says = match server {
            Server::Prometheus => {
                r#"echo 'group "monitoring/web", rule 1, "Down": could not parse expression'"#
            }
            _ => {
                r#"echo "Error: Service check command 'check_echo' specified in service 'a' for host 'web1.example.com' not defined anywhere!""#
            }
        };
        let checker = format!("touch {}; {says}; exit 1", scene.at("ended").display());
        let rules = rules(&json!({"Down": {"expr": "up"}, "Up": {"expr": "up"}}));
        let changes = match server {
            Server::Prometheus => vec![(rules.0, None, rules.1)],
            _ => {
                let (subject, item) = host("192.0.2.1");
                vec![(Subject::Server, None, Item::Server), (subject, None, item)]
            }
        };
        let done = scene.apply(&scene.instance(&checker), 7, changes).await;
        let failed = done.is_err()
            || done.is_ok_and(|done| done.each.iter().all(|(_, o)| matches!(o, Outcome::Failed(_))));
        assert!(failed, "{server}");
        assert_eq!(scene.calls().len(), 1, "{server} {:?}", scene.calls());
    }
}

/// What stands in for an Alertmanager that is slow, or refuses one silence, as none does that is asked to: it has none, and says what
/// `answers` does of each that is to be made. The address, and what was heard.
fn alertmanager(
    answers: impl Fn(&str) -> &'static str + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let keeps = heard.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
                    break;
                }
                if let Some(octets) = line.to_lowercase().strip_prefix("content-length:") {
                    length = octets.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body = String::from_utf8(body).unwrap();
            let (status, text) = match head.starts_with("GET ") {
                true => ("200 OK", "[]"),
                false => (answers(&body), "{}"),
            };
            if !head.starts_with("GET ") {
                keeps.lock().unwrap().push(body);
            }
            let length = text.len();
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}");
            socket.write_all(answer.as_bytes()).unwrap();
        }
    });
    (server, heard)
}

/// Hosts that drain, in front of an Alertmanager.
async fn drained(scene: &Scene, server: &str) -> Result<Applied<Monitoring>, Fault> {
    let table = json!({"directory": scene.at("shoal"), "alertmanager": {"server": server}});
    let settings: Settings = serde_json::from_value(json!({"prometheus": table})).unwrap();
    let servers = settings.open(Secrets::default()).unwrap().1;
    let drains = |n: u8| {
        let scrape = json!({"target": format!("192.0.2.{n}:9100"), "labels": {"state": "draining"}});
        let item = serde_json::from_value(json!({"targets": {"node": scrape}})).unwrap();
        (Subject::Host(format!("web{n}.example.com").parse().unwrap()), None, item)
    };
    scene.apply(&servers, 7, (1..=3).map(drains).collect()).await
}

/// Alertmanager takes its time, and the claim ends meanwhile: no other silence is begun.
#[tokio::test]
async fn no_silence_is_begun_after_the_end_of_the_claim() {
    let scene = Scene::new(Server::Prometheus);
    let ended = scene.at("ended");
    let (server, heard) = alertmanager(move |_| {
        fs::write(&ended, "").unwrap();
        "200 OK"
    });
    let done = drained(&scene, &server).await;
    let failed = |done: &Applied<Monitoring>| done.each.iter().all(|(_, o)| matches!(o, Outcome::Failed(_)));
    assert!(done.is_err() || done.as_ref().is_ok_and(failed));
    let heard = heard.lock().unwrap();
    assert!(heard.len() == 1 && heard[0].contains("web1.example.com"), "{heard:?}");
}

/// What Alertmanager refuses of one host is that host's fault alone.
#[tokio::test]
async fn a_silence_that_is_refused_holds_no_other_host_up() {
    let scene = Scene::new(Server::Prometheus);
    let (server, heard) =
        alertmanager(|body| if body.contains("web2.") { "400 Bad Request" } else { "200 OK" });
    let done = drained(&scene, &server).await.unwrap();
    for (key, outcome) in &done.each {
        let refused = key.subject == Subject::Host("web2.example.com".parse().unwrap());
        assert_eq!(matches!(outcome, Outcome::Failed(_)), refused, "{key} {outcome:?}");
        assert!(refused || *outcome == Outcome::Done, "{key} {outcome:?}");
    }
    let concerned = done.each.iter().filter(|(key, _)| matches!(key.subject, Subject::Host(_))).count();
    assert_eq!((concerned, heard.lock().unwrap().len()), (3, 3));
}

/// A rule that the checker refuses stays as it stood, and goes where that is refused, too.
#[tokio::test]
async fn a_mistyped_rule_does_not_take_the_good_one_away() {
    let scene = Scene::new(Server::Prometheus);
    let bad = |word: &str| {
        format!(
            "if grep -q '{word}' $0; then for n in $(grep -B1 '{word}' $0 | sed -n 's/.*\"alert\": \"\\(.*\\)\".*/\\1/p'); do \
             echo \"group \\\"monitoring/web\\\", rule 1, \\\"$n\\\": could not parse\"; done; exit 1; fi"
        )
    };
    let file = scene.at("rules/shoal-web.json");
    let exprs = || -> Value {
        let file: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let all = file["groups"][0]["rules"].as_array().unwrap();
        all.iter()
            .map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule["expr"].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let good = rules(&json!({"Down": {"expr": "up == 0"}, "Slow": {"expr": "x > 5"}}));
    scene
        .apply(&scene.instance(&bad("rate(")), 7, vec![(good.0.clone(), None, good.1.clone())])
        .await
        .unwrap();
    assert_eq!(exprs(), json!({"Down": "up == 0", "Slow": "x > 5"}));
    let typo =
        rules(&json!({"Down": {"expr": "rate("}, "New": {"expr": "rate("}, "Slow": {"expr": "x > 6"}}));
    let change = vec![(typo.0.clone(), Some(good.1.clone()), typo.1.clone())];
    let done = scene.apply(&scene.instance(&bad("rate(")), 7, change).await.unwrap();
    let (_, Outcome::Failed(fault)) = &done.each[0] else { panic!("{:?}", done.each) };
    assert!(fault.why.contains("stay as they stood") && fault.why.contains("Down"), "{}", fault.why);
    assert_eq!(exprs(), json!({"Down": "up == 0", "Slow": "x > 6"}));
    // A checker that takes neither.
    let stands = rules(&json!({"Down": {"expr": "up == 0"}, "Slow": {"expr": "x > 6"}})).1;
    let other = rules(&json!({"Down": {"expr": "up == rate("}, "Slow": {"expr": "x > 7"}}));
    let change = vec![(other.0, Some(stands), other.1)];
    let done = scene.apply(&scene.instance(&bad("up ==")), 7, change).await.unwrap();
    assert!(matches!(done.each[0].1, Outcome::Failed(_)), "{:?}", done.each);
    assert_eq!(exprs(), json!({"Slow": "x > 7"}));
}
