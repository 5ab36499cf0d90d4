//! From the command line to the exit code.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use jiff::Timestamp;
use shoal_store::Store;

use crate::args::{AclWork, Cli, Command, GroupWork, ImportFrom, TokenWork, UserWork, rewrite};
use crate::commands;
use crate::failure::{self, Failure, Outcome};
use crate::out::Out;
use crate::session::{Env, Session};

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let words = rewrite(std::env::args_os().collect());
    let cli = match Cli::try_parse_from(words.clone()) {
        Ok(cli) => cli,
        Err(error) => {
            let error = if error.use_stderr() { as_typed(words, error) } else { error };
            // Help and version are not errors; clap prints either where it belongs.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    finish(real(cli))
}

/// The same error without what variables say: a usage line repeats what was given, and `--store` would look as if it had to be.
fn as_typed(words: Vec<OsString>, error: clap::Error) -> clap::Error {
    without_variables(Cli::command()).try_get_matches_from(words).err().unwrap_or(error)
}

fn without_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.env(None::<&'static str>)).mut_subcommands(without_variables)
}

fn real(cli: Cli) -> Outcome {
    if let Command::Serve(args) = &cli.command {
        // A server wants more threads than a command.
        args.check().map_err(|wrong| Failure::Usage(wrong.to_string()))?;
        return shoal_hostdb::run(&cli.store, &cli.access, args).map_err(Failure::Other);
    }
    // A server has a log, and says it there.
    for said in cli.access.exposed() {
        let _ = writeln!(anstream::stderr(), "warning: {said}");
    }
    if let Command::Database(args) = &cli.command {
        return commands::database::run(&mut Out::stdout(cli.output), &cli.store, &cli.access, args);
    }
    // These need no database, or another program opens it.
    match &cli.command {
        Command::Completions(args) => {
            return commands::manual::completions(&mut Out::stdout(cli.output), args);
        }
        Command::Man(args) => return commands::manual::manual(&mut Out::stdout(cli.output), args),
        Command::Restore(args) => return commands::restore::run(args),
        Command::Capacity(args) => return placed(&cli, args.words()),
        Command::Evacuate(args) => return placed(&cli, args.words()),
        Command::Rebalance(args) => return placed(&cli, args.words()),
        // It has an answer also where there is no database to open.
        Command::Enc(args) => {
            return commands::enc::run(&mut Out::stdout(cli.output), &cli.store, &cli.access, args);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    if let Command::Migrate(args) = &cli.command {
        let mut out = Out::stdout(cli.output);
        return runtime.block_on(commands::migrate::run(&mut out, &cli.access, args));
    }
    if !begins(&cli.command) {
        there(&cli.store)?;
    }
    runtime.block_on(async {
        let stale = matches!(&cli.command, Command::Search(args) if args.stale);
        let store = match begins(&cli.command) {
            true => shoal_hostdb::open_store(&cli.store, &cli.access).await?,
            false if stale => shoal_hostdb::open_stale(&cli.store, &cli.access).await?,
            false if asks(&cli.command) => shoal_hostdb::open_brief(&cli.store, &cli.access).await?,
            false => shoal_hostdb::open_existing(&cli.store, &cli.access).await?,
        };
        let mut session =
            Session { store, out: Out::stdout(cli.output), env: Env::real(), served: served(&cli.store) };
        commands::run(&mut session, cli.command).await
    })
}

/// A question that the placement agent's program answers.
fn placed(cli: &Cli, words: Vec<OsString>) -> Outcome {
    commands::placement::run(words, &cli.store, &cli.access, cli.output)
}

/// Whether a command may make a database where there is none: it writes what may be the first of it. A plan writes
/// nothing, and so makes nothing.
fn begins(command: &Command) -> bool {
    let plan = match command {
        Command::Put(args) => args.plan,
        Command::Apply(args) => args.plan,
        // Before a server begins, somebody must be let in.
        Command::Acl(args) => return matches!(args.work, AclWork::Set(_)),
        Command::Token(args) => return matches!(args.work, TokenWork::Create(_)),
        Command::User(args) => return matches!(args.work, UserWork::Add { .. }),
        Command::Group(args) => return matches!(args.work, GroupWork::Add { .. }),
        Command::Import(args) => match &args.from {
            ImportFrom::Ansible(args) => args.plan,
            ImportFrom::Haproxy(args) => args.plan,
            ImportFrom::Zone(args) => args.plan,
        },
        _ => return false,
    };
    !plan
}

/// Whether a command asks for some of what stands there, and ends. Not one that takes all of it away to be kept elsewhere.
fn asks(command: &Command) -> bool {
    matches!(
        command,
        Command::Get(_)
            | Command::Search(_)
            | Command::Members(_)
            | Command::Parents(_)
            | Command::Effective(_)
            | Command::Log(_)
            | Command::Show(_)
            | Command::Blame(_)
            | Command::Diff(_)
            | Command::Explain(_)
            | Command::Can(_)
            | Command::Inventory(_)
    )
}

/// Refuses to make a database for a command that cannot mean to: a mistyped path is told, not filled.
pub(crate) fn there(store: &str) -> Outcome {
    match store.strip_prefix("sqlite:").map(Path::new) {
        // Nothing was ever written to it, or somebody cut it to nothing: either way it answers no question.
        Some(path) if path.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) => {
            Err(Failure::Missing(format!(
                "{} is empty, not even a database: mend --store or SHOAL_STORE; if it was one, restore a backup (`shoal database \
                 restore BACKUP --replace`); if not, make one with `shoal apply`",
                path.display()
            )))
        }
        Some(path) if !path.as_os_str().is_empty() && matches!(path.try_exists(), Ok(false)) => {
            Err(Failure::Missing(format!(
                "there is no database at {}: mend --store or SHOAL_STORE, or make one with `shoal apply`",
                path.display()
            )))
        }
        _ => Ok(()),
    }
}

fn finish(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure::report(&failure) {
                let _ = writeln!(anstream::stderr(), "\u{1b}[1;31merror:\u{1b}[0m {text}");
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Whether this is a server's address.
fn served(store: &str) -> bool {
    ["http:", "https:", "unix:"].iter().any(|scheme| store.starts_with(scheme))
}

/// How wide the terminal of [`run`] is.
const WIDTH: u16 = 100;

/// Runs one command line (without the program's name) on this store, as `author` at the time `now` says. Answers the
/// exit code and the error, if there is one to print. `serve`, `database` and `migrate` are refused.
pub async fn run(
    store: Arc<dyn Store>,
    line: &[&str],
    author: Option<&str>,
    now: fn() -> Timestamp,
    sink: Box<dyn Write + Send>,
) -> (u8, Option<String>) {
    let words = std::iter::once("shoal").chain(line.iter().copied()).map(OsString::from);
    let cli = match Cli::try_parse_from(rewrite(words.collect())) {
        Ok(cli) => cli,
        Err(error) => return (if error.use_stderr() { 2 } else { 0 }, Some(error.to_string())),
    };
    let author = author.map(|name| (name.to_owned(), "SHOAL_AUTHOR"));
    let mut session = Session {
        store,
        out: Out::to(cli.output, Some(WIDTH), sink),
        env: Env { author, editor: None, now },
        served: false,
    };
    match commands::run(&mut session, cli.command).await {
        Ok(()) => (0, None),
        Err(failure) => (failure.code(), failure::report(&failure)),
    }
}
