//! What commands about agents take.

use std::time::Duration;

use clap::Args;
use shoal_core::{Namespace, span};

use super::Sign;
use crate::names::{Scope, UnitName};

/// `status`
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Only these agents
    pub(crate) agents: Vec<Namespace>,
    /// Name everything that is behind, left out or not understood, as far as the agents report it
    #[arg(long, short = 'v')]
    pub(crate) verbose: bool,
}

/// `wait`
#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Until this revision is done, and no other; without it, the newest one and all that agents commit in answer
    #[arg(long, value_name = "N", value_parser = super::revision)]
    pub(crate) revision: Option<u64>,
    /// Also wait until nothing has been committed for a moment, by whomever
    #[arg(long)]
    pub(crate) settle: bool,
    /// Give up after this long, such as 30s, 5m, 1h
    #[arg(long, default_value = "60s", value_parser = span, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Only these agents; each must be running
    #[arg(long = "agent", value_name = "NAME")]
    pub(crate) agents: Vec<Namespace>,
}

/// `pause` and `resume`
#[derive(Args, Debug)]
pub(crate) struct Pause {
    /// A host, a tag, or an agent (agent/NAME)
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `approve`
#[derive(Args, Debug)]
pub(crate) struct Approve {
    /// AGENT/UNIT, as `shoal status` shows it; without it, everything that is held is listed
    pub(crate) unit: Option<UnitName>,
    /// Show what is held, approve nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Only if this is still what is held: the digest that --plan and `shoal status -o json` show
    #[arg(long, value_name = "DIGEST", requires = "unit")]
    pub(crate) digest: Option<String>,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `adopt`
#[derive(Args, Debug)]
pub(crate) struct Adopt {
    /// AGENT/UNIT, as `shoal status` shows it; without it, everything that is in the way is listed
    pub(crate) unit: Option<UnitName>,
    /// Only these items of the unit, as the list names them; without any, all that are listed
    #[arg(requires = "unit")]
    pub(crate) items: Vec<String>,
    /// Only if this is still what is in the way: the digests that --plan shows
    #[arg(long, value_name = "DIGESTS", requires = "unit")]
    pub(crate) digest: Option<String>,
    /// Show what is there and what is wanted, adopt nothing
    #[arg(long, requires = "unit")]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Command;

    #[test]
    fn times_are_written_as_everywhere() {
        let parse = |text| crate::args::Cli::try_parse_from(["shoal", "wait", "--timeout", text]);
        let Command::Wait(wait) = parse("1h30m").unwrap().command else { panic!() };
        assert_eq!(wait.timeout, Duration::from_secs(5_400));
        assert!(parse("soon").is_err());
    }
}
