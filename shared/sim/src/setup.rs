//! What a run is made of, and how it is named, printed and cut down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::agent::Kind;
use crate::broken::Breakage;
use crate::dice::Dice;
use crate::faults::FaultKind;

/// One run. [`Setup::new`] takes all of it from the seed; a smaller run is made by taking something away.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Decides everything that the other fields leave open.
    pub seed: u64,
    /// What may go wrong.
    pub faults: BTreeSet<FaultKind>,
    /// How many commits people make.
    pub steps: usize,
    /// Whether the engines are broken on purpose, and how.
    pub breakage: Option<Breakage>,
    /// How many last lines of what happened are kept; 0: none.
    pub trace: usize,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) instances: usize,
}

impl Setup {
    /// The run of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "setup");
        // Half of all kinds of faults, so that runs differ in kind and not only in detail; now and then none at all.
        let share = [0, 300, 500, 700, 1000][dice.below(5)];
        let faults = FaultKind::ALL.into_iter().filter(|_| dice.chance(share)).collect();
        let mut kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|_| dice.chance(500)).collect();
        if kinds.is_empty() {
            kinds.push(Kind::ALL[dice.below(3)]);
        }
        let steps = 5 + dice.below(40);
        let instances = 1 + dice.below(3);
        Self { seed, faults, steps, breakage: None, trace: 0, kinds, instances }
    }

    /// The same, broken on purpose.
    #[must_use]
    pub fn broken(mut self, breakage: Breakage) -> Self {
        self.breakage = Some(breakage);
        self
    }
}

/// A run that broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run.
    pub setup: Setup,
    /// What was broken.
    pub why: String,
    /// When, in milliseconds of virtual time since the start.
    pub at: i64,
    /// What happened last, if a trace was kept.
    pub trace: Vec<String>,
}

impl Failure {
    /// The command that runs it again.
    #[must_use]
    pub fn replay(&self) -> String {
        let whole = Setup::new(self.setup.seed);
        let mut line = format!("SHOAL_SEED={}", self.setup.seed);
        let without: Vec<_> = whole.faults.difference(&self.setup.faults).map(|kind| kind.name()).collect();
        if !without.is_empty() {
            line.push_str(&format!(" SHOAL_SIM_WITHOUT={}", without.join(",")));
        }
        if self.setup.steps != whole.steps {
            line.push_str(&format!(" SHOAL_SIM_STEPS={}", self.setup.steps));
        }
        if let Some(breakage) = self.setup.breakage {
            line.push_str(&format!(" SHOAL_SIM_BREAK={breakage}"));
        }
        line + " cargo run -p shoal-sim --example seed"
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { seed, kinds, instances, steps, faults, .. } = &self.setup;
        let faults: Vec<_> = faults.iter().map(|kind| kind.name()).collect();
        writeln!(f, "seed {seed}, {:.3} s in: {}", self.at as f64 / 1000.0, self.why)?;
        writeln!(
            f,
            "  {instances} instances of each of {kinds:?}, {steps} commits, faults: {}",
            faults.join(", ")
        )?;
        writeln!(f, "  again: {}", self.replay())?;
        for line in &self.trace {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

/// What a run saw, for those who want to know that it saw enough.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Events that happened.
    pub events: u64,
    /// The newest revision at the end.
    pub revision: u64,
    /// Changes that landed in targets.
    pub landed: u64,
    /// Times that a person agreed to a mass change.
    pub agreed: u64,
    /// Units that changed hands because an instance died, and because one came.
    pub handed_over: u64,
    /// Times that the database was restored.
    pub restores: u64,
    /// Times that `wait` would have returned.
    pub waited: u64,
    /// Where instances died: before or after which effect.
    pub crashes: BTreeSet<String>,
    /// How often each kind of fault struck.
    pub struck: BTreeMap<FaultKind, u64>,
}
