//! A real server that loads zone files, of any kind, on a free loopback port, gone when dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use shoal_dns::target::{ServerKind, ZoneFileSettings, ZoneFileTable};
use tempfile::TempDir;

use super::{Named, Running, dig, free};

enum Server {
    Named(Named),
    Other(Running),
}

pub(crate) struct Primary {
    server: Server,
    pub(crate) kind: ServerKind,
    pub(crate) address: SocketAddr,
}

/// What a test of a server of this kind needs.
pub(crate) fn tools(kind: ServerKind) -> &'static [&'static str] {
    match kind {
        ServerKind::Bind => &["named", "rndc", "named-checkzone", "dig"],
        ServerKind::Nsd => &["nsd", "nsd-control", "nsd-checkzone", "dig"],
        ServerKind::Knot => &["knotd", "knotc", "kzonecheck", "dig"],
    }
}

/// The settings as configuration.
pub(crate) fn config(settings: &ZoneFileSettings) -> String {
    let ZoneFileSettings { kind, directory, check, reload, add, remove, server, within, .. } = settings;
    let table = format!("{kind:?}").to_lowercase();
    let server = server.map_or_else(String::new, |server| format!("server = '{server}'\n"));
    format!(
        "[agent.{table}]\ndirectory = {directory:?}\ncheck = {check:?}\nreload = {reload:?}\nadd = {add:?}\n\
         remove = {remove:?}\n{server}within = {within}\n"
    )
}

impl Primary {
    /// Starts it without a zone. It can be told of zones as long as it runs.
    pub(crate) fn start(kind: ServerKind) -> Self {
        let config = match kind {
            ServerKind::Bind => "",
            ServerKind::Nsd => {
                "remote-control:\n control-enable: yes\n control-interface: DIR/ctl\npattern:\n name: shoal\n \
                 zonefile: DIR/zones/%s.zone\n"
            }
            ServerKind::Knot => "template:\n  - id: default\n    zonefile-sync: -1\n",
        };
        Self::start_with(kind, config)
    }

    /// The same with this configuration after its own.
    pub(crate) fn start_with(kind: ServerKind, config: &str) -> Self {
        // Another test may take a free port between our look and the server's bind.
        for _ in 0..5 {
            if let Some(primary) = Self::try_start(kind, config) {
                return primary;
            }
        }
        panic!("{kind:?} does not start");
    }

    fn try_start(kind: ServerKind, config: &str) -> Option<Self> {
        if kind == ServerKind::Bind {
            let named = Named::start(&[]);
            return Some(Self { kind, address: named.address, server: Server::Named(named) });
        }
        let (port, dir) = (free(), TempDir::new().unwrap());
        std::fs::create_dir(dir.path().join("zones")).unwrap();
        let running = if kind == ServerKind::Nsd { nsd(port, dir, config) } else { knot(port, dir, config) };
        let (address, server) = (([127, 0, 0, 1], port).into(), Server::Other(running));
        let mut primary = Self { server, kind, address };
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let Server::Other(running) = &mut primary.server else { return None };
            if !running.lives() {
                return None;
            }
            if primary.control(&["status"]) {
                return Some(primary);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("{kind:?} is not ready");
    }

    /// The program that talks to the running server, and where that is.
    fn controller(&self) -> Option<(&'static str, &'static str, PathBuf)> {
        let Server::Other(running) = &self.server else { return None };
        Some(match self.kind {
            ServerKind::Nsd => ("nsd-control", "-c", running.dir().join("conf")),
            _ => ("knotc", "-s", running.dir().join("ctl")),
        })
    }

    /// Has the server do something; whether it said that it did.
    pub(crate) fn control(&self, args: &[&str]) -> bool {
        match (&self.server, self.controller()) {
            (_, Some((program, option, place))) => {
                let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
                let run = Command::new(program).env("PATH", path).arg(option).arg(place).args(args).output();
                run.unwrap().status.success()
            }
            (Server::Named(named), None) => named.rndc(args),
            (Server::Other(_), None) => false,
        }
    }

    /// The directory of zone files.
    pub(crate) fn zones(&self) -> PathBuf {
        match &self.server {
            Server::Named(named) => named.zones(),
            Server::Other(running) => running.dir().join("zones"),
        }
    }

    pub(crate) fn file(&self, zone: &str) -> PathBuf {
        self.zones().join(format!("{zone}.zone"))
    }

    /// Settings for a target in front of it: those that its kind has by itself, but for places.
    pub(crate) fn settings(&self) -> ZoneFileSettings {
        if let Server::Named(named) = &self.server {
            let (add, remove) = (named.addzone(), named.delzone());
            return ZoneFileSettings { add, remove, ..named.settings() };
        }
        let table: ZoneFileTable = toml::from_str(&format!(
            "directory = {:?}\nserver = '{}'\nwithin = 30",
            self.zones(),
            self.address
        ))
        .unwrap();
        let mut settings = ZoneFileSettings::new(self.kind, table);
        for command in [&mut settings.reload, &mut settings.add, &mut settings.remove] {
            *command = self.here(command);
        }
        settings
    }

    /// A command for the server of a machine, made one for this server.
    pub(crate) fn here(&self, command: &[String]) -> Vec<String> {
        let Some((program, option, place)) = self.controller() else { return command.to_vec() };
        let place = place.display().to_string();
        if command[0] == program {
            let words = [program.to_owned(), option.to_owned(), place];
            return words.into_iter().chain(command[1..].to_vec()).collect();
        }
        let with = format!("{program} {option} {place}");
        command.iter().map(|word| word.replace(program, &with)).collect()
    }

    /// The same as configuration.
    pub(crate) fn config(&self) -> String {
        config(&self.settings())
    }

    /// The addresses of `web1.example.com`.
    pub(crate) fn web1(&self) -> Vec<String> {
        let found = dig(self.address, "web1.example.com A").answer();
        found.into_iter().filter_map(|line| line.rsplit(' ').next().map(str::to_owned)).collect()
    }
}

fn nsd(port: u16, dir: TempDir, more: &str) -> Running {
    let config = format!(
        "server:\n ip-address: 127.0.0.1@{port}\n username: \"\"\n chroot: \"\"\n zonesdir: DIR\n database: \"\"\n \
         pidfile: DIR/pid\n xfrdfile: DIR/xfrd\n xfrdir: DIR\n zonelistfile: DIR/list\n logfile: DIR/log\n \
         server-count: 1\n minimal-responses: yes\n{more}"
    );
    Running::start("nsd", &["-d", "-c"], &config, dir)
}

fn knot(port: u16, dir: TempDir, more: &str) -> Running {
    let config = format!(
        "server:\n  listen: 127.0.0.1@{port}\n  rundir: DIR\n  user: root:root\ncontrol:\n  listen: DIR/ctl\ndatabase:\n  \
         storage: DIR\nlog:\n  - target: stderr\n    any: info\n{more}"
    );
    Running::start("knotd", &["-c"], &config, dir)
}
