//! `shoal-backup restore HOST [PATH] --at TIME --to DIR`: gives a host's files back, as they were.
//!
//! It needs the repositories and their credentials, which stand in the configuration of a node that runs the agent; so it is a command of
//! the agent's own program, and needs no database: it works when there is nothing left but the repository.
//!
//! It never writes over anything: the folder has to be new or empty, and what failed half-way is not gone on with from elsewhere. restic reads
//! back what it has written and compares. A snapshot that is known to lack files is taken only where there is no other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use shoal_agent::secrets::Secrets;
use shoal_agent::{Fault, HostName};
use tokio::sync::watch;

use crate::name::{AbsPath, Label};
use crate::target::{Caller, Listed, MARK, Repository, Settings, doubted, failed, list, policy_mark, words};

/// Restores what a host had at a time.
#[derive(Debug, Parser)]
#[command(
    name = "shoal-backup restore",
    version,
    about = "Restores what a host had, into a folder of its own",
    after_help = "Exit codes: 0 restored and read back, 1 failed, 2 usage."
)]
pub struct Args {
    /// Whose files
    host: HostName,
    /// Only this file or folder, by its path on the host
    path: Option<AbsPath>,
    /// As of when: 2026-03-01, 2026-03-01T12:00 (UTC), 2026-03-01T12:00:00+01:00 [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// Where to: a folder that is not there yet, or is empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only what this policy backed up
    #[arg(long, value_name = "NAME")]
    policy: Option<Label>,
    /// From this repository [default: the one with the newest]
    #[arg(long, value_name = "NAME")]
    repository: Option<Label>,
    /// The agent's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/shoal/backup.toml")]
    config: PathBuf,
}

/// A time as people write it: a day is its end.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let bad = |_| "a time is written 2026-03-01, 2026-03-01T12:00 or 2026-03-01T12:00:00+01:00".to_owned();
    let civil = match text.parse::<DateTime>() {
        Ok(time) if text.contains(['T', ' ', 't']) => time,
        _ => text.parse::<Date>().map_err(bad)?.at(23, 59, 59, 999_999_999),
    };
    civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(bad)
}

