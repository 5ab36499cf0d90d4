//! A real Alertmanager on a free port, ended when dropped.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::until;

/// An Alertmanager, running or not.
pub(crate) struct Alertmanager {
    dir: TempDir,
    child: Option<Child>,
    port: u16,
}

impl Alertmanager {
    pub(crate) fn start() -> Self {
        let port = super::free();
        let mut alertmanager = Self { dir: TempDir::new().unwrap(), child: None, port };
        let config = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";
        fs::write(alertmanager.dir.path().join("alertmanager.yml"), config).unwrap();
        alertmanager.again();
        alertmanager
    }

    /// Starts it once more, with what it had.
    pub(crate) fn again(&mut self) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", at("alertmanager.yml")))
            .arg(format!("--storage.path={}", at("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        self.child = Some(child);
        until("Alertmanager is ready", || self.ask("silences", None).is_some());
    }

    /// Ends it; it keeps what it has.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn table(&self) -> String {
        format!("[agent.prometheus.alertmanager]\nserver = '{}'\n", self.url())
    }

    fn ask(&self, path: &str, body: Option<Value>) -> Option<Value> {
        let mut command = Command::new("curl");
        command.args(["-sS", "-f", "--max-time", "10"]);
        if let Some(body) = body {
            command.args(["-H", "content-type: application/json", "-d", &body.to_string()]);
        }
        let said = command.arg(format!("http://127.0.0.1:{}/api/v2/{path}", self.port)).output().unwrap();
        said.status.success().then(|| serde_json::from_slice(&said.stdout).unwrap_or_default())
    }

    /// Its silences that are in force, by their names: it lists them in no order.
    pub(crate) fn silences(&self) -> Vec<Value> {
        let all = self.ask("silences", None).unwrap();
        let active = all.as_array().unwrap().iter().filter(|one| one["status"]["state"] != "expired");
        let mut active: Vec<Value> = active.cloned().collect();
        active.sort_by_key(|one| one["id"].as_str().unwrap().to_owned());
        active
    }

    /// `host by whom` of them.
    pub(crate) fn silenced(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let of =
            |one: &Value| format!("{} by {}", text(&one["matchers"][0]["value"]), text(&one["createdBy"]));
        let mut all: Vec<String> = self.silences().iter().map(of).collect();
        all.sort();
        all
    }

    /// Makes a silence, as somebody else would.
    pub(crate) fn silence(&self, host: &str, by: &str, comment: &str, minutes: i64) {
        let at =
            |minutes: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes)).to_string();
        let body = json!({"matchers": [{"name": "host", "value": host, "isRegex": false}],
            "startsAt": at(0), "endsAt": at(minutes), "createdBy": by, "comment": comment});
        self.ask("silences", Some(body)).unwrap();
    }

    /// Ends a silence, as somebody would.
    pub(crate) fn end(&self, id: &Value) {
        let url = format!("http://127.0.0.1:{}/api/v2/silence/{}", self.port, id.as_str().unwrap());
        assert!(Command::new("curl").args(["-sSf", "-X", "DELETE", &url]).status().unwrap().success());
    }

    /// Has an alert fire of each of these hosts; those of which somebody would be told.
    pub(crate) fn fires(&self, hosts: &[&str]) -> BTreeSet<String> {
        let alert = |host: &&str| json!({"labels": {"alertname": "Down", "host": host, "job": "node"}});
        self.ask("alerts", Some(hosts.iter().map(alert).collect())).unwrap();
        let mut told = BTreeSet::new();
        until("the alerts", || {
            let all = self.ask("alerts", None).unwrap();
            let all = all.as_array().unwrap();
            let active = all.iter().filter(|alert| alert["status"]["state"] == "active");
            told = active.map(|alert| alert["labels"]["host"].as_str().unwrap().to_owned()).collect();
            all.len() == hosts.len() && all.iter().all(|alert| alert["status"]["state"] != "unprocessed")
        });
        told
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.stop();
    }
}
