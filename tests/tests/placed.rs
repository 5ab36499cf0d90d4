//! The command asks placement by way of the agent's own program, with the command's database, and ends as that does.

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;
use shoal_tests::binaries;
use shoal_tests::process::output;

const FLEET: &str = "\
host: box1.example.com
document: {box: {capacity: {cpu: 4}}}
---
host: box2.example.com
document: {box: {capacity: {cpu: 4}}}
---
host: one.example.com
document: {size: {cpu: 3}, placement: {on: box1.example.com}}
---
host: two.example.com
document: {size: {cpu: 1}, placement: {on: box2.example.com}}
";

#[test]
fn the_command_asks_the_placement_agents_program() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("shoal-placed-").tempdir()?;
    let path = |name: &str| dir.path().join(name);
    let store = format!("sqlite:{}", path("db").display());
    binaries::binary("shoal-placement")?;
    let program = binaries::binary("shoal")?;
    // Another database stands in the environment: the command's own is what is looked at.
    let shoal = |args: &[&str], fine: i32| {
        let mut command = Command::new(&program);
        command.args(["--store", &store]).args(args).env("SHOAL_STORE", "sqlite:/nowhere/shoal.db");
        output(&mut command, &[fine])
    };
    std::fs::write(path("fleet.yaml"), FLEET)?;
    std::fs::write(path("placement.toml"), "[agent.policy]\nfit = \"spread\"\n")?;
    let (fleet, config) =
        (path("fleet.yaml").display().to_string(), path("placement.toml").display().to_string());
    shoal(&["apply", "-f", &fleet, "--author", "test", "-m", "a fleet"], 0)?;
    let config = ["--config", &*config];
    let ask = |words: &[&str], fine: i32| shoal(&[words, &config[..]].concat(), fine);
    let text = ask(&["capacity"], 0)?;
    ensure!(text.contains("free in open boxes together: cpu 4"), "{text}");
    let json: Value =
        serde_json::from_str(&ask(&["capacity", "--size", "cpu=2", "--only-free", "--output", "json"], 0)?)?;
    ensure!(json["fits"][0]["more"] == 1, "{json}");
    let moves: Value = serde_json::from_str(&ask(&["evacuate", "box1.example.com", "-o", "json"], 3)?)?;
    ensure!(moves["moves"][0]["machine"] == "one.example.com", "{moves}");
    // The two together fit on one box: that is all that a move gains.
    let text = ask(&["rebalance", "--plan"], 3)?;
    ensure!(text.contains("gets empty") && text.contains("100 %"), "{text}");
    ask(&["rebalance"], 2)?;
    ask(&["evacuate", "none.example.com"], 1)?;
    let text = shoal(&["log"], 0)?;
    ensure!(text.lines().filter(|line| line.contains("a fleet")).count() == 1, "{text}");
    Ok(())
}
