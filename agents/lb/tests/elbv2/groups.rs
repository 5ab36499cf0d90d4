//! Target groups in what answers as AWS does, spoken to without Shoal: what others do to them, and what stands in them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::common::Scratch;
use super::moto::Moto;

/// One call, as anybody may make it.
pub(crate) fn call(moto: &Moto, service: &str, action: &str, more: &[(&str, &str)]) -> String {
    let version = if service == "ec2" { "2016-11-15" } else { "2015-12-01" };
    let mut body = format!("Action={action}&Version={version}");
    for (name, value) in more {
        let value: String = value.bytes().map(|octet| format!("%{octet:02X}")).collect();
        body += &format!("&{name}={value}");
    }
    let url = moto.url();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let scope = format!("AKIATEST/20260101/eu-west-1/{service}/aws4_request");
    let length = body.len();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {service}.eu-west-1.amazonaws.com\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=x\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{action}: {answer}");
    answer
}

/// The texts of these elements.
pub(crate) fn texts<'a>(answer: &'a str, element: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    answer.split(&open).skip(1).filter_map(|rest| rest.split_once(&close)).map(|(text, _)| text).collect()
}

/// A target group of somebody else's.
pub(crate) struct Group<'m> {
    moto: &'m Moto,
    pub(crate) arn: String,
}

impl<'m> Group<'m> {
    pub(crate) fn make(moto: &'m Moto, name: &str, kind: &str) -> Self {
        let vpcs = call(moto, "ec2", "DescribeVpcs", &[]);
        let vpc = texts(&vpcs, "vpcId")[0];
        let more =
            [("Name", name), ("Protocol", "HTTP"), ("Port", "80"), ("VpcId", vpc), ("TargetType", kind)];
        let made = call(moto, "elasticloadbalancing", "CreateTargetGroup", &more);
        Self { moto, arn: texts(&made, "TargetGroupArn")[0].to_owned() }
    }

    fn tell(&self, action: &str, more: &[(&str, &str)]) -> String {
        let all: Vec<_> =
            [("TargetGroupArn", self.arn.as_str())].into_iter().chain(more.iter().copied()).collect();
        call(self.moto, "elasticloadbalancing", action, &all)
    }

    /// Somebody else registers or deregisters a target.
    pub(crate) fn by_hand(&self, action: &str, id: &str, port: &str) {
        self.tell(action, &[("Targets.member.1.Id", id), ("Targets.member.1.Port", port)]);
    }

    pub(crate) fn attribute(&self, name: &str, value: &str) {
        let more = [("Attributes.member.1.Key", name), ("Attributes.member.1.Value", value)];
        self.tell("ModifyTargetGroupAttributes", &more);
    }

    pub(crate) fn delete(&self) {
        self.tell("DeleteTargetGroup", &[]);
    }

    /// What is in it: targets with their states.
    pub(crate) fn targets(&self) -> BTreeMap<String, String> {
        let said = self.tell("DescribeTargetHealth", &[]);

        let one = |text: &str| {
            let target = format!("{}:{}", texts(text, "Id")[0], texts(text, "Port")[0]);

            (target, texts(text, "State")[0].to_owned())
        };

        said.split("<Target>").skip(1).map(one).collect()
    }

    /// The targets alone.
    pub(crate) fn names(&self) -> Vec<String> {
        self.targets().into_keys().collect()
    }
}

/// The program, with these pools bound to groups of the same name: `web = 'ip'`.
pub(crate) fn scratch(moto: &Moto, pools: &[(&str, &str, &str)], more: &str) -> Scratch {
    let mut scratch = Scratch::new(&config(moto, pools, more));
    scratch.environment = moto.environment().into();
    scratch
}

/// Its configuration: pools, the names of their groups, and what those hold.
pub(crate) fn config(moto: &Moto, pools: &[(&str, &str, &str)], more: &str) -> String {
    let groups: String = pools
        .iter()
        .map(|(pool, group, kind)| {
            let which = if group.starts_with("arn:") { "arn" } else { "name" };
            format!("{pool} = {{ {which} = '{group}', type = '{kind}' }}\n")
        })
        .collect();
    format!(
        "{more}\n[agent.aws]\nendpoint = '{}'\n[agent.elbv2]\nlook = 1\nrate = 0\nwithin = 4\n[agent.elbv2.groups]\n{groups}",
        moto.url()
    )
}

/// Hosts `web1`, `web2`, …, and a pool of them on port 80.
pub(crate) fn fleet(pool: &str, hosts: std::ops::Range<usize>, more: &str) -> String {
    let mut text = String::new();
    for n in hosts.clone() {
        let (high, low) = (n / 250, n % 250 + 1);
        text += &format!(
            "host: web{n}.example.com\ndocument: {{address: 10.0.{high}.{low}, instance_id: i-{n:08x}}}\n---\n"
        );
    }
    let names: Vec<String> = hosts.map(|n| format!("web{n}.example.com")).collect();
    format!("{text}tag: lb/{pool}\ndocument: {{port: 80{more}}}\nmembers: [{}]\n", names.join(", "))
}
