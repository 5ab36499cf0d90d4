//! The calls to EC2 that are made. So many at once and so many a second; the SDK tries again by itself, more slowly for as long as it is
//! throttled. Each can be made twice: a launch bears its token, and the others say what shall be so.
//!
//! **A look** is every page of the answer, or an error.

use std::collections::BTreeMap;

use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{AttributeBooleanValue, AttributeValue, Filter, Instance, SummaryStatus, Tag};
use aws_sdk_ec2::{Client, Config};
use shoal_agent::{Fault, HostId, HostName};
use shoal_aws::{AwsSettings, Failed, Kind, Pace, UnlessFor};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::mark::{BOX, ID};
use super::settings::Ec2Settings;

/// How many one page holds.
const PAGE: i32 = 1_000;
/// How many instances one call names at most.
const NAMED: usize = 100;

/// What EC2 says where there is no room: nothing was launched, and another type, or another price, may have some.
pub(super) const ROOMLESS: [&str; 10] = [
    "InstanceLimitExceeded",
    "InsufficientCapacity",
    "InsufficientHostCapacity",
    "InsufficientInstanceCapacity",
    "InsufficientReservedInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "Unsupported",
    "VcpuLimitExceeded",
];
/// What it says where something that passes is in the way.
const PASSES: [&str; 4] = [
    "IncorrectInstanceState",
    "InsufficientFreeAddressesInSubnet",
    "InvalidIPAddress.InUse",
    "InvalidParameterCombination.InUse",
];

/// EC2 of one account and region.
#[derive(Debug)]
pub(super) struct Cloud {
    aws: AwsSettings,
    client: OnceCell<Client>,
    at_once: Semaphore,
    pace: Pace,
}

/// What a launch came to.
#[derive(Debug)]
pub(super) enum Launched {
    /// Instances with these ids and states.
    Is(Vec<Instance>),
    /// The service's refusal, or no answer.
    Failed(Failed),
}

impl Cloud {
    pub(super) fn new(aws: AwsSettings, settings: &Ec2Settings) -> Self {
        let at_once = Semaphore::new(settings.at_once as usize);
        let pace = Pace::new(settings.rate, settings.at_once.max(10));
        Self { aws, client: OnceCell::new(), at_once, pace }
    }

    /// Reads what the client is made of. Credentials are asked for by the first call.
    pub(super) async fn open(&self) -> Result<(), Fault> {
        self.client().await.map(drop)
    }

    async fn client(&self) -> Result<&Client, Fault> {
        let make = || async { Ok::<_, Fault>(Client::new(&Box::pin(self.aws.load("vm")).await?)) };
        self.client.get_or_try_init(make).await
    }

    /// The client, and the right to make one call with it.
    async fn turn(&self) -> Result<(&Client, SemaphorePermit<'_>), Fault> {
        let client = self.client().await?;
        let permit = self.at_once.acquire().await.map_err(|e| Fault::new("speak to EC2", e))?;
        self.pace.turn().await;
        Ok((client, permit))
    }

    /// What bears the mark of a box: all of it, or of these hosts.
    pub(super) async fn instances(
        &self,
        what: &str,
        room: &HostName,
        of: Option<&[&HostId]>,
    ) -> Result<Vec<Instance>, Fault> {
        let mut all = Vec::new();
        let parts: Vec<Option<&[&HostId]>> = match of {
            None => vec![None],
            Some(of) => of.chunks(NAMED).map(Some).collect(),
        };
        for part in parts {
            let mut filters = vec![filter(BOX, [room.to_string()])];
            filters.extend(part.map(|ids| filter(ID, ids.iter().map(|id| id.0.clone()))));
            self.pages(what, &filters, &mut all).await?;
        }
        Ok(all)
    }

    async fn pages(&self, what: &str, filters: &[Filter], all: &mut Vec<Instance>) -> Result<(), Fault> {
        let mut next = None;
        loop {
            let (client, _turn) = self.turn().await?;
            let call = client.describe_instances().max_results(PAGE).set_next_token(next.clone());
            let answer = Box::pin(call.set_filters(Some(filters.to_vec())).send()).await;
            let page = answer.map_err(|e| Failed::of(&e).fault(what))?;
            // An account without instances has an empty list; none at all is no answer.
            let sets = page.reservations.ok_or_else(|| Fault::new(what, "its answer has no list"))?;
            all.extend(sets.into_iter().flat_map(|set| set.instances.unwrap_or_default()));
            let more = page.next_token.filter(|token| !token.is_empty());
            if more.is_none() {
                return Ok(());
            }
            if more == next {
                return Err(Fault::new(
                    what,
                    "it says that there is more, and not where; that is no whole look",
                ));
            }
            next = more;
        }
    }

