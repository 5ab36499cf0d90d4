//! `shoal export`: the database as documents that `apply -f` takes, or as the history of a git repository.
//!
//! The rows are read page by page, all of one revision, and written as they come: the largest tag with its members is what
//! is in memory at most. What the database writes by itself (`revision`) is left out, so that what is exported can be
//! applied anywhere. Approvals are left out unless they are asked for: they answer what was held at a moment.

mod git;
mod tree;

use serde::Serialize;
use serde_json::{Value, json};
use shoal_core::codec::{self, Format};
use shoal_core::docs::{HostDoc, TagDoc};
use shoal_core::{Key, Kind, Member, RESERVED, Range, Revision, Row, TagName, TagRecord};
use shoal_hostdb::history;
use shoal_store::Query;

use crate::args::{Export, Output};
use crate::failure::{Failure, Outcome};
use crate::names::Name;
use crate::session::Session;

/// How much text is gathered before it is written.
const PIECE: usize = 64 << 10;

pub(crate) async fn run(session: &mut Session, args: Export) -> Outcome {
    session.out.begin("exporting");
    if let Some(dir) = &args.git {
        return git::run(session, dir, args.revision.map(Revision)).await;
    }
    let mut at = args.revision.map(Revision);
    let mut sink =
        Sink { json: session.out.format() == Output::Json, begun: false, text: String::new(), written: 0 };
    if args.names.is_empty() {
        group(session, &[Range::All], &mut at, &mut sink).await?;
    }
    for name in &args.names {
        let before = sink.written;
        group(session, &ranges(name)?, &mut at, &mut sink).await?;
        if sink.written == before {
            return Err(Failure::Missing(format!(
                "there is nothing at {name}; `shoal get` lists what there is"
            )));
        }
    }
    sink.end(session)
}

