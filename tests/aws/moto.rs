//! Something that answers as AWS does: `moto_plus.py`, as a process of a test's own. Agents' tests include this file by its path.
//!
//! It needs a Python with moto in it: `SHOAL_MOTO` (a Python), else the one that `tests/run` made in `target/`, else `python3`.
//! Where none has it, that is said (`SKIPPED`), and nothing is answered.

#![allow(dead_code, reason = "each test uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code"
)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The version in `tests/aws/requirements.txt`, and of the folder in `target/`.
const VERSION: &str = "5.2.5";

/// A running stand-in. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Moto {
    port: u16,
    child: Child,
}

impl Moto {
    /// Starts one, with nothing in it; or says why not.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let python = python(test)?;
        // Another test may take a port between our look and its bind: then it ends, and another is tried.
        (0..5).find_map(|_| Self::try_start(&python)).or_else(|| panic!("moto does not come up"))
    }

    fn try_start(python: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(python)
            .arg(root().join("tests/aws/moto_plus.py"))
            .arg(port.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut moto = Self { port, child };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if moto.child.try_wait().unwrap().is_some() {
                return None;
            }
            if moto.ask("GET", "/plus", None).is_some() {
                return Some(moto);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// Where it is, for `endpoint` in `[agent.aws]`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the agent's process needs to have credentials and a region, and nothing from the machine.
    pub(crate) fn environment(&self) -> [(&'static str, &'static str); 5] {
        [
            ("AWS_ACCESS_KEY_ID", "AKIATEST"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
        ]
    }

    /// How often an action was called since the last [`Self::reset`].
    pub(crate) fn calls(&self, action: &str) -> u64 {
        self.state()["calls"][action].as_u64().unwrap_or(0)
    }

    /// Every call since the last [`Self::reset`]: `{"calls": {…}, "log": […]}`.
    pub(crate) fn state(&self) -> Value {
        self.ask("GET", "/plus", None).expect("moto answers")
    }

    /// Forgets the calls and the faults that were asked for.
    pub(crate) fn reset(&self) {
        self.ask("POST", "/plus/reset", Some(&json!({}))).expect("moto answers");
    }

    /// `pending`, `initial`, `draining` in seconds, those of `plus_ec2.py`; `rate` and `burst`.
    pub(crate) fn set(&self, settings: &Value) {
        self.ask("POST", "/plus/set", Some(settings)).expect("moto answers");
    }

    /// The next call of this action (or `*`) goes wrong: `lost`, `broken`, `error`, `throttle`, `prior`, `deny`.
    pub(crate) fn fault(&self, action: &str, kind: &str, times: u32) {
        self.ask("POST", "/plus/fault", Some(&json!({"action": action, "kind": kind, "times": times})))
            .expect("moto answers");
    }

    /// The same with all that `moto_plus.py` takes.
    pub(crate) fn fault_with(&self, fault: &Value) {
        self.ask("POST", "/plus/fault", Some(fault)).expect("moto answers");
    }

    /// Somebody else's call of a service (`route53`, `elasticloadbalancing`), in an account: the body as it goes over the wire, and
    /// the status and body of the answer.
    pub(crate) fn call(
        &self,
        service: &str,
        account: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, String) {
        let kind = match body.chars().next() {
            None => "",
            Some('<') => "Content-Type: text/xml\r\n",
            Some(_) => "Content-Type: application/x-www-form-urlencoded\r\n",
        };
        let head = format!(
            "{kind}X-Moto-Account-Id: {account}\r\nAuthorization: AWS4-HMAC-SHA256 \
             Credential=AKIATEST/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n"
        );
        let answer = self.exchange(method, path, &head, body).expect("moto answers");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
    }

    /// Plain HTTP, one connection a question.
    fn exchange(&self, method: &str, path: &str, head: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.exchange(method, path, "", &body)?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The root of the project, from any crate two folders below it.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A Python with moto in it; or says why there is none. What needs nothing of `moto_plus.py` runs `moto.server` by it.
pub(crate) fn python(test: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let told = std::env::var_os("SHOAL_MOTO").map(PathBuf::from);
    let made = target.join(format!("moto-{VERSION}/bin/python"));
    let has = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "import moto.server, moto.route53, moto.elbv2, moto.ec2"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let found = told.into_iter().chain([made, PathBuf::from("python3")]).find(has);
    if found.is_none() {
        println!(
            "SKIPPED: {test}: no Python with moto (tests/run gets it from PyPI: tests/aws/requirements.txt)"
        );
    }
    found
}
