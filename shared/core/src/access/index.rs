//! The rows below `access/`, ready to be asked.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::rows::{Group, Right, Rights, Rules, Scope, Token, TokenKind, User};
use super::{ADMINS, ANONYMOUS, EVERYBODY, Principal, Sort};
use crate::key::Access;
use crate::{ACCESS, Document, Key, Kind, Namespace, Revision, View};

/// All that decides who may do what, as of one revision. A question costs a few look-ups, however many rows there are.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub(super) areas: HashMap<String, Area>,
    users: HashMap<String, User>,
    /// By user.
    groups: HashMap<String, Vec<String>>,
    tokens: HashMap<String, Token>,
    anonymous: bool,
    /// Whether any row says that something is protected.
    pub(super) protects: bool,
    as_of: Revision,
}

/// What is said of a namespace and of its keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Area {
    pub(super) default: Option<Rules>,
    pub(super) keys: BTreeMap<String, Rules>,
}

/// What is known of somebody who showed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Who it is.
    Principal(Principal),
    /// Nobody any more, and why.
    Not(&'static str),
}

impl Index {
    /// The rows of a view.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let mut index = Self { as_of: view.access_changed(), ..Self::default() };
        for (key, row) in view.plain("access/") {
            index.add(key, &row.document);
        }
        index
    }

    /// The newest revision that wrote any of its rows: what is decided by it holds while nothing was written there since.
    #[must_use]
    pub fn as_of(&self) -> Revision {
        self.as_of
    }

    /// One row more. One that cannot be read allows nobody anything.
    pub fn add(&mut self, key: &Key, row: &Document) {
        let Kind::Access(place) = key.kind() else { return };
        match place {
            Access::Rules(namespace, of) => {
                let rules = row.to::<Rules>().unwrap_or_else(|_| nobody());
                self.anonymous |= rules.allow.get(ANONYMOUS).is_some_and(|r| *r != Rights::default());
                self.protects |= rules.protected == Some(true);
                let area = self.areas.entry(namespace).or_default();
                match of {
                    Some(key) => drop(area.keys.insert(key, rules)),
                    None => area.default = Some(rules),
                }
            }
            Access::User(name) => {
                let broken = |_| User { disabled: true, ..User::default() };
                self.users.insert(name, row.to().unwrap_or_else(broken));
            }
            Access::Group(name) => {
                for member in row.to::<Group>().unwrap_or_default().members {
                    self.groups.entry(member).or_default().push(name.clone());
                }
            }
            Access::Token(id) => {
                if let Ok(token) = row.to() {
                    self.tokens.insert(id, token);
                }
            }
            Access::Review(_) => {}
        }
    }

    /// Whether any rule gives something to who does not say who they are.
    #[must_use]
    pub fn knows_anonymous(&self) -> bool {
        self.anonymous
    }

    /// The token of this id.
    #[must_use]
    pub fn token(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id)
    }

    /// The user of this name, where there is a row for it.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The tokens and sessions of somebody, by id, in no order. Costs a look at all tokens.
    pub fn tokens_of<'i>(&'i self, owner: &'i str) -> impl Iterator<Item = (&'i str, &'i Token)> {
        let all = self.tokens.iter().map(|(id, token)| (id.as_str(), token));
        all.filter(move |(_, token)| token.owner == owner)
    }

    /// Those of them that have ended by `now`.
    pub fn ended<'i>(&'i self, owner: &'i str, now: Timestamp) -> impl Iterator<Item = (&'i str, &'i Token)> {
        let ended = move |token: &Token| token.expires.is_some_and(|end| end <= now);
        self.tokens_of(owner).filter(move |(_, token)| ended(token))
    }

    /// The rows of rules of one namespace that are there: `None` is the namespace's own.
    pub fn rules(&self, namespace: &str) -> impl Iterator<Item = (Option<&str>, &Rules)> {
        let area = self.areas.get(namespace);
        let default = area.and_then(|area| area.default.as_ref()).map(|rules| (None, rules));
        let keys = area.into_iter().flat_map(|area| &area.keys);
        default.into_iter().chain(keys.map(|(key, rules)| (Some(key.as_str()), rules)))
    }

    /// The groups of somebody.
    #[must_use]
    pub fn groups(&self, name: &str) -> &[String] {
        self.groups.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether somebody may do everything, but for what their token takes away.
    #[must_use]
    pub fn is_admin(&self, who: &Principal) -> bool {
        match who.sort {
            Sort::Local => true,
            Sort::Person => self.groups(&who.name).iter().any(|group| group == ADMINS),
            Sort::Agent(_) | Sort::Anonymous => false,
        }
    }

    /// Who it is that shows the token of this id, whose secret was compared, at `now`.
    #[must_use]
    pub fn shows(&self, id: &str, now: Timestamp) -> Known {
        let Some(token) = self.tokens.get(id) else {
            return Known::Not("there is no such token, or it was revoked");
        };
        if token.expires.is_some_and(|end| end <= now) {
            return Known::Not("the token has expired");
        }
        // A session is of a password, and that stands in the user's row.
        if token.kind == TokenKind::Session && !self.users.contains_key(&token.owner) {
            return Known::Not("the session has no row of a user any more");
        }
        match self.called(&token.owner) {
            Known::Principal(who) => {
                Known::Principal(Principal { scope: token.scope.clone(), token: Some(id.to_owned()), ..who })
            }
            not => not,
        }
    }

    /// Who it is that rows call so: a user, or `agent NAMESPACE`. Not for a name that comes from outside: whoever could say
    /// `agent dns` there would be that agent.
    #[must_use]
    pub fn called(&self, name: &str) -> Known {
        match name.strip_prefix("agent ") {
            Some(namespace) => match namespace.parse() {
                Ok(namespace) => self.agent(&namespace),
                Err(_) => Known::Not("no agent is called so"),
            },
            None => self.local(name),
        }
    }

    /// The agent of a namespace, whatever it shows, unless the row of its local user (`shoal-NAMESPACE`) is disabled.
    #[must_use]
    pub fn agent(&self, namespace: &Namespace) -> Known {
        match self.users.get(&format!("shoal-{namespace}")) {
            Some(User { disabled: true, .. }) => Known::Not("the agent is disabled"),
            _ => Known::Principal(Principal::agent(namespace)),
        }
    }

    /// Who it is that the system calls so, a user of the machine: as [`Index::named`], but who is called `shoal-NAMESPACE` and has no row is
    /// the agent of that namespace. Only root makes such users.
    #[must_use]
    pub fn local(&self, name: &str) -> Known {
        match agent_of(name).filter(|_| !self.users.contains_key(name)) {
            Some(agent) => Known::Principal(agent),
            None => self.named(name),
        }
    }

    /// Who it is that is called so, where something outside of the database vouches for the name: a certificate, another service that knows
    /// people. The one place where a text from outside becomes somebody: what is no name of a user ([`is_name`]) is nobody's. A user is an
    /// agent where their row says so.
    #[must_use]
    pub fn named(&self, name: &str) -> Known {
        if !is_name(name) {
            return Known::Not("that is no name of a user");
        }
        match self.users.get(name) {
            Some(user) if user.disabled => Known::Not("the user is disabled"),
            Some(User { agent: Some(namespace), .. }) => self.agent(namespace),
            Some(_) => Known::Principal(Principal::person(name)),
            None if agent_of(name).is_some() => Known::Not(
                "only a local user is an agent by being called so; a certificate says it by the URI urn:shoal:agent:dns, or a row by \
                 `shoal user add NAME --agent dns` (for the agent of dns)",
            ),
            None => Known::Principal(Principal::person(name)),
        }
    }
}

