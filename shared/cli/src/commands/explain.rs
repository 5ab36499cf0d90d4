//! `shoal explain HOST`: what it is, what it is in and why, what that comes to, where it was placed and why there, and what each agent made
//! of it.

mod placed;

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;
use serde_json::Value;
use shoal_core::docs::HostDoc;
use shoal_core::{Effective, Host, HostName, Key, Life, Status as Report, TagName};
use shoal_store::{LedgerPage, MAX_PAGE};

use super::members::{TagOf, VALUES, conflicts, tags_of, values};
use crate::args::Explain;
use crate::failure::{Failure, Outcome};
use crate::out::{Out, plain};
use crate::session::Session;

#[derive(Serialize)]
struct Explained {
    host: HostDoc,
    tags: Vec<TagOf>,
    effective: Vec<Said>,
    facts: Vec<Fact>,
    items: Vec<Item>,
    /// Why no agent has made anything from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    nothing: Option<String>,
    /// Pauses, waits, failures, and where it was left out or not understood.
    notes: Vec<String>,
}

/// What a tag says of the host.
#[derive(Serialize)]
struct Said {
    tag: TagName,
    #[serde(flatten)]
    effective: Effective,
}

#[derive(Serialize)]
struct Fact {
    namespace: String,
    document: Value,
}

/// One thing that an agent made from the host.
#[derive(Serialize)]
struct Item {
    unit: String,
    key: String,
    stage: String,
    /// The newest revision that it was decided from.
    revision: Value,
    /// From which tags.
    from: Vec<String>,
    last: Value,
}

pub(crate) async fn run(session: &mut Session, args: Explain) -> Outcome {
    let name = args.host;
    session.exists(&Key::host(&name), None).await?;
    let view = session.view(None).await?;
    let Some(host) = view.host(name.as_str()) else {
        return Err(Failure::Missing(format!("there is no host {name}; `shoal get hosts` lists all")));
    };
    let tags = tags_of(&view, &name);
    let said = |t: &TagOf| Some(Said { tag: t.tag.clone(), effective: view.effective(&t.tag, Some(&name))? });
    let effective = tags.iter().filter_map(said).collect();
    let fact =
        |f: &shoal_core::Fact| Fact { namespace: f.namespace.to_string(), document: f.document.value() };
    let facts = view.facts(name.as_str()).iter().map(fact).collect();
    let reports = session.store.reports().await.map_err(Failure::reading("the agents' reports"))?;
    let mut notes = paused(&view, &name, &tags);
    notes.extend(reports.iter().flat_map(|r| said_of(r, &name, (session.env.now)())));
    // Instances of one agent say the same.
    let mut seen = HashSet::new();
    notes.retain(|note| seen.insert(note.clone()));
    let items = items(session, &name).await?;
    let explained = Explained {
        host: HostDoc::of(host.name.clone(), host.record(), host.revision),
        nothing: items.is_empty().then(|| nothing(host, &tags, &reports, !notes.is_empty())),
        items,
        tags,
        effective,
        facts,
        notes,
    };
    session.out.print(&explained, |out| text(out, &explained))
}

/// Why no agent has made anything from the host, as far as the database says.
fn nothing(host: &Host, tags: &[TagOf], reports: &[Report], noted: bool) -> String {
    let name = &host.name;
    if tags.is_empty() {
        return format!(
            "no agent has made anything from it: it is a member of no tag; `shoal tag NAMESPACE/KEY +{name} -m WHY` \
             puts it in one"
        );
    }
    let namespaces: BTreeSet<&str> = tags.iter().map(|t| t.tag.namespace()).collect();
    let heard = |ns: &&&str| reports.iter().any(|r| r.agent.as_str() == **ns);
    let (with, without): (Vec<&str>, Vec<&str>) = {
        let (with, without): (Vec<&&str>, Vec<&&str>) = namespaces.iter().partition(heard);
        (with.into_iter().copied().collect(), without.into_iter().copied().collect())
    };
    if with.is_empty() {
        return format!(
            "no agent has made anything from it: it is in tags of {}, and no agent of that name has reported; \
             `shoal status` shows which have",
            without.join(", ")
        );
    }
    let why = if noted {
        "see below"
    } else {
        "an agent serves some states only, and makes what the tag's document and the host's ask for"
    };
    format!("{} has made nothing from it (it is {}): {why}", with.join(", "), host.state)
}

