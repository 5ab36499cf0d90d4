//! What is looked at to fill a bin: finds what brings it nearest to its target without looking at each.
//!
//! Classes lie in blocks of neighbours: all are halved along whatever resource they differ in most, the halves again, and so on. A block
//! knows the least and the most that any of it needs of each resource, and so how near any of it could come at best; blocks that
//! cannot beat what was found are left out. What is found is what looking at each would find, ties included.
//!
//! What is used up stays in its block, and new classes wait, until there is enough of both to be worth laying all of it out anew.

use super::pack::Vector;

/// How many classes are looked at for each place.
pub(crate) const POOL: usize = 512;
/// How many are in a block.
const BLOCK: usize = 16;
/// All is laid out anew when one in so many is used up.
const STALE: usize = 8;
/// For what floating point rounds off.
const SLACK: f64 = 1.0 - 1e-9;

/// A class of which something is left.
#[derive(Clone, Debug)]
pub(crate) struct Live<const D: usize> {
    pub(crate) need: Vector<D>,
    pub(crate) rule: u32,
    pub(crate) left: u32,
    pub(crate) class: u32,
    /// When it came; of what is equally near the first is taken.
    pub(crate) came: u32,
}

/// The least and the most that any of a block needs.
#[derive(Clone, Debug)]
struct Block<const D: usize> {
    least: Vector<D>,
    most: Vector<D>,
}

/// One bin while it is filled.
#[derive(Clone, Debug)]
pub(crate) struct Filling<const D: usize> {
    pub(crate) bin: usize,
    pub(crate) free: Vector<D>,
    pub(crate) target: Vector<D>,
    /// One over the bin's size, for each resource that counts; else 0.
    pub(crate) weight: Vector<D>,
    /// How many resources count.
    pub(crate) counted: f64,
    /// How much lopsided remainders count.
    pub(crate) lopsided: f64,
}

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool<const D: usize> {
    /// Block after block, each full but the last.
    live: Vec<Live<D>>,
    blocks: Vec<Block<D>>,
    /// How many of them are used up.
    gone: usize,
    /// How near each block could come: kept for its memory alone.
    bounds: Vec<f64>,
}

impl<const D: usize> Filling<D> {
    /// Whether there is room for it.
    pub(crate) fn holds(&self, need: &Vector<D>) -> bool {
        (0..D).all(|k| need[k] == 0.0 || need[k] <= self.free[k])
    }

    /// How near to its target the bin comes. What is left had better be left of all resources evenly: of one alone it is of no use.
    pub(crate) fn nearness(&self, need: &Vector<D>) -> f64 {
        let (mut squares, mut sum) = (0.0, 0.0);
        for ((weight, target), need) in self.weight.iter().zip(&self.target).zip(need) {
            let rest = weight * (target - need);
            squares += rest * rest;
            sum += rest;
        }
        -squares - self.lopsided * (squares - sum * sum / self.counted)
    }

    /// The bin with that put into it.
    pub(crate) fn with(&self, need: &Vector<D>) -> Self {
        let less = |from: &Vector<D>| std::array::from_fn(|k| from[k] - need[k]);
        Self { free: less(&self.free), target: less(&self.target), ..self.clone() }
    }

    /// No nearer than this does anything of a block bring it; without end where there is room for none of it.
    ///
    /// Of two remainders that are so far apart, the squares of their distances from the mean are half the square of that at least.
    fn at_best(&self, block: &Block<D>) -> f64 {
        if !self.holds(&block.least) {
            return f64::NEG_INFINITY;
        }
        let (mut squares, mut above, mut below) = (0.0, f64::NEG_INFINITY, f64::INFINITY);
        for k in (0..D).filter(|k| self.weight[*k] > 0.0) {
            let low = self.weight[k] * (self.target[k] - block.most[k]);
            let high = self.weight[k] * (self.target[k] - block.least[k]);
            let rest = low.max(0.0).min(high);
            squares += rest * rest;
            above = above.max(low);
            below = below.min(high);
        }
        let apart = (above - below).max(0.0);
        -(squares + self.lopsided * apart * apart / 2.0) * SLACK
    }
}

impl<const D: usize> Pool<D> {
    pub(crate) fn get(&self, at: usize) -> &Live<D> {
        &self.live[at]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gone == self.live.len()
    }

