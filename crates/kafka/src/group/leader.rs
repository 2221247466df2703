//! What a leader does: shares the partitions out, and watches whether that should be done anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::assignor::load_aware::{self, imbalance};
use super::assignor::{Assignment, Assignor, Members, PartitionCounts, assign};
use super::drift::Drift;
use super::machine::Leads;
use super::rates::Rates;
use crate::cluster::Client;
use crate::error::Error;
use crate::lag::OffsetSpec;
use crate::types::{Offset, TopicPartition};

/// What the leader of a generation knows of it.
#[derive(Debug)]
pub(crate) struct Led {
    assignor: Assignor,
    members: Members,
    counts: PartitionCounts,
    /// Who was given what; unknown where the coordinator kept the assignment of the generation before.
    assignment: Option<Assignment>,
    drift: Drift,
}

/// Shares the partitions out among the members of the generation. `rates` is what the leader has measured itself; it
/// counts for more than what members tell, since it is measured in one place and for all partitions.
pub(crate) async fn share_out(
    client: &Client,
    leads: Leads,
    rates: Rates,
    min_interval: Duration,
) -> Result<(Assignment, Led), Error> {
    let counts = partition_counts(client, &topics_of(&leads.members)).await?;
    let mut known = Rates::default();
    for member in leads.members.values() {
        known.learn(Rates::decode(member.user_data.clone()));
    }
    known.learn(rates);
    let drift = Drift::new(min_interval, Instant::now());
    let Leads { assignor, members, keeps_assignment } = leads;
    if keeps_assignment {
        return Ok((Assignment::new(), Led { assignor, members, counts, assignment: None, drift }));
    }
    let assignment = assign(assignor, &members, &counts, &known);
    Ok((assignment.clone(), Led { assignor, members, counts, assignment: Some(assignment), drift }))
}

impl Led {
    /// The topics that its members subscribe to.
    pub(crate) fn topics(&self) -> Vec<Arc<str>> {
        topics_of(&self.members)
    }

    /// Whether the partitions should be shared out anew: there are others than before, or the load has drifted.
    pub(crate) fn is_outdated(&mut self, counts: &PartitionCounts, rates: &Rates, now: Instant) -> bool {
        if *counts != self.counts {
            return true;
        }
        let Some(assignment) = self.assignment.as_ref().filter(|_| self.assignor == Assignor::LoadAware) else {
            return false;
        };
        let plan = load_aware::plan(&owning(&self.members, assignment), counts, rates);
        self.drift.observe(imbalance(assignment, rates), imbalance(&plan, rates), now)
    }
}

/// The members as they will claim when they join again.
fn owning(members: &Members, assignment: &Assignment) -> Members {
    let mut members = members.clone();
    for (id, member) in &mut members {
        member.owned = assignment.get(id).cloned().unwrap_or_default();
        member.generation = 0;
    }
    members
}

fn topics_of(members: &Members) -> Vec<Arc<str>> {
    let topics: BTreeSet<&Arc<str>> = members.values().flat_map(|member| &member.topics).collect();
    topics.into_iter().cloned().collect()
}

/// A look at the topics between rebalances.
pub(crate) struct Sighting {
    /// Set for a leader who could ask.
    pub(crate) counts: Option<PartitionCounts>,
    /// Where the logs end, of the partitions whose load is watched.
    pub(crate) ends: BTreeMap<TopicPartition, Offset>,
}

/// What a look is at.
pub(crate) enum Scope {
    /// All partitions of these topics: the leader's.
    Topics { topics: Vec<Arc<str>>, measures_load: bool },
    /// The load of these alone.
    Partitions(BTreeSet<TopicPartition>),
}

/// Looks. What cannot be seen at the moment is missing: the next look is seconds away.
pub(crate) async fn look(client: &Client, scope: Scope) -> Sighting {
    let (counts, watched) = match scope {
        Scope::Partitions(partitions) => (None, partitions.into_iter().collect()),
        Scope::Topics { topics, measures_load } => {
            let Ok(counts) = partition_counts(client, &topics).await else {
                return Sighting { counts: None, ends: BTreeMap::new() };
            };
            let known = topics.iter().filter(|_| measures_load).filter_map(|topic| client.known_topic(topic));
            let watched: Vec<_> = known.flat_map(|topic| topic.topic_partitions()).collect();
            (Some(counts), watched)
        }
    };
    let listed = match client.list_offsets(&watched, OffsetSpec::Latest).await {
        Ok(listed) => listed,
        Err(error) => {
            tracing::debug!(%error, "the ends of the logs cannot be looked up: the load goes unmeasured for a while");
            Vec::new()
        }
    };
    let ends = listed.into_iter().filter_map(|(partition, listed)| Some((partition, listed.ok()?.offset)));
    Sighting { counts, ends: ends.collect() }
}

/// A topic that is not there has no partitions: the leader looks again every few seconds.
async fn partition_counts(client: &Client, topics: &[Arc<str>]) -> Result<PartitionCounts, Error> {
    let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
    let found = client.topics(&names).await?;
    Ok(found.into_iter().flatten().map(|topic| (Arc::clone(&topic.name), topic.partition_count())).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::codec::Subscription;
    use super::*;
    use crate::types::PartitionId;

    const MINUTE: Duration = Duration::from_secs(60);

    fn led(assignor: Assignor, shares: &[&[i32]]) -> Led {
        let member = Subscription { topics: vec!["t".into()], ..Subscription::default() };
        let ids = (0..shares.len()).map(|number| format!("m{number}"));
        let partitions =
            |share: &[i32]| share.iter().map(|id| TopicPartition::new("t", PartitionId(*id))).collect::<Vec<_>>();
        Led {
            assignor,
            members: ids.clone().map(|id| (id, member.clone())).collect(),
            counts: HashMap::from([(Arc::from("t"), 4)]),
            assignment: Some(ids.zip(shares.iter().map(|share| partitions(share))).collect()),
            drift: Drift::new(MINUTE, Instant::now()),
        }
    }

    fn rates(rates: [f64; 4]) -> Rates {
        (0..).map(|id| TopicPartition::new("t", PartitionId(id))).zip(rates).collect()
    }

    /// Whether any of some looks after the minute finds that it should be shared out anew.
    fn is_shared_out_anew(mut led: Led, rates: &Rates) -> bool {
        let counts = led.counts.clone();
        let begin = Instant::now() + MINUTE;
        (1..6).any(|look| led.is_outdated(&counts, rates, begin + Duration::from_secs(5 * look)))
    }

    #[test]
    fn a_load_that_has_drifted_is_shared_out_anew_by_load_alone() {
        let drifted = rates([100.0, 100.0, 1.0, 1.0]);
        assert!(is_shared_out_anew(led(Assignor::LoadAware, &[&[0, 1], &[2, 3]]), &drifted));
        assert!(!is_shared_out_anew(led(Assignor::LoadAware, &[&[0, 2], &[1, 3]]), &drifted), "even already");
        assert!(!is_shared_out_anew(led(Assignor::CooperativeSticky, &[&[0, 1], &[2, 3]]), &drifted));
    }

    #[test]
    fn other_partitions_than_before_are_shared_out_at_once() {
        let mut led = led(Assignor::CooperativeSticky, &[&[0, 1], &[2, 3]]);
        let grown = HashMap::from([(Arc::from("t"), 5)]);
        assert!(led.is_outdated(&grown, &Rates::default(), Instant::now()));
        assert!(!led.is_outdated(&led.counts.clone(), &Rates::default(), Instant::now()));
    }
}
