//! A whole commit: every row that it would write, those that follow from others included.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{By, OWN};
use super::rows::{Manifest, Review, ReviewState, Right, Scope};
use super::sessions::session;
use super::{Denied, Facet, Index, Principal, Sort, Target, Verb};
use crate::key::Access;
use crate::{
    ACCESS, Change, Document, FACTS, HOSTS, HostRecord, Key, Kind, Lifecycle, Member, MemberKind, Namespace,
    Pre, Revision, SCHEMAS, TagName, View,
};

/// What a commit has to carry, because of who makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// What must still be so when it happens, besides what it rests on anyway.
    pub pre: Vec<Pre>,
    /// Whose change it is, if not that of who sends it: a reviewed one is its proposer's.
    pub author: Option<String>,
}

impl Index {
    /// Whether somebody may make this commit, as of the view before it.
    ///
    /// * Each row needs the right to write what it belongs to. Facts of a host or tag that goes, or is renamed, go with it.
    /// * An agent may write its own facts and schema, and beyond that what its manifest declares (`writes` in its schema's
    ///   row), as far as its token goes. It cannot declare more by itself.
    /// * Rows below `access/` are for administrators, but reviews: anybody proposes what they could write.
    /// * Who writes a member of a tag must be able to read what it names ([`Index::may_name`]).
    /// * What is protected is written by approving a review: by a person who did not propose it, and may write it.
    ///
    /// # Errors
    /// The first row that is refused, with what refuses it.
    pub fn judge(&self, who: &Principal, view: &View, changes: &[Change]) -> Result<Judged, Denied> {
        if who.is_anonymous() {
            let rule = "built-in: who does not say who they are writes nothing".to_owned();
            let target =
                changes.first().and_then(|c| Target::of(&c.key)).unwrap_or(Target::namespace(ACCESS));
            let hint =
                "say who you are: with a token (`shoal token create`), or through the server's Unix socket"
                    .to_owned();
            return Err(self.denied(who, Verb::Write, target, rule, hint));
        }
        let review = self.review(who, view, changes)?;
        if who.sort == Sort::Local && !self.protects {
            return Ok(review.unwrap_or_default());
        }
        let rows = Rows::of(who, view, changes);
        for change in changes {
            self.change(who, &rows, change, review.is_some())?;
        }
        Ok(review.unwrap_or_default())
    }

    fn change(
        &self,
        who: &Principal,
        rows: &Rows<'_>,
        change: &Change,
        reviewed: bool,
    ) -> Result<(), Denied> {
        let Some(target) = Target::of(&change.key) else {
            return match change.key.kind() {
                Kind::Access(Access::Review(_)) => Ok(()),
                _ => self
                    .administers(who)
                    .map(drop)
                    .map_err(|denied| Denied { wanted: format!("write {}", change.key), ..denied }),
            };
        };
        if rows.follows(change) {
            return Ok(());
        }
        let may = match &who.sort {
            Sort::Agent(namespace) => rows.of_agent(who, namespace, change).map_err(|rule| {
                let hint = "an administrator may do it; a manifest declares what an agent writes".to_owned();
                self.denied(who, Verb::Write, target, rule, hint)
            }),
            _ => self.may(who, Verb::Write, target).map(drop),
        };
        may.map_err(|denied| if self.reads(who, target) { denied } else { kept(denied) })?;
        if matches!(change.key.kind(), Kind::Host(_) | Kind::Tag(_) | Kind::Member(..)) || held(&change.key) {
            self.renamed(who, change, target)?;
            self.names(who, rows.view, change, &rows.tags)?;
            self.nests_protected(who, change)?;
            if let Some(rule) = self.protected(target).filter(|_| !reviewed) {
                let hint =
                    "propose it with `shoal review propose`, and let somebody else approve it".to_owned();
                return Err(self.denied(who, Verb::Write, target, rule, hint));
            }
        }
        Ok(())
    }

    /// What has a rule of its own would leave it behind with its name.
    fn renamed(&self, who: &Principal, change: &Change, target: Target<'_>) -> Result<(), Denied> {
        let moves = change.value.is_none() && change.moved.is_some() && target.facet == Facet::Data;
        let ruled = target
            .key
            .is_some_and(|key| self.areas.get(target.namespace).is_some_and(|a| a.keys.contains_key(key)));
        if !moves || !ruled || self.administers(who).is_ok() {
            return Ok(());
        }
        let rule = format!("access/rules/{target}: it has a rule of its own, which stays with the old name");
        let hint = "an administrator renames it, and the rule".to_owned();
        let wanted = format!("rename {target}");
        Err(Denied { wanted, ..self.denied(who, Verb::Write, target, rule, hint) })
    }

