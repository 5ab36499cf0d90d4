//! What the daemon shows of itself, in Prometheus' text form.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use shoal_engine::{Agent, Counters, Engine, Sizes, Verdict};

/// The last state of the engine, for whoever asks over HTTP.
pub(crate) struct Board {
    agent: Mutex<String>,
    now: Mutex<Now>,
    /// Why the database is out of reach.
    down: Mutex<Option<String>>,
    config_ok: AtomicBool,
}

#[derive(Clone)]
struct Now {
    counters: Counters,
    changes: BTreeMap<(&'static str, &'static str), u64>,
    seen: u64,
    sizes: Sizes,
    verdict: Verdict,
    loaded: bool,
}

impl Board {
    /// One that nothing is known on yet.
    pub(crate) fn new() -> Self {
        let now = Now {
            counters: Counters::default(),
            changes: BTreeMap::new(),
            seen: 0,
            sizes: Sizes::default(),
            verdict: Verdict::Busy,
            loaded: false,
        };
        Self {
            agent: Mutex::default(),
            now: Mutex::new(now),
            down: Mutex::default(),
            config_ok: AtomicBool::new(true),
        }
    }

    /// From now on it is this agent's.
    pub(crate) fn of(&self, agent: &str) {
        agent.clone_into(&mut self.agent.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes over how the engine stands. Costs its units.
    pub(crate) fn set<A: Agent>(&self, engine: &Engine<A>) {
        let now = Now {
            counters: engine.counters(),
            changes: engine.changes().clone(),
            seen: engine.seen().0,
            sizes: engine.sizes(),
            verdict: engine.verdict(),
            loaded: true,
        };
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Takes over how things stand with an agent that has no engine.
    pub(crate) fn tell(
        &self,
        seen: u64,
        sizes: Sizes,
        verdict: Verdict,
        counters: Counters,
        changes: BTreeMap<(&'static str, &'static str), u64>,
    ) {
        let now = Now { counters, changes, seen, sizes, verdict, loaded: true };
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// The database is within reach, or why it is not.
    pub(crate) fn set_down(&self, why: Option<String>) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn down(&self) -> Option<String> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether what stands in the configuration is what runs.
    pub(crate) fn set_config_ok(&self, ok: bool) {
        self.config_ok.store(ok, Ordering::Relaxed);
    }

    /// Whether the database was read and is within reach; if not, why.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let loaded = self.now.lock().unwrap_or_else(PoisonError::into_inner).loaded;
        match (loaded, self.down()) {
            (true, None) => Ok(()),
            (true, Some(why)) => Err(format!("the database is out of reach: {why}")),
            (false, Some(why)) => Err(format!("the database has not been read yet: {why}")),
            (false, None) => Err("the database has not been read yet".to_owned()),
        }
    }

    /// Everything in Prometheus' text form.
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let labels = std::collections::HashMap::from([("agent".to_owned(), agent)]);
        let registry = Registry::new_custom(Some("shoal".to_owned()), Some(labels))?;
        let gauge = |name: &str, help: &str, value: u64| -> Result<(), prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(Box::new(gauge))
        };
        let counter = |name: &str, help: &str, value: u64| -> Result<(), prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            counter.inc_by(value);
            registry.register(Box::new(counter))
        };
        gauge("items", "Items that the ledger holds.", now.sizes.items as u64)?;
        gauge("behind", "Items that are not as they should be.", now.sizes.behind as u64)?;
        gauge("queue_depth", "Items that wait to be decided on.", now.sizes.queue as u64)?;
        gauge(
            "agent_left_out",
            "Sources that were left out of an item, which goes on without them.",
            now.sizes.left_out as u64,
        )?;
        gauge("seen_revision", "The newest revision that was turned into work.", now.seen)?;
        gauge(
            "converged",
            "1 when everything is as it should be.",
            u64::from(now.verdict == Verdict::Converged),
        )?;
        gauge("held", "1 when something waits for a person.", u64::from(now.verdict == Verdict::Held))?;
        gauge("connected", "1 when the database is within reach.", u64::from(self.down().is_none()))?;
        gauge(
            "agent_config_ok",
            "1 when the configuration was taken over; 0 when it is refused and an older one runs.",
            u64::from(self.config_ok.load(Ordering::Relaxed)),
        )?;
        let c = now.counters;
        counter("commits_total", "Commits seen.", c.commits)?;
        counter("failures_total", "Changes, looks and writes that failed.", c.failures)?;
        counter("batches_total", "Batches sent to the target.", c.batches)?;
        counter("decisions_total", "Items decided on.", c.steps)?;
        counter("looks_total", "Looks at whole units.", c.looks)?;
        counter("ledger_bytes_total", "Octets written to the ledger.", c.ledger_bytes)?;
        let opts = Opts::new("changes_total", "Changes sent to the target, by verb and cause.");
        let changes = IntCounterVec::new(opts, &["verb", "cause"])?;
        for ((verb, cause), count) in &now.changes {
            changes.with_label_values(&[*verb, *cause]).inc_by(*count);
        }
        registry.register(Box::new(changes))?;
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
