//! Asking a name server, one question at a time.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

/// What a name server on this loopback port answers, as it would stand in a zone file, without TTLs.
///
/// Empty: the name or the type does not exist (said with authority).
///
/// # Errors
/// No answer, no authority, or a failure.
pub fn ask(port: u16, name: &str, rtype: &str) -> anyhow::Result<BTreeSet<String>> {
    let question = question(name, rtype)?;
    let rtype = RecordType::from_str(rtype).with_context(|| format!("{rtype} is no type"))?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no socket")?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).context("no socket")?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).context("no socket")?;
    socket.send(&question).with_context(|| format!("port {port}"))?;
    let mut buffer = [0; 4096];
    let size = socket.recv(&mut buffer).with_context(|| format!("nobody answers on port {port}"))?;
    let answer = Message::from_vec(&buffer[..size]).context("the answer")?;
    if !matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        bail!("{name} {rtype}: {}", answer.response_code);
    }
    if !answer.authoritative {
        bail!("{name} {rtype}: answered without authority");
    }
    Ok(answer.answers.iter().filter(|r| r.record_type() == rtype).map(|r| r.data.to_string()).collect())
}

/// The octets of a question.
///
/// # Errors
/// The name or the type is none.
pub fn question(name: &str, rtype: &str) -> anyhow::Result<Vec<u8>> {
    let mut fqdn = Name::from_str(name).with_context(|| format!("{name} is no name"))?;
    fqdn.set_fqdn(true);
    let rtype = RecordType::from_str(rtype).with_context(|| format!("{rtype} is no type"))?;
    let mut question = Message::query();
    question.add_query(Query::query(fqdn, rtype));
    question.to_vec().context("the question")
}

/// The name that an address has in the reverse tree.
#[must_use]
pub fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles: Vec<String> =
                v6.octets().iter().rev().flat_map(|o| [o & 15, o >> 4]).map(|n| format!("{n:x}")).collect();
            format!("{}.ip6.arpa", nibbles.join("."))
        }
    }
}
