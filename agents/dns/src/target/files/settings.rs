//! `[agent.bind]`, `[agent.nsd]` or `[agent.knot]` in the node's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use shoal_agent::Fault;

use super::kind::ServerKind;
use crate::name::Zone;
use crate::target::SerialStyle;

/// The table as it is written. What it leaves out is as its kind of server needs it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneFileTable {
    directory: PathBuf,
    file: Option<String>,
    check: Option<Vec<String>>,
    reload: Option<Vec<String>>,
    add: Option<Vec<String>>,
    remove: Option<Vec<String>>,
    server: Option<SocketAddr>,
    within: Option<u64>,
    #[serde(default)]
    serial: SerialStyle,
    max_records: Option<usize>,
    #[serde(default)]
    adopt: Vec<String>,
}

/// How and where zone files are written, checked and loaded. In commands, `{zone}` is the zone's name and `{file}` the
/// path of the file; nothing goes through a shell that the command does not name.
#[derive(Clone, Debug)]
pub struct ZoneFileSettings {
    /// Who reads the files.
    pub kind: ServerKind,
    /// Where the zone files are. It must exist.
    pub directory: PathBuf,
    /// The name of a zone's file in it.
    pub file: String,
    /// Accepts or refuses a candidate; nothing: only Shoal's own checks.
    pub check: Vec<String>,
    /// Makes the server read the file again; nothing: somebody else does.
    pub reload: Vec<String>,
    /// Makes the server know a zone that `reload` failed for (`rndc addzone …`); nothing: a person does.
    pub add: Vec<String>,
    /// Makes the server forget a zone, before its file is removed (`rndc delzone {zone}`); nothing: a person does.
    pub remove: Vec<String>,
    /// Where the server answers: it is asked for the serial after a reload, and on every look.
    pub server: Option<SocketAddr>,
    /// How long, in seconds, a command may take, and the server to serve a new serial.
    pub within: u64,
    /// How serials are counted.
    pub serial: SerialStyle,
    /// How many records of one name and type, and how many types of one name, the server takes: BIND's `max-records-per-type`
    /// and `max-types-per-name`. 0: any number.
    pub max_records: usize,
    /// Zones whose file, made by somebody else, Shoal may take over.
    pub adopt: Vec<String>,
}

impl ZoneFileSettings {
    /// What a table means for this kind of server.
    #[must_use]
    pub fn new(kind: ServerKind, table: ZoneFileTable) -> Self {
        let usual = kind.traits();
        let ZoneFileTable { directory, file, server, within, serial, adopt, .. } = table;
        let command = |said: Option<Vec<String>>, usual: &[&str]| {
            said.unwrap_or_else(|| usual.iter().map(|word| (*word).to_owned()).collect())
        };
        Self {
            kind,
            directory,
            file: file.unwrap_or_else(|| "{zone}.zone".to_owned()),
            check: command(table.check, usual.check),
            reload: command(table.reload, usual.reload),
            add: command(table.add, usual.add),
            remove: command(table.remove, usual.remove),
            server,
            within: within.unwrap_or(30),
            serial,
            max_records: table.max_records.unwrap_or(usual.max_records),
            adopt,
        }
    }

    /// Files in this directory as BIND reads them, checked by Shoal alone, loaded by nobody.
    #[must_use]
    pub fn files(directory: impl Into<PathBuf>) -> Self {
        let nothing = Some(Vec::new());
        let table = ZoneFileTable {
            directory: directory.into(),
            check: nothing.clone(),
            reload: nothing,
            ..ZoneFileTable::default()
        };
        Self::new(ServerKind::Bind, table)
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        let usual = self.kind.traits();
        let bad = |why: String| {
            Err(Fault::new(format!("read {} of the configuration", usual.table), why).permanent())
        };
        if self.file.contains('/') || self.file.starts_with('.') || !self.file.contains("{zone}") {
            return bad(format!(
                "file = {:?} must be a plain file name with {{zone}} in it, not hidden",
                self.file
            ));
        }
        if self.within == 0 {
            return bad("within = 0 leaves no time; write at least 1".to_owned());
        }
        if usual.must_be_asked && self.server.is_none() && !self.reload.is_empty() {
            return bad(format!(
                "server is missing: the reload of {} can succeed for a zone that is not loaded, so its answers have to be \
                 looked at; write where it answers, as in server = \"127.0.0.1:53\"",
                usual.name
            ));
        }
        match self.adopt.iter().find_map(|zone| Zone::parse(zone).err()) {
            Some(why) => bad(format!("adopt: {why}")),
            None => Ok(()),
        }
    }

    pub(super) fn within(&self) -> Duration {
        Duration::from_secs(self.within)
    }

    /// How long a look waits for the server's answer; after that nothing is known.
    pub(super) fn answer_within(&self) -> Duration {
        self.within().min(Duration::from_secs(1))
    }

    pub(super) fn adopts(&self, zone: &Zone) -> bool {
        self.adopt.iter().any(|name| Zone::parse(name).is_ok_and(|name| name == *zone))
    }
}
