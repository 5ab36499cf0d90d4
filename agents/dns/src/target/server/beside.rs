//! A look from beside, for a plan: what a running server answers, without being one.
//!
//! A plan is another process than the one that answers, and opens nothing: no port, no folder, no lock. It asks the address
//! which serial is served and reads the zone's copy. Where both have the same serial the copy is exactly what is answered,
//! since the serial rises with every batch. A copy that is older is given the time that it needs; where none can come,
//! nothing is known, and that is said.
//!
//! If nobody answers there, the copies are what a server would begin with.

use std::time::Duration;

use shoal_agent::{Fault, Observed, Seen};
use tokio::time::{Instant, sleep};

use super::{Server, copy};
use crate::Dns;
use crate::name::Zone;
use crate::record::Have;
use crate::target::files::ask::{self, Answer};
use crate::target::zonefile::ZoneFile;

/// How long a copy may lag behind what is answered, until that is a fault.
const CATCH_UP: Duration = Duration::from_secs(20);
/// How long an answer may take. It comes from this machine or from nowhere.
const ANSWER: Duration = Duration::from_secs(2);

impl Server {
    /// What is answered for the zone now, or would be at the start where nobody answers.
    pub(super) async fn beside(&self, zone: &Zone) -> Result<Observed<Dns>, Fault> {
        let end = Instant::now() + CATCH_UP;
        let mut pause = Duration::from_millis(50);
        loop {
            let served = self.served(zone).await;
            // After the question: a copy of that serial, or of a later one.
            let copy = self.state.as_deref().map(|dir| copy::peek(dir, zone)).transpose()?.flatten();
            let known = copy.as_ref().and_then(|copy| copy.serial);
            match served {
                Answer::Silence => return Ok(seen(copy)),
                Answer::NotServed | Answer::Failing => return Ok(seen(None)),
                Answer::Serial(serial) if known == Some(serial) => return Ok(seen(copy)),
                Answer::Serial(_) if self.state.is_some() && Instant::now() < end => {
                    // Nothing tells when the other process has written it.
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Answer::Serial(serial) => return Err(self.unknown(zone, serial, known)),
            }
        }
    }

    async fn served(&self, zone: &Zone) -> Answer {
        match self.listen.first() {
            // A free port that another process took is known to that process alone.
            Some(address) if address.port() != 0 => ask::serial(*address, zone, ANSWER).await,
            _ => Answer::Silence,
        }
    }

    fn unknown(&self, zone: &Zone, serial: u32, copy: Option<u32>) -> Fault {
        let what = format!("look at what the running server answers for {zone}");
        match (&self.state, copy) {
            (None, _) => Fault::new(what, "it keeps it in its memory and no copy of it").next(
                "set state = \"DIRECTORY\" in [agent.server], the same for the server and for the plan",
            ),
            (Some(dir), Some(copy)) => Fault::new(
                what,
                format!("it answers serial {serial}, and its copy in {} has {copy}", dir.display()),
            )
            .next("try again; if this stays, see the server's log for why it does not write its copies"),
            (Some(dir), None) => {
                Fault::new(what, format!("it answers serial {serial}, and {} has no copy", dir.display()))
                    .next("see that the server has the same state in [agent.server], and its log")
            }
        }
    }
}

fn seen(copy: Option<ZoneFile>) -> Observed<Dns> {
    let nodes = copy.map(|copy| copy.nodes).unwrap_or_default();
    let ours = nodes.into_iter().map(|(key, node)| (key, Seen::Ours(Have::of(node))));
    Observed { seen: ours.collect(), complete: true }
}
