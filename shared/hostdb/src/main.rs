//! `shoal-hostdb`: the host database server.

fn main() -> std::process::ExitCode {
    shoal_hostdb::main()
}
