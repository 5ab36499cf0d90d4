//! Asking a name server, one question at a time.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use crate::shape;

/// How often it is asked before it is taken for one that does not answer.
const TRIES: u32 = 4;

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
    socket.set_read_timeout(Some(Duration::from_secs(5))).context("no socket")?;
    let mut buffer = [0; 4096];
    let mut left = TRIES;
    let size = loop {
        socket.send(&question).with_context(|| format!("port {port}"))?;
        left -= 1;
        match socket.recv(&mut buffer) {
            Ok(size) => break size,
            // A datagram may be lost, and a machine stall; who refuses is not there.
            Err(why) if left > 0 && matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(why) => return Err(why).with_context(|| format!("nobody answers on port {port}")),
        }
    };
    let answer = Message::from_vec(&buffer[..size]).context("the answer")?;
    if !matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        bail!("{name} {rtype}: {}", answer.response_code);
    }
    if !answer.authoritative {
        bail!("{name} {rtype}: answered without authority");
    }
    Ok(answer.answers.iter().filter(|r| r.record_type() == rtype).map(|r| r.data.to_string()).collect())
}

/// That the name server on this port knows the last machine of a made-up fleet of this size ([`shape::zoned`]) that has an address, forward
/// and reverse.
///
/// # Errors
/// It does not, or does not answer.
pub fn serves_fleet(port: u16, hosts: u32) -> anyhow::Result<()> {
    let last =
        (0..hosts).rev().find(|n| shape::address(*n).is_some()).context("a machine with an address")?;
    let address = shape::address(last).context("an address")?;
    let name = shape::host(last)?;
    ensure!(ask(port, name.as_str(), "A")?.contains(&address), "{name} is not answered");
    let back = reverse(address.parse().context("an address")?);
    ensure!(ask(port, &back, "PTR")?.contains(&format!("{name}.")), "{back} is not answered");
    Ok(())
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
