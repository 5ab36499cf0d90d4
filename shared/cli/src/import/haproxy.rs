//! `shoal import haproxy`: the pools of a load balancer become `lb/` tags.
//!
//! ```json
//! {"frontends": {"www": {"bind_port": 80, "default_backend": "web"}},
//!  "backends": {"web": {"mode": "http", "balance": "roundrobin", "httpchk": {"method": "GET", "path": "/health"},
//!    "servers": [{"name": "web1", "address": "web1", "port": 8080, "options": ["check", "inter", "5s"]}]}}}
//! ```
//!
//! A server is a host that stands in the database: its address is a name, by the rules of `pools` in the [`Mapping`], or an address that
//! one host has. What cannot be resolved is left out with a [`Note`], and then nobody whom an earlier import put into that pool leaves
//! it: a name that nobody can read takes no server out of work. What a tag cannot say (`hdr(…)`, `maxconn`) is noted, too, and `ssl` where
//! the mapping does not say who signs the certificates.
//! Who owns what, and that a second import changes nothing, is as for [`ansible`](super::ansible).

mod server;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shoal_core::{HostId, Member, Range, TagName};

use super::ansible::{Import, ImportError, Mapping, Note, Pools, Rows, Wanted, WantedTag, merged};
use server::{Hosts, Options};

/// The pools of a load balancer, and a mapping.
#[derive(Debug)]
pub struct Reading {
    pools: Pools,
    file: File,
}

#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    frontends: BTreeMap<String, Frontend>,
    backends: BTreeMap<String, Backend>,
}

