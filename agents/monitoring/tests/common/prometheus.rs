//! A real Prometheus on a free port, ended when dropped.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::until;

/// A Prometheus that reads the files of a folder.
pub(crate) struct Prometheus {
    dir: TempDir,
    child: Child,
    port: u16,
}

impl Prometheus {
    /// Starts it with this configuration, in which `DIR` is the folder of targets, and `RULES` that of rules.
    pub(crate) fn start(scrape: &str) -> Self {
        // Another test may take a free port between our look and its start: then it ends, and we try again.
        for _ in 0..5 {
            let port = super::free();
            if let Some(prometheus) = Self::try_start(port, scrape) {
                return prometheus;
            }
        }
        panic!("Prometheus does not start");
    }

    fn try_start(port: u16, scrape: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let targets = dir.path().join("targets");
        let rules = dir.path().join("rules");
        fs::create_dir(&targets).unwrap();
        fs::create_dir(&rules).unwrap();
        let config = dir.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1h}}\n{}",
            scrape
                .replace("DIR", &targets.display().to_string())
                .replace("RULES", &rules.display().to_string())
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.enable-lifecycle")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut prometheus = Self { dir, child, port };
        let mut lives = true;
        until("Prometheus is ready", || {
            lives = prometheus.child.try_wait().unwrap().is_none();
            !lives || prometheus.get("/-/ready").is_some_and(|said| said.contains("200 OK"))
        });
        lives.then_some(prometheus)
    }

    pub(crate) fn targets_folder(&self) -> PathBuf {
        self.dir.path().join("targets")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("prometheus.yml")
    }

    pub(crate) fn rules_folder(&self) -> PathBuf {
        self.dir.path().join("rules")
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The rules that it has read: `group alert expression`.
    pub(crate) fn rules(&self) -> BTreeSet<String> {
        let said = self.get("/api/v1/rules").unwrap_or_default();
        let body = said.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = |group: Value| -> Vec<String> {
            let rules = group["rules"].as_array().cloned().unwrap_or_default();
            rules
                .iter()
                .map(|rule| {
                    format!("{} {} {}", text(&group["name"]), text(&rule["name"]), text(&rule["query"]))
                })
                .collect()
        };
        groups.into_iter().flat_map(of).collect()
    }

    /// Waits until it has asked for its targets over HTTP, twice more, and got none.
    pub(crate) fn asks_in_vain(&self) {
        let failed = || -> u64 {
            let metrics = self.get("/metrics").unwrap_or_default();
            let line = metrics.lines().find_map(|l| l.strip_prefix("prometheus_sd_http_failures_total "));
            line.and_then(|count| count.parse().ok()).unwrap_or(0)
        };
        let before = failed();
        until("Prometheus asks in vain", || failed() >= before + 2);
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        Some(said)
    }

    /// What it scrapes: `job URL {labels}`.
    pub(crate) fn targets(&self) -> BTreeSet<String> {
        let said = self.get("/api/v1/targets?state=active").unwrap_or_default();
        let body = said.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let all = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        let one = |target: Value| {
            let labels = target["labels"].as_object().unwrap();
            let labels: Vec<String> = labels
                .iter()
                .filter(|(name, _)| *name != "job")
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap()))
                .collect();
            let text = |field: &str| target[field].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {} {}",
                target["labels"]["job"].as_str().unwrap(),
                text("scrapeUrl"),
                text("scrapeInterval"),
                labels.join(",")
            )
        };
        all.into_iter().map(one).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