    /// All, those that are used up included.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, &Live<D>)> {
        self.live.iter().enumerate()
    }

    /// Takes one machine of a class; says of which.
    pub(crate) fn take(&mut self, at: usize) -> Live<D> {
        let some = &mut self.live[at];
        some.left -= 1;
        self.gone += usize::from(some.left == 0);
        some.clone()
    }

    /// Fills the pool up and lays it out anew, where that is worth it. Halves are made by what counts for the weights.
    pub(crate) fn renew(&mut self, weight: &Vector<D>, next: impl FnMut() -> Option<Live<D>>) {
        if self.gone * STALE < self.live.len() {
            return;
        }
        self.live.retain(|some| some.left > 0);
        self.gone = 0;
        let room = POOL.saturating_sub(self.live.len());
        self.live.extend(std::iter::from_fn(next).take(room));
        arrange(&mut self.live, weight);
        self.blocks.clear();
        self.blocks.extend(self.live.chunks(BLOCK).map(Block::of));
    }

    /// What brings the bin nearest to its target, and how near, if that is nearer than `than`: of what there is room for and `may` says.
    pub(crate) fn nearest(
        &mut self,
        now: &Filling<D>,
        than: f64,
        may: impl Fn(usize, &Live<D>) -> bool,
    ) -> Option<(usize, f64)> {
        self.bounds.clear();
        self.bounds.extend(self.blocks.iter().map(|block| now.at_best(block)));
        // That which promises most is looked at first, so that most others need not be.
        let (mut first, mut promised) = (0, *self.bounds.first()?);
        for (block, bound) in self.bounds.iter().enumerate() {
            if *bound > promised {
                (first, promised) = (block, *bound);
            }
        }
        if promised <= than {
            return None;
        }
        let (mut best, mut most) = (None, than);
        for block in std::iter::once(first).chain(0..self.blocks.len()) {
            let bound = std::mem::replace(&mut self.bounds[block], f64::NEG_INFINITY);
            // What is as near counts only beside what was found here.
            let beaten = if best.is_some() { bound < most } else { bound / SLACK <= most };
            if beaten || bound == f64::NEG_INFINITY {
                continue;
            }
            for (at, some) in self.block(block) {
                if some.left > 0 && now.holds(&some.need) {
                    let gain = now.nearness(&some.need);
                    let first = |other: usize| some.came < self.live[other].came;
                    let better = gain > most || (gain == most && best.is_some_and(first));
                    if better && may(at, some) {
                        (best, most) = (Some(at), gain);
                    }
                }
            }
        }
        best.map(|at| (at, most))
    }

    /// All that there is room for and that `may` says, neighbours together.
    pub(crate) fn fitting(&self, now: &Filling<D>, may: impl Fn(&Live<D>) -> bool) -> Vec<usize> {
        let blocks = (0..self.blocks.len()).filter(|block| now.holds(&self.blocks[*block].least));
        let all = blocks.flat_map(|block| self.block(block));
        all.filter(|(_, some)| some.left > 0 && now.holds(&some.need) && may(some))
            .map(|(at, _)| at)
            .collect()
    }

    fn block(&self, block: usize) -> impl Iterator<Item = (usize, &Live<D>)> {
        let first = block * BLOCK;
        let end = self.live.len().min(first + BLOCK);
        (first..end).zip(&self.live[first..end])
    }
}

impl<const D: usize> Block<D> {
    fn of(some: &[Live<D>]) -> Self {
        let (least, most) = extent(some);
        Self { least, most }
    }
}

/// The least and the most that any of some needs.
fn extent<const D: usize>(some: &[Live<D>]) -> (Vector<D>, Vector<D>) {
    let (mut least, mut most) = ([f64::INFINITY; D], [f64::NEG_INFINITY; D]);
    for Live { need, .. } in some {
        (0..D).for_each(|k| {
            least[k] = least[k].min(need[k]);
            most[k] = most[k].max(need[k]);
        });
    }
    (least, most)
}

/// Halves along what they differ in most, down to blocks; in a block they are in the order in which they came. No two came at once, so
/// there is one such order.
fn arrange<const D: usize>(some: &mut [Live<D>], weight: &Vector<D>) {
    if some.len() <= BLOCK {
        some.sort_unstable_by_key(|some| some.came);
        return;
    }
    let (least, most) = extent(some);
    let width = |k: usize| weight[k] * (most[k] - least[k]);
    let widest = (0..D).fold(0, |widest, k| if width(k) > width(widest) { k } else { widest });
    let middle = (some.len() / 2).next_multiple_of(BLOCK);
    some.select_nth_unstable_by(middle, |a, b| {
        a.need[widest].total_cmp(&b.need[widest]).then(a.came.cmp(&b.came))
    });
    let (low, high) = some.split_at_mut(middle);
    arrange(low, weight);
    arrange(high, weight);
}

#[cfg(test)]
mod tests {
    use super::super::hash::mix;
    use super::*;

    /// The next number by chance, below `n`.
    fn below(chance: &mut u64, n: u64) -> u64 {
        *chance = mix(*chance);
        *chance % n
    }

