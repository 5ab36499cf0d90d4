//! What HAProxy runs with, as its sockets say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use shoal_agent::{Fault, HostName};

use super::socket::Socket;
use crate::item::Server;
use crate::spec::DRAIN;
use crate::target::file::{Kept, Line};

/// One server of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) weight: u16,
    /// It was put into maintenance or drained by somebody, at run time.
    pub(super) withdrawn: bool,
    pub(super) backup: bool,
    /// It is able to serve, and does.
    pub(super) serves: bool,
    pub(super) connections: u64,
}

impl Running {
    /// Whether it runs as this, ready to serve.
    pub(super) fn is(&self, server: &Server) -> bool {
        !self.withdrawn && self.stands(server) && self.weight == server.weight && self.backup == server.backup
    }

    /// Whether it stands there, whatever work it gets.
    pub(super) fn stands(&self, server: &Server) -> bool {
        self.address == Some(server.address) && self.port == server.port
    }
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backend {
    /// HAProxy has it.
    pub(super) there: bool,
    /// The form of the pool that it runs with.
    pub(super) form: Option<String>,
    /// How many servers do its work.
    pub(super) at_work: u32,
    pub(super) servers: BTreeMap<HostName, Running>,
}

impl Backend {
    /// The lines of a file that say it as it runs. How long a server may drain, HAProxy does not know.
    pub(super) fn as_it_runs(&self) -> BTreeMap<HostName, Line> {
        let line = |(host, running): (&HostName, &Running)| {
            let (address, port, weight) = (running.address?, running.port, running.weight);
            let server = Server { address, port, weight, backup: running.backup, drain: DRAIN };
            let kept = Kept { host: host.clone(), server, draining: running.withdrawn };
            Some((host.clone(), Line::Made(kept)))
        };
        self.servers.iter().filter_map(line).collect()
    }
}

/// The names of all backends.
///
/// # Errors
/// HAProxy does not answer, or says something that cannot be understood.
pub(super) async fn backends(socket: &Socket) -> Result<Vec<String>, Fault> {
    let answer = socket.ask("show stat -1 2 -1").await?;
    if !answer.starts_with("# pxname,") {
        let why = format!("it begins with no table: {:?}", answer.get(..80).unwrap_or(&answer));
        return Err(Fault::new("understand which backends HAProxy has", why));
    }
    let lines = answer.lines().skip(1).filter_map(|line| line.split_once(','));
    Ok(lines.map(|(name, _)| name.to_owned()).collect())
}

/// Asks for one backend.
///
/// # Errors
/// HAProxy does not answer, or says something that cannot be understood.
pub(super) async fn backend(socket: &Socket, name: &str, variable: &str) -> Result<Backend, Fault> {
    let line = format!("get var {variable};show servers state {name};show stat {name} 6 -1");
    let answer = socket.ask(&line).await?;
    parse(&answer, variable).map_err(|why| Fault::new(format!("understand what HAProxy says of {name}"), why))
}

/// The same, without its servers. Costs as much in a large pool as in a small one.
///
/// # Errors
/// As there.
pub(super) async fn summary(socket: &Socket, name: &str, variable: &str) -> Result<Backend, Fault> {
    let answer = socket.ask(&format!("get var {variable};show stat {name} 2 -1")).await?;
    parse(&answer, variable).map_err(|why| Fault::new(format!("understand what HAProxy says of {name}"), why))
}

/// Whether HAProxy runs with this pool, and has none of these servers in it.
///
/// # Errors
/// HAProxy does not answer.
pub(super) async fn lacks(
    socket: &Socket,
    name: &str,
    variable: &str,
    hosts: &[&HostName],
) -> Result<bool, Fault> {
    let ask = hosts.iter().map(|host| format!(";get weight {name}/{host}"));
    let answer = socket.ask(&format!("get var {variable}{}", ask.collect::<String>())).await?;
    let known = answer.lines().any(|line| value(line, variable).is_some());
    let missing = answer.lines().filter(|line| line.starts_with("No such server")).count();
    Ok(known && missing == hosts.len())
}

/// The form of the pool that HAProxy runs with; nothing where it runs without it.
///
/// # Errors
/// HAProxy does not answer.
pub(super) async fn form(socket: &Socket, variable: &str) -> Result<Option<String>, Fault> {
    let answer = socket.ask(&format!("get var {variable}")).await?;
    Ok(answer.lines().find_map(|line| value(line, variable)))
}

/// The value of the variable, if the line is about it.
fn value(line: &str, variable: &str) -> Option<String> {
    let rest = line.strip_prefix(variable)?.strip_prefix(':')?;
    Some(rest.split_once("value=<")?.1.split_once('>')?.0.to_owned())
}

/// The columns of `show servers state` that are read, by name.
const STATE: [&str; 5] = ["srv_name", "srv_addr", "srv_admin_state", "srv_uweight", "srv_port"];
/// The columns of `show stat` that are read, by name.
const STAT: [&str; 6] = ["svname", "scur", "status", "act", "bck", "type"];

fn columns<const N: usize>(head: &str, names: [&str; N], by: &[char]) -> Result<[usize; N], String> {
    let all: Vec<&str> = head.trim_start_matches("# ").split(by).collect();
    let mut at = [0; N];
    for (place, name) in at.iter_mut().zip(names) {
        *place = all.iter().position(|one| *one == name).ok_or(format!("it has no column {name}"))?;
    }
    Ok(at)
}

fn parse(answer: &str, variable: &str) -> Result<Backend, String> {
    let mut backend = Backend::default();
    let mut state = None;
    let mut stat = None;
    for line in answer.lines().filter(|line| !line.is_empty()) {
        if let Some(form) = value(line, variable) {
            backend.form = Some(form);
        } else if line.starts_with("# be_id ") {
            state = Some(columns(line, STATE, &[' '])?);
        } else if line.starts_with("# pxname,") {
            (state, stat) = (None, Some(columns(line, STAT, &[','])?));
        } else if let Some(at) = state {
            let fields: Vec<&str> = line.split(' ').collect();
            if let Some((host, running)) = server(&fields, at)? {
                backend.servers.insert(host, running);
            }
        } else if let Some(at) = stat {
            let fields: Vec<&str> = line.split(',').collect();
            count(&mut backend, &fields, at)?;
        }
    }
    if stat.is_none() && backend.there {
        return Err("it breaks off".to_owned());
    }
    Ok(backend)
}

fn field<'a>(fields: &[&'a str], at: usize) -> Result<&'a str, String> {
    fields.get(at).copied().ok_or_else(|| "a line is too short".to_owned())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// A server; `None`: its name is no host's, so Shoal did not make it.
