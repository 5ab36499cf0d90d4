//! Many machines onto few boxes at once: numbers only.
//!
//! Box after box is filled from what is left, towards the mean of what is left for each box still to come; so the last boxes meet
//! the same mixture as the first ones did. A box takes whichever shape brings it nearest to that: large and lopsided ones first, since
//! the distance is a square and lopsided remainders count extra. It is topped off by the best pair. What a group with at most one
//! machine in a box needs in every box still to come goes first. A few settings are tried; the first that is as good as can be is taken.
//!
//! However many shapes there are, a [pool](super::pool) of some is looked at and filled up as it empties, so that ten times the machines
//! cost ten times as much; the widest groups are in it from the beginning. Amounts are whole numbers below 2^53, so floating point is exact here.

use super::hash::mix;
use super::pool::{Filling, Live, POOL, Pool};

/// An amount of each of the resources that matter.
pub(crate) type Vector<const D: usize> = [f64; D];

/// Machines that are alike: of one need, and of one rule.
#[derive(Clone, Debug)]
pub(crate) struct Class<const D: usize> {
    pub(crate) need: Vector<D>,
    /// Which others it must not meet in a box: a place in [`Instance::clashes`].
    pub(crate) rule: u32,
    pub(crate) count: u32,
}

/// A box as it is before.
#[derive(Clone, Debug)]
pub(crate) struct Bin<const D: usize> {
    pub(crate) free: Vector<D>,
    /// The rules of what is in it already.
    pub(crate) rules: Vec<u32>,
}

/// What is to be packed into what.
#[derive(Clone, Debug)]
pub(crate) struct Instance<const D: usize> {
    pub(crate) classes: Vec<Class<D>>,
    /// By preference, those in use already first.
    pub(crate) bins: Vec<Bin<D>>,
    /// For each rule those that it must not meet, sorted; itself, too, where at most one may be in a box.
    pub(crate) clashes: Vec<Vec<u32>>,
}

/// The classes that went into each bin; a class as often as machines of it did. What fitted nowhere is in none.
pub(crate) type Packed = Vec<Vec<u32>>;

/// For how many classes the best partner is looked for to top off a box.
const PAIRED: usize = 24;
/// A box is topped off when its distance from the target, squared, is below this.
const NEARLY_FULL: f64 = 0.12;
/// A group that needs all but this part of the boxes still to come is served first.
const PRESSING: usize = 50;
/// A class with machines for more than one in so many bins is looked at from the first bin on: it has no time to wait.
const WIDE: usize = 32;
/// What is as good as can be: not more than one in so many boxes too many.
const GOOD: usize = 200;

/// What is tried: how much lopsided remainders count, and from which part of the scarcest resource's use on another one counts.
const TRIES: [(f64, f64); 3] = [(1.0, 0.6), (3.0, 0.6), (3.0, 0.3)];

/// Packs as much as it can into as few bins as it can.
pub(crate) fn pack<const D: usize>(of: &Instance<D>) -> Packed {
    let least = Work::new(of, TRIES[0]).bins_needed();
    let mut best: Option<((usize, usize), Packed)> = None;
    for setting in TRIES {
        let packed = Work::new(of, setting).run();
        let machines: usize = packed.iter().map(Vec::len).sum();
        let last = packed.iter().rposition(|bin| !bin.is_empty()).map_or(0, |b| b + 1);
        let cost = (usize::MAX - machines, last);
        if best.as_ref().is_none_or(|(c, _)| cost < *c) {
            best = Some((cost, packed));
        }
        if last <= least + least / GOOD {
            break;
        }
    }
    best.map(|(_, packed)| packed).unwrap_or_default()
}

struct Work<'a, const D: usize> {
    of: &'a Instance<D>,
    lopsided: f64,
    scarce: f64,
    /// Machines left of each rule.
    of_rule: Vec<u32>,
    /// No group that must not meet itself has more left than this.
    widest: usize,
    /// Whether machines of a rule must not meet each other.
    apart: Vec<bool>,
    demand: Vector<D>,
    /// For each rule the number of the bin that last took something it must not meet.
    blocked: Vec<usize>,
    /// What is looked at.
    pool: Pool<D>,
    /// Classes that are not looked at yet, the next one last.
    waiting: Vec<u32>,
    /// How many have been looked at.
    came: u32,
}

