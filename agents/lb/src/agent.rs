//! The pure agent: tags under `lb/` into pools, servers and virtual addresses.

use std::net::IpAddr;
use std::sync::Arc;

use shoal_agent::{
    Agent, At, Blocked, Desired, Host, HostName, Known, Lifecycle, Look, Moment, Seen, Source, Step, Unit,
    pattern, schemars,
};

use crate::groups::{self, Groups};
use crate::item::{
    Address, Check, Have, Item, Key, Path, Pool, Prefix, Server, Word, address, bad_pool, is_node, node_unit,
};
use crate::leave;
use crate::spec::{Balance, DRAIN, FALL, INTERVAL, Overrides, Protocol, RISE, Spec};

/// What is said of a pool that says something of a virtual address.
pub(crate) const MISPLACED: &str = "virtual_address: it belongs into a tag whose name begins with address:";

/// The load-balancer agent. Its members serve when they are active.
#[derive(Clone, Debug, Default)]
pub struct Lb {
    /// The load balancer passes datagrams, too.
    pub udp: bool,
    /// It looks at no server by itself, and knows no slow start.
    pub passive: bool,
    /// It works on the virtual addresses of this machine; `None`: on pools.
    pub node: Option<HostName>,
    /// Pools are target groups of AWS.
    pub groups: Option<Arc<Groups>>,
}

impl Agent for Lb {
    type Spec = Spec;
    type Key = Key;
    type Item = Item;
    type Have = Have;

    fn namespace(&self) -> &str {
        "lb"
    }

    fn overrides(&self) -> Option<schemars::Schema> {
        Some(schemars::schema_for!(Overrides))
    }

    fn serves(&self, state: Lifecycle) -> bool {
        state == Lifecycle::Active
    }

    fn unit(&self, key: &Key) -> Unit {
        match &key.host {
            Some(node) if key.address().is_some() => node_unit(node),
            _ => key.pool.key().into(),
        }
    }

    fn units_of(&self, host: &HostName) -> Option<Vec<Unit>> {
        // Pools, which it may be in as well, are not reached then.
        self.node.as_ref().map(|_| vec![node_unit(host)])
    }

    fn reaches(&self, unit: &Unit) -> bool {
        match &self.node {
            Some(node) => *unit == node_unit(node),
            None => !is_node(unit),
        }
    }

    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<Key>, Blocked> {
        if let Some(name) = address(from.tag) {
            Word::try_from(name.to_owned()).map_err(|why| Blocked::new(from.name(), why))?;
            let node = |node: &HostName| Key { pool: from.tag.clone(), host: Some(node.clone()), at: None };
            return Ok(from.host_name().map(node).into_iter().collect());
        }
        if let Some(why) = bad_pool(from.tag.key()) {
            return Err(Blocked::new(from.name(), why));
        }
        if let Some(groups) = &self.groups {
            return groups.keys(from);
        }
        Ok(vec![Key { pool: from.tag.clone(), host: from.host_name().cloned(), at: None }])
    }

    fn desired(&self, key: &Key, from: &[Source<'_, Spec>], _: &dyn Look) -> Result<Desired<Item>, Blocked> {
        if let Some(groups) = &self.groups
            && key.address().is_none()
        {
            return Ok(groups.desired(key, from));
        }
        // The key holds the tag and the host, so there is one source.
        let Some(source) = from.iter().find(|source| source.host_name() == key.host.as_ref()) else {
            return Ok(Desired::nothing(Vec::new()));
        };
        let Some(host) = source.host else {
            let pool = self.pool(source.spec).map_err(|why| Blocked::new(source.name(), why))?;
            let left_out =
                self.not_done(&pool).into_iter().map(|why| Blocked::new(source.name(), why)).collect();
            return Ok(Desired { item: Some(Item::Pool(pool)), left_out });
        };
        if key.address().is_some() {
            let address = virtual_address(source.spec).map_err(|why| Blocked::new(source.name(), why))?;
            return Ok(Desired::item(Item::Address(address)));
        }
        // One that was served and has no usable address any more stays in work where it is: nobody said that it should leave.
        let mut server = server(source.spec, host).map_err(|why| Blocked::new(source.name(), why))?;
        let hashes = !matches!(source.spec.balance, Balance::RoundRobin | Balance::LeastConnections);
        let mut left_out = Vec::new();
        if self.passive && server.backup && hashes {
            let why = "backup: nginx has it with balance: round_robin and least_connections alone, so it gets its share";
            left_out.push(Blocked::new(source.name(), why));
            server.backup = false;
        }
        Ok(Desired { item: Some(Item::Server(server)), left_out })
    }

    fn made(&self, item: &Item) -> Option<Have> {
        // What a group is, a look says.
        (!matches!(item, Item::Group(_))).then(|| Have::from(item.clone()))
    }

    fn part(&self, _: &Key, have: &Have, known: Known<'_, Item>) -> Seen<Have> {
        groups::part(have, &known)
    }

    fn takes_unit(&self, key: &Key, _: &Have, to: Option<&Item>) -> bool {
        self.groups.is_none() && key.host.is_none() && to.is_none()
    }

    fn step(&self, key: &Key, at: At<'_, Self>, now: Moment) -> Step {
        if let Some(groups) = &self.groups
            && key.address().is_none()
        {
            return groups::step::step(groups, key, &at, now);
        }
        match (at.want, at.have) {
            (None, Some(Have::Server(standing))) if key.host.is_some() => {
                leave::step(key, &at, standing, now)
            }
            (Some(Item::Server(want)), Some(Have::Server(standing))) => leave::wanted(want, &at, standing),
            (
                Some(want),
                Some(have @ (Have::Pool { runs: false, .. } | Have::Address { runs: false, .. })),
            ) if have == want => Step::act("load"),
            // What it remembers says that it is gone, and that this was written down.
            (None, Some(Have::Pool { .. })) => Step::Act { verb: "remove", memo: at.memo.clone() },
            _ => at.by_default(),
        }
    }
}

impl Lb {
    /// What the load balancer does not do of what a pool says.
    fn not_done(&self, pool: &Pool) -> Vec<String> {
        let mut all = Vec::new();
        if self.passive && pool.check.is_some() {
            all.push("check: nginx looks at no server by itself, so one is left out only after requests to it failed".to_owned());
        }
        if self.passive && pool.slow_start > 0 {
            all.push("slow_start: nginx has none, so a member gets its whole share at once".to_owned());
        }
        all
    }