fn server(
    fields: &[&str],
    [name, addr, admin, weight, port]: [usize; 5],
) -> Result<Option<(HostName, Running)>, String> {
    let Ok(host) = field(fields, name)?.parse() else { return Ok(None) };
    let admin: u32 = number(field(fields, admin)?)?;
    let running = Running {
        address: field(fields, addr)?.parse().ok(),
        port: number(field(fields, port)?)?,
        weight: number(field(fields, weight)?)?,
        // All of its flags are of maintenance or of draining, but two: that it is disabled in the file, and that it waits for a name.
        withdrawn: admin & 0x7f != 0,
        backup: false,
        serves: false,
        connections: 0,
    };
    Ok(Some((host, running)))
}

/// A line of numbers: of a server, or of the whole backend.
fn count(
    backend: &mut Backend,
    fields: &[&str],
    [name, scur, status, act, bck, kind]: [usize; 6],
) -> Result<(), String> {
    match field(fields, kind)? {
        "1" => {
            backend.there = true;
            backend.at_work = number(field(fields, act)?)?;
            // Backups have work only then; and the line of the whole comes after those of its servers.
            if backend.at_work == 0 {
                backend.at_work = number(field(fields, bck)?)?;
            } else {
                backend.servers.values_mut().for_each(|running| running.serves &= !running.backup);
            }
        }
        "2" => {
            let Ok(host) = field(fields, name)?.parse::<HostName>() else { return Ok(()) };
            let Some(running) = backend.servers.get_mut(&host) else { return Ok(()) };
            running.connections = number(field(fields, scur)?)?;
            running.backup = field(fields, bck)? == "1";
            let status = field(fields, status)?;
            let able = status.starts_with("UP") || status == "no check";
            running.serves = able && running.weight > 0 && !running.withdrawn;
        }
        _ => {}
    }
    Ok(())
}

