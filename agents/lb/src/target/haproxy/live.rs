//! What HAProxy runs with, as its sockets say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use shoal_agent::{Fault, HostName};

use super::socket::Socket;
use crate::item::Server;

/// One server of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) weight: u16,
    /// It was put into maintenance or drained by somebody, at run time.
    pub(super) withdrawn: bool,
    /// It is able to serve, and does.
    pub(super) serves: bool,
    pub(super) connections: u64,
}

impl Running {
    /// Whether it runs as this, ready to serve.
    pub(super) fn is(&self, server: &Server) -> bool {
        !self.withdrawn && self.stands(server) && self.weight == server.weight
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

/// Asks for one backend.
///
/// # Errors
/// HAProxy does not answer, or says something that cannot be understood.
pub(super) async fn backend(socket: &Socket, name: &str, variable: &str) -> Result<Backend, Fault> {
    let line = format!("get var {variable};show servers state {name};show stat {name} 6 -1");
    let answer = socket.ask(&line).await?;
    parse(&answer, variable).map_err(|why| Fault::new(format!("understand what HAProxy says of {name}"), why))
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
const STAT: [&str; 5] = ["svname", "scur", "status", "act", "type"];

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
        serves: false,
        connections: 0,
    };
    Ok(Some((host, running)))
}

/// A line of numbers: of a server, or of the whole backend.
fn count(
    backend: &mut Backend,
    fields: &[&str],
    [name, scur, status, act, kind]: [usize; 5],
) -> Result<(), String> {
    match field(fields, kind)? {
        "1" => {
            backend.there = true;
            backend.at_work = number(field(fields, act)?)?;
        }
        "2" => {
            let Ok(host) = field(fields, name)?.parse::<HostName>() else { return Ok(()) };
            let Some(running) = backend.servers.get_mut(&host) else { return Ok(()) };
            running.connections = number(field(fields, scur)?)?;
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
/// The master does not answer. A process that ends meanwhile has none.
pub(super) async fn left_behind(master: &Socket, name: &str) -> Result<BTreeMap<HostName, u64>, Fault> {
    let mut all = BTreeMap::new();
    for pid in old_workers(&master.ask("show proc").await?) {
        let answer = master.ask(&format!("@!{pid} show stat {name} 4 -1")).await?;
        let Some(head) = answer.lines().find(|line| line.starts_with("# pxname,")) else { continue };
        let fault =
            |why| Fault::new(format!("understand what the process {pid} of HAProxy says of {name}"), why);
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
        # pxname,svname,scur,status,act,type,\nweb,a.example.com,3,UP,1,2,\nweb,b.example.com,0,DRAIN,1,2,\nweb,BACKEND,3,UP,1,1,\n\n";

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
}
