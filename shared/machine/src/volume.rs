//! Disks that outlive their machines: a slot of a group has them, and whoever takes the slot over finds them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::Word;

/// Which slot of which group has a disk: `kafka.3` is slot 3 of `vm/kafka`. As text it is a [`Word`], and so no path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Volume {
    group: Word,
    slot: u32,
}

impl Volume {
    /// The disks of this slot of `vm/<group>`.
    ///
    /// # Errors
    /// The group's name, with the slot's number, is too long or no [`Word`].
    pub fn new(group: &str, slot: u32) -> Result<Self, String> {
        let whole = format!("{group}.{slot}");
        whole.parse::<Word>().map_err(|e| format!("its slots have disks, which are called so: {e}"))?;
        Ok(Self { group: group.parse().map_err(|e: crate::name::BadWord| e.to_string())?, slot })
    }

    /// The name of the group's tag, without `vm/`.
    #[must_use]
    pub fn group(&self) -> &str {
        self.group.as_str()
    }

    /// The number of the slot.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }
}

impl FromStr for Volume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once('.').and_then(|(group, slot)| Some((group, slot.parse().ok()?)));
        let (group, slot) = parts.ok_or_else(|| format!("{text:?} is no slot of a group, as in kafka.3"))?;
        let volume = Self::new(group, slot)?;
        // One way to write it: each is one folder.
        if volume.to_string() == text { Ok(volume) } else { Err(format!("{text:?} is written {volume}")) }
    }
}

impl TryFrom<String> for Volume {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Volume> for String {
    fn from(volume: Volume) -> Self {
        volume.to_string()
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.group, self.slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_slot_of_one_group_and_no_path() {
        let one: Volume = "a.b.3".parse().unwrap();
        assert_eq!((one.group(), one.slot(), one.to_string().as_str()), ("a.b", 3, "a.b.3"));
        let long = format!("{}.1", "a".repeat(63));
        for bad in
            ["", "kafka", "kafka.", ".3", "../x.3", "kafka.03", "kafka.+3", "Kafka.3", "kafka.-1", &long]
        {
            assert!(bad.parse::<Volume>().is_err(), "{bad}");
        }
    }
}