fn paused(view: &shoal_core::View, host: &HostName, tags: &[TagOf]) -> Vec<String> {
    let why =
        |value: &shoal_core::Plain| value.document.text("why").map(|w| w.into_owned()).unwrap_or_default();
    let concerns = |scope: &str| {
        scope.strip_prefix("host/").is_some_and(|h| h == host.as_str())
            || scope.strip_prefix("tag/").is_some_and(|t| tags.iter().any(|of| of.tag.as_str() == t))
            || scope.strip_prefix("agent/").is_some_and(|a| tags.iter().any(|of| of.tag.namespace() == a))
    };
    let scope = |key: &Key| key.as_str().strip_prefix("pauses/").unwrap_or_default().to_owned();
    view.plain("pauses/")
        .map(|(key, value)| (scope(key), value))
        .filter(|(scope, _)| concerns(scope))
        .map(|(scope, value)| format!("paused: {scope} since revision {}: {}", value.revision, why(value)))
        .collect()
}

/// What an agent says of the host that is not as it should be.
fn said_of(report: &Report, host: &HostName, now: jiff::Timestamp) -> Vec<String> {
    if matches!(Life::of(report, now), Life::Dead | Life::Stopped) {
        return Vec::new();
    }
    let mut notes = Vec::new();
    for (name, unit) in &report.units {
        for item in unit.behind.iter().filter(|b| b.hosts.contains(host)) {
            notes.push(format!(
                "behind: {}/{name}: {} since revision {}: {}",
                report.agent, item.key, item.since, item.why
            ));
        }
    }
    let ends = format!(": {host}");
    for (name, unit) in &report.units {
        for out in unit.left_out.iter().filter(|l| l.who.iter().any(|w| w.ends_with(&ends))) {
            let who = out.who.join(" + ");
            notes.push(format!("left out: {}/{name}: {}: {who}: {}", report.agent, out.key, out.why));
        }
        let unnamed = unit.left_out_total.saturating_sub(unit.left_out.len() as u64);
        if unnamed > 0 {
            let agent = &report.agent;
            notes
                .push(format!("{agent}/{name} reports {unnamed} more that are left out without naming them"));
        }
    }
    for bad in report.quarantined.iter().filter(|q| q.what.ends_with(&ends) || q.what == host.as_str()) {
        notes.push(format!(
            "quarantined: {}: {} since revision {}: {}",
            report.agent, bad.what, bad.since, bad.why
        ));
    }
    notes
}

/// The items of the whole ledger that come from the host. Reads the ledger's pages as the engine writes them; a page
/// of another form is passed over.
async fn items(session: &Session, host: &HostName) -> Outcome<Vec<Item>> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = session.store.ledger("", after.as_deref(), MAX_PAGE).await;
        let LedgerPage { rows, more } = page.map_err(Failure::reading("the ledger"))?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        for (key, octets) in &rows {
            // Most pages do not name the host: looking is cheaper than parsing.
            let names_it = octets.windows(host.as_str().len()).any(|w| w == host.as_str().as_bytes());
            if names_it && let Ok(page) = serde_json::from_slice::<Value>(octets) {
                let unit = key.rsplit_once('/').map_or(key.as_str(), |(unit, _)| unit);
                let unit = &unit.replace("%2F", "/").replace("%25", "%");
                all.extend(
                    page["entries"].as_array().into_iter().flatten().filter_map(|e| item(unit, e, host)),
                );
            }
        }
        if !more {
            break;
        }
    }
    Ok(all)
}

