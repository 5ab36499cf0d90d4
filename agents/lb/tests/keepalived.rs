//! A virtual address in front of two load balancers, in namespaces of the network: who has it when one of them dies or is not well.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Net, Scratch, until};
use serde_json::json;

const LBS: [&str; 2] = ["lb1", "lb2"];
const VIP: &str = "10.99.1.100";
/// How long nobody may have the address.
const MOST: Duration = Duration::from_secs(1);
/// So late a thread is woken only where the machine stalls.
const STALL: Duration = Duration::from_millis(50);

fn document(router: u8, more: &str) -> String {
    format!(
        "host: lb1.example.com\ndocument: {{lb: {{priority: 150}}}}\n---\nhost: lb2.example.com\ndocument: {{}}\n---\n\
         tag: lb/address:front\ndocument: {{virtual_address: {{addresses: [{VIP}/24], router: {router}, {more}}}}}\n\
         members: [lb1.example.com, lb2.example.com]\n"
    )
}

/// Has the agent of each machine converge.
fn converge(net: &Net, scratch: &Scratch) {
    for lb in LBS {
        scratch.configure(&net.table(lb));
        scratch.converge();
    }
}

/// From when it happens to the first until a client hears from the second.
fn took(net: &mut Net, happens: impl FnOnce(&mut Net)) -> Duration {
    let client = net.client(VIP);
    let begun = Instant::now();
    until("the first answers", || client.heard(begun, "lb1").is_some());
    let happened = Instant::now();
    happens(net);
    until("the second has the address", || net.has("lb2", VIP));
    let mut heard = None;
    until("the second answers", || {
        heard = client.heard(happened, "lb2");
        heard.is_some()
    });
    client.end();
    heard.unwrap() - happened
}

/// Naps again and again, and notes by how many milliseconds it overslept at most since that was last set to 0; as long as anybody has it.
fn witness() -> Arc<AtomicU64> {
    const NAP: Duration = Duration::from_millis(10);
    let late = Arc::new(AtomicU64::new(0));
    let noted = late.clone();
    thread::spawn(move || {
        while Arc::strong_count(&noted) > 1 {
            let begun = Instant::now();
            thread::sleep(NAP);
            let overslept = begun.elapsed().saturating_sub(NAP).as_millis();
            noted.fetch_max(u64::try_from(overslept).unwrap(), Ordering::Relaxed);
        }
    });
    late
}

/// Has it take so long so many times: each of them has to be in time. One that was not while the machine demonstrably stalled tells nothing
/// of keepalived, and is done again.
fn every(what: &str, times: usize, mut took: impl FnMut() -> Duration) {
    let late = witness();
    let (mut all, mut spoilt) = (Vec::new(), 0);
    while all.len() < times {
        late.store(0, Ordering::Relaxed);
        let time = took();
        let stalled = Duration::from_millis(late.load(Ordering::Relaxed));
        if time >= MOST && stalled >= STALL && spoilt < 5 {
            println!("{what}: {time:?}, while the machine stalled for {stalled:?}");
            spoilt += 1;
            continue;
        }
        assert!(time < MOST, "{what}: {time:?} after {all:?}; a nap was longer by {stalled:?} at most");
        all.push(time);
    }
    println!("another one has the address, {what}: after {all:?}");
}

/// Waits until the first has the address, and the other one has not.
fn first_has_it(net: &Net) {
    until("the first has it", || net.has("lb1", VIP) && !net.has("lb2", VIP));
}

