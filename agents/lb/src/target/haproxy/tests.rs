//! What changes and looks ask of HAProxy: as much in a pool of 5,000 servers as in one of 50, until the change is in effect.
//!
//! HAProxy is one on paper: it answers as HAProxy 2.6 does, changes nothing, and remembers what it was asked.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use shoal_agent::{
    Applied, Batch, Clock, Edit, Epoch, Fault, Fence, HostName, Moment, Outcome, Revision, Scope, Seen,
    TagName, Why, files,
};

use super::work::changes_kind;
use super::{Haproxy, render};
use crate::agent::Lb;
use crate::item::{Have, Item, Key, Pool, Server};
use crate::leave::{DRAIN_VERB, Leaving};
use crate::target::file::{self, Kept, Line, Said};

/// What was asked in one line, and how many lines were answered.
type Asked = (String, usize);

/// A pool in its file and in HAProxy.
struct Paper {
    haproxy: Haproxy,
    asked: Arc<Mutex<Vec<Asked>>>,
    _dir: tempfile::TempDir,
}

impl Paper {
    /// A pool of so many servers in its file, and so many in HAProxy.
    fn new(kept: u32, running: u32, least: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("pools")).unwrap();
        let settings = json!({
            "directory": path("pools"), "stats": path("admin.sock"), "master": path("master.sock"), "check": ["true"]});
        let haproxy = Haproxy::open(serde_json::from_value(settings).unwrap()).unwrap();
        let pool = json!({
            "protocol": "http", "balance": "round_robin", "slow_start": 0, "least": least, "frontends": []});
        let pool: Pool = serde_json::from_value(pool).unwrap();
        let form = render::form(&pool);
        let line = |n| {
            let kept = Kept { host: host(n), server: server(100), draining: false };
            (host(n), Line::Made(kept))
        };
        let said = Said { pool, whole: true, servers: (0..kept).map(line).collect() };
        files::put(&haproxy.path("web"), Some(&file::text(&haproxy.language, "web", &said))).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (listener, told) = (UnixListener::bind(path("admin.sock")).unwrap(), asked.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                stream.read_to_string(&mut line).unwrap();
                let line = line.trim_end().to_owned();
                let said: String = line.split(';').map(|command| answer(command, running, &form)).collect();
                told.lock().unwrap().push((line, said.lines().count()));
                stream.write_all(said.as_bytes()).unwrap();
            }
        });
        Self { haproxy, asked, _dir: dir }
    }

    /// What HAProxy was asked since this was called last.
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The lines of it.
    fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|(line, _)| line).collect()
    }

    async fn apply(&self, edit: Edit<Lb>) -> Result<Applied<Lb>, Fault> {
        let batch = Batch { changes: vec![edit], after: Vec::new(), revision: Revision(1) };
        let clock = Arc::new(Still);
        let fence = Fence { number: 1, not_after: Moment::MAX, epoch: Epoch(1), clock };
        self.haproxy.apply(&tag(), &batch, &fence).await
    }

    /// What became of one change.
    async fn outcome(&self, edit: Edit<Lb>) -> Outcome {
        let mut applied = self.apply(edit).await.unwrap();
        applied.each.remove(0).1
    }

    /// How many items a look at these showed.
    async fn look(&self, keys: &[Key]) -> usize {
        let observed = self.haproxy.observe(&tag(), Scope::Keys(keys)).await.unwrap();
        assert!(observed.complete);
        assert!(observed.seen.values().all(|seen| matches!(seen, Seen::There(_))));
        observed.seen.len()
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Moment {
        0
    }
}

fn tag() -> TagName {
    "lb/web".parse().unwrap()
}

fn host(n: u32) -> HostName {
    format!("web{n}.example.com").parse().unwrap()
}

fn key(n: u32) -> Key {
    Key { pool: tag(), host: Some(host(n)), at: None }
}

fn server(weight: u16) -> Server {
    Server { address: [192, 0, 2, 1].into(), port: 80, weight, backup: false, drain: 60 }
}

/// What HAProxy says to a command.
fn answer(command: &str, servers: u32, form: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let stat = |rows: String| {
        format!("# pxname,svname,scur,status,act,bck,type,\n{rows}web,BACKEND,0,UP,{servers},0,1,\n\n")
    };
    match words.as_slice() {
        ["get", "var", variable] => format!("{variable}: type=str value=<{form}>\n\n"),
        ["get", "weight", at] if (0..servers).any(|n| *at == format!("web/{}", host(n))) => {
            "100 (initial 100)\n\n".to_owned()
        }
        ["get", "weight", _] => "No such server.\n\n".to_owned(),
        ["show", "servers", "state", "web"] => {
            let head = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port\n";
            let row = |n| format!("2 web {n} {} 192.0.2.1 2 0 100 100 80\n", host(n));
            format!("{head}{}\n", (0..servers).map(row).collect::<String>())
        }
        ["show", "stat", "web", "2", "-1"] => stat(String::new()),
        ["show", "stat", "web", "6", "-1"] => {
            stat((0..servers).map(|n| format!("web,{},0,UP,1,0,2,\n", host(n))).collect())
        }
        ["set", "server", ..] => "\n".to_owned(),
        _ => format!("Unknown command: '{command}'.\n\n"),
    }
}

fn edit(n: u32, verb: &'static str, to: Option<Server>, memo: Value) -> Edit<Lb> {
    let (from, to) = (Some(Have::from(Item::Server(server(100)))), to.map(Item::Server));
    let because = Why::Wanted(Revision(1));
    Edit { key: key(n), verb, from, to, memo, token: String::new(), because }
}

