//! The DNS agent as a program: see `docs/agents/dns.md`.

use shoal_agent::ExitCode;
use shoal_dns::Dns;
use shoal_dns::target::{Names, Settings};

fn main() -> ExitCode {
    shoal_agent::main(|settings: Settings| Ok((Dns, Names::new(settings)?)))
}
