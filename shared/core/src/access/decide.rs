//! One question, one answer, and what decided it.

use std::fmt;

use super::index::narrowed;
use super::rows::{Review, Right, Rights, Rules};
use super::{ADMINS, ANONYMOUS, Denied, EVERYBODY, Index, Principal, Sort};
use crate::name::{is_host, is_namespace};
use crate::{ACCESS, APPROVALS, Document, FACTS, HOSTS, Key, PAUSES, Range, SCHEMAS};

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// To see it.
    Read,
    /// To change it.
    Write,
}

impl Verb {
    fn needs(self) -> Right {
        match self {
            Self::Read => Right::Ro,
            Self::Write => Right::Rw,
        }
    }

    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facet {
    /// The document and what stands beside it.
    Data,
    /// Who is in it.
    Members,
}

/// What a right is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The namespace: `hosts`, one of tags, or that of facts, schemas, …
    pub namespace: &'a str,
    /// The key in it; `None`: all that has no rule of its own.
    pub key: Option<&'a str>,
    /// Which part.
    pub facet: Facet,
}

impl<'a> Target<'a> {
    /// A whole namespace.
    #[must_use]
    pub fn namespace(namespace: &'a str) -> Self {
        Self { namespace, key: None, facet: Facet::Data }
    }

    /// What people write: `NAMESPACE/KEY`, `NAMESPACE/KEY/members`, `NAMESPACE/`; `None`: something below `access/`.
    ///
    /// # Errors
    /// What it is not.
    pub fn read(text: &'a str) -> Result<Option<Self>, String> {
        let (namespace, rest) =
            text.split_once('/').ok_or_else(|| format!("{text:?} is not NAMESPACE/KEY, nor NAMESPACE/"))?;
        if namespace == ACCESS {
            return Ok(None);
        }
        if !is_namespace(namespace) {
            return Err(format!("{namespace:?} is no namespace"));
        }
        if rest.is_empty() {
            return Ok(Some(Self::namespace(namespace)));
        }
        let (key, facet) = match rest.strip_suffix("/members") {
            Some(key) => (key, Facet::Members),
            None => (rest, Facet::Data),
        };
        if namespace == HOSTS && !is_host(key) {
            return Err(format!("{key:?} is no host's name as it is kept (lower case)"));
        }
        Ok(Some(Self { namespace, key: Some(key), facet }))
    }

    /// What a row belongs to, as rules see it; `None`: it is below `access/`, where there are no rules.
    ///
    /// Facts and schemas are keys of `facts` and `schemas` by the namespace that reports or publishes. A pause is about what it
    /// holds, and an approval about its agent's namespace.
    #[must_use]
    pub fn of(key: &'a Key) -> Option<Self> {
        let (namespace, rest) = key.as_str().split_once('/')?;
        let first = rest.split('/').next();
        let data = |namespace, key| Some(Self { namespace, key, facet: Facet::Data });
        match namespace {
            ACCESS => None,
            HOSTS => data(HOSTS, Some(rest)),
            FACTS | SCHEMAS => data(namespace, first),
            APPROVALS => data(first?, None),
            PAUSES => match rest.split_once('/') {
                Some(("host", host)) => data(HOSTS, Some(host)),
                Some(("agent", agent)) => data(agent, None),
                Some(("tag", tag)) => match tag.split_once('/') {
                    Some((namespace, key)) => data(namespace, Some(key)),
                    None => data(PAUSES, None),
                },
                _ => data(PAUSES, None),
            },
            _ => match rest.split_once("/members/") {
                Some((key, _)) => Some(Self { namespace, key: Some(key), facet: Facet::Members }),
                None => data(namespace, Some(rest)),
            },
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.facet {
            Facet::Data => "",
            Facet::Members => "the members of ",
        };
        match self.key {
            Some(key) => write!(f, "{what}{}/{key}", self.namespace),
            None => write!(f, "{what}{}/", self.namespace),
        }
    }
}

/// What decided, put into words only when somebody wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Being an administrator: the group, or where one has to be for that.
    Admin(Sort),
    /// An entry of a row: the key (`None`: of the namespace), whose entry, and what it gives.
    Entry {
        /// Of which namespace the rules are.
        namespace: String,
        /// Of which key in it.
        key: Option<String>,
        /// Whose entry.
        subject: String,
        /// What it gives.
        rights: Rights,
    },
    /// No row.
    Default,
    /// The scope of the token of this id.
    Scope(String),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(Sort::Local) => f.write_str("built-in: who can write the file administers"),
            Self::Admin(_) => write!(f, "access/groups/{ADMINS}: administrators may do everything"),
            Self::Entry { namespace, key, subject, rights: Rights { data, members } } => {
                let key = key.as_ref().map(|key| format!("/{key}")).unwrap_or_default();
                write!(f, "access/rules/{namespace}{key}: {subject} has data {data}, members {members}")
            }
            Self::Default => f.write_str(
                "built-in: without a rule, who says who they are reads, and only administrators write",
            ),
            Self::Scope(token) => write!(f, "access/tokens/{token}: the scope of the token"),
        }
    }
}

