//! `shoal rollback`: what stood at an old revision, as a new commit.

use shoal_core::{Revision, Scope};

use crate::args::Rollback;
use crate::failure::{Failure, Outcome};
use crate::names::{Name, shown};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, args: Rollback) -> Outcome {
    let to = Revision(args.to);
    let database = session.database().await?;
    let mut edits = Vec::new();
    if args.all {
        let all = database.rollback(Scope::Everything, to).await;
        edits = all.map_err(Failure::reading(format!("revision {to}")))?;
    }
    for Name(key) in &args.names {
        let one = database.rollback(Scope::Key(key), to).await;
        edits.extend(one.map_err(Failure::reading(format!("{} at revision {to}", shown(key))))?);
    }
    session.write_to(&database, &args.sign, args.plan, edits).await
}
