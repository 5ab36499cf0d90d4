//! What the command line may say.

mod access;
mod agents;
mod database;
mod groups;
mod manual;
mod placement;
mod read;
mod restore;
mod rewrite;
mod tools;
mod write;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use shoal_hostdb::{Access, DEFAULT_STORE, ServeArgs};

pub(crate) use self::access::{
    Acl, AclSet, AclWork, Can, Entry, GroupCommand, GroupWork, NewToken, Password, ReviewCommand, ReviewWork,
    Revoke, Ruled, TokenCommand, TokenWork, UserCommand, UserWork, Wanted, When,
};
pub(crate) use self::agents::{Adopt, Approve, Pause, Status, Wait};
pub(crate) use self::database::{Database, Migrate, Work};
pub(crate) use self::groups::{RangeCommand, RangeWork, Scale};
pub(crate) use self::manual::{Completions, Manual, Program};
pub(crate) use self::placement::{Capacity, Evacuate, Rebalance};
pub(crate) use self::read::{
    Blame, Diff, Effective, Explain, Export, Get, Log, Members, Parents, Search, Show,
};
pub(crate) use self::restore::Restore;
pub(crate) use self::rewrite::rewrite;
pub(crate) use self::tools::{Enc, Facts, FactsWork, Inventory, Upload};
pub(crate) use self::write::{
    Apply, EditKey, Import, ImportAnsible, ImportFrom, ImportHaproxy, ImportZone, Mv, Put, Rm, Rollback,
    TagCommand,
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "shoal",
    version,
    about = "Hosts and tags in one versioned database, and the agents that follow it",
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// The database: sqlite:PATH, https://HOST:PORT, http://HOST:PORT or unix:/PATH of a server (several with commas), etcds://HOST,HOST, or memory: to try things out
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "URL",
        env = "SHOAL_STORE",
        default_value = DEFAULT_STORE
    )]
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) access: Access,
    /// How to print
    #[arg(long, short = 'o', global = true, help_heading = "Everywhere", value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  shoal put web4.example.com address=192.0.2.4 -m 'a fourth web server'
  shoal tag dns/example.com +web4.example.com -web1.example.com -m 'replace web1'
  shoal wait --timeout 30s
  shoal explain web4.example.com
  shoal log dns/example.com
  shoal rollback dns/example.com --to 41 --plan

