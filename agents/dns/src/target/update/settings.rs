//! `[agent.update]` in the node's configuration.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::rr::TSigner;
use serde::Deserialize;
use shoal_agent::Fault;

use crate::target::KeySettings;

/// Which server takes the updates, and with which key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateSettings {
    /// The primary server of the zones, by TCP. It must let this agent update them, and transfer them.
    pub server: SocketAddr,
    /// The key that messages are signed with; nothing: the server knows the agent by its address.
    #[serde(default)]
    pub key: Option<KeySettings>,
    /// How long, in seconds, an answer of the server may take; a whole zone may take ten times as long.
    #[serde(default = "within")]
    pub within: u64,
}

fn within() -> u64 {
    10
}

impl UpdateSettings {
    pub(super) fn within(&self) -> Duration {
        Duration::from_secs(self.within)
    }

    /// The key, read from its file.
    ///
    /// # Errors
    /// Settings that cannot work, or a secret that cannot be read.
    pub(super) fn signer(&self) -> Result<Option<TSigner>, Fault> {
        if self.within == 0 {
            return Err(Fault::new(
                "read the configuration",
                "[agent.update] within = 0 leaves no time; write at least 1",
            )
            .permanent());
        }
        self.key.as_ref().map(KeySettings::signer).transpose()
    }
}