    /// What the commit says of reviews. An answer: it approves one, and is exactly what was proposed.
    fn review(&self, who: &Principal, view: &View, changes: &[Change]) -> Result<Option<Judged>, Denied> {
        let mut approves = None;
        for change in changes {
            if !change.key.as_str().starts_with("access/reviews/") {
                continue;
            }
            let refuse = |wanted: &str, rule: &str, hint: &str| Denied {
                who: who.name.clone(),
                wanted: format!("{wanted} {}", change.key),
                rule: rule.to_owned(),
                hint: hint.to_owned(),
                unknown: false,
            };
            let read = |row: &Document| row.to::<Review>().ok();
            if who.scope.data.max(who.scope.members) < Right::Rw {
                let by = By::Scope(who.token.clone().unwrap_or_default()).to_string();
                return Err(refuse("decide on", &by, "use a token that may write what it is about"));
            }
            let was = view.plain_row(&change.key).and_then(|row| read(&row.document));
            let is = change.value.as_ref().and_then(read);
            match (was, is) {
                (None, Some(is)) => self.opens(who, view, &is, refuse)?,
                (Some(was), Some(is)) => {
                    let same =
                        Review { state: was.state, reviewer: was.reviewer.clone(), ..is.clone() } == was;
                    let decided = was.state == ReviewState::Open && is.state != ReviewState::Open;
                    if !same || !decided || is.reviewer.as_deref() != Some(&who.name) {
                        let rule = "built-in: an open proposal is approved or rejected as it is, under one's own name";
                        return Err(refuse("change", rule, "look at it again: `shoal review show`"));
                    }
                    if is.state == ReviewState::Approved {
                        if approves.is_some() {
                            return Err(refuse(
                                "approve",
                                "built-in: one proposal a commit",
                                "approve one after the other",
                            ));
                        }
                        if !matches!(who.sort, Sort::Person | Sort::Local) || was.proposer == who.name {
                            let rule = match was.proposer == who.name {
                                true => format!("built-in: it is {}'s own proposal", was.proposer),
                                false => format!("built-in: a person approves, and {} is none", who.name),
                            };
                            return Err(refuse("approve", &rule, "let another person approve it"));
                        }
                        // All of it, also what stands already and of which the commit has no row.
                        self.proposes(who, view, &was.changes)?;
                        approves = Some((change.key.clone(), was, refuse("approve", "", "")));
                    } else if was.proposer != who.name {
                        self.proposes(who, view, &was.changes)?;
                    }
                }
                (Some(_), None) if self.administers(who).is_ok() => {}
                _ => {
                    return Err(refuse(
                        "delete",
                        "built-in: what was proposed stays, for the record",
                        "reject it",
                    ));
                }
            }
        }
        let Some((key, review, no)) = approves else { return Ok(None) };
        approved(view, changes, &key, review, no, |key| self.reads_row(who, key)).map(Some)
    }

    /// Whether a proposal may be made; `refuse` has it in words.
    fn opens(
        &self,
        who: &Principal,
        view: &View,
        is: &Review,
        refuse: impl Fn(&str, &str, &str) -> Denied,
    ) -> Result<(), Denied> {
        if is.proposer != who.name || is.state != ReviewState::Open || is.reviewer.is_some() {
            return Err(refuse("propose", "built-in: a proposal is open, and its proposer's own", "say so"));
        }
        if is.changes.is_empty() || !matches!(who.sort, Sort::Person | Sort::Local) {
            return Err(refuse("propose", "built-in: a person proposes, and something", "propose a change"));
        }
        let stands = |key: &Key| view.revision_of(key).unwrap_or_default();
        let seen = |change: &Change| is.ground.get(&change.key) == Some(&stands(&change.key));
        if !is.changes.iter().all(seen) {
            let rule = "built-in: a proposal has for ground each row that it changes, as it stands";
            return Err(refuse("propose", rule, "read the rows again, and propose what follows"));
        }
        // Else whether it moved would be told to who approves.
        if !is.ground.keys().all(|key| self.reads_row(who, key)) {
            let rule = "built-in: a proposal rests on what its proposer may read";
            return Err(refuse("propose", rule, "leave what is kept from you out of its ground"));
        }
        self.proposes(who, view, &is.changes)
    }