impl<'a, const D: usize> Work<'a, D> {
    fn new(of: &'a Instance<D>, (lopsided, scarce): (f64, f64)) -> Self {
        let mut demand = [0.0; D];
        let mut of_rule = vec![0; of.clashes.len()];
        for class in &of.classes {
            (0..D).for_each(|k| demand[k] += class.need[k] * f64::from(class.count));
            of_rule[class.rule as usize] += class.count;
        }
        let mut waiting: Vec<u32> = (0..).take(of.classes.len()).collect();
        if waiting.len() > POOL {
            // The last one comes first.
            let bins = of.bins.len().max(WIDE);
            let wide = |class: u32| of.classes[class as usize].count as usize > bins / WIDE;
            waiting.sort_by_cached_key(|class| (wide(*class), mix(u64::from(*class))));
        }
        Self {
            of,
            lopsided,
            scarce,
            of_rule,
            widest: usize::MAX / 2,
            apart: (0..).zip(&of.clashes).map(|(r, clashes)| clashes.contains(&r)).collect(),
            demand,
            blocked: vec![usize::MAX; of.clashes.len()],
            pool: Pool::default(),
            waiting,
            came: 0,
        }
    }

    fn run(mut self) -> Packed {
        let mut packed = vec![Vec::new(); self.of.bins.len()];
        let planned = self.bins_needed();
        let mut ahead = [0.0; D];
        self.of.bins[..planned].iter().for_each(|bin| (0..D).for_each(|k| ahead[k] += bin.free[k]));
        for (b, into) in packed.iter_mut().enumerate() {
            if b >= planned {
                ahead = self.of.bins[b].free;
            }
            let now = self.aim(b, &ahead);
            self.renew(&now.weight);
            if self.pool.is_empty() {
                break;
            }
            self.fill(now, planned.saturating_sub(b).max(1), into);
            (0..D).for_each(|k| ahead[k] -= self.of.bins[b].free[k]);
        }
        packed
    }

    /// The fewest bins, in their order, that have enough of everything, and are enough for the largest group. A lower bound for bins that
    /// are alike.
    fn bins_needed(&self) -> usize {
        let widest = self.widest_now();
        let mut sum = [0.0; D];
        for (b, bin) in self.of.bins.iter().enumerate() {
            if b >= widest && (0..D).all(|k| sum[k] >= self.demand[k]) {
                return b;
            }
            (0..D).for_each(|k| sum[k] += bin.free[k]);
        }
        self.of.bins.len()
    }

    /// How many machines are left of the largest group of which at most one may be in a bin.
    fn widest_now(&self) -> usize {
        let groups = self.of_rule.iter().zip(&self.apart);
        groups.map(|(count, apart)| if *apart { *count } else { 0 }).max().unwrap_or(0) as usize
    }

    /// Takes classes that wait into the pool, where it has room enough for them.
    fn renew(&mut self, weight: &Vector<D>) {
        let (of, waiting, came) = (self.of, &mut self.waiting, &mut self.came);
        self.pool.renew(weight, || {
            let class = waiting.pop()?;
            let &Class { need, rule, count: left } = &of.classes[class as usize];
            *came += 1;
            Some(Live { need, rule, left, class, came: *came })
        });
    }

    /// A bin with nothing put into it yet.
    fn aim(&self, b: usize, ahead: &Vector<D>) -> Filling<D> {
        let bin = &self.of.bins[b];
        // How full the bins still to come will be, in the mean.
        let ratio: Vector<D> =
            std::array::from_fn(|k| if ahead[k] > 0.0 { (self.demand[k] / ahead[k]).min(1.0) } else { 0.0 });
        let scarcest = ratio.iter().copied().fold(0.0, f64::max);
        let counts = |k: usize| ratio[k] > self.scarce * scarcest && bin.free[k] > 0.0;
        Filling {
            bin: b,
            free: bin.free,
            target: std::array::from_fn(|k| bin.free[k] * ratio[k]),
            weight: std::array::from_fn(|k| if counts(k) { ratio[k] / bin.free[k] } else { 0.0 }),
            counted: (0..D).map(|k| if counts(k) { 1.0 } else { 0.0 }).sum::<f64>().max(1.0),
            lopsided: self.lopsided,
        }
    }

    fn fill(&mut self, mut now: Filling<D>, bins: usize, into: &mut Vec<u32>) {
        for rule in &self.of.bins[now.bin].rules {
            self.block(*rule, now.bin);
        }
        self.press(&mut now, bins, into);
        let mut topped = false;
        while let Some(at) = self.nearest(&now) {
            let distance: f64 = (0..D).map(|k| (now.weight[k] * now.target[k]).powi(2)).sum();
            if !topped && distance < NEARLY_FULL {
                topped = true;
                if let Some((one, other)) = self.pair(&now) {
                    self.put(one, &mut now, into);
                    self.put(other, &mut now, into);
                    continue;
                }
            }
            self.put(at, &mut now, into);
        }
    }

