//! Real guests by the real program: killed right after each thing that it does, it never makes a machine twice and forgets none.
//!
//! The guest is a real kernel on an emulated processor, with a small system that reads its seed as cloud-init does (`tests/guest-image`),
//! under a libvirt of its own (`tests/libvirtd`). It takes a minute or two, and root; so it runs with `SHOAL_LONG` only.
#![cfg(feature = "libvirt")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod killed;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use killed::{HOST, There, cannot, processes, run};
use serde_json::{Value, json};

type Site = killed::Site<Libvirt>;

const ADDRESS: &str = "10.98.9.2";
const TEST: &str = "guests_live_through_kills";
const TOOLS: &[&str] = &["libvirtd", "qemu-system-x86_64", "qemu-img", "ip", "unshare"];

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(name)
}

/// A system that boots in seconds, made once.
fn image() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-image");
    let made = Command::new(script("guest-image")).arg(&folder).output().unwrap();
    match made.status.code() {
        Some(0) => Ok(folder),
        Some(77) => Err(String::from_utf8_lossy(&made.stdout).trim().to_owned()),
        _ => panic!("no image of a guest: {}", String::from_utf8_lossy(&made.stderr)),
    }
}

/// A libvirt of its own, as long as it runs.
struct Libvirt(Child);

impl Libvirt {
    fn start(dir: &Path) -> Self {
        let folder = dir.join("libvirt");
        fs::create_dir_all(folder.join("volumes")).unwrap();
        let base = folder.join("volumes/base.qcow2");
        assert!(run(&["qemu-img", "create", "-q", "-f", "qcow2", base.to_str().unwrap(), "8M"]));
        let log = fs::File::create(dir.join("libvirt.log")).unwrap();
        let mut command = Command::new(script("libvirtd"));
        Self(command.arg(&folder).stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl There for Libvirt {
    /// A guest is up in three seconds where nothing else runs.
    const PATIENCE: Duration = Duration::from_secs(180);
    const LOOK: Duration = Duration::from_millis(5);

    fn said(site: &Site) -> String {
        fs::read_to_string(site.dir.path().join("libvirt.log")).unwrap_or_default()
    }

    fn end(&mut self, dir: &Path) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        for pid in guests(dir) {
            run(&["kill", "-9", &pid]);
        }
    }
}

impl Site {
    async fn with(image: &Path) -> Self {
        let site = Self::new("shlv", "10.98.9.1/24", Libvirt::start).await;
        site.configure(&format!(
            "[agent.libvirt]\nuri = \"qemu+unix:///system?socket={0}/libvirt/sock/libvirt-sock\"\ntype = \"qemu\"\n\
             stop = \"60s\"\nnetworks = {{lan = {{bridge = \"{1}\"}}}}\n[agent.libvirt.images.tiny]\nvolume = \"base.qcow2\"\n\
             kernel = \"{2}/vmlinuz\"\ninitrd = \"{2}/initrd.gz\"\ncommand_line = \"console=ttyS0 quiet\"\n",
            site.dir.path().display(),
            site.bridge,
            image.display(),
        ));
        let socket = site.folder().join("sock/libvirt-sock");
        site.until("libvirt is there", async |_| socket.exists()).await;
        site
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("libvirt")
    }

    /// What libvirt keeps of the machine.
    fn definition(&self) -> String {
        fs::read_to_string(self.folder().join("etc/qemu").join(format!("{HOST}.xml"))).unwrap_or_default()
    }

    /// The volumes of machines.
    fn volumes(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.folder().join("volumes")).unwrap().flatten().map(|one| one.path());
        all.filter(|path| !path.ends_with("base.qcow2")).collect()
    }

    /// Whether the guest wrote its token where it is looked for.
    fn has_reported(&self) -> bool {
        let report = self.volumes().into_iter().find(|path| path.to_string_lossy().ends_with("-report"));
        let octets = report.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        octets.len() >= 1024 && octets[0] != 0 && octets[..512] == octets[512..1024]
    }

    fn guests(&self) -> Vec<String> {
        guests(self.dir.path())
    }
}

/// The processes that run guests of the libvirt in this folder.
fn guests(dir: &Path) -> Vec<String> {
    let folder = dir.join("libvirt").display().to_string();
    processes(|line| {
        line.starts_with(b"/usr/bin/qemu-system") && String::from_utf8_lossy(line).contains(&folder)
    })
}

fn host(state: &str, vm: Value) -> Value {
    json!({"id": "guest-1", "state": state, "document": {"image": "tiny", "size": {"cpu": 1, "memory": 134_217_728}, "vm": vm}})
}

fn vm() -> Value {
    json!({
        "grace": "1s", "disks": {"data": {"size": 1_048_576, "at": "/srv"}},
        "networks": [{"name": "lan", "addresses": [format!("{ADDRESS}/24")], "gateways": ["10.98.9.1"]}],
    })
}

/// What the guest says that it is called.
fn called() -> Option<String> {
    let address = format!("{ADDRESS}:80").parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said.lines().last()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_live_through_kills() {
    if let Some(why) = cannot(TOOLS) {
        println!("SKIPPED: {TEST}: {why}");
        return;
    }
    let image = match image() {
        Ok(image) => image,
        Err(why) => return println!("SKIPPED: {TEST}: {why}"),
    };
    let mut site = Site::with(&image).await;
    site.place(host("placed", vm())).await;
    site.kill_when("it is being made", async |site| site.state().await == "building").await;
    site.kill_when("it is defined", async |site| site.definition().contains("urn:shoal:machine")).await;
    site.kill_when("it has a volume", async |site| !site.volumes().is_empty()).await;
    site.kill_when("it has all volumes", async |site| site.volumes().len() == 4).await;
    site.kill_when("it is made", async |site| site.definition().contains("made")).await;
    site.kill_when("it runs", async |site| !site.guests().is_empty()).await;
    site.kill_when("it has reported in", async |site| site.has_reported()).await;
    site.kill_when("it is active", async |site| site.state().await == "active").await;
    // It outlives its maker, which finds it again.
    assert_eq!((site.volumes().len(), site.guests().len()), (4, 1));
    let fact = format!("facts/vm/{HOST}");
    site.start();
    site.until("it is told of", async |site| site.row(&fact).await["addresses"] == json!([ADDRESS])).await;
    assert_eq!(site.row(&fact).await["provider"], json!("libvirt"));
    site.until("it answers", async |_| called().as_deref() == Some(HOST)).await;

    // Killed by somebody else it is started again, and reports in again.
    let before = site.guests();
    assert!(run(&["kill", "-9", &before[0]]));
    let again = async |site: &Site| {
        let now = site.guests();
        now.len() == 1 && now != before && site.has_reported()
    };
    site.until("it is started again", again).await;
    site.until("it answers again", async |_| called().as_deref() == Some(HOST)).await;
    site.kill();

    let mut leaves = vm();
    leaves["destroy"] = json!("unneeded");
    site.commit(&[(&format!("hosts/{HOST}"), host("draining", leaves))]).await;
    let begun = Instant::now();
    site.kill_when("it is stopped", async |site| site.guests().is_empty()).await;
    println!("the guest stopped within {:?}", begun.elapsed());
    site.kill_when("a volume is gone", async |site| site.volumes().len() < 4).await;
    site.kill_when("its host is retired", async |site| site.state().await == "retired").await;
    site.start();
    site.until("nothing is reported of it", async |site| site.row(&fact).await == Value::Null).await;
    assert_eq!((site.definition().as_str(), site.volumes().len(), site.guests().len()), ("", 0, 0));
    assert!(site.folder().join("volumes/base.qcow2").exists());
}
