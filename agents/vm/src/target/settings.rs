//! `[agent]` of the node's configuration: which box this is, and what makes machines on it.

use std::time::Duration;

use serde::Deserialize;
use shoal_agent::{Base, Fault, HostName, Millis};

#[cfg(feature = "ec2")]
use super::ec2::{Ec2, Ec2Settings};
#[cfg(feature = "libvirt")]
use super::libvirt;
use super::{Machines, nspawn};
use crate::agent::Vm;
use crate::target::Provider;
#[cfg(feature = "ec2")]
use shoal_aws::AwsSettings;

/// What is not understood without the feature `ec2`.
#[cfg(not(feature = "ec2"))]
type Ec2Settings = serde::de::IgnoredAny;
#[cfg(not(feature = "ec2"))]
type AwsSettings = serde::de::IgnoredAny;

/// What is not understood without the feature `libvirt`.
#[cfg(not(feature = "libvirt"))]
type LibvirtSettings = serde::de::IgnoredAny;
#[cfg(feature = "libvirt")]
type LibvirtSettings = libvirt::Settings;

/// `[agent]` of the node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What this box is called in the database; by default what it calls itself.
    #[serde(default, rename = "box")]
    pub room: Option<String>,
    /// How long a machine may take to be made, or started, and to report in before its host has failed.
    #[serde(default = "starting", deserialize_with = "nspawn::duration")]
    pub starting: Duration,
    /// Makes machines by systemd-nspawn.
    #[serde(default)]
    pub nspawn: Option<nspawn::Settings>,
    /// Makes machines in an availability zone of EC2.
    #[serde(default)]
    pub ec2: Option<Ec2Settings>,
    /// How AWS is reached.
    #[serde(default)]
    pub aws: Option<AwsSettings>,
    /// Makes machines by libvirt.
    #[serde(default)]
    pub libvirt: Option<LibvirtSettings>,
}

impl Settings {
    /// The agent and its target. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(self, base: Base) -> Result<(Vm, Machines), Fault> {
        let bad = |why: String| Fault::new("read the configuration", why).permanent();
        let name = self.room.unwrap_or_else(node_name);
        let room: HostName = name
            .parse()
            .map_err(|e| bad(format!("`box`: {e}")).next("say what this box is called in the database"))?;
        let mut providers: Vec<Box<dyn Provider>> = Vec::new();
        if let Some(nspawn) = self.nspawn {
            providers.push(Box::new(nspawn::Nspawn::new(nspawn).map_err(bad)?));
        }
        match self.ec2 {
            Some(ec2) => providers.push(instances(ec2, self.aws, &room)?),
            None if self.aws.is_some() => {
                return Err(bad("[agent.aws] goes with [agent.ec2], which it does not have".to_owned()));
            }
            None => {}
        }
        if let Some(libvirt) = self.libvirt {
            providers.push(by_libvirt(libvirt)?);
        }
        if providers.is_empty() {
            let next = "give it a table, [agent.nspawn], [agent.libvirt] or [agent.ec2]";
            return Err(bad("it names no provider".to_owned()).next(next));
        }
        let millis = |span: Duration| Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX);
        let unseen = providers.iter().map(|one| one.unseen()).max().unwrap_or_default();
        let (starting, unseen) = (millis(self.starting), millis(unseen));
        let vm = Vm { rooms: [room.clone()].into(), starting, unseen };
        Ok((vm, Machines::new(room, providers, base)))
    }
}

#[cfg(feature = "ec2")]
fn instances(
    ec2: Ec2Settings,
    aws: Option<AwsSettings>,
    room: &HostName,
) -> Result<Box<dyn Provider>, Fault> {
    Ok(Box::new(Ec2::open(ec2, aws, room.clone())?))
}

#[cfg(not(feature = "ec2"))]
fn instances(_: Ec2Settings, _: Option<AwsSettings>, _: &HostName) -> Result<Box<dyn Provider>, Fault> {
    let why = "it names [agent.ec2], and this program was built without that";
    Err(Fault::new("read the configuration", why)
        .next("build it with --features ec2, or install the package")
        .permanent())
}

#[cfg(feature = "libvirt")]
fn by_libvirt(settings: LibvirtSettings) -> Result<Box<dyn Provider>, Fault> {
    let libvirt = libvirt::Libvirt::new(settings);
    Ok(Box::new(
        libvirt.map_err(|why| Fault::new("read [agent.libvirt] of the configuration", why).permanent())?,
    ))
}

#[cfg(not(feature = "libvirt"))]
fn by_libvirt(_: LibvirtSettings) -> Result<Box<dyn Provider>, Fault> {
    let why = "this build has no libvirt: it is behind the feature `libvirt`";
    let next = "use the packages, or build with --features shoal-vm/libvirt";
    Err(Fault::new("read [agent.libvirt] of the configuration", why).next(next).permanent())
}

fn starting() -> Duration {
    Duration::from_secs(600)
}

/// What this machine calls itself.
fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}
