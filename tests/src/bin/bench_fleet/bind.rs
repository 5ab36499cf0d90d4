//! Into a real BIND: by dynamic updates, and by zone files that it loads again, each beside the bare thing.
//!
//! The bare thing is what nobody can go below who uses that way into BIND: an unsigned UPDATE message to each of the two zones,
//! acknowledged ([RFC 2136](https://www.rfc-editor.org/rfc/rfc2136)), or one file replaced and `rndc reload`. Both count, as ours does, until
//! BIND gives out what is new. Ours counts from the acknowledged commit; its updates are signed and conditional, and its
//! files are checked first.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use shoal_store_sqlite::SqliteStore;
use shoal_tests::binaries::binary;
use shoal_tests::bind::Bind;
use shoal_tests::figure::{Figure, Usage};
use shoal_tests::process::output;
use shoal_tests::shape;

use crate::dns;

/// Changes of a round by update, and by file.
const UPDATES: u32 = 200;
const FILES: u32 = 10;
const ROUNDS: u32 = 3;

pub(crate) async fn measure(hosts: u32) -> anyhow::Result<()> {
    // Not while the time counts.
    binary("shoal-dns")?;
    let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("a scratch folder")?;
    by_update(&dir.path().join("update"), hosts).await?;
    by_file(&dir.path().join("file"), hosts).await
}

/// A database of its own with the fleet and its zones.
async fn filled(dir: &Path, hosts: u32) -> anyhow::Result<(SqliteStore, PathBuf)> {
    let path = dir.join("shoal.db");
    let store = SqliteStore::open(&path).await?;
    dns::fill(&store, &shape::zoned(hosts)?).await?;
    Ok((store, path))
}

/// The two zones of the fleet.
pub(crate) fn zones() -> BTreeSet<String> {
    [shape::ZONE.to_owned(), "10.in-addr.arpa".to_owned()].into()
}

/// A BIND with the two zones, which hold nothing, and which everybody here may update and transfer.
pub(crate) fn empty(dir: &Path) -> anyhow::Result<Bind> {
    let files = dir.join("empty");
    std::fs::create_dir_all(&files).context("a folder for zones")?;
    for zone in zones() {
        let text = "$TTL 3600\n@ IN SOA ns.example.net. admin.example.net. 1 7200 900 1209600 300\n@ IN NS ns.example.net.\n";
        std::fs::write(files.join(zone), text).context("a zone")?;
    }
    let more = "allow-update { 127.0.0.1; key k; }; allow-transfer { 127.0.0.1; key k; };";
    Bind::start_with(&dir.join("named"), &files, &zones(), more)
}

async fn by_update(dir: &Path, hosts: u32) -> anyhow::Result<()> {
    let bind = empty(dir)?;
    let (store, database) = filled(dir, hosts).await?;
    let secret = dir.join("secret");
    std::fs::write(&secret, format!("{}\n", Bind::SECRET)).context("the secret")?;
    let settings = format!(
        "max_change_within = \"0s\"\n[agent.update]\nserver = \"127.0.0.1:{}\"\nkey = {{ name = \"k\", secret_file = {secret:?} }}\n",
        bind.port
    );
    let began = Instant::now();
    let mut agent = dns::start_agent_with(dir, &database, &settings)?;
    dns::wait_served(&mut agent, bind.port, hosts)?;
    Figure::median("cold_zones_by_update", "s", vec![began.elapsed().as_secs_f64()]).hosts(hosts).print();
    dns::quiet(&agent)?;
    let mut took = Took::default();
    for round in 0..ROUNDS {
        let turns = round * UPDATES..(round + 1) * UPDATES;
        let before = (Usage::of(agent.id())?.cpu, Usage::of(bind.id())?.cpu);
        for n in turns.clone() {
            let host = n.wrapping_mul(7919) % hosts;
            let forward = dns::change(&store, bind.port, host, n).await?;
            let (back, name) = (pointer(&dns::new_address(n))?, format!("{}.", shape::host(host)?));
            took.both.push(forward + dns::visible(bind.port, &back, "PTR", &name)?);
            took.forward.push(forward);
        }
        dns::quiet(&agent)?;
        took.agent.push(each(before.0, Usage::of(agent.id())?.cpu, UPDATES));
        took.named.push(each(before.1, Usage::of(bind.id())?.cpu, UPDATES));
        let before = Usage::of(bind.id())?.cpu;
        for n in turns {
            let (forward, both) = update(bind.port, n)?;
            took.bare_forward.push(forward);
            took.bare_both.push(both);
        }
        took.bare_named.push(each(before, Usage::of(bind.id())?.cpu, UPDATES));
    }
    took.print(hosts);
    Ok(())
}

