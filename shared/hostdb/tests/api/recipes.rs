//! The examples of `docs/api.md` and `docs/recipes-curl.md`, run as they stand.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::harness::Running;

/// One `sh` block: its commands in turn, each with what its output must hold.
pub(crate) fn blocks(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (&mut block, line) {
            (None, "```sh") => block = Some(String::new()),
            (Some(_), "```") => all.extend(block.take()),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    all
}

/// Turns `# prints: TEXT` after a command into a check of what was printed since the last one.
pub(crate) fn script(block: &str) -> String {
    let mut script = "set -eu\n: > out\nexec >>out\n".to_owned();
    for line in block.lines() {
        match line.strip_prefix("# prints: ") {
            Some(text) => {
                let quoted = text.replace('\'', "'\"'\"'");
                script.push_str(&format!(
                    "grep -qF -e '{quoted}' out || {{ echo 'expected: {quoted}' >&2; cat out >&2; exit 99; }}\n: > out\n"
                ));
            }
            None => {
                script.push_str(line);
                script.push('\n');
            }
        }
    }
    script
}

#[allow(clippy::print_stdout, reason = "what is skipped is said")]
async fn run(page: &str, least: usize) {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().await.is_err() {
        println!("SKIPPED: the examples of {page}: curl is not installed");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let blocks = blocks(&std::fs::read_to_string(path).unwrap());
    assert!(blocks.len() >= least, "{}", blocks.len());
    let (server, dir) = (Running::with_v1().await, tempfile::tempdir().unwrap());
    for block in blocks {
        let mut run = Command::new("sh");
        run.args(["-c", &script(&block)]).current_dir(dir.path());
        let output = run.env("HOSTDB", &server.url).env("no_proxy", "*").output().await.unwrap();
        assert!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_examples_of_the_api_page_run() {
    run("docs/api.md", 8).await;
}

#[tokio::test]
async fn the_recipes_for_curl_run() {
    run("docs/recipes-curl.md", 14).await;
}

#[tokio::test]
async fn the_examples_of_hostdbs_own_interface_run() {
    run("docs/hostdb-v1.md", 2).await;
}
