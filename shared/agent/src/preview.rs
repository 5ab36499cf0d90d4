//! `--preview FILE`: what would be wanted otherwise if the documents in FILE were committed.
//!
//! FILE is what `shoal apply -f FILE` takes ([`shoal_core::docs`]). Its documents are put together in one proposal and
//! checked as a commit would be; nothing is committed.

use std::path::Path;

use shoal_core::docs::Entry;
use shoal_core::{HostId, Proposal, Range, prepare};
use shoal_engine::{Agent, Nature, Preview};

use crate::exit::Failure;
use crate::setup::Setup;

pub(crate) async fn preview<A: Agent>(setup: &Setup<'_, A>, file: &Path) -> Result<Preview, Failure> {
    let wrong = |why: String| Failure::Usage(format!("the file {} {why}", file.display()));
    let text = std::fs::read(file).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let entries = Entry::all(&text).map_err(|why| wrong(format!("is wrong: {why}")))?;
    let edits = entries.into_iter().map(Entry::into_edit).collect();
    // What is proposed may be about any host.
    let (_, snapshot) = setup.read(Range::All).await?;
    let mut engine = setup.engine(Nature::default())?;
    let view = snapshot.view().clone();
    engine.load(snapshot);
    let proposal = Proposal::new("preview", "preview", edits);
    let mut new_id = || HostId(uuid::Uuid::now_v7().to_string());
    let prepared = prepare(&view, &proposal, &mut new_id)
        .map_err(|refusal| wrong(format!("would be refused: {refusal}")))?;
    Ok(engine.preview(&prepared.commit.changes))
}
