//! Reading record sets: all of a zone, or those of single names.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_route53::types::{ResourceRecordSet, RrType};
use shoal_agent::Fault;
use shoal_aws::{Failed, Kind};

use super::sets::Place;
use super::{Route53, name};
use crate::record::{Key, Node, RecordSet};

/// The most sets of one page.
const PAGE: i32 = 300;
/// How many are asked for where those of one name are wanted: what comes after it is not.
const OF_ONE: i32 = 10;

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    name: Option<String>,
    rtype: Option<RrType>,
    set: Option<String>,
}

impl Route53 {
    /// One page; and where the next one begins, if there is one.
    async fn page(
        &self,
        place: Place<'_>,
        start: Option<Start>,
        most: i32,
    ) -> Result<(Vec<ResourceRecordSet>, Option<Start>), Fault> {
        let what = || format!("list the records of {} ({}) at Route 53", place.zone, place.id);
        let mut asked =
            self.client().await?.list_resource_record_sets().hosted_zone_id(place.id).max_items(most);
        if let Some(Start { name, rtype, set }) = start.clone() {
            asked = asked
                .set_start_record_name(name)
                .set_start_record_type(rtype)
                .set_start_record_identifier(set);
        }
        let page = Box::pin(asked.send()).await.map_err(|error| {
            let failed = Failed::of(&error);
            if failed.kind == Kind::Missing {
                self.forget(place.zone);
            }
            failed.fault(what())
        })?;
        let next = Start {
            name: page.next_record_name,
            rtype: page.next_record_type,
            set: page.next_record_identifier,
        };
        let next = Some(next).filter(|_| page.is_truncated);
        if next.is_some() && (next == start || next.as_ref().is_some_and(|next| next.name.is_none())) {
            return Err(Fault::new(
                what(),
                "it says that there is more, and not where; what it told is no whole zone",
            ));
        }
        Ok((page.resource_record_sets, next))
    }

    /// Every name of the zone.
    pub(super) async fn all(&self, place: Place<'_>) -> Result<BTreeMap<Key, Node>, Fault> {
        let (mut all, mut start) = (Vec::new(), None);
        loop {
            let (sets, next) = self.page(place, start, PAGE).await?;
            all.extend(sets.iter().filter_map(|set| place.told(set)));
            match next {
                Some(next) => start = Some(next),
                None => return Ok(nodes(all)),
            }
        }
    }

    /// These names, and no others.
    pub(super) async fn some(&self, place: Place<'_>, keys: &[&Key]) -> Result<BTreeMap<Key, Node>, Fault> {
        let mut all = Vec::new();
        for key in keys {
            let sets = self.name(place, key).await?;
            all.extend(sets.iter().filter_map(|set| place.told(set)));
        }
        Ok(nodes(all))
    }

    /// The sets of one name, as they are told.
    pub(super) async fn name(&self, place: Place<'_>, key: &Key) -> Result<Vec<ResourceRecordSet>, Fault> {
        let asked = name::of_key(key)
            .map_err(|why| Fault::new(format!("look at {} at Route 53", key.name()), why).permanent())?;
        let mut start = Some(Start { name: Some(asked.clone()), rtype: None, set: None });
        let mut found = Vec::new();
        let asked = name::told(&asked);
        while let Some(at) = start.take() {
            let (sets, next) = self.page(place, Some(at), OF_ONE).await?;
            let is_of_it = |set: &ResourceRecordSet| name::told(&set.name).eq_ignore_ascii_case(&asked);
            let all_of_it = sets.iter().all(is_of_it);
            found.extend(sets.into_iter().filter(is_of_it));
            start = next.filter(|_| all_of_it);
        }
        Ok(found)
    }
}

fn nodes(all: Vec<(Key, RecordSet)>) -> BTreeMap<Key, Node> {
    let mut names: BTreeMap<Key, Vec<RecordSet>> = BTreeMap::new();
    for (key, set) in all {
        names.entry(key).or_default().push(set);
    }
    let node = |mut sets: Vec<RecordSet>| {
        sets.sort_by(|one, two| one.id().cmp(&two.id()));
        Node { sets: Arc::new(sets) }
    };
    names.into_iter().map(|(key, sets)| (key, node(sets))).collect()
}
