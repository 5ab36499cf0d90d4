//! `shoal put` and `shoal apply`: hosts and tags from arguments and files.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use shoal_core::codec::{self, BadText, Format};
use shoal_core::docs::{BadFile, Doc, Entry, HostDoc, TagDoc};
use shoal_core::{Document, Edit, Expect, Key, Kind, Refusal};
use shoal_hostdb::reading::{self, Found};
use shoal_store::StoreError;

use crate::args::{Apply, Put};
use crate::failure::{Failure, Outcome};
use crate::meant;
use crate::names::{Name, shown};
use crate::session::{Session, Way, missing};

/// The most octets that are read of one file.
const MAX_FILE: u64 = 256 << 20;
/// How long fields are set again on what others wrote meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn put(session: &mut Session, args: Put) -> Outcome {
    let expect = if args.new { Expect::Absent } else { Expect::Any };
    if let Some(path) = &args.file {
        let edit = from_file(path, args.name.as_ref(), expect)?;
        return session.write(&args.sign, args.plan, vec![edit]).await;
    }
    let way = session.way(&args.sign, args.plan).await?;
    let (begun, mut most) = (Instant::now(), 8);
    let mut edit = from_fields(session, &args, expect).await?;
    loop {
        let failure = match session.write_by(&way, &args.sign, args.plan, vec![edit.clone()]).await {
            Err(failure) if begun.elapsed() < PATIENCE => failure,
            done => return done,
        };
        // A server says in words alone what it refuses: whether that is for being late, what stands there shows.
        let by_server = matches!(
            (&way, &failure),
            (Way::Server(_), Failure::Store { error: StoreError::Invalid(_), .. })
        );
        if !by_server && !is_late(&failure, args.new) {
            return Err(failure);
        }
        tokio::time::sleep(chance(most)).await;
        most = (most * 2).min(500);
        let again = from_fields(session, &args, expect).await?;
        if by_server && again == edit {
            return Err(failure);
        }
        edit = again;
    }
}

/// Some milliseconds, differing between rivals.
pub(super) fn chance(most: u64) -> Duration {
    // The end of an id is random.
    Duration::from_millis(u64::from(uuid::Uuid::now_v7().as_bytes()[15]) * most / 256)
}

/// Whether somebody else changed what the fields were read from. They say what is meant whatever else stands there, so they
/// are set on what stands there now; a whole file would take back what the other one wrote.
pub(super) fn is_late(failure: &Failure, new: bool) -> bool {
    match failure {
        Failure::Refused(refusal) => match **refusal {
            Refusal::Stale { .. } => true,
            // Somebody else made it meanwhile.
            Refusal::Exists { .. } => !new,
            _ => false,
        },
        Failure::Store { error: StoreError::Conflict { .. }, .. } => true,
        _ => false,
    }
}

/// What the documents of some files mean.
pub(super) fn edits_of(files: &[PathBuf]) -> Outcome<Vec<Edit>> {
    let mut edits = Vec::new();
    for path in files {
        edits.extend(entries(path)?.into_iter().map(Entry::into_edit));
    }
    if edits.is_empty() {
        return Err(Failure::Usage(
            "nothing was written: there are no documents in what was given".to_owned(),
        ));
    }
    Ok(edits)
}

pub(crate) async fn apply(session: &mut Session, args: Apply) -> Outcome {
    session.out.begin("reading what is to be applied");
    let edits = edits_of(&args.file)?;
    let many = edits.len();
    session.out.say(|| format!("applying {many} document{}", if many == 1 { "" } else { "s" }));
    session.write(&args.sign, args.plan, edits).await
}

fn from_file(path: &Path, name: Option<&Name>, expect: Expect) -> Outcome<Edit> {
    let mut all = entries(path)?;
    let (Some(Entry::Doc(doc)), true) = (all.pop(), all.is_empty()) else {
        return Err(Failure::Usage(format!(
            "nothing was written: {} does not hold exactly one host or tag; `shoal apply -f` takes many, and edits",
            path.display()
        )));
    };
    let key = match &doc {
        Doc::Host(host) => Key::host(&host.host),
        Doc::Tag(tag) => Key::tag(&tag.tag),
    };
    match name {
        Some(Name(named)) if *named != key => Err(Failure::Usage(format!(
            "nothing was written: {} is about {}, not {}; `shoal mv` renames",
            path.display(),
            shown(&key),
            shown(named)
        ))),
        _ => Ok(doc.into_edit(expect)),
    }
}