/// What the changes of one size took: ours, and bare ones.
#[derive(Default)]
struct Took {
    forward: Vec<f64>,
    both: Vec<f64>,
    agent: Vec<f64>,
    named: Vec<f64>,
    bare_forward: Vec<f64>,
    bare_both: Vec<f64>,
    bare_named: Vec<f64>,
}

impl Took {
    fn print(self, hosts: u32) {
        let bare = |unit, values| Figure::median("", unit, values).value;
        let (forward, both) = (bare("ms", self.bare_forward), bare("ms", self.bare_both));
        Figure::median("commit_to_answer_by_update", "ms", self.both)
            .hosts(hosts)
            .beside("bare dynamic updates", both)
            .goal(2.0 * both)
            .print();
        Figure::median("commit_to_address_by_update", "ms", self.forward)
            .hosts(hosts)
            .beside("bare dynamic update", forward)
            .print();
        Figure::median("agent_cpu_per_update", "us", self.agent).hosts(hosts).print();
        Figure::median("named_cpu_per_update", "us", self.named)
            .hosts(hosts)
            .beside("bare dynamic updates", bare("us", self.bare_named))
            .print();
    }
}

/// Gives a name another address and lets that point back, as a change of ours does: one message to each zone. Answers after how many
/// milliseconds BIND gave out the address, and both.
fn update(port: u16, n: u32) -> anyhow::Result<(f64, f64)> {
    let address = |n: u32| A::new(10, 201, (n >> 8) as u8, n as u8);
    let label = format!("bare{}.{}", n % 16, shape::ZONE);
    let name = Name::from_ascii(format!("{label}.")).context("a name")?;
    let (new, old) = (address(n).to_string(), address(n.wrapping_sub(16)).to_string());
    let began = Instant::now();
    let mut forward = message(shape::ZONE)?;
    forward.add_authority(gone(name.clone(), RecordType::A));
    forward.add_authority(Record::from_rdata(name.clone(), 3600, RData::A(address(n))));
    send(port, &forward)?;
    dns::visible(port, &label, "A", &new)?;
    let visible = began.elapsed();
    let mut back = message("10.in-addr.arpa")?;
    let pointing = |address: &str| Name::from_ascii(format!("{}.", pointer(address)?)).context("a name");
    back.add_authority(gone(pointing(&old)?, RecordType::PTR));
    back.add_authority(Record::from_rdata(pointing(&new)?, 3600, RData::PTR(PTR(name))));
    send(port, &back)?;
    dns::visible(port, &pointer(&new)?, "PTR", &format!("{label}."))?;
    Ok((visible.as_secs_f64() * 1000.0, began.elapsed().as_secs_f64() * 1000.0))
}

fn pointer(address: &str) -> anyhow::Result<String> {
    Ok(shoal_tests::dns::reverse(address.parse().context("an address")?))
}

fn message(zone: &str) -> anyhow::Result<Message> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Update);
    let zone = Name::from_ascii(format!("{zone}.")).context("a zone")?;
    message.add_query(Query::query(zone, RecordType::SOA));
    Ok(message)
}

fn gone(name: Name, rtype: RecordType) -> Record {
    let mut gone = Record::update0(name, 0, rtype);
    gone.dns_class = DNSClass::ANY;
    gone
}

