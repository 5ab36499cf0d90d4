//! Looking: what libvirt has, which of it is ours, and how far each machine is. Changes nothing.
//!
//! A domain is ours when it bears a mark that can be read, and has the UUID that follows from the id in it. One without a mark is somebody
//! else's, and so is a copy that took the mark along and has a UUID of its own. A mark that cannot be read says nothing: it is unseen, and
//! nothing is made while it is. So is everything while the storage pool is not there: a libvirt that lost what it knew has none.

use std::collections::BTreeSet;

use shoal_agent::{Fault, HostId};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

use super::daemon::fault;
use super::domain::{Mark, SPACE, mark, uuid};
use super::{Libvirt, Listed, Report, seed, storage};
use crate::item::{Given, Have, Stage};

/// The kind of metadata that the mark is.
pub(super) const ELEMENT: i32 = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;

/// What is under the UUID of a host's machine.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// Something that Shoal did not make for that host.
    Foreign,
    Ours {
        mark: Box<Mark>,
        runs: bool,
    },
}

/// The domain of this id, whoever made it; `None`: it is not there.
pub(super) fn lookup(to: &Connect, id: &HostId) -> Result<Option<Domain>, Fault> {
    match Domain::lookup_by_uuid(to, uuid(id)) {
        Ok(domain) => Ok(Some(domain)),
        Err(e) if e.code() == ErrorNumber::NoDomain => Ok(None),
        Err(e) => Err(fault(format!("find the machine of {id}"), &e)),
    }
}

/// The mark of a domain; `None`: it bears none.
pub(super) fn mark_of(domain: &Domain) -> Result<Option<Mark>, String> {
    match domain.get_metadata(ELEMENT, Some(SPACE), 0) {
        Ok(element) => mark(&element).map(Some).map_err(|e| format!("its mark cannot be read: {e}")),
        Err(e) if e.code() == ErrorNumber::NoDomainMetadata => Ok(None),
        Err(e) => Err(e.message().to_owned()),
    }
}

/// The machine of this id.
pub(super) fn find(to: &Connect, id: &HostId) -> Result<Found, Fault> {
    let Some(domain) = lookup(to, id)? else { return Ok(Found::Nothing) };
    let what = || format!("look at the machine of {id}");
    match mark_of(&domain).map_err(|why| Fault::new(what(), why))? {
        Some(mark) if mark.order.id == *id => {
            let runs = domain.is_active().map_err(|e| fault(what(), &e))?;
            Ok(Found::Ours { mark: Box::new(mark), runs })
        }
        _ => Ok(Found::Foreign),
    }
}

/// The volume on which a machine reports in.
pub(super) fn report_of(id: &HostId) -> String {
    format!("{}report", storage::prefix(uuid(id)))
}

/// Whether a machine that runs is up, and what is strange about how it runs.
fn is_up(to: &Connect, domain: &Domain, mark: &Mark) -> Result<bool, Fault> {
    match mark.report {
        Report::Status => Ok(true),
        Report::Address => {
            let sources =
                [sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP];
            Ok(sources.into_iter().any(|source| {
                let cards = domain.interface_addresses(source, 0).unwrap_or_default();
                cards.iter().any(|card| !card.addrs.is_empty())
            }))
        }
        Report::Disk => {
            let (at, name) = (&mark.pool, report_of(&mark.order.id));
            let first = storage::read(to, at, &name, seed::BLOCK)?;
            Ok(seed::is_report(&first, &mark.order.token))
        }
    }
}

/// How far a machine is; and what somebody did to it, for people.
fn stage(to: &Connect, domain: &Domain, mark: &Mark) -> Result<(Stage, Vec<String>), Fault> {
    let what = || format!("look at {}", mark.order.host);
    let (state, _) = domain.get_state().map_err(|e| fault(what(), &e))?;
    if matches!(state, sys::VIR_DOMAIN_SHUTOFF | sys::VIR_DOMAIN_CRASHED) {
        return Ok((Stage::Stopped, Vec::new()));
    }
    let paused = matches!(state, sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED);
    let strange = if paused { vec!["it is paused".to_owned()] } else { Vec::new() };
    let up = state != sys::VIR_DOMAIN_SHUTDOWN && is_up(to, domain, mark)?;
    Ok((if up { Stage::Up } else { Stage::Starting }, strange))
}

/// What one domain is.
enum One {
    Foreign,
    Ours(Box<Mark>, Stage, Vec<String>, String),
    /// It is gone again.
    Gone,
}

fn one(to: &Connect, domain: &Domain, of: Option<&BTreeSet<HostId>>) -> Result<One, Fault> {
    let name = domain.get_name().unwrap_or_default();
    let what = || format!("look at {name}");
    let gone = |e: &Error| e.code() == ErrorNumber::NoDomain;
    let mark = match mark_of(domain) {
        Ok(Some(mark)) => mark,
        Ok(None) => return Ok(One::Foreign),
        Err(_) if domain.get_state().is_err_and(|e| gone(&e)) => return Ok(One::Gone),
        Err(why) => return Err(Fault::new(what(), why)),
    };
    let own = domain.get_uuid().map_err(|e| fault(what(), &e))?;
    if own != uuid(&mark.order.id) {
        return Ok(One::Foreign);
    }
    if of.is_some_and(|of| !of.contains(&mark.order.id)) {
        return Ok(One::Gone);
    }
    let (stage, mut strange) = match stage(to, domain, &mark) {
        Err(_) if domain.get_state().is_err_and(|e| gone(&e)) => return Ok(One::Gone),
        stage => stage?,
    };
    if mark.made && !domain.get_autostart().map_err(|e| fault(what(), &e))? {
        strange.push("it does not start with its box".to_owned());
    }
    let text = domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).map_err(|e| fault(what(), &e))?;
    Ok(One::Ours(Box::new(mark), stage, strange, text))
}

impl Libvirt {
    pub(super) async fn listed(&self, of: Option<&BTreeSet<HostId>>) -> Result<Listed, Fault> {
        let (of, pool) = (of.cloned(), self.settings.pool.clone());
        let what = format!("list the machines at {}", self.daemon.uri());
        let all = move |to: &Connect| {
            storage::pool(to, &pool)?;
            let domains = to.list_all_domains(0).map_err(|e| fault("list the machines", &e))?;
            let look =
                |domain: &Domain| (domain.get_name().unwrap_or_default(), one(to, domain, of.as_ref()));
            Ok(domains.iter().map(look).collect::<Vec<_>>())
        };
        let mut listed = Listed::default();
        for (name, one) in self.daemon.call(&what, all).await? {
            match one {
                Ok(One::Gone) => {}
                Ok(One::Foreign) => listed.foreign.push(name),
                Err(fault) => listed.unseen.push(fault.to_string()),
                Ok(One::Ours(mark, stage, mut strayed, text)) => {
                    let (id, host) = (mark.order.id.clone(), mark.order.host.clone());
                    let machine = mark.order.machine.clone();
                    // What is not finished is not as it will be; and an image that the configuration does not name any more says nothing.
                    if mark.made
                        && let Ok(plan) = self.plan(*mark)
                    {
                        let differs = plan.strayed(&text);
                        strayed
                            .extend(differs.unwrap_or_else(|why| vec![format!("it cannot be read: {why}")]));
                    }
                    listed.ours.push((
                        id,
                        Have { host, machine, stage, strayed, given: Given::default(), leaving: None },
                    ));
                }
            }
        }
        Ok(listed)
    }
}