    /// Whether somebody may write all of it, if it is reviewed.
    fn proposes(&self, who: &Principal, view: &View, changes: &[Change]) -> Result<(), Denied> {
        let rows = Rows::of(who, view, changes);
        for change in changes {
            if let Kind::Access(Access::Review(_)) = change.key.kind() {
                let rule = "built-in: a proposal is of hosts, tags and other rows".to_owned();
                let hint = "leave the review out of what is proposed".to_owned();
                return Err(self.denied(who, Verb::Write, Target::namespace(ACCESS), rule, hint));
            }
            self.change(who, &rows, change, true)?;
        }
        Ok(())
    }
}

/// The ground has not moved since, and the commit is what was proposed: neither more nor less. What moved is named if `reads` that.
fn approved(
    view: &View,
    changes: &[Change],
    key: &Key,
    review: Review,
    no: Denied,
    reads: impl Fn(&Key) -> bool,
) -> Result<Judged, Denied> {
    let (mut moved, mut kept): (Vec<String>, bool) = (Vec::new(), false);
    for (key, seen) in &review.ground {
        let now = view.revision_of(key).unwrap_or_default();
        if now != *seen && !reads(key) {
            kept = true;
        } else if now != *seen {
            moved.push(match (seen.0, now.0) {
                (_, 0) => format!("{key} is gone"),
                (0, now) => format!("{key} was made in revision {now}"),
                (seen, now) => format!("{key} was at revision {seen} and is at {now}"),
            });
        }
    }
    // Nor how much it is.
    if kept {
        moved.push("something that is kept from you".to_owned());
    }
    if !moved.is_empty() {
        let more = moved.len().saturating_sub(MOVED);
        moved.truncate(MOVED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let rule = format!(
            "built-in: what it rests on has changed since it was proposed: {}{more}",
            moved.join(", ")
        );
        let hint = "look at it again, reject it and propose it anew (`shoal review propose`)".to_owned();
        return Err(Denied { rule, hint, ..no });
    }
    let stands = |change: &Change| change.moved.is_none() && view.row(&change.key) == change.value;
    // Sessions end with what they rest on, whoever began them since.
    let follows = |change: &Change| {
        change.value.is_none()
            && change.key.namespace() == ACCESS
            && session(view.row(&change.key).as_ref()).is_some()
    };
    let others = || changes.iter().filter(|change| change.key != *key && !follows(change));
    let proposed = |change: &Change| review.changes.iter().any(|one| one == change);
    let done = |change: &Change| stands(change) || others().any(|one| one == change);
    if !others().all(proposed) || !review.changes.iter().all(done) {
        let rule = "built-in: what is approved is exactly what was proposed".to_owned();
        let hint =
            "approve it with `shoal review approve`, and change other things in other commits".to_owned();
        return Err(Denied { rule, hint, ..no });
    }
    let pre = review.ground.iter().map(|(key, seen)| match *seen {
        Revision(0) => Pre::Absent(key.clone()),
        seen => Pre::At(key.clone(), seen),
    });
    Ok(Judged { pre: pre.collect(), author: Some(review.proposer) })
}

/// The most rows that a refusal names.
const MOVED: usize = 5;

/// What the rows of one commit are seen with.
struct Rows<'a> {
    /// Hosts and tags that go or are renamed.
    gone: BTreeSet<Key>,
    /// Hosts and tags that are renamed: the old ones by the new.
    renamed: BTreeMap<Key, Key>,
    /// What tags that are renamed were called, by their new names.
    tags: BTreeMap<TagName, TagName>,
    /// What the agent's manifest declares, as far as its token goes.
    own: Manifest,
    /// In which states hosts are from then on, where an agent may write members.
    states: BTreeMap<Key, Option<Lifecycle>>,
    view: &'a View,
}

impl<'a> Rows<'a> {
    fn of(who: &Principal, view: &'a View, changes: &[Change]) -> Self {
        let gone = gone(changes);
        let renamed = renamed(view, changes, &gone);
        let own = manifest(who, view);
        let states = if own.members.is_empty() { BTreeMap::new() } else { states(changes) };
        Self { gone, renamed, tags: tags(changes), own, states, view }
    }

    /// Whether it only follows from something else in the commit: what was known of a host or tag goes with it, or along to its new
    /// name, as it is, and so does its pause. What a row says of where it comes from is no more than what the host or tag itself does.
    fn follows(&self, change: &Change) -> bool {
        let Some((place, about)) = about(&change.key) else { return false };
        let Some(other) = &change.moved else {
            // A pause stays until somebody resumes it.
            return change.value.is_none() && place.starts_with("facts/") && self.gone.contains(&about);
        };
        let Some((_, end)) = self::about(other).filter(|(at, _)| *at == place) else { return false };
        match &change.value {
            None => self.renamed.get(&end) == Some(&about),
            Some(_) => self.renamed.get(&about) == Some(&end) && self.view.row(other) == change.value,
        }
    }