fn send(port: u16, message: &Message) -> anyhow::Result<()> {
    let wire = message.to_vec().context("the update")?;
    let socket = UdpSocket::bind(("127.0.0.1", 0)).context("a socket")?;
    socket.connect(("127.0.0.1", port)).context("a socket")?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).context("a socket")?;
    socket.send(&wire).context("the update")?;
    let mut buffer = [0; 512];
    let size = socket.recv(&mut buffer).context("the answer")?;
    let answer = Message::from_vec(&buffer[..size]).context("the answer")?;
    ensure!(answer.response_code == ResponseCode::NoError, "{}", answer.response_code);
    Ok(())
}

async fn by_file(dir: &Path, hosts: u32) -> anyhow::Result<()> {
    let files = dir.join("zones");
    std::fs::create_dir_all(&files).context("a folder for zones")?;
    let bind = Bind::start(&dir.join("named"), &files, &zones())?;
    let (store, database) = filled(dir, hosts).await?;
    let settings = format!(
        "[agent.bind]\ndirectory = {files:?}\nfile = \"{{zone}}\"\nreload = {:?}\nserver = \"127.0.0.1:{}\"\n",
        [bind.reload()?, vec!["{zone}".to_owned()]].concat(),
        bind.port
    );
    let mut agent = dns::start_agent_with(dir, &database, &settings)?;
    dns::wait_served(&mut agent, bind.port, hosts)?;
    dns::quiet(&agent)?;
    let (mut ours, mut cpu) = (vec![], vec![]);
    for round in 0..ROUNDS {
        let before = Usage::of(agent.id())?.cpu;
        for n in round * FILES..(round + 1) * FILES {
            ours.push(dns::change(&store, bind.port, n.wrapping_mul(7919) % hosts, n).await?);
        }
        dns::quiet(&agent)?;
        cpu.push(each(before, Usage::of(agent.id())?.cpu, FILES));
    }
    drop(agent);
    let (mut bare, mut checks) = (vec![], vec![]);
    for n in 0..FILES {
        bare.push(replace(&bind, &files.join(shape::ZONE), n)?);
        let began = Instant::now();
        let mut check = Command::new("named-checkzone");
        output(check.arg("-q").arg(shape::ZONE).arg(files.join(shape::ZONE)), &[0])?;
        checks.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Figure::median("commit_to_answer_by_file", "ms", ours)
        .hosts(hosts)
        .beside("file replaced and rndc reload", Figure::median("", "ms", bare).value)
        .beside("named-checkzone", Figure::median("", "ms", checks).value)
        .print();
    Figure::median("agent_cpu_per_file", "us", cpu).hosts(hosts).print();
    Ok(())
}

/// Replaces the file by one with one more name and a later serial, has BIND load it, and answers after how many milliseconds
/// BIND gave the name out. What the new file holds is made before the time counts.
fn replace(bind: &Bind, file: &Path, n: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(file).context("the zone file")?;
    let serial = text.split_whitespace().skip_while(|word| *word != "SOA").nth(3).context("a serial")?;
    let next = serial.parse::<u32>().context("a serial")?.wrapping_add(1);
    let address = format!("10.202.0.{n}");
    let text = format!(
        "{}bare{n}.{}. 3600 IN A {address}\n",
        text.replacen(serial, &next.to_string(), 1),
        shape::ZONE
    );
    let candidate: PathBuf = file.with_extension("candidate");
    let began = Instant::now();
    std::fs::write(&candidate, text).context("the candidate")?;
    std::fs::rename(&candidate, file).context("the zone file")?;
    let words = bind.reload()?;
    output(Command::new(&words[0]).args(&words[1..]).arg(shape::ZONE), &[0])?;
    dns::visible(bind.port, &format!("bare{n}.{}", shape::ZONE), "A", &address)?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

/// Microseconds of processor time for each of `count`.
fn each(before: Duration, after: Duration, count: u32) -> f64 {
    after.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(count)
}