    fn filling(chance: &mut u64, bin: usize) -> Filling<4> {
        // Some resources do not count, and of some there is more than the target.
        let size = 64.0;
        let target: Vector<4> = std::array::from_fn(|_| below(chance, 64) as f64);
        let weight: Vector<4> =
            std::array::from_fn(|_| below(chance, 4).min(1) as f64 * (1 + below(chance, 3)) as f64 / size);
        let counted = weight.iter().filter(|w| **w > 0.0).count().max(1) as f64;
        let free = target.map(|t| t + below(chance, 16) as f64 - 2.0);
        Filling { bin, free, target, weight, counted, lopsided: below(chance, 4) as f64 }
    }

    /// However they lie, and with many that are alike or used up, it is what looking at each finds.
    #[test]
    fn the_nearest_is_what_looking_at_each_finds() {
        let chance = &mut 7;
        for round in 0..60 {
            let count = below(chance, 300) as u32;
            // Few different needs, so that many are equally near.
            let most = 2 + below(chance, 30);
            let mut all: Vec<Live<4>> = (0..count)
                .map(|came| Live {
                    need: std::array::from_fn(|_| below(chance, most) as f64),
                    rule: below(chance, 40) as u32,
                    left: 1 + below(chance, 3) as u32,
                    class: came,
                    came,
                })
                .collect();
            let mut pool = Pool::default();
            let mut next = all.clone().into_iter();
            pool.renew(&filling(chance, 0).weight, || next.next());
            for bin in 0..40 {
                let now = filling(chance, bin);
                let odd = below(chance, 5) as u32;
                let may = |some: &Live<4>| some.rule % 5 != odd;
                let mut found: Option<(usize, f64)> = None;
                for (at, some) in all.iter().enumerate() {
                    let gain = now.nearness(&some.need);
                    let fits = some.left > 0 && now.holds(&some.need) && may(some);
                    if fits && found.is_none_or(|(_, than)| gain > than) {
                        found = Some((at, gain));
                    }
                }
                let nearest = pool.nearest(&now, f64::NEG_INFINITY, |_, some| may(some)).map(|(at, _)| at);
                let class = nearest.map(|at| pool.get(at).class as usize);
                assert_eq!(class, found.map(|(at, _)| at), "round {round}, bin {bin}: {now:?}");
                let fits = |some: &&Live<4>| some.left > 0 && now.holds(&some.need) && may(some);
                assert_eq!(pool.fitting(&now, may).len(), all.iter().filter(fits).count());
                if let (Some(at), Some(class)) = (nearest, class) {
                    pool.take(at);
                    all[class].left -= 1;
                }
                if bin % 7 == 0 {
                    pool.renew(&now.weight, || None);
                }
                assert_eq!(pool.is_empty(), all.iter().all(|some| some.left == 0));
            }
        }
    }

    /// Most of what is looked at is left out: with everything in the order in which it came, nearly nothing could be.
    #[test]
    fn most_blocks_are_left_out() {
        let chance = &mut 11;
        let mut came = 0;
        let square = |chance: &mut u64, most: u64| (below(chance, most) * below(chance, most)) as f64;
        let mut pool = Pool::default();
        let weight = [1.0 / 100.0, 1.0 / 100.0, 0.0];
        pool.renew(&weight, || {
            came += 1;
            let need = [square(chance, 6), square(chance, 6), square(chance, 6)];
            Some(Live { need, rule: 0, left: 1, class: came, came })
        });
        assert_eq!(pool.live.len(), POOL);
        let (mut looked, mut all) = (0, 0);
        for bin in 0..200 {
            let target: Vector<3> = std::array::from_fn(|_| below(chance, 100) as f64);
            let free = target.map(|t| t + 5.0);
            let now = Filling { bin, free, target, weight, counted: 2.0, lopsided: 1.0 };
            let Some((_, gain)) = pool.nearest(&now, f64::NEG_INFINITY, |_, _| true) else { continue };
            looked += pool.blocks.iter().filter(|block| now.at_best(block) >= gain).count();
            all += pool.blocks.len();
            // What is only as near as that is not told.
            assert_eq!(pool.nearest(&now, gain, |_, _| true), None);
        }
        assert!(all > 100 * pool.blocks.len() && looked * 4 < all, "{looked} of {all}");
    }

    /// In whatever order they lay before, they lie in one order afterwards.
    #[test]
    fn there_is_one_order() {
        let chance = &mut 3;
        let mut some: Vec<Live<2>> = (0..500)
            .map(|came| Live {
                need: std::array::from_fn(|_| below(chance, 20) as f64),
                rule: 0,
                left: 1,
                class: came,
                came,
            })
            .collect();
        let mut other = some.clone();
        other.sort_by_key(|some| mix(u64::from(some.came)));
        arrange(&mut some, &[1.0, 0.5]);
        arrange(&mut other, &[1.0, 0.5]);
        let order = |some: &[Live<2>]| some.iter().map(|some| some.came).collect::<Vec<_>>();
        assert_eq!(order(&some), order(&other));
        assert_eq!(some.chunks(BLOCK).len(), 500_usize.div_ceil(BLOCK));
    }
}
