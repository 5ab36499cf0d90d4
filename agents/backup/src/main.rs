//! The backup agent as a program: see `docs/agents/backup.md`.

fn main() -> shoal_agent::ExitCode {
    shoal_backup::main()
}
