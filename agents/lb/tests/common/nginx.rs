//! A real nginx with two workers, ended when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{free, until};

/// The module without which there is no `stream`.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// An nginx that reads a folder of pools, in `http` and in `stream`.
pub(crate) struct Nginx {
    dir: TempDir,
    status: u16,
    child: Option<Child>,
}

impl Nginx {
    /// Whether it is here; says so if not.
    pub(crate) fn is_here(test: &str) -> bool {
        if !super::has(test, "nginx") {
            return false;
        }
        let found = Path::new(STREAM).exists();
        if !found {
            println!("SKIPPED: {test}: {STREAM} is not there (libnginx-mod-stream)");
        }
        found
    }

    /// Starts it; `more` is put into its `http`.
    pub(crate) fn start(more: &str) -> Self {
        let mut nginx = Self { dir: TempDir::new().unwrap(), status: free(), child: None };
        fs::create_dir(nginx.pools()).unwrap();
        fs::create_dir(nginx.path("tmp")).unwrap();
        let user =
            if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
                "user root;"
            } else {
                ""
            };
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path tmp/{kind};\n"))
            .concat();
        // The folder by a relative path, as many configurations have it. It waits for longer than whoever asks it: what a test holds, it
        // does not end by itself.
        let text = format!(
            "load_module {STREAM};\n{user}\nworker_processes 2;\ndaemon off;\npid nginx.pid;\nerror_log error.log notice;\n\
             events {{ worker_connections 4000; }}\n\
             http {{\n  access_log off;\n  proxy_read_timeout 600s;\n{places}{more}\n  include pools/*.http;\n}}\n\
             stream {{\n  include pools/*.stream;\n}}\n"
        );
        fs::write(nginx.path("nginx.conf"), text).unwrap();
        nginx.run();
        nginx
    }

    /// It with what it is always called with.
    fn command(&self) -> Command {
        let mut command = Command::new("nginx");
        command.args(self.words());
        command
    }

    fn words(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        ["-p", &path(""), "-c", &path("nginx.conf"), "-e", &path("error.log")].map(str::to_owned).into()
    }

    /// Starts it again, as it stands in its files.
    pub(crate) fn run(&mut self) {
        self.child = Some(self.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("nginx works", || !self.workers().is_empty());
    }

    /// Kills all of it, those that a reload left behind included.
    pub(crate) fn kill(&mut self) {
        let workers = self.children();
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
        for worker in workers {
            let _ = Command::new("kill").args(["-9", &worker.to_string()]).status();
            // It may stay as one that nobody has asked about.
            let stat = format!("/proc/{worker}/stat");
            until("the worker is gone", || {
                fs::read_to_string(&stat).is_ok_and(|s| s.contains(") Z ")) || !Path::new(&stat).exists()
            });
        }
    }

    /// Makes it read its files, and waits until it has.
    pub(crate) fn reload(&self) {
        let before = self.workers();
        assert!(self.command().args(["-s", "reload"]).status().unwrap().success());
        until("nginx has reloaded", || {
            let now = self.workers();
            !now.is_empty() && now.iter().all(|worker| !before.contains(worker))
        });
    }

    /// Those that take requests.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let works = |pid: &u32| {
            let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            title.starts_with("nginx: worker") && !title.contains("shutting down")
        };
        self.children().into_iter().filter(works).collect()
    }

    fn children(&self) -> Vec<u32> {
        let Some(master) = self.child.as_ref().map(Child::id) else { return Vec::new() };
        let all = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        all.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// How often it has read its files since it was started first.
    pub(crate) fn reloads(&self) -> usize {
        let log = fs::read_to_string(self.path("error.log")).unwrap();
        log.lines().filter(|line| line.contains(": reconfiguring")).count()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pools(&self) -> PathBuf {
        self.path("pools")
    }

    /// The text of a pool's file.
    pub(crate) fn file(&self, pool: &str) -> String {
        let path = |ending| self.pools().join(format!("{pool}.{ending}"));
        fs::read_to_string(path("http")).or_else(|_| fs::read_to_string(path("stream"))).unwrap_or_default()
    }

    /// The agent's configuration for it.
    pub(crate) fn table(&self, more: &str) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        let (pools, pid, log, status) = (path("pools"), path("nginx.pid"), path("error.log"), self.status);
        let words = self.words();
        let with = |more: &[&str]| {
            let words = words.iter().map(String::as_str);
            let all: Vec<String> = ["nginx"]
                .into_iter()
                .chain(words)
                .chain(more.iter().copied())
                .map(|w| format!("'{w}'"))
                .collect();
            all.join(", ")
        };
        let (check, reload) = (with(&["-t", "-q"]), with(&["-s", "reload"]));
        format!(
            "{more}\n[agent.nginx]\ndirectory = '{pools}'\nstream = true\npid = '{pid}'\nlog = '{log}'\nstatus = '127.0.0.1:{status}'\n\
             check = [{check}]\nreload = [{reload}]\n"
        )
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The master ends its workers; killed, it would leave them.
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let _ = child.wait();
    }
}
