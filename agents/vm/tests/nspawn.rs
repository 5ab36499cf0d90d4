//! Real machines by the real program: killed right after each thing that it does, it never makes a machine twice and forgets none.
//!
//! Takes minutes the first time, because debootstrap makes a base tree, which is kept; so it runs with `SHOAL_LONG` only, and as root.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod killed;

use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use killed::{HOST, ROOM, There, cannot, processes, run};
use serde_json::{Value, json};

type Site = killed::Site<Nspawn>;

const TEST: &str = "machines_live_through_kills";
const TOOLS: &[&str] = &["systemd-nspawn", "debootstrap", "ip", "unshare", "setsid"];

/// A base tree with systemd, made once.
fn tree() -> Result<PathBuf, String> {
    let (folder, made) = (Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-tree"), "made");
    let tree = folder.join("tree");
    if folder.join(made).exists() {
        return Ok(tree);
    }
    // Of one that was cut off nothing is used.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("stable");
    let include = "--include=systemd,systemd-sysv,dbus";
    if !run(&["debootstrap", "--variant=minbase", include, release, tree.to_str().unwrap()]) {
        return Err("debootstrap could not make a root: is a mirror in reach?".to_owned());
    }
    fs::write(folder.join(made), "").unwrap();
    Ok(tree)
}

/// The machines of systemd-nspawn.
struct Nspawn;

impl There for Nspawn {
    /// A boot takes half a second where nothing else runs.
    const PATIENCE: Duration = Duration::from_secs(120);
    const LOOK: Duration = Duration::from_millis(1);

    fn said(site: &Site) -> String {
        site.console()
    }

    fn end(&mut self, dir: &Path) {
        let directory = format!("--directory={}", dir.join("vm").display());
        for pid in processes(|line| String::from_utf8_lossy(line).contains(&directory)) {
            run(&["kill", "-9", &pid]);
        }
    }
}

impl Site {
    async fn with(tree: &Path) -> Self {
        let site = Self::new("shvm", "10.98.7.1/24", |_| Nspawn).await;
        site.configure(&format!(
            "[agent.nspawn]\nstate = \"{0}/vm\"\nstop = \"20s\"\n\
             images = {{debian = \"{1}\"}}\nnetworks = {{lan = {{bridge = \"{2}\"}}}}\n",
            site.dir.path().display(),
            tree.display(),
            site.bridge
        ));
        site
    }

    /// What `shoal` does on this database: its exit code, and the error.
    async fn shoal(&self, line: &[&str]) -> (u8, Option<String>) {
        let (store, sink) = (Arc::new(self.store.clone()), Box::new(std::io::sink()));
        shoal_cli::run(store, line, Some("ann"), Timestamp::now, sink).await
    }

    fn machine(&self) -> PathBuf {
        self.dir.path().join("vm/machines").join(HOST)
    }

    fn console(&self) -> String {
        fs::read_to_string(self.machine().join("console.log")).unwrap_or_default()
    }

    /// How many supervisors the machine has: exactly one once it has come up, and for a moment more while it starts.
    fn supervisors(&self) -> usize {
        let directory = self.directory();
        let ours = |line: &[u8]| {
            let mut arguments = line.split(|octet| *octet == 0);
            arguments.next().is_some_and(|name| name.ends_with(b"systemd-nspawn"))
                && arguments.any(|argument| argument == directory.as_bytes())
        };
        processes(ours).len()
    }

    /// The argument by which what started the machine is known.
    fn directory(&self) -> String {
        format!("--directory={}", self.machine().join("root").display())
    }

    fn folders(&self) -> usize {
        let machine = |name: &std::ffi::OsString| !name.to_string_lossy().ends_with(".id");
        let all = fs::read_dir(self.dir.path().join("vm/machines"));
        all.map_or(0, |all| all.flatten().map(|one| one.file_name()).filter(machine).count())
    }
}

fn host(state: &str, vm: Value) -> Value {
    json!({"id": "nspawn-1", "state": state, "document": {"image": "debian", "size": {"cpu": 1, "memory": 268435456}, "vm": vm}})
}

fn vm() -> Value {
    json!({"grace": "1s", "networks": [{"name": "lan", "addresses": ["10.98.7.2/24"], "gateways": ["10.98.7.1"]}]})
}

/// Whether something has this address: it refuses what nobody listens for.
fn answers(address: &str) -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((address, 9)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let _ = socket.send(b"x");
    socket.recv(&mut [0; 8]).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_live_through_kills() {
    if let Some(why) = cannot(TOOLS) {
        println!("SKIPPED: {TEST}: {why}");
        return;
    }
    let tree = match tree() {
        Ok(tree) => tree,
        Err(why) => return println!("SKIPPED: {TEST}: {why}"),
    };
    let mut site = Site::with(&tree).await;
    let key = format!("hosts/{HOST}");
    site.place(host("placed", vm())).await;
    site.kill_when("it is being made", async |site| site.state().await == "building").await;
    site.kill_when("its folder is there", async |site| site.folders() > 0).await;
    site.kill_when("it is made", async |site| site.machine().exists()).await;
    site.kill_when("it runs", async |site| site.supervisors() > 0).await;
    site.kill_when("it has reported in", async |site| site.machine().join("report/up").exists()).await;
    site.kill_when("it is active", async |site| site.state().await == "active").await;
    // It outlives its maker, which finds it again.
    assert_eq!((site.folders(), site.supervisors()), (1, 1), "{}", site.console());
    let fact = format!("facts/vm/{HOST}");
    site.start();
    site.until("it is told of", async |site| site.row(&fact).await["addresses"] == json!(["10.98.7.2"]))
        .await;
    site.until("it answers", async |_| answers("10.98.7.2")).await;

    // Stopped by hand it is started again; and also where systemd-nspawn is killed, and what it started is left behind.
    for signal in ["-TERM", "-KILL"] {
        let before = began(&site);
        signal_all(&site, signal);
        let restarted = async |site: &Site| began(site) > before && site.machine().join("report/up").exists();
        site.until("it is started again", restarted).await;
        site.until("it answers again", async |_| answers("10.98.7.2")).await;
        assert_eq!(site.supervisors(), 1, "after {signal}");
    }
    site.kill();

    let mut leaves = vm();
    leaves["destroy"] = json!("unneeded");
    site.commit(&[(&key, host("draining", leaves))]).await;
    site.kill_when("it is stopped", async |site| site.supervisors() == 0).await;
    site.kill_when("it has no name any more", async |site| !site.machine().exists()).await;
    site.kill_when("its host is retired", async |site| site.state().await == "retired").await;
    site.start();
    site.until("nothing is left", async |site| site.folders() == 0).await;
    assert_eq!((site.supervisors(), site.row(&fact).await), (0, Value::Null));
    let names = Command::new("ip").args(["netns", "list"]).output().unwrap().stdout;
    assert!(!String::from_utf8_lossy(&names).contains("shoal-vm-"), "a network namespace stays");
    is_taken_over(&mut site, &tree).await;
}

/// A machine that somebody made by hand stays as it is until a person gives it to Shoal; then it is one like others.
async fn is_taken_over(site: &mut Site, tree: &Path) {
    site.kill();
    let (place, root) = (site.machine(), site.machine().join("root"));
    fs::create_dir(&place).unwrap();
    assert!(run(&["cp", "-a", tree.to_str().unwrap(), root.to_str().unwrap()]));
    fs::write(root.join("etc/precious"), "x").unwrap();
    let key = format!("hosts/{HOST}");
    site.commit(&[(&key, host("active", vm()))]).await;
    site.start();
    let unit = format!("vm/{ROOM}");
    let plan = ["adopt", unit.as_str(), "--plan"];
    site.until("it is named", async |site| site.shoal(&plan).await.0 == 3).await;
    assert!(!place.join("machine.json").exists() && site.supervisors() == 0);
    assert_eq!(site.shoal(&["adopt", unit.as_str(), "-m", "it is ours"]).await, (0, None));
    site.until("it is marked", async |site| site.machine().join("machine.json").exists()).await;
    site.kill();
    site.start();
    site.until("it runs", async |site| site.supervisors() == 1).await;
    site.until("it answers", async |_| answers("10.98.7.2")).await;
    let fact = format!("facts/vm/{HOST}");
    site.until("it is told of", async |site| site.row(&fact).await["id"] == json!("nspawn-1")).await;
    assert_eq!(site.state().await, "active");
    assert_eq!(fs::read_to_string(root.join("etc/precious")).unwrap(), "x");
    let mut leaves = vm();
    leaves["destroy"] = json!("unneeded");
    site.commit(&[(&key, host("draining", leaves))]).await;
    site.until("it is retired", async |site| site.state().await == "retired").await;
    assert_eq!((site.folders(), site.supervisors()), (0, 0));
}

/// When the machine was last started.
fn began(site: &Site) -> Option<SystemTime> {
    fs::metadata(site.machine().join("console.log")).and_then(|meta| meta.modified()).ok()
}

/// Sends a signal to what started the machine: as its own administrator would end it, or as the kernel does that has no memory left.
fn signal_all(site: &Site, signal: &str) {
    let directory = site.directory();
    let ours = |line: &[u8]| line.split(|octet| *octet == 0).any(|argument| argument == directory.as_bytes());
    for pid in processes(ours) {
        run(&["kill", signal, &pid]);
    }
}
