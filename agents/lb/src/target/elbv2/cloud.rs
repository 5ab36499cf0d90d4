//! The calls to ELBv2 that are made: three that look, and two that change. So many at once and so many a second; the SDK tries again by
//! itself, more slowly for as long as it is throttled. Every call of these can be made twice. None that changes something goes on after the
//! end of the claim.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_elasticloadbalancingv2::types::{
    TargetDescription, TargetGroup, TargetHealthDescription, TargetHealthReasonEnum, TargetHealthStateEnum,
};
use aws_sdk_elasticloadbalancingv2::{Client, Config};
use shoal_agent::{Fault, Fence, Outcome};
use shoal_aws::{AwsSettings, Failed, Kind as Known, OnlyWhenRefused, Pace, while_held};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::settings::{Binding, ElbSettings};
use crate::groups::{Checked, Endpoint, Group, Kind};

/// How many targets one call names at most. AWS says no number; its own controller for Kubernetes takes twice as many.
pub(super) const MOST: usize = 100;

/// ELBv2 of one account and region.
#[derive(Debug)]
pub(super) struct Cloud {
    aws: AwsSettings,
    client: OnceCell<Client>,
    at_once: Semaphore,
    pace: Pace,
}

/// A group that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) arn: String,
    pub(super) group: Group,
}

/// How a target stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) draining: bool,
    /// It gets work.
    pub(super) serves: bool,
    /// With which it was registered.
    pub(super) zone: Option<String>,
}

/// What is in a group.
pub(super) type Targets = BTreeMap<Endpoint, Health>;

impl Cloud {
    pub(super) fn new(aws: AwsSettings, settings: &ElbSettings) -> Self {
        let at_once = Semaphore::new(settings.at_once as usize);
        let pace = Pace::new(settings.rate, settings.at_once.max(10));
        Self { aws, client: OnceCell::new(), at_once, pace }
    }

    /// The client, and the right to make one call with it.
    async fn turn(&self) -> Result<(&Client, SemaphorePermit<'_>), Fault> {
        let make = || async { Ok::<_, Fault>(Client::new(&self.aws.load("lb").await?)) };
        let client = self.client.get_or_try_init(make).await?;
        let permit = self.at_once.acquire().await.map_err(|e| Fault::new("speak to ELBv2", e))?;
        self.pace.turn().await;
        Ok((client, permit))
    }

    /// The group of a pool, with its attributes. One that is not there is an error: it is not known to be empty.
    pub(super) async fn find(&self, pool: &str, binding: &Binding) -> Result<Found, Fault> {
        let what = format!("look at the target group {} of lb/{pool}", binding.said());
        let group = self.describe(&what, binding).await?;
        let arn = group.target_group_arn.clone().ok_or_else(|| Fault::new(&what, "it has no ARN"))?;
        let holds = group.target_type.as_ref().map_or("", |kind| kind.as_str());
        let asked = match binding.kind {
            Kind::Instance => "instance",
            Kind::Ip => "ip",
        };
        if holds != asked {
            let why = format!("it holds targets of type {holds:?}, and the configuration says {asked:?}");
            return Err(Fault::new(what, why).next("correct type under [agent.elbv2.groups]").permanent());
        }
        let attributes = self.attributes(&what, &arn).await?;
        let group = read(&group, &attributes).map_err(|why| Fault::new(what, why))?;
        Ok(Found { arn, group })
    }

