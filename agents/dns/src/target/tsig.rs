//! Signed messages: TSIG ([RFC 8945](https://www.rfc-editor.org/rfc/rfc8945)), by hickory, and where their keys come from.
//!
//! A secret stands in a file of its own, is read once at the start, and is never shown.

use std::path::PathBuf;
use std::time::SystemTime;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TSIG;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError, make_tsig_record};
use hickory_proto::rr::{Name, Record, TSigResponseContext, TSigner};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use serde::Deserialize;
use shoal_agent::Fault;

/// Seconds by which the clocks of both sides may differ (section 10).
const FUDGE: u16 = 300;

/// Octets that a signature adds to a message, at most: the names of key and algorithm, and a MAC of 64 octets.
pub(super) const ROOM: u16 = 400;

/// A TSIG key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// Its name, the same on both sides.
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

impl KeySettings {
    /// The key, read from its file.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds no secret.
    pub(super) fn signer(&self) -> Result<TSigner, Fault> {
        let bad = |why: &dyn std::fmt::Display| {
            Fault::new(format!("read the TSIG key {} from {}", self.name, self.secret_file.display()), why)
        };
        shoal_agent::secrets::warn_if_exposed(&self.secret_file, "a TSIG key");
        // The file may come a moment later; what is in it does not change by itself. Nothing of it is shown.
        let text = std::fs::read_to_string(&self.secret_file).map_err(|e| bad(&e))?;
        let secret = data_encoding::BASE64.decode(text.trim().as_bytes()).map_err(|_| {
            bad(&"it is not base64")
                .next("write only what follows `secret` in the other side's key")
                .permanent()
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

/// Seconds since 1970, as signatures have them.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How a question was signed, and so how its answer is.
pub(super) enum Signature {
    /// Not at all.
    None,
    /// With our key, now: what answers it is signed too.
    Good(Box<Chain>),
    /// Somehow else. The answer says so, and nothing more is done.
    Bad(TSigResponseContext),
}

impl Signature {
    /// Checks the signature of a question that came as these octets.
    pub(super) fn of(key: Option<&TSigner>, octets: &[u8], question: &Message) -> Self {
        let Some(tsig) = question.signature() else { return Self::None };
        let (id, time) = (question.metadata.id, now());
        let Some(key) = key.filter(|key| *key.signer_name() == tsig.name.to_lowercase()) else {
            return Self::Bad(TSigResponseContext::unknown_key(id, time, tsig.name.clone()));
        };
        match key.verify_message_byte(octets, None, true) {
            Ok((mac, _, range)) if range.contains(&time) => {
                Self::Good(Box::new(Chain { key: key.clone(), mac, id, first: true }))
            }
            Ok((mac, ..)) => {
                let error = Some(TsigError::BadTime);
                Self::Bad(TSigResponseContext::new(id, time, key.clone(), mac, error))
            }
            Err(_) => Self::Bad(TSigResponseContext::bad_signature(id, time, key.clone())),
        }
    }

    /// Whether it may be taken for the holder of the key.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Self::Good(_))
    }
}

/// The answer to a question whose signature is not good.
pub(super) fn refuse(mut reply: Message, context: TSigResponseContext) -> Option<Vec<u8>> {
    reply.metadata.response_code = ResponseCode::NotAuth;
    let mut octets = reply.to_vec().ok()?;
    let record = context.sign(&octets).ok()?;
    append(&mut octets, &record)?;
    Some(octets)
}

/// The messages that answer one signed question: each is signed together with the signature before it.
pub(super) struct Chain {
    key: TSigner,
    mac: Vec<u8>,
    id: u16,
    first: bool,
}

impl Chain {
    /// Signs the next message.
    pub(super) fn sign(&mut self, octets: &mut Vec<u8>) -> Option<()> {
        let time = now();
        let record = if std::mem::take(&mut self.first) {
            let context = TSigResponseContext::new(self.id, time, self.key.clone(), self.mac.clone(), None);
            context.sign(octets).ok()?
        } else {
            Box::new(self.further(octets, time)?)
        };
        self.mac.clone_from(&record.data.mac);
        append(octets, &record)
    }

    /// All but the first are signed without what the first said already (section 5.3.1).
    fn further(&self, octets: &[u8], time: u64) -> Option<Record<TSIG>> {
        let mut signed = Vec::with_capacity(octets.len() + self.mac.len() + 10);
        signed.extend(u16::try_from(self.mac.len()).ok()?.to_be_bytes());
        signed.extend(&self.mac);
        signed.extend(octets);
        signed.extend(&time.to_be_bytes()[2..]);
        signed.extend(self.key.fudge().to_be_bytes());
        let mac = self.key.sign(&signed).ok()?;
        let (algorithm, fudge) = (self.key.algorithm().clone(), self.key.fudge());
        let tsig = TSIG::new(algorithm, time, fudge, mac, self.id, None, Vec::new());
        Some(make_tsig_record(self.key.signer_name().clone(), tsig))
    }
}

/// Adds the signature to an encoded message.
fn append(octets: &mut Vec<u8>, record: &Record<TSIG>) -> Option<()> {
    let mut encoded = Vec::with_capacity(ROOM.into());
    let mut encoder = BinEncoder::new(&mut encoded);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    record.emit(&mut encoder).ok()?;
    // The header's last count is that of additional records.
    let count = octets.get_mut(10..12)?;
    let more = u16::from_be_bytes([count[0], count[1]]).checked_add(1)?;
    count.copy_from_slice(&more.to_be_bytes());
    octets.extend(encoded);
    Some(())
}
