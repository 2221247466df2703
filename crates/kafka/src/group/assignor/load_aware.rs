//! As many records a second for each member, with few moves.
//!
//! Three of 48 partitions (airport, downtown, stadium) carry 35 % of the traffic: even numbers of partitions are then
//! no even shares of the work. What is owned stays where it is; free partitions go, the heaviest first, to whoever has
//! least; then the busiest member hands partitions over (or exchanges one for a lighter one) while that pays.

use std::collections::{BTreeMap, BTreeSet};

use super::super::rates::{Rates, mean};
use super::{Assignment, Members, Owners, PartitionCounts, Target, current_owners, wanted_partitions};
use crate::types::TopicPartition;

/// A busiest member up to this part above the mean is even enough.
const TOLERANCE: f64 = 0.04;
/// What a change must take off the busiest member, as a part of the mean.
const MIN_GAIN: f64 = 0.02;
/// An exchange moves two partitions: it must gain this much more than moving one.
const EXCHANGE_GAIN: f64 = 2.0;

pub(super) fn target<'a>(
    members: &'a Members,
    counts: &PartitionCounts,
    owners: &Owners<'a>,
    rates: &Rates,
) -> Target<'a> {
    let wanted = wanted_partitions(members, counts);
    let weights = rates.weights(&wanted);
    let mut plan = Plan::new(members, &weights);
    for (partition, owner) in owners {
        plan.give(partition, owner);
    }
    let mut free: Vec<_> = wanted.iter().filter(|partition| !owners.contains_key(*partition)).collect();
    free.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
    for partition in free {
        if let Some(member) = plan.least_loaded(partition) {
            plan.give(partition, member);
        }
    }
    plan.even_out(owners, max_moves(wanted.len()));
    plan.target()
}

/// What `members` would end up with, moves and all.
pub(crate) fn plan(members: &Members, counts: &PartitionCounts, rates: &Rates) -> Assignment {
    let owners = current_owners(members, counts);
    let mut plan: Assignment = members.keys().map(|member| (member.clone(), Vec::new())).collect();
    for (partition, member) in target(members, counts, &owners, rates) {
        plan.entry(member.to_owned()).or_default().push(partition);
    }
    plan
}

/// Partitions that one round takes from their owners at most: half of them lets one new member have its share at once,
/// and the rest follows in the rounds that the moves themselves bring about.
fn max_moves(partitions: usize) -> usize {
    partitions.div_ceil(2)
}

/// The load of the busiest member as a multiple of the mean; 1 where there is no load.
pub(crate) fn imbalance(assignment: &Assignment, rates: &Rates) -> f64 {
    let all: BTreeSet<TopicPartition> = assignment.values().flatten().cloned().collect();
    let weights = rates.weights(&all);
    let loads: Vec<f64> = assignment.values().map(|partitions| partitions.iter().map(|p| weights[p]).sum()).collect();
    let busiest = loads.iter().copied().fold(0.0, f64::max);
    mean(&loads).filter(|mean| *mean > 0.0).map_or(1.0, |mean| busiest / mean)
}

/// Who has what so far.
struct Plan<'a, 'w> {
    members: &'a Members,
    weights: &'w BTreeMap<TopicPartition, f64>,
    held: BTreeMap<&'a str, BTreeSet<&'w TopicPartition>>,
    loads: BTreeMap<&'a str, f64>,
}

/// Takes `gives` from the busiest member to `to`, and `takes` back.
struct Change<'a, 'w> {
    gives: &'w TopicPartition,
    to: &'a str,
    takes: Option<&'w TopicPartition>,
    /// By how much the busier of the two is better off than the busiest was.
    gain: f64,
}

impl<'a, 'w> Plan<'a, 'w> {
    fn new(members: &'a Members, weights: &'w BTreeMap<TopicPartition, f64>) -> Self {
        let held = members.keys().map(|member| (member.as_str(), BTreeSet::new())).collect();
        let loads = members.keys().map(|member| (member.as_str(), 0.0)).collect();
        Self { members, weights, held, loads }
    }

