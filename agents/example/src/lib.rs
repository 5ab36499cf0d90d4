//! A custom agent, complete with its target: one banner file for each member of a `motd/` tag.
use shoal_agent::*;

/// The document of a `motd/` tag.
#[derive(Deserialize, JsonSchema)]
#[serde(crate = "shoal_agent::serde", deny_unknown_fields)]
#[schemars(crate = "shoal_agent::schemars")]
pub struct Spec {
    banner: String,
}

/// What should be.
pub struct Motd;
impl Agent for Motd {
    type Spec = Spec;
    type Key = HostName;
    type Item = String;
    type Have = String;
    fn namespace(&self) -> &str {
        "motd"
    }
    fn unit(&self, _: &HostName) -> Unit {
        "files".into()
    }
    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<HostName>, Blocked> {
        Ok(from.host_name().cloned().into_iter().collect())
    }
    fn desired(
        &self,
        key: &HostName,
        from: &[Source<'_, Spec>],
        _: &dyn Look,
    ) -> Result<Desired<String>, Blocked> {
        let banners: Vec<_> = from.iter().map(|source| source.spec.banner.as_str()).collect();
        Ok(Desired::item(format!("{key}: {}\n", banners.join("; "))))
    }
}

/// What is, and how to change it. The key is a `HostName`, so it was parsed: no `/`, never `..`.
#[derive(Deserialize)]
#[serde(crate = "shoal_agent::serde", deny_unknown_fields)]
pub struct Files {
    dir: std::path::PathBuf,
}
impl Target<Motd> for Files {
    fn location(&self, _: &Unit) -> String {
        format!("files in {}", self.dir.display())
    }
    async fn observe(&self, _: &Unit, scope: Scope<'_, HostName>) -> Result<Observed<Motd>, Fault> {
        let keys = if let Scope::Keys(keys) = scope { keys.to_vec() } else { files::names(&self.dir)? };
        Ok(Observed::of(keys, |key: &HostName| files::read(&self.dir.join(key.as_str()))))
    }
    async fn apply(&self, _: &Unit, batch: &Batch<Motd>, fence: &Fence) -> Result<Applied<Motd>, Fault> {
        Ok(Applied::each(batch, fence, |e| files::put(&self.dir.join(e.key.as_str()), e.to.as_deref())))
    }
}
