//! What commands about agents take.

use std::time::Duration;

use clap::Args;
use shoal_core::Namespace;

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
    /// Until this revision is done; without it, the newest one
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
    /// Also wait for the commits that agents make in answer
    #[arg(long)]
    pub(crate) settle: bool,
    /// Give up after this long, such as 30s, 5m, 1h
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Only these agents; each must be running
    #[arg(long = "agent", value_name = "NAME")]
    pub(crate) agents: Vec<Namespace>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a time such as 500ms, 30s, 5m or 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "write a time such as 500ms, 30s, 5m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|e| e.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "x", "5d", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
