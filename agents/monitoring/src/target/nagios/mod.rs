//! Nagios 4: object files, `nagios -v`, and the command file.
//!
//! The server is told through its command file, and asked through the files that it writes: which generation it has read stands in
//! its cache of objects, as the alias of a time period of Shoal's, and downtimes stand in its status file. See [`super::objects`] for
//! what becomes of the files.

mod blame;
mod live;
mod render;
mod settings;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use shoal_agent::secrets::Secrets;
use shoal_agent::{Fault, HostName, command};

use live::Untold;
use settings::MainConfig;
pub use settings::{NagiosSettings, WaySettings};

use crate::define::Definition;
use crate::item::Host;
use crate::name::Name;
use crate::target::Server;
use crate::target::objects::{Around, Blame, Dialect, Downtimes, Objects, SETTLES, Slot, Tree};

/// How Nagios is given its hosts.
#[derive(Debug)]
pub(super) struct Nagios {
    settings: NagiosSettings,
}

impl Nagios {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub(super) fn open(settings: NagiosSettings, secrets: Secrets) -> Result<Objects<Self>, Fault> {
        settings.verify()?;
        Ok(Objects::new(Self { settings }, secrets))
    }

    async fn tell(&self, main: &MainConfig, commands: &[String], what: &str) -> Result<(), Fault> {
        let path = &main.commands;
        live::tell(path, commands).await.map_err(|untold| match untold {
            Untold::Down => Fault::new(what, format!("it does not run: nobody reads {}", path.display()))
                .next("start it; it reads what is there, which was checked, and this is tried again"),
            Untold::Failed(error) => Fault::new(what, format!("{}: {error}", path.display()))
                .next("see that the agent's user is in the group that may write there"),
        })
    }
}

impl Dialect for Nagios {
    const SERVER: Server = Server::Nagios;
    const NAME: &'static str = "Nagios";
    const ENDING: &'static str = "cfg";
    const MARK: &'static str = render::MARK;
    // Not what it takes for objects.
    const SECRETS: &'static str = "secrets.resource";
    type Link = MainConfig;

    fn folder(&self) -> &Path {
        &self.settings.directory
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.within)
    }

    fn tells(&self) -> bool {
        self.settings.tell
    }

    fn link(&self) -> Result<MainConfig, Fault> {
        MainConfig::read(&self.settings.config, self.settings.tell)
    }

    fn unit(main: &MainConfig) -> u32 {
        main.unit
    }

    fn objects(out: &mut String, name: &HostName, host: &Host, around: &Around<'_>) {
        render::objects(out, name, host, around);
    }

    fn definition(&self, out: &mut String, name: &Name, definition: &Definition) {
        render::definition(out, name, definition, &self.settings.notify);
    }

    fn refuses(&self, name: &Name, definition: &Definition) -> Option<Fault> {
        let Definition::Contact(contact) = definition else { return None };
        let way = contact.via.iter().find(|way| !self.settings.notify.contains_key(*way))?;
        let why = format!("this node's configuration does not say how somebody is told by {way}");
        let next =
            format!("give it a table [agent.nagios.notify.{way}] with the commands for host and service");
        Some(Fault::new(format!("define the contact {name}"), why).next(next).permanent())
    }

    fn server_file(out: &mut String, mark: Option<&str>, host_groups: &[&Name], service_groups: &[&Name]) {
        render::server_file(out, mark, host_groups, service_groups);
    }

    fn secrets(out: &mut String, all: &[(&str, Slot, &str)]) {
        for (_, slot, value) in all {
            *out += &format!("$USER{slot}$={value}\n");
        }
    }

    fn holds_secrets(&self, main: &MainConfig, tree: &Tree) -> Result<(), Fault> {
        main.reads_secrets(&tree.current().join(Self::SECRETS), &self.settings.config)
    }

    fn blame(complaint: &str, candidate: &Path) -> BTreeMap<Blame, String> {
        blame::blame(complaint, candidate)
    }

    fn before_check(&self, main: &MainConfig, tree: &Tree, candidate: &Path) -> Result<(), Fault> {
        let text = main.with(&tree.current(), candidate)?;
        let written = tree.write_check_file(candidate, &text, &self.settings.config);
        written.map_err(|e| unwritten(&tree.check_file(candidate), e))
    }

    async fn check(
        &self,
        _: &MainConfig,
        tree: &Tree,
        candidate: &Path,
    ) -> Result<Result<(), String>, Fault> {
        let file = tree.check_file(candidate);
        let places = [("{config}", &*file.to_string_lossy())];
        let checked = command::run(&self.settings.check, &places, self.patience()).await;
        tree.remove_check_file(candidate).map_err(|e| unwritten(&file, e))?;
        Ok(checked)
    }

    async fn has_read(&self, main: &MainConfig) -> Result<Option<String>, Fault> {
        Ok(live::mark(&main.cache))
    }

    async fn downtimes(&self, main: &MainConfig) -> Option<Downtimes> {
        live::downtimes(&main.status)
    }

    async fn reload(&self, main: &MainConfig, leaving: &[&HostName]) -> Result<(), Fault> {
        let mut commands: Vec<String> = leaving.iter().map(|name| live::no_downtime(name)).collect();
        commands.push(live::restart());
        self.tell(main, &commands, "have Nagios read what is new").await
    }

    async fn rest(
        &self,
        main: &MainConfig,
        begin: &[&HostName],
        end: &[&HostName],
    ) -> Result<Option<Duration>, Fault> {
        let begin = begin.iter().flat_map(|name| live::downtime(name));
        let commands: Vec<String> = begin.chain(end.iter().map(|name| live::no_downtime(name))).collect();
        self.tell(main, &commands, "tell Nagios of downtimes").await?;
        Ok(Some(main.says + SETTLES))
    }
}

fn unwritten(file: &Path, error: io::Error) -> Fault {
    Fault::new(format!("write the file to check, {}", file.display()), error)
}
