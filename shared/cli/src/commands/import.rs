//! `shoal import`: the database side of [`crate::import`].

use std::path::Path;
use std::process::{Command, Output, Stdio};

use shoal_core::{HostId, Proposal, Range};
use shoal_store::{StoreError, TransactError};

use super::put::read;
use crate::args::{Import, ImportAnsible, ImportFrom, ImportHaproxy, ImportZone, Sign};
use crate::failure::{Failure, Outcome};
use crate::import::{ansible, haproxy, rows, zone};
use crate::session::{Session, made, not_done};

/// How often the rows are read again because somebody changed them meanwhile.
const TRIES: usize = 5;

pub(crate) async fn run(session: &mut Session, args: Import) -> Outcome {
    session.out.begin("importing");
    match args.from {
        ImportFrom::Ansible(args) => from_ansible(session, args).await,
        ImportFrom::Haproxy(args) => from_haproxy(session, args).await,
        ImportFrom::Zone(args) => from_zone(session, args).await,
    }
}

async fn from_ansible(session: &mut Session, args: ImportAnsible) -> Outcome {
    let (inventory, mapping) = (text(&args.file)?, text(&args.mapping)?);
    let failed = |error| not_imported(&args.file, &args.mapping, error);
    let wanted = ansible::read(&inventory, &mapping).map_err(failed)?;
    let against = |rows: &ansible::Rows| wanted.against(rows, args.prune, new_id).map_err(failed);
    merge(session, &wanted.ranges(args.prune), args.plan, &args.sign, against).await
}

async fn from_haproxy(session: &mut Session, args: ImportHaproxy) -> Outcome {
    let (pools, mapping) = (text(&args.file)?, text(&args.mapping)?);
    let failed = |error| not_imported(&args.file, &args.mapping, error);
    let wanted = haproxy::read(&pools, &mapping).map_err(failed)?;
    let against = |rows: &ansible::Rows| wanted.against(rows, args.prune, new_id).map_err(failed);
    merge(session, &wanted.ranges(args.prune), args.plan, &args.sign, against).await
}

fn not_imported(file: &Path, mapping: &Path, error: ansible::ImportError) -> Failure {
    let what = format!("nothing was imported from {} with the mapping {}", file.display(), mapping.display());
    Failure::Other(anyhow::Error::new(error).context(what))
}

/// Shows or makes the changes that the rows need.
async fn merge(
    session: &mut Session,
    ranges: &[Range],
    plan: bool,
    sign: &Sign,
    against: impl Fn(&ansible::Rows) -> Outcome<ansible::Import>,
) -> Outcome {
    let mut tries = 0;
    loop {
        let (_, rows) =
            rows::read(&*session.store, ranges).await.map_err(Failure::reading("the database"))?;
        let import = against(&rows)?;
        if plan {
            session.out.print(&import.report, |_| import.report.to_string())?;
            return if import.edits.is_empty() { Ok(()) } else { Err(Failure::Pending) };
        }
        if sign.review {
            return session.write(sign, false, import.edits).await;
        }
        let proposal = Proposal { pre: import.pre, ..session.proposal(sign, false, import.edits).await? };
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

async fn from_zone(session: &mut Session, args: ImportZone) -> Outcome {
    let place = args.file.display().to_string();
    let failed = |why: String| Failure::Other(anyhow::anyhow!("nothing was imported from {place}: {why}"));
    std::fs::metadata(&args.file).map_err(|e| failed(e.to_string()))?;
    let name = args
        .zone
        .clone()
        .or_else(|| named_after(&args.file))
        .ok_or_else(|| failed("the file's name says no zone: give it with --zone".to_owned()))?;
    let (compiled, said) = compile(&name, &args.file).map_err(failed)?;
    // Before anything of it is refused: this may be why.
    let _ = std::io::Write::write_all(&mut anstream::stderr(), said.as_bytes());
    let zone =
        zone::read(&name, &compiled, args.replace, generic).map_err(|error| failed(error.to_string()))?;
    if session.out.is_text() {
        let left_out = match zone.left_out {
            0 => String::new(),
            n => format!("; {n} of signing are left to who signs"),
        };
        session.out.write(&format!("{} records of {name}{left_out}\n", zone.records))?;
    }
    session.write(&args.sign, args.plan, zone.edits).await
}

/// The zone that a file is named after: `example.com`, `example.com.zone`, `db.example.com`.
fn named_after(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let name = name.strip_prefix("db.").unwrap_or(name);
    let name = [".zone", ".db", ".hosts"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    name.contains('.').then(|| name.to_owned())
}

/// The zone as complete records, one a line, by BIND: it knows zone files best; and its warnings. Nothing is checked but that it
/// can be read, and that nothing was left out of it.
fn compile(zone: &str, file: &Path) -> Result<(String, String), String> {
    let lenient = "-i none -k ignore -n ignore -m ignore -M ignore -r ignore -S ignore -T ignore -W ignore -s full -o -";
    let file = file.canonicalize().map_err(|e| e.to_string())?;
    let mut command = Command::new("named-compilezone");
    // $INCLUDE is relative to where the file is.
    command
        .current_dir(file.parent().unwrap_or(Path::new("/")))
        .args(lenient.split(' '))
        .arg(zone)
        .arg(&file);
    let output = output(command, "named-compilezone", "bind9-utils", "")?;
    let words = String::from_utf8_lossy(&output.stderr);
    // That it went well is all that these say.
    let warnings = words.lines().filter(|line| *line != "OK" && !line.contains("/IN: loaded serial "));
    let (lost, other): (Vec<&str>, Vec<&str>) = warnings.partition(|line| line.contains(": ignoring "));
    if !lost.is_empty() {
        return Err(format!(
            "named-compilezone leaves out what lies outside of the zone {zone}, and nothing may be lost: take it out of the file, or \
             import it with its own zone\n{}",
            lost.join("\n")
        ));
    }
    let said = other.iter().map(|line| format!("named-compilezone says: {line}\n")).collect();
    Ok((String::from_utf8(output.stdout).map_err(|e| e.to_string())?, said))
}

/// Data in the form of RFC 3597.
fn generic(rtype: &str, data: &str) -> Result<String, String> {
    let mut command = Command::new("named-rrchecker");
    command.arg("-u");
    let output = output(command, "named-rrchecker", "bind9", &format!("IN {rtype} {data}\n"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.find("\\#").map(|at| text[at..].trim().to_owned()).ok_or(text)
}

/// Runs a program of BIND's to its end.
fn output(mut command: Command, program: &str, package: &str, input: &str) -> Result<Output, String> {
    use std::io::Write as _;

    let missing = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{program} is not installed, which reads zone files: apt install {package}")
        }
        _ => format!("running {program}: {e}"),
    };
    // Debian keeps some of them where only root looks.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read says why in its answer.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| format!("running {program}: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [output.stderr, output.stdout].concat();
    Err(format!("{program} says: {}", String::from_utf8_lossy(&said).trim()))
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
