//! A real HAProxy, with master and worker, ended when dropped.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::until;

/// An HAProxy that reads a folder of pools.
pub(crate) struct HaProxy {
    dir: TempDir,
    child: Option<Child>,
}

impl HaProxy {
    /// Starts it; `more` is put into its own configuration.
    pub(crate) fn start(more: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let mut haproxy = Self { dir, child: None };
        fs::create_dir(haproxy.pools()).unwrap();
        let admin = haproxy.path("admin.sock");
        // It waits for longer than whoever asks it: what a test holds, or keeps open, it does not end by itself.
        let text = format!(
            "global\n  nbthread 2\n  maxconn 4000\n  stats socket {} mode 600 level admin expose-fd listeners\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 600s\n  timeout server 600s\n  retries 3\n  option redispatch\n{more}",
            admin.display()
        );
        fs::write(haproxy.path("haproxy.cfg"), text).unwrap();
        haproxy.run();
        haproxy
    }

    /// Starts it again, as it stands in its files.
    pub(crate) fn run(&mut self) {
        let child = Command::new("haproxy")
            .arg("-W")
            .arg("-S")
            .arg(self.path("master.sock"))
            .arg("-f")
            .arg(self.path("haproxy.cfg"))
            .arg("-f")
            .arg(self.pools())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.path("log")).unwrap())
            .spawn()
            .unwrap();
        self.child = Some(child);
        until("HAProxy answers", || self.tell("show info").contains("Pid:"));
    }

    /// Kills all of it.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let worker = self.pid();
        let _ = child.kill();
        let _ = child.wait();
        if let Some(worker) = worker {
            let _ = Command::new("kill").args(["-9", &worker.to_string()]).status();
            until("the worker is gone", || !Path::new(&format!("/proc/{worker}/stat")).exists());
        }
    }

    /// Makes it read its files, and waits until it has.
    pub(crate) fn reload(&self) {
        let before = self.pid();
        let _ = ask(&self.path("master.sock"), "reload");
        until("HAProxy has reloaded", || self.pid().is_some_and(|pid| Some(pid) != before));
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.tell("show info").lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pools(&self) -> PathBuf {
        self.path("pools")
    }

    /// The text of a pool's file.
    pub(crate) fn file(&self, pool: &str) -> String {
        fs::read_to_string(self.pools().join(format!("{pool}.cfg"))).unwrap_or_default()
    }

    /// Gives it a command.
    pub(crate) fn tell(&self, command: &str) -> String {
        ask(&self.path("admin.sock"), command).unwrap_or_default()
    }

    /// Gives its master a command.
    pub(crate) fn master(&self, command: &str) -> String {
        ask(&self.path("master.sock"), command).unwrap_or_default()
    }

    /// The servers that it has in a pool: name, address, port, weight, flags.
    pub(crate) fn servers(&self, pool: &str) -> Vec<String> {
        let said = self.tell(&format!("show servers state {pool}"));
        let line = |line: &str| {
            let f: Vec<&str> = line.split(' ').collect();
            (f.len() > 18).then(|| format!("{} {}:{} weight {} flags {}", f[3], f[4], f[18], f[7], f[6]))
        };
        let mut all: Vec<String> = said.lines().filter(|l| !l.starts_with('#')).filter_map(line).collect();
        all.sort();
        all
    }

    /// What its table says of a server in this column; nothing where it says nothing.
    pub(crate) fn stat(&self, pool: &str, host: &str, column: &str) -> String {
        let said = self.tell(&format!("show stat {pool} 4 -1"));
        let mut lines = said.lines().map(|line| line.trim_start_matches("# ").split(',').collect::<Vec<_>>());
        let at = lines.next().and_then(|head| head.iter().position(|name| *name == column));
        let line = lines.find(|fields| fields.get(1) == Some(&host));
        line.zip(at).and_then(|(fields, at)| fields.get(at).copied()).unwrap_or_default().to_owned()
    }

    /// The agent's configuration for it.
    pub(crate) fn table(&self, more: &str) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        let (pools, stats, master, config) =
            (path("pools"), path("admin.sock"), path("master.sock"), path("haproxy.cfg"));
        format!(
            "{more}\n[agent.haproxy]\ndirectory = '{pools}'\nstats = '{stats}'\nmaster = '{master}'\n\
             check = ['haproxy', '-c', '-q', '-f', '{config}', '{{pools}}']\n"
        )
    }
}

fn ask(socket: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "{command}")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The master ends its workers; killed, it would leave them.
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let _ = child.wait();
    }
}