/// A change of a server whose host is known to serve.
fn update(n: u32, to: Server) -> Edit<Lb> {
    edit(n, "update", Some(to), json!({"told": true}))
}

fn drain(n: u32) -> Edit<Lb> {
    edit(n, DRAIN_VERB, None, Leaving { until: 60_000, drained: false }.memo())
}

#[tokio::test]
async fn a_change_costs_as_much_in_a_large_pool_as_in_a_small_one() {
    let variable = render::variable("web");
    let mut costs = Vec::new();
    for servers in [50, 5_000] {
        let paper = Paper::new(servers, servers, 1);
        assert_eq!(paper.outcome(update(servers - 1, server(7))).await, Outcome::Done);
        let weight = paper.asked();
        assert!(matches!(paper.outcome(drain(7)).await, Outcome::Running { .. }));
        let drain = paper.asked();
        assert_eq!(paper.look(&[key(servers)]).await, 0);
        let look = paper.asked();
        let name = |n: u32| format!("web/{}", host(n));
        for (asked, expected) in [
            (
                &weight,
                vec![
                    format!("get var {variable}"),
                    format!("set server {} weight 7;get var {variable}", name(servers - 1)),
                ],
            ),
            (
                &drain,
                vec![
                    format!("get var {variable};show stat web 2 -1"),
                    format!("set server {} state drain;get var {variable}", name(7)),
                ],
            ),
            (&look, vec![format!("get var {variable};get weight {}", name(servers))]),
        ] {
            assert!(asked.iter().map(|(line, _)| line).eq(&expected), "{asked:?}");
        }
        let answered = |asked: &[Asked]| asked.iter().map(|(_, lines)| *lines).collect::<Vec<_>>();
        costs.push([weight, drain, look].map(|asked| answered(&asked)));
        let text = std::fs::read_to_string(paper.haproxy.path("web")).unwrap();
        assert_eq!(text.matches(" weight 7 ").count(), 1);
        assert_eq!(text.matches("\"draining\":true").count(), 1);
    }
    assert_eq!(costs[0], costs[1], "lines that HAProxy answered with");
}

#[tokio::test]
async fn a_change_is_in_effect_before_the_servers_in_the_file_are_read() {
    let paper = Paper::new(50, 50, 1);
    let path = paper.haproxy.path("web");
    let mut text = std::fs::read(&path).unwrap();
    text.extend(b"# \xff\n");
    std::fs::write(&path, &text).unwrap();
    let fault = paper.apply(update(7, server(7))).await.map(|_| ()).unwrap_err();
    assert!(fault.to_string().contains("web.cfg"), "{fault}");
    assert!(paper.lines().last().unwrap().starts_with(&format!("set server web/{} weight 7;", host(7))));
    assert_eq!(std::fs::read(&path).unwrap(), text);
}

#[tokio::test]
async fn what_only_the_file_says_is_not_told() {
    let paper = Paper::new(3, 3, 1);
    let outcome = paper.outcome(update(1, Server { drain: 5, ..server(100) })).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(paper.lines(), [format!("get var {}", render::variable("web"))]);
    let text = std::fs::read_to_string(paper.haproxy.path("web")).unwrap();
    assert_eq!(text.matches("\"drain\":5}").count(), 1, "{text}");
}

#[tokio::test]
async fn who_of_them_serves_is_asked_where_not_all_can_be_spared() {
    let variable = render::variable("web");
    let summary = format!("get var {variable};show stat web 2 -1");
    let whole = format!("get var {variable};show servers state web;show stat web 6 -1");
    let paper = Paper::new(3, 3, 3);
    assert_eq!(paper.outcome(drain(1)).await, Outcome::Stale);
    assert_eq!(paper.lines(), [summary.clone(), whole.clone()]);
    // One that HAProxy does not have does not serve, and may leave at any time.
    let paper = Paper::new(4, 3, 3);
    assert!(matches!(paper.outcome(drain(3)).await, Outcome::Running { .. }));
    let told = format!("set server web/{} state drain;get var {variable}", host(3));
    assert_eq!(paper.lines(), [summary, whole, told]);
}

#[tokio::test]
async fn who_may_be_there_is_looked_at_with_all_others() {
    let variable = render::variable("web");
    let whole = format!("get var {variable};show servers state web;show stat web 6 -1");
    // The file names one, and HAProxy has another.
    let paper = Paper::new(50, 51, 1);
    assert_eq!(paper.look(&[key(7)]).await, 52);
    assert_eq!(paper.lines(), std::slice::from_ref(&whole));
    assert_eq!(paper.look(&[key(50), key(60)]).await, 52);
    let asked = format!("get var {variable};get weight web/{};get weight web/{}", host(50), host(60));
    assert_eq!(paper.lines(), [asked, whole.clone()]);
    // The pool as a whole, or many.
    assert_eq!(paper.look(&[Key { host: None, ..key(0) }]).await, 52);
    let many: Vec<Key> = (60..80).map(key).collect();
    assert_eq!(paper.look(&many).await, 52);
    assert_eq!(paper.lines(), [whole.clone(), whole]);
    // A file that Shoal did not write.
    std::fs::write(paper.haproxy.path("web"), "# mine\n").unwrap();
    let observed = paper.haproxy.observe(&tag(), Scope::Keys(&[key(60)])).await;
    let fault = observed.map(|_| ()).unwrap_err();
    assert!(fault.to_string().contains("Shoal did not write it"), "{fault}");
}

#[test]
fn a_server_that_becomes_a_backup_takes_a_reload_also_before_another_look() {
    let to = |backup| update(7, Server { backup, ..server(100) });
    assert!(changes_kind(&to(true)));
    assert!(!changes_kind(&to(false)));
}
