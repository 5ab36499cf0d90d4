//! `[agent.aws]` in the node's configuration.

use std::time::Duration;

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use serde::Deserialize;
use shoal_agent::Fault;

/// The longest wait between two attempts of one call. The SDK's rate limiter asks ten seconds and more of a client that calls seldom; three
/// such waits would outlast the claim that the call is made under. Who is throttled for longer is tried again by its agent.
const BACKOFF: Duration = Duration::from_secs(5);

/// How AWS is reached, and as whom. Everything has a default but the region, which the environment or the profile may say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsSettings {
    /// The region, `eu-west-1`. Also for services that have none: their requests are signed for it.
    #[serde(default)]
    pub region: Option<String>,
    /// A profile of the shared configuration files, instead of `AWS_PROFILE` or `default`.
    #[serde(default)]
    pub profile: Option<String>,
    /// Another place than the service's own, as a URL: an interface endpoint, or a stand-in.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// A role to assume, with what the chain of credentials gives.
    #[serde(default)]
    pub role_arn: Option<String>,
    /// What the role's owner asks for beside it.
    #[serde(default)]
    pub external_id: Option<String>,
    /// What the sessions are called in the account's own log; `shoal-<agent>` where nothing is said.
    #[serde(default)]
    pub session_name: Option<String>,
    /// How long one attempt of one call may take, in seconds.
    #[serde(default = "AwsSettings::within")]
    pub within: u64,
    /// How often one call is tried before it counts as failed. Between attempts the SDK waits longer each time, five seconds at most, and
    /// sends more slowly for as long as it is throttled.
    #[serde(default = "AwsSettings::attempts")]
    pub attempts: u32,
}

impl Default for AwsSettings {
    fn default() -> Self {
        let (region, profile, endpoint, role_arn, external_id, session_name) = Default::default();
        let (within, attempts) = (Self::within(), Self::attempts());
        Self { region, profile, endpoint, role_arn, external_id, session_name, within, attempts }
    }
}

impl AwsSettings {
    fn within() -> u64 {
        10
    }

    fn attempts() -> u32 {
        4
    }

    /// What is used where the configuration has no `[agent.aws]`.
    #[must_use]
    pub fn or_default(settings: Option<Self>) -> Self {
        settings.unwrap_or_default()
    }

    /// Whether the settings can work at all. Asks nobody.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn check(&self) -> Result<(), Fault> {
        let wrong = |why: &str, next: &str| {
            Err(Fault::new("read the configuration", format!("[agent.aws] {why}")).next(next).permanent())
        };
        if self.within == 0 {
            return wrong("within = 0 leaves no time", "write at least 1");
        }
        if self.attempts == 0 {
            return wrong("attempts = 0 never tries", "write at least 1");
        }
        if self.role_arn.is_none() && (self.external_id.is_some() || self.session_name.is_some()) {
            return wrong(
                "has external_id or session_name and no role_arn that they belong to",
                "name the role, or leave them out",
            );
        }
        Ok(())
    }

    /// The configuration that the SDK's clients are made of, for an agent of this name. Credentials are fetched when first used, so
    /// that a missing one is an error of the call that needed it.
    ///
    /// # Errors
    /// Settings that cannot work, or no region.
    pub async fn load(&self, agent: &str) -> Result<SdkConfig, Fault> {
        self.check()?;
        let mut timeouts = TimeoutConfig::builder();
        timeouts.set_connect_timeout(Some(Duration::from_secs(self.within.min(5))));
        timeouts.set_operation_attempt_timeout(Some(Duration::from_secs(self.within)));
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .retry_config(RetryConfig::adaptive().with_max_attempts(self.attempts).with_max_backoff(BACKOFF))
            .timeout_config(timeouts.build());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let config = Box::pin(loader.load()).await;
        if config.region().is_none() {
            return Err(Fault::new(
                "reach AWS",
                "no region is named, neither in [agent.aws] nor in AWS_REGION nor in the profile",
            )
            .next("write region = \"…\" in [agent.aws]; services without regions are signed for us-east-1")
            .permanent());
        }
        let Some(role) = &self.role_arn else { return Ok(config) };
        let session = self.session_name.clone().unwrap_or_else(|| format!("shoal-{agent}"));
        let mut provider = AssumeRoleProvider::builder(role).configure(&config).session_name(session);
        if let Some(id) = &self.external_id {
            provider = provider.external_id(id);
        }
        let provider = SharedCredentialsProvider::new(Box::pin(provider.build()).await);
        Ok(config.into_builder().credentials_provider(provider).build())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "this is test code")]

    use super::*;

    fn settings(text: &str) -> Result<AwsSettings, String> {
        let settings: AwsSettings = toml::from_str(text).map_err(|e| e.to_string())?;
        settings.check().map_err(|fault| fault.to_string())?;
        Ok(settings)
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_to_write() {
        assert!(settings("").unwrap().attempts > 1);
        assert!(settings("role_arn = 'arn:aws:iam::1:role/dns'\nexternal_id = 'x'").is_ok());
        for (text, word) in [
            ("attempts = 0", "attempts"),
            ("within = 0", "within"),
            ("external_id = 'x'", "role_arn"),
            ("secret_access_key = 'x'", "secret_access_key"),
        ] {
            let why = settings(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