    /// One instance by its id, whatever it bears; `None`: it is not known there, which need not be so for ever.
    pub(super) async fn instance(&self, what: &str, id: &str) -> Result<Option<Instance>, Fault> {
        let (client, _turn) = self.turn().await?;
        match Box::pin(client.describe_instances().instance_ids(id).send()).await {
            Ok(page) => {
                let sets = page.reservations.unwrap_or_default().into_iter();
                Ok(sets.flat_map(|set| set.instances.unwrap_or_default()).next())
            }
            Err(error) => match Failed::of(&error) {
                failed if failed.kind == Kind::Missing || is_unknown(&failed) => Ok(None),
                failed => Err(failed.fault(what)),
            },
        }
    }

    /// Which of these instances, which run, have passed EC2's checks; `None`: not yet, or not any more. One that is not known there yet has
    /// passed none, and says nothing of the others.
    pub(super) async fn checked(&self, what: &str, ids: &[String]) -> Result<BTreeMap<String, bool>, Fault> {
        let mut all = BTreeMap::new();
        let mut parts: Vec<&[String]> = ids.chunks(NAMED).collect();
        while let Some(part) = parts.pop() {
            let (client, _turn) = self.turn().await?;
            let call = client.describe_instance_status().set_instance_ids(Some(part.to_vec()));
            let page = match Box::pin(call.send()).await {
                Ok(page) => page,
                Err(error) => match Failed::of(&error) {
                    // No filter names instances here, and one id that is not known refuses all: which one, its halves tell.
                    failed if is_unknown(&failed) => {
                        let (one, other) = part.split_at(part.len() / 2);
                        if !one.is_empty() {
                            parts.extend([one, other]);
                        }
                        continue;
                    }
                    failed => return Err(failed.fault(what)),
                },
            };
            for one in page.instance_statuses.unwrap_or_default() {
                let states =
                    [one.instance_status, one.system_status].map(|state| state.and_then(|s| s.status));
                if let Some(id) = one.instance_id {
                    all.insert(id, states.iter().all(|state| has_passed(state.as_ref())));
                }
            }
        }
        Ok(all)
    }

    /// Which spot requests are marked for an end that EC2 decided on, and why. Asked for by a filter: one that is not known there yet is
    /// left out, and refuses nothing.
    pub(super) async fn interrupted(
        &self,
        what: &str,
        ids: &[String],
    ) -> Result<BTreeMap<String, String>, Fault> {
        let mut all = BTreeMap::new();
        for part in ids.chunks(NAMED) {
            let (client, _turn) = self.turn().await?;
            let these =
                Filter::builder().name("spot-instance-request-id").set_values(Some(part.to_vec())).build();
            let call = client.describe_spot_instance_requests().filters(these);
            let page = Box::pin(call.send()).await.map_err(|e| Failed::of(&e).fault(what))?;
            for one in page.spot_instance_requests.unwrap_or_default() {
                let code = one.status.and_then(|status| status.code).unwrap_or_default();
                let ends = code.starts_with("marked-for-") || code.starts_with("instance-terminated-by-");
                if let Some(id) = one.spot_instance_request_id.filter(|_| ends) {
                    all.insert(id, code);
                }
            }
        }
        Ok(all)
    }

    /// Launches. `ask` says all of it, its token too: so it may be asked for again.
    pub(super) async fn launch(
        &self,
        ask: impl FnOnce(RunInstancesFluentBuilder) -> RunInstancesFluentBuilder,
    ) -> Result<Launched, Fault> {
        let (client, _turn) = self.turn().await?;
        let call = ask(client.run_instances())
            .customize()
            .config_override(Config::builder().retry_classifier(UnlessFor(&ROOMLESS)));
        Ok(match Box::pin(call.send()).await {
            Ok(answer) => Launched::Is(answer.instances.unwrap_or_default()),
            Err(error) => Launched::Failed(Failed::of(&error)),
        })
    }