/// Reads every document of a file; `-` is standard input.
fn entries(path: &Path) -> Outcome<Vec<Entry>> {
    let place = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let text = read(path, &place)?;
    Entry::all(&text).map_err(|BadFile { document, error }| Failure::Text {
        place: match document {
            Some(number) => format!("{place}, document {number}"),
            None => place,
        },
        error,
    })
}

/// Reads a file, or standard input for `-`.
pub(crate) fn read(path: &Path, place: &str) -> Outcome<Vec<u8>> {
    let failed = |error| Failure::File { path: place.to_owned(), error };
    let mut text = Vec::new();
    let got = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut text).map_err(failed)?
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(failed)?
    };
    if got as u64 > MAX_FILE {
        let what = format!("nothing was written: {place} has more than {} MiB; split it", MAX_FILE >> 20);
        return Err(Failure::Usage(what));
    }
    Ok(text)
}

/// What stands there, with the fields that the arguments set and remove.
async fn from_fields(session: &Session, args: &Put, expect: Expect) -> Outcome<Edit> {
    let Some(Name(key)) = &args.name else {
        return Err(Failure::Usage("nothing was written: name a host or a tag".to_owned()));
    };
    let failed = Failure::reading(shown(key));
    match key.kind() {
        Kind::Host(name) => {
            if !args.members.is_empty() {
                return Err(Failure::Usage("nothing was written: only tags have members".to_owned()));
            }
            let found = reading::host(&*session.store, &name, None).await.map_err(failed)?;
            to_be_made(session, args, key, &found).await?;
            let (was, expect) = before(found, expect, |doc: &HostDoc| doc.revision);
            let was = was.unwrap_or_else(|| HostDoc::new(name));
            let document = set(&was.document, &args.fields)?;
            Ok(Doc::Host(HostDoc {
                state: args.state.or(was.state),
                owner: args.owner.clone().or(was.owner),
                environment: args.environment.clone().or(was.environment),
                expires: args.expires.or(was.expires),
                document,
                ..was
            })
            .into_edit(expect))
        }
        Kind::Tag(name) => {
            if args.state.is_some() {
                return Err(Failure::Usage("nothing was written: only hosts have a state".to_owned()));
            }
            let found = reading::tag(&*session.store, &name, None, usize::MAX).await.map_err(failed)?;
            to_be_made(session, args, key, &found).await?;
            let (was, expect) = before(found, expect, |doc: &TagDoc| doc.revision);
            let was = was.unwrap_or_else(|| TagDoc::new(name));
            let document = set(&was.document, &args.fields)?;
            let members = if args.members.is_empty() { None } else { Some(args.members.clone()) };
            Ok(Doc::Tag(TagDoc {
                owner: args.owner.clone().or(was.owner),
                environment: args.environment.clone().or(was.environment),
                expires: args.expires.or(was.expires),
                document,
                members,
                ..was
            })
            .into_edit(expect))
        }
        _ => Err(Failure::Usage(format!("nothing was written: {key} is neither a host nor a tag"))),
    }
}

/// Refuses to make what was meant to be changed: who gives a state or takes a field away has something before his eyes. Says on standard
/// error which host may be meant by one that is new.
async fn to_be_made<T>(session: &Session, args: &Put, key: &Key, found: &Found<T>) -> Outcome {
    let changes =
        args.state.is_some() || args.fields.iter().any(|field| field.ends_with('-') && !field.contains('='));
    if args.new || matches!(found, Found::Here(_)) {
        return Ok(());
    }
    if !changes {
        // Who leaves out a domain makes another host.
        let names =
            if matches!(found, Found::Never) { meant::full(&*session.store, key).await } else { Vec::new() };
        if !names.is_empty() {
            let said = format!("note: {} is new; there is {} already\n", shown(key), names.join(", and "));
            let _ = std::io::Write::write_all(&mut anstream::stderr(), said.as_bytes());
        }
        return Ok(());
    }
    let Failure::Missing(text) = session.missing(found, key).await else { return Err(missing(found, key)) };
    let and = if text.ends_with('?') { "" } else { ";" };
    Err(Failure::Missing(format!("nothing was written: {text}{and} --new makes it all the same")))
}