/// What an agent writes, whatever the rules say.
pub(super) const OWN: &str =
    "built-in: an agent writes its ledger, claims, reports, schema and facts, and what its manifest declares";

impl Index {
    /// Whether somebody may, and what decided it.
    ///
    /// # Errors
    /// The no, with what decided it.
    pub fn may(&self, who: &Principal, verb: Verb, target: Target<'_>) -> Result<By, Denied> {
        if matches!(who.sort, Sort::Agent(_)) && verb == Verb::Write {
            let hint = "an administrator may do it, or the agent's manifest may declare it".to_owned();
            return Err(self.denied(who, verb, target, OWN.to_owned(), hint));
        }
        let (right, by) = self.right(who, target);
        let narrow = narrowed(&who.scope, target.namespace, target.facet == Facet::Data, right);
        if narrow >= verb.needs() {
            return Ok(by);
        }
        if right >= verb.needs() {
            let by = By::Scope(who.token.clone().unwrap_or_default());
            let hint = match who.scope.has(target.namespace) {
                true => "use a token that is good for it, or ask for one".to_owned(),
                false => format!(
                    "use a token that is good for it, too (`shoal token create --namespace {}`), or one without namespaces",
                    target.namespace
                ),
            };
            return Err(self.denied(who, verb, target, by.to_string(), hint));
        }
        Err(self.denied(who, verb, target, by.to_string(), next(who, verb, target)))
    }

    /// What somebody may, before their token takes anything away.
    fn right(&self, who: &Principal, target: Target<'_>) -> (Right, By) {
        if self.is_admin(who) {
            return (Right::Rw, By::Admin(who.sort.clone()));
        }
        let of = |rights: Rights| if target.facet == Facet::Data { rights.data } else { rights.members };
        let area = self.areas.get(target.namespace);
        for (key, rules) in area.into_iter().flat_map(|area| area.about(target.key)) {
            if let Some((subject, rights)) = self.entry(rules, who) {
                let entry = By::Entry {
                    namespace: target.namespace.to_owned(),
                    key: key.map(str::to_owned),
                    subject: subject.to_owned(),
                    rights,
                };
                return (of(rights), entry);
            }
        }
        (if who.is_anonymous() { Right::None } else { Right::Ro }, By::Default)
    }

    /// Whether somebody may read, without the reason: what is asked of each of many rows.
    #[must_use]
    pub fn reads(&self, who: &Principal, target: Target<'_>) -> bool {
        let right = if self.is_admin(who) {
            Right::Rw
        } else {
            let area = self.areas.get(target.namespace);
            let mut rows = area.into_iter().flat_map(|area| area.about(target.key));
            let of = |rights: Rights| if target.facet == Facet::Data { rights.data } else { rights.members };
            match rows.find_map(|(_, rules)| self.entry(rules, who)) {
                Some((_, rights)) => of(rights),
                None if who.is_anonymous() => Right::None,
                None => Right::Ro,
            }
        };
        narrowed(&who.scope, target.namespace, target.facet == Facet::Data, right) >= Right::Ro
    }

