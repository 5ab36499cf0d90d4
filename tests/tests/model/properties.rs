//! What has to hold of the protocol, and how a checker goes through it.

use stateright::{Model, Property};

use crate::protocol::{Action, Kind, Protocol};
use crate::world::{Agent, At, Claim, FOREIGN, Stage, State, Thing};

/// Of every state.
pub(crate) const STALE_WRITE: &str = "the store takes nothing under a claim that is over";
/// Of every state.
pub(crate) const RISES: &str = "fencing numbers only rise";
/// Of every state.
pub(crate) const KNOWN: &str = "what Shoal made is known to the ledger";
/// Of every state.
pub(crate) const HARMED: &str = "what a person put there is neither changed nor removed";
/// Of every state. At a provider nothing is said of it: a token holds there, and no order.
pub(crate) const OVERLAP: &str = "no holder's effect comes after a later holder's";
/// Of every state.
pub(crate) const TWICE: &str = "nothing is made twice";
/// Of every state in which nothing more happens by itself.
pub(crate) const RESTS: &str = "where nothing more happens by itself, all is as wished";

/// More numbers than these are not looked at. The protocol as it is gives fewer.
const MOST: u8 = 8;

impl Protocol {
    /// Whether the target shows what is wanted and the ledger says so; where somebody else's stands at the place, it stays.
    fn is_as_wished(&self, s: &State) -> bool {
        if self.kind != Kind::Tokens && s.target.iter().any(|thing| thing.is_foreign()) {
            return true;
        }
        let ours = s.target.iter().find(|thing| !thing.is_foreign());
        match (s.wish, ours) {
            (None, None) => s.ledger.is_none(),
            (Some(want), Some(thing)) => {
                thing.content == want && s.ledger.is_some_and(|entry| entry.stage == Stage::Made(want))
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

/// Whether a holder has looked and decided.
fn decides(s: &State) -> bool {
    s.agents
        .iter()
        .any(|agent| matches!(agent, Agent::Holder(At::Deciding, memory) if s.is_held(memory.number)))
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        self.by_itself(s, actions);
        self.outside(s, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        match action {
            Action::Take(i) => self.take(&mut s, i),
            Action::Restart(i) => s.agents[i] = Agent::Idle,
            Action::Crash(i) => {
                s.left.crashes -= 1;
                s.agents[i] = Agent::Down;
            }
            Action::Release(i) => {
                s.left.losses -= 1;
                self.step(&mut s, action, i);
            }
            Action::Unanswered(i, _) => {
                s.left.lost -= 1;
                self.step(&mut s, action, i);
            }
            Action::Renew(i)
            | Action::Forget(i)
            | Action::Read(i)
            | Action::Look(i)
            | Action::Decide(i)
            | Action::Write(i)
            | Action::Begin(i)
            | Action::Desist(i) => self.step(&mut s, action, i),
            Action::Land(j, answered) => {
                s.left.lost -= u8::from(!answered);
                self.land(&mut s, j, answered);
            }
            Action::Lose(j) => {
                s.left.lost -= 1;
                self.lose(&mut s, j);
            }
            Action::LandPost => {
                if let Some(post) = s.late.take() {
                    self.write(&mut s, post.number, post.entry);
                }
            }
            Action::End => {
                let claim = s.claim?;
                s.left.losses -= u8::from(s.lives(claim.number));
                s.claim = Some(Claim { ending: true, ..claim });
            }
            Action::Expire => s.claim = None,
            Action::Wish(wish) => {
                s.left.wishes -= 1;
                s.wish = wish;
            }
            Action::Put => {
                s.left.persons -= 1;
                s.target.push(Thing { content: FOREIGN, token: 0 });
                s.target.sort_unstable();
            }
        }
        // Nothing tells instances from each other but what they remember.
        s.agents.sort_unstable();
        s.sent.sort_unstable();
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::<Self>::always(STALE_WRITE, |_, s| !s.seen.stale_write),
            Property::<Self>::always(RISES, |_, s| !s.seen.fell),
            Property::<Self>::always(KNOWN, |model, s| {
                s.target.iter().all(|thing| thing.is_foreign() || model.is_known(s, *thing))
            }),
            Property::<Self>::always(HARMED, |_, s| !s.seen.harmed),
            Property::<Self>::always(OVERLAP, |_, s| !s.seen.overlap),
            Property::<Self>::always(TWICE, |_, s| {
                s.target.iter().filter(|thing| !thing.is_foreign()).count() < 2
            }),
            Property::<Self>::always(RESTS, |model, s| {
                let mut actions = Vec::new();
                model.by_itself(s, &mut actions);
                !actions.is_empty() || model.is_as_wished(s)
            }),
            // A model in which nothing happens would hold all of that.
            Property::<Self>::sometimes("a second holder brings it to its end", |model, s| {
                s.given > 1 && !s.target.is_empty() && decides(s) && model.is_as_wished(s)
            }),
        ];
        if self.faults.persons > 0 {
            all.push(Property::<Self>::sometimes("somebody else's is met, and stays", |_, s| {
                s.target.iter().any(|thing| thing.is_foreign()) && decides(s)
            }));
        }
        if self.wishes.contains(&None) {
            all.push(Property::<Self>::sometimes("it is removed", |_, s| {
                s.target.is_empty() && s.ledger.is_some_and(|entry| entry.stage == Stage::Removing)
            }));
        }
        all
    }

    fn within_boundary(&self, s: &State) -> bool {
        s.given <= MOST
    }
}
