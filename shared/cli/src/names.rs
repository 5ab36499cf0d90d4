//! Names as people type them.

use std::str::FromStr;

use shoal_core::{BadName, Key, Kind, Namespace, PAUSES};

/// A host (`web1.example.com`), a tag (`dns/example.com`) or any other row by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) Key);

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if text.contains('/') {
            text.parse().map(Self)
        } else {
            text.parse().map(|host| Self(Key::host(&host)))
        }
    }
}

/// What a history may be of: a [`Name`], or all that begins so (`lb/`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// One thing.
    One(Key),
    /// A namespace.
    Namespace(String),
}

impl FromStr for Stretch {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match text.strip_suffix('/') {
            Some(namespace) => namespace.parse::<Namespace>().map(|_| Self::Namespace(text.to_owned())),
            None => text.parse().map(|Name(key)| Self::One(key)),
        }
    }
}

/// What a key is called when people read it.
pub(crate) fn shown(key: &Key) -> String {
    match key.kind() {
        Kind::Host(host) => format!("host {host}"),
        Kind::Tag(tag) => format!("tag {tag}"),
        _ => key.to_string(),
    }
}

/// What is held: a host, a tag or an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The row that says so.
    pub(crate) key: Key,
    /// What it is called.
    pub(crate) what: String,
    /// The agent that may be meant, where only a word was written.
    pub(crate) agent: Option<Namespace>,
}

impl Scope {
    /// All that this agent does.
    pub(crate) fn agent(agent: &Namespace) -> Result<Self, BadName> {
        Ok(Self {
            key: format!("{PAUSES}/agent/{agent}").parse()?,
            what: format!("agent {agent}"),
            agent: None,
        })
    }
}

impl FromStr for Scope {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if let Some(agent) = text.strip_prefix("agent/") {
            return Self::agent(&agent.parse()?);
        }
        let agent = text.parse().ok();
        let text = text.strip_prefix("tag/").or_else(|| text.strip_prefix("host/")).unwrap_or(text);
        let Name(key) = text.parse()?;
        let scope = match key.kind() {
            Kind::Host(host) => format!("host/{host}"),
            Kind::Tag(tag) => format!("tag/{tag}"),
            _ => {
                let why = "only hosts, tags and agents (agent/NAME) can be held";
                return Err(BadName { what: "host, tag or agent", text: text.to_owned(), why });
            }
        };
        Ok(Self { key: format!("{PAUSES}/{scope}").parse()?, what: shown(&key), agent })
    }
}

/// A unit of an agent, `dns/example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitName {
    /// The agent's namespace.
    pub(crate) agent: Namespace,
    /// The unit, as the agent calls it.
    pub(crate) unit: String,
}

impl FromStr for UnitName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (agent, unit) = text.split_once('/').ok_or("write AGENT/UNIT, as `shoal status` shows it")?;
        Ok(Self { agent: agent.parse().map_err(|e: BadName| e.to_string())?, unit: unit.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_become_rows() {
        let key = |text: &str| text.parse::<Scope>().map(|s| s.key.to_string());
        assert_eq!(key("web1").unwrap(), "pauses/host/web1");
        assert_eq!(key("host/web1").unwrap(), "pauses/host/web1");
        assert_eq!(key("dns/a").unwrap(), "pauses/tag/dns/a");
        assert_eq!(key("agent/dns").unwrap(), "pauses/agent/dns");
        assert!(key("facts/vm/web1").is_err());
        assert!(key("agent/X").is_err());
    }
}
