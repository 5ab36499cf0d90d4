//! One module for each group of commands.

mod access;
mod adopt;
mod approve;
pub(crate) mod database;
mod edit;
pub(crate) mod enc;
mod explain;
mod export;
mod facts;
mod get;
mod groups;
mod history;
mod import;
mod inventory;
pub(crate) mod manual;
mod members;
pub(crate) mod migrate;
mod pause;
mod people;
pub(crate) mod placement;
mod programs;
mod put;
pub(crate) mod restore;
pub(crate) mod review;
mod rollback;
mod search;
mod status;
mod tag;
mod token;
mod wait;

use shoal_core::{Edit, Expect};

use crate::args::{Command, Mv, Rm};
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// Runs one command.
pub(crate) async fn run(session: &mut Session, command: Command) -> Outcome {
    match command {
        Command::Get(args) => get::run(session, args).await,
        Command::Put(args) => put::put(session, args).await,
        Command::Edit(args) => edit::run(session, args).await,
        Command::Rm(args) => rm(session, args).await,
        Command::Mv(args) => mv(session, args).await,
        Command::Tag(args) => tag::run(session, args).await,
        Command::Apply(args) => put::apply(session, args).await,
        Command::Search(args) => search::run(session, args).await,
        Command::Members(args) => members::members(session, args).await,
        Command::Parents(args) => members::parents(session, args).await,
        Command::Effective(args) => members::effective(session, args).await,
        Command::Log(args) => history::log(session, args).await,
        Command::Show(args) => history::show(session, args).await,
        Command::Blame(args) => history::blame(session, args).await,
        Command::Diff(args) => history::diff(session, args).await,
        Command::Rollback(args) => rollback::run(session, args).await,
        Command::Status(args) => status::run(session, args).await,
        Command::Wait(args) => wait::run(session, args).await,
        Command::Explain(args) => explain::run(session, args).await,
        Command::Pause(args) => pause::run(session, args, true).await,
        Command::Resume(args) => pause::run(session, args, false).await,
        Command::Adopt(args) => adopt::run(session, args).await,
        Command::Approve(args) => approve::run(session, args).await,
        Command::Scale(args) => groups::scale(session, args).await,
        Command::Range(args) => groups::range(session, args).await,
        Command::Acl(args) => access::acl(session, args).await,
        Command::Can(args) => access::can(session, args).await,
        Command::Token(args) => token::run(session, args).await,
        Command::User(args) => people::user(session, args).await,
        Command::Group(args) => people::group(session, args).await,
        Command::Review(args) => review::run(session, args).await,
        Command::Export(args) => export::run(session, args).await,
        Command::Import(args) => import::run(session, args).await,
        Command::Facts(args) => facts::run(session, args).await,
        Command::Inventory(args) => inventory::run(session, args).await,
        Command::Enc(_) => Err(Failure::Usage("the database is opened by the program itself".to_owned())),
        Command::Restore(args) => restore::run(&args),
        Command::Capacity(_) | Command::Evacuate(_) | Command::Rebalance(_) => {
            Err(Failure::Usage("the database is opened by the placement agent's program".to_owned()))
        }
        Command::Migrate(_) => {
            Err(Failure::Usage("the two stores are opened by the program itself".to_owned()))
        }
        Command::Database(_) => Err(Failure::Usage("the file is worked on by the program itself".to_owned())),
        Command::Completions(args) => manual::completions(&mut session.out, &args),
        Command::Man(args) => manual::manual(&mut session.out, &args),
        Command::Serve(_) => Err(Failure::Usage("the server runs as a program of its own".to_owned())),
    }
}

async fn rm(session: &mut Session, args: Rm) -> Outcome {
    let Rm { names, follow, plan, sign } = args;
    let edits = names.into_iter().map(|name| Edit::Delete { key: name.0, follow, expect: Expect::Exists });
    session.write(&sign, plan, edits.collect()).await
}

async fn mv(session: &mut Session, args: Mv) -> Outcome {
    let Mv { from, to, plan, sign } = args;
    session.write(&sign, plan, vec![Edit::Rename { from: from.0, to: to.0, expect: Expect::Any }]).await
}