/// Whether a text can be the name of a user: a key of one segment (no `/`, no white space, not beginning with `@`), and nothing that means
/// something else in rules or patterns (`*`, `anonymous`).
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.contains('*') && person(text).is_ok()
}

/// The agent that a local user of this name is.
fn agent_of(name: &str) -> Option<Principal> {
    name.strip_prefix("shoal-")?.parse().ok().map(|namespace| Principal::agent(&namespace))
}

/// What a row says that cannot be read.
fn nobody() -> Rules {
    let none = |name: &str| (name.to_owned(), Rights::both(Right::None));
    Rules { allow: [none(EVERYBODY), none(ANONYMOUS)].into(), protected: None }
}

impl Area {
    /// The rows that say something of a key, the nearest first.
    pub(super) fn about<'a>(
        &'a self,
        key: Option<&'a str>,
    ) -> impl Iterator<Item = (Option<&'a str>, &'a Rules)> {
        let own = key.and_then(|key| Some((Some(key), self.keys.get(key)?)));
        own.into_iter().chain(self.default.as_ref().map(|rules| (None, rules)))
    }
}

/// Whether the token is good at all: what a row must say besides its form.
pub(crate) fn check(key: &Key, row: &Document) -> Result<(), String> {
    let Kind::Access(place) = key.kind() else { return Ok(()) };
    let form = |error: serde_json::Error| error.to_string();
    match place {
        Access::Rules(..) => {
            let rules: Rules = row.to().map_err(form)?;
            match rules.allow.iter().find(|(name, rights)| {
                name.as_str() == ANONYMOUS && (rights.data == Right::Rw || rights.members == Right::Rw)
            }) {
                Some(_) => Err("who does not say who they are may at most read (ro)".to_owned()),
                None => rules.allow.keys().try_for_each(|name| subject(name)),
            }
        }
        Access::User(_) => {
            let user: User = row.to().map_err(form)?;
            let hash = |secret: &super::Secret| secret.0.starts_with("$argon2");
            match user.password.as_ref().is_none_or(hash) {
                true => Ok(()),
                false => Err("a password stands there as its argon2 hash: set it with `shoal user password`"
                    .to_owned()),
            }
        }
        Access::Group(_) => {
            let group: Group = row.to().map_err(form)?;
            group.members.iter().try_for_each(|name| person(name))
        }
        Access::Token(_) => {
            let token: Token = row.to().map_err(form)?;
            let hex = token.hash.0.len() == 64 && token.hash.0.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex {
                return Err(
                    "the hash of a token is 64 hexadecimal digits: make one with `shoal token create`"
                        .to_owned(),
                );
            }
            match token.owner.strip_prefix("agent ") {
                Some(namespace) => namespace.parse::<Namespace>().map(drop).map_err(|e| e.to_string()),
                None => person(&token.owner),
            }
        }
        Access::Review(_) => row.to::<super::Review>().map(drop).map_err(form),
    }
}

fn subject(name: &str) -> Result<(), String> {
    match name {
        EVERYBODY | ANONYMOUS => Ok(()),
        _ => match name.strip_prefix("agent ") {
            Some(namespace) => namespace.parse::<Namespace>().map(drop).map_err(|e| e.to_string()),
            None => person(name.strip_prefix('@').unwrap_or(name)),
        },
    }
}

fn person(name: &str) -> Result<(), String> {
    let key = format!("{ACCESS}/users/{name}");
    key.parse::<Key>().map(drop).map_err(|_| format!("{name:?} is no name of a user or a group"))
}

/// Whether the scope leaves anything of `right` over, for data or members.
pub(super) fn narrowed(scope: &Scope, namespace: &str, data: bool, right: Right) -> Right {
    if !scope.has(namespace) {
        return Right::None;
    }
    right.min(if data { scope.data } else { scope.members })
}
