//! The API of a running Icinga: which generation it has read, and its downtimes.

use std::collections::BTreeSet;
use std::fs;
use std::time::SystemTime;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_agent::{Fault, HostName};

use super::https::{Https, NoAnswer};
use super::render::MARK;
use super::settings::IcingaSettings;
use crate::target::objects::{COMMENT, Downtimes, LASTS};

/// The author of Shoal's downtimes.
const AUTHOR: &str = "shoal";
/// The most hosts that one request is about.
const AT_ONCE: usize = 500;
/// Shoal's, of these hosts themselves.
const OF_HOSTS: &str = "downtime.author == author && downtime.comment == comment && downtime.host_name in names && downtime.service_name == \"\"";
/// Shoal's, of what is checked on these hosts.
const OF_SERVICES: &str = "downtime.author == author && downtime.comment == comment && downtime.host_name in names && downtime.service_name != \"\"";

/// The API, as the configuration says how to reach it.
#[derive(Debug)]
pub(in crate::target) struct Api {
    https: Https,
}

impl Api {
    /// Reads certificate and password; connects to nothing yet.
    pub(super) fn open(settings: &IcingaSettings) -> Result<Self, Fault> {
        let file = settings.password_file.display();
        let password = fs::read_to_string(&settings.password_file).map_err(|e| {
            Fault::new(format!("read {file} for the API of Icinga"), e)
                .next("write the password of the API's user into it, and let the agent's user alone read it")
        })?;
        let password = password.trim_end_matches(['\r', '\n']);
        Ok(Self { https: Https::open(&settings.url, &settings.ca, &settings.user, password)? })
    }

    /// Asks, and answers the results; those of a 404 are none.
    async fn ask(&self, method: Method, path: &str, body: Value, what: &str) -> Result<Vec<Value>, Fault> {
        // What is asked with a body is sent as the API wants it.
        let (sent, over) = if body.is_null() { (method, None) } else { (Method::POST, Some(method)) };
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) =
            self.https.ask(sent, path, over.as_ref(), text).await.map_err(|no| down(what, no))?;
        let url = format!("{}{path}", self.https);
        let mut said: Value = serde_json::from_slice(&text).unwrap_or_default();
        // An action that found nothing to do it to is an error of the server's, with an empty list of what it did.
        let nothing = said["results"].as_array().is_some_and(Vec::is_empty);
        if status == StatusCode::NOT_FOUND || nothing {
            return Ok(Vec::new());
        }
        if !status.is_success() {
            let why: String = String::from_utf8_lossy(&text).chars().take(500).collect();
            return Err(Fault::new(what, format!("{url} answers {status}: {why}"))
                .next("see what its ApiUser is permitted (docs/agents/monitoring.md, Icinga 2)"));
        }
        match said["results"].take() {
            Value::Array(results) => Ok(results),
            _ => Err(Fault::new(what, format!("{url} answers something else than results"))),
        }
    }

    /// The mark of what it has read.
    pub(super) async fn mark(&self) -> Result<Option<String>, Fault> {
        let path = format!("/v1/variables/{MARK}");
        let found = self.ask(Method::GET, &path, Value::Null, "ask Icinga what it has read").await?;
        Ok(found.first().and_then(|constant| constant["value"].as_str()).map(str::to_owned))
    }

    /// Has it read its configuration again.
    pub(super) async fn restart(&self) -> Result<(), Fault> {
        let what = "have Icinga read what is new";
        self.ask(Method::POST, "/v1/actions/restart-process", Value::Null, what).await.map(drop)
    }

    /// The hosts with a downtime of Shoal's.
    pub(super) async fn downtimes(&self) -> Result<Downtimes, Fault> {
        let at = SystemTime::now();
        let filter =
            "downtime.author == author && downtime.comment == comment && downtime.service_name == \"\"";
        let body = json!({"attrs": ["host_name"], "filter": filter, "filter_vars": {"author": AUTHOR, "comment": COMMENT}});
        let found = self.ask(Method::GET, "/v1/objects/downtimes", body, "ask Icinga for downtimes").await?;
        let name = |downtime: &Value| downtime["attrs"]["host_name"].as_str()?.parse().ok();
        Ok((found.iter().filter_map(name).collect::<BTreeSet<HostName>>(), at))
    }

    /// Gives hosts and their services a downtime, in place of one that they have.
    pub(super) async fn begin(&self, hosts: &[&HostName]) -> Result<(), Fault> {
        self.end(hosts).await?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        for some in hosts.chunks(AT_ONCE) {
            let what = "give hosts of Icinga a downtime";
            let body = json!({
                "type": "Host", "filter": "host.name in names", "filter_vars": {"names": some}, "all_services": true,
                "author": AUTHOR, "comment": COMMENT, "start_time": now, "end_time": now + LASTS, "fixed": true,
            });
            let made = self.ask(Method::POST, "/v1/actions/schedule-downtime", body, what).await?;
            let good = made.iter().filter(|result| result["code"] == 200).count();
            if good < some.len() {
                let why = format!("it did so for {good} of {} hosts: {}", some.len(), Value::from(made));
                return Err(Fault::new(what, why.chars().take(1_000).collect::<String>()));
            }
        }
        Ok(())
    }

    /// Ends Shoal's downtimes of hosts and their services, and nobody else's.
    pub(super) async fn end(&self, hosts: &[&HostName]) -> Result<(), Fault> {
        for some in hosts.chunks(AT_ONCE) {
            let vars = json!({"author": AUTHOR, "comment": COMMENT, "names": some});
            // A host's takes those of its services with it: asked for at once, some would be gone already, which is an error.
            for filter in [OF_HOSTS, OF_SERVICES] {
                let body = json!({"type": "Downtime", "filter": filter, "filter_vars": vars});
                self.ask(Method::POST, "/v1/actions/remove-downtime", body, "end downtimes of Icinga")
                    .await?;
            }
        }
        Ok(())
    }
}

fn down(what: &str, no: NoAnswer) -> Fault {
    match no {
        NoAnswer::Down(why) => Fault::new(what, format!("it does not run, or not there: {why}"))
            .next("start it; it reads what is there, which was checked, and this is tried again"),
        NoAnswer::Other(why) => Fault::new(what, why),
    }
}