    fn block(&mut self, rule: u32, b: usize) {
        for other in &self.of.clashes[rule as usize] {
            self.blocked[*other as usize] = b;
        }
    }

    fn put(&mut self, at: usize, now: &mut Filling<D>, into: &mut Vec<u32>) {
        let some = self.pool.take(at);
        self.of_rule[some.rule as usize] -= 1;
        for k in 0..D {
            now.free[k] -= some.need[k];
            now.target[k] -= some.need[k];
            self.demand[k] -= some.need[k];
        }
        into.push(some.class);
        self.block(some.rule, now.bin);
    }

    /// Puts a machine of each group that needs all of the bins still to come, or nearly all; of the largest first.
    fn press(&mut self, now: &mut Filling<D>, bins: usize, into: &mut Vec<u32>) {
        let many = bins - bins / PRESSING;
        if self.widest < many {
            return;
        }
        self.widest = self.widest_now();
        if self.widest < many {
            return;
        }
        let pressing = self.pool.all().filter_map(|(at, some)| {
            let (left, apart) = (self.of_rule[some.rule as usize], self.apart[some.rule as usize]);
            (apart && left as usize >= many).then_some((left, some.came, at))
        });
        let mut pressing: Vec<(u32, u32, usize)> = pressing.collect();
        pressing.sort_unstable_by(|a, b| b.cmp(a));
        for (.., at) in pressing {
            let some = self.pool.get(at);
            if some.left > 0 && now.holds(&some.need) && self.blocked[some.rule as usize] != now.bin {
                self.put(at, now, into);
            }
        }
    }

    /// What brings the bin nearest to its target.
    fn nearest(&mut self, now: &Filling<D>) -> Option<usize> {
        let blocked = &self.blocked;
        let may = |_, some: &Live<D>| blocked[some.rule as usize] != now.bin;
        self.pool.nearest(now, f64::NEG_INFINITY, may).map(|(at, _)| at)
    }

    /// The two that together bring it nearest: some, each with the best partner that it has.
    fn pair(&mut self, now: &Filling<D>) -> Option<(usize, usize)> {
        let (of, blocked) = (self.of, &self.blocked);
        let may = |some: &Live<D>| blocked[some.rule as usize] != now.bin;
        let fitting = self.pool.fitting(now, may);
        // Evenly out of all, and others for each bin.
        let (all, some) = (fitting.len(), fitting.len().min(PAIRED));
        let mut best: Option<(usize, usize, f64)> = None;
        for x in (0..some).map(|i| fitting[(i * all + now.bin % all) / some]) {
            let Live { need, rule, left, .. } = self.pool.get(x).clone();
            let clashes = &of.clashes[rule as usize];
            let may = |y: usize, other: &Live<D>| {
                may(other) && (x != y || left > 1) && !clashes.contains(&other.rule)
            };
            let than = best.map_or(f64::NEG_INFINITY, |(_, _, than)| than);
            if let Some((y, gain)) = self.pool.nearest(&now.with(&need), than, may) {
                best = Some((x, y, gain));
            }
        }
        best.map(|(x, y, _)| (x, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Among more shapes than are looked at, groups that need every bin have their machine in each of them.
    #[test]
    fn groups_that_need_all_bins_do_not_wait() {
        let wide = 8;
        let bins = 100;
        // Rule 0 is of those that meet everything; the others must not meet themselves.
        let clashes = (0..=wide).map(|rule| if rule == 0 { Vec::new() } else { vec![rule] }).collect();
        let small = (0..700).map(|_| Class { need: [1.0], rule: 0, count: 1 });
        let all = (1..=wide).map(|rule| Class { need: [1.0], rule, count: bins });
        let classes: Vec<Class<1>> = small.chain(all).collect();
        assert!(classes.len() > POOL + POOL / 4);
        let bins = (0..bins).map(|_| Bin { free: [15.0], rules: Vec::new() }).collect();
        let packed = pack(&Instance { classes, bins, clashes });
        assert!(packed.iter().all(|bin| bin.len() == 15));
        for class in 700..700 + wide {
            assert!(packed.iter().all(|bin| bin.iter().filter(|c| **c == class).count() == 1), "{class}");
        }
    }
}
