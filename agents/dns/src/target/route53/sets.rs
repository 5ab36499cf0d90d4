//! Record sets as the API has them, and back.

use aws_sdk_route53::types::{
    AliasTarget, GeoLocation, ResourceRecord, ResourceRecordSet, ResourceRecordSetFailover,
    ResourceRecordSetRegion, RrType,
};

use super::{Route53Settings, name};
use crate::name::{self as names, Zone};
use crate::rdata::{self, Rtype};
use crate::record::{Key, RecordSet};
use crate::route::{Alias, Failover, Location, Policy, Routing};

/// The most records of one set.
/// [Quotas](https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/DNSLimitations.html#limits-api-entities-records)
const MOST_RECORDS: usize = 400;
/// The types that Shoal can write there. Route 53 also has HTTPS and SVCB, whose data Shoal keeps in the generic form, which it does not take.
const TYPES: [&str; 15] = [
    "A", "AAAA", "CAA", "CNAME", "DS", "MX", "NAPTR", "NS", "PTR", "SOA", "SPF", "SRV", "SSHFP", "TLSA",
    "TXT",
];

/// A hosted zone, and what the node's configuration says of it.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) zone: &'a Zone,
    /// Its id, without `/hostedzone/`.
    pub(super) id: &'a str,
    pub(super) settings: &'a Route53Settings,
}

impl Place<'_> {
    /// A set as it is sent.
    ///
    /// # Errors
    /// What Route 53 has no form for.
    pub(super) fn sent(&self, key: &Key, set: &RecordSet) -> Result<ResourceRecordSet, String> {
        let rtype = set.rtype.to_string();
        if !TYPES.contains(&rtype.as_str()) {
            return Err(format!(
                "Shoal writes no {rtype} records to Route 53 (it writes {})",
                TYPES.join(", ")
            ));
        }
        if set.data.len() > MOST_RECORDS {
            return Err(format!(
                "{} {rtype} records under one name; Route 53 has at most {MOST_RECORDS}",
                set.data.len()
            ));
        }
        let built = |error: aws_sdk_route53::error::BuildError| error.to_string();
        let mut sent =
            ResourceRecordSet::builder().name(name::of_key(key)?).r#type(RrType::from(rtype.as_str()));
        let routing = set.routing.as_deref();
        if let Some(alias) = routing.and_then(|routing| routing.alias.as_ref()) {
            sent = sent.alias_target(self.alias(alias)?);
        } else {
            let record =
                |data: &String| ResourceRecord::builder().value(name::value(data)).build().map_err(built);
            let records = set.data.iter().map(record).collect::<Result<Vec<_>, _>>()?;
            sent = sent.ttl(set.ttl.into()).set_resource_records(Some(records));
        }
        let Some(routing) = routing else { return sent.build().map_err(built) };
        sent = sent.set_set_identifier(routing.set.clone());
        if let Some(health) = &routing.health {
            if self.settings.health_name(health) != health {
                let name = self.settings.health_name(health);
                return Err(format!(
                    "the health check {health} has the name {name} in the configuration; write that in the tag"
                ));
            }
            sent = sent.health_check_id(self.settings.health_id(health));
        }
        sent = match &routing.policy {
            None => sent,
            Some(Policy::Weight(weight)) => sent.weight(i64::from(*weight)),
            Some(Policy::Region(region)) => sent.region(ResourceRecordSetRegion::from(region.as_str())),
            Some(Policy::Location(place)) => sent.geo_location(
                GeoLocation::builder()
                    .set_continent_code(place.continent.clone())
                    .set_country_code(place.country.clone())
                    .set_subdivision_code(place.subdivision.clone())
                    .build(),
            ),
            Some(Policy::Failover(Failover::Primary)) => sent.failover(ResourceRecordSetFailover::Primary),
            Some(Policy::Failover(Failover::Secondary)) => {
                sent.failover(ResourceRecordSetFailover::Secondary)
            }
            Some(Policy::Multivalue) => sent.multi_value_answer(true),
            Some(Policy::Other(what)) => return Err(format!("a set chosen by {what} cannot be written")),
        };
        sent.build().map_err(built)
    }

    fn alias(&self, alias: &Alias) -> Result<AliasTarget, String> {
        if alias.zone.as_deref() == Some(self.id) {
            return Err(format!("alias.zone {} is this very zone; leave it out", self.id));
        }
        AliasTarget::builder()
            .dns_name(name::of_alias(&alias.name)?)
            .hosted_zone_id(alias.zone.as_deref().unwrap_or(self.id))
            .evaluate_target_health(alias.evaluate)
            .build()
            .map_err(|error| error.to_string())
    }

    /// A set that was told, and its name; nothing where no tag can have the name.
    pub(super) fn told(&self, set: &ResourceRecordSet) -> Option<(Key, RecordSet)> {
        let plain = name::told(&set.name);
        let owner = names::owner(&plain, self.zone).ok()?;
        let rtype: Rtype = set.r#type.as_str().parse().ok()?;
        // What is not data of its type as Shoal knows it stays as it was told: it is there, and not Shoal's.
        let data = |record: &ResourceRecord| {
            let text = name::told_value(&record.value);
            rdata::parse(rtype, &text, self.zone)
                .map_or((record.value.clone().into_bytes(), text), |data| (data.wire, data.text))
        };
        let mut all: Vec<_> = set.resource_records().iter().map(data).collect();
        all.sort();
        let ttl = set.ttl.and_then(|ttl| u32::try_from(ttl).ok()).unwrap_or_default();
        let data = all.into_iter().map(|(_, text)| text).collect();
        Some((Key::new(self.zone, &owner), RecordSet { rtype, ttl, data, routing: self.routing(set) }))
    }

    fn routing(&self, set: &ResourceRecordSet) -> Option<Box<Routing>> {
        let alias = set.alias_target.as_ref().map(|alias| Alias {
            name: name::told_alias(&alias.dns_name),
            zone: Some(alias.hosted_zone_id.clone()).filter(|zone| zone != self.id),
            evaluate: alias.evaluate_target_health,
        });
        let health = set.health_check_id.as_deref().map(|id| self.settings.health_name(id).to_owned());
        let set_id = set.set_identifier.clone();
        if alias.is_none() && health.is_none() && set_id.is_none() && set.traffic_policy_instance_id.is_none()
        {
            return None;
        }
        Some(Box::new(Routing { set: set_id, policy: policy(set), health, alias }))
    }
}

