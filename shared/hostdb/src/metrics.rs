//! What the server counts, in the names that Prometheus users expect.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// What says something of all hosts and tags.
const CONTENTS: [&str; 3] = ["shoal_hostdb_revision", "shoal_hostdb_hosts", "shoal_hostdb_tags"];

/// The server's counters. One per server, so that tests with several do not share.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    pub(crate) connections: IntGauge,
    pub(crate) refused_connections: IntCounter,
    pub(crate) watchers: IntGauge,
    pub(crate) commits: IntCounter,
    pub(crate) conflicts: IntCounter,
    pub(crate) denied: IntCounterVec,
    pub(crate) revision: IntGauge,
    pub(crate) hosts: IntGauge,
    pub(crate) tags: IntGauge,
    pub(crate) clock_behind: IntGauge,
    pub(crate) view_age: IntGauge,
}

impl Metrics {
    /// # Errors
    /// Two metrics of one name, which a test would show.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let one = IntCounter::new(name, help)?;
            registry.register(Box::new(one.clone()))?;
            Ok::<_, prometheus::Error>(one)
        };
        let gauge = |name: &str, help: &str| {
            let one = IntGauge::new(name, help)?;
            registry.register(Box::new(one.clone()))?;
            Ok::<_, prometheus::Error>(one)
        };
        let requests = IntCounterVec::new(
            Opts::new("shoal_http_requests_total", "HTTP requests by method, route and status."),
            &["method", "route", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("shoal_http_request_duration_seconds", "Time to the head of the answer.")
                .buckets(vec![0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]),
            &["method", "route"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let denied = IntCounterVec::new(
            Opts::new("shoal_hostdb_denied_total", "Requests refused because of who asked, by why."),
            &["why"],
        )?;
        registry.register(Box::new(denied.clone()))?;
        let info = gauge("shoal_hostdb_up", "1 while the server runs.")?;
        info.set(1);
        Ok(Self {
            requests,
            seconds,
            connections: gauge("shoal_http_connections", "Open HTTP connections.")?,
            refused_connections: counter(
                "shoal_http_connections_refused_total",
                "Connections answered with 503 because too many were open.",
            )?,
            watchers: gauge("shoal_hostdb_watchers", "Open watches.")?,
            commits: counter("shoal_hostdb_commits_total", "Commits made through this server.")?,
            denied,
            conflicts: counter("shoal_hostdb_conflicts_total", "Writes refused by a precondition.")?,
            revision: gauge("shoal_hostdb_revision", "The newest revision in this server's view.")?,
            hosts: gauge("shoal_hostdb_hosts", "Hosts in this server's view.")?,
            clock_behind: gauge(
                "shoal_hostdb_clock_behind_seconds",
                "How far the machine's clock is behind the latest time that was seen; tokens end by that.",
            )?,
            view_age: gauge(
                "shoal_hostdb_view_age_seconds",
                "How long ago, at most, this server's view held all that was committed; above 10 nobody is believed but for this.",
            )?,
            tags: gauge("shoal_hostdb_tags", "Tags in this server's view.")?,
            registry,
        })
    }

    /// Shows one more.
    ///
    /// # Errors
    /// There is one of that name.
    pub(crate) fn add(&self, one: Box<dyn prometheus::core::Collector>) -> prometheus::Result<()> {
        self.registry.register(one)
    }

    /// All of it in the Prometheus text format; without what is in the database unless `whole`.
    pub(crate) fn text(&self, whole: bool) -> prometheus::Result<Vec<u8>> {
        let mut all = self.registry.gather();
        all.retain(|one| whole || !CONTENTS.contains(&one.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&all, &mut text)?;
        Ok(text)
    }
}
