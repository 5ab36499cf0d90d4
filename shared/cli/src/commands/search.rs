//! `shoal search`: hosts by an expression.
//!
//! A server is asked, page by page, and answers from its view; each page is of the revision at that moment, unless one was
//! asked for. Where there is no server, the database is read and the same search runs here.

use shoal_core::docs::HostDoc;
use shoal_core::{Hits, HostName, Revision, Rule, Unsure};
use shoal_store::StoreError;

use crate::args::Search;
use crate::failure::{Failure, Outcome};
use crate::out::plain;
use crate::session::Session;

/// How many hosts a page has.
const PAGE: usize = 1000;

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
    let found = all(session, &rule, args.revision.map(Revision)).await?;
    if let Some(one) = found.unsure.first() {
        let many = if found.unsure_total == 1 {
            "1 host".to_owned()
        } else {
            format!("{} hosts", found.unsure_total)
        };
        let said = format!(
            "note: the expression cannot be evaluated for {many}, which may be meant all the same, such as {}: {}",
            one.host, one.why
        );
        let _ = std::io::Write::write_all(&mut anstream::stderr(), format!("{said}\n").as_bytes());
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

async fn all(session: &Session, rule: &Rule, at: Option<Revision>) -> Outcome<Found> {
    let (mut found, mut after) = (Found::default(), None);
    loop {
        let expression = rule.text().to_owned();
        let search = shoal_store::Search { expression, at, after, limit: PAGE };
        let failed =
            |error: StoreError| Failure::Store { what: "the hosts were not searched".to_owned(), error };
        let Some(page) = session.store.search(&search).await.map_err(failed)? else { break };
        match found.take(page) {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
        session.out.say(|| format!("searching: {} hosts", found.hosts.len()));
    }
    let view = session.view(at.map(|at| at.0)).await?;
    let mut after = None;
    loop {
        match found.take(view.search(rule, after.as_ref(), PAGE)) {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}