    fn pool(&self, spec: &Spec) -> Result<Pool, String> {
        if spec.virtual_address.is_some() {
            return Err(MISPLACED.to_owned());
        }
        if spec.protocol == Protocol::Udp && !self.udp {
            return Err("protocol: this load balancer passes no datagrams; it needs nginx".to_owned());
        }
        if spec.balance == Balance::Uri && spec.protocol != Protocol::Http {
            return Err("balance: uri needs protocol: http".to_owned());
        }
        if spec.tls.is_some() && self.passive {
            return Err(
                "tls: nginx knows one name for the certificates of all members; it needs HAProxy".to_owned()
            );
        }
        let mut frontends = spec.frontends.clone();
        frontends.sort_unstable();
        frontends.dedup();
        Ok(Pool {
            protocol: spec.protocol,
            balance: spec.balance,
            check: check(spec)?,
            slow_start: spec.slow_start,
            least: spec.least,
            tls: spec.tls.clone().map(Word::try_from).transpose().map_err(|why| format!("tls: {why}"))?,
            frontends,
        })
    }
}

/// How members are checked.
pub(crate) fn check(spec: &Spec) -> Result<Option<Check>, String> {
    let check = spec.check.as_ref().map(|check| {
        let path = check.path.clone().map(Path::try_from).transpose();
        let path = path.map_err(|why| format!("check.path: {why}"))?;
        if path.is_some() && spec.protocol != Protocol::Http {
            return Err("check.path: a path needs protocol: http".to_owned());
        }
        Ok(Check {
            path,
            interval: check.interval.unwrap_or(INTERVAL),
            rise: check.rise.unwrap_or(RISE),
            fall: check.fall.unwrap_or(FALL),
        })
    });
    check.transpose()
}

/// Where a member is.
pub(crate) fn place(spec: &Spec, host: &Host) -> Result<IpAddr, String> {
    let said = match &spec.address {
        Some(pattern) => pattern::fill(pattern, host, |_| None, |value, text| text.push_str(value))
            .map_err(|why| format!("address: {why}"))?
            .ok_or_else(|| format!("address: it lacks a field that {pattern:?} names"))?,
        None => {
            let field = host.text("address").or_else(|| host.text("address6"));
            field.ok_or("it has neither the field address nor address6")?.into_owned()
        }
    };
    said.parse().map_err(|_| format!("address: {said:?} is no IP address"))
}

/// The port of a member.
pub(crate) fn port(spec: &Spec) -> Result<u16, String> {
    match spec.port {
        Some(0) => Err("port is from 1 to 65535".to_owned()),
        Some(port) => Ok(port),
        None => Err("it has no port".to_owned()),
    }
}

fn server(spec: &Spec, host: &Host) -> Result<Server, String> {
    let (address, port) = (place(spec, host)?, port(spec)?);
    if spec.weight > 256 {
        return Err("weight is from 0 to 256".to_owned());
    }
    let drain = spec.drain.unwrap_or(DRAIN);
    Ok(Server { address, port, weight: spec.weight, backup: spec.backup, drain })
}

fn virtual_address(spec: &Spec) -> Result<Address, String> {
    let said = spec.virtual_address.as_ref().ok_or("it has no virtual_address, which its name promises")?;
    let words = |words: &[String]| words.iter().cloned().map(Word::try_from).collect::<Result<Vec<_>, _>>();
    let addresses: Result<Vec<_>, _> = said.addresses.iter().cloned().map(Prefix::try_from).collect();
    let addresses = addresses.map_err(|why| format!("virtual_address.addresses: {why}"))?;
    let Some(first) = addresses.first() else {
        return Err("virtual_address.addresses: there is none".to_owned());
    };
    if addresses.iter().any(|one| one.address.is_ipv4() != first.address.is_ipv4()) {
        return Err("virtual_address.addresses: they are of two families; write a tag for each".to_owned());
    }
    if said.router == 0
        || spec.priority == 0
        || spec.priority == 255
        || addresses.len() > 8
        || said.checks.len() > 8
    {
        return Err(
            "router is from 1 to 255, priority from 1 to 254, and there are at most 8 addresses and 8 checks"
                .to_owned(),
        );
    }
    Ok(Address {
        addresses,
        router: said.router,
        priority: spec.priority,
        // By hundredths of a second, as the protocol has it.
        advertise: said.advertise.clamp(10, 40_000) / 10 * 10,
        network: said
            .network
            .clone()
            .map(Word::try_from)
            .transpose()
            .map_err(|why| format!("network: {why}"))?,
        checks: words(&said.checks).map_err(|why| format!("checks: {why}"))?,
    })
}

#[cfg(test)]
mod tests;
