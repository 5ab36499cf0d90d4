//! What the questions to placement may say. What they mean, the placement agent's own program knows.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use shoal_core::HostName;

/// What all of them take.
#[derive(Args, Debug)]
struct Policy {
    /// The placement agent's configuration, of which the policy counts here [default: /etc/shoal/placement.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `capacity`
#[derive(Args, Debug)]
pub(crate) struct Capacity {
    /// A shape to ask for, instead of those that are there: cpu=4,memory=8589934592; may be given more than once
    #[arg(long, value_name = "RESOURCE=N,…")]
    size: Vec<String>,
    /// What breaks if a box dies is not asked for: it takes a search for each box
    #[arg(long)]
    only_free: bool,
    #[command(flatten)]
    policy: Policy,
}

/// `evacuate`
#[derive(Args, Debug)]
pub(crate) struct Evacuate {
    /// The box, or the availability zone
    #[arg(value_name = "BOX")]
    room: HostName,
    #[command(flatten)]
    policy: Policy,
}

/// `rebalance`
#[derive(Args, Debug)]
pub(crate) struct Rebalance {
    /// Moves are planned, and made by nobody yet
    #[arg(long, required = true)]
    plan: bool,
    /// The least that a move gains, in percent of a box that gets empty or of a rule that is kept again [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    least: Option<u8>,
    #[command(flatten)]
    policy: Policy,
}

impl Policy {
    fn words(&self) -> impl Iterator<Item = OsString> {
        self.config.iter().flat_map(|file| [OsString::from("--config"), file.clone().into()])
    }
}

impl Capacity {
    /// The same, for the program that answers.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["capacity".into()];
        // In one word each: whatever it is, it is no option.
        words.extend(self.size.iter().map(|size| OsString::from(format!("--size={size}"))));
        words.extend(self.only_free.then(|| OsString::from("--only-free")));
        words.extend(self.policy.words());
        words
    }
}

impl Evacuate {
    /// The same, for the program that answers.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["evacuate".into(), self.room.as_str().into()];
        words.extend(self.policy.words());
        words
    }
}

impl Rebalance {
    /// The same, for the program that answers.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["rebalance".into()];
        words.extend(self.plan.then(|| OsString::from("--plan")));
        words.extend(self.least.map(|least| OsString::from(format!("--least={least}"))));
        words.extend(self.policy.words());
        words
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::{Cli, Command};

    fn words(line: &[&str]) -> Vec<String> {
        let parsed = Cli::try_parse_from([&["shoal"][..], line].concat()).unwrap();
        let words = match parsed.command {
            Command::Capacity(args) => args.words(),
            Command::Evacuate(args) => args.words(),
            Command::Rebalance(args) => args.words(),
            _ => panic!(),
        };
        words.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_asked_is_handed_on() {
        assert_eq!(words(&["capacity"]), ["capacity"]);
        assert_eq!(
            words(&["capacity", "--size", "cpu=1,memory=2", "--size=-x", "--only-free", "--config", "/a b"]),
            ["capacity", "--size=cpu=1,memory=2", "--size=-x", "--only-free", "--config", "/a b"]
        );
        assert_eq!(words(&["evacuate", "box1.example.com"]), ["evacuate", "box1.example.com"]);
        assert_eq!(words(&["rebalance", "--plan", "--least", "7"]), ["rebalance", "--plan", "--least=7"]);
        for wrong in [&["rebalance"][..], &["rebalance", "--plan", "--least", "0"], &["evacuate", "-x"]] {
            assert!(Cli::try_parse_from([&["shoal"][..], wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}