    /// [`Index::may`] read, where a yes needs no reason: nothing is put into words for it.
    ///
    /// # Errors
    /// The no, with what decided it.
    pub fn must_read(&self, who: &Principal, target: Target<'_>) -> Result<(), Denied> {
        if self.reads(who, target) { Ok(()) } else { self.may(who, Verb::Read, target).map(drop) }
    }

    /// Whether somebody may read the row, also one below `access/`.
    #[must_use]
    pub fn reads_row(&self, who: &Principal, key: &Key) -> bool {
        match Target::of(key) {
            Some(target) => self.reads(who, target),
            None => self.administers(who).is_ok(),
        }
    }

    /// [`Index::reads_row`], with what decided it. A review is looked at for itself: see [`Index::may_read_review`].
    ///
    /// # Errors
    /// The no, with what decided it.
    pub fn may_read_key(&self, who: &Principal, key: &Key) -> Result<(), Denied> {
        match Target::of(key) {
            Some(target) => self.must_read(who, target),
            None if key.as_str().starts_with("access/reviews/") && !who.is_anonymous() => Ok(()),
            None => self.administers(who).map(drop),
        }
    }

    /// Whether somebody may see a review: who may read all that it is about.
    ///
    /// # Errors
    /// The no, without what the review is about.
    pub fn may_read_review(&self, who: &Principal, row: &Document) -> Result<(), Denied> {
        let Ok(review) = row.to::<Review>() else { return self.administers(who).map(drop) };
        if review.proposer == who.name && !who.is_anonymous() {
            return Ok(());
        }
        if review.changes.iter().all(|change| self.reads_row(who, &change.key)) {
            return Ok(());
        }
        let rule = "built-in: a proposal is shown to who may read all that it is about";
        Err(Denied::unnamed(who, "read a proposal that is about something kept from you", rule))
    }

    /// A review that somebody may see, as they may see it: without the rows that it rests on and they may not read; `None`: as it is.
    #[must_use]
    pub fn review_without(&self, who: &Principal, row: &Document) -> Option<Document> {
        let mut review = row.to::<Review>().ok()?;
        let all = review.ground.len();
        review.ground.retain(|key, _| self.reads_row(who, key));
        let nothing = |_| Document::from(serde_json::Value::Null);
        (review.ground.len() < all).then(|| Document::of(&review).unwrap_or_else(nothing))
    }

    /// A review that somebody writes back, with what [`Index::review_without`] left out of it for them; `None`: as it is.
    #[must_use]
    pub fn review_with(&self, who: &Principal, is: &Document, was: &Document) -> Option<Document> {
        let (mut is, was) = (is.to::<Review>().ok()?, was.to::<Review>().ok()?);
        let kept = was.ground.into_iter().filter(|(key, _)| !self.reads_row(who, key));
        let kept: Vec<_> = kept.filter(|(key, _)| !is.ground.contains_key(key)).collect();
        if kept.is_empty() {
            return None;
        }
        is.ground.extend(kept);
        Document::of(&is).ok()
    }

    /// Whether somebody may work as the agent of a namespace: claim its units, write its ledger, report.
    ///
    /// # Errors
    /// The no, with what decided it.
    pub fn may_work(&self, who: &Principal, namespace: &str, what: &str) -> Result<(), Denied> {
        let own = matches!(&who.sort, Sort::Agent(own) if own.as_str() == namespace);
        let admin = self.is_admin(who);
        let scope = who.scope.has(namespace) && who.scope.data == Right::Rw;
        if (own || admin) && scope {
            return Ok(());
        }
        let rule = match own || admin {
            true => By::Scope(who.token.clone().unwrap_or_default()).to_string(),
            false => format!("built-in: only the agent of {namespace} and administrators do that"),
        };
        let hint = format!("use a token of that agent: `shoal token create --agent {namespace}`");
        let denied = self.denied(who, Verb::Write, Target::namespace(namespace), rule, hint);
        Err(Denied { wanted: what.to_owned(), ..denied })
    }

