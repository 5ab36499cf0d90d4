//! The files of alert rules: one for each tag.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use shoal_agent::{Batch, Edit, Fault, Fence, Outcome, Seen, TagName, command, files};

use super::open_to_readers;
use crate::agent::Monitoring;
use crate::item::{Have, Item, Key, Rule, Subject};
use crate::name::Name;
use crate::target::{Server, http};

/// How often a candidate is mended and checked again before it is given up.
const ROUNDS: usize = 16;
/// How a candidate is called, before and after the number of the claim.
const CANDIDATE: &str = ".candidate-";
const CANDIDATE_ENDS: &str = ".json";
/// How long a check, or an answer of the server, may take.
const WITHIN: Duration = Duration::from_secs(30);
/// The most that the server's metrics may have, in octets.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The metric that says when it last read its configuration.
const READ_AT: &str = "prometheus_config_last_reload_success_timestamp_seconds";

/// Alert rules, in `[agent.prometheus.rules]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesSettings {
    /// Shoal's own folder. Prometheus reads `shoal-*.json` in it as rules.
    pub directory: PathBuf,
    /// Accepts or refuses a candidate; `{file}` is its path.
    #[serde(default = "RulesSettings::check")]
    pub check: Vec<String>,
    /// Where the server answers, and may be told to read its rules (`--web.enable-lifecycle`).
    #[serde(default = "RulesSettings::server")]
    pub server: String,
    /// Whether the server is told. `false`: files are checked and put in place, and that is all.
    #[serde(default = "RulesSettings::tell")]
    pub tell: bool,
}

impl RulesSettings {
    fn check() -> Vec<String> {
        ["promtool", "check", "rules", "{file}"].map(str::to_owned).into()
    }

    fn tell() -> bool {
        true
    }

    fn server() -> String {
        "http://127.0.0.1:9090".to_owned()
    }
}

#[derive(Debug)]
pub(super) struct Rules {
    settings: RulesSettings,
    http: reqwest::Client,
}

/// A file of rules as Prometheus reads it: JSON is YAML.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    groups: [Group; 1],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: TagName,
    rules: Vec<Alert>,
}

#[derive(Serialize, Deserialize)]
struct Alert {
    alert: Name,
    #[serde(flatten)]
    rule: Rule,
}

impl Rules {
    pub(super) fn open(settings: RulesSettings) -> Result<Self, Fault> {
        let built = reqwest::Client::builder().timeout(WITHIN).build();
        let http = built.map_err(|e| Fault::new("make an HTTP client", e).permanent())?;
        Ok(Self { settings, http })
    }

    pub(super) fn directory(&self) -> &PathBuf {
        &self.settings.directory
    }

