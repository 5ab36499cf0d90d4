//! Figures: one line of JSON each, so that two runs can be compared by a program.
//!
//! A figure is the median of several runs, and says beside it what it is to be compared with in the same run: a
//! peer, or a limit of the machine. Absolute values of a shared machine mean little, ratios of one run do.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

/// One measured value.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub figure: &'static str,
    /// At how many hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<u32>,
    /// On which store, where the same is measured on several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<&'static str>,
    /// The median.
    pub value: f64,
    /// Of what unit.
    pub unit: &'static str,
    /// Of how many runs.
    pub runs: usize,
    /// What it is to be compared with, measured in the same run, in the same unit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub beside: BTreeMap<&'static str, f64>,
    /// What we want it to be; at most that for times and sizes, at least that for rates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
}

impl Figure {
    /// The median of `values`, which must not be empty.
    #[must_use]
    pub fn median(figure: &'static str, unit: &'static str, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let value = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
        Self {
            figure,
            hosts: None,
            on: None,
            value,
            unit,
            runs: values.len(),
            beside: BTreeMap::new(),
            goal: None,
        }
    }

    /// At a fleet of this size.
    #[must_use]
    pub fn hosts(mut self, hosts: u32) -> Self {
        self.hosts = Some(hosts);
        self
    }

    /// On this store.
    #[must_use]
    pub fn on(mut self, store: &'static str) -> Self {
        self.on = Some(store);
        self
    }

    /// Beside this peer or limit.
    #[must_use]
    pub fn beside(mut self, what: &'static str, value: f64) -> Self {
        self.beside.insert(what, value);
        self
    }

    /// With this goal.
    #[must_use]
    pub fn goal(mut self, goal: f64) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Prints it as one line of JSON.
    #[allow(clippy::print_stdout, reason = "the lines are what a bench is for")]
    pub fn print(&self) {
        println!("{}", serde_json::to_string(self).unwrap_or_default());
    }
}

/// How long `f` took, in seconds.
pub fn seconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time, user and system together. The kernel counts it in ticks of 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in octets.
    pub resident: u64,
}

impl Usage {
    /// Of a running process, from `/proc` ([proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html)).
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> std::io::Result<Self> {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
        // The name in parentheses may hold spaces; fields are counted after it, from the third.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |at: usize| fields.get(at - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64);
        let cpu = Duration::from_secs_f64((number(14) + number(15)) as f64 / ticks as f64);
        Ok(Self { cpu, resident: number(24) * page })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_one_line() {
        let figure = Figure::median("x", "ms", vec![3.0, 1.0, 2.0]).hosts(10).beside("floor", 0.5).goal(4.0);
        let line = serde_json::to_string(&figure).unwrap();
        assert_eq!(
            line,
            r#"{"figure":"x","hosts":10,"value":2.0,"unit":"ms","runs":3,"beside":{"floor":0.5},"goal":4.0}"#
        );
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(Usage::of(std::process::id()).unwrap().resident > 100_000);
    }
}