    async fn describe(&self, what: &str, binding: &Binding) -> Result<TargetGroup, Fault> {
        let mut marker = None;
        loop {
            let (client, _turn) = self.turn().await?;
            let call = client.describe_target_groups().set_marker(marker.take());
            let call = match (&binding.arn, &binding.name) {
                (Some(arn), _) => call.target_group_arns(arn),
                (None, name) => call.names(name.as_deref().unwrap_or_default()),
            };
            let page = call.send().await.map_err(|e| missing(what, &Failed::of(&e)))?;
            let is = |group: &TargetGroup| match &binding.arn {
                Some(arn) => group.target_group_arn.as_ref() == Some(arn),
                None => group.target_group_name == binding.name,
            };
            if let Some(group) = page.target_groups.unwrap_or_default().into_iter().find(is) {
                return Ok(group);
            }
            marker = page.next_marker.filter(|marker| !marker.is_empty());
            if marker.is_none() {
                return Err(gone(what, "no group is called so"));
            }
        }
    }

    async fn attributes(&self, what: &str, arn: &str) -> Result<HashMap<String, String>, Fault> {
        let (client, _turn) = self.turn().await?;
        let said = client.describe_target_group_attributes().target_group_arn(arn).send().await;
        let said = said.map_err(|e| missing(what, &Failed::of(&e)))?;
        let pairs = said.attributes.unwrap_or_default().into_iter();
        Ok(pairs.filter_map(|pair| Some((pair.key?, pair.value?))).collect())
    }

    /// What is in a group: one answer, whole or none.
    pub(super) async fn targets(&self, what: &str, arn: &str) -> Result<Targets, Fault> {
        let (client, _turn) = self.turn().await?;
        let said = client.describe_target_health().target_group_arn(arn).send().await;
        let said = said.map_err(|e| missing(what, &Failed::of(&e)))?;
        // An empty group has an empty list; none at all is no answer.
        let all = said
            .target_health_descriptions
            .ok_or_else(|| Fault::new(what, "its answer has no list of targets"))?;
        let mut targets = Targets::new();
        for one in all {
            targets.extend(target(&one).map_err(|why| Fault::new(what, why))?);
        }
        Ok(targets)
    }

    /// Registers targets, which may be there already. Where no answer comes it is not tried again: then it would not be known of a refusal
    /// whether nothing was done.
    pub(super) async fn register(
        &self,
        arn: &str,
        targets: &[TargetDescription],
        fence: &Fence,
    ) -> Result<(), Refusal> {
        let (client, _turn) = self.turn().await?;
        // The turn may have taken all of the time.
        fence.check()?;
        let call = client
            .register_targets()
            .target_group_arn(arn)
            .set_targets(Some(targets.to_vec()))
            .customize()
            .config_override(Config::builder().retry_classifier(OnlyWhenRefused));
        let answer = while_held(fence, "register targets", Box::pin(call.send())).await;
        let answer = answer.map_err(Refusal::Unanswered)?;
        answer.map(drop).map_err(|e| Refusal::Failed(Failed::of(&e)))
    }

    /// Deregisters targets, which may be gone already.
    pub(super) async fn deregister(
        &self,
        arn: &str,
        targets: &[TargetDescription],
        fence: &Fence,
    ) -> Result<(), Refusal> {
        let (client, _turn) = self.turn().await?;
        fence.check()?;
        let call = client.deregister_targets().target_group_arn(arn).set_targets(Some(targets.to_vec()));
        let answer = while_held(fence, "deregister targets", Box::pin(call.send())).await;
        let answer = answer.map_err(Refusal::Unanswered)?;
        answer.map(drop).map_err(|e| Refusal::Failed(Failed::of(&e)))
    }
}

/// Why a change was not made.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It was not asked for.
    Before(Fault),
    /// What the service said.
    Failed(Failed),
    /// It was asked for, and no answer was waited for any longer.
    Unanswered(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Before(fault)
    }
}

impl Refusal {
    /// The service's words, where some of what was named cannot be done, so that the others may be tried without it.
    pub(super) fn of_some(&self) -> Option<&str> {
        match self {
            Self::Failed(failed) if failed.kind == Known::Invalid => Some(&failed.message),
            _ => None,
        }
    }