    /// Whether somebody may read what concerns the agent of each namespace whose name begins so, whether there is one or not.
    ///
    /// # Errors
    /// The no, with what decided it.
    pub fn may_read_work(&self, who: &Principal, begin: &str) -> Result<(), Denied> {
        let target = Target::namespace(begin);
        // Any name that begins so may be one that the token is not good for.
        if who.scope.namespaces.is_some() {
            let by = By::Scope(who.token.clone().unwrap_or_default());
            return Err(whole(who, self.denied(who, Verb::Read, target, by.to_string(), String::new())));
        }
        self.must_read(who, target)?;
        for namespace in self.areas.keys().filter(|namespace| namespace.starts_with(begin)) {
            self.must_read(who, Target::namespace(namespace))?;
        }
        Ok(())
    }

    /// Whether nothing is kept from somebody but what is below `access/`: what most people, and all agents, are asked about
    /// once and not for each row.
    #[must_use]
    pub fn reads_everything(&self, who: &Principal) -> bool {
        self.areas.is_empty() && !who.is_anonymous() && who.scope.is_everything()
            || self.everything(who).is_ok()
    }

    /// Whether somebody may read and write below `access/`.
    ///
    /// # Errors
    /// The no, with what decided it.
    pub fn administers(&self, who: &Principal) -> Result<By, Denied> {
        let target = Target::namespace(ACCESS);
        if !self.is_admin(who) {
            let rule = format!("built-in: {ACCESS}/ is for administrators alone");
            let hint = format!("ask somebody of the group {ADMINS}");
            return Err(self.denied(who, Verb::Read, target, rule, hint));
        }
        match narrowed(&who.scope, ACCESS, true, Right::Rw) {
            Right::Rw => Ok(By::Admin(who.sort.clone())),
            _ => {
                let by = By::Scope(who.token.clone().unwrap_or_default());
                let hint = format!("use a token whose namespaces hold {ACCESS}, and which may write");
                Err(self.denied(who, Verb::Read, target, by.to_string(), hint))
            }
        }
    }

    /// Whether somebody may read all that a range holds, now and later: what could be in it and is not readable refuses the
    /// whole, whether it is there or not.
    ///
    /// What stands below `access/` is in no range that is wider than itself, but for administrators.
    ///
    /// # Errors
    /// The no, with what decided it.
    pub fn may_read(&self, who: &Principal, range: &Range) -> Result<(), Denied> {
        match range {
            Range::Key(key) => self.may_read_key(who, key),
            Range::Prefix(prefix) => match prefix.split_once('/') {
                // Of reviews, each is looked at for itself.
                Some((ACCESS, rest)) if rest.starts_with("reviews/") && !who.is_anonymous() => Ok(()),
                Some((ACCESS, _)) => self.administers(who).map(drop),
                Some((FACTS | SCHEMAS, rest)) => {
                    let namespace = prefix.split('/').next().unwrap_or_default();
                    self.all_of(who, namespace, rest.split_once('/').map(|(first, _)| first))
                }
                // Pauses and approvals are about any namespace.
                Some((PAUSES | APPROVALS, _)) | None => self.everything(who),
                Some((HOSTS, _)) => self.all_of(who, HOSTS, None),
                Some((namespace, rest)) => match rest.split_once("/members/") {
                    Some((key, _)) => {
                        let target = Target { namespace, key: Some(key), facet: Facet::Members };
                        self.must_read(who, target)
                    }
                    None => self.all_of(who, namespace, None),
                },
            },
            Range::All | Range::Naming(_) | Range::Concerning(_) => self.everything(who),
        }
    }