/// What exists, and the expectation that nobody changes it meanwhile.
fn before<T>(
    found: Found<T>,
    expect: Expect,
    revision: impl Fn(&T) -> Option<shoal_core::Revision>,
) -> (Option<T>, Expect) {
    let was = found.here();
    let expect = match (&was, expect) {
        (_, Expect::Absent) => Expect::Absent,
        (Some(was), _) => revision(was).map_or(Expect::Exists, Expect::At),
        (None, _) => Expect::Absent,
    };
    (was, expect)
}

/// The document with `field=VALUE` set and `field-` removed; dots lead into maps.
fn set(document: &Document, fields: &[String]) -> Outcome<Document> {
    let Value::Object(mut map) = document.value() else { return Ok(document.clone()) };
    for field in fields {
        match field.split_once('=') {
            Some((path, text)) => {
                let value: Value = if text.is_empty() {
                    Value::String(String::new())
                } else {
                    codec::read(text.as_bytes(), Format::Yaml).map_err(|error: BadText| Failure::Text {
                        place: format!("the value of {path} (quote it: {path}=\"'…'\" is text)"),
                        error,
                    })?
                };
                *at(&mut map, path)? = value;
            }
            None => match field.strip_suffix('-') {
                Some(path) => remove(&mut map, path),
                None => {
                    return Err(Failure::Usage(format!(
                        "nothing was written: {field:?} is neither FIELD=VALUE nor FIELD-"
                    )));
                }
            },
        }
    }
    Ok(Document::from(Value::Object(map)))
}

fn at<'m>(map: &'m mut Map<String, Value>, path: &str) -> Outcome<&'m mut Value> {
    if path.split('.').any(str::is_empty) {
        return Err(Failure::Usage(format!(
            "nothing was written: {path:?} is no field: write name or map.name"
        )));
    }
    match path.split_once('.') {
        None => Ok(map.entry(path).or_insert(Value::Null)),
        Some((first, rest)) => {
            let inner = map.entry(first).or_insert_with(|| Value::Object(Map::new()));
            match inner {
                Value::Object(inner) => at(inner, rest),
                _ => Err(Failure::Usage(format!(
                    "nothing was written: {first} is not a map, so {path} cannot be set; remove it first ({first}-)"
                ))),
            }
        }
    }
}

fn remove(map: &mut Map<String, Value>, path: &str) {
    match path.split_once('.') {
        None => {
            map.shift_remove(path);
        }
        Some((first, rest)) => {
            if let Some(Value::Object(inner)) = map.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(fields: &[&str]) -> Outcome<String> {
        let document = Document::from(serde_json::json!({"a": 1, "m": {"x": 1, "y": 2}}));
        let fields: Vec<String> = fields.iter().map(|f| (*f).to_owned()).collect();
        set(&document, &fields).map(|d| d.to_string())
    }

    #[test]
    fn fields_are_set_and_removed() {
        assert_eq!(with(&["a=2", "b=[x, y]"]).unwrap(), r#"{"a":2,"m":{"x":1,"y":2},"b":["x","y"]}"#);
        assert_eq!(with(&["m.x=no", "m.y-", "a-"]).unwrap(), r#"{"m":{"x":"no"}}"#);
        assert_eq!(with(&["n.o=", "q-"]).unwrap(), r#"{"a":1,"m":{"x":1,"y":2},"n":{"o":""}}"#);
        for bad in ["a", "a.b=1", "=1", "m..x=1", "a=["] {
            assert!(with(&[bad]).is_err(), "{bad}");
        }
    }
}
