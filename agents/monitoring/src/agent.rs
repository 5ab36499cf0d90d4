//! The pure agent: tags under `monitoring/` into hosts with checks.

use serde::Deserialize;
use shoal_agent::{Agent, Blocked, Desired, Look, Source, Unit};

use crate::define;
use crate::item::{Have, Item, Key, Subject};
use crate::merge;
use crate::name::Name;
use crate::rules;
use crate::spec::Spec;
use crate::target::Server;

/// The monitoring agent. It serves members that are active or draining.
#[derive(Clone, Debug)]
pub struct Monitoring {
    servers: Vec<Server>,
    commands: Commands,
}

impl Monitoring {
    /// The agent for these servers, whose tags may name these commands.
    #[must_use]
    pub fn new(servers: impl Into<Vec<Server>>, commands: Commands) -> Self {
        Self { servers: servers.into(), commands }
    }

    /// Whether the secrets of scrapes are as they should be: of Prometheus alone, where a source names one.
    fn credentials(&self, spec: &Spec) -> Vec<Key> {
        let named = spec.scrape.values().any(|scrape| scrape.authorization.is_some());
        self.each(&Subject::Server, |server| named && *server == Server::Prometheus)
    }

    fn each(&self, subject: &Subject, of: impl Fn(&Server) -> bool) -> Vec<Key> {
        let servers = self.servers.iter().copied().filter(of);
        servers.map(|server| Key { server, subject: subject.clone() }).collect()
    }
}

/// The commands of a server that tags may name: names, or their beginnings with a `*`.
///
/// A server's library also holds commands that tell people or restart things. None of them is to be run because somebody wrote
/// a tag.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Commands(pub Vec<String>);

impl Default for Commands {
    /// What plugins' commands are called everywhere.
    fn default() -> Self {
        Self(vec!["check_*".to_owned(), "check-*".to_owned()])
    }
}

impl Commands {
    /// Whether tags may name this one.
    #[must_use]
    pub fn allow(&self, command: &Name) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => command.as_str().starts_with(start),
            None => command.as_str() == pattern,
        })
    }
}

impl Agent for Monitoring {
    type Spec = Spec;
    type Key = Key;
    type Item = Item;
    type Have = Have;

    fn namespace(&self) -> &str {
        "monitoring"
    }

    fn overrides(&self) -> Option<schemars::Schema> {
        Some(schemars::schema_for!(Spec))
    }

    fn unit(&self, key: &Key) -> Unit {
        Unit::from(key.server.name())
    }

    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<Key>, Blocked> {
        Ok(match from.host {
            // Prometheus reads its files by itself.
            None => {
                let mut keys = self.each(&Subject::Server, |server| server.checks());
                for subject in define::subjects(from.spec).0 {
                    keys.extend(self.each(&subject, |server| server.checks()));
                }
                keys.extend(self.credentials(from.spec));
                if !from.spec.rules.is_empty() {
                    let rules = Subject::Rules(from.tag.clone());
                    keys.extend(self.each(&rules, |server| *server == Server::Prometheus));
                }
                keys
            }
            Some(_) if from.spec.omit => Vec::new(),
            Some(host) => {
                let scraped = !from.spec.scrape.is_empty();
                let mut keys =
                    self.each(&Subject::Host(host.name.clone()), |server| server.checks() || scraped);
                keys.extend(self.credentials(from.spec));
                keys
            }
        })
    }

    fn desired(
        &self,
        key: &Key,
        from: &[Source<'_, Spec>],
        _look: &dyn Look,
    ) -> Result<Desired<Item>, Blocked> {
        match &key.subject {
            Subject::Server if key.server.checks() => {
                Ok(Desired { item: Some(Item::Server), left_out: misnamed(from) })
            }
            Subject::Server => Ok(Desired::item(Item::Server)),
            Subject::Definition(kind, name) => Ok(define::decide(*kind, name, from)),
            Subject::Rules(_) => Ok(rules::decide(from)),
            Subject::Host(_) => merge::decide(key.server, from, &self.commands),
        }
    }

    fn paused(&self, item: &Item) -> Option<Item> {
        item.paused()
    }

    fn made(&self, item: &Item) -> Option<Have> {
        Some(Have::from(item.clone()))
    }
}

/// What tags define under names that are none.
fn misnamed(from: &[Source<'_, Spec>]) -> Vec<Blocked> {
    let tags = from.iter().filter(|source| source.host.is_none());
    let faults = |source: &Source<'_, Spec>| {
        let who = source.name();
        define::subjects(source.spec).1.into_iter().map(move |why| Blocked::new(who.clone(), why))
    };
    tags.flat_map(faults).collect()
}

#[cfg(test)]
mod tests;