/// Runs the command as the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse_from(std::env::args_os().skip(1));
    let restored = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Fault::new("start", e))
        .and_then(|runtime| runtime.block_on(restore(&args)));
    use std::io::Write as _;
    match restored {
        Ok(said) => {
            let _ = write!(std::io::stdout(), "{said}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            let _ = writeln!(std::io::stderr(), "error: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// Restores. Answers what was, for people.
///
/// # Errors
/// Nothing was found, or not all of it could be restored and read back.
pub async fn restore(args: &Args) -> Result<String, Fault> {
    let what = format!("restore {}", args.host);
    let (settings, secrets): (Settings, Secrets) = shoal_agent::settings(&args.config)?;
    if let Ok(mut entries) = std::fs::read_dir(&args.to)
        && entries.next().is_some()
    {
        let why = format!("{} is not empty", args.to.display());
        return Err(
            Fault::new(what, why).next("name a folder that is not there yet: nothing is ever written over")
        );
    }
    let named = |name: &&Label| args.repository.as_ref().is_none_or(|only| only == *name);
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for name in settings.repositories.keys().filter(named) {
        match snapshots(args, &settings, &secrets, name).await {
            Ok(all) if all.is_empty() => faults.push(format!("{name} has nothing of it")),
            Ok(all) => found.extend(all),
            Err(fault) => faults.push(format!("{name}: {fault}")),
        }
    }
    let within = within(args, &settings);
    let all = found.len();
    let chosen = choose(found, args.at, within.as_deref());
    if chosen.is_empty() {
        if all > 0 {
            let at = args.at.map(|at| format!(" is of {at} or older")).unwrap_or_default();
            let holds = within.as_ref().map(|path| format!(" holds {path}")).unwrap_or_default();
            let and = if at.is_empty() || holds.is_empty() { "" } else { " and" };
            faults.push(format!("none of its snapshots ({all}){at}{and}{holds}"));
        } else if faults.is_empty() {
            faults.push("the configuration has no such repository".to_owned());
        }
        return Err(
            Fault::new(what, faults.join("; ")).next("see what there is: restic snapshots --host NAME")
        );
    }
    apart(&chosen).map_err(|why| {
        Fault::new(&what, why)
            .next("name one with --policy, and restore the others into folders of their own")
    })?;
    // What could not be asked may have had a newer one: that is said, and does not stop who needs the files.
    let mut said: String = faults.iter().map(|fault| format!("note: {fault}\n")).collect();
    for one in chosen {
        said += &give_back(args, &settings, &secrets, one, within.as_deref()).await?;
    }
    Ok(said)
}

/// A snapshot, and where it is.
#[derive(Clone, Debug)]
struct Found {
    repository: Label,
    snapshot: Listed,
    /// It is known to lack files.
    lacks: bool,
}

/// The path that was asked for, as it stands in the snapshots.
fn within(args: &Args, settings: &Settings) -> Option<String> {
    let root = settings.roots.get(args.host.as_str());
    args.path.as_ref().map(|path| match root {
        Some(root) => root.join(path.as_str().trim_start_matches('/')).display().to_string(),
        None => path.to_string(),
    })
}

/// The host's snapshots in one repository.
async fn snapshots(
    args: &Args,
    settings: &Settings,
    secrets: &Secrets,
    name: &Label,
) -> Result<Vec<Found>, Fault> {
    let (_keep, mut stop) = watch::channel(None);
    let mark = match &args.policy {
        Some(policy) => format!("{MARK},{}", policy_mark(policy)),
        None => MARK.to_owned(),
    };
    let select = words(&["--host", args.host.as_str(), "--tag", &mark]);
    let caller = caller(settings, secrets, name)?;
    // Who needs the files now is not kept from them by a repository that is away while another one has them.
    if !settings.repositories.get(name).is_some_and(Repository::is_folder) {
        caller.answers(name, settings.answer, &mut stop).await?;
    }
    let all = list(&caller, &select, &mut stop).await?;
    let doubted = doubted(settings, &args.host);
    let found = |snapshot: Listed| Found {
        repository: name.clone(),
        lacks: snapshot.is_incomplete() || snapshot.run().is_some_and(|run| doubted.contains(run)),
        snapshot,
    };
    Ok(all.into_iter().map(found).collect())
}

fn caller(settings: &Settings, secrets: &Secrets, name: &Label) -> Result<Caller, Fault> {
    let repository = settings.repositories.get(name);
    let repository =
        repository.ok_or_else(|| Fault::new("restore", format!("there is no repository {name}")))?;
    Caller::new(&settings.restic, &settings.state.join("cache"), repository, secrets)
}

/// Restores one snapshot. Answers what was, for people.
async fn give_back(
    args: &Args,
    settings: &Settings,
    secrets: &Secrets,
    one: Found,
    within: Option<&str>,
) -> Result<String, Fault> {
    let Found { repository, snapshot, lacks } = one;
    let (_keep, mut stop) = watch::channel(None);
    let target = args.to.display().to_string();
    let id = snapshot.id.get(..8).unwrap_or(&snapshot.id).to_owned();
    let mut call = words(&["restore", &snapshot.id, "--no-lock", "--verify", "--target", &target]);
    if let Some(path) = within {
        call.push("--include".to_owned());
        call.push(escaped(path));
    }
    let what = format!("restore snapshot {id} of {repository} into {target}");
    let limit = Duration::from_secs(7 * 86_400);
    let ended = caller(settings, secrets, &repository)?.lines(&call, limit, &mut stop, |_| {}).await?;
    if ended.code != Some(0) {
        return Err(failed(&what, &ended).next(
            "what is in the folder now is not all of it: remove it, and name another repository with --repository or another \
             time with --at",
        ));
    }
    if let Some(path) = within
        && !args.to.join(path.trim_start_matches('/')).exists()
    {
        let next = "name another time with --at, or a folder above it";
        return Err(Fault::new(what, format!("it has no {path}")).next(next));
    }
    let policy = snapshot.policy().map(|policy| policy.to_string()).unwrap_or_default();
    let lacks = if lacks { "; that one is known to lack files, and there is no other" } else { "" };
    Ok(format!(
        "restored {} of {} ({policy}, snapshot {id} of {}) from {repository} into {target}{lacks}\n",
        snapshot.paths.join(", "),
        args.host,
        snapshot.time.strftime("%Y-%m-%d %H:%M:%SZ"),
    ))
}

/// A path as restic's patterns write it.
pub(crate) fn escaped(path: &str) -> String {
    let escape = |c: char| {
        let special = matches!(c, '*' | '?' | '[' | '\\');
        special.then_some('\\').into_iter().chain([c])
    };
    path.chars().flat_map(escape).collect()
}

/// Whether a path is another one or in it.
fn is_in(path: &str, folder: &str) -> bool {
    let rest = path.strip_prefix(folder.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Of each policy the newest snapshot of all repositories that is no newer than that and holds the path, one that lacks files only where
/// there is no other; with a path, only the newest of all.
fn choose(all: Vec<Found>, at: Option<Timestamp>, path: Option<&str>) -> Vec<Found> {
    let holds = |one: &Found| {
        path.is_none_or(|path| one.snapshot.paths.iter().any(|held| is_in(path, held)))
            && at.is_none_or(|at| one.snapshot.time <= at)
    };
    let order = |one: &Found| (!one.lacks, one.snapshot.time);
    let mut newest: BTreeMap<Option<Label>, Found> = BTreeMap::new();
    for one in all.into_iter().filter(holds) {
        let policy = one.snapshot.policy();
        if newest.get(&policy).is_none_or(|known| order(known) < order(&one)) {
            newest.insert(policy, one);
        }
    }
    match path {
        Some(_) => newest.into_values().max_by_key(order).into_iter().collect(),
        None => newest.into_values().collect(),
    }
}

/// Refuses snapshots of several policies of which one would be written over another.
fn apart(chosen: &[Found]) -> Result<(), String> {
    for (n, one) in chosen.iter().enumerate() {
        for other in &chosen[n + 1..] {
            let both =
                one.snapshot.paths.iter().flat_map(|a| other.snapshot.paths.iter().map(move |b| (a, b)));
            for (a, b) in both {
                if is_in(a, b) || is_in(b, a) {
                    let name =
                        |one: &Found| one.snapshot.policy().map(|name| name.to_string()).unwrap_or_default();
                    return Err(format!("the policies {} and {} both have {a}", name(one), name(other)));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        let at = |text| moment(text).unwrap().to_string();
        assert_eq!(at("2026-03-01T12:00:00+01:00"), "2026-03-01T11:00:00Z");
        assert_eq!(at("2026-03-01T12:00"), "2026-03-01T12:00:00Z");
        assert_eq!(at("2026-03-01"), "2026-03-01T23:59:59.999999999Z");
        assert!(moment("yesterday").is_err());
    }

    fn one(id: &str, time: &str, policy: &str, path: &str) -> Found {
        let snapshot = Listed {
            id: id.to_owned(),
            time: time.parse().unwrap(),
            hostname: "web1.example.com".to_owned(),
            paths: vec![path.to_owned()],
            tags: Some(vec![MARK.to_owned(), format!("policy:{policy}")]),
        };
        Found { repository: "main".parse().unwrap(), snapshot, lacks: false }
    }

    #[test]
    fn one_that_lacks_files_is_chosen_only_where_there_is_no_other() {
        let mut newest = one("b", "2026-03-02T00:00:00Z", "etc", "/etc");
        newest.lacks = true;
        let older = one("a", "2026-03-01T00:00:00Z", "etc", "/etc");
        let ids = |all| choose(all, None, None).into_iter().map(|one| one.snapshot.id).collect::<Vec<_>>();
        assert_eq!(ids(vec![older, newest.clone()]), ["a"]);
        assert_eq!(ids(vec![newest]), ["b"]);
    }

    #[test]
    fn what_would_be_written_over_another_is_refused() {
        let at = "2026-03-01T00:00:00Z";
        let (etc, srv, ssh) =
            (one("a", at, "etc", "/etc"), one("b", at, "srv", "/srv"), one("c", at, "ssh", "/etc/ssh"));
        assert!(apart(&[etc.clone(), srv.clone()]).is_ok());
        assert!(apart(&[srv, ssh, etc]).unwrap_err().contains("ssh and etc"));
    }

    #[test]
    fn what_is_chosen() {
        let all = || {
            vec![
                one("a", "2026-03-01T00:00:00Z", "etc", "/etc"),
                one("b", "2026-03-02T00:00:00Z", "etc", "/etc"),
                one("c", "2026-03-02T00:00:00Z", "srv", "/srv"),
                one("d", "2026-03-03T00:00:00Z", "etc", "/etc"),
            ]
        };
        let ids = |at: Option<&str>, path| {
            let found = choose(all(), at.map(|at| moment(at).unwrap()), path);
            found.into_iter().map(|one| one.snapshot.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(None, None), ["d", "c"]);
        assert_eq!(ids(Some("2026-03-02"), None), ["b", "c"]);
        assert_eq!(ids(Some("2026-03-01"), Some("/etc/passwd")), ["a"]);
        assert_eq!(ids(None, Some("/srv")), ["c"]);
        assert!(ids(None, Some("/srvx")).is_empty());
    }
}
