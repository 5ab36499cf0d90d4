//! `shoal-backup restore HOST [PATH] --at TIME --to DIR`: gives a host's files back, as they were.
//!
//! It needs the repositories and their credentials, which stand in the configuration of a node that runs the agent; so it is a command of
//! the agent's own program, and needs no database: it works when there is nothing left but the repository.
//!
//! It never writes over anything: the folder has to be new or empty. restic reads back what it has written and compares.

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
use crate::target::{Caller, Listed, MARK, Settings, failed, list, policy_mark, words};

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
    /// From this repository [default: the first that has it]
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
    let names: Vec<&Label> = settings.repositories.keys().filter(named).collect();
    let mut faults = Vec::new();
    for name in names {
        match from(args, &settings, &secrets, name).await {
            Ok(Some(said)) => return Ok(said),
            Ok(None) => faults.push(format!("{name} has nothing of it")),
            Err(fault) => faults.push(format!("{name}: {fault}")),
        }
    }
    if faults.is_empty() {
        faults.push("the configuration has no such repository".to_owned());
    }
    Err(Fault::new(what, faults.join("; ")).next("see what there is: restic snapshots --host NAME"))
}

/// Restores from one repository; `None`: it has nothing of it.
async fn from(
    args: &Args,
    settings: &Settings,
    secrets: &Secrets,
    name: &Label,
) -> Result<Option<String>, Fault> {
    let Some(repository) = settings.repositories.get(name) else { return Ok(None) };
    let restic = Caller::new(&settings.restic, &settings.state.join("cache"), repository, secrets)?;
    let (_keep, mut stop) = watch::channel(None);
    let mark = match &args.policy {
        Some(policy) => format!("{MARK},{}", policy_mark(policy)),
        None => MARK.to_owned(),
    };
    let all = list(&restic, &words(&["--host", args.host.as_str(), "--tag", &mark]), &mut stop).await?;
    let root = settings.roots.get(args.host.as_str());
    let within = args.path.as_ref().map(|path| match root {
        Some(root) => root.join(path.as_str().trim_start_matches('/')).display().to_string(),
        None => path.to_string(),
    });
    let chosen = choose(all, args.at, within.as_deref());
    if chosen.is_empty() {
        return Ok(None);
    }
    let mut said = String::new();
    for one in chosen {
        let target = args.to.display().to_string();
        let mut call = words(&["restore", &one.id, "--no-lock", "--verify", "--target", &target]);
        if let Some(path) = &within {
            call.push("--include".to_owned());
            call.push(escaped(path));
        }
        let limit = Duration::from_secs(7 * 86_400);
        let ended = restic.lines(&call, limit, &mut stop, |_| {}).await?;
        if ended.code != Some(0) {
            return Err(failed(&format!("restore snapshot {} into {target}", &one.id[..8]), &ended));
        }
        if let Some(path) = &within
            && !args.to.join(path.trim_start_matches('/')).exists()
        {
            return Ok(None);
        }
        let policy = one.policy().map(|policy| policy.to_string()).unwrap_or_default();
        said += &format!(
            "restored {} of {} ({policy}, snapshot {} of {}) from {name} into {target}\n",
            one.paths.join(", "),
            args.host,
            &one.id[..8],
            one.time.strftime("%Y-%m-%d %H:%M:%SZ"),
        );
    }
    Ok(Some(said))
}

/// A path as restic's patterns write it.
fn escaped(path: &str) -> String {
    let escape = |c: char| {
        let special = matches!(c, '*' | '?' | '[' | '\\');
        special.then_some('\\').into_iter().chain([c])
    };
    path.chars().flat_map(escape).collect()
}

/// Of each policy the newest snapshot that is no newer than that and holds the path; with a path, only the newest of all.
fn choose(all: Vec<Listed>, at: Option<Timestamp>, path: Option<&str>) -> Vec<Listed> {
    let holds = |one: &Listed| {
        path.is_none_or(|path| {
            one.paths.iter().any(|held| {
                let rest = path.strip_prefix(held.trim_end_matches('/'));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        })
    };
    let mut newest: BTreeMap<Option<Label>, Listed> = BTreeMap::new();
    for one in all.into_iter().filter(|one| at.is_none_or(|at| one.time <= at)).filter(holds) {
        let policy = one.policy();
        if newest.get(&policy).is_none_or(|known| known.time < one.time) {
            newest.insert(policy, one);
        }
    }
    match path {
        Some(_) => newest.into_values().max_by_key(|one| one.time).into_iter().collect(),
        None => newest.into_values().collect(),
    }
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

    #[test]
    fn what_is_chosen() {
        let one = |id: &str, time: &str, policy: &str, path: &str| Listed {
            id: id.to_owned(),
            time: time.parse().unwrap(),
            hostname: "web1.example.com".to_owned(),
            paths: vec![path.to_owned()],
            tags: Some(vec![MARK.to_owned(), format!("policy:{policy}")]),
        };
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
            found.into_iter().map(|one| one.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(None, None), ["d", "c"]);
        assert_eq!(ids(Some("2026-03-02"), None), ["b", "c"]);
        assert_eq!(ids(Some("2026-03-01"), Some("/etc/passwd")), ["a"]);
        assert_eq!(ids(None, Some("/srv")), ["c"]);
        assert!(ids(None, Some("/srvx")).is_empty());
    }
}