    fn give(&mut self, partition: &TopicPartition, member: &'a str) {
        let Some((partition, weight)) = self.weights.get_key_value(partition) else { return };
        self.held.entry(member).or_default().insert(partition);
        *self.loads.entry(member).or_default() += weight;
    }

    fn take(&mut self, partition: &TopicPartition, member: &'a str) {
        self.held.entry(member).or_default().remove(partition);
        *self.loads.entry(member).or_default() -= self.weights[partition];
    }

    fn least_loaded(&self, partition: &TopicPartition) -> Option<&'a str> {
        let candidates = self.loads.iter().filter(|(member, _)| self.may_have(member, partition));
        let by_load_then_number = |member: &str, load: f64| (load, self.held.get(member).map_or(0, BTreeSet::len));
        let least = candidates.min_by(|a, b| {
            let (a, b) = (by_load_then_number(a.0, *a.1), by_load_then_number(b.0, *b.1));
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
        });
        least.map(|(member, _)| *member)
    }

    fn may_have(&self, member: &str, partition: &TopicPartition) -> bool {
        self.members.get(member).is_some_and(|member| member.topics.contains(&partition.topic))
    }

    fn even_out(&mut self, owners: &Owners<'_>, max_moves: usize) {
        let loads: Vec<f64> = self.loads.values().copied().collect();
        let Some(mean) = mean(&loads) else { return };
        let mut moved = BTreeSet::new();
        // Each change lowers the busiest member or one of several equally busy: the bound is for what rounding may do.
        for _ in 0..self.weights.len() * 2 {
            let busiest = self.loads.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(member, load)| (*member, *load));
            let Some((busiest, load)) = busiest.filter(|(_, load)| *load > mean * (1.0 + TOLERANCE)) else { return };
            let Some(change) = self.best_change(busiest, load, mean * MIN_GAIN) else { return };
            let mut moves = moved.clone();
            for (partition, member) in [(Some(change.gives), change.to), (change.takes, busiest)] {
                let Some(partition) = partition else { continue };
                // A free partition has nobody to be taken from, and one that comes back to its owner does not move.
                match owners.get(partition) {
                    Some(owner) if *owner != member => moves.insert(partition),
                    _ => moves.remove(partition),
                };
            }
            if moves.len() > max_moves {
                return;
            }
            moved = moves;
            self.take(change.gives, busiest);
            self.give(change.gives, change.to);
            if let Some(back) = change.takes {
                self.take(back, change.to);
                self.give(back, busiest);
            }
        }
    }

    fn best_change(&self, busiest: &'a str, load: f64, min_gain: f64) -> Option<Change<'a, 'w>> {
        let mut moves: Option<Change<'a, 'w>> = None;
        let mut exchanges: Option<Change<'a, 'w>> = None;
        for gives in &self.held[busiest] {
            for (to, other) in self.loads.iter().filter(|(to, _)| **to != busiest && self.may_have(to, gives)) {
                let given = self.weights[*gives];
                let gain = load - f64::max(load - given, other + given);
                keep_better(&mut moves, Change { gives, to, takes: None, gain });
                for takes in self.held[to].iter().filter(|takes| self.may_have(busiest, takes)) {
                    let difference = given - self.weights[*takes];
                    let gain = load - f64::max(load - difference, other + difference);
                    keep_better(&mut exchanges, Change { gives, to, takes: Some(*takes), gain });
                }
            }
        }
        let moves = moves.filter(|change| change.gain >= min_gain);
        let exchanges = exchanges.filter(|change| change.gain >= min_gain);
        match (moves, exchanges) {
            (Some(one), Some(two)) if two.gain > one.gain * EXCHANGE_GAIN => Some(two),
            (one, two) => one.or(two),
        }
    }

    fn target(self) -> Target<'a> {
        let held = self.held.into_iter();
        held.flat_map(|(member, partitions)| partitions.into_iter().map(move |p| (p.clone(), member))).collect()
    }
}

