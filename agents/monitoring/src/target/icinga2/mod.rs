//! Icinga 2: object files, `icinga2 daemon -C`, and the API.
//!
//! The server is told and asked through its API: to read what is new, which generation it has read (a constant of Shoal's), and which
//! downtimes there are. See [`super::objects`] for what becomes of the files.

mod api;
mod blame;
mod https;
mod render;
mod settings;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use shoal_agent::secrets::Secrets;
use shoal_agent::{Fault, HostName, command};

use api::Api;
pub use settings::IcingaSettings;

use crate::define::Definition;
use crate::item::Host;
use crate::name::Name;
use crate::target::Server;
use crate::target::objects::{Around, Blame, Dialect, Downtimes, Objects, Slot, Tree};

/// How Icinga is given its hosts.
#[derive(Debug)]
pub(super) struct Icinga {
    settings: IcingaSettings,
}

impl Icinga {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub(super) fn open(settings: IcingaSettings, secrets: Secrets) -> Result<Objects<Self>, Fault> {
        settings.verify()?;
        Ok(Objects::new(Self { settings }, secrets))
    }
}

/// The API, where the server is told anything.
fn api(link: &Option<Api>) -> Result<&Api, Fault> {
    link.as_ref().ok_or_else(|| Fault::new("ask Icinga", "the configuration says tell = false"))
}

impl Dialect for Icinga {
    const SERVER: Server = Server::Icinga2;
    const NAME: &'static str = "Icinga";
    const ENDING: &'static str = "conf";
    const MARK: &'static str = render::MARK;
    const SECRETS: &'static str = "secrets.conf";
    type Link = Option<Api>;

    fn folder(&self) -> &Path {
        &self.settings.directory
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.within)
    }

    fn tells(&self) -> bool {
        self.settings.tell
    }

    fn link(&self) -> Result<Option<Api>, Fault> {
        self.settings.tell.then(|| Api::open(&self.settings)).transpose()
    }

    fn unit(_: &Option<Api>) -> u32 {
        // It counts in seconds.
        1
    }

    fn objects(out: &mut String, name: &HostName, host: &Host, around: &Around<'_>) {
        render::objects(out, name, host, around);
    }

    fn definition(&self, out: &mut String, name: &Name, definition: &Definition) {
        render::definition(out, name, definition);
    }

    fn refuses(&self, _: &Name, _: &Definition) -> Option<Fault> {
        // In which way somebody is told, its own rules say.
        None
    }

    fn server_file(out: &mut String, mark: Option<&str>, host_groups: &[&Name], service_groups: &[&Name]) {
        render::server_file(out, mark, host_groups, service_groups);
    }

    fn secrets(out: &mut String, all: &[(&str, Slot, &str)]) {
        render::secrets(out, all);
    }

    fn holds_secrets(&self, _: &Option<Api>, _: &Tree) -> Result<(), Fault> {
        // What includes `current` includes that file.
        Ok(())
    }

    fn blame(complaint: &str, candidate: &Path) -> BTreeMap<Blame, String> {
        blame::blame(complaint, candidate)
    }

    async fn check(&self, _: &Option<Api>, _: &Tree, candidate: &Path) -> Result<Result<(), String>, Fault> {
        let places = [("{candidate}", &*candidate.to_string_lossy())];
        Ok(command::run(&self.settings.check, &places, self.patience()).await)
    }

    async fn has_read(&self, link: &Option<Api>) -> Result<Option<String>, Fault> {
        api(link)?.mark().await
    }

    async fn downtimes(&self, link: &Option<Api>) -> Option<Downtimes> {
        api(link).ok()?.downtimes().await.ok()
    }

    async fn reload(&self, link: &Option<Api>, leaving: &[&HostName]) -> Result<(), Fault> {
        api(link)?.end(leaving).await?;
        api(link)?.restart().await
    }

    async fn rest(
        &self,
        link: &Option<Api>,
        begin: &[&HostName],
        end: &[&HostName],
    ) -> Result<Option<Duration>, Fault> {
        api(link)?.begin(begin).await?;
        api(link)?.end(end).await?;
        Ok(None)
    }
}
