//! Changes of rows as people read them: by host and tag, as differences of their YAML.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use shoal_core::codec::{self, Format};
use shoal_core::{Change, Document, Kind, Revision, TagName};
use shoal_hostdb::history::Changed;
use shoal_hostdb::reading;
use shoal_store::Store;
use similar::TextDiff;

use crate::failure::{Failure, Outcome};
use crate::names::shown;
use crate::out::Out;

/// How many lines around a difference are shown.
const CONTEXT: usize = 2;

/// The changes of a commit, with what stood there at `at` (`None`: what stands there now).
pub(crate) async fn before(
    store: &dyn Store,
    changes: Vec<Change>,
    at: Option<Revision>,
) -> Outcome<Vec<Changed>> {
    let mut all = Vec::with_capacity(changes.len());
    for Change { key, value, moved } in changes {
        let row = reading::row(store, &key, at).await.map_err(Failure::reading(shown(&key)))?;
        let before = row.here().and_then(|row| row.value);
        all.push(Changed { key, before, after: value, moved });
    }
    Ok(all)
}

/// The most lines of [`names`].
const NAMES: usize = 20;

/// What changes, by name alone: what is new, what goes, what becomes otherwise; a tag with the number of its members that
/// come and go.
pub(crate) fn names(changes: &[Changed]) -> String {
    let mut lines: BTreeMap<String, (char, usize, usize)> = BTreeMap::new();
    for change in changes {
        let sign = match (&change.before, &change.after) {
            (None, Some(_)) => '+',
            (_, None) => '-',
            _ => '~',
        };
        match change.key.kind() {
            Kind::Member(tag, _) => {
                let line = lines.entry(format!("tag {tag}")).or_insert(('~', 0, 0));
                if sign == '-' { line.2 += 1 } else { line.1 += 1 }
            }
            _ => lines.entry(shown(&change.key)).or_insert((sign, 0, 0)).0 = sign,
        }
    }
    let members = |come: usize, go: usize| match (come, go) {
        (0, 0) => String::new(),
        (come, 0) => format!(" (members: {come} more)"),
        (0, go) => format!(" (members: {go} fewer)"),
        (come, go) => format!(" (members: {come} more, {go} fewer)"),
    };
    let line = |(name, (sign, come, go)): (&String, &(char, usize, usize))| {
        format!("  {sign} {name}{}\n", members(*come, *go))
    };
    let text: String = lines.iter().take(NAMES).map(line).collect();
    let more = if lines.len() > NAMES { format!("  … {} in all\n", lines.len()) } else { String::new() };
    text + &more
}

/// The changes as text: each host, tag and other row under its name, members of a tag together.
pub(crate) fn text(out: &Out, changes: &[Changed]) -> String {
    let mut members: BTreeMap<TagName, Vec<String>> = BTreeMap::new();
    let mut blocks: BTreeMap<String, String> = BTreeMap::new();
    for change in changes {
        match change.key.kind() {
            Kind::Member(tag, member) => {
                let sign = if change.after.is_some() { '+' } else { '-' };
                members.entry(tag).or_default().push(out.diff_line(&format!("  {sign} {member}")));
            }
            _ => {
                // What was renamed is compared with what it was under its old name.
                let old = change.moved.as_ref().filter(|_| change.before.is_none());
                let old = old.and_then(|from| changes.iter().find(|c| c.key == *from));
                let before = change.before.as_ref().or_else(|| old?.before.as_ref());
                blocks.insert(shown(&change.key), block(out, change, before));
            }
        }
    }
    for (tag, lines) in members {
        let block = blocks.entry(format!("tag {tag}")).or_insert_with(|| format!("~ tag {tag}\n"));
        let _ = writeln!(block, "  members:\n  {}", lines.join("\n  "));
    }
    blocks.into_values().collect()
}

fn block(out: &Out, change: &Changed, before: Option<&Document>) -> String {
    let name = shown(&change.key);
    let mut text = match (&change.before, &change.after, &change.moved) {
        (_, None, Some(to)) => return format!("~ {name} is renamed to {}\n", shown(to)),
        (None, Some(_), Some(from)) => format!("~ {name} (was {})\n", shown(from)),
        (None, Some(_), None) => format!("+ {name}\n"),
        (Some(_), None, None) => format!("- {name}\n"),
        _ => format!("~ {name}\n"),
    };
    let (before, after) = (yaml(before), yaml(change.after.as_ref()));
    let diff = TextDiff::from_lines(&before, &after);
    for (at, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if at > 0 {
            text.push_str("    …\n");
        }
        for line in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let body = line.to_string();
            let shown = format!("    {}{}", line.tag(), body.trim_end_matches('\n'));
            text.push_str(&out.diff_line(&shown));
            text.push('\n');
        }
    }
    text
}

fn yaml(document: Option<&Document>) -> String {
    match document {
        None => String::new(),
        Some(document) => {
            let mut value = document.value();
            if let Some(map) = value.as_object_mut() {
                map.shift_remove("id");
            }
            // What cannot be written as YAML is shown as it is.
            codec::write(&value, Format::Yaml).unwrap_or_else(|_| format!("{document}\n"))
        }
    }
}
