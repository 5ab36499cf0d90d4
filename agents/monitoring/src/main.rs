//! The monitoring agent as a program: see `docs/agents/monitoring.md`.

use shoal_agent::ExitCode;
use shoal_monitoring::Settings;

fn main() -> ExitCode {
    shoal_agent::main(|settings: Settings| settings.open())
}