/// The better of two changes; of equal ones the first, so that every leader comes to the same plan.
fn keep_better<'a, 'w>(best: &mut Option<Change<'a, 'w>>, change: Change<'a, 'w>) {
    if best.as_ref().is_none_or(|best| change.gain > best.gain) {
        *best = Some(change);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::super::codec::Subscription;
    use super::super::{Assignor, assign};
    use super::*;
    use crate::types::PartitionId;

    fn partition(id: i32) -> TopicPartition {
        TopicPartition::new("t", PartitionId(id))
    }

    fn members(owned: &[Vec<i32>]) -> Members {
        let members = owned.iter().enumerate().map(|(number, owned)| {
            let owned = owned.iter().copied().map(partition).collect();
            let subscription =
                Subscription { topics: vec!["t".into()], owned, generation: 1, ..Subscription::default() };
            (format!("m{number}"), subscription)
        });
        members.collect()
    }

    fn rates(rates: &[f64]) -> Rates {
        (0..).map(partition).zip(rates.iter().copied()).collect()
    }

    fn counts(rates: &[f64]) -> PartitionCounts {
        HashMap::from([(Arc::from("t"), i32::try_from(rates.len()).unwrap())])
    }

    /// Three of 48 partitions carry 35 % of 11,000 records a second.
    fn concert() -> Vec<f64> {
        let hot = 11_000.0 * 0.35 / 3.0;
        let cold = 11_000.0 * 0.65 / 45.0;
        (0..48).map(|id| if [7, 8, 31].contains(&id) { hot } else { cold }).collect()
    }

    /// One round; the members take over what they were given.
    fn round(assignor: Assignor, members: &mut Members, load: &[f64]) -> Assignment {
        let assignment = assign(assignor, members, &counts(load), &rates(load));
        for (member, subscription) in members {
            subscription.owned.clone_from(&assignment[member]);
            subscription.generation += 1;
        }
        assignment
    }

    fn settle(assignor: Assignor, members: &mut Members, load: &[f64]) -> Assignment {
        let mut before = round(assignor, members, load);
        for _ in 0..20 {
            let after = round(assignor, members, load);
            if after == before && after.values().map(Vec::len).sum::<usize>() == load.len() {
                return after;
            }
            before = after;
        }
        panic!("does not settle: {before:?}");
    }

    #[test]
    fn three_hot_partitions_of_48_are_shared_out_evenly_among_four() {
        let load = concert();
        let imbalance_by =
            |assignor| imbalance(&settle(assignor, &mut members(&vec![vec![]; 4]), &load), &rates(&load));
        let [range, sticky, ours] =
            [Assignor::Range, Assignor::CooperativeSticky, Assignor::LoadAware].map(imbalance_by);
        // The figures of docs/kafka-client.md; `--nocapture` shows them.
        println!("busiest member / mean: range {range:.2}, cooperative-sticky {sticky:.2}, load-aware {ours:.2}");
        assert!(ours <= 1.10 && ours < range && ours < sticky, "{range} {sticky} {ours}");
    }

    #[test]
    fn a_group_that_shares_by_number_becomes_even_with_few_moves() {
        let load = concert();
        let mut group = members(&vec![vec![]; 4]);
        let by_number = settle(Assignor::CooperativeSticky, &mut group, &load);
        let by_load = settle(Assignor::LoadAware, &mut group, &load);
        let moved = by_load.iter().map(|(member, now)| now.iter().filter(|p| !by_number[member].contains(p)).count());
        assert!(moved.sum::<usize>() <= 12, "a quarter of the partitions at most");
        assert!(imbalance(&by_load, &rates(&load)) <= 1.10);
    }

    #[test]
    fn what_moves_is_released_before_it_is_given() {
        let mut group = members(&[vec![0, 1, 2, 3], vec![]]);
        let first = round(Assignor::LoadAware, &mut group, &[1.0; 4]);
        assert_eq!((first["m0"].len(), first["m1"].len()), (2, 0));
        let second = round(Assignor::LoadAware, &mut group, &[1.0; 4]);
        assert_eq!((second["m0"].len(), second["m1"].len()), (2, 2));
    }

    #[test]
    fn one_partition_that_outweighs_all_others_has_a_member_to_itself() {
        let mut load = vec![1.0; 12];
        load[5] = 1_000.0;
        let settled = settle(Assignor::LoadAware, &mut members(&vec![vec![]; 3]), &load);
        assert!(settled.values().any(|partitions| *partitions == [partition(5)]), "{settled:?}");
    }

    #[test]
    fn members_get_partitions_of_their_topics_alone() {
        let mut group = members(&[vec![], vec![]]);
        group.get_mut("m1").unwrap().topics = vec!["u".into()];
        let counts = HashMap::from([(Arc::from("t"), 4), (Arc::from("u"), 1)]);
        let assignment = assign(Assignor::LoadAware, &group, &counts, &Rates::default());
        assert_eq!((assignment["m0"].len(), assignment["m1"].len()), (4, 1));
    }

    /// Sum of the squares of the members' weights: smaller with each change that makes two members more alike.
    fn unevenness(assignment: &Assignment, load: &[f64]) -> f64 {
        let all: BTreeSet<_> = assignment.values().flatten().cloned().collect();
        let weights = rates(load).weights(&all);
        assignment.values().map(|held| held.iter().map(|p| weights[p]).sum::<f64>().powi(2)).sum()
    }

    fn loads() -> impl Strategy<Value = Vec<f64>> {
        let rate = prop_oneof![Just(0.0), 0.0..10.0, 10.0..100.0, 500.0..2_000.0];
        prop::collection::vec(rate, 1..60)
    }

    fn claims() -> impl Strategy<Value = Vec<Vec<i32>>> {
        prop::collection::vec(prop::collection::vec(0..60, 0..30), 1..8)
    }

    proptest! {
        #[test]
        fn every_partition_ends_up_with_one_member_and_the_group_comes_to_rest(load in loads(), claims in claims()) {
            let settled = settle(Assignor::LoadAware, &mut members(&claims), &load);
            let mut all: Vec<_> = settled.values().flatten().cloned().collect();
            all.sort();
            prop_assert_eq!(all, (0..i32::try_from(load.len()).unwrap()).map(partition).collect::<Vec<_>>());
        }

        #[test]
        fn in_no_round_is_a_partition_given_to_two_or_taken_over_from_a_living_owner(load in loads(), claims in claims()) {
            let mut group = members(&claims);
            for _ in 0..4 {
                let before = group.clone();
                let assignment = round(Assignor::LoadAware, &mut group, &load);
                let owners = super::super::current_owners(&before, &counts(&load));
                let mut given = BTreeSet::new();
                for (member, partitions) in &assignment {
                    for partition in partitions {
                        prop_assert!(given.insert(partition.clone()), "{partition} given twice");
                        prop_assert!(owners.get(partition).is_none_or(|owner| owner == member));
                    }
                }
            }
        }

        #[test]
        fn nothing_moves_without_gain_and_moves_are_bounded(load in loads(), count in 1..8_usize) {
            // What is owned is spread by number, whatever it weighs: the worst that a drift can bring about.
            let mut group = members(&vec![vec![]; count]);
            let before = settle(Assignor::CooperativeSticky, &mut group, &load);
            let first = round(Assignor::LoadAware, &mut group, &load);
            let released = load.len() - first.values().map(Vec::len).sum::<usize>();
            prop_assert!(released <= max_moves(load.len()));
            let after = settle(Assignor::LoadAware, &mut group, &load);
            let (was, is) = (imbalance(&before, &rates(&load)), imbalance(&after, &rates(&load)));
            prop_assert!(is <= was + 1e-9, "{is} after {was}");
            let (rough, even) = (unevenness(&before, &load), unevenness(&after, &load));
            if released > 0 {
                prop_assert!(even < rough, "moved, and no more even: {rough} → {even}");
            } else {
                prop_assert_eq!(after, before);
            }
        }

        #[test]
        fn a_small_change_of_the_load_moves_nothing_in_an_even_group(count in 1..8_usize, noise in prop::collection::vec(0.99..1.01, 48)) {
            let load = vec![100.0; 48];
            let mut group = members(&vec![vec![]; count]);
            let before = settle(Assignor::LoadAware, &mut group, &load);
            let noisy: Vec<f64> = load.iter().zip(noise).map(|(rate, noise)| rate * noise).collect();
            prop_assert_eq!(round(Assignor::LoadAware, &mut group, &noisy), before);
        }
    }
}
