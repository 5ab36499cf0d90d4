//! The running server: told through its command file, asked through the files that it writes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use shoal_agent::HostName;
use tokio::time::{Instant, sleep};

use super::render::MARK;
use crate::target::objects::{COMMENT, Downtimes, LASTS};

/// How much of the status file is read at first, from its end.
const TAIL: u64 = 64 * 1024;
/// How long the command file may be full.
const FULL: Duration = Duration::from_secs(5);

/// What came of telling the server something.
#[derive(Debug)]
pub(super) enum Untold {
    /// It does not run.
    Down,
    /// Something else.
    Failed(io::Error),
}

/// Writes commands, one line each, into the command file.
pub(super) async fn tell(path: &Path, commands: &[String]) -> Result<(), Untold> {
    let opened = fs::OpenOptions::new().write(true).custom_flags(nonblocking()).open(path);
    let mut pipe = opened.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Untold::Down,
        _ if e.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => Untold::Down,
        _ => Untold::Failed(e),
    })?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let end = Instant::now() + FULL;
    for command in commands {
        let line = format!("[{now}] {command}\n");
        loop {
            // At most 4096 octets: such a write is done whole or not at all.
            match pipe.write_all(line.as_bytes()) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                    sleep(Duration::from_millis(5)).await;
                }
                Err(e) => return Err(Untold::Failed(e)),
            }
        }
    }
    Ok(())
}

fn nonblocking() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default()
}

/// Has the server read its configuration again.
pub(super) fn restart() -> String {
    "RESTART_PROGRAM".to_owned()
}

/// Gives a host and its services a downtime, in place of one that it has.
pub(super) fn downtime(host: &HostName) -> [String; 3] {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let one = |command: &str| format!("{command};{host};{now};{};1;0;0;shoal;{COMMENT}", now + LASTS);
    [no_downtime(host), one("SCHEDULE_HOST_DOWNTIME"), one("SCHEDULE_HOST_SVC_DOWNTIME")]
}

/// Ends Shoal's downtimes of a host and its services, and nobody else's.
pub(super) fn no_downtime(host: &HostName) -> String {
    format!("DEL_DOWNTIME_BY_HOST_NAME;{host};;;{COMMENT}")
}

/// The mark of what the server has read.
pub(super) fn mark(cache: &Path) -> Option<String> {
    let lines = io::BufReader::new(fs::File::open(cache).ok()?).lines();
    let mut ours = false;
    for line in lines {
        let line = line.ok()?;
        let (name, value) = line.trim().split_once('\t').unwrap_or_default();
        match name {
            "timeperiod_name" => ours = value == MARK,
            "alias" if ours => return Some(value.to_owned()),
            // Periods come first.
            "command_name" => return None,
            _ => {}
        }
    }
    None
}

/// The hosts with Shoal's downtime, and when the server said so; nothing is known if it says nothing.
pub(super) fn downtimes(status: &Path) -> Option<Downtimes> {
    let mut file = fs::File::open(status).ok()?;
    let meta = file.metadata().ok()?;
    let said = meta.modified().ok()?;
    let mut size = TAIL.min(meta.len());
    // They stand at the end, after what may be a hundred megabytes of services.
    loop {
        file.seek(SeekFrom::End(-i64::try_from(size).ok()?)).ok()?;
        let mut text = Vec::new();
        (&file).take(size).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        let whole = size == meta.len();
        let before = ["\nservicestatus {", "\nhoststatus {", "\ncontactstatus {", "\nprogramstatus {"];
        if whole || before.iter().any(|kind| text.contains(kind)) {
            return Some((hosts_in(&text), said));
        }
        size = (size * 4).min(meta.len());
    }
}

fn hosts_in(text: &str) -> BTreeSet<HostName> {
    let mut hosts = BTreeSet::new();
    for block in text.split("\nhostdowntime {").skip(1) {
        let block = block.split("\n\t}").next().unwrap_or_default();
        let value =
            |name: &str| block.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        if value("comment") == Some(COMMENT) {
            hosts.extend(value("host_name").and_then(|name| name.parse::<HostName>().ok()));
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shoals_downtimes_are_found_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.dat");
        let of = |kind: &str, host: &str, comment: &str| {
            format!("\n{kind} {{\n\thost_name={host}\n\tdowntime_id=1\n\tcomment={comment}\n\t}}\n")
        };
        let services = of("servicestatus", "web9.example.com", COMMENT).repeat(2_000);
        let many: String =
            (0..2_000).map(|n| of("hostdowntime", &format!("web{n}.example.com"), COMMENT)).collect();
        let others = of("hostdowntime", "db1.example.com", "mine")
            + &of("servicedowntime", "db2.example.com", COMMENT);
        fs::write(&path, format!("{services}{many}{others}")).unwrap();
        let (found, _) = downtimes(&path).unwrap();
        assert_eq!(found.len(), 2_000);
        assert!(!found.contains("db1.example.com"));
        assert!(downtimes(&dir.path().join("none")).is_none());
    }
}