    /// Adds what stands in the files to what was seen.
    pub(super) async fn look(&self, seen: &mut BTreeMap<Key, Seen<Have>>) -> Result<(), Fault> {
        let folder = self.directory();
        let fault =
            |e: std::io::Error| Fault::new(format!("look into the folder of rules {}", folder.display()), e);
        let read_at = if self.settings.tell { self.read_at().await } else { None };
        for entry in fs::read_dir(folder).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name();
            let Some(tag) = name.to_str().and_then(tag_of) else { continue };
            let text = match files::read(&entry.path()) {
                Seen::There(text) | Seen::Ours(text) => text,
                Seen::Nothing => continue,
                Seen::Unknown(why) => return Err(Fault::new("look at the rules of Prometheus", why)),
            };
            let rules = parse(&text).unwrap_or_default();
            let written = entry.metadata().and_then(|meta| meta.modified()).map_err(fault)?;
            // A server that does not answer says nothing; one that began to read before that file was there has not read it.
            let unread = read_at.is_some_and(|at| at < written);
            let odd = unread || render(&tag, &rules) != text;
            let have = Have { odd, ..Have::from(Item::Rules(Arc::new(rules))) };
            seen.insert(Key { server: Server::Prometheus, subject: Subject::Rules(tag) }, Seen::Ours(have));
        }
        Ok(())
    }

    /// When the server last read its configuration with success. Its metrics say it more exactly than its API, which has whole seconds.
    async fn read_at(&self) -> Option<SystemTime> {
        let url = format!("{}/metrics", self.settings.server);
        let answer = self.http.get(url).send().await.ok()?.error_for_status().ok()?;
        let body = http::body(answer, MAX_ANSWER).await.ok()?;
        let text = String::from_utf8_lossy(&body);
        let value = text.lines().find_map(|line| line.strip_prefix(READ_AT)?.strip_prefix(' '))?;
        let seconds = Duration::try_from_secs_f64(value.trim().parse().ok()?).ok()?;
        Some(SystemTime::UNIX_EPOCH + seconds)
    }

    /// Makes the changes of rules; what became of each. Without settings there is nowhere to write them.
    pub(super) async fn change(
        rules: Option<&Self>,
        batch: &Batch<Monitoring>,
        fence: &Fence,
    ) -> Vec<(Key, Outcome)> {
        let mut each = Vec::new();
        let mut written = Vec::new();
        for edit in &batch.changes {
            let Subject::Rules(tag) = &edit.key.subject else { continue };
            let Some(rules) = rules else {
                let fault = Fault::new(
                    format!("write the rules of {tag}"),
                    "the configuration has no table [agent.prometheus.rules]",
                );
                each.push((
                    edit.key.clone(),
                    Outcome::Failed(fault.next("add it, or take the rules out of the tag").permanent()),
                ));
                continue;
            };
            let before = files::read(&rules.path(tag));
            match rules.write(edit, tag, fence).await {
                Ok(outcome) => {
                    if outcome != Outcome::Stale {
                        written.push((each.len(), tag, before));
                    }
                    each.push((edit.key.clone(), outcome));
                }
                Err(fault) => each.push((edit.key.clone(), Outcome::Failed(fault))),
            }
        }
        if let (Some(rules), false) = (rules.filter(|rules| rules.settings.tell), written.is_empty())
            && let Err(fault) = rules.reload().await
        {
            let fault = rules.put_back(&written, fault, fence).await;
            for (at, ..) in written {
                each[at].1 = Outcome::Failed(fault.clone());
            }
        }
        each
    }

    /// Writes the file of a tag, without the rules that the checker refuses.
    async fn write(&self, edit: &Edit<Monitoring>, tag: &TagName, fence: &Fence) -> Result<Outcome, Fault> {
        let path = self.path(tag);
        let now = match files::read(&path) {
            Seen::There(text) | Seen::Ours(text) => Some(parse(&text).unwrap_or_default()),
            Seen::Nothing => None,
            Seen::Unknown(why) => return Err(Fault::new(format!("look at the rules of {tag}"), why)),
        };
        if now.as_ref() != edit.from.as_ref().and_then(|have| have.item.rules()).map(|rules| &**rules) {
            return Ok(Outcome::Stale);
        }
        let Some(wanted) = edit.to.as_ref().and_then(Item::rules) else {
            fence.check()?;
            return files::put(&path, None).map(|()| Outcome::Done);
        };
        let (rules, refused) = self.checked(tag, &now.unwrap_or_default(), (**wanted).clone(), fence).await?;
        fence.check()?;
        files::put(&path, (!rules.is_empty()).then(|| render(tag, &rules)).as_deref())?;
        if rules.is_empty() {
            return Ok(refused.map_or(Outcome::Done, Outcome::Failed));
        }
        open_to_readers(&path)?;
        Ok(refused.map_or(Outcome::Done, Outcome::Failed))
    }

    /// What of these rules the checker accepts, and why it refuses the others: what stood in the place of one stays, where that is accepted.
    async fn checked(
        &self,
        tag: &TagName,
        stood: &BTreeMap<Name, Rule>,
        mut rules: BTreeMap<Name, Rule>,
        fence: &Fence,
    ) -> Result<(BTreeMap<Name, Rule>, Option<Fault>), Fault> {
        let what = || format!("check the rules of {tag}");
        let candidate = self.candidate(fence).map_err(|e| Fault::new(what(), e))?;
        let mut refused: Option<Fault> = None;
        for _ in 0..ROUNDS {
            if rules.is_empty() {
                return Ok((rules, refused));
            }
            // Each round takes as long as the checker does.
            fence.check()?;
            let checked = self.check(&candidate, &render(tag, &rules)).await;
            let Err(complaint) = checked.map_err(|e| Fault::new(what(), e))? else {
                return Ok((rules, refused));
            };
            let mut mended = false;
            for (name, said) in complaint.lines().filter_map(blamed) {
                let Some(bad) = rules.remove(&name) else { continue };
                mended = true;
                if let Some(before) = stood.get(&name).filter(|before| **before != bad) {
                    rules.insert(name, before.clone());
                }
                let fault = refused.get_or_insert_with(|| {
                    Fault::new(what(), "the checker refuses some, which stay as they stood or are left out")
                        .next("correct them in the tag")
                        .permanent()
                });
                fault.why += &format!("; {said}");
            }
            if !mended {
                return Err(Fault::new(what(), complaint).permanent());
            }
        }
        Err(Fault::new(what(), format!("{ROUNDS} rounds of leaving out bad rules did not help")))
    }

    /// What the checker says of a text, in a file of this name that is gone afterwards.
    async fn check(&self, candidate: &Path, text: &str) -> io::Result<Result<(), String>> {
        fs::write(candidate, text)?;
        let places = [("{file}", &*candidate.to_string_lossy())];
        let checked = command::run(&self.settings.check, &places, WITHIN).await;
        fs::remove_file(candidate)?;
        Ok(checked)
    }

    /// Where to write what is to be checked under this claim. An instance whose claim has ended, and does not know it, has another place, so
    /// that neither is told of what the other one wrote. Those of earlier claims are removed.
    fn candidate(&self, fence: &Fence) -> io::Result<PathBuf> {
        for entry in fs::read_dir(self.directory())? {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let of =
                name.to_str().and_then(|name| name.strip_prefix(CANDIDATE)?.strip_suffix(CANDIDATE_ENDS));
            if of.and_then(|number| number.parse().ok()).is_some_and(|of: u64| of < fence.number)
                && let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
        }
        Ok(self.directory().join(format!("{CANDIDATE}{}{CANDIDATE_ENDS}", fence.number)))
    }

    /// Has the server read its rules. It answers when it has.
    async fn reload(&self) -> Result<(), Fault> {
        let url = format!("{}/-/reload", self.settings.server);
        let what = || "have Prometheus read its rules";
        let answer = self.http.post(&url).send().await.map_err(|e| Fault::new(what(), http::reason(&e)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let next = if status == reqwest::StatusCode::FORBIDDEN {
            "start it with --web.enable-lifecycle"
        } else {
            "see its log"
        };
        Err(Fault::new(what(), format!("{url} answers {status}")).next(next))
    }

    /// The server could not read what was written: what was there before comes back.
    async fn put_back(
        &self,
        written: &[(usize, &TagName, Seen<String>)],
        fault: Fault,
        fence: &Fence,
    ) -> Fault {
        if let Err(ended) = fence.check() {
            return ended;
        }
        for (_, tag, before) in written {
            let text = match before {
                Seen::There(text) | Seen::Ours(text) => Some(text.as_str()),
                _ => None,
            };
            let path = self.path(tag);
            let back = files::put(&path, text)
                .and_then(|()| if text.is_some() { open_to_readers(&path) } else { Ok(()) });
            if let Err(error) = back {
                return error;
            }
        }
        let why = format!("{}; the last good rules are back", fault.why);
        Fault { why, ..fault }
    }

    fn path(&self, tag: &TagName) -> PathBuf {
        self.directory().join(file_name(tag))
    }
}

/// The file of a tag. A tag's key has no slash.
fn file_name(tag: &TagName) -> String {
    format!("shoal-{}.json", tag.key())
}

fn tag_of(file: &str) -> Option<TagName> {
    let key = file.strip_prefix("shoal-")?.strip_suffix(".json")?;
    format!("monitoring/{key}").parse().ok()
}

fn render(tag: &TagName, rules: &BTreeMap<Name, Rule>) -> String {
    let rules = rules.iter().map(|(name, rule)| Alert { alert: name.clone(), rule: rule.clone() }).collect();
    // Nothing in it can fail: text alone.
    serde_json::to_string_pretty(&File { groups: [Group { name: tag.clone(), rules }] }).unwrap_or_default()
        + "\n"
}

fn parse(text: &str) -> Option<BTreeMap<Name, Rule>> {
    let File { groups: [group] } = serde_json::from_str(text).ok()?;
    Some(group.rules.into_iter().map(|Alert { alert, rule }| (alert, rule)).collect())
}

/// `group "monitoring/web", rule 2, "Down": could not parse expression: …`, or `"Down" label "a": …`.
fn blamed(line: &str) -> Option<(Name, String)> {
    let (_, rest) = line.split_once(", rule ")?;
    let (_, rest) = rest.split_once(", \"")?;
    let (name, said) = rest.split_once('"')?;
    Some((name.parse().ok()?, format!("{name}{said}")))
}