    /// All of a namespace, or of one key in it.
    pub(super) fn all_of(&self, who: &Principal, namespace: &str, key: Option<&str>) -> Result<(), Denied> {
        let keys = self.areas.get(namespace).into_iter().flat_map(|area| area.keys.keys());
        let keys = keys.map(String::as_str).filter(|_| key.is_none());
        for key in std::iter::once(key).chain(keys.map(Some)) {
            for facet in [Facet::Data, Facet::Members] {
                // Only tags have members.
                if facet == Facet::Data || !crate::RESERVED.contains(&namespace) {
                    self.must_read(who, Target { namespace, key, facet })?;
                }
            }
        }
        Ok(())
    }

    fn everything(&self, who: &Principal) -> Result<(), Denied> {
        // What no rule speaks of is read by everybody who says who they are, as far as their token goes: one for some namespaces is
        // not good for it, whatever they are called.
        let scope = &who.scope;
        let by = match scope.namespaces.is_some() || scope.data.min(scope.members) < Right::Ro {
            _ if who.is_anonymous() => Some(By::Default),
            true => Some(By::Scope(who.token.clone().unwrap_or_default())),
            false => None,
        };
        if let Some(by) = by {
            let (verb, target) = (Verb::Read, Target::namespace(HOSTS));
            return Err(whole(who, self.denied(who, verb, target, by.to_string(), next(who, verb, target))));
        }
        for namespace in self.areas.keys() {
            self.all_of(who, namespace, None)?;
        }
        Ok(())
    }

    /// The entry of a row that is about somebody.
    fn entry<'r>(&self, rules: &'r Rules, who: &Principal) -> Option<(&'r str, Rights)> {
        let find =
            |name: &str| rules.allow.get_key_value(name).map(|(name, rights)| (name.as_str(), *rights));
        if who.is_anonymous() {
            return find(ANONYMOUS);
        }
        if let Some(own) = find(&who.name) {
            return Some(own);
        }
        let mut best: Option<(&str, Rights)> = None;
        for group in self.groups(&who.name) {
            let named = rules.allow.iter().find(|(name, _)| name.strip_prefix('@') == Some(group));
            if let Some((name, rights)) = named {
                best = Some(match best {
                    Some((first, had)) if had.or(*rights) == had => (first, had),
                    Some((_, had)) => (name, had.or(*rights)),
                    None => (name, *rights),
                });
            }
        }
        best.or_else(|| find(EVERYBODY))
    }

    pub(super) fn denied(
        &self,
        who: &Principal,
        verb: Verb,
        target: Target<'_>,
        rule: String,
        hint: String,
    ) -> Denied {
        let wanted = format!("{} {target}", verb.as_str());
        Denied { who: who.name.clone(), wanted, rule, hint, unknown: who.is_anonymous() }
    }

    /// Whether a change of what the row belongs to needs a second person, and by which row.
    #[must_use]
    pub fn protected(&self, target: Target<'_>) -> Option<String> {
        let area = self.areas.get(target.namespace)?;
        let (key, _) = area
            .about(target.key)
            .find_map(|(key, rules)| rules.protected.map(|protected| (key, protected)))
            .filter(|(_, protected)| *protected)?;
        let key = key.map(|key| format!("/{key}")).unwrap_or_default();
        Some(format!("access/rules/{}{key}: protected", target.namespace))
    }
}

/// The no to everything: there is no namespace to be named.
fn whole(who: &Principal, denied: Denied) -> Denied {
    let hint = match who.is_anonymous() {
        true => denied.hint,
        false => "use a token without `--namespace` that reads data and members".to_owned(),
    };
    Denied { wanted: "read everything, which this takes".to_owned(), hint, ..denied }
}

fn next(who: &Principal, verb: Verb, target: Target<'_>) -> String {
    if who.is_anonymous() {
        return "say who you are: with a token (`shoal token create`), through the server's Unix socket, or with a certificate"
            .to_owned();
    }
    let Target { namespace, key, facet } = target;
    let key = key.map(|key| format!("/{key}")).unwrap_or_default();
    let right = verb.needs();
    let right = if facet == Facet::Data { format!("data:{right}") } else { format!("members:{right}") };
    format!("an administrator allows it with `shoal acl set {namespace}{key} '{}={right}'`", who.name)
}
