//! Servers that are reached over TLS, by a real HAProxy; and those that back the others up.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fmt::Write as _;

use common::{HaProxy, Nginx, Scratch, WEB, answering, fleet, free, has, named, until, web};
use serde_json::json;
use shoal_client::certificates::Authority;

/// Answers over TLS with the name of its host, and shows a certificate with another one: in the configuration of the HAProxy that asks it.
fn endpoint(authority: &Authority, folder: &std::path::Path, host: &str, shows: &str) -> (u16, String) {
    let pair = authority.server(&[shows]).unwrap();
    let pem = folder.join(format!("{host}.pem"));
    std::fs::write(&pem, pair.cert + &pair.key).unwrap();
    let port = free();
    let text = format!(
        "frontend {host}\n  bind 127.0.0.1:{port} ssl crt {}\n  http-request return status 200 content-type text/plain string {host}\n",
        pem.display()
    );
    (port, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_over_tls_has_to_show_its_name() {
    if !has("a_server_over_tls_has_to_show_its_name", "haproxy") {
        return;
    }
    let (authority, folder, port) = (Authority::new().unwrap(), tempfile::tempdir().unwrap(), free());
    let signs = folder.path().join("internal.pem");
    std::fs::write(&signs, &authority.pem).unwrap();
    let (mut own, mut hosts) = (String::new(), String::new());
    for (host, shows) in WEB.into_iter().zip([WEB[0], WEB[1], "other.example.com"]) {
        let (at, text) = endpoint(&authority, folder.path(), host, shows);
        own += &text;
        write!(hosts, "host: {host}\ndocument: {{address: 127.0.0.1, lb: {{port: {at}}}}}\n---\n").unwrap();
    }
    let haproxy = HaProxy::start(&own);
    let authorities = format!("authorities = {{ internal = '{}' }}\n", signs.display());
    let scratch = Scratch::new(&(haproxy.table("") + &authorities));
    let pool = |members: &[&str]| {
        format!(
            "tag: lb/web\ndocument: {{port: 80, tls: internal, check: {{path: /, interval: 1, rise: 1, fall: 1}}, frontends: ['127.0.0.1:{port}']}}\nmembers: [{}]\n",
            members.join(", ")
        )
    };
    // The first server that HAProxy has of it comes at run time: it has read who signs before.
    scratch.apply(&(hosts + &pool(&[]))).await;
    scratch.converge();
    let pid = haproxy.pid();
    scratch.apply(&pool(&[WEB[0], WEB[2]])).await;
    scratch.converge();
    until("who shows another name is down", || answering(port) == [WEB[0]]);
    scratch.apply(&pool(&WEB)).await;
    scratch.converge();
    until("another one has come", || answering(port) == WEB[..2]);
    assert_eq!(haproxy.pid(), pid);
    haproxy.reload();
    until("it is so after a reload, too", || answering(port) == WEB[..2]);
    // Who signs the certificates stands with the node alone.
    scratch.apply("tag: lb/other\ndocument: {port: 80, tls: other}\n").await;
    let (code, said) = scratch.once(2, 5, "authorities = { other = ");
    assert!(code != 0 && said.contains("authorities = { other = "), "{code} {said}");
    assert!(haproxy.file("other").is_empty() && answering(port) == WEB[..2]);
}

/// Makes the last one a backup, or none.
async fn backs_up(scratch: &Scratch, port: u16, backup: bool) {
    let host =
        format!("host: {}\ndocument: {{address: 127.0.0.1, lb: {{port: {port}, backup: {backup}}}}}", WEB[2]);
    scratch.apply(&host).await;
}

async fn leave(scratch: &Scratch, hosts: &[&str]) {
    for host in hosts {
        scratch.edit(json!([{"edit": "set_state", "host": host, "state": "draining"}])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_haproxy_works_when_nobody_else_can() {
    if !has("a_backup_of_haproxy_works_when_nobody_else_can", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends), ", least: 1")).await;
    backs_up(&scratch, backends[2].port, true).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[..2]);
    // Both ways, by a reload.
    for (backup, answer) in [(false, &WEB[..]), (true, &WEB[..2])] {
        let pid = haproxy.pid();
        backs_up(&scratch, backends[2].port, backup).await;
        scratch.converge();
        assert!(answering(port) == answer && haproxy.pid() != pid, "{backup}");
    }
    // It is no server to spare as long as the others work.
    leave(&scratch, &WEB[..2]).await;
    let (code, said) = scratch.once(5, 5, "to have a server to spare");
    assert!(code == 5 && said.contains("to have a server to spare"), "{code} {said}");
    assert!(answering(port).len() == 1 && answering(port) != [WEB[2]]);
    scratch.apply(fleet(port, &named(&backends), ", least: 0").split("---\n").last().unwrap()).await;
    scratch.converge();
    assert_eq!((answering(port), haproxy.servers("web").len()), (vec![WEB[2].to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_nginx_works_when_nobody_else_can() {
    if !Nginx::is_here("tls::a_backup_of_nginx_works_when_nobody_else_can") {
        return;
    }
    let (nginx, backends, port) = (Nginx::start(""), web(), free());
    let scratch = Scratch::new(&nginx.table(""));
    let pool = |more: &str| fleet(port, &named(&backends), more);
    let tag = |more: &str| pool(more).split("---\n").last().unwrap().to_owned();
    scratch.apply(&pool(", least: 0")).await;
    backs_up(&scratch, backends[2].port, true).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[..2]);
    // With others, nginx has none: that is said.
    scratch.apply(&tag(", least: 0, balance: random")).await;
    let (_, said) = scratch.once(5, 5, "backup: nginx has it");
    assert!(said.contains("backup: nginx has it"), "{said}");
    until("it gets its share", || answering(port) == WEB);
    scratch.apply(&tag(", least: 0")).await;
    leave(&scratch, &WEB[..2]).await;
    scratch.converge();
    assert_eq!(answering(port), [WEB[2]]);
    // What needs HAProxy is refused.
    scratch.apply("tag: lb/secret\ndocument: {port: 80, tls: internal}\n").await;
    let (code, said) = scratch.once(2, 5, "it needs HAProxy");
    assert!(code != 0 && said.contains("it needs HAProxy"), "{code} {said}");
}
