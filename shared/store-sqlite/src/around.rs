//! The rows around one host, found by the tables that say who names whom: what is asked about one host costs that host, the rules there
//! are, and what contains it, not the fleet.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};
use shoal_core::{
    FACTS, HostName, Key, Kind, Member, Range, Revision, Row, Rule, SCHEMAS, Subject, TagName, View,
};
use shoal_store::{MAX_PAGE, Page, Query, Result, StoreError};

use crate::fault::Stop;
use crate::read::{head, key, page};

/// The rows as of `at`, in key order; none for a host that did not exist. Beside what [`View::around`] picks there may be rows that
/// say nothing of the host: a view of them answers alike.
pub(crate) fn around(connection: &Connection, host: &HostName, at: Option<Revision>) -> Result<Page, Stop> {
    let newest = head(connection)?.revision;
    let at = at.unwrap_or(newest);
    if at > newest {
        return Err(StoreError::Future { asked: at, newest }.into());
    }
    let mut found = Around { connection, at, rows: Vec::new() };
    found.read(Range::Key(Key::host(host)))?;
    if !found.rows.is_empty() {
        found.read(Range::Prefix(format!("{SCHEMAS}/")))?;
        found.facts(host)?;
        found.rules(host)?;
        found.read(Range::Naming(Member::host(host)))?;
        found.tags()?;
    }
    let mut rows = found.rows;
    rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    rows.dedup_by(|a, b| a.key == b.key);
    Ok(Page { at, rows, next: None })
}

struct Around<'c> {
    connection: &'c Connection,
    at: Revision,
    rows: Vec<Row>,
}

impl Around<'_> {
    /// All rows of a range.
    fn all(&self, range: Range) -> Result<Vec<Row>, Stop> {
        let mut query = Query { at: Some(self.at), ..Query::new(range) };
        let mut all = Vec::new();
        loop {
            let Page { rows, next, .. } = page(self.connection, &query, MAX_PAGE)?;
            all.extend(rows);
            match next {
                Some(next) => query.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    fn read(&mut self, range: Range) -> Result<(), Stop> {
        let rows = self.all(range)?;
        self.rows.extend(rows);
        Ok(())
    }

    /// Its facts, namespace by namespace: one look each.
    fn facts(&mut self, host: &HostName) -> Result<(), Stop> {
        let mut from = format!("{FACTS}/");
        loop {
            let sql = "SELECT key FROM versions WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT 1";
            let mut sql = self.connection.prepare_cached(sql)?;
            // '0' comes right after '/'.
            let next = sql.query_row(params![from, format!("{FACTS}0")], |row| row.get::<_, String>(0));
            let Some(next) = next.optional()? else { return Ok(()) };
            let Kind::Fact(namespace, _) = key(&next)?.kind() else { return Ok(()) };
            if let Ok(fact) = Key::fact(&namespace, host.as_str()) {
                self.read(Range::Key(fact))?;
            }
            from = format!("{FACTS}/{namespace}0");
        }
    }

    /// The rules that select it, or that cannot be evaluated for it.
    fn rules(&mut self, host: &HostName) -> Result<(), Stop> {
        let mut view = View::new();
        self.rows.iter().cloned().for_each(|row| view.load(row));
        view.loaded(self.at);
        let Some(of) = view.host(host.as_str()) else { return Ok(()) };
        let subject = Subject::new(of, view.facts(host.as_str()));
        // ';' comes right after ':'.
        let sql = "SELECT member, key FROM naming WHERE member >= 'select:' AND member < 'select;' ORDER BY member, key";
        let mut sql = self.connection.prepare_cached(sql)?;
        let mut names = sql.query([])?;
        let (mut rule, mut counts) = (String::new(), false);
        while let Some(row) = names.next()? {
            let member = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if member != rule {
                member.clone_into(&mut rule);
                let text = member.trim_start_matches("select:").trim();
                counts = Rule::compile(text).is_ok_and(|rule| rule.judge(&subject) != Ok(false));
            }
            if counts {
                let name = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
                let rows = self.all(Range::Key(key(name)?))?;
                self.rows.extend(rows);
            }
        }
        Ok(())
    }

    /// The tags of the member rows that were found, and those that nest them, through whatever.
    fn tags(&mut self) -> Result<(), Stop> {
        let holder = |row: &Row| match row.key.kind() {
            Kind::Member(tag, member) => Some((tag, member)),
            _ => None,
        };
        let mut open: Vec<TagName> =
            self.rows.iter().filter_map(|row| holder(row).map(|(tag, _)| tag)).collect();
        let mut seen = BTreeSet::new();
        while let Some(tag) = open.pop() {
            if !seen.insert(tag.clone()) {
                continue;
            }
            self.read(Range::Key(Key::tag(&tag)))?;
            // As tags of its own namespace write it, and as others do.
            for member in [Member::nested(&tag, tag.namespace()), Member::nested(&tag, "")] {
                for row in self.all(Range::Naming(member))? {
                    let Some((parent, member)) = holder(&row) else { continue };
                    // `@web` is another tag in another namespace.
                    if member.as_tag(parent.namespace()).as_ref() == Some(&tag) {
                        open.push(parent);
                        self.rows.push(row);
                    }
                }
            }
        }
        Ok(())
    }
}
