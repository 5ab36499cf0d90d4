//! Silences in an Alertmanager: nobody is told of a host that drains or is paused.
//!
//! A silence of Shoal's is about one host, by the label `host` of its metrics, and says by whom and why it was made. Others are never
//! touched. It ends by itself after some days, and is renewed long before that: one that is forgotten does not hide a
//! host for ever. An Alertmanager that does not answer is not one without silences: what it has is then not known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_agent::{Fault, Fence, HostName};

use crate::target::http;
use crate::target::objects::COMMENT;

/// Who made them, as Alertmanager shows it.
const AUTHOR: &str = "shoal";
/// The label by which a host is silenced.
const LABEL: &str = "host";
/// How long one answer may take.
const WITHIN: Duration = Duration::from_secs(10);
/// The most that an answer may have, in octets: that of about 50,000 silences.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// How long a silence lasts, in seconds: three days.
const LASTS: i64 = 3 * 24 * 3600;
/// What is left of one when it is renewed, in seconds.
const LEFT: i64 = LASTS / 2;

/// Silences, in `[agent.prometheus.alertmanager]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerSettings {
    /// Where it answers.
    #[serde(default = "AlertmanagerSettings::server")]
    pub server: String,
}

impl AlertmanagerSettings {
    fn server() -> String {
        "http://127.0.0.1:9093".to_owned()
    }
}

/// An Alertmanager.
#[derive(Debug)]
pub(super) struct Silences {
    server: String,
    http: Client,
}

/// Shoal's silences of each host.
pub(super) type Silenced = BTreeMap<HostName, Vec<Silence>>;

/// One silence of Shoal's.
#[derive(Debug)]
pub(super) struct Silence {
    id: String,
    starts: String,
    /// It need not be renewed yet.
    lasts: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    id: String,
    created_by: String,
    comment: String,
    starts_at: String,
    ends_at: String,
    status: Status,
    matchers: Vec<Matcher>,
}

#[derive(Deserialize)]
struct Status {
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Matcher {
    name: String,
    value: String,
    is_regex: bool,
    #[serde(default = "yes")]
    is_equal: bool,
}

fn yes() -> bool {
    true
}

impl Silences {
    pub(super) fn open(settings: AlertmanagerSettings) -> Result<Self, Fault> {
        let built = Client::builder().timeout(WITHIN).build();
        let http = built.map_err(|e| Fault::new("make an HTTP client", e).permanent())?;
        Ok(Self { server: settings.server, http })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v2/{path}", self.server)
    }

    /// Shoal's silences that are in force.
    pub(super) async fn all(&self) -> Result<Silenced, Fault> {
        let what = "ask Alertmanager for silences";
        let text = self.send(self.http.get(self.url("silences")), what).await?;
        let all: Vec<Said> = serde_json::from_slice(&text)
            .map_err(|e| Fault::new(what, format!("{} answers something else: {e}", self.server)))?;
        let soon = jiff::Timestamp::now().as_second() + LEFT;
        let mut found = Silenced::new();
        for said in all {
            if let Some(host) = ours(&said) {
                let ends = said.ends_at.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
                let silence = Silence { id: said.id, starts: said.starts_at, lasts: ends > soon };
                found.entry(host).or_default().push(silence);
            }
        }
        Ok(found)
    }

