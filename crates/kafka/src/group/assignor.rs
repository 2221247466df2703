//! Who gets which partition: the assignors that a member can offer, and what they share. Pure.
//!
//! The coordinator picks one assignor that every member offers and has the group's leader run it. A list with an eager
//! assignor makes the whole member eager, as in Java's client: it gives everything back before it joins again. With a
//! cooperative list a partition that moves is taken from its owner in one round and given to its new one in the next,
//! after the owner has let go of it: at no moment do two members own it (KIP-429).
//!
//! | assignor | protocol | evens out | keeps |
//! |---|---|---|---|
//! | `range` | eager | partitions of each topic | nothing |
//! | `cooperative-sticky` | cooperative | number of partitions | what is owned, while that is even |
//! | `load-aware` | cooperative | records a second | what is owned, unless moving it pays |

pub(crate) mod load_aware;
mod range;
mod sticky;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::codec::Subscription;
use super::rates::Rates;
use crate::types::{PartitionId, TopicPartition};

/// A way to share out partitions that a member offers to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Assignor {
    /// Java's `RangeAssignor`: neighbouring partitions of each topic to each member. Eager.
    Range,
    /// Java's `CooperativeStickyAssignor`, under its name and by its contract: as many partitions for each, few moves.
    CooperativeSticky,
    /// Ours: as many records a second for each, few moves. Only members of this client offer it.
    LoadAware,
}

impl Assignor {
    /// The name under which it is offered to the group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::CooperativeSticky => "cooperative-sticky",
            Self::LoadAware => "load-aware",
        }
    }

    fn is_cooperative(self) -> bool {
        !matches!(self, Self::Range)
    }
}

impl fmt::Display for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Assignor {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let all = [Self::Range, Self::CooperativeSticky, Self::LoadAware];
        all.into_iter()
            .find(|assignor| assignor.name() == name)
            .ok_or_else(|| "give range, cooperative-sticky or load-aware".to_owned())
    }
}

/// How a member behaves when its group rebalances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebalance {
    /// It gives back everything before it joins again.
    Eager,
    /// It keeps what it owns and gives back only what moves.
    Cooperative,
}

impl Rebalance {
    /// What a list of assignors makes of the member: one eager assignor makes it eager, as Java's client decides it.
    pub(crate) fn of(assignors: &[Assignor]) -> Self {
        if assignors.iter().all(|assignor| assignor.is_cooperative()) { Self::Cooperative } else { Self::Eager }
    }
}

/// Members of a group by their id, with what each has told about itself.
pub(crate) type Members = BTreeMap<String, Subscription>;
/// Partitions of the topics that exist.
pub(crate) type PartitionCounts = HashMap<Arc<str>, i32>;
/// What each member is to own; names every member, those with nothing too.
pub(crate) type Assignment = BTreeMap<String, Vec<TopicPartition>>;
/// Where each partition should be in the end.
type Target<'a> = BTreeMap<TopicPartition, &'a str>;
/// Who rightfully owns what.
type Owners<'a> = BTreeMap<TopicPartition, &'a str>;

/// Shares the partitions of all subscribed topics out. Under a cooperative assignor, those that have to move are
/// assigned to nobody in this round.
pub(crate) fn assign(assignor: Assignor, members: &Members, counts: &PartitionCounts, rates: &Rates) -> Assignment {
    let owners = current_owners(members, counts);
    match assignor {
        Assignor::Range => range::assign(members, counts),
        Assignor::CooperativeSticky => withhold_moves(members, &owners, sticky::target(members, counts, &owners)),
        Assignor::LoadAware => withhold_moves(members, &owners, load_aware::target(members, counts, &owners, rates)),
    }
}

fn withhold_moves(members: &Members, owners: &Owners<'_>, target: Target<'_>) -> Assignment {
    let mut assignment: Assignment = members.keys().map(|member| (member.clone(), Vec::new())).collect();
    for (partition, member) in target {
        let claimed_by_another = owners.get(&partition).is_some_and(|owner| *owner != member);
        if !claimed_by_another && let Some(partitions) = assignment.get_mut(member) {
            partitions.push(partition);
        }
    }
    assignment
}

/// The rightful claims: of two claims the one of the later generation wins, of two equal ones neither.
fn current_owners<'a>(members: &'a Members, counts: &PartitionCounts) -> Owners<'a> {
    let mut claims = BTreeMap::<TopicPartition, (i32, Option<&str>)>::new();
    for (member, subscription) in members {
        let exists = |p: &&TopicPartition| counts.get(&p.topic).is_some_and(|count| p.partition.0 < *count);
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

fn wanted_partitions(members: &Members, counts: &PartitionCounts) -> BTreeSet<TopicPartition> {
    let topics: BTreeSet<&Arc<str>> = members.values().flat_map(|member| &member.topics).collect();
    let partitions = topics.into_iter().flat_map(|topic| {
        let count = counts.get(topic).copied().unwrap_or(0);
        (0..count).map(|id| TopicPartition::new(Arc::clone(topic), PartitionId(id)))
    });
    partitions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_eager_assignor_makes_the_member_eager() {
        use Assignor as A;
        assert_eq!(Rebalance::of(&[A::Range]), Rebalance::Eager);
        assert_eq!(Rebalance::of(&[A::Range, A::CooperativeSticky]), Rebalance::Eager);
        assert_eq!(Rebalance::of(&[A::CooperativeSticky, A::Range]), Rebalance::Eager);
        assert_eq!(Rebalance::of(&[A::CooperativeSticky, A::LoadAware]), Rebalance::Cooperative);
    }

    #[test]
    fn names_are_read_back() {
        for assignor in [Assignor::Range, Assignor::CooperativeSticky, Assignor::LoadAware] {
            assert_eq!(assignor.to_string().parse(), Ok(assignor));
        }
        assert!("sticky".parse::<Assignor>().unwrap_err().contains("cooperative-sticky"));
    }
}
