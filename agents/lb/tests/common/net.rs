//! Machines in namespaces of the network, on one switch: two load balancers with keepalived and HAProxy, and a client.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tempfile::TempDir;

use super::until;

/// Two load balancers, lb1 and lb2, at 10.99.1.1 and 10.99.1.2, and a client.
pub(crate) struct Net {
    dir: TempDir,
    name: String,
    running: Vec<(String, Child)>,
}

fn run(words: &str) -> bool {
    let mut words = words.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    output.status.success()
}

impl Net {
    /// Whether it can be made here; says so if not.
    pub(crate) fn is_possible(test: &str) -> bool {
        if !["ip", "keepalived", "haproxy"].iter().all(|program| super::has(test, program)) {
            return false;
        }
        // A name of its own: tests run at the same time.
        let name = Self::name("try");
        let possible = run(&format!("ip netns add {name}")) && run(&format!("ip netns del {name}"));
        if !possible {
            println!("SKIPPED: {test}: namespaces of the network cannot be made here (root?)");
        }
        possible
    }

    fn name(what: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        format!("shoal-lb-{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn start() -> Self {
        let mut net = Self { dir: TempDir::new().unwrap(), name: Self::name("net"), running: Vec::new() };
        let switch = net.namespace("sw");
        for words in ["netns add {}", "-n {} link add br0 type bridge", "-n {} link set br0 up"] {
            assert!(run(&format!("ip {}", words.replace("{}", &switch))), "{words}");
        }
        for (at, machine) in ["lb1", "lb2", "client"].into_iter().enumerate() {
            let (ns, port, address) = (net.namespace(machine), format!("p{machine}"), at + 1);
            for words in [
                format!("netns add {ns}"),
                format!("-n {switch} link add {port} type veth peer name eth0 netns {ns}"),
                format!("-n {switch} link set {port} master br0 up"),
                format!("-n {ns} addr add 10.99.1.{address}/24 dev eth0"),
                format!("-n {ns} link set lo up"),
                format!("-n {ns} link set eth0 up"),
            ] {
                assert!(run(&format!("ip {words}")), "{words}");
            }
        }
        for machine in ["lb1", "lb2"] {
            net.prepare(machine);
            net.answer(machine);
            net.keep(machine);
        }
        net
    }

    fn namespace(&self, machine: &str) -> String {
        format!("{}-{machine}", self.name)
    }

    pub(crate) fn path(&self, machine: &str, name: &str) -> PathBuf {
        self.dir.path().join(machine).join(name)
    }

    /// Its folders and keepalived's own configuration.
    fn prepare(&self, machine: &str) {
        fs::create_dir_all(self.path(machine, "shoal")).unwrap();
        let include = self.path(machine, "shoal").display().to_string();
        let own = format!(
            "global_defs {{\n  router_id {machine}\n  enable_script_security\n  script_user root\n}}\ninclude {include}/*.conf\n"
        );
        fs::write(self.path(machine, "keepalived.conf"), own).unwrap();
        fs::write(self.path(machine, "health"), "0\n").unwrap();
        fs::write(self.path(machine, "well"), "").unwrap();
        let (well, failed) = (self.path(machine, "well"), self.path(machine, "failed"));
        let check = self.path(machine, "check");
        let script = format!(
            "#!/bin/sh\n[ -e {0} ] && exit 0\n[ -e {1} ] || date +%s%N >{1}.new && mv -n {1}.new {1}\nexit 1\n",
            well.display(),
            failed.display()
        );
        fs::write(&check, script).unwrap();
        assert!(run(&format!("chmod 755 {}", check.display())));
    }

    fn inside(&self, machine: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(machine), program]);
        command
    }

    fn spawn(&mut self, name: String, command: &mut Command) {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.running.push((name, child));
    }

    /// An HAProxy that answers with the machine's name.
    fn answer(&mut self, machine: &str) {
        let config = self.path(machine, "haproxy.cfg");
        let text = format!(
            "defaults\n  mode http\n  timeout client 5s\n  timeout connect 5s\n  timeout server 5s\nfrontend web\n  bind 0.0.0.0:80\n  \
             http-request return status 200 content-type text/plain string {machine}\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = self.inside(machine, "haproxy");
        command.arg("-f").arg(&config).arg("-db");
        self.spawn(format!("haproxy {machine}"), &mut command);
    }

    /// keepalived.
    pub(crate) fn keep(&mut self, machine: &str) {
        let path = |name: &str| self.path(machine, name);
        let mut command = self.inside(machine, "keepalived");
        command.arg("-n").arg("-f").arg(path("keepalived.conf")).arg("-p").arg(path("pid"));
        command.arg("-r").arg(path("vrrp.pid")).env("TMPDIR", self.path(machine, ""));
        // Without any address it has no process that speaks VRRP.
        let main = path("pid");
        self.spawn(format!("keepalived {machine}"), &mut command);
        until("keepalived runs", || main.exists());
    }

    /// Kills keepalived at once, and cuts the machine off.
    pub(crate) fn die(&mut self, machine: &str) {
        assert!(run(&format!("ip -n {} link set p{machine} down", self.namespace("sw"))));
        let at = self.running.iter().position(|(name, _)| *name == format!("keepalived {machine}")).unwrap();
        let mut child = self.running.remove(at).1;
        let _ = child.kill();
        let vrrp = fs::read_to_string(self.path(machine, "vrrp.pid")).unwrap();
        run(&format!("kill -9 {}", vrrp.trim()));
        let _ = child.wait();
        for name in ["pid", "vrrp.pid"] {
            let _ = fs::remove_file(self.path(machine, name));
        }
    }

    /// It is there again.
    pub(crate) fn rise(&mut self, machine: &str) {
        let addresses = format!("ip -n {} addr flush dev eth0 to 10.99.1.100/32", self.namespace(machine));
        assert!(run(&addresses));
        assert!(run(&format!("ip -n {} link set p{machine} up", self.namespace("sw"))));
        self.keep(machine);
    }

    /// Whether the machine has this address.
    pub(crate) fn has(&self, machine: &str, address: &str) -> bool {
        let output =
            Command::new("ip").args(["-n", &self.namespace(machine), "-4", "addr", "show", "eth0"]).output();
        String::from_utf8_lossy(&output.unwrap().stdout).contains(&format!(" {address}/"))
    }

    /// The text of the file that Shoal keeps.
    pub(crate) fn file(&self, machine: &str) -> String {
        fs::read_to_string(self.path(machine, "shoal/addresses.conf")).unwrap_or_default()
    }

    /// The agent's configuration for it.
    pub(crate) fn table(&self, machine: &str) -> String {
        let path = |name: &str| self.path(machine, name).display().to_string();
        let ns = self.namespace(machine);
        format!(
            "[agent.keepalived]\nnode = '{machine}.example.com'\ndirectory = '{}'\ninterface = 'eth0'\npid = '{}'\ndata = '{}'\n\
             check = ['ip', 'netns', 'exec', '{ns}', 'keepalived', '-t', '-f', '{}']\n\
             [agent.keepalived.checks]\nhealth = {{ file = '{}' }}\nweb = {{ command = ['{}'], user = 'root' }}\n",
            path("shoal"),
            path("pid"),
            path("keepalived.data"),
            path("keepalived.conf"),
            path("health"),
            path("check"),
        )
    }

    /// Has the client ask again and again who has the address.
    pub(crate) fn client(&self, address: &str) -> Client {
        let (over, heard) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<_>>>::default());
        let (told, answers) = (over.clone(), heard.clone());
        let (ns, address) = (self.namespace("client"), address.to_owned());
        let script =
            format!("exec 3<>/dev/tcp/{address}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3");
        let asks = thread::spawn(move || {
            let mut missed = 0_u32;
            while !told.load(Ordering::Relaxed) {
                // Where the machine takes long to do anything, each of them is given more time; but not within a second, which is measured.
                let wait = format!("0.{}", (1 + missed / 10).min(9));
                let output = Command::new("timeout")
                    .args([wait.as_str(), "ip", "netns", "exec", &ns, "bash", "-c", &script])
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                if let Some(machine) = ["lb1", "lb2"].into_iter().find(|name| said.ends_with(name)) {
                    answers.lock().unwrap().push((Instant::now(), machine));
                    missed = 0;
                } else {
                    missed += 1;
                }
            }
        });
        Client { over, heard, asks }
    }
}

/// Asks until it is told that it is over.
pub(crate) struct Client {
    over: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<(Instant, &'static str)>>>,
    asks: JoinHandle<()>,
}

impl Client {
    /// When this machine answered first after that.
    pub(crate) fn heard(&self, after: Instant, machine: &str) -> Option<Instant> {
        let heard = self.heard.lock().unwrap();
        heard.iter().find(|(at, name)| *at > after && *name == machine).map(|(at, _)| *at)
    }

    pub(crate) fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.asks.join().unwrap();
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
        for machine in ["lb1", "lb2", "client", "sw"] {
            run(&format!("ip netns del {}", self.namespace(machine)));
        }
    }
}
