//! How a machine ends: by its power button, and switched off when that takes too long; and what is asked before it is stopped at all.
//!
//! When it was told is remembered here alone. An agent that comes after another tells the machine again, and waits as long as the first.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use shoal_agent::{Fault, HostId};
use shoal_machine::Machine;
use tokio::time::Instant;
use virt::sys;

use super::daemon::fault;
use super::domain::Mark;
use super::look::Found;
use super::{Libvirt, foreign, kill, shut_down, there};

/// How often is looked whether a machine has ended.
const LOOK: Duration = Duration::from_millis(250);
/// How long one may take to be gone after it was killed.
const KILLED: Duration = Duration::from_secs(30);

/// A machine that is to end.
#[derive(Debug)]
pub(super) struct Ending {
    /// When it was told.
    told: Instant,
    /// When somebody last asked whether it has ended.
    asked: Instant,
    killed: bool,
}

/// What is due of one that runs still.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Tell,
    Wait,
    /// `bool`: for the first time.
    Kill(bool),
    GiveUp,
}

impl Libvirt {
    fn ending(&self) -> MutexGuard<'_, BTreeMap<HostId, Ending>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That it was told to stop says nothing of its next run.
    pub(super) fn forget(&self, id: &HostId) {
        self.ending().remove(id);
    }

    /// What is due of a machine that is to end and runs.
    fn due(&self, id: &HostId) -> Due {
        let (now, patience) = (Instant::now(), self.settings.stop);
        let most = patience.saturating_add(KILLED);
        let mut all = self.ending();
        // Nobody wanted it to end any more, and now somebody does again.
        if all.get(id).is_some_and(|ending| now.duration_since(ending.asked) > most) {
            all.remove(id);
        }
        let Some(ending) = all.get_mut(id) else {
            all.insert(id.clone(), Ending { told: now, asked: now, killed: false });
            return Due::Tell;
        };
        ending.asked = now;
        let since = now.duration_since(ending.told);
        if since >= most {
            Due::GiveUp
        } else if since >= patience {
            Due::Kill(!std::mem::replace(&mut ending.killed, true))
        } else {
            Due::Wait
        }
    }

    /// Has a machine end, and answers whether it has. Waits for nothing.
    pub(super) async fn stops(&self, id: &HostId, to: Option<&Machine>) -> Result<bool, Fault> {
        let (mark, runs) = match self.found(id).await? {
            Found::Ours { mark, runs } => (mark, runs),
            Found::Nothing => return Ok(true),
            Found::Foreign => return Err(foreign(format!("stop the machine of {id}"))),
        };
        if to.is_some() {
            self.keeps_its_disks(id, &mark).await?;
        }
        if !runs {
            self.forget(id);
            return Ok(true);
        }
        let (what, one) = (format!("stop {}", mark.order.host), id.clone());
        match self.due(id) {
            Due::Tell => {
                // One that has not come up far enough cannot be told; it is killed in its time.
                if let Err(fault) = self.effect(&what, move |to| shut_down(to, &one)).await {
                    tracing::info!("{fault}; it is killed if it does not stop");
                }
            }
            Due::Wait => {}
            Due::Kill(first) => {
                if first {
                    let host = &mark.order.host;
                    tracing::warn!("{host} did not stop within {:?}, and is killed", self.settings.stop);
                }
                self.effect(&what, move |to| kill(to, &one)).await?;
            }
            Due::GiveUp => return Err(Fault::new(what, "it runs still, though it was killed")),
        }
        Ok(false)
    }

    /// Ends a machine in the same way, where somebody started it since it had stopped. Returns when it does not run.
    pub(super) async fn ended(&self, id: &HostId) -> Result<(), Fault> {
        while !self.stops(id, None).await? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// That a machine may be defined anew. What somebody put in place of its disks, as a snapshot does, would not be in it then, with all
    /// that was written since.
    ///
    /// # Errors
    /// Its disks are not those that it was made with: for good, until a person puts that right.
    pub(super) async fn keeps_its_disks(&self, id: &HostId, mark: &Mark) -> Result<(), Fault> {
        if !mark.made {
            return Ok(());
        }
        let what = format!("correct {}", mark.order.host);
        let (plan, one) = (self.plan(mark.clone())?, id.clone());
        let text = self.daemon.call(&what, move |to| {
            let text = there(to, &one)?.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE);
            text.map_err(|e| fault(format!("look at the machine of {one}"), &e))
        });
        let text = text.await?;
        let other = plan.other_disks(&text).map_err(|why| Fault::new(&what, why))?;
        if other.is_empty() {
            return Ok(());
        }
        let why = format!(
            "its disks were changed by hand ({}); only a person can put that right",
            other.join(", ")
        );
        let next = "where a snapshot stands before one of them, merge it (virsh blockcommit)";
        Err(Fault::new(what, why).next(next).permanent())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_told_once_and_killed_in_its_time() {
        let settings = json!({"images": {"a": {"volume": "a"}}, "stop": "10m"});
        let mut agent = Libvirt::new(serde_json::from_value(settings).unwrap()).unwrap();
        let (one, other) = (HostId("1".to_owned()), HostId("2".to_owned()));
        assert_eq!((agent.due(&one), agent.due(&one), agent.due(&one)), (Due::Tell, Due::Wait, Due::Wait));
        agent.settings.stop = Duration::ZERO;
        assert_eq!((agent.due(&one), agent.due(&one)), (Due::Kill(true), Due::Kill(false)));
        assert_eq!(agent.due(&other), Due::Tell);
        // Its next run is another.
        agent.forget(&one);
        agent.settings.stop = Duration::from_secs(600);
        assert_eq!((agent.due(&one), agent.due(&one)), (Due::Tell, Due::Wait));
    }
}