fn item(unit: &str, line: &Value, host: &HostName) -> Option<Item> {
    let entry = &line["entry"];
    let sources = entry["from"].as_array()?;
    if !sources.iter().any(|source| source[1] == host.as_str()) {
        return None;
    }
    let mut from: Vec<String> = sources.iter().filter_map(|s| Some(s[0].as_str()?.to_owned())).collect();
    from.dedup();
    let stage = match &entry["stage"] {
        Value::String(stage) => stage.clone(),
        Value::Object(map) => map.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let key = match &line["key"] {
        Value::String(key) => key.clone(),
        key => plain(key),
    };
    Some(Item {
        unit: unit.to_owned(),
        key,
        stage,
        revision: entry["revision"].clone(),
        from,
        last: entry["last"].clone(),
    })
}

/// A fact on one line. Where the host was placed stands in rows of its own.
fn reported(out: &Out, fact: &Fact) -> Option<Vec<String>> {
    let rest = if fact.namespace == placed::NAMESPACE {
        placed::rest(&fact.document)?
    } else {
        fact.document.clone()
    };
    Some(vec![fact.namespace.clone(), out.glance(&plain(&rest), 30)])
}

fn text(out: &Out, explained: &Explained) -> String {
    let Explained { host, tags, effective, facts, items, nothing, notes } = explained;
    let mut text = format!(
        "host {} ({}), revision {}\n",
        host.host,
        host.state.unwrap_or_default(),
        host.revision.unwrap_or_default()
    );
    for (what, value) in [("owner", &host.owner), ("environment", &host.environment)] {
        if let Some(value) = value {
            text.push_str(&format!("{what}: {value}\n"));
        }
    }
    let rows =
        tags.iter().map(|t| vec![t.tag.to_string(), t.way.text(), t.way.revision.to_string()]).collect();
    text.push_str("\nTags\n");
    text.push_str(&out.table(&["TAG", "HOW", "REVISION"], rows, "it is in no tag"));
    let (silent, saying): (Vec<&Said>, Vec<&Said>) =
        effective.iter().partition(|said| said.effective.origins.is_empty());
    for said in saying {
        text.push_str(&format!("\nWhat {} says of it\n", said.tag));
        text.push_str(&out.table(&VALUES, values(&said.effective), ""));
        text.push_str(&conflicts(&said.effective));
    }
    if !silent.is_empty() {
        let names: Vec<&str> = silent.iter().map(|said| said.tag.as_str()).collect();
        text.push_str(&format!("\nTags whose documents are empty: {}\n", names.join(", ")));
    }
    for fact in facts.iter().filter(|fact| fact.namespace == placed::NAMESPACE) {
        text.push_str(&placed::text(out, &fact.document));
    }
    let rows: Vec<Vec<String>> = facts.iter().filter_map(|fact| reported(out, fact)).collect();
    if !rows.is_empty() {
        text.push_str("\nReported of it\n");
        text.push_str(&out.table(&["BY", "FACTS"], rows, ""));
    }
    text.push_str("\nMade from it\n");
    if let Some(why) = nothing {
        text.push_str(&format!("{why}\n"));
    }
    // No table: what is there is long, and of a different length in every column.
    let mut unit = "";
    for item in items {
        if item.unit != unit {
            unit = &item.unit;
            text.push_str(&format!("{unit}\n"));
        }
        let Item { key, stage, revision, from, .. } = item;
        text.push_str(&format!("  {key}: {stage}, revision {revision}, from {}\n", from.join(", ")));
        let last = plain(&item.last);
        if !last.is_empty() {
            text.push_str(&format!("    {}\n", out.glance(&last, 4)));
        }
    }
    if !notes.is_empty() {
        text.push_str(&format!("\n{}\n", notes.join("\n")));
    }
    text
}
