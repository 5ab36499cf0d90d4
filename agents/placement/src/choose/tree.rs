//! Finds the next room with enough free, without looking at all of them.
//!
//! A tournament over rooms in their order: each node has, of each resource, the most that is free in any room below it. A search goes
//! down only where enough is free of every resource; that need not be in one and the same room, so it may come back up.
//! A change costs one path to the root, and less where the maxima stay.

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