    /// Silences these hosts, and ends Shoal's silences of those. What stands as it should be stays. Answers for which hosts it failed: what is
    /// refused is one host's; an Alertmanager that does not answer, or a claim that has ended, all those's that come after it.
    ///
    /// # Errors
    /// What it has is not known.
    pub(super) async fn set<'b>(
        &self,
        begin: &BTreeSet<&'b HostName>,
        end: &BTreeSet<&'b HostName>,
        fence: &Fence,
    ) -> Result<BTreeMap<&'b HostName, Fault>, Fault> {
        let mut have = self.all().await?;
        let (mut failed, mut over) = (BTreeMap::new(), None::<Fault>);
        let begins = begin.iter().map(|host| (*host, true));
        for (host, rests) in begins.chain(end.iter().map(|host| (*host, false))) {
            let done = match &over {
                Some(fault) => Err(No::One(fault.clone())),
                None => self.one(host, rests, have.remove(host).unwrap_or_default(), fence).await,
            };
            match done {
                Ok(()) => {}
                Err(No::One(fault)) => drop(failed.insert(host, fault)),
                Err(No::All(fault)) => {
                    failed.insert(host, fault.clone());
                    over = Some(fault);
                }
            }
        }
        Ok(failed)
    }

    /// One silence of a host that rests, none of another.
    async fn one(
        &self,
        host: &HostName,
        rests: bool,
        mut have: Vec<Silence>,
        fence: &Fence,
    ) -> Result<(), No> {
        if rests {
            let first = (!have.is_empty()).then(|| have.remove(0));
            if first.as_ref().is_none_or(|silence| !silence.lasts) {
                self.put(host, first.as_ref(), fence).await?;
            }
        }
        self.expire(&have, fence).await
    }

    /// Makes one, or lets one last longer.
    async fn put(&self, host: &HostName, old: Option<&Silence>, fence: &Fence) -> Result<(), No> {
        fence.check().map_err(No::All)?;
        let now = jiff::Timestamp::now();
        let ends = now.as_second().saturating_add(LASTS);
        let ends = jiff::Timestamp::from_second(ends).unwrap_or(now);
        let mut body = json!({
            "matchers": [{"name": LABEL, "value": host, "isRegex": false, "isEqual": true}],
            "startsAt": now.to_string(), "endsAt": ends.to_string(), "createdBy": AUTHOR, "comment": COMMENT,
        });
        if let Some(old) = old {
            body["id"] = Value::from(&*old.id);
            body["startsAt"] = Value::from(&*old.starts);
        }
        let request = self.http.post(self.url("silences"));
        let request = request.header("content-type", "application/json").body(body.to_string());
        self.send(request, &format!("silence {host} at Alertmanager")).await.map(drop)
    }

    async fn expire(&self, silences: &[Silence], fence: &Fence) -> Result<(), No> {
        for silence in silences {
            fence.check().map_err(No::All)?;
            let request = self.http.delete(self.url(&format!("silence/{}", silence.id)));
            self.send(request, "end a silence of Alertmanager").await?;
        }
        Ok(())
    }

    async fn send(&self, request: reqwest::RequestBuilder, what: &str) -> Result<Vec<u8>, No> {
        let answer = request.send().await.map_err(|e| {
            let why = format!("{} does not answer: {}", self.server, http::reason(&e));
            let next = "start it, or correct server in [agent.prometheus.alertmanager]";
            No::All(Fault::new(what, why).next(next))
        })?;
        let status = answer.status();
        let text = http::body(answer, MAX_ANSWER).await.map_err(|why| No::All(Fault::new(what, why)))?;
        if status.is_success() {
            return Ok(text);
        }
        let said: String = String::from_utf8_lossy(&text).chars().take(500).collect();
        Err(No::One(Fault::new(what, format!("{} answers {status}: {said}", self.server))))
    }
}

/// Why a silence is not as it should be.
enum No {
    /// It was refused.
    One(Fault),
    /// Nothing more is worth a try now.
    All(Fault),
}

impl From<No> for Fault {
    fn from(no: No) -> Self {
        match no {
            No::One(fault) | No::All(fault) => fault,
        }
    }
}

/// The host that it is about, if it is Shoal's and in force.
fn ours(said: &Said) -> Option<HostName> {
    let [matcher] = &said.matchers[..] else { return None };
    let marked = said.created_by == AUTHOR && said.comment == COMMENT && said.status.state != "expired";
    let about = matcher.name == LABEL && !matcher.is_regex && matcher.is_equal;
    if marked && about { matcher.value.parse().ok() } else { None }
}

/// Whether a host has a silence: one that lasts, where it is to have one; any, where it is not.
pub(super) fn has(all: &Silenced, host: &HostName, rests: bool) -> bool {
    all.get(host).is_some_and(|silences| silences.iter().any(|silence| silence.lasts || !rests))
}
