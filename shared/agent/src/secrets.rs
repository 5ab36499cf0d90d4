//! Secrets that documents name and never hold.
//!
//! A document says `secret:NAME` ([`SecretRef`]). Where NAME is, the node's own configuration says:
//!
//! ```toml
//! [secrets]
//! snmp = { file = "/etc/shoal/snmp.community" }
//! pager = { credential = "pager" }        # systemd's LoadCredential=
//! smtp = { env = "SMTP_PASSWORD" }
//! ```
//!
//! So who may write a tag can use a secret of the node by its name, and can neither read it nor choose another file. Plans, the
//! ledger, history, metrics, status and errors hold the reference alone: it is all that the pure half ever sees. The
//! effectful half asks [`Secrets::get`] at the last moment, each time anew, so a rotated secret is used at the next; what it gets,
//! a [`Secret`], shows itself as the reference wherever it is printed, and cannot be serialised.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shoal_engine::Fault;

pub use shoal_client::warn_if_exposed;

/// How a reference begins.
const SCHEME: &str = "secret:";
/// What a name looks like.
const PATTERN: &str = "^secret:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$";
/// The longest name.
const MAX_NAME: usize = 64;
/// The largest secret.
const MAX_SECRET: u64 = 64 << 10;

/// The name of a secret, as documents have it: `secret:NAME`. Never a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRef(String);

impl SecretRef {
    /// The name alone.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What is not said to be a reference may be the secret itself: it is not repeated.
        let name =
            text.strip_prefix(SCHEME).ok_or("a secret is named here, as secret:NAME, and never written")?;
        if is_name(name) {
            return Ok(Self(name.to_owned()));
        }
        Err("the name of a secret has letters, digits and _ - . and at most 64 of them; it is no path"
            .to_owned())
    }
}

fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') && name.chars().all(good)
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretRef".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": PATTERN,
            "description": "The name of a secret of the node: secret:NAME. Where it is, the node's own configuration says."
        })
    }
}

/// A secret, in the hands of what uses it. It is printed as its reference.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    of: SecretRef,
    value: String,
}

impl Secret {
    /// The secret itself: for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// A text that may hold it, what a program said for example, with the reference in its place.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        text.replace(&self.value, &self.of.to_string())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.of, f)
    }
}

/// Where the secrets of this node are: the table `[secrets]` of its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secrets(#[serde(deserialize_with = "places")] BTreeMap<String, Place>);

/// Where a secret is. None of it is the secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
enum Place {
    /// A file that holds it and nothing else.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// A credential of systemd.
    Credential(String),
}

/// As it stands in the configuration. No enumeration: of one, an error would quote what somebody wrote in its place, and that may be
/// the secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    file: Option<PathBuf>,
    env: Option<String>,
    credential: Option<String>,
}

impl TryFrom<Written> for Place {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        match written {
            Written { file: Some(path), env: None, credential: None } => Ok(Self::File(path)),
            Written { file: None, env: Some(name), credential: None } => Ok(Self::Env(name)),
            Written { file: None, env: None, credential: Some(name) } => Ok(Self::Credential(name)),
            _ => Err("a secret is in one place: file, env or credential"),
        }
    }
}

fn places<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Place>, D::Error> {
    let places = BTreeMap::<String, Place>::deserialize(from)?;
    for (name, place) in &places {
        let credential = matches!(place, Place::Credential(credential) if !is_name(credential));
        if !is_name(name) || credential {
            return Err(serde::de::Error::custom(
                "the names of secrets and credentials have letters, digits and _ - . and at most 64 of them",
            ));
        }
    }
    Ok(places)
}

impl Secrets {
    /// The secret of this name, read now. One line break at its end is not part of it.
    ///
    /// # Errors
    /// The node's configuration does not know the name, or what it says holds no secret. The fault goes to the database with the
    /// status, so it says neither where the secret was looked for nor what was found; the log of the node has the former.
    pub fn get(&self, of: &SecretRef) -> Result<Secret, Fault> {
        let what = format!("get {of}");
        let Some(place) = self.0.get(of.name()) else {
            let next = format!(
                "write where it is into [secrets] of this node's configuration: {} = {{ file = … }}",
                of.name()
            );
            return Err(Fault::new(what, "this node does not have it").next(next));
        };
        let value = place.read().map_err(|why| {
            tracing::warn!(secret = %of, ?place, "cannot get it: {why}");
            Fault::new(&what, why).next("see [secrets] in this node's configuration, and its log")
        })?;
        Ok(Secret { of: of.clone(), value })
    }
}

impl Place {
    fn read(&self) -> Result<String, String> {
        let value = match self {
            Self::Env(name) => {
                std::env::var(name).map_err(|_| "its variable is not set, or is no text".to_owned())?
            }
            Self::File(path) => {
                warn_if_exposed(path, "a secret");
                read(path.clone())?
            }
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or("systemd gave this program no credentials (LoadCredential=)")?;
                read(PathBuf::from(folder).join(name))?
            }
        };
        let value = value.strip_suffix('\n').map(str::to_owned).unwrap_or(value);
        if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(value) }
    }
}

fn read(path: PathBuf) -> Result<String, String> {
    let mut octets = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| e.kind().to_string())?;
    file.take(MAX_SECRET + 1).read_to_end(&mut octets).map_err(|e| e.kind().to_string())?;
    if octets.len() as u64 > MAX_SECRET {
        return Err(format!("it has more than {MAX_SECRET} octets"));
    }
    String::from_utf8(octets).map_err(|_| "it is no text".to_owned())
}

#[cfg(test)]
mod tests;
