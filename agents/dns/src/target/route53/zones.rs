//! Which hosted zone is meant by a zone's name. Found once in a process.

use std::sync::PoisonError;

use aws_sdk_route53::types::HostedZone;
use shoal_agent::Fault;
use shoal_aws::{Failed, Kind};

use super::{Route53, name};
use crate::name::Zone;

impl Route53 {
    /// The id of the hosted zone.
    ///
    /// # Errors
    /// There is none, there are several, or the account cannot be asked.
    pub(super) async fn hosted(&self, zone: &Zone) -> Result<String, Fault> {
        let known = self.zones.lock().unwrap_or_else(PoisonError::into_inner).get(zone).cloned();
        if let Some(id) = known {
            return Ok(id);
        }
        let id = match self.settings.zone(zone) {
            Some(id) => self.check(zone, id).await?,
            None => self.find(zone).await?,
        };
        self.zones.lock().unwrap_or_else(PoisonError::into_inner).insert(zone.clone(), id.clone());
        Ok(id)
    }

    /// It is looked for again.
    pub(super) fn forget(&self, zone: &Zone) {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner).remove(zone);
    }

    /// That the one which the configuration names is what it is taken for.
    async fn check(&self, zone: &Zone, id: &str) -> Result<String, Fault> {
        let what =
            || format!("look at the hosted zone {id} of Route 53, which the configuration names for {zone}");
        let answer = Box::pin(self.client().await?.get_hosted_zone().id(id).send()).await;
        let hosted = answer.map_err(|error| Failed::of(&error).fault(what()))?.hosted_zone;
        let hosted = hosted.ok_or_else(|| Fault::new(what(), "the answer has none"))?;
        let correct = "correct zones in [agent.route53]";
        if !is_named(&hosted, zone) {
            return Err(Fault::new(what(), format!("it is {}", hosted.name)).next(correct).permanent());
        }
        if is_private(&hosted) != self.settings.private {
            let (is, meant) = if is_private(&hosted) { ("private", "public") } else { ("public", "private") };
            let why = format!("it is {is}, and [agent.route53] means {meant} ones");
            return Err(Fault::new(what(), why)
                .next("correct zones or private in [agent.route53]")
                .permanent());
        }
        Ok(id.to_owned())
    }

    async fn find(&self, zone: &Zone) -> Result<String, Fault> {
        let kind = if self.settings.private { "private" } else { "public" };
        let what = || format!("find the {kind} hosted zone {zone} at Route 53");
        let mut found = Vec::new();
        let mut next: Option<(Option<String>, Option<String>)> = Some((Some(format!("{zone}.")), None));
        while let Some((name, id)) = next.take() {
            let asked =
                self.client().await?.list_hosted_zones_by_name().set_dns_name(name).set_hosted_zone_id(id);
            let page = Box::pin(asked.send()).await.map_err(|error| {
                let failed = Failed::of(&error);
                match failed.kind {
                    Kind::Refused => failed.fault(what()).next(
                        "allow route53:ListHostedZonesByName, or name the zone's id under zones in [agent.route53]",
                    ),
                    _ => failed.fault(what()),
                }
            })?;
            let reached = page.hosted_zones.iter().all(|hosted| is_named(hosted, zone));
            let meant =
                |hosted: &&HostedZone| is_named(hosted, zone) && is_private(hosted) == self.settings.private;
            found.extend(page.hosted_zones.iter().filter(meant).map(|hosted| plain(&hosted.id).to_owned()));
            // They come sorted: behind another name there is none of this one.
            if page.is_truncated && reached {
                next = Some((page.next_dns_name, page.next_hosted_zone_id));
            }
        }
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Fault::new(what(), "the account has none of this name").next("make one (aws route53 create-hosted-zone), or correct [agent.aws] and private in [agent.route53]; Shoal makes none")),
            several => Err(Fault::new(what(), format!("there are several: {}", several.join(", "))).next(format!(
                "say which is meant: [agent.route53.zones] \"{zone}\" = \"{}\"",
                several[0]
            ))),
        }
    }
}

fn is_named(hosted: &HostedZone, zone: &Zone) -> bool {
    name::told(&hosted.name).trim_end_matches('.').eq_ignore_ascii_case(zone.as_str())
}

fn is_private(hosted: &HostedZone) -> bool {
    hosted.config.as_ref().is_some_and(|config| config.private_zone)
}

fn plain(id: &str) -> &str {
    id.trim_start_matches("/hostedzone/")
}
