//! The load-balancer agent as a program: see `docs/agents/lb.md`.

use shoal_agent::ExitCode;
use shoal_lb::Settings;

fn main() -> ExitCode {
    shoal_agent::main(|settings: Settings| settings.open())
}
