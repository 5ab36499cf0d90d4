//! How many commits several processes get done together: `contention ADDRESS PROCESSES CLIENTS SECONDS [plain | wide]`.
//!
//! Each process opens the database at ADDRESS and has as many clients as it is told, of which each commits to a row of its own, one commit
//! after the other. With `plain` they put one key each with etcd's client, with nothing of ours: the same load on the same etcd.
//! With `wide` the first process commits 20 rows at a time, which are handed to nobody: how it fares among the others.
//! Written are the commits per second of all together, and how long one took.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement for people, which ends where something is wrong"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shoal_core::{Change, Commit, Document};
use shoal_store::Store;
use shoal_store_etcd::EtcdStore;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["worker", address, number, clients, seconds, way] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let took = runtime.block_on(work(
                address,
                number,
                clients.parse().unwrap(),
                seconds.parse().unwrap(),
                way,
            ));
            let took: Vec<_> = took.iter().map(|one| one.as_micros().to_string()).collect();
            println!("{}", took.join(" "));
        }
        [address, processes, clients, seconds, way @ ..] => {
            let way = way.first().copied().unwrap_or("shoal");
            lead(address, processes.parse().unwrap(), clients.parse().unwrap(), seconds, way);
        }
        _ => println!("usage: contention ADDRESS PROCESSES CLIENTS SECONDS [plain | wide]"),
    }
}

/// Starts the processes, lets all begin at once, and puts together what they say.
fn lead(address: &str, processes: usize, clients: usize, seconds: &str, way: &str) {
    let myself = std::env::current_exe().unwrap();
    let start = |number: usize| -> (Child, BufReader<std::process::ChildStdout>) {
        let arguments =
            ["worker", address, &number.to_string(), &clients.to_string(), seconds, way].map(str::to_owned);
        let mut child = Command::new(&myself)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        (child, output)
    };
    let mut all: Vec<_> = (0..processes).map(start).collect();
    for (child, _) in &mut all {
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let mut took: Vec<u64> = Vec::new();
    let (mut fewest, mut firsts) = (usize::MAX, None);
    for (child, output) in &mut all {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let own: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        fewest = fewest.min(own.len());
        firsts.get_or_insert(own.len());
        took.extend(own);
        child.wait().unwrap();
    }
    took.sort_unstable();
    let seconds: f64 = seconds.parse().unwrap();
    let at = |part: usize| took.get(took.len() * part / 1000).copied().unwrap_or(0);
    println!(
        "{way}: {processes} processes, {clients} clients each: {:.0}/s together, the slowest process {:.0}/s, the first {:.0}/s; \
         half within {} us, 99 % within {} us, the slowest {} us",
        took.len() as f64 / seconds,
        fewest as f64 / seconds,
        firsts.unwrap_or(0) as f64 / seconds,
        at(500),
        at(990),
        took.last().copied().unwrap_or(0)
    );
}

async fn work(address: &str, number: &str, clients: usize, seconds: u64, way: &str) -> Vec<Duration> {
    let store = EtcdStore::open(address).await.unwrap();
    let host = address.trim_start_matches("etcd://").split('/').next().unwrap().to_owned();
    let client = etcd_client::Client::connect([host], None).await.unwrap();
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let one = |n: usize| {
        let (store, mut client) = (store.clone(), client.clone());
        let key = format!("lb/pool{number}x{n}");
        async move {
            let (mut took, mut count) = (Vec::new(), 0_u64);
            while Instant::now() < end {
                count += 1;
                let begun = Instant::now();
                let value = format!("{{\"count\":{count},\"by\":\"{number}\"}}");
                if way == "plain" {
                    client.put(format!("plain/{key}"), value, None).await.unwrap();
                } else {
                    let rows = if way == "wide" && number == "0" { 20 } else { 1 };
                    store.commit(commit(&key, rows, &value)).await.unwrap();
                }
                took.push(begun.elapsed());
            }
            took
        }
    };
    futures::future::join_all((0..clients).map(one)).await.concat()
}

fn commit(key: &str, rows: usize, value: &str) -> Commit {
    let row = |n| Change::put(format!("{key}r{n:02}").parse().unwrap(), Document::trusted(value));
    Commit::new("ann", "because", (0..rows).map(row).collect())
}
