//! `shoal search`: hosts by an expression.
//!
//! A server is asked, page by page, and answers from its view; each page is of the revision at that moment, unless one was
//! asked for. Where there is no server, the database is read and the same search runs here.
//!
//! A field that a host does not have equals nothing, so a slip finds nobody and is no fault: where nobody is found, it is looked whether anybody has
//! the fields that were named.

use shoal_core::docs::HostDoc;
use shoal_core::{Hits, HostName, Revision, Rule, Unsure, View};
use shoal_store::StoreError;

use crate::args::Search;
use crate::failure::{Failure, Outcome};
use crate::out::plain;
use crate::session::Session;

/// How many hosts a page has.
const PAGE: usize = 1000;
/// How many fields are looked for where nobody is found.
const FIELDS: usize = 3;

/// Everything that was found.
#[derive(Default)]
struct Found {
    hosts: Vec<HostDoc>,
    unsure: Vec<Unsure>,
    unsure_total: usize,
}

impl Found {
    /// Takes a page; where the next one begins.
    fn take(&mut self, page: Hits) -> Option<HostName> {
        self.hosts.extend(page.items);
        self.unsure.extend(page.unsure);
        self.unsure_total += page.unsure_total;
        page.next
    }
}

pub(crate) async fn run(session: &mut Session, args: Search) -> Outcome {
    let rule = Rule::compile(&args.expression).map_err(|bad| Failure::Usage(bad.to_string()))?;
    session.out.begin("searching");
    let mut pages = Pages { at: args.revision.map(Revision), view: None };
    let found = pages.all(session, &rule).await?;
    if found.hosts.is_empty() && found.unsure_total == 0 {
        for field in pages.strange(session, &rule).await {
            note(&slip(rule.text(), &field));
        }
    }
    if let Some(one) = found.unsure.first() {
        let many = if found.unsure_total == 1 {
            "1 host".to_owned()
        } else {
            format!("{} hosts", found.unsure_total)
        };
        let said = format!(
            "the expression cannot be evaluated for {many}, which may be meant all the same, such as {}: {}",
            one.host, one.why
        );
        note(&said);
    }
    if args.names && session.out.is_text() {
        let names: String = found.hosts.iter().map(|host| format!("{}\n", host.host)).collect();
        return session.out.write(&names);
    }
    if args.names {
        let names: Vec<&HostName> = found.hosts.iter().map(|host| &host.host).collect();
        return session.out.print(&names, |_| String::new());
    }
    // What was asked for is shown.
    let fields: Vec<&str> = rule.reads().filter(|field| !field.starts_with('@')).collect();
    session.out.print(&found.hosts, |out| {
        let rows = found.hosts.iter().map(|host| {
            let value =
                |field: &&str| host.document.field(field).map(|value| plain(&value)).unwrap_or_default();
            let mut row = vec![
                host.host.to_string(),
                host.state.unwrap_or_default().to_string(),
                host.owner.clone().unwrap_or_default(),
                host.environment.clone().unwrap_or_default(),
            ];
            row.extend(fields.iter().map(value));
            row
        });
        let names: Vec<String> = fields.iter().map(|field| field.to_uppercase()).collect();
        let mut header = vec!["HOST", "STATE", "OWNER", "ENVIRONMENT"];
        header.extend(names.iter().map(String::as_str));
        out.table(&header, rows.collect(), "no host is meant")
    })
}

/// Says something beside the result.
fn note(said: &str) {
    let _ = std::io::Write::write_all(&mut anstream::stderr(), format!("note: {said}\n").as_bytes());
}

/// What may be meant by an expression that names a field which no host has.
fn slip(expression: &str, field: &str) -> String {
    let bare = expression.trim();
    let why = format!("no host has a field `{field}`");
    if bare.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        format!("{why}; by its name a host is found with an expression, such as name.startsWith(\"{bare}\")")
    } else {
        format!("{why}; if that is meant as text, it is quoted: \"{field}\"")
    }
}

/// Where the pages of a search come from.
struct Pages {
    at: Option<Revision>,
    /// The database, once it is known that the store cannot be asked.
    view: Option<View>,
}

impl Pages {
    async fn page(
        &mut self,
        session: &Session,
        rule: &Rule,
        after: Option<HostName>,
        limit: usize,
    ) -> Outcome<Hits> {
        if let Some(view) = &self.view {
            return Ok(view.search(rule, after.as_ref(), limit));
        }
        let expression = rule.text().to_owned();
        let search = shoal_store::Search { expression, at: self.at, after, limit };
        let failed =
            |error: StoreError| Failure::Store { what: "the hosts were not searched".to_owned(), error };
        if let Some(page) = session.store.search(&search).await.map_err(failed)? {
            return Ok(page);
        }
        let view = self.view.insert(session.view(self.at.map(|at| at.0)).await?);
        Ok(view.search(rule, search.after.as_ref(), limit))
    }

    async fn all(&mut self, session: &Session, rule: &Rule) -> Outcome<Found> {
        let (mut found, mut after) = (Found::default(), None);
        loop {
            match found.take(self.page(session, rule, after, PAGE).await?) {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
            session.out.say(|| format!("searching: {} hosts", found.hosts.len()));
        }
    }

    /// The fields that the expression names and no host has, as far as one page of looking shows: some milliseconds each, in a
    /// large fleet a tenth of a second.
    async fn strange(&mut self, session: &Session, rule: &Rule) -> Vec<String> {
        let mut strange = Vec::new();
        // What is no field of a document stands with an `@`, or is there always.
        let fields = rule.reads().filter(|field| !field.starts_with('@') && *field != "id");
        for field in fields.take(FIELDS) {
            // It is equal to itself wherever it is.
            let quoted = serde_json::Value::from(field).to_string();
            let Ok(has) = Rule::compile(&format!("host[{quoted}] == host[{quoted}]")) else { continue };
            // That nobody was found is known all the same.
            let Ok(page) = self.page(session, &has, None, 1).await else { continue };
            if page.items.is_empty() && page.unsure_total == 0 && page.next.is_none() {
                strange.push(field.to_owned());
            }
        }
        strange
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_meant_is_said() {
        let ams = slip("site == ams", "ams");
        assert_eq!(ams, "no host has a field `ams`; if that is meant as text, it is quoted: \"ams\"");
        for name in ["web1", "web1.example.com", " web-1 "] {
            let said = slip(name, "web1");
            assert!(said.ends_with(&format!("name.startsWith(\"{}\")", name.trim())), "{said}");
        }
    }
}
