//! What etcd and the way to it say, as what a user can act on.

use etcd_client::Error;
use shoal_store::StoreError;

/// What gRPC calls it.
const INVALID: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const EXHAUSTED: i32 = 8;
const UNAUTHENTICATED: i32 = 16;

/// What went wrong at `place` while `attempted` was done.
pub(crate) fn fault(place: &str, attempted: &str, error: &Error) -> StoreError {
    let (code, said) = match error {
        Error::GRpcStatus(status) => (i32::from(status.code()), status.message().to_owned()),
        other => (0, other.to_string()),
    };
    let why = format!("{attempted}: {said}");
    let place = place.to_owned();
    match code {
        EXHAUSTED if said.contains("space exceeded") => StoreError::Full {
            place,
            why: format!(
                "{why}; compact and defragment it, disarm its alarm (etcdctl alarm disarm), or raise its \
                 --quota-backend-bytes"
            ),
        },
        INVALID if said.contains("too large") || said.contains("too many operations") => {
            StoreError::Invalid(format!(
                "{place}: {why}: it allows less than by default; see its --max-request-bytes (at least 1.5 MiB) and \
                 --max-txn-ops (at least 128)"
            ))
        }
        INVALID | PERMISSION_DENIED | UNAUTHENTICATED => StoreError::Unavailable {
            place,
            why: format!("{why}; etcd with users and passwords is not supported yet: give Shoal one without"),
        },
        _ => StoreError::Unavailable {
            place,
            why: format!("{why}; see that etcd runs there, has a quorum and can be reached, then try again"),
        },
    }
}

/// Nobody answered in time.
pub(crate) fn silent(place: &str, attempted: &str, seconds: u64) -> StoreError {
    StoreError::Unavailable {
        place: place.to_owned(),
        why: format!(
            "{attempted}: no answer for {seconds} s; see that etcd runs there, has a quorum and can be reached, then \
             try again"
        ),
    }
}

/// Whether the snapshot that was read from is gone: reading again from a newer one helps.
pub(crate) fn is_compacted(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { why, .. } if why.contains("has been compacted"))
}
