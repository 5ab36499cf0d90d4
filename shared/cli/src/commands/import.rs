//! `shoal import`: the database side of [`crate::import`].

use std::path::Path;

use shoal_core::{HostId, Proposal};
use shoal_store::{StoreError, TransactError};

use super::put::read;
use crate::args::{Import, ImportAnsible, ImportFrom};
use crate::failure::{Failure, Outcome};
use crate::import::{ansible, rows};
use crate::session::{Session, made, not_done};

/// How often the rows are read again because somebody changed them meanwhile.
const TRIES: usize = 5;

pub(crate) async fn run(session: &mut Session, args: Import) -> Outcome {
    match args.from {
        ImportFrom::Ansible(args) => from_ansible(session, args).await,
    }
}

async fn from_ansible(session: &mut Session, args: ImportAnsible) -> Outcome {
    let (inventory, mapping) = (text(&args.file)?, text(&args.mapping)?);
    let failed = |error: ansible::ImportError| {
        let (file, mapping) = (args.file.display(), args.mapping.display());
        let what = format!("nothing was imported from {file} with the mapping {mapping}");
        Failure::Other(anyhow::Error::new(error).context(what))
    };
    let wanted = ansible::read(&inventory, &mapping).map_err(failed)?;
    let mut tries = 0;
    loop {
        let ranges = wanted.ranges(args.prune);
        let (_, rows) =
            rows::read(&*session.store, &ranges).await.map_err(Failure::reading("the database"))?;
        let import = wanted.against(&rows, args.prune, new_id).map_err(failed)?;
        if args.plan {
            session.out.print(&import.report, |_| import.report.to_string())?;
            return if import.edits.is_empty() { Ok(()) } else { Err(Failure::Pending) };
        }
        let proposal = Proposal { pre: import.pre, ..session.proposal(&args.sign, false, import.edits)? };
        let author = proposal.author.clone();
        let database = session.database().await?;
        let made = made(&database.view(), &proposal.edits);
        match database.transact(proposal).await {
            Ok(done) => {
                if session.out.is_text() {
                    session.out.write(&import.report.to_string())?;
                }
                return session.done(&author, &done, &made);
            }
            Err(TransactError::Store(StoreError::Conflict { .. })) if tries < TRIES => tries += 1,
            Err(error) => return Err(not_done(error)),
        }
    }
}

fn text(path: &Path) -> Outcome<String> {
    let place = path.display().to_string();
    String::from_utf8(read(path, &place)?)
        .map_err(|e| Failure::Other(anyhow::anyhow!("nothing was imported: {place} is not UTF-8: {e}")))
}

/// An id that no host ever had.
fn new_id() -> HostId {
    HostId(uuid::Uuid::now_v7().to_string())
}