    /// What became of a change that this is the end of. `what` was attempted; `judge` has the last word on the fault.
    pub(super) fn outcome(&self, what: &str, judge: impl FnOnce(Fault) -> Fault) -> Outcome {
        let fault = judge(self.fault(what));
        let undone = match self {
            Self::Before(_) => true,
            Self::Failed(failed) => failed.kind != Known::Unknown,
            Self::Unanswered(_) => false,
        };
        if undone { Outcome::Refused(fault) } else { Outcome::Failed(fault) }
    }

    fn fault(&self, what: &str) -> Fault {
        match self {
            Self::Before(fault) | Self::Unanswered(fault) => fault.clone(),
            Self::Failed(failed) if failed.is("InvalidTarget") => {
                let next = "an instance has to run, an address to be one that its group can reach; it is tried again";
                Fault { permanent: false, ..failed.fault(what).next(next) }
            }
            Self::Failed(failed) => missing(what, failed),
        }
    }
}

/// How a target is named in a call.
pub(super) fn described(at: &Endpoint, zone: Option<&str>) -> TargetDescription {
    TargetDescription::builder()
        .id(at.id.to_string())
        .port(i32::from(at.port))
        .set_availability_zone(zone.map(str::to_owned))
        .build()
}

fn missing(what: &str, failed: &Failed) -> Fault {
    if failed.kind == Known::Missing {
        return gone(what, &failed.message);
    }
    failed.fault(what)
}

fn gone(what: &str, why: &str) -> Fault {
    let next = "nothing is known of its targets, so all stays as it is: make the group again, or correct [agent.elbv2.groups]";
    Fault::new(what, why).next(next)
}

/// A target as a look shows it; `None`: it is none that Shoal could have registered, or it is not there.
fn target(said: &TargetHealthDescription) -> Result<Option<(Endpoint, Health)>, String> {
    let target = said.target.as_ref().ok_or("a target without a description")?;
    let health = said.target_health.as_ref().ok_or("a target without a state")?;
    let Some(id) = target.id.as_ref().and_then(|id| id.parse().ok()) else { return Ok(None) };
    if health.reason == Some(TargetHealthReasonEnum::NotRegistered) {
        return Ok(None);
    }
    let port = target.port.and_then(|port| u16::try_from(port).ok()).ok_or("a target without a port")?;
    let state = health.state.as_ref().ok_or("a target without a state")?;
    let draining = *state == TargetHealthStateEnum::Draining;
    let serves = matches!(state, TargetHealthStateEnum::Healthy | TargetHealthStateEnum::Unavailable);
    let zone = target.availability_zone.clone();
    Ok(Some((Endpoint { id, port }, Health { draining, serves, zone })))
}

fn read(group: &TargetGroup, attributes: &HashMap<String, String>) -> Result<Group, String> {
    let number = |name: &str| -> Result<u32, String> {
        let Some(text) = attributes.get(name) else { return Ok(0) };
        text.parse().map_err(|_| format!("its attribute {name} is {text:?}, which is no number"))
    };
    let seconds = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let on = group.health_check_enabled != Some(false);
    let check = on.then(|| Checked {
        path: group.health_check_path.clone(),
        interval: seconds(group.health_check_interval_seconds),
        rise: seconds(group.healthy_threshold_count),
        fall: seconds(group.unhealthy_threshold_count),
    });
    let is = |name: &str, value: &str| attributes.get(name).is_some_and(|have| have == value);
    let algorithm = attributes.get("load_balancing.algorithm.type").cloned();
    Ok(Group {
        protocol: group.protocol.as_ref().map_or("none", |protocol| protocol.as_str()).to_owned(),
        check,
        algorithm: algorithm.unwrap_or_else(|| "round_robin".to_owned()),
        by_source: is("stickiness.enabled", "true") && is("stickiness.type", "source_ip"),
        slow_start: number("slow_start.duration_seconds")?,
        delay: number("deregistration_delay.timeout_seconds")?,
        keeps: None,
    })
}