/// The connections of each server of a backend in the processes that a reload left behind.
///
/// # Errors
/// The master or one of the processes does not answer. A process that ends meanwhile has none, nor has one that began before there was such a backend.
pub(super) async fn left_behind(master: &Socket, name: &str) -> Result<BTreeMap<HostName, u64>, Fault> {
    let mut all = BTreeMap::new();
    for pid in old_workers(&master.ask("show proc").await?) {
        let Some(answer) = ask_old(master, pid, &format!("show stat {name} 4 -1")).await? else { continue };
        let fault =
            |why| Fault::new(format!("understand what the process {pid} of HAProxy says of {name}"), why);
        let Some(head) = answer.lines().find(|line| line.starts_with("# pxname,")) else {
            if answer.contains("No such proxy") {
                continue;
            }
            return Err(fault(format!("it begins with no table: {answer:?}")));
        };
        let at = columns(head, ["svname", "scur"], &[',']).map_err(fault)?;
        for line in answer.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let fields: Vec<&str> = line.split(',').collect();
            let Ok(host) = field(&fields, at[0]).map_err(fault)?.parse::<HostName>() else { continue };
            let connections: u64 = field(&fields, at[1]).and_then(number).map_err(fault)?;
            *all.entry(host).or_default() += connections;
        }
    }
    Ok(all)
}

/// Asks a process that a reload left behind; nothing: it has ended. The master says the same of one that has ended and of one that is busy, so only its list
/// tells.
///
/// # Errors
/// The master does not answer, or the process does not, and has not ended.
pub(super) async fn ask_old(master: &Socket, pid: u32, command: &str) -> Result<Option<String>, Fault> {
    let answer = master.ask(&format!("@!{pid} {command}")).await?;
    let refused = ["Can't connect to the target CLI", "Can't find the target"];
    if !answer.is_empty() && !refused.iter().any(|text| answer.contains(text)) {
        return Ok(Some(answer));
    }
    let said = master.ask("show proc").await?;
    let listed = worker(&said).0.is_some();
    if listed && !old_workers(&said).contains(&pid) {
        return Ok(None);
    }
    let why = format!("it does not answer, and has not ended {}", answer.trim());
    Err(Fault::new(format!("ask the process {pid} that a reload of HAProxy left behind"), why.trim()))
}

