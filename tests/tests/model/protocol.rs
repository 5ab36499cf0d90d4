//! The protocol as `shared/engine`, `shared/agent` and the stores have it, one step at a time; and what is broken of it on purpose.

use crate::world::{A, Agent, At, Change, Claim, Effect, Entry, Faults, Memory, Post, Stage, State, Thing};

/// The kind of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It refuses a number that is lower than one it has let in, and makes each change on the condition of what it was decided from.
    /// Effects may land at any time, also long after their claim.
    Checks,
    /// It checks nothing but that a creation finds the place empty. No effect begins after the claim's `not_after`, and one that
    /// began before that is over when the claim is.
    Waits,
    /// A provider: things stand beside each other, each bears the token of its creation, and a token makes one thing only.
    /// Effects may land at any time.
    Tokens,
}

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The ledger is written after the effect.
    LedgerAfterEffect,
    /// The store takes ledger writes under a claim that is over.
    StoreIgnoresFence,
    /// The target lets in numbers that are lower than one it has let in.
    TargetIgnoresFence,
    /// An effect begins whatever the time.
    BeginsLate,
    /// A claim is given while another one still runs.
    DoesNotWait,
    /// A new holder takes what the ledger says for what is there.
    DoesNotLook,
    /// Every attempt at a creation bears another token.
    RetriesWithoutToken,
    /// A ledger write whose answer was lost is made again under the same number.
    WritesAgain,
    /// The counter of numbers goes with the claim.
    ForgetsNumbers,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// An instance takes the claim.
    Take(usize),
    /// It renews it.
    Renew(usize),
    /// It gives it back, because the unit is another instance's to have.
    Release(usize),
    /// It notices that the claim is over.
    Forget(usize),
    /// It reads the ledger.
    Read(usize),
    /// It looks at the target.
    Look(usize),
    /// It decides what to do.
    Decide(usize),
    /// It writes the ledger, and is answered.
    Write(usize),
    /// It writes the ledger and is not answered; the write was done, or is still on its way. The claim is given back.
    Unanswered(usize, bool),
    /// It begins the effect.
    Begin(usize),
    /// There is no more time to begin it.
    Desist(usize),
    Crash(usize),
    Restart(usize),
    /// An effect reaches the target, and its answer whoever waits for it, or not.
    Land(usize, bool),
    /// An effect never gets there.
    Lose(usize),
    /// A late write reaches the store.
    LandPost,
    /// The claim's `not_after` passes.
    End,
    /// The claim is over.
    Expire,
    /// Something else is wanted.
    Wish(Option<u8>),
    /// A person puts something where nothing is.
    Put,
}

/// What became of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// What is there is not what it was decided from. Nothing was done.
    Stale,
    /// It was refused, or nobody knows.
    Failed,
}

/// What a holder does next.
struct Plan {
    entry: Option<Entry>,
    change: Option<Change>,
    first: bool,
}

/// The protocol around one item of one unit.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) kind: Kind,
    pub(crate) wrong: Option<Wrong>,
    /// What may be wanted.
    pub(crate) wishes: Vec<Option<u8>>,
    pub(crate) instances: usize,
    pub(crate) faults: Faults,
    /// People put things also where the ledger still has an item of Shoal's.
    pub(crate) hasty: bool,
}

