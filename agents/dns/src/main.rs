//! The DNS agent as a program: see `docs/agents/dns.md`.

use shoal_agent::ExitCode;
use shoal_dns::Dns;
use shoal_dns::target::{Names, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shoal_agent::main(|settings: Settings| Ok((Dns, Names::new(settings)?)))
}
