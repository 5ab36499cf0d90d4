//! From the rows that an import writes to the edits that people would make.
//!
//! The import itself thinks in rows, because it compares with rows. What is proposed are edits, so that the same checks hold for
//! it as for everybody: references, cycles, schemas. Deleting a host or a tag takes its memberships and facts with it, so those
//! rows are not named again.

use std::collections::{BTreeMap, BTreeSet};

use shoal_core::{Change, Edit, Expect, HostRecord, Kind, Member, TagName, TagRecord};

use super::ImportError;

/// The edits that write these rows, in an order in which each stands on those before it.
pub(super) fn edits(changes: &[Change]) -> Result<Vec<Edit>, ImportError> {
    let gone: BTreeSet<&str> = changes.iter().filter(|c| c.value.is_none()).map(|c| c.key.as_str()).collect();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let mut members: BTreeMap<TagName, (Vec<Member>, Vec<Member>)> = BTreeMap::new();
    for change in changes {
        let key = change.key.clone();
        match (key.kind(), &change.value) {
            (Kind::Host(host), Some(row)) => {
                let record: HostRecord = row.to().map_err(|why| ImportError::Row { key, why })?;
                first.push(Edit::host(host, record));
            }
            (Kind::Tag(tag), Some(row)) => {
                let record: TagRecord = row.to().map_err(|why| ImportError::Row { key, why })?;
                first.push(Edit::tag(tag, record, None));
            }
            (Kind::Member(tag, member), Some(_)) => members.entry(tag).or_default().0.push(member),
            (Kind::Member(tag, member), None) => {
                if !gone.contains(tag.as_str()) && !gone.contains(format!("hosts/{member}").as_str()) {
                    members.entry(tag).or_default().1.push(member);
                }
            }
            (Kind::Fact(_, subject), None) if gone.contains(subject.as_str()) => {}
            (Kind::Fact(_, subject), None) if gone.contains(format!("hosts/{subject}").as_str()) => {}
            (_, Some(value)) => last.push(Edit::Write { key, value: value.clone(), expect: Expect::Any }),
            (_, None) => last.push(Edit::Delete { key, follow: false, expect: Expect::Any }),
        }
    }
    for (tag, (add, remove)) in members {
        if !add.is_empty() {
            first.push(Edit::AddMembers { tag: tag.clone(), members: add });
        }
        if !remove.is_empty() {
            first.push(Edit::RemoveMembers { tag, members: remove });
        }
    }
    first.append(&mut last);
    Ok(first)
}