    fn of_agent(&self, who: &Principal, namespace: &Namespace, change: &Change) -> Result<(), String> {
        let within = |area: &str| match who.scope.has(area) {
            true => Ok(()),
            false => Err(format!(
                "access/tokens/{}: the scope of the token",
                who.token.as_deref().unwrap_or_default()
            )),
        };
        let own = OWN;
        match change.key.kind() {
            Kind::Fact(of, _) if of == *namespace || self.own.facts.contains(&of) => within(FACTS),
            Kind::Schema(of) if of == *namespace => {
                within(SCHEMAS)?;
                let writes = |row: Option<&Document>| declared(row).unwrap_or_default();
                let was = self.view.schema(namespace).map(|row| &row.document);
                match writes(change.value.as_ref()).is_within(&writes(was)) {
                    true => Ok(()),
                    false => Err(format!(
                        "schemas/{namespace}: an agent does not widen what its own manifest lets it write"
                    )),
                }
            }
            Kind::Host(host) => {
                within(HOSTS)?;
                let was = self.view.row(&change.key);
                if self.own.makes_hosts && makes(was.as_ref(), change.value.as_ref()) {
                    return Ok(());
                }
                let fields = was.as_ref().zip(change.value.as_ref()).and_then(|(was, is)| differing(was, is));
                let Some(fields) = fields else {
                    return Err(format!("{own}; {host} would be made or deleted"));
                };
                match fields.iter().find(|field| !self.own.host_fields.contains(field.as_str())) {
                    None => Ok(()),
                    Some(field) => Err(format!(
                        "schemas/{namespace}: its manifest does not declare the field {field:?} of hosts"
                    )),
                }
            }
            Kind::Member(tag, member) => {
                within(tag.namespace())?;
                self.member_of_agent(&tag, &member, change)
                    .map_err(|rule| format!("schemas/{namespace}: its manifest {rule}"))
            }
            _ => Err(own.to_owned()),
        }
    }

    /// Who may say what an agent does may be somebody else than who may write the tags: so it has hosts come and go, and changes nothing else of
    /// what people put there.
    fn member_of_agent(&self, tag: &TagName, member: &Member, change: &Change) -> Result<(), String> {
        if !self.own.members.iter().any(|namespace| namespace.as_str() == tag.namespace()) {
            return Err(format!("does not declare the members of {:?}", tag.namespace()));
        }
        let MemberKind::Host(host) = member.kind() else {
            return Err(format!("is about members that are hosts, and {member} is none"));
        };
        if change.value.is_none() && !self.is_retired(host) {
            return Err(format!("lets it take out who is retired, and {host} is not"));
        }
        Ok(())
    }

    /// Whether a host is retired once the commit is done.
    fn is_retired(&self, host: &str) -> bool {
        let state = match self.states.get(format!("{HOSTS}/{host}").as_str()) {
            Some(state) => *state,
            None => self.view.host(host).map(|host| host.state),
        };
        state == Some(Lifecycle::Retired)
    }
}

/// The states in which hosts are that a commit writes.
fn states(changes: &[Change]) -> BTreeMap<Key, Option<Lifecycle>> {
    let state = |row: &Document| row.to::<HostRecord>().ok().map(|record| record.state);
    let hosts = changes.iter().filter(|change| matches!(change.key.kind(), Kind::Host(_)));
    hosts.map(|change| (change.key.clone(), change.value.as_ref().and_then(state))).collect()
}

/// Whether a host is made: where nothing stands, or anew where one is retired. What is asked for is no machine yet.
fn makes(was: Option<&Document>, is: Option<&Document>) -> bool {
    let Some(is) = is.and_then(|is| is.to::<HostRecord>().ok()) else { return false };
    let free = match was {
        None => true,
        Some(was) => {
            was.to::<HostRecord>().is_ok_and(|was| was.state == Lifecycle::Retired && was.id == is.id)
        }
    };
    free && is.state == Lifecycle::Requested
}