/// The processes that a reload left behind, of what the master says.
pub(super) fn old_workers(said: &str) -> Vec<u32> {
    let old = said.lines().skip_while(|line| !line.starts_with("# old workers"));
    let old = old.skip(1).take_while(|line| !line.starts_with('#'));
    old.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

/// The process that works, and how many reloads have failed, of what the master says.
pub(super) fn worker(said: &str) -> (Option<u32>, Option<u32>) {
    let failed = said.split_once("[failed: ").and_then(|(_, rest)| rest.split_once(']')?.0.parse().ok());
    let new = said.lines().skip_while(|line| !line.starts_with("# workers")).skip(1);
    let new = new.take_while(|line| !line.starts_with('#'));
    let pid = new.filter_map(|line| line.split_whitespace().next()?.parse().ok()).next();
    (pid, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "proc.shoal_1: type=str value=<abc>\n\n1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port\n\
        2 web 1 a.example.com 127.0.0.1 2 0 100 100 80\n2 web 2 b.example.com ::1 2 8 50 50 81\n2 web 3 not/a-host 127.0.0.1 2 0 1 1 1\n\n\
        # pxname,svname,scur,status,act,bck,type,\nweb,a.example.com,3,UP,1,0,2,\nweb,b.example.com,0,DRAIN,1,0,2,\nweb,BACKEND,3,UP,1,0,1,\n\n";

    #[test]
    fn a_backend_is_read() {
        let backend = parse(SAID, "proc.shoal_1").unwrap();
        assert!(backend.there && backend.at_work == 1 && backend.form.as_deref() == Some("abc"));
        let (a, b) = (&backend.servers["a.example.com"], &backend.servers["b.example.com"]);
        assert!(a.serves && a.connections == 3 && !a.withdrawn && a.port == 80);
        assert!(!b.serves && b.withdrawn && b.address == Some("::1".parse().unwrap()));
        assert_eq!(backend.servers.len(), 2);
    }

    #[test]
    fn backups_do_the_work_that_nobody_else_can() {
        let said = |act: u32| {
            let said = SAID.replace("a.example.com,3,UP,1,0,", "a.example.com,3,UP,0,1,");
            parse(&said.replace("BACKEND,3,UP,1,0,", &format!("BACKEND,3,UP,{act},1,")), "proc.shoal_1")
                .unwrap()
        };
        let (spared, needed) = (said(2), said(0));
        assert!(spared.at_work == 2 && spared.servers["a.example.com"].backup);
        assert!(!spared.servers["a.example.com"].serves);
        assert!(needed.at_work == 1 && needed.servers["a.example.com"].serves);
    }

    #[test]
    fn none_is_none_and_half_of_one_is_not_known() {
        let none = "Variable not found.\n\nCan't find backend.\n\nNo such proxy.\n\n";
        assert_eq!(parse(none, "proc.shoal_1").unwrap(), Backend::default());
        for (from, to) in [(" 80\n", "\n"), ("srv_port", "port"), (",3,UP,", ",x,UP,"), ("scur", "s")] {
            assert!(parse(&SAID.replacen(from, to, 1), "proc.shoal_1").is_err(), "{from}");
        }
    }

    #[test]
    fn the_masters_list_is_read() {
        let said = "#<PID> <type> <reloads>\n15 master 1 [failed: 2]   0d\n# workers\n17 worker 0 0d\n# old workers\n16 worker 1 0d\n# programs\n";
        assert_eq!(old_workers(said), [16]);
        assert_eq!(worker(said), (Some(17), Some(2)));
    }

    /// A master that says this of its processes, by turns, and this for the rest.
    fn master(folder: &std::path::Path, lists: &'static [&str], answer: &'static str) -> Socket {
        use std::io::{Read as _, Write as _};
        let path = folder.join("master.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let mut lists = lists.iter();
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut asked = String::new();
                stream.read_to_string(&mut asked).unwrap();
                let said = if asked.starts_with("show proc") { lists.next().unwrap() } else { answer };
                stream.write_all(said.as_bytes()).unwrap();
            }
        });
        Socket::new(path, std::time::Duration::from_secs(5))
    }

    const OLD: &str = "#<PID> <type>\n15 master 1\n# workers\n17 worker 0\n# old workers\n16 worker 1\n";
    const NONE: &str = "#<PID> <type>\n15 master 1\n# workers\n17 worker 0\n# old workers\n";

    #[tokio::test]
    async fn a_process_that_says_nothing_has_ended_or_is_not_known() {
        let table = "# pxname,svname,qcur,scur,\nweb,a.example.com,0,3,\n\n";
        let refused = "Can't connect to the target CLI!\n";
        let cases: [(&'static [&str], &str, Option<u64>); 6] = [
            (&[OLD], table, Some(3)),
            // It began before there was such a pool.
            (&[OLD], "No such proxy.\n\n", Some(0)),
            (&[OLD, NONE], refused, Some(0)),
            (&[OLD, OLD], refused, None),
            (&[OLD, OLD], "", None),
            (&[OLD, ""], refused, None),
        ];
        for (lists, answer, connections) in cases {
            let dir = tempfile::tempdir().unwrap();
            let left = left_behind(&master(dir.path(), lists, answer), "web").await;
            let left = left.ok().map(|left| left.get("a.example.com").copied().unwrap_or(0));
            assert_eq!(left, connections, "{answer}");
        }
    }
}
