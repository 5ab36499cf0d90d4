//! Reading the rows that an import compares with, all of one revision.

use shoal_core::{Range, Revision};
use shoal_store::{Query, Store, StoreError};

use super::ansible::Rows;

/// All rows of these ranges as of one revision, and that revision. Costs a reading of the ranges.
///
/// # Errors
/// What the store says; an unreadable range is never taken for an empty one.
pub async fn read(store: &dyn Store, ranges: &[Range]) -> Result<(Revision, Rows), StoreError> {
    let at = store.head().await?.revision;
    let mut rows = Rows::new();
    for range in ranges {
        let mut query = Query { at: Some(at), ..Query::new(range.clone()) };
        loop {
            let page = store.read(&query).await?;
            rows.extend(page.rows.into_iter().map(|row| (row.key.clone(), row)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    Ok((at, rows))
}