/// Writes these rows, which belong together, as of `at` (`None`: now, and that is `at` from then on).
async fn group(
    session: &mut Session,
    ranges: &[Range],
    at: &mut Option<Revision>,
    sink: &mut Sink,
) -> Outcome {
    let mut tags = Tags::default();
    for range in ranges {
        let mut query = Query { at: *at, ..Query::new(range.clone()) };
        loop {
            let page = session.store.read(&query).await.map_err(Failure::reading("the database"))?;
            sink.begin(page.at);
            (*at, query.at) = (Some(page.at), Some(page.at));
            for row in page.rows {
                for tag in tags.until(row.key.as_str()) {
                    sink.document(session, &tag)?;
                }
                match row.key.kind() {
                    Kind::Approval(..) | Kind::Access(_) if *range == Range::All => {}
                    Kind::Tag(tag) => tags.open(tag, &row)?,
                    Kind::Member(tag, member) => tags.member(&tag, member, &row)?,
                    Kind::Host(_) => sink.document(session, &host(&row)?)?,
                    _ => sink.document(session, &other(&row))?,
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    for tag in tags.rest() {
        sink.document(session, &tag)?;
    }
    Ok(())
}

/// The rows of a name.
fn ranges(name: &str) -> Outcome<Vec<Range>> {
    let area = name.strip_suffix('/').unwrap_or(name);
    if name.ends_with('/') || RESERVED.contains(&area) {
        return Ok(vec![Range::Prefix(format!("{area}/"))]);
    }
    let Name(key) = name.parse().map_err(|e: shoal_core::BadName| Failure::Usage(e.to_string()))?;
    if let Kind::Member(tag, _) = key.kind() {
        return Err(Failure::Usage(format!("a member is a part of its tag: export {tag}")));
    }
    Ok(history::ranges_of(&key))
}

/// What is written, piece by piece.
struct Sink {
    json: bool,
    begun: bool,
    text: String,
    written: u64,
}

impl Sink {
    /// Says what follows, once.
    fn begin(&mut self, at: Revision) {
        if !self.json && !std::mem::replace(&mut self.begun, true) {
            self.text += &format!("# revision {at} of the database; `shoal apply -f` takes it back\n");
        }
    }

    fn document(&mut self, session: &mut Session, value: &Value) -> Outcome {
        let format = if self.json { Format::Json } else { Format::Yaml };
        let text = codec::write(value, format)
            .map_err(|e| Failure::Other(anyhow::anyhow!("cannot write a document: {e}")))?;
        self.text += match (self.json, self.written) {
            (true, 0) => "[\n",
            (true, _) => ",\n",
            (false, 0) => "",
            (false, _) => "---\n",
        };
        self.text += if self.json { text.trim_end() } else { &text };
        self.written += 1;
        if self.written.is_multiple_of(1000) {
            session.out.say(|| format!("exporting: {} documents", self.written));
        }
        if self.text.len() >= PIECE { self.flush(session) } else { Ok(()) }
    }

    fn flush(&mut self, session: &mut Session) -> Outcome {
        session.out.write(&std::mem::take(&mut self.text))
    }

    fn end(&mut self, session: &mut Session) -> Outcome {
        if self.json {
            self.text += if self.written == 0 { "[]\n" } else { "\n]\n" };
        }
        self.flush(session)
    }
}

/// Tags whose members are still to come. In the order of keys, `dns/a-b` with its members stands between `dns/a` and the
/// members of `dns/a`; what waits are tags of which each is the beginning of the next one's name.
#[derive(Default)]
struct Tags(Vec<(TagName, TagDoc)>);

impl Tags {
    fn open(&mut self, tag: TagName, row: &Row) -> Outcome {
        let record: TagRecord = record(row)?;
        self.0.push((
            tag.clone(),
            TagDoc { revision: None, ..TagDoc::of(tag, record, Vec::new(), row.revision) },
        ));
        Ok(())
    }

    fn member(&mut self, tag: &TagName, member: Member, row: &Row) -> Outcome {
        match self.0.iter_mut().rev().find(|(open, _)| open == tag) {
            Some((_, doc)) => doc.members.get_or_insert_default().push(member),
            None => {
                let (key, revision) = (&row.key, row.revision);
                return Err(Failure::Other(anyhow::anyhow!(
                    "the row {key} (revision {revision}) is a member of a tag that does not exist; `shoal database verify` says more"
                )));
            }
        }
        Ok(())
    }

    /// The tags of which nothing more comes once this key has come.
    fn until(&mut self, key: &str) -> Vec<Value> {
        let mut done = Vec::new();
        while let Some((tag, _)) = self.0.last() {
            // `0` follows `/`.
            if key < format!("{tag}/members0").as_str() {
                break;
            }
            done.extend(self.0.pop().map(|(_, doc)| value(&doc)));
        }
        done
    }

    fn rest(mut self) -> Vec<Value> {
        std::mem::take(&mut self.0).into_iter().rev().map(|(_, doc)| value(&doc)).collect()
    }
}

fn host(row: &Row) -> Outcome<Value> {
    let Kind::Host(name) = row.key.kind() else { return Ok(Value::Null) };
    Ok(value(&HostDoc { revision: None, ..HostDoc::of(name, record(row)?, row.revision) }))
}

fn other(row: &Row) -> Value {
    // What is written into a file is read by whoever reads the file: hashes of secrets stay in the database.
    let hidden = row.value.as_ref().and_then(|value| shoal_core::access::hidden(&row.key, value));
    json!({"edit": "write", "key": row.key, "value": hidden.as_ref().or(row.value.as_ref())})
}

fn value<T: Serialize>(doc: &T) -> Value {
    // These are plain structures with text as keys.
    serde_json::to_value(doc).unwrap_or_default()
}

fn record<T: serde::de::DeserializeOwned>(row: &Row) -> Outcome<T> {
    let text = row.value.as_ref().map_or("null", |value| value.as_str());
    serde_json::from_str(text).map_err(|error| damaged(&row.key, row.revision, &error.to_string()))
}

fn damaged(key: &Key, revision: Revision, why: &str) -> Failure {
    Failure::Other(anyhow::anyhow!(
        "the row {key} (revision {revision}) cannot be read: {why}; `shoal database verify` says more"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rows_and_areas() {
        let of = |name: &str| {
            ranges(name).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of("web1").unwrap(), "hosts/web1");
        assert_eq!(of("hosts").unwrap(), of("hosts/").unwrap());
        assert!(of("dns/").unwrap().starts_with("dns/"));
        assert!(of("dns/a/members/web1").is_err());
    }
}