/// The first one dies: how long nobody has the address. Then it is back, and has the larger priority.
fn dies(net: &mut Net) -> Duration {
    let dead = took(net, |net| net.die("lb1"));
    net.rise("lb1");
    first_has_it(net);
    dead
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_moves_within_a_second() {
    if !Net::is_possible("the_address_moves_within_a_second") {
        return;
    }
    let mut net = Net::start();
    let scratch = Scratch::new("");
    scratch.apply(&document(51, "advertise: 100, checks: [health, web]")).await;
    // A pool of the same database is not this agent's.
    scratch.apply("tag: lb/web\ndocument: {port: 80}\nmembers: [lb1.example.com]\n").await;
    converge(&net, &scratch);
    first_has_it(&net);
    let files = LBS.map(|lb| net.file(lb));
    assert!(files[0].contains("priority 150") && files[1].contains("priority 100"), "{files:?}");

    every("where it died", 5, || dies(&mut net));
    every("where a file says that it is not well", 5, || {
        let health = net.path("lb1", "health");
        let ill = took(&mut net, |_| fs::write(&health, "1\n").unwrap());
        fs::write(&health, "0\n").unwrap();
        first_has_it(&net);
        ill
    });
    // A command is run once a second: counted from the run that failed. That makes each time long, so there are fewer.
    let (well, failed) = (net.path("lb1", "well"), net.path("lb1", "failed"));
    every("where a command failed", 3, || {
        fs::remove_file(&well).unwrap();
        until("the second has the address", || net.has("lb2", VIP));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let at: u64 = fs::read_to_string(&failed).unwrap().trim().parse().unwrap();
        fs::write(&well, "").unwrap();
        fs::remove_file(&failed).unwrap();
        first_has_it(&net);
        now.saturating_sub(Duration::from_nanos(at))
    });
    // And as often as it is said that the holder lives where nobody says how often.
    scratch.apply(&document(51, "checks: [health, web]")).await;
    converge(&net, &scratch);
    assert!(LBS.iter().all(|lb| net.file(lb).contains("advert_int 0.20\n")), "{}", net.file("lb2"));
    first_has_it(&net);
    every("where it died, by default", 1, || dies(&mut net));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_machine_keeps_its_own_part() {
    if !Net::is_possible("each_machine_keeps_its_own_part") {
        return;
    }
    let net = Net::start();
    let scratch = Scratch::new("");
    scratch.apply(&document(51, "advertise: 100")).await;
    scratch.configure(&net.table("lb1"));
    scratch.converge();
    assert!(net.file("lb2").is_empty(), "it is the other one's to write");
    converge(&net, &scratch);
    // An edit is undone, and so is what somebody made keepalived read.
    let (file, path) = (net.file("lb2"), net.path("lb2", "shoal/addresses.conf"));
    fs::write(&path, file.replace("priority 100", "priority 200")).unwrap();
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 3 && said.contains("drift"), "{code} {said}");
    scratch.converge();
    assert_eq!(net.file("lb2"), file);
    // The file is removed: whatever is made of it next, keepalived goes on with what it had.
    fs::remove_file(&path).unwrap();
    scratch.converge();
    assert_eq!(net.file("lb2"), file);
    // Nobody has such a check: what was there stays there.
    scratch.apply(&document(51, "checks: [none]")).await;
    let (code, said) = scratch.once(2, 1, "no check none");
    assert!(code == 1 && said.contains("no check none"), "{code} {said}");
    assert_eq!(net.file("lb2"), file);
    // No two of a network may have one router.
    scratch.apply(&document(51, "advertise: 100")).await;
    let other = "tag: lb/address:other\ndocument: {virtual_address: {addresses: [10.99.1.101/24], router: 51}}\n\
                 members: [lb2.example.com]\n";
    scratch.apply(other).await;
    let (code, said) = scratch.once(2, 1, "has the router 51 on eth0 already");
    assert!(code == 1 && said.contains("has the router 51 on eth0 already"), "{code} {said}");
    assert_eq!(net.file("lb2"), file);
    scratch.apply(&other.replace("51}", "52}")).await;
    converge(&net, &scratch);
    until("both are there", || net.has("lb2", "10.99.1.101") && net.has("lb1", VIP));
    // keepalived itself refuses what it cannot do.
    let good = net.file("lb2");
    let broken = format!("{}interface = 'none0'\n", net.table("lb2").replace("interface = 'eth0'\n", ""));
    let (head, checks) = broken.split_once("[agent.keepalived.checks]").unwrap();
    let (checks, interface) = checks.rsplit_once("interface").unwrap();
    scratch.configure(&format!("{head}interface{interface}[agent.keepalived.checks]{checks}"));
    let (code, said) = scratch.once(2, 1, "none0");
    assert!(code == 1 && said.contains("none0"), "{code} {said}");
    assert_eq!(net.file("lb2"), good);
    assert!(net.has("lb2", "10.99.1.101"));
    // A machine that leaves, and a tag that goes.
    scratch.configure(&net.table("lb1"));
    scratch.edit(json!([{"edit": "set_state", "host": "lb1.example.com", "state": "draining"}])).await;
    scratch.converge();
    until("the second has it", || net.has("lb2", VIP) && !net.has("lb1", VIP));
    scratch.configure(&net.table("lb2"));
    scratch.edit(json!([{"edit": "delete", "key": "lb/address:front"}])).await;
    scratch.converge();
    until("nobody has it", || !net.has("lb2", VIP) && net.has("lb2", "10.99.1.101"));
}