fn policy(set: &ResourceRecordSet) -> Option<Policy> {
    let other = |what: &str| Some(Policy::Other(what.to_owned()));
    if let Some(weight) = set.weight {
        return u8::try_from(weight).map_or_else(|_| other("weight"), |weight| Some(Policy::Weight(weight)));
    }
    if let Some(region) = &set.region {
        return Some(Policy::Region(region.as_str().to_owned()));
    }
    if let Some(place) = &set.geo_location {
        return Some(Policy::Location(Location {
            continent: place.continent_code.clone(),
            country: place.country_code.clone(),
            subdivision: place.subdivision_code.clone(),
        }));
    }
    match set.failover.as_ref().map(ResourceRecordSetFailover::as_str) {
        Some("PRIMARY") => return Some(Policy::Failover(Failover::Primary)),
        Some("SECONDARY") => return Some(Policy::Failover(Failover::Secondary)),
        _ => {}
    }
    if set.multi_value_answer == Some(true) {
        return Some(Policy::Multivalue);
    }
    if set.geo_proximity_location.is_some() {
        return other("geoproximity");
    }
    if set.cidr_routing_config.is_some() {
        return other("client address");
    }
    if set.traffic_policy_instance_id.is_some() {
        return other("a traffic policy");
    }
    set.set_identifier.as_ref().and_then(|_| other("an unknown policy"))
}