/// The fields in which two rows of a host differ; `None`: in what no manifest can declare.
fn differing(was: &Document, is: &Document) -> Option<BTreeSet<String>> {
    let (was, is): (HostRecord, HostRecord) = (was.to().ok()?, is.to().ok()?);
    let head = |r: &HostRecord| (r.id.clone(), r.owner.clone(), r.environment.clone(), r.expires);
    if head(&was) != head(&is) {
        return None;
    }
    let mut fields: BTreeSet<String> = BTreeSet::new();
    if was.state != is.state {
        fields.insert("state".to_owned());
    }
    for name in was.document.fields().into_iter().chain(is.document.fields()).map(|(name, _)| name) {
        if was.document.raw(&name) != is.document.raw(&name) {
            fields.insert(name.into_owned());
        }
    }
    Some(fields)
}

/// What a schema's row declares that its agent writes.
fn declared(row: Option<&Document>) -> Option<Manifest> {
    serde_json::from_str(row?.raw("writes")?).ok()
}

fn manifest(who: &Principal, view: &View) -> Manifest {
    let Sort::Agent(namespace) = &who.sort else { return Manifest::default() };
    let whole = declared(view.schema(namespace).map(|row| &row.document)).unwrap_or_default();
    let Scope { writes, .. } = &who.scope;
    writes.as_ref().map_or_else(|| whole.clone(), |narrow| whole.and(narrow))
}

/// The no to what somebody may not even read: what it is, and which rule is about it, would tell that it follows from what they do.
fn kept(denied: Denied) -> Denied {
    Denied {
        wanted: "write something that follows from this, and is kept from you".to_owned(),
        rule: "built-in: a write takes the right to all that follows from it".to_owned(),
        hint: "an administrator may do it, and sees what it is".to_owned(),
        ..denied
    }
}

/// Whether it is the pause of a host or a tag. To stop an agent is nobody made to wait.
fn held(key: &Key) -> bool {
    matches!(key.kind(), Kind::Pause(_)) && !key.as_str().starts_with("pauses/agent/")
}

/// Of facts and of the pause of a host or tag: which ones, and of what.
fn about(key: &Key) -> Option<(&str, Key)> {
    let text = key.as_str();
    let (place, of) = match key.kind() {
        Kind::Fact(..) => {
            let at = text.match_indices('/').nth(1)?.0 + 1;
            let of = &text[at..];
            (&text[..at], if of.contains('/') { of.to_owned() } else { format!("{HOSTS}/{of}") })
        }
        Kind::Pause(_) => match text.strip_prefix("pauses/host/") {
            Some(host) => ("pauses/host/", format!("{HOSTS}/{host}")),
            None => ("pauses/tag/", text.strip_prefix("pauses/tag/")?.to_owned()),
        },
        _ => return None,
    };
    Some((place, of.parse().ok()?))
}

/// What tags that are renamed were called, by their new names.
fn tags(changes: &[Change]) -> BTreeMap<TagName, TagName> {
    let tag = |key: &Key| if let Kind::Tag(tag) = key.kind() { Some(tag) } else { None };
    let moves = changes.iter().filter(|change| change.value.is_some());
    moves.filter_map(|change| Some((tag(&change.key)?, tag(change.moved.as_ref()?)?))).collect()
}

/// The hosts and tags that are renamed to where nothing stood, as both ends say: the old names by the new.
fn renamed(view: &View, changes: &[Change], gone: &BTreeSet<Key>) -> BTreeMap<Key, Key> {
    let left: BTreeMap<&Key, &Key> = changes
        .iter()
        .filter(|change| gone.contains(&change.key))
        .filter_map(|change| Some((&change.key, change.moved.as_ref()?)))
        .collect();
    let alike = |from: &Key, to: &Key| match (from.kind(), to.kind()) {
        (Kind::Host(_), Kind::Host(_)) => true,
        (Kind::Tag(from), Kind::Tag(to)) => from.namespace() == to.namespace(),
        _ => false,
    };
    let came = |change: &Change| {
        let (to, from) = (&change.key, change.moved.as_ref().filter(|_| change.value.is_some())?);
        let new = alike(from, to) && left.get(from) == Some(&to) && view.revision_of(to).is_none();
        new.then(|| (to.clone(), from.clone()))
    };
    changes.iter().filter_map(came).collect()
}

/// The hosts and tags that go, or are renamed.
fn gone(changes: &[Change]) -> BTreeSet<Key> {
    let goes = |change: &&Change| {
        change.value.is_none() && matches!(change.key.kind(), Kind::Host(_) | Kind::Tag(_))
    };
    changes.iter().filter(goes).map(|change| change.key.clone()).collect()
}
