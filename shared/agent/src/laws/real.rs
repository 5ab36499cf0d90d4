//! A real target in the model world.

use shoal_engine::model::Place;
use shoal_engine::{Agent, Applied, Batch, Fault, Fence, Nature, Observed, Scope, Target, Unit};
use tokio::runtime::Runtime;

/// A real target, whose futures are run to their end on the spot.
pub struct Real<T> {
    target: T,
    runtime: Option<Runtime>,
    started: bool,
}

impl<T> Real<T> {
    /// `target` as a place of the model world.
    pub fn new(target: T) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
        Self { target, runtime, started: false }
    }

    /// The target itself.
    pub fn target(&self) -> &T {
        &self.target
    }
}

fn no_runtime() -> Fault {
    Fault::new("run the target", "the system gives no runtime for it")
}

impl<A: Agent, T: Target<A>> Place<A> for Real<T> {
    fn nature(&self) -> Nature {
        self.target.nature()
    }

    fn observe(&mut self, unit: &Unit, keys: Option<&[A::Key]>) -> Result<Observed<A>, Fault> {
        let scope = keys.map_or(Scope::All, Scope::Keys);
        let runtime = self.runtime.as_ref().ok_or_else(no_runtime)?;
        if !std::mem::replace(&mut self.started, true) {
            runtime.block_on(self.target.start())?;
        }
        runtime.block_on(self.target.observe(unit, scope))
    }

    fn apply(
        &mut self,
        unit: &Unit,
        batch: &Batch<A>,
        fence: &Fence,
        _boundary: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Applied<A>, Fault> {
        self.runtime.as_ref().ok_or_else(no_runtime)?.block_on(self.target.apply(unit, batch, fence))
    }
}
