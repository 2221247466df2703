//! Who gets which partition: balanced by count, sticky, and cooperative. Pure.
//!
//! A partition that moves is taken from its owner in one round and given to its new one in the next, after the owner
//! has let go of it: at no moment do two members own it (KIP-429).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::codec::Subscription;
use crate::types::{PartitionId, TopicPartition};

/// Name under which members offer this assignor; Java's `CooperativeStickyAssignor` has the same name and contract.
pub(crate) const COOPERATIVE_STICKY: &str = "cooperative-sticky";

/// Assigns every partition of the subscribed topics.
///
/// `partition_counts` holds the topics that exist. The result names every member, those with nothing too. Partitions
/// that have to move are assigned to nobody in this round.
pub(crate) fn cooperative_sticky(
    members: &BTreeMap<String, Subscription>,
    partition_counts: &HashMap<Arc<str>, i32>,
) -> BTreeMap<String, Vec<TopicPartition>> {
    let owners = current_owners(members, partition_counts);
    let target = balance(members, partition_counts, &owners);
    let mut assignment: BTreeMap<String, Vec<TopicPartition>> =
        members.keys().map(|member| (member.clone(), Vec::new())).collect();
    for (partition, member) in target {
        let claimed_by_another = owners.get(&partition).is_some_and(|owner| *owner != member);
        if !claimed_by_another && let Some(partitions) = assignment.get_mut(member) {
            partitions.push(partition);
        }
    }
    assignment
}

type Owners<'a> = BTreeMap<TopicPartition, &'a str>;

/// The rightful claims: of two claims the one of the later generation wins, of two equal ones neither.
fn current_owners<'a>(
    members: &'a BTreeMap<String, Subscription>,
    partition_counts: &HashMap<Arc<str>, i32>,
) -> Owners<'a> {
    let mut claims = BTreeMap::<TopicPartition, (i32, Option<&str>)>::new();
    for (member, subscription) in members {
        let exists = |p: &&TopicPartition| partition_counts.get(&p.topic).is_some_and(|count| p.partition.0 < *count);
        let subscribed = |p: &&TopicPartition| subscription.topics.contains(&p.topic);
        for partition in subscription.owned.iter().filter(exists).filter(subscribed) {
            let claim = (subscription.generation, Some(member.as_str()));
            claims
                .entry(partition.clone())
                .and_modify(|best| match best.0.cmp(&claim.0) {
                    std::cmp::Ordering::Less => *best = claim,
                    std::cmp::Ordering::Equal => best.1 = None,
                    std::cmp::Ordering::Greater => {}
                })
                .or_insert(claim);
        }
    }
    claims.into_iter().filter_map(|(partition, (_, owner))| Some((partition, owner?))).collect()
}

/// Where each partition should be in the end: with its owner while that keeps the balance, else with the least loaded.
fn balance<'a>(
    members: &'a BTreeMap<String, Subscription>,
    partition_counts: &HashMap<Arc<str>, i32>,
    owners: &Owners<'a>,
) -> BTreeMap<TopicPartition, &'a str> {
    let wanted = wanted_partitions(members, partition_counts);
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

fn wanted_partitions(
    members: &BTreeMap<String, Subscription>,
    partition_counts: &HashMap<Arc<str>, i32>,
) -> BTreeSet<TopicPartition> {
    let topics: BTreeSet<&Arc<str>> = members.values().flat_map(|member| &member.topics).collect();
    let partitions = topics.into_iter().flat_map(|topic| {
        let count = partition_counts.get(topic).copied().unwrap_or(0);
        (0..count).map(|id| TopicPartition::new(Arc::clone(topic), PartitionId(id)))
    });
    partitions.collect()
}

/// How many partitions each member holds so far, and how many it may keep.
struct Shares<'a> {
    members: &'a BTreeMap<String, Subscription>,
    held: BTreeMap<&'a str, usize>,
    quota: usize,
    /// How many members may keep one more than the quota.
    spare: usize,
}

impl<'a> Shares<'a> {
    fn new(members: &'a BTreeMap<String, Subscription>, partitions: usize) -> Self {
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
    use super::*;
    use proptest::prelude::*;

    type Group = BTreeMap<String, Subscription>;

    fn group(owned: &[Vec<i32>]) -> Group {
        let members = owned.iter().enumerate().map(|(i, owned)| {
            let owned = owned.iter().map(|id| TopicPartition::new("t", PartitionId(*id))).collect();
            (format!("m{i}"), Subscription { topics: vec!["t".into()], owned, generation: 1 })
        });
        members.collect()
    }

    fn assign(members: &Group, partitions: i32) -> BTreeMap<String, Vec<i32>> {
        let counts = HashMap::from([(Arc::from("t"), partitions)]);
        let assignment = cooperative_sticky(members, &counts);
        assignment.into_iter().map(|(m, ps)| (m, ps.iter().map(|p| p.partition.0).collect())).collect()
    }

    /// Plays rounds, each member taking over what it was given, until nothing moves.
    fn settle(mut members: Group, partitions: i32) -> (BTreeMap<String, Vec<i32>>, usize) {
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
