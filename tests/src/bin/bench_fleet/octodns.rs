//! [octoDNS](https://github.com/octodns/octodns) doing what Shoal does: the same fleet's zones into a BIND by dynamic updates.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use shoal_tests::bind::Bind;
use shoal_tests::figure::{Figure, Usage};
use shoal_tests::{dns, shape};

/// Changes of one record. Each is a run of the whole program.
const CHANGES: u32 = 3;
/// It takes gigabytes and tens of minutes above this.
const MOST: u32 = 100_000;

/// Measures what is installed at `tool`, a virtual environment of Python's.
pub(crate) fn measure(hosts: u32, tool: Option<&Path>) -> anyhow::Result<()> {
    let Some(tool) = tool.filter(|_| hosts <= MOST) else {
        skipped(hosts, if tool.is_some() { "too slow at this size" } else { "it is not installed" });
        return Ok(());
    };
    let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("a scratch folder")?;
    let bind = crate::bind::empty(dir.path())?;
    let work = dir.path().join("octodns");
    std::fs::create_dir(&work).context("a folder for octoDNS")?;
    configure(&work, &bind)?;
    records(&work, hosts, &[])?;
    let cold = run(tool, &work)?;
    // One name exists or not in a whole zone: that the last host is there says that all of it was sent.
    let last =
        (0..hosts).rev().find(|n| shape::address(*n).is_some()).context("a machine with an address")?;
    let answer = dns::ask(bind.port, shape::host(last)?.as_str(), "A")?;
    ensure!(answer.contains(&shape::address(last).context("an address")?), "octoDNS did not send the zone");
    Figure::median("octodns_cold_zones", "s", vec![cold.wall])
        .hosts(hosts)
        .beside("its CPU", cold.cpu)
        .print();
    let (mut wall, mut cpu, mut memory) = (vec![], vec![], vec![]);
    for n in 0..CHANGES {
        records(&work, hosts, &[n])?;
        let run = run(tool, &work)?;
        let answer = dns::ask(bind.port, shape::host(4 * n)?.as_str(), "A")?;
        ensure!(answer.contains(&moved(n)), "octoDNS did not send the change: {answer:?}");
        wall.push(run.wall);
        cpu.push(run.cpu);
        memory.push(run.memory as f64 / f64::from(1 << 20));
    }
    Figure::median("octodns_one_record_changed", "s", wall)
        .hosts(hosts)
        .beside("its CPU", Figure::median("", "s", cpu).value)
        .print();
    Figure::median("octodns_memory", "MiB", memory).hosts(hosts).print();
    Ok(())
}

#[allow(clippy::print_stderr, reason = "what is not measured is to be seen")]
fn skipped(hosts: u32, why: &str) {
    eprintln!("SKIPPED: octoDNS at {hosts} hosts: {why}");
}

/// What one run took.
struct Run {
    /// Seconds.
    wall: f64,
    /// Seconds of processor time, the last 20 ms perhaps not.
    cpu: f64,
    /// Octets of resident memory, at most.
    memory: u64,
}

fn run(tool: &Path, work: &Path) -> anyhow::Result<Run> {
    let log = std::fs::File::create(work.join("log")).context("octoDNS's log")?;
    let began = Instant::now();
    let mut child = Command::new(tool.join("bin/octodns-sync"))
        .arg(format!("--config-file={}", work.join("config.yaml").display()))
        .args(["--doit", "--force", "--quiet"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("octoDNS's log")?)
        .stderr(log)
        .spawn()
        .context("cannot start octodns-sync")?;
    let (mut cpu, mut memory) = (Duration::ZERO, 0);
    let status = loop {
        if let Some(status) = child.try_wait().context("octodns-sync")? {
            break status;
        }
        if let Ok(now) = Usage::of(child.id()) {
            (cpu, memory) = (cpu.max(now.cpu), memory.max(now.resident));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = std::fs::read_to_string(work.join("log")).unwrap_or_default();
    ensure!(status.success(), "octodns-sync ended with {status}:\n{said}");
    Ok(Run { wall: began.elapsed().as_secs_f64(), cpu: cpu.as_secs_f64(), memory })
}

fn configure(work: &Path, bind: &Bind) -> anyhow::Result<()> {
    let mut text = format!(
        "providers:\n  config:\n    class: octodns.provider.yaml.YamlProvider\n    directory: {}\n    enforce_order: false\n  \
         bind:\n    class: octodns_bind.Rfc2136Provider\n    host: 127.0.0.1\n    port: {}\n    timeout: 600\nzones:\n",
        work.display(),
        bind.port
    );
    for zone in crate::bind::zones() {
        let _ = writeln!(text, "  {zone}.:\n    sources: [config]\n    targets: [bind]");
    }
    std::fs::write(work.join("config.yaml"), text).context("config.yaml")
}

/// The fleet's zones as octoDNS has them; machines `4 n` for each `n` of `changed` have another address.
fn records(work: &Path, hosts: u32, changed: &[u32]) -> anyhow::Result<()> {
    let (mut forward, mut back) = (String::from("---\n"), String::from("---\n"));
    let suffix = format!(".{}", shape::ZONE);
    for n in 0..hosts {
        let Some(address) = shape::address(n) else { continue };
        let address = changed.iter().find(|c| **c * 4 == n).map_or(address, |c| moved(*c));
        let name = shape::host(n)?;
        let label = name.as_str().trim_end_matches(&suffix);
        let _ = writeln!(forward, "{label}: {{type: A, ttl: 3600, value: {address}}}");
        let reversed = dns::reverse(address.parse().context("an address")?);
        let label = reversed.trim_end_matches(".10.in-addr.arpa");
        let _ = writeln!(back, "{label}: {{type: PTR, ttl: 3600, value: {name}.}}");
    }
    std::fs::write(work.join(format!("{}.yaml", shape::ZONE)), forward).context("the zone")?;
    std::fs::write(work.join("10.in-addr.arpa.yaml"), back).context("the zone")
}

fn moved(n: u32) -> String {
    format!("10.203.0.{n}")
}
