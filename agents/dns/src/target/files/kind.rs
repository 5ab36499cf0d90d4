//! What differs between the servers that read zone files. All of it is here, and all of it is data: the way of a file
//! to the server is the same.

/// A server that reads zone files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerKind {
    /// ISC's BIND.
    #[default]
    Bind,
    /// NLnet Labs' NSD.
    Nsd,
    /// CZ.NIC's Knot DNS.
    Knot,
}

/// What is known of a kind of server.
pub(super) struct Traits {
    /// What people call it.
    pub(super) name: &'static str,
    /// Its table in the configuration.
    pub(super) table: &'static str,
    /// The commands where the configuration names none, see [`ZoneFileSettings`](super::ZoneFileSettings).
    pub(super) check: &'static [&'static str],
    pub(super) reload: &'static [&'static str],
    pub(super) add: &'static [&'static str],
    pub(super) remove: &'static [&'static str],
    /// How many records of one name and type, and types of one name, it takes; 0 is any number.
    pub(super) max_records: usize,
    /// Whether the exit codes of `reload`, `add` and `remove` say so little that it has to be asked what it serves.
    pub(super) must_be_asked: bool,
    /// Whether it refuses a zone with names below a DNAME.
    pub(super) bare_dnames: bool,
    /// What a checker that failed says last, and what it adds if the server would not load the zone either.
    pub(super) harmless: Option<(&'static str, &'static str)>,
}

const BIND: Traits = Traits {
    name: "BIND",
    table: "[agent.bind]",
    // Local: without questions to other people's name servers.
    check: &["named-checkzone", "-i", "local", "-k", "fail", "{zone}", "{file}"],
    reload: &["rndc", "reload", "{zone}"],
    // Both need `allow-new-zones`, which is off unless somebody asks for it.
    add: &[],
    remove: &[],
    // Since 9.18.28.
    max_records: 100,
    must_be_asked: false,
    bare_dnames: false,
    harmless: None,
};

const NSD: Traits = Traits {
    name: "NSD",
    table: "[agent.nsd]",
    check: &["nsd-checkzone", "{zone}", "{file}"],
    // Ends before the file is read, and then with success for a broken one as well.
    reload: &["nsd-control", "reload", "{zone}"],
    add: &["nsd-control", "addzone", "{zone}", "shoal"],
    remove: &["nsd-control", "delzone", "{zone}"],
    max_records: 0,
    must_be_asked: true,
    bare_dnames: true,
    harmless: None,
};

const KNOT: Traits = Traits {
    name: "Knot",
    table: "[agent.knot]",
    // It names lines only when told to be verbose.
    check: &["kzonecheck", "-v", "-o", "{zone}", "{file}"],
    // Blocking: else it ends before the file is read.
    reload: &["knotc", "-b", "zone-reload", "{zone}"],
    // One program, so that an agent that is killed leaves no transaction open: Knot has room for one.
    add: &[
        "sh",
        "-c",
        "knotc conf-begin && { { knotc conf-set \"zone[$1]\" && knotc conf-set \"zone[$1].file\" \"$2\" && knotc conf-commit; } || { knotc conf-abort; false; }; }",
        "add",
        "{zone}",
        "{file}",
    ],
    remove: &[
        "sh",
        "-c",
        "knotc conf-begin && { { knotc conf-unset \"zone[$1]\" && knotc conf-commit; } || { knotc conf-abort; false; }; }",
        "remove",
        "{zone}",
    ],
    max_records: 0,
    must_be_asked: true,
    bare_dnames: true,
    // It fails for a delegation without glue too, which Knot loads with a warning.
    harmless: Some(("Error summary:", "Serious semantic error detected")),
};

impl ServerKind {
    pub(super) fn traits(self) -> &'static Traits {
        match self {
            Self::Bind => &BIND,
            Self::Nsd => &NSD,
            Self::Knot => &KNOT,
        }
    }
}

impl Traits {
    /// Whether the server loads what its checker complained about like this.
    pub(super) fn loads_all_the_same(&self, complaint: &str) -> bool {
        self.harmless.is_some_and(|(last, serious)| complaint.contains(last) && !complaint.contains(serious))
    }
}
