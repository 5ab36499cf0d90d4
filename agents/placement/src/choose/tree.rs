//! Finds the next room with enough free, without looking at all of them.
//!
//! A tournament over rooms in their order: each node has, of each resource, the most that is free in any room below it. A search goes
//! down only where enough is free of every resource; that need not be in one and the same room, so it may come back up.
//! A change costs one path to the root, and less where the maxima stay.
//!
//! Where it is only asked whether any room has enough, rooms lie so that neighbours are alike: what a node has most of is then mostly in
//! one and the same room, and what fits nowhere is mostly seen high up. What is looked at grows less than the rooms do.

use super::amount::{Amounts, KINDS, fits};

/// Less than any request needs.
const NONE: Amounts = [i64::MIN / 2; KINDS];

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// The root is 1, the children of `n` are `2n` and `2n + 1`, rooms begin at `leaves`.
    nodes: Vec<Amounts>,
    leaves: usize,
    rooms: usize,
}

impl Tree {
    pub(crate) fn new(rooms: &[Amounts]) -> Self {
        let leaves = rooms.len().next_power_of_two();
        let mut nodes = vec![NONE; 2 * leaves];
        nodes[leaves..leaves + rooms.len()].copy_from_slice(rooms);
        for n in (1..leaves).rev() {
            nodes[n] = most(&nodes[2 * n], &nodes[2 * n + 1]);
        }
        Self { nodes, leaves, rooms: rooms.len() }
    }

    /// Of rooms without an order, to be asked [`any`](Self::any) alone.
    pub(crate) fn of_alike(mut rooms: Vec<Amounts>) -> Self {
        arrange(&mut rooms, 0);
        Self::new(&rooms)
    }

    /// Whether any room has `need` free.
    pub(crate) fn any(&self, need: &Amounts) -> bool {
        self.next(need, 0, self.rooms).is_some()
    }

    /// What is free in a room.
    pub(crate) fn get(&self, room: usize) -> &Amounts {
        &self.nodes[self.leaves + room]
    }

    pub(crate) fn set(&mut self, room: usize, free: Amounts) {
        let mut n = self.leaves + room;
        self.nodes[n] = free;
        while n > 1 {
            n /= 2;
            let max = most(&self.nodes[2 * n], &self.nodes[2 * n + 1]);
            if self.nodes[n] == max {
                return;
            }
            self.nodes[n] = max;
        }
    }

    /// The first room at or after `from`, and before `to`, with `need` free.
    pub(crate) fn next(&self, need: &Amounts, from: usize, to: usize) -> Option<usize> {
        let to = to.min(self.rooms);
        if from >= to {
            return None;
        }
        let mut n = self.leaves + from;
        loop {
            if fits(need, &self.nodes[n]) {
                if n >= self.leaves {
                    let room = n - self.leaves;
                    return (room < to).then_some(room);
                }
                n *= 2;
                continue;
            }
            // To the right neighbour, or up until there is one.
            while n & 1 == 1 {
                n /= 2;
            }
            if n == 0 {
                return None;
            }
            n += 1;
            let first = n << (self.leaves.ilog2() - n.ilog2());
            if first >= self.leaves + to {
                return None;
            }
        }
    }
}

fn most(a: &Amounts, b: &Amounts) -> Amounts {
    std::array::from_fn(|k| a[k].max(b[k]))
}

/// Halves where the tree does, by one resource after the other that they differ in, from this one on.
fn arrange(rooms: &mut [Amounts], from: usize) {
    let middle = rooms.len().next_power_of_two() / 2;
    let differs = |kind: &usize| rooms.iter().any(|room| room[*kind] != rooms[0][*kind]);
    let Some(kind) = (from..from + KINDS).map(|kind| kind % KINDS).find(differs) else { return };
    rooms.select_nth_unstable_by_key(middle, |room| room[kind]);
    let (low, high) = rooms.split_at_mut(middle);
    arrange(low, kind + 1);
    arrange(high, kind + 1);
}

#[cfg(test)]
mod tests {
    use super::super::amount::NOTHING;
    use super::super::hash::mix;
    use super::*;

    /// The next number by chance, below `n`.
    fn below(chance: &mut u64, n: u64) -> i64 {
        *chance = mix(*chance);
        (*chance % n) as i64
    }

    /// However many rooms there are, it is what looking at each finds.
    #[test]
    fn any_room_that_has_enough_is_found() {
        let chance = &mut 5;
        let (mut some, mut none) = (0, 0);
        for count in 0..70 {
            // Less than nothing may be free, and of some resources all have the same.
            let mut room =
                || -> Amounts { std::array::from_fn(|k| if k < 5 { below(chance, 12) - 1 } else { 7 }) };
            let rooms: Vec<Amounts> = (0..count).map(|_| room()).collect();
            let tree = Tree::of_alike(rooms.clone());
            for _ in 0..50 {
                let need = std::array::from_fn(|k| if k < 6 { below(chance, 9) } else { 0 });
                let held = rooms.iter().any(|room| fits(&need, room));
                assert_eq!(tree.any(&need), held, "{need:?} of {rooms:?}");
                *if held { &mut some } else { &mut none } += 1;
            }
            assert_eq!(tree.any(&NOTHING), count > 0);
        }
        assert!(some > 500 && none > 500, "{some}, {none}");
    }
}
