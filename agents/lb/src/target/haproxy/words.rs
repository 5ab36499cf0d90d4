//! What HAProxy is told of a server at run time.
//!
//! For each command HAProxy goes through the pool's list of servers until it finds the one that is meant. So what a change costs it grows
//! with the number of commands, in a large pool: where it is known what runs, only what differs is told.

use shoal_agent::{Edit, HostName};

use super::render::{self, Language};
use crate::agent::Lb;
use crate::item::{Have, Pool, Server, Standing};
use crate::target::changes::Do;

impl Language {
    /// What HAProxy is told of a server; nothing, where it runs so already and only the file is to say something else.
    pub(super) fn commands(&self, name: &str, pool: &Pool, edit: &Edit<Lb>, host: &HostName) -> Vec<String> {
        let at = format!("{name}/{host}");
        match (Do::of(edit), standing(edit).filter(|standing| standing.known)) {
            (Do::Drain, _) => vec![format!("set server {at} state drain")],
            (Do::Finish, _) => vec![format!("shutdown sessions server {at}")],
            (Do::Remove, _) => vec![format!("set server {at} state maint"), format!("del server {at}")],
            (Do::Put(server), Some(standing)) => update(&at, standing.running(), server),
            (Do::Put(server), None) => {
                let (socket, options) =
                    (render::socket(server), self.options(pool, host, server, server.weight));
                let mut all = vec![format!("add server {at} {socket} {options}")];
                all.extend(pool.check.is_some().then(|| format!("enable health {at}")));
                all.push(format!("set server {at} state ready"));
                all
            }
        }
    }
}

/// What is told of a server that HAProxy has; `runs`: as what, where that is known.
fn update(at: &str, runs: Option<&Server>, server: &Server) -> Vec<String> {
    let mut all = Vec::new();
    if runs.is_none_or(|runs| runs.socket() != server.socket()) {
        all.push(format!("set server {at} addr {} port {}", server.address, server.port));
    }
    if runs.is_none_or(|runs| runs.weight != server.weight) {
        all.push(format!("set server {at} weight {}", server.weight));
    }
    // What is known to run is ready.
    if runs.is_none() {
        all.push(format!("set server {at} state ready"));
    }
    all
}

/// How the server stands that is changed.
pub(super) fn standing(edit: &Edit<Lb>) -> Option<&Standing> {
    match &edit.from {
        Some(Have::Server(standing)) => Some(standing),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Item;

    #[test]
    fn only_what_differs_is_told_where_it_is_known_what_runs() {
        let was = Server { address: [192, 0, 2, 1].into(), port: 80, weight: 100, backup: false, drain: 60 };
        let told = |runs: Option<&Server>, server: &Server| update("web/a", runs, server).join(";");
        let addr = "set server web/a addr 192.0.2.1 port 80";
        assert_eq!(
            told(None, &was),
            format!("{addr};set server web/a weight 100;set server web/a state ready")
        );
        for (is, expected) in [
            (was.clone(), ""),
            (Server { drain: 5, ..was.clone() }, ""),
            (Server { weight: 7, ..was.clone() }, "set server web/a weight 7"),
            (Server { port: 81, ..was.clone() }, "set server web/a addr 192.0.2.1 port 81"),
            (
                Server { address: [192, 0, 2, 2].into(), weight: 0, ..was.clone() },
                "set server web/a addr 192.0.2.2 port 80;set server web/a weight 0",
            ),
        ] {
            assert_eq!(told(Some(&was), &is), expected);
        }
    }

    #[test]
    fn what_runs_is_known_only_of_a_server_that_is_ready_and_as_it_was_made() {
        let server = Server { address: [192, 0, 2, 1].into(), port: 80, weight: 1, backup: false, drain: 1 };
        let Have::Server(made) = Have::from(Item::Server(server.clone())) else { unreachable!() };
        assert_eq!(made.running(), Some(&server));
        for other in [
            Standing { known: false, ..made.clone() },
            Standing { runs: false, ..made.clone() },
            Standing { draining: true, ..made.clone() },
            Standing { server: None, ..made },
        ] {
            assert_eq!(other.running(), None, "{other:?}");
        }
    }
}
