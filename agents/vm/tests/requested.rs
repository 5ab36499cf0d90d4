//! A machine that somebody asks for through HostDB's own interface: placement finds room for it, and this agent makes it.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod fleet;

use std::fmt::Write as _;

use fleet::Fleet;
use fleet::room::{ROOM, name};
use serde_json::json;
use shoal_agent::chooser::{How, pass};
use shoal_hostdb::{Limits, Listener, Server};
use shoal_placement::agent::Placement;
use shoal_store::Database;
use shoal_vm::Stage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// A PUT as HostDB's clients send it: a form with a value, the reason and the session. The answer's first line.
async fn put(server: &str, path: &str, fields: &[(&str, &str)]) -> String {
    let mut form = "session=ann&log=because".to_owned();
    for (name, value) in fields {
        write!(form, "&{name}=").unwrap();
        value.bytes().for_each(|octet| write!(form, "%{octet:02x}").unwrap());
    }
    let head = format!(
        "PUT /v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n",
        form.len()
    );
    let mut socket = tokio::net::TcpStream::connect(server).await.unwrap();
    socket.write_all(format!("{head}{form}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_hostdbs_own_interface_requests_is_placed_and_made() {
    let mut fleet = Fleet::new();
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = listener.at().to_string();
    let at = at.strip_prefix("http://").unwrap();
    let stop = CancellationToken::new();
    let server = Server::start(fleet.store.clone(), Limits::default(), false, stop.clone()).await.unwrap();
    let serving = tokio::spawn(server.with_hostdb_v1(true).serve(vec![listener]));
    let machine = "---\nimage: debian-12\nsize:\n  cpu: 1\n  memory: 1073741824\n";
    let room = "box: {capacity: {cpu: 4, memory: 8589934592}}";
    for (path, fields) in [
        (format!("hosts/{ROOM}"), vec![("value", room)]),
        (format!("hosts/{}", name(1)), vec![("value", machine), ("state", "requested")]),
        (format!("vm/all/members/{}", name(1)), vec![]),
        // The same without the word stands somewhere already, for all that anybody knows.
        (format!("hosts/{}", name(2)), vec![("value", machine)]),
        (format!("vm/all/members/{}", name(2)), vec![]),
    ] {
        let said = put(at, &path, &fields).await;
        assert!(said.starts_with("HTTP/1.1 201"), "{path}: {said}");
    }
    stop.cancel();
    serving.await.unwrap();

    let database = Database::open(fleet.store.clone()).await.unwrap();
    let author = "agent placement".to_owned();
    let how = How { author, instance: 0, most: 9, attempts: 3, only: None, at: None };
    let chosen = pass(&database, &Placement::default(), &how).await.unwrap().choice.chosen;
    let chosen: Vec<String> =
        chosen.iter().map(|one| format!("{} {} {}", one.verb, one.host, one.with)).collect();
    assert_eq!(chosen, [format!("place {} on {ROOM}", name(1))]);

    for below in ["hosts/", "vm/all/", "facts/placement/"] {
        assert!(fleet.learn(below), "{below}");
    }
    fleet.pass(10);
    let id = fleet.row(&format!("hosts/{}", name(1)))["id"].as_str().unwrap().to_owned();
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id)), ("active", Some(Stage::Up)));
    let made = fleet.row(&format!("facts/vm/{}", name(1)));
    assert_eq!((&made["image"], &made["box"]), (&json!("debian-12"), &json!(ROOM)));
    assert_eq!(fleet.provider.made().machines.len(), 1);
}
