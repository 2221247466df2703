//! Java's `RangeAssignor`: the partitions of each topic in order, the members in order, the first members one more.

use std::sync::Arc;

use super::{Assignment, Members, PartitionCounts};
use crate::types::{PartitionId, TopicPartition};

pub(super) fn assign(members: &Members, counts: &PartitionCounts) -> Assignment {
    let mut assignment: Assignment = members.keys().map(|member| (member.clone(), Vec::new())).collect();
    let mut topics: Vec<(&Arc<str>, &i32)> = counts.iter().collect();
    topics.sort();
    for (topic, count) in topics {
        let mut subscribed: Vec<_> = members.iter().filter(|(_, member)| member.topics.contains(topic)).collect();
        // Java sorts static members first, by their instance id: they keep their place when they come back.
        subscribed.sort_by_key(|(id, member)| (member.instance_id.is_none(), member.instance_id.clone(), *id));
        let mut next = 0;
        for (position, (id, _)) in subscribed.iter().enumerate() {
            let share = share(*count, subscribed.len(), position);
            if let Some(partitions) = assignment.get_mut(*id) {
                partitions.extend((next..next + share).map(|p| TopicPartition::new(Arc::clone(topic), PartitionId(p))));
            }
            next += share;
        }
    }
    assignment
}

/// How many of `count` partitions the member at `position` of `members` gets.
fn share(count: i32, members: usize, position: usize) -> i32 {
    let members = i32::try_from(members).unwrap_or(i32::MAX).max(1);
    let position = i32::try_from(position).unwrap_or(i32::MAX);
    count / members + i32::from(position < count % members)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::super::codec::Subscription;
    use super::*;

    fn member(topics: &[&str], instance_id: Option<&str>) -> Subscription {
        Subscription {
            topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
            instance_id: instance_id.map(Arc::from),
            ..Subscription::default()
        }
    }

    fn shown(assignment: &Assignment, member: &str) -> Vec<String> {
        assignment[member].iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_members_get_one_more_of_each_topic() {
        let members = Members::from([("a".into(), member(&["t", "u"], None)), ("b".into(), member(&["t", "u"], None))]);
        let counts = HashMap::from([(Arc::from("t"), 3), (Arc::from("u"), 3)]);
        let assignment = assign(&members, &counts);
        assert_eq!(shown(&assignment, "a"), ["t-0", "t-1", "u-0", "u-1"]);
        assert_eq!(shown(&assignment, "b"), ["t-2", "u-2"]);
    }

    #[test]
    fn a_topic_goes_to_its_subscribers_alone_and_more_members_than_partitions_get_nothing() {
        let members = Members::from([
            ("a".into(), member(&["t"], None)),
            ("b".into(), member(&["u"], None)),
            ("c".into(), member(&["t"], None)),
        ]);
        let counts = HashMap::from([(Arc::from("t"), 1), (Arc::from("u"), 2)]);
        let assignment = assign(&members, &counts);
        assert_eq!(shown(&assignment, "a"), ["t-0"]);
        assert_eq!(shown(&assignment, "b"), ["u-0", "u-1"]);
        assert!(assignment["c"].is_empty());
    }

    #[test]
    fn static_members_come_first_in_the_order_of_their_instances() {
        let members = Members::from([
            ("a".into(), member(&["t"], None)),
            ("b".into(), member(&["t"], Some("2"))),
            ("c".into(), member(&["t"], Some("1"))),
        ]);
        let assignment = assign(&members, &HashMap::from([(Arc::from("t"), 3)]));
        assert_eq!(shown(&assignment, "c"), ["t-0"]);
        assert_eq!(shown(&assignment, "b"), ["t-1"]);
        assert_eq!(shown(&assignment, "a"), ["t-2"]);
    }
}
