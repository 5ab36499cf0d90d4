//! Two instances and one fleet, with real restic: each host is backed up by one of them at a time, and the limits of repositories and
//! physical machines hold for both together, also while they hand hosts over, end in order, and are killed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_store::{ClaimAnswer, ClaimRequest, Store as _};
use support::{Daemon, HOST, Scratch, here, name, tree, until};

/// How many hosts, on two physical machines.
const HOSTS: usize = 8;
/// At most so many at once on one machine, and in the repository.
const PER_BOX: usize = 1;
const PARALLEL: usize = 2;

/// restic, which writes down when a backup of whom begins, on which node, and when it ends; interrupted, it ends restic first. Until two
/// were under way at once, each waits for another, 15 s at most, so that the limits are met and not only kept. One that was
/// not interrupted takes two seconds more until it is to hurry: there is always something under way while an instance comes, ends or is killed.
/// It complains of nothing: who would hear it may have been killed, and then the complaint that restic has ended would end this, too,
/// before it writes that down, and the run would count as under way for ever.
const WITNESS: &str = "#!/bin/sh
case \"$1\" in backup) ;; *) exec restic \"$@\";; esac
pid= stop=
trap 'stop=1; [ -z \"$pid\" ] || kill -INT \"$pid\" 2>/dev/null' INT
echo \"begin $4 $$ $(date +%s%N) $8 NODE\" >>LOG
tries=0
until [ -n \"$stop\" ] || [ -e MET ] || [ \"$tries\" -ge 150 ]; do
    tries=$((tries + 1))
    [ \"$(grep -c ^begin LOG)\" -le $(($(grep -c ^end LOG) + 1)) ] || { touch MET; break; }
    sleep 0.1
done
restic \"$@\" & pid=$!
[ -z \"$stop\" ] || kill -INT \"$pid\" 2>/dev/null
wait \"$pid\"; code=$?
[ \"$code\" -gt 128 ] && { wait \"$pid\"; code=$?; }
[ -n \"$stop\" ] || [ -e HURRY ] || { sleep 2 >/dev/null 2>&1 & wait \"$!\"; }
echo \"end $4 $$ $(date +%s%N) $8 $code\" >>LOG
exit \"$code\"
";

/// Waits until it is so, and for so many seconds at most: by then there may be nothing to do before the next minute.
fn soon(seconds: u64, so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !so() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Instance(Child);

impl Instance {
    fn start(scratch: &Scratch, config: &str) -> Self {
        let log = fs::File::options().create(true).append(true).open(scratch.path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-backup"));
        command.arg("--store").arg(format!("sqlite:{}", scratch.path("db").display()));
        command.arg("--config").arg(scratch.path(config)).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }

    fn end(&mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap().success());
        self.0.wait().unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was under way at once, at most.
#[derive(Debug, Default)]
struct Most {
    of_one_host: usize,
    on_one_machine: usize,
    all: usize,
    /// How often each host was backed up by each policy.
    good: BTreeMap<String, usize>,
}

fn most(log: &str) -> Most {
    let mut events: Vec<(u128, Vec<&str>)> = log
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[3].parse().unwrap(), words)
        })
        .collect();
    events.sort();
    let (mut live, mut most) = (BTreeMap::<&str, &str>::new(), Most::default());
    for (_, words) in events {
        let (of, pid) = (words[1], words[2]);
        match words[0] {
            "begin" => _ = live.insert(pid, of),
            _ => {
                live.remove(pid);
                if words[5] == "0" {
                    *most.good.entry(format!("{of} {}", words[4])).or_insert(0) += 1;
                }
            }
        }
        let count = |so: &dyn Fn(&str) -> bool| live.values().filter(|of| so(of)).count();
        let machine_of = |of: &str| of[2..of.find('.').unwrap()].parse::<usize>().unwrap() % 2;
        let of_one_host = (0..HOSTS).map(|n| count(&|of| of == name(n))).max().unwrap();
        let on_one_machine = (0..2).map(|n| count(&|of| machine_of(of) == n)).max().unwrap();
        most.of_one_host = most.of_one_host.max(of_one_host);
        most.on_one_machine = most.on_one_machine.max(on_one_machine);
        most.all = most.all.max(live.len());
    }
    most
}

/// The configurations of two nodes that both have all files, with nothing but the database in common.
fn nodes(scratch: &Scratch) {
    let roots: Vec<String> = (0..HOSTS)
        .map(|n| {
            scratch.fill(&format!("roots/{n}/srv"), 4, n as u64);
            format!("{:?} = {:?}", name(n), scratch.text(&format!("roots/{n}")))
        })
        .collect();
    for node in ["one", "two"] {
        let witness = scratch.path(&format!("witness-{node}.sh"));
        let script = WITNESS
            .replace("LOG", &format!("'{}'", scratch.text("events")))
            .replace("HURRY", &format!("'{}'", scratch.text("hurry")))
            .replace("MET", &format!("'{}'", scratch.text("met")))
            .replace("NODE", node);
        fs::write(&witness, script).unwrap();
        fs::set_permissions(&witness, fs::Permissions::from_mode(0o755)).unwrap();
        scratch.configure(
            &format!(
                "restic = [\"setpriv\", \"--pdeathsig\", \"INT\", {witness:?}]\nper_box = {PER_BOX}\nroots = {{ {} }}",
                roots.join(", ")
            ),
            "",
        );
        let text = fs::read_to_string(scratch.path("backup.toml")).unwrap();
        let text =
            text.replace("/state\"", &format!("/state-{node}\"")).replace("parallel = 3", "parallel = 2");
        fs::write(scratch.path(node), format!("name = {node:?}\nclaim = \"5s\"\n{text}")).unwrap();
    }
}

/// Whether a backup is under way on this node.
fn under_way(scratch: &Scratch, node: &str) -> bool {
    let log = fs::read_to_string(scratch.path("events")).unwrap_or_default();
    let events: Vec<Vec<&str>> = log.lines().map(|line| line.split(' ').collect()).collect();
    let ended = |pid: &str| events.iter().any(|words| words[0] == "end" && words[2] == pid);
    events.iter().any(|words| words[0] == "begin" && words.last() == Some(&node) && !ended(words[2]))
}

/// How many backups have begun on this node.
fn begun(scratch: &Scratch, node: &str) -> usize {
    let log = fs::read_to_string(scratch.path("events")).unwrap_or_default();
    log.lines().filter(|line| line.starts_with("begin ") && line.ends_with(&format!(" {node}"))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_never_back_up_one_host_at_once_and_keep_the_limits_together() {
    if !here("contention") {
        return;
    }
    let scratch = Scratch::new();
    nodes(&scratch);
    let mut edits: Vec<Value> = (0..HOSTS)
        .map(|n| json!({"edit": "put_host", "host": name(n), "document": {"box": format!("box{}", n % 2)}}))
        .collect();
    let members: Vec<String> = (0..HOSTS).map(name).collect();
    // Two policies of the same hosts: of one host only one is made at a time.
    for policy in ["nightly", "hourly"] {
        let document =
            json!({"paths": ["/srv"], "repositories": ["main"], "schedule": {"cron": "* * * * *"}});
        edits.push(json!({"edit": "put_tag", "tag": format!("backup/{policy}"), "document": document, "members": members}));
    }
    scratch.edit(json!(edits)).await;
    let (begun, at_it) = (|node: &str| begun(&scratch, node), |node: &str| under_way(&scratch, node));
    let mut one = Instance::start(&scratch, "one");
    until("the first is at it", || begun("one") >= 2);
    // The second takes hosts over from the first, which is at some of them.
    let mut two = Instance::start(&scratch, "two");
    soon(20, || begun("two") >= 3 && at_it("one"));
    one.end();
    let before = begun("two");
    soon(8, || begun("two") > before);
    let (before, mut one) = (begun("one"), Instance::start(&scratch, "one"));
    soon(15, || begun("one") > before && at_it("two"));
    two.0.kill().unwrap();
    two.0.wait().unwrap();
    fs::write(scratch.path("hurry"), "").unwrap();
    let end = Instant::now() + Duration::from_secs(400);
    loop {
        let log = fs::read_to_string(scratch.path("events")).unwrap_or_default();
        let most = most(&log);
        assert_eq!(most.of_one_host, 1, "{log}");
        assert!(most.on_one_machine <= PER_BOX && most.all <= PARALLEL, "{most:?}: {log}");
        if most.good.len() == 2 * HOSTS {
            assert_eq!(most.all, PARALLEL, "they went on side by side");
            break;
        }
        assert!(Instant::now() < end, "{most:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    one.end();
    for n in 0..HOSTS {
        // Both policies have the same path: each comes back into a folder of its own.
        for policy in ["nightly", "hourly"] {
            let to = format!("out{n}{policy}");
            let (code, said) = scratch.restore(&[&name(n), "--policy", policy], &to);
            assert_eq!(code, 0, "{said}");
            let from = scratch.path(&format!("roots/{n}/srv"));
            let there = scratch.path(&to).join(from.display().to_string().trim_start_matches('/'));
            assert_eq!(tree(&there), tree(&from));
        }
    }
}

/// Once a run ended, its host's places are free for the other policy, and `--once` says what it waits for.
#[tokio::test]
async fn once_says_what_is_under_way_and_waits_when_it_is_told() {
    if !here("contention") {
        return;
    }
    let scratch = Scratch::new();
    scratch.configure(
        "restic = [\"sh\", \"-c\", \"[ $1 = backup ] && sleep 4; exec restic \\\"$@\\\"\", \"sh\"]",
        "",
    );
    scratch.policy(json!({})).await;
    let waits = |line: &str| line.contains("waiting: ") && line.contains("web1.example.com nightly@main");
    // A machine that stalls may take all of the time before anything has begun.
    let mut told = false;
    for seconds in [1, 2, 3] {
        let (code, said) = scratch.run(&["--once", "--wait", &format!("{seconds}s")]);
        assert_eq!(code, 5, "{said}");
        told = said.lines().any(waits);
        if told {
            break;
        }
        println!("{said}");
        scratch.release_claims().await;
    }
    assert!(told, "it does not say what it waits for");
    // It was ended in order, and is due as before.
    let record = scratch.record(|_| {});
    assert!(record["begun"].is_null() && record["main"]["failures"] == json!(0), "{record}");
    assert!(scratch.snapshots().is_empty());
    scratch.release_claims().await;
    scratch.configure("", "");
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
}

/// A machine that slept, or one that lost the database, has lost its places as well. What it does ends when others have them.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_place_others_have_ends_at_once() {
    if !here("contention") {
        return;
    }
    let scratch = Scratch::new();
    let restic = "restic = [\"sh\", \"-c\", \"[ $1 = backup ] && exec env --default-signal=INT sleep 311; exec restic \\\"$@\\\"\", \"sh\"]";
    scratch.configure(restic, "");
    scratch.policy(json!({})).await;
    let _daemon = Daemon::start(&scratch, &[]);
    let under_way = || {
        let is_one = |process: &fs::DirEntry| {
            let file = |name: &str| fs::read(process.path().join(name)).unwrap_or_default();
            let repository = format!("RESTIC_REPOSITORY={}\0", scratch.text("repo"));
            file("cmdline").starts_with(b"sleep\x00311")
                && String::from_utf8_lossy(&file("environ")).contains(&repository)
        };
        fs::read_dir("/proc").unwrap().flatten().any(|process| is_one(&process))
    };
    until("it is under way", under_way);
    let store = scratch.store().await;
    let place = ClaimRequest {
        name: format!("slot/backup/host/{HOST}"),
        of: 1,
        holder: "another".to_owned(),
        ttl: Some(Duration::from_secs(120)),
    };
    loop {
        for claim in store.claims(&place.name).await.unwrap() {
            store.release(&claim).await.unwrap();
        }
        if let ClaimAnswer::Granted(_) = store.claim(&place).await.unwrap() {
            break;
        }
    }
    let taken = Instant::now();
    until("it ends", || !under_way());
    // The sleep would go on for five minutes, and the place is another's for two.
    assert!(taken.elapsed() < Duration::from_secs(60), "{:?}", taken.elapsed());
    until("it says why", || {
        fs::read_to_string(scratch.path("log")).unwrap().contains("it ran out, and others have all places")
    });
    assert!(scratch.snapshots().is_empty());
}
