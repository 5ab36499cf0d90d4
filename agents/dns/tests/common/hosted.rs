//! Hosted zones at a stand-in for Route 53, as somebody else sees and changes them, and the program that works on them.

#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

use std::fs;
use std::process::Stdio;

use crate::common::scratch::{Daemon, Scratch};

#[path = "../../../../tests/aws/moto.rs"]
mod moto;

pub(crate) use moto::Moto;

/// The account that the credentials of the tests belong to.
pub(crate) const ACCOUNT: &str = "123456789012";

/// A hosted zone.
pub(crate) struct Hosted<'a> {
    moto: &'a Moto,
    account: &'static str,
    pub(crate) id: String,
}

impl<'a> Hosted<'a> {
    pub(crate) fn public(moto: &'a Moto, name: &str) -> Self {
        Self::make(moto, name, ACCOUNT, "")
    }

    pub(crate) fn private(moto: &'a Moto, name: &str) -> Self {
        let vpc = "<VPC><VPCRegion>eu-west-1</VPCRegion><VPCId>vpc-1</VPCId></VPC>\
                   <HostedZoneConfig><PrivateZone>true</PrivateZone></HostedZoneConfig>";
        Self::make(moto, name, ACCOUNT, vpc)
    }

    pub(crate) fn make(moto: &'a Moto, name: &str, account: &'static str, more: &str) -> Self {
        let (vpc, config) = more.split_once("</VPC>").map_or(("", more), |(vpc, config)| (vpc, config));
        let vpc = if vpc.is_empty() { String::new() } else { format!("{vpc}</VPC>") };
        let body = format!(
            "<CreateHostedZoneRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><Name>{name}</Name>{vpc}\
             <CallerReference>{}</CallerReference>{config}</CreateHostedZoneRequest>",
            rand::random::<u64>()
        );
        let (status, answer) = moto.call("route53", account, "POST", "/2013-04-01/hostedzone", &body);
        assert_eq!(status, 201, "{answer}");
        let id = tags(&answer, "Id").into_iter().find(|id| id.starts_with("/hostedzone/")).expect("an id");
        Self { moto, account, id: id.trim_start_matches("/hostedzone/").to_owned() }
    }

    /// Somebody else's batch: `CREATE www A 60 192.0.2.1`, one change a line; a further field `weight=SET:N` makes it a weighted set.
    pub(crate) fn change(&self, zone: &str, lines: &str) {
        let mut changes = String::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(5, ' ');
            let mut next = || words.next().unwrap();
            let (action, name, rtype, ttl) = (next(), next(), next(), next());
            let (data, weight) = next()
                .split_once(" weight=")
                .map_or_else(|| (line.splitn(5, ' ').nth(4).unwrap(), None), |(d, w)| (d, Some(w)));
            let name = if name == "@" { zone.to_owned() } else { format!("{name}.{zone}") };
            let weight =
                weight.and_then(|weight| weight.split_once(':')).map_or_else(String::new, |(set, weight)| {
                    format!("<SetIdentifier>{set}</SetIdentifier><Weight>{weight}</Weight>")
                });
            let records: String = data
                .split('|')
                .map(|value| format!("<ResourceRecord><Value>{value}</Value></ResourceRecord>"))
                .collect();
            changes.push_str(&format!(
                "<Change><Action>{action}</Action><ResourceRecordSet><Name>{name}</Name><Type>{rtype}</Type>{weight}<TTL>{ttl}</TTL>\
                 <ResourceRecords>{records}</ResourceRecords></ResourceRecordSet></Change>"
            ));
        }
        let body = format!(
            "<ChangeResourceRecordSetsRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><ChangeBatch><Changes>{changes}\
             </Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
        );
        let path = format!("/2013-04-01/hostedzone/{}/rrset/", self.id);
        let (status, answer) = self.moto.call("route53", self.account, "POST", &path, &body);
        assert_eq!(status, 200, "{answer}");
    }

    /// Every set but those that the zone began with: `www.example.com. A 60 192.0.2.1`, with what else is said of it behind.
    pub(crate) fn all(&self) -> Vec<String> {
        let (mut lines, mut query) = (Vec::new(), String::new());
        loop {
            let path = format!("/2013-04-01/hostedzone/{}/rrset?maxitems=300{query}", self.id);
            let (status, answer) = self.moto.call("route53", self.account, "GET", &path, "");
            assert_eq!(status, 200, "{answer}");
            let sets = tags(&answer, "ResourceRecordSet");
            lines.extend(
                sets.iter()
                    .filter(|set| !["NS", "SOA"].contains(&tags(set, "Type")[0].as_str()))
                    .map(|set| line(set)),
            );
            if tags(&answer, "IsTruncated") != ["true"] {
                lines.sort();
                return lines;
            }
            let next = |tag: &str| tags(&answer, tag).pop().unwrap_or_default();
            query = format!(
                "&name={}&type={}&identifier={}",
                next("NextRecordName").replace('\\', "%5C"),
                next("NextRecordType"),
                next("NextRecordIdentifier")
            );
        }
    }
}

fn line(set: &str) -> String {
    let one = |tag: &str| tags(set, tag).pop();
    let mut line = format!("{} {}", one("Name").unwrap(), one("Type").unwrap());
    let alias = one("AliasTarget");
    match &alias {
        Some(alias) => {
            let part = |tag: &str| tags(alias, tag).pop().unwrap_or_default();
            line += &format!(
                " alias {} {} {}",
                part("DNSName"),
                part("HostedZoneId"),
                part("EvaluateTargetHealth")
            );
        }
        None => {
            let mut values = tags(set, "Value");
            values.sort();
            line += &format!(" {} {}", one("TTL").unwrap_or_default(), values.join("|"));
        }
    }
    for tag in [
        "SetIdentifier",
        "Weight",
        "Region",
        "ContinentCode",
        "CountryCode",
        "SubdivisionCode",
        "Failover",
        "MultiValueAnswer",
        "HealthCheckId",
    ] {
        if let Some(value) = one(tag) {
            line += &format!(" {tag}={value}");
        }
    }
    line
}

/// What stands in each element of this name.
pub(crate) fn tags(xml: &str, tag: &str) -> Vec<String> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let plain = |text: &str| text.replace("&quot;", "\"").replace("&amp;", "&");
    xml.split(&open).skip(1).filter_map(|part| part.split_once(&close)).map(|(text, _)| plain(text)).collect()
}

/// A database, and a configuration for Route 53 at this stand-in; `more` is put behind it.
pub(crate) fn scratch(moto: &Moto, more: &str) -> Scratch {
    Scratch::new(&configuration(moto, more))
}

pub(crate) fn configuration(moto: &Moto, more: &str) -> String {
    let rate = if more.contains("[agent.route53]") { "" } else { "[agent.route53]\nrate = 500\n" };
    format!("[agent.aws]\nendpoint = '{}'\nregion = 'us-east-1'\n{rate}{more}", moto.url())
}

/// Runs the program to its end: the exit code, and what it said.
pub(crate) fn run(scratch: &Scratch, moto: &Moto, args: &[&str]) -> (i32, String) {
    let output = scratch.command(args).envs(moto.environment()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

/// The program as a daemon.
pub(crate) fn daemon(scratch: &Scratch, moto: &Moto) -> Daemon {
    let log = fs::File::create(scratch.path().join("log")).unwrap();
    let mut command = scratch.command(&[]);
    Daemon(command.envs(moto.environment()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}
