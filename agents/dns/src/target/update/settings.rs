//! `[agent.update]` in the node's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{Name, TSigner};
use serde::Deserialize;
use shoal_agent::Fault;

/// Seconds by which the clocks of both sides may differ
/// ([RFC 8945, section 10](https://www.rfc-editor.org/rfc/rfc8945#section-10)).
const FUDGE: u16 = 300;

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

/// A TSIG key ([RFC 8945](https://www.rfc-editor.org/rfc/rfc8945)).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// Its name, the same as at the server.
    pub name: String,
    /// Its algorithm.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// The file that holds its secret in base64, and nothing else.
    pub secret_file: PathBuf,
}

/// How messages are signed.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// What every server has.
    #[default]
    HmacSha256,
    /// Longer.
    HmacSha384,
    /// Longest.
    HmacSha512,
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

impl KeySettings {
    fn signer(&self) -> Result<TSigner, Fault> {
        let bad = |why: &dyn std::fmt::Display| {
            Fault::new(format!("read the TSIG key {} from {}", self.name, self.secret_file.display()), why)
        };
        // The file may come a moment later; what is in it does not change by itself. Nothing of it is shown.
        let text = std::fs::read_to_string(&self.secret_file).map_err(|e| bad(&e))?;
        let secret = data_encoding::BASE64.decode(text.trim().as_bytes()).map_err(|_| {
            bad(&"it is not base64").next("write only what follows `secret` in the server's key").permanent()
        })?;
        let name = Name::from_ascii(&self.name)
            .map_err(|e| bad(&format!("the key's name is not one: {e}")).permanent())?;
        let algorithm = match self.algorithm {
            Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            Algorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        TSigner::new(secret, algorithm, name.to_lowercase(), FUDGE).map_err(|e| bad(&e).permanent())
    }
}
