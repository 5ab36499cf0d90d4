//! `shoal rollback`: what stood at an old revision, as a new commit.

use shoal_core::{Revision, Scope};
use shoal_hostdb::reading::{self, Found};

use crate::args::Rollback;
use crate::changes;
use crate::failure::{Failure, Outcome};
use crate::names::{Name, shown};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, args: Rollback) -> Outcome {
    let to = Revision(args.to);
    let database = session.database().await?;
    let never = reading::never(&*session.store, args.names.iter().map(|Name(key)| key)).await;
    if let Some(key) = never.map_err(Failure::reading("the database"))? {
        return Err(session.missing::<()>(&Found::Never, key).await);
    }
    let mut edits = Vec::new();
    if args.all {
        let all = database.rollback(Scope::Everything, to).await;
        edits = all.map_err(Failure::reading(format!("revision {to}")))?;
    }
    for Name(key) in &args.names {
        let one = database.rollback(Scope::Key(key), to).await;
        edits.extend(one.map_err(Failure::reading(format!("{} at revision {to}", shown(key))))?);
    }
    if args.plan || !session.out.is_text() {
        return session.write_to(&database, &args.sign, args.plan, edits).await;
    }
    let plan = session.proposal(&args.sign, true, edits.clone()).await?;
    let plan = database.preview(&plan).await.map_err(|refusal| Failure::Refused(Box::new(refusal)))?;
    let changes = changes::before(&*session.store, plan.commit.changes, None).await?;
    session.write_to(&database, &args.sign, args.plan, edits).await?;
    session.out.write(&changes::names(&changes))
}