impl Protocol {
    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == Some(wrong)
    }

    pub(crate) fn start(&self) -> State {
        State {
            claim: None,
            given: 0,
            ledger: None,
            late: None,
            wish: Some(A),
            target: Vec::new(),
            newest: 0,
            tokens: 0,
            agents: vec![Agent::Idle; self.instances],
            sent: Vec::new(),
            left: self.faults,
            seen: Default::default(),
        }
    }

    /// What happens sooner or later unless something else does before.
    pub(crate) fn by_itself(&self, s: &State, actions: &mut Vec<Action>) {
        for (i, agent) in s.agents.iter().enumerate() {
            match agent {
                Agent::Down => actions.push(Action::Restart(i)),
                Agent::Idle if s.claim.is_none() || self.is(Wrong::DoesNotWait) => {
                    actions.push(Action::Take(i));
                }
                Agent::Idle => {}
                Agent::Holder(at, memory) => self.goes_on(s, i, *at, memory, actions),
            }
        }
        actions.extend((0..s.sent.len()).map(|j| Action::Land(j, true)));
        actions.extend(s.late.map(|_| Action::LandPost));
        let Some(claim) = s.claim else { return };
        let busy = |effect: &Effect| effect.in_time && effect.number == claim.number;
        if !claim.ending && !s.lives(claim.number) {
            actions.push(Action::End);
        } else if claim.ending && !(self.kind == Kind::Waits && s.sent.iter().any(busy)) {
            actions.push(Action::Expire);
        }
    }

    fn goes_on(&self, s: &State, i: usize, at: At, memory: &Memory, actions: &mut Vec<Action>) {
        if !s.is_held(memory.number) && at != At::Applying {
            actions.push(Action::Forget(i));
        } else if s.is_held(memory.number) && !s.may_act(memory.number) {
            actions.push(Action::Renew(i));
        }
        let may_begin = s.may_act(memory.number) || self.is(Wrong::BeginsLate);
        match at {
            At::Taken => actions.push(Action::Read(i)),
            At::Looking => actions.push(Action::Look(i)),
            At::Deciding => {
                let plan = self.plan(s, memory);
                let decides = if plan.change.is_some() { may_begin } else { plan.entry != memory.written };
                if decides {
                    actions.push(Action::Decide(i));
                } else if plan.change.is_none() && self.look(s, memory.entry) != memory.sight {
                    // The next sweep finds it.
                    actions.push(Action::Look(i));
                }
            }
            At::Writing(_) => actions.push(Action::Write(i)),
            At::Journalled(_) if may_begin => actions.push(Action::Begin(i)),
            At::Journalled(_) => actions.push(Action::Desist(i)),
            At::Applying => {}
        }
    }

    /// What may happen, but need not.
    pub(crate) fn outside(&self, s: &State, actions: &mut Vec<Action>) {
        for (i, agent) in s.agents.iter().enumerate() {
            if s.left.crashes > 0 && *agent != Agent::Down {
                actions.push(Action::Crash(i));
            }
            let Agent::Holder(at, memory) = agent else { continue };
            if s.left.lost > 0 && matches!(at, At::Writing(_)) && s.late.is_none() {
                actions.extend([true, false].map(|done| Action::Unanswered(i, done)));
            }
            let plan = self.plan(s, memory);
            let rests = *at == At::Deciding && plan.change.is_none() && plan.entry == memory.written;
            if s.left.losses > 0 && rests && s.is_held(memory.number) {
                actions.push(Action::Release(i));
            }
        }
        if s.left.losses > 0 && s.claim.is_some_and(|claim| !claim.ending && s.lives(claim.number)) {
            actions.push(Action::End);
        }
        if s.left.lost > 0 {
            let awaited = |j: &usize| s.waits(s.sent[*j].number).is_some();
            actions.extend((0..s.sent.len()).filter(awaited).map(|j| Action::Land(j, false)));
            actions.extend((0..s.sent.len()).map(Action::Lose));
        }
        if s.left.wishes > 0 {
            actions
                .extend(self.wishes.iter().filter(|wish| **wish != s.wish).map(|wish| Action::Wish(*wish)));
        }
        let room = self.kind == Kind::Tokens || s.target.is_empty();
        if s.left.persons > 0 && room && (s.ledger.is_none() || self.hasty) {
            actions.push(Action::Put);
        }
    }

    /// What a look shows: the thing at the item's place; at a provider the one that bears the entry's token.
    fn look(&self, s: &State, entry: Option<Entry>) -> Option<Thing> {
        if self.kind != Kind::Tokens {
            return s.target.first().copied();
        }
        s.target.iter().find(|thing| entry.is_some_and(|entry| entry.token == thing.token)).copied()
    }

    /// Whether what is there is Shoal's, as far as one can tell.
    fn is_ours(&self, entry: Option<Entry>, thing: Thing) -> bool {
        self.kind == Kind::Tokens
            || match entry.map(|entry| entry.stage) {
                None => false,
                Some(Stage::Creating(tried)) => tried & thing.content != 0,
                Some(Stage::Made(_) | Stage::Removing) => true,
            }
    }

    /// Whether the ledger knows that Shoal made this.
    pub(crate) fn is_known(&self, s: &State, thing: Thing) -> bool {
        let same = |entry: Entry| self.kind != Kind::Tokens || entry.token == thing.token;
        s.ledger.is_some_and(|entry| same(entry) && self.is_ours(Some(entry), thing))
    }

    /// What is to be done, by what this holder knows.
    fn plan(&self, s: &State, memory: &Memory) -> Plan {
        let entry = memory.entry;
        let rest = |entry| Plan { entry, change: None, first: false };
        let staged = |stage| entry.map(|entry| Entry { stage, ..entry });
        match (s.wish, memory.sight) {
            (_, Some(have)) if !self.is_ours(entry, have) => rest(entry),
            (None, None) => rest(None),
            (None, Some(have)) => {
                Plan { entry: staged(Stage::Removing), change: Some(Change::Remove(have)), first: false }
            }
            (Some(want), Some(have)) if want == have.content => rest(staged(Stage::Made(want))),
            (Some(to), Some(from)) => {
                // Once it is changed, no attempt tells any more whose it is.
                let noted = |entry: Entry| match entry.stage {
                    Stage::Creating(_) => Entry { stage: Stage::Made(0), ..entry },
                    Stage::Made(_) | Stage::Removing => entry,
                };
                Plan { entry: entry.map(noted), change: Some(Change::Update { from, to }), first: false }
            }
            (Some(want), None) => {
                let fresh = s.tokens + 1;
                let (tried, token) = match entry {
                    Some(Entry { stage: Stage::Creating(tried), token }) => {
                        (tried, if self.is(Wrong::RetriesWithoutToken) { fresh } else { token })
                    }
                    _ => (0, fresh),
                };
                let noted = Entry { stage: Stage::Creating(tried | want), token };
                let change = Change::Create(Thing { content: want, token });
                Plan { entry: Some(noted), change: Some(change), first: entry.is_none() }
            }
        }
    }

    /// The step of instance `i`, which holds the claim or thinks so.
    pub(crate) fn step(&self, s: &mut State, action: Action, i: usize) {
        let Agent::Holder(at, mut memory) = s.agents[i] else { return };
        let number = memory.number;
        s.agents[i] = match (action, at) {
            (Action::Read(_), _) => {
                (memory.entry, memory.written) = (s.ledger, s.ledger);
                if self.is(Wrong::DoesNotLook) {
                    memory.sight = s.ledger.and_then(|entry| match entry.stage {
                        Stage::Made(content) => Some(Thing { content, token: entry.token }),
                        Stage::Creating(_) | Stage::Removing => None,
                    });
                    Agent::Holder(At::Deciding, memory)
                } else {
                    Agent::Holder(At::Looking, memory)
                }
            }
            (Action::Look(_), _) => {
                memory.sight = self.look(s, memory.entry);
                Agent::Holder(At::Deciding, memory)
            }
            (Action::Decide(_), _) => {
                let plan = self.plan(s, &memory);
                (memory.entry, memory.first) = (plan.entry, plan.first);
                if let Some(Change::Create(thing)) = plan.change {
                    s.tokens = s.tokens.max(thing.token);
                }
                let writes = plan.entry != memory.written;
                match plan.change {
                    Some(change) if !writes || self.is(Wrong::LedgerAfterEffect) => {
                        Agent::Holder(At::Journalled(change), memory)
                    }
                    change => Agent::Holder(At::Writing(change), memory),
                }
            }
            (Action::Write(_), At::Writing(then)) => {
                if self.write(s, number, memory.entry) {
                    memory.written = memory.entry;
                    Agent::Holder(then.map_or(At::Deciding, At::Journalled), memory)
                } else {
                    Agent::Idle
                }
            }
            (Action::Unanswered(_, done), _) => {
                if done {
                    self.write(s, number, memory.entry);
                } else {
                    s.late = Some(Post { number, entry: memory.entry });
                }
                if self.is(Wrong::WritesAgain) {
                    Agent::Holder(at, memory)
                } else {
                    // It is over for whoever comes late with this number.
                    s.claim = s.claim.filter(|claim| claim.number != number);
                    Agent::Idle
                }
            }
            (Action::Begin(_), At::Journalled(change)) => {
                s.sent.push(Effect { number, change, in_time: s.may_act(number) });
                Agent::Holder(At::Applying, memory)
            }
            (Action::Desist(_), _) => Agent::Holder(At::Deciding, memory),
            (Action::Renew(_), _) => {
                s.claim = s.claim.map(|claim| Claim { ending: false, ..claim });
                Agent::Holder(at, memory)
            }
            (Action::Release(_), _) => {
                s.claim = None;
                Agent::Idle
            }
            _ => Agent::Idle,
        };
    }

    /// An instance is given the claim.
    pub(crate) fn take(&self, s: &mut State, i: usize) {
        let before =
            if self.is(Wrong::ForgetsNumbers) { s.claim.map_or(0, |claim| claim.number) } else { s.given };
        let number = before + 1;
        s.seen.fell |= number <= s.given;
        s.given = s.given.max(number);
        s.claim = Some(Claim { number, ending: false });
        s.agents[i] = Agent::Holder(At::Taken, Memory::new(number));
    }

    /// A write reaches the store. Answers whether it was taken.
    pub(crate) fn write(&self, s: &mut State, number: u8, entry: Option<Entry>) -> bool {
        let held = s.is_held(number);
        let taken = held || self.is(Wrong::StoreIgnoresFence);
        if taken {
            s.seen.stale_write |= !held;
            s.ledger = entry;
        }
        taken
    }

    /// Effect `j` reaches the target, and its answer whoever waits for it, or not.
    pub(crate) fn land(&self, s: &mut State, j: usize, answered: bool) {
        let effect = s.sent.remove(j);
        let outcome = self.carry_out(s, effect);
        self.tell(s, effect, if answered { outcome } else { Outcome::Failed });
    }

    /// Effect `j` never gets there.
    pub(crate) fn lose(&self, s: &mut State, j: usize) {
        let effect = s.sent.remove(j);
        self.tell(s, effect, Outcome::Failed);
    }

    fn carry_out(&self, s: &mut State, Effect { number, change, .. }: Effect) -> Outcome {
        match self.kind {
            Kind::Checks if number < s.newest && !self.is(Wrong::TargetIgnoresFence) => {
                return Outcome::Failed;
            }
            Kind::Checks => {
                s.seen.overlap |= number < s.newest;
                s.newest = s.newest.max(number);
            }
            Kind::Waits => s.seen.overlap |= number < s.given,
            Kind::Tokens => {}
        }
        match change {
            Change::Create(thing) if self.kind == Kind::Tokens => {
                match s.target.iter().find(|other| other.token == thing.token) {
                    Some(same) if same.content == thing.content => return Outcome::Done,
                    Some(_) => return Outcome::Stale,
                    None => s.target.push(thing),
                }
                s.target.sort_unstable();
                Outcome::Done
            }
            Change::Create(_) if !s.target.is_empty() => Outcome::Stale,
            Change::Create(thing) => {
                s.target.push(thing);
                Outcome::Done
            }
            Change::Update { from, to } => self.change(s, from, Some(to)),
            Change::Remove(from) => self.change(s, from, None),
        }
    }

    fn change(&self, s: &mut State, from: Thing, to: Option<u8>) -> Outcome {
        let meant = |thing: &Thing| match self.kind {
            Kind::Checks => thing.content == from.content,
            Kind::Waits => true,
            Kind::Tokens => thing.token == from.token,
        };
        let Some(at) = s.target.iter().position(meant) else { return Outcome::Stale };
        s.seen.harmed |= s.target[at].is_foreign();
        match to {
            Some(to) => s.target[at].content = to,
            None => {
                s.target.remove(at);
            }
        }
        Outcome::Done
    }

    /// Whoever waits for an effect hears what became of it.
    fn tell(&self, s: &mut State, effect: Effect, outcome: Outcome) {
        let Some((i, mut memory)) = s.waits(effect.number) else { return };
        let at = match (outcome, effect.change) {
            (Outcome::Done, Change::Create(thing)) => {
                memory.sight = Some(thing);
                memory.entry = Some(Entry { stage: Stage::Made(thing.content), token: thing.token });
                At::Deciding
            }
            (Outcome::Done, Change::Update { from, to }) => {
                memory.sight = Some(Thing { content: to, ..from });
                memory.entry = memory.entry.map(|entry| Entry { stage: Stage::Made(to), ..entry });
                At::Deciding
            }
            (Outcome::Done, Change::Remove(_)) => {
                memory.sight = None;
                At::Deciding
            }
            (Outcome::Stale, Change::Create(_)) if memory.first => {
                // The only attempt there was did nothing: what stands there is not what it made.
                memory.entry = None;
                At::Looking
            }
            _ => At::Looking,
        };
        if at == At::Looking {
            memory.sight = None;
        }
        memory.first = false;
        s.agents[i] = Agent::Holder(at, memory);
    }
}