    /// Terminates; what is on its way already, too.
    pub(super) async fn terminate(&self, what: &str, ids: Vec<String>) -> Result<(), Fault> {
        let (client, _turn) = self.turn().await?;
        let call = client.terminate_instances().set_instance_ids(Some(ids));
        let answer = Box::pin(call.send()).await;
        answer.map(drop).map_err(|e| match Failed::of(&e) {
            failed if failed.is("OperationNotPermitted") => failed.fault(what).next(
                "somebody protects it from being terminated, in EC2 and not by Shoal: take that off if it may go",
            ),
            failed => judged(what, &failed),
        })
    }

    pub(super) async fn start(&self, what: &str, id: &str) -> Result<(), Fault> {
        let (client, _turn) = self.turn().await?;
        let answer = Box::pin(client.start_instances().instance_ids(id).send()).await;
        answer.map(drop).map_err(|e| judged(what, &Failed::of(&e)))
    }

    pub(super) async fn stop(&self, what: &str, id: &str) -> Result<(), Fault> {
        let (client, _turn) = self.turn().await?;
        let answer = Box::pin(client.stop_instances().instance_ids(id).send()).await;
        answer.map(drop).map_err(|e| judged(what, &Failed::of(&e)))
    }

    /// Lets it be terminated again.
    pub(super) async fn unprotect(&self, what: &str, id: &str) -> Result<(), Fault> {
        let (client, _turn) = self.turn().await?;
        let off = AttributeBooleanValue::builder().value(false).build();
        let call = client.modify_instance_attribute().instance_id(id).disable_api_termination(off);
        Box::pin(call.send()).await.map(drop).map_err(|e| judged(what, &Failed::of(&e)))
    }

    /// Gives one that is stopped another type.
    pub(super) async fn retype(&self, what: &str, id: &str, kind: &str) -> Result<(), Fault> {
        let (client, _turn) = self.turn().await?;
        let kind = AttributeValue::builder().value(kind).build();
        let call = client.modify_instance_attribute().instance_id(id).instance_type(kind);
        Box::pin(call.send()).await.map(drop).map_err(|e| judged(what, &Failed::of(&e)))
    }

    /// Gives its only interface these security groups.
    pub(super) async fn regroup(&self, what: &str, id: &str, groups: &[String]) -> Result<(), Fault> {
        let (client, _turn) = self.turn().await?;
        let call = client.modify_instance_attribute().instance_id(id).set_groups(Some(groups.to_vec()));
        Box::pin(call.send()).await.map(drop).map_err(|e| judged(what, &Failed::of(&e)))
    }

    pub(super) async fn tag(
        &self,
        what: &str,
        id: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Fault> {
        let (client, _turn) = self.turn().await?;
        let call = client.create_tags().resources(id).set_tags(Some(made(tags)));
        Box::pin(call.send()).await.map(drop).map_err(|e| judged(what, &Failed::of(&e)))
    }
}

/// Tags as calls have them.
pub(super) fn made(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

fn filter(tag: &str, values: impl IntoIterator<Item = String>) -> Filter {
    Filter::builder().name(format!("tag:{tag}")).set_values(Some(values.into_iter().collect())).build()
}

/// What EC2 cannot tell stays as it was: a check that fails is `impaired`, and one that has not begun `initializing`.
fn has_passed(state: Option<&SummaryStatus>) -> bool {
    matches!(state, Some(SummaryStatus::Ok | SummaryStatus::InsufficientData | SummaryStatus::NotApplicable))
}

/// Whether an instance is not known, as EC2 calls it also for a while after its launch.
pub(super) fn is_unknown(failed: &Failed) -> bool {
    failed.code.as_ref().is_some_and(|code| code.starts_with("InvalidInstanceID"))
}

/// What passes is tried again, though it was refused.
pub(super) fn judged(what: &str, failed: &Failed) -> Fault {
    let fault = failed.fault(what);
    let passes = failed.code.as_ref().is_some_and(|code| PASSES.contains(&code.as_str()));
    if passes || is_unknown(failed) { Fault { permanent: false, ..fault } } else { fault }
}
