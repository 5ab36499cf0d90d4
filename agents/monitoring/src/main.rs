//! The monitoring agent as a program: see `docs/agents/monitoring.md`.

use shoal_agent::{ExitCode, Program};
use shoal_monitoring::Settings;

fn main() -> ExitCode {
    Program::with_secrets(|settings: Settings, secrets| settings.open(secrets)).main()
}
