//! What is refused before a store is asked: commits, claims, ledger writes and queries that cannot be,
//! whatever the database holds.

use sha2::{Digest, Sha256};
use shoal_core::{Change, Commit, Pre, Range};

use crate::{
    ClaimRequest, LedgerWrite, MAX_CHANGES, MAX_COMMIT, MAX_MESSAGE, MAX_NAME, MAX_PAGE, MAX_VALUE, Query,
    Result, StoreError,
};

fn invalid<T>(why: impl Into<String>) -> Result<T> {
    Err(StoreError::Invalid(why.into()))
}

fn name(what: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return invalid(format!("{what} is missing: give one"));
    }
    if text.len() > MAX_NAME {
        return invalid(format!("{what} has {} octets, at most {MAX_NAME} are allowed", text.len()));
    }
    Ok(())
}

/// Checks a commit and brings its changes into key order.
///
/// # Errors
/// [`StoreError::Invalid`]: no author or message, two changes of one key, something too large.
pub fn validate(mut commit: Commit) -> Result<Commit> {
    name("the author of the commit", &commit.author)?;
    if commit.message.trim().is_empty() {
        return invalid("the commit has no message: say why it is made");
    }
    if commit.message.len() > MAX_MESSAGE {
        let len = commit.message.len();
        return invalid(format!("the message has {len} octets, at most {MAX_MESSAGE} are allowed"));
    }
    if let Some(principal) = &commit.principal {
        name("the principal of the commit", principal)?;
    }
    if let Some(origin) = &commit.origin {
        name("the origin of the commit", origin)?;
    }
    if let Some(key) = &commit.idempotency {
        name("the idempotency key of the commit", key)?;
    }
    if let Some(intent) = &commit.intent {
        name("the intent of the commit", intent)?;
    }
    if commit.changes.len() > MAX_CHANGES || commit.pre.len() > MAX_CHANGES {
        let (changes, pre) = (commit.changes.len(), commit.pre.len());
        return invalid(format!(
            "the commit has {changes} changes and {pre} preconditions, at most {MAX_CHANGES} of each are \
             allowed: make several commits"
        ));
    }
    // When such a set was last written in, no store keeps.
    if let Some(Pre::Unchanged(range, _)) =
        commit.pre.iter().find(|pre| matches!(pre, Pre::Unchanged(Range::Concerning(_), _)))
    {
        return invalid(format!("the commit rests on {range}: name the rows that it rests on"));
    }
    commit.changes.sort_by(|a, b| a.key.cmp(&b.key));
    let mut total = 0;
    for (i, change) in commit.changes.iter().enumerate() {
        if i > 0 && commit.changes[i - 1].key == change.key {
            return invalid(format!("the commit changes {} twice", change.key));
        }
        let size = change.value.as_ref().map_or(0, |v| v.as_str().len());
        if size > MAX_VALUE {
            return invalid(format!(
                "{} would hold {size} octets, at most {MAX_VALUE} are allowed",
                change.key
            ));
        }
        total += size + change.key.as_str().len();
    }
    if total > MAX_COMMIT {
        return invalid(format!(
            "the commit has {total} octets, at most {MAX_COMMIT} are allowed: make several commits"
        ));
    }
    Ok(commit)
}

/// What tells a retry of a commit from another commit that has the same idempotency key: author, principal,
/// message, and the changes, or where it names one the intent. The preconditions are no part of it, because
/// who retries may have read again since.
///
/// The changes must be in key order. SHA-256, because it is kept on disk and compared by other versions.
#[must_use]
pub fn digest(commit: &Commit) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut field = |text: Option<&str>| match text {
        // A length before each field: no two commits run into each other.
        Some(text) => {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        None => hash.update(u64::MAX.to_le_bytes()),
    };
    field(Some(&commit.author));
    field(commit.principal.as_deref());
    field(Some(&commit.message));
    field(commit.intent.as_deref());
    let changes = if commit.intent.is_some() { &[][..] } else { &commit.changes };
    for Change { key, value, moved } in changes {
        field(Some(key.as_str()));
        field(value.as_ref().map(|v| v.as_str()));
        field(moved.as_ref().map(|k| k.as_str()));
    }
    hash.finalize().into()
}

/// Checks a request for a claim.
///
/// # Errors
/// [`StoreError::Invalid`]: no name or holder, no places, no time.
pub fn validate_claim(want: &ClaimRequest) -> Result<()> {
    name("the name of the claim", &want.name)?;
    name("the holder of the claim", &want.holder)?;
    if want.of == 0 {
        return invalid(format!("the claim {} has no places: `of` is at least 1", want.name));
    }
    if want.ttl.is_some_and(|ttl| ttl.is_zero()) {
        return invalid(format!("the claim {} would last no time", want.name));
    }
    Ok(())
}

/// Checks a write to the ledger.
///
/// # Errors
/// [`StoreError::Invalid`]: an empty or long key, a large value, too many rows.
pub fn validate_ledger(rows: &[LedgerWrite]) -> Result<()> {
    if rows.len() > MAX_CHANGES {
        return invalid(format!("{} ledger rows at once, at most {MAX_CHANGES} are allowed", rows.len()));
    }
    for row in rows {
        name("the key of a ledger row", &row.key)?;
        let size = row.value.as_ref().map_or(0, Vec::len);
        if size > MAX_VALUE {
            return invalid(format!(
                "the ledger row {} would hold {size} octets, at most {MAX_VALUE} are allowed",
                row.key
            ));
        }
    }
    Ok(())
}

/// Checks the limit of a page and cuts it to what is allowed.
///
/// # Errors
/// [`StoreError::Invalid`] for a page of no rows: it could never end.
pub fn validate_query(query: &Query) -> Result<usize> {
    if query.limit == 0 {
        return invalid("a page of no rows was asked for: the limit is at least 1");
    }
    Ok(query.limit.min(MAX_PAGE))
}

/// Why one instance more of an agent may not report: so many of it live that there is no room to keep what each says.
#[must_use]
pub fn too_many(status: &shoal_core::Status) -> StoreError {
    StoreError::Invalid(format!(
        "{} may not report: {} instances of the agent {} live already, and what one of them says is not forgotten for another",
        status.instance,
        crate::MAX_INSTANCES,
        status.agent
    ))
}