Names: a host is written web4.example.com, a tag dns/example.com, and anything else by its key (facts/vm/web4…).
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 --plan found changes, 4 a conflict or something held, 5 still waiting.";

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables and texts for people.
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Who writes, and why.
#[derive(Args, Clone, Debug)]
pub(crate) struct Sign {
    /// Why: it stands in the log (required)
    #[arg(long, short = 'm', value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
    /// Who says so; without it $SHOAL_AUTHOR, else $USER
    #[arg(long, value_name = "NAME")]
    pub(crate) author: Option<String>,
    /// Propose it, for somebody else to approve (`shoal review`), instead of doing it
    #[arg(long)]
    pub(crate) review: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show hosts, tags and anything else; without names, list all hosts
    #[command(after_help = "\
Examples:
  shoal get                          all hosts
  shoal get tags                     all tags; shoal get dns/ those of one namespace
  shoal get web1.example.com > web1.yaml
  shoal get dns/example.com --revision 41")]
    Get(Get),
    /// Make or change a host or a tag
    #[command(after_help = "\
Examples:
  shoal put web4.example.com address=192.0.2.4 cpus=4 -m 'new'
  shoal put web4.example.com --state draining -m 'to be replaced'
  shoal put web4.example.com dns.ttl=60 rack- -m 'sets one field, removes another'
  shoal put dns/example.com ttl=300 --member web4.example.com --member @internal -m 'new zone'
  shoal put -f web1.yaml -m 'edited'    (replaces; refused if somebody changed it since it was read)")]
    Put(Put),
    /// Change a host, a tag or another row in $VISUAL or $EDITOR
    #[command(after_help = "\
What is unchanged or emptied is not written. What is refused comes back with the reason on top. If somebody else changes it
meanwhile, both changes are put together and shown again; what was typed is kept in a file.
Examples:
  shoal edit web1.example.com -m 'the new disk'
  EDITOR='code --wait' shoal edit dns/example.com -m 'a shorter ttl'")]
    Edit(EditKey),
    /// Delete hosts, tags or other rows; history stays
    Rm(Rm),
    /// Rename a host or a tag; every tag that names it follows
    Mv(Mv),
    /// Add members to a tag and take members out
    #[command(after_help = "\
Members: a host (web1.example.com), a tag of the same namespace (@internal), a tag of another one (@tags/rdu3), or a
rule ('select: site == \"rdu3\"'). In dns/example.com, web4 is web4.example.com, unless a host is called just web4.
Examples:
  shoal tag dns/example.com +web4.example.com -web1.example.com -m 'replace web1'
  shoal tag dns/example.com +@internal '+select: site == \"rdu3\"' -m 'the whole site'")]
    Tag(TagCommand),
    /// Make one commit of many documents
    #[command(after_help = "\
A file holds YAML documents (---), or a JSON list, each a host or a tag:
  host: web1.example.com
  document: {address: 192.0.2.1}
  ---
  tag: dns/example.com
  document: {ttl: 300}
  members: [web1.example.com]
or something else to do:
  edit: delete
  key: hosts/web9.example.com
Examples:
  shoal apply -f fleet.yaml --plan
  shoal apply -f fleet.yaml -m 'the whole fleet'
  generate | shoal apply -f - -m 'generated'")]
    Apply(Apply),
    /// Find hosts by an expression, as rules of tags have it
    #[command(after_help = "\
The expression is CEL: a host's fields, name, state, owner, environment and facts; gib(n) and mib(n) are octets.
Examples:
  shoal search 'site == \"rdu3\" && memory >= gib(24)'
  shoal search 'name.startsWith(\"web\") && state == \"active\"'
  shoal search '!has(host.owner_team)' --names | xargs shoal get
  shoal search 'has(facts.vm) && facts.vm.drained' --revision 41")]
    Search(Search),
    /// Show who is in a tag, and how
    Members(Members),
    /// Show which tags a host is in, and how; or which tags nest a tag
    Parents(Parents),
    /// Show what a tag says of a member, with the origin of every value
    Effective(Effective),
    /// Show the newest commits, of everything or of some names
    Log(Log),
    /// Show one commit
    Show(Show),
    /// Show who last wrote each value of a host or tag
    Blame(Blame),
    /// Show what changed between two revisions
    #[command(after_help = "\
Examples:
  shoal diff 41 45                       everything
  shoal diff 41 45 dns/example.com       one tag with its members
  shoal diff 41                          from 41 until now")]
    Diff(Diff),
    /// Go back to an older revision, as a new commit
    #[command(after_help = "\
Examples:
  shoal rollback dns/example.com --to 41 --plan
  shoal rollback dns/example.com --to 41 -m 'the change was wrong'
  shoal rollback --all --to 41 -m 'everything as it was'")]
    Rollback(Rollback),
    /// Show the agents: what they work on, what is behind, held, left out or not understood
    #[command(after_help = "\
Examples:
  shoal status                           all agents
  shoal status dns -v                    one, with everything that it reports")]
    Status(Status),
    /// Wait until every agent that runs has done what the database says, and what follows from it
    #[command(after_help = "\
Exit codes: 0 everything is done, 5 it is not (and what is not is named), 4 something waits for `shoal approve`.
Examples:
  shoal wait                             for the newest revision, and what agents commit in answer
  shoal wait --revision 41 --timeout 5m  for that one alone")]
    Wait(Wait),
    /// Show a host's tags, every effective value with its origin, and what each agent made of it
    Explain(Explain),
    /// Hold a host, a tag or an agent as it is
    #[command(after_help = "\
Examples:
  shoal pause web1.example.com -m 'disk is being replaced'
  shoal pause dns/example.com -m 'registrar outage'
  shoal pause agent/dns -m 'upgrade'     (or `pause dns`, if no host is called so)")]
    Pause(Pause),
    /// Let go what was held with `pause`
    Resume(Pause),
    /// Agree to a batch that a guard stopped
    #[command(after_help = "\
Examples:
  shoal approve                          what is held
  shoal approve dns/example.com --plan   what it would do
  shoal approve dns/example.com -m 'the old fleet is gone'")]
    Approve(Approve),
    /// Give Shoal what stands where something of its own should be, and that it did not make
    #[command(after_help = "\
What is adopted is changed to what is wanted, and goes when its tag does; a machine stays as it is, and goes for a named reason.
Good for exactly what is shown: if either side changes before the agent sees it, nothing happens.
Examples:
  shoal adopt                                          what is in the way
  shoal adopt dns/example.com --plan                   what is there, and what is wanted
  shoal adopt dns/example.com example.com/web1 -m 'the old printer record is ours'")]
    Adopt(Adopt),
    /// Say how many machines a group has, and show what follows
    #[command(after_help = "\
A group is a tag that says `group`. Its placement agent makes machines and drains them, within the group's budget; what it does first is
shown. Where a schedule or a metric decides how many they are, it goes on from this number.
Examples:
  shoal scale vm/unbound 5 --plan
  shoal scale vm/unbound 5 -m 'the summer sale'")]
    Scale(Scale),
    /// Show which numbers and addresses groups of machines hold, and free what nobody can hold any more
    #[command(after_help = "\
A range is a tag of `ranges/`. What a slot of a group holds is its own until the slot is given up: nothing frees it by itself while a
machine may live. Whoever frees something says that its machine is gone.
Examples:
  shoal range list
  shoal range show brokers
  shoal range free brokers 1004 -m 'its group was deleted, and its machine is gone'")]
    Range(RangeCommand),
    /// Show what still fits, by shape, and what breaks if a box dies
    #[command(after_help = "\
It runs `shoal-placement capacity` with this database: how machines are placed stands in that agent's configuration. Shapes are the ten
most frequent ones where none is given, and rules of machines are left out.
Exit codes: 0 whichever box dies, its machines have room; 4 not all have; 1 failed.
Examples:
  shoal capacity
  shoal capacity --size cpu=4,memory=8589934592 --only-free")]
    Capacity(Capacity),
    /// Show where the machines of a box or an availability zone would go
    #[command(after_help = "\
It runs `shoal-placement evacuate` with this database, and writes nothing: nobody moves machines yet.
Exit codes: 0 there are none, 3 they all have somewhere to go, 4 some have no room, 1 failed.
Examples:
  shoal evacuate box1.example.com")]
    Evacuate(Evacuate),
    /// Show which moves of machines would gain something
    #[command(after_help = "\
It runs `shoal-placement rebalance` with this database, and writes nothing: nobody moves machines yet.
Exit codes: 0 no moves gain that much, 3 some do, 1 failed.
Examples:
  shoal rebalance --plan
  shoal rebalance --plan --least 80")]
    Rebalance(Rebalance),
    /// Show and change who may do what in a namespace, or with one key
    #[command(after_help = "\
Rights are none, ro or rw: of the data (the document), of the members, or of both (ann=rw). Whom: a user, @GROUP, 'agent NAME',
'*' (who said who they are), anonymous. The nearest row that names somebody decides: the key's, then its namespace's.
Examples:
  shoal acl show                                          all of it
  shoal acl set lb/ @web=rw '*=ro' -m 'the web team'      a namespace
  shoal acl set lb/web ann=data:rw,members:ro -m 'ports'  one key; ann- takes an entry out
  shoal acl set lb/gold --protected -m 'asks a second person'
  shoal acl remove lb/web -m 'as the namespace has it'")]
    Acl(Acl),
    /// Ask whether somebody may do something, and what decides it; exits with 0 for yes and 1 for no
    #[command(after_help = "\
Examples:
  shoal can ann write lb/web              its document
  shoal can ann write lb/web/members
  shoal can 'agent dns' read hosts/web1.example.com")]
    Can(Can),
    /// Make, list and revoke the tokens by which people and programs are known
    #[command(after_help = "\
A token is shown once; the database has only its hash. It can do what its owner may, less what its scope leaves out.
Examples:
  shoal token create --owner ann --expires 90d -m 'her laptop'
  shoal token create --owner ci --namespace lb --read-only -m 'the build'
  shoal token create --agent dns -m 'ns1'
  shoal token list
  shoal token revoke 0a1b2c3d4e5f -m 'lost'")]
    Token(TokenCommand),
    /// Make, list and remove users, and set their passwords
    #[command(after_help = "\
Examples:
  shoal user add ann -m 'joined'
  systemd-ask-password | shoal user password ann -f - -m 'first password'
  shoal user disable ann -m 'left'        nothing is taken from her any more, neither token nor password
  shoal user list")]
    User(UserCommand),
    /// Put users into groups; who is in `admins` may do everything
    #[command(after_help = "\
Examples:
  shoal group add web ann bob -m 'the web team'
  shoal group remove web bob -m 'moved'
  shoal group list")]
    Group(GroupCommand),
    /// Propose changes for somebody else to approve, and approve or reject them
    #[command(after_help = "\
Every command that writes takes --review, too.
Examples:
  shoal review propose -f change.yaml -m 'more web servers'
  shoal tag lb/gold +web4.example.com --review -m 'one more'
  shoal review list
  shoal review show 3f9a0c12
  shoal review approve 3f9a0c12 -m 'looks right'
  shoal review reject 3f9a0c12 -m 'not on a Friday'")]
    Review(ReviewCommand),
    /// Write the database as documents that `apply -f` takes, or its history as a git repository
    #[command(after_help = "\
Documents come one after the other, all of one revision. With --git each revision becomes a git commit with its author,
message and time; run it again, and what is new is added. A folder that it did not make is left alone.
Examples:
  shoal export > fleet.yaml              everything
  shoal export dns/ web1.example.com     some of it
  shoal export --revision 41 > then.yaml
  shoal export --git /srv/fleet.git && git clone /srv/fleet.git")]
    Export(Export),
    /// Bring in what another system knows
    Import(Import),
    /// Say what Puppet is to do with a node: the command that `external_nodes` names
    #[command(after_help = "\
The tags of the namespace that hold the node say `classes`, `parameters` and `environment`, and the host under the namespace's name. A
database that does not answer is answered for by what it said last, for as long as --max-age allows; how old that is, is said on
standard error. A node that the database does not know is an error, with nothing on standard output.
Examples:
  shoal put puppet/web 'classes={nginx: {workers: 4}}' --member web1.example.com -m 'web servers run nginx'
  shoal enc web1.example.com
In puppet.conf:
  node_terminus = exec
  external_nodes = /usr/local/bin/shoal enc")]
    Enc(Enc),
    /// Work on what machines say of themselves
    Facts(Facts),
    /// Give Ansible its inventory: groups from tags, variables from documents
    #[command(after_help = "\
Examples:
  shoal inventory --list | jq ._meta.hostvars
  shoal inventory --list --where 'site == \"rdu3\"'
  shoal inventory --host web1.example.com
Ansible calls a program without options of its own: deploy/ansible has one, and a plugin. SHOAL_STORE, SHOAL_INVENTORY_NAMESPACE and
SHOAL_INVENTORY_WHERE say to both what the options say.")]
    Inventory(Inventory),
    /// Give a host's files back, as they were backed up, into a folder of their own
    #[command(after_help = "\
It runs `shoal-backup restore`, on a machine whose configuration of the backup agent has the repositories. It needs no database.
Exit codes: 0 restored and read back, 1 failed.
Examples:
  shoal restore web1.example.com --to /srv/restored
  shoal restore web1.example.com /etc/passwd --at 2026-03-01T12:00 --to /srv/restored")]
    Restore(Restore),
    /// Back up the database's file, check it, and restore it
    #[command(after_help = "\
They work on the file itself (--store sqlite:PATH), on the machine where it is; `renew` on etcd.
Examples:
  shoal database backup /backup/shoal.db              while it is in use
  shoal database verify                               0 it is sound, 1 it is not, and what is wrong is named
  shoal database verify /backup/shoal.db
  shoal database restore /backup/shoal.db --replace   after everything that uses it was stopped
  shoal --store etcd://h1,h2,h3 database renew --yes  after etcd was restored from a snapshot, before anything else uses it")]
    Database(Database),
    /// Copy the database with all its history into another store: from a file into etcd, or back
    #[command(after_help = "\
The copy is the same database: every commit at its revision, the ledger, claims that have no end, idempotency keys, and the same epoch, so
that agents go on where they were. What takes long is done while everything runs; then stop the servers and agents that use the database and
run it again, which copies what is new, compares both sides, and only then makes the copy a database that can be opened. The
same command goes on after a kill, too. It names no server: give the file, on its machine, or etcd itself.
Exit codes: 0 done, 1 failed, 2 wrong usage, 4 copied so far, and the database is still in use.
Examples:
  shoal migrate --from sqlite:/var/lib/shoal/shoal.db --to etcd://h1,h2,h3
  shoal migrate --from etcd://h1,h2,h3 --to sqlite:/var/lib/shoal/shoal.db")]
    Migrate(Migrate),
    /// Run the server in this process
    Serve(ServeArgs),
    /// Print what a shell needs to complete command lines
    #[command(after_help = "\
Examples:
  source <(shoal completions bash)       in ~/.bashrc
  shoal completions zsh > ~/.zfunc/_shoal
  shoal completions fish > ~/.config/fish/completions/shoal.fish
`deploy/install` puts them where shells look.")]
    Completions(Completions),
    /// Write the manual pages into a folder
    #[command(after_help = "\
Examples:
  shoal man ~/.local/share/man/man1 && man shoal-apply")]
    Man(Manual),
}

/// A revision.
fn revision(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a revision is a whole number, as `shoal log` shows it".to_owned())
}

/// A point in time.
fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "write a time such as 2027-01-31T00:00:00Z".to_owned())
}