#[derive(Debug, Deserialize)]
struct Frontend {
    #[serde(default)]
    bind_port: Option<u16>,
    #[serde(default)]
    default_backend: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Backend {
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    balance: Option<String>,
    #[serde(default)]
    httpchk: Option<HttpCheck>,
    #[serde(default)]
    servers: Vec<Server>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct HttpCheck {
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    path: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Server {
    name: String,
    address: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    options: Vec<String>,
}

/// Reads the description of a load balancer, and a mapping.
///
/// # Errors
/// A description that is none, a mapping file that is wrong or has no `pools`.
pub fn read(pools: &str, mapping: &str) -> Result<Reading, ImportError> {
    let missing = || {
        let why = "it has no pools: write `pools: {name: …}`, and below it how servers are called here";
        ImportError::Mapping(why.to_owned())
    };
    let file = serde_json::from_str(pools).map_err(ImportError::NotPools)?;
    Ok(Reading { pools: Mapping::parse(mapping)?.pools.ok_or_else(missing)?, file })
}

impl Reading {
    /// The rows that [`Self::against`] needs, all of one revision.
    #[must_use]
    pub fn ranges(&self, prune: bool) -> Vec<Range> {
        if prune {
            return vec![Range::All];
        }
        let facts = Range::Prefix(format!("{}/{}/", shoal_core::FACTS, self.pools.name));
        vec![Range::hosts(), facts, Range::namespace(self.pools.namespace.as_str())]
    }

    /// The changes that make the tags. Proportional to the hosts and the pools.
    ///
    /// # Errors
    /// A row that cannot be read as what its key says.
    pub fn against(
        &self,
        rows: &Rows,
        prune: bool,
        mut id: impl FnMut() -> HostId,
    ) -> Result<Import, ImportError> {
        let mut notes = Vec::new();
        let hosts = Hosts::of(rows)?;
        let mut wanted = Wanted::default();
        for (name, backend) in &self.file.backends {
            match format!("{}/{name}", self.pools.namespace).parse::<TagName>() {
                Err(why) => {
                    notes.push(Note::new(format!("backend {name}"), format!("{why}; the pool is left out")));
                }
                Ok(tag) => {
                    match self.pool(name, backend, &hosts, &mut notes) {
                        Some(entry) => drop(wanted.tags.insert(tag, entry)),
                        // One that cannot be told now is not one that went.
                        None => drop(wanted.unknown.insert(tag)),
                    }
                }
            }
        }
        for (name, frontend) in &self.file.frontends {
            self.frontend(name, frontend, &mut wanted, &mut notes);
        }
        merged(&self.pools.name, &wanted, notes, rows, prune, &mut id)
    }

    fn pool(&self, name: &str, backend: &Backend, hosts: &Hosts, notes: &mut Vec<Note>) -> Option<WantedTag> {
        let about = format!("backend {name}");
        let mut note = |what: String| notes.push(Note::new(&about, what));
        let http = match backend.mode.as_deref() {
            None | Some("http") => true,
            Some("tcp") => false,
            Some(other) => {
                note(format!("mode {other} is neither http nor tcp; its tag is left as it was"));
                return None;
            }
        };
        for word in backend.more.keys() {
            note(format!("{word} is left out: a pool does not say it"));
        }
        let mut entry = WantedTag::default();
        let set = &mut entry.fields;
        set.insert("protocol".to_owned(), json!(if http { "http" } else { "tcp" }));
        set.extend(balance(backend, http, &mut note).map(|word| ("balance".to_owned(), json!(word))));
        // Those that cannot be resolved say as well on which port the pool's servers are.
        let Some(port) = most(backend.servers.iter().filter_map(|server| server.port)) else {
            note("no server of it says a port; its tag is left as it was".to_owned());
            return None;
        };
        set.insert("port".to_owned(), json!(port));
        let (members, all) = self.members(backend, port, hosts, &mut note);
        entry.keep = !all;
        entry.members = members.iter().map(|(_, _, host)| Member::host(&host.name)).collect();
        weigh(&members, &mut entry.fields, &mut note);
        back_up(&members, &mut note);
        reach(&members, &mut entry.fields, &mut note);
        check(backend, http, &members, &mut entry.fields, &mut note);
        Some(entry)
    }

    /// The servers that can be members, and whether those are all.
    fn members<'a>(
        &self,
        backend: &'a Backend,
        port: u16,
        hosts: &'a Hosts,
        note: &mut impl FnMut(String),
    ) -> (Vec<Told<'a>>, bool) {
        let (mut members, mut all): (Vec<Told<'a>>, _) = (Vec::new(), true);
        for server in backend.servers.iter().filter(|server| !self.pools.skip.contains(&server.name)) {
            let mut left_out = |why: String| note(format!("server {}: {why}; left out", server.name));
            let host = match hosts.find(server, &self.pools) {
                Ok(host) => host,
                Err(why) => {
                    left_out(why);
                    all = false;
                    continue;
                }
            };
            let has = host.said("port").unwrap_or(u64::from(port));
            if let Some((first, ..)) = members.iter().find(|(_, _, found)| found.name == host.name) {
                left_out(format!("{} is {} already", first.name, host.name));
            } else if let Some(own) = server.port.filter(|own| u64::from(*own) != has) {
                left_out(format!(
                    "it is on port {own}, the pool on {has} (`lb: {{port: {own}}}` at {} would say it, for all its pools)",
                    host.name
                ));
                all = false;
            } else {
                members.push((server, Options::read(server, &self.pools, note), host));
            }
        }
        (members, all)
    }

    fn frontend(&self, name: &str, frontend: &Frontend, wanted: &mut Wanted, notes: &mut Vec<Note>) {
        let about = format!("frontend {name}");
        let mut note = |what: String| notes.push(Note::new(&about, what));
        for word in frontend.more.keys() {
            note(format!("{word} is left out: a pool does not say it"));
        }
        let Some(backend) = &frontend.default_backend else {
            return note("it has no default_backend; left out".to_owned());
        };
        let tag = format!("{}/{backend}", self.pools.namespace).parse::<TagName>();
        let Some(entry) = tag.ok().and_then(|tag| wanted.tags.get_mut(&tag)) else {
            return note(format!("its backend {backend} is not there; left out"));
        };
        let (Some(bind), Some(port)) = (self.pools.bind, frontend.bind_port) else { return };
        let socket = json!(std::net::SocketAddr::new(bind, port));
        let all = entry.fields.entry("frontends").or_insert_with(|| json!([]));
        all.as_array_mut().into_iter().for_each(|all| all.push(socket.clone()));
    }
}

/// The pool's word for who gets the next request.
fn balance(backend: &Backend, http: bool, note: &mut impl FnMut(String)) -> Option<&'static str> {
    let said = backend.balance.as_deref()?;
    match said.split_whitespace().next().unwrap_or_default() {
        "roundrobin" | "static-rr" => Some("round_robin"),
        "leastconn" => Some("least_connections"),
        "random" => Some("random"),
        "source" => Some("source"),
        "uri" if http => Some("uri"),
        _ => {
            note(format!("balance {said} is no word of a pool: round_robin instead"));
            Some("round_robin")
        }
    }
}

/// A server, its options, and the host that it is.
type Told<'a> = (&'a Server, Options, &'a server::Host);

/// The servers' share of the work; where all have the same, nothing has to be said.
fn weigh(members: &[Told<'_>], fields: &mut Map<String, Value>, note: &mut impl FnMut(String)) {
    let Some(weight) = most(members.iter().map(|(_, options, _)| options.weight)) else { return };
    if members.iter().all(|(_, options, _)| options.weight == weight) {
        return;
    }
    fields.insert("weight".to_owned(), json!(weight));
    for (server, Options { weight: own, .. }, host) in members {
        if *own != weight && host.said("weight") != Some(*own) {
            note(format!(
                "server {}: its weight is {own}, the pool's {weight}: `lb: {{weight: {own}}}` at {} would say it, for all its pools",
                server.name, host.name
            ));
        }
    }
}

/// Who is a backup: hosts say that, and no pool.
fn back_up(members: &[Told<'_>], note: &mut impl FnMut(String)) {
    for (server, options, host) in
        members.iter().filter(|(_, options, host)| options.backup != host.backs_up())
    {
        let (what, said) = if options.backup { ("a backup", "true") } else { ("no backup", "false") };
        note(format!(
            "server {}: it is {what}: `lb: {{backup: {said}}}` at {} would say it, for all its pools",
            server.name, host.name
        ));
    }
}

/// Whether the servers are reached over TLS.
fn reach(members: &[Told<'_>], fields: &mut Map<String, Value>, note: &mut impl FnMut(String)) {
    let Some(tls) = members.iter().find_map(|(_, options, _)| options.tls.as_ref()) else { return };
    let mut others = members.iter().filter(|(_, options, _)| options.tls.as_ref() != Some(tls));
    match others.next() {
        None => drop(fields.insert("tls".to_owned(), json!(tls))),
        Some((server, ..)) => note(format!(
            "server {}: it is reached otherwise than by tls: {tls}, which others are; all without TLS",
            server.name
        )),
    }
}

/// How the servers are checked, and what depends on it.
fn check(
    backend: &Backend,
    http: bool,
    members: &[Told<'_>],
    fields: &mut Map<String, Value>,
    note: &mut impl FnMut(String),
) {
    let of = |(_, options, _): &Told<'_>| options.check.then_some(options.how);
    let Some(how) = most(members.iter().filter_map(of)) else { return };
    for (server, options, _) in members {
        if !options.check || options.how != how {
            note(format!("server {}: it is checked otherwise than most; checked as they are", server.name));
        }
    }
    let (interval, rise, fall, slow_start) = how;
    let mut check = json!({"interval": interval, "rise": rise, "fall": fall});
    if let Some(asked) = &backend.httpchk {
        let method = asked.method.as_deref().unwrap_or("GET");
        if method != "GET" {
            note(format!("it is checked by {method}: GET instead"));
        }
        match &asked.path {
            Some(path) if http => check["path"] = json!(path),
            Some(path) => note(format!("the check of {path} needs mode http: a connection instead")),
            None => {}
        }
    }
    fields.insert("check".to_owned(), check);
    if slow_start > 0 {
        fields.insert("slow_start".to_owned(), json!(slow_start));
    }
}

/// What most say; of two as frequent ones, the smaller.
fn most<T: Ord + Copy>(all: impl Iterator<Item = T>) -> Option<T> {
    let mut count: BTreeMap<T, usize> = BTreeMap::new();
    all.for_each(|one| *count.entry(one).or_default() += 1);
    count.into_iter().rev().max_by_key(|(_, n)| *n).map(|(one, _)| one)
}

#[cfg(test)]
mod tests;
