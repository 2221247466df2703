//! As many partitions for each member, give or take one, with few moves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Members, Owners, PartitionCounts, Target, wanted_partitions};

/// Where each partition should be in the end: with its owner while that keeps the balance, else with the least loaded.
pub(super) fn target<'a>(members: &'a Members, counts: &PartitionCounts, owners: &Owners<'a>) -> Target<'a> {
    let wanted = wanted_partitions(members, counts);
    let mut shares = Shares::new(members, wanted.len());
    let mut target = BTreeMap::new();
    for partition in &wanted {
        if let Some(owner) = owners.get(partition).copied().filter(|owner| shares.keep(owner)) {
            target.insert(partition.clone(), owner);
        }
    }
    for partition in wanted {
        if !target.contains_key(&partition)
            && let Some(member) = shares.least_loaded(&partition.topic)
        {
            target.insert(partition, member);
        }
    }
    target
}

/// How many partitions each member holds so far, and how many it may keep.
struct Shares<'a> {
    members: &'a Members,
    held: BTreeMap<&'a str, usize>,
    quota: usize,
    /// How many members may keep one more than the quota.
    spare: usize,
}

impl<'a> Shares<'a> {
    fn new(members: &'a Members, partitions: usize) -> Self {
        let count = members.len().max(1);
        let held = members.keys().map(|member| (member.as_str(), 0)).collect();
        Self { members, held, quota: partitions / count, spare: partitions % count }
    }

    /// Whether `member` may keep one more of what it owns; counts it if so.
    fn keep(&mut self, member: &str) -> bool {
        let Some(held) = self.held.get_mut(member) else { return false };
        let within_quota = *held < self.quota;
        let takes_spare = *held == self.quota && self.spare > 0;
        if takes_spare {
            self.spare -= 1;
        }
        *held += usize::from(within_quota || takes_spare);
        within_quota || takes_spare
    }

    fn least_loaded(&mut self, topic: &Arc<str>) -> Option<&'a str> {
        let members = self.members;
        let subscribed = |member: &&str| members.get(*member).is_some_and(|m| m.topics.contains(topic));
        let member = self.held.keys().copied().filter(subscribed).min_by_key(|member| self.held[member])?;
        *self.held.get_mut(member)? += 1;
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::super::super::codec::Subscription;
    use super::super::super::rates::Rates;
    use super::super::{Assignor, assign as assign_by};
    use super::*;
    use crate::types::{PartitionId, TopicPartition};

    fn group(owned: &[Vec<i32>]) -> Members {
        let members = owned.iter().enumerate().map(|(i, owned)| {
            let owned = owned.iter().map(|id| TopicPartition::new("t", PartitionId(*id))).collect();
            (
                format!("m{i}"),
                Subscription { topics: vec!["t".into()], owned, generation: 1, ..Subscription::default() },
            )
        });
        members.collect()
    }

    fn assign(members: &Members, partitions: i32) -> BTreeMap<String, Vec<i32>> {
        let counts = HashMap::from([(Arc::from("t"), partitions)]);
        let assignment = assign_by(Assignor::CooperativeSticky, members, &counts, &Rates::default());
        assignment.into_iter().map(|(m, ps)| (m, ps.iter().map(|p| p.partition.0).collect())).collect()
    }

    /// Plays rounds, each member taking over what it was given, until nothing moves.
    fn settle(mut members: Members, partitions: i32) -> (BTreeMap<String, Vec<i32>>, usize) {
        for round in 1..=4 {
            let assignment = assign(&members, partitions);
            let total: usize = assignment.values().map(Vec::len).sum();
            for (member, subscription) in &mut members {
                subscription.owned =
                    assignment[member].iter().map(|id| TopicPartition::new("t", PartitionId(*id))).collect();
                subscription.generation += 1;
            }
            if total == usize::try_from(partitions).unwrap() {
                return (assignment, round);
            }
        }
        panic!("does not settle");
    }

    #[test]
    fn a_lone_member_gets_everything() {
        assert_eq!(assign(&group(&[vec![]]), 4)["m0"], [0, 1, 2, 3]);
    }

    #[test]
    fn what_moves_is_released_before_it_is_given() {
        let first = assign(&group(&[vec![0, 1, 2, 3], vec![]]), 4);
        assert_eq!(first["m0"].len(), 2, "keeps its half");
        assert_eq!(first["m1"].len(), 0, "gets the other half only once it is released");
    }

    #[test]
    fn of_two_equal_claims_neither_counts() {
        let assignment = assign(&group(&[vec![0], vec![0]]), 2);
        let all: BTreeSet<i32> = assignment.values().flatten().copied().collect();
        assert_eq!(all, BTreeSet::from([0, 1]));
    }

    #[test]
    fn a_stale_claim_loses() {
        let mut members = group(&[vec![0, 1], vec![0, 1]]);
        members.get_mut("m1").unwrap().generation = 9;
        let assignment = assign(&members, 2);
        assert_eq!((assignment["m0"].len(), assignment["m1"].len()), (0, 1), "the other moves to m0 next round");
    }

    proptest! {
        #[test]
        fn every_partition_ends_up_once_and_balanced_within_two_rounds(
            claims in prop::collection::vec(prop::collection::vec(0..60, 0..30), 1..8),
            partitions in 1..60,
        ) {
            let members = group(&claims);
            let (assignment, rounds) = settle(members, partitions);
            let mut all: Vec<i32> = assignment.values().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..partitions).collect::<Vec<_>>());
            let sizes = assignment.values().map(Vec::len);
            prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
            prop_assert!(rounds <= 2);
        }

        #[test]
        fn a_settled_group_does_not_move(members in 1..8_usize, partitions in 1..60) {
            let (settled, _) = settle(group(&vec![vec![]; members]), partitions);
            let again = group(&settled.values().cloned().collect::<Vec<_>>());
            prop_assert_eq!(assign(&again, partitions), settled);
        }
    }
}
