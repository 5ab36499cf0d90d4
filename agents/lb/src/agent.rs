//! The pure agent: tags under `lb/` into pools and servers.

use std::net::IpAddr;

use shoal_agent::{
    Agent, At, Blocked, Desired, Host, Lifecycle, Look, Moment, Source, Step, Unit, pattern, schemars,
};

use crate::item::{Check, Have, Item, Key, Path, Pool, Server};
use crate::leave;
use crate::spec::{Balance, Overrides, Protocol, Spec};

/// The load-balancer agent. Its members serve when they are active.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lb {
    /// The load balancer passes datagrams, too.
    pub udp: bool,
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
        key.pool.key().into()
    }

    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<Key>, Blocked> {
        Ok(vec![Key { pool: from.tag.clone(), host: from.host_name().cloned() }])
    }

    fn desired(&self, key: &Key, from: &[Source<'_, Spec>], _: &dyn Look) -> Result<Desired<Item>, Blocked> {
        // The key holds the tag and the host, so there is one source.
        let Some(source) = from.iter().find(|source| source.host_name() == key.host.as_ref()) else {
            return Ok(Desired::nothing(Vec::new()));
        };
        let Some(host) = source.host else {
            let pool = self.pool(source.spec).map_err(|why| Blocked::new(source.name(), why))?;
            return Ok(Desired::item(Item::Pool(pool)));
        };
        // One that was served and has no usable address any more stays in work where it is: nobody said that it should leave.
        let server = server(source.spec, host).map_err(|why| Blocked::new(source.name(), why))?;
        Ok(Desired::item(Item::Server(server)))
    }

    fn made(&self, item: &Item) -> Option<Have> {
        Some(Have::from(item.clone()))
    }

    fn takes_unit(&self, key: &Key, _: &Have, to: Option<&Item>) -> bool {
        key.host.is_none() && to.is_none()
    }

    fn step(&self, key: &Key, at: At<'_, Self>, now: Moment) -> Step {
        match (at.want, at.have) {
            (None, Some(Have::Server(standing))) if key.host.is_some() => {
                leave::step(key, &at, standing, now)
            }
            (Some(Item::Server(want)), Some(Have::Server(standing))) => leave::wanted(want, &at, standing),
            (Some(want), Some(have @ Have::Pool { runs: false, .. })) if have == want => Step::act("load"),
            _ => at.by_default(),
        }
    }
}

impl Lb {
    fn pool(&self, spec: &Spec) -> Result<Pool, String> {
        if spec.protocol == Protocol::Udp && !self.udp {
            return Err("protocol: this load balancer passes no datagrams; it needs nginx".to_owned());
        }
        if spec.balance == Balance::Uri && spec.protocol != Protocol::Http {
            return Err("balance: uri needs protocol: http".to_owned());
        }
        let check = spec.check.as_ref().map(|check| {
            let path = check.path.clone().map(Path::try_from).transpose();
            let path = path.map_err(|why| format!("check.path: {why}"))?;
            if path.is_some() && spec.protocol != Protocol::Http {
                return Err("check.path: a path needs protocol: http".to_owned());
            }
            Ok(Check { path, interval: check.interval, rise: check.rise, fall: check.fall })
        });
        let mut frontends = spec.frontends.clone();
        frontends.sort_unstable();
        frontends.dedup();
        Ok(Pool {
            protocol: spec.protocol,
            balance: spec.balance,
            check: check.transpose()?,
            slow_start: spec.slow_start,
            least: spec.least,
            frontends,
        })
    }
}

fn server(spec: &Spec, host: &Host) -> Result<Server, String> {
    let said = match &spec.address {
        Some(pattern) => pattern::fill(pattern, host, |_| None, |value, text| text.push_str(value))
            .map_err(|why| format!("address: {why}"))?
            .ok_or_else(|| format!("address: it lacks a field that {pattern:?} names"))?,
        None => {
            let field = host.text("address").or_else(|| host.text("address6"));
            field.ok_or("it has neither the field address nor address6")?.into_owned()
        }
    };
    let address: IpAddr = said.parse().map_err(|_| format!("address: {said:?} is no IP address"))?;
    if spec.port == 0 || spec.weight > 256 {
        return Err("port is from 1 to 65535, and weight from 0 to 256".to_owned());
    }
    Ok(Server { address, port: spec.port, weight: spec.weight, drain: spec.drain })
}

#[cfg(test)]
mod tests;
