//! Who one is and what one must be apart from, numbered: machines with the same of both are alike but for what they need.

use std::collections::HashMap;

/// Who one is, and what one must be apart from.
type Rule = (Vec<u32>, Vec<u32>);

/// Rules by their numbers, and numbers by the rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    numbers: HashMap<Vec<u32>, u32>,
    /// That which is looked up: kept for its memory alone.
    key: Vec<u32>,
}

impl Rules {
    /// The number of a rule, a new one if it is new.
    pub(crate) fn number(&mut self, own: impl Iterator<Item = u32>, apart: impl Iterator<Item = u32>) -> u32 {
        self.key.clear();
        self.key.extend(own);
        let split = self.key.len();
        // No tag has this number.
        self.key.push(u32::MAX);
        self.key.extend(apart);
        if let Some(number) = self.numbers.get(&self.key) {
            return *number;
        }
        let number = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        self.rules.push((self.key[..split].to_vec(), self.key[split + 1..].to_vec()));
        self.numbers.insert(self.key.clone(), number);
        number
    }

    /// Marks what something must be apart from.
    pub(crate) fn mark(&self, spoken: &mut [bool]) {
        for tag in self.rules.iter().flat_map(|(_, apart)| apart) {
            if let Some(spoken) = spoken.get_mut(*tag as usize) {
                *spoken = true;
            }
        }
    }

    /// The rules without tags that nobody's rules speak of, and for each number the new one.
    pub(crate) fn narrowed(&self, spoken: &[bool]) -> (Self, Vec<u32>) {
        let mut narrow = Self::default();
        let numbers = self.rules.iter().map(|(own, apart)| {
            narrow.number(own.iter().copied().filter(|tag| spoken[*tag as usize]), apart.iter().copied())
        });
        let numbers = numbers.collect();
        (narrow, numbers)
    }

    /// Which rules must not meet, for each of them: one has a tag that the other must be apart from.
    pub(crate) fn clashes(&self) -> Vec<Vec<u32>> {
        let (mut having, mut shunning): (HashMap<u32, Vec<u32>>, HashMap<u32, Vec<u32>>) = Default::default();
        for ((own, apart), n) in self.rules.iter().zip(0..) {
            own.iter().for_each(|tag| having.entry(*tag).or_default().push(n));
            apart.iter().for_each(|tag| shunning.entry(*tag).or_default().push(n));
        }
        let met = |tags: &[u32], by: &HashMap<u32, Vec<u32>>| -> Vec<u32> {
            tags.iter().filter_map(|tag| by.get(tag)).flatten().copied().collect()
        };
        let clashes = self.rules.iter().map(|(own, apart)| {
            let mut all = met(apart, &having);
            all.extend(met(own, &shunning));
            all.sort_unstable();
            all.dedup();
            all
        });
        clashes.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(rules: &mut Rules, own: &[u32], apart: &[u32]) -> u32 {
        rules.number(own.iter().copied(), apart.iter().copied())
    }

    #[test]
    fn equal_rules_have_one_number_and_what_nobody_speaks_of_makes_no_difference() {
        let mut rules = Rules::default();
        let apart = number(&mut rules, &[1], &[1]);
        let other = number(&mut rules, &[1, 2], &[1]);
        let none = number(&mut rules, &[2], &[]);
        assert_eq!(number(&mut rules, &[1], &[1]), apart);
        assert_eq!(number(&mut rules, &[], &[1, 1]), 3);
        assert_eq!((apart, other, none), (0, 1, 2));
        let mut spoken = [false; 3];
        rules.mark(&mut spoken);
        assert_eq!(spoken, [false, true, false]);
        let (narrow, numbers) = rules.narrowed(&spoken);
        assert_eq!(numbers, [0, 0, 1, 2]);
        assert_eq!(narrow.clashes(), [vec![0, 2], vec![], vec![0]]);
    }
}
