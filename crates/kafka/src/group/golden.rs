//! Java's own bytes of subscriptions and assignments: we read all of them, and ours are the same.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Subscription, decode_assignment, decode_subscription, encode_assignment, encode_subscription};
use crate::types::{PartitionId, TopicPartition};

const GOLDEN: &str = include_str!("../../tests/golden/group.txt");
const VERSIONS: std::ops::RangeInclusive<i16> = 0..=3;
/// What we write ourselves.
const OUR_SUBSCRIPTION: i16 = 2;
const OUR_ASSIGNMENT: i16 = 0;
const USER_DATA: &[u8] = b"user data";

fn golden(name: &str, version: i16) -> Bytes {
    let wanted = format!("{name} {version} ");
    let hex = GOLDEN.lines().find_map(|line| line.strip_prefix(&wanted)).expect("a line of Java's");
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn owned() -> Vec<TopicPartition> {
    [("t", 0), ("t", 3), ("u", 47)].map(|(topic, id)| TopicPartition::new(topic, PartitionId(id))).to_vec()
}

fn subscribed(topics: &[&str]) -> Subscription {
    let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
    Subscription { topics, generation: -1, ..Subscription::default() }
}

/// What Golden.java subscribes to.
fn subscriptions() -> [(&'static str, Subscription); 3] {
    let owning = Subscription { owned: owned(), generation: 7, ..subscribed(&["t", "u"]) };
    let full = Subscription { user_data: Bytes::from_static(USER_DATA), ..owning.clone() };
    [("subscription-bare", subscribed(&["t"])), ("subscription-owning", owning), ("subscription-full", full)]
}

/// As much of it as `version` carries: what is owned came with 1, the generation with 2.
fn as_of(version: i16, mut subscription: Subscription) -> Subscription {
    if version < 1 {
        subscription.owned.clear();
    }
    if version < 2 {
        subscription.generation = -1;
    }
    subscription
}

#[test]
fn java_s_subscriptions_of_every_version_are_read() {
    for version in VERSIONS {
        for (name, expected) in subscriptions() {
            let read = decode_subscription(golden(name, version)).unwrap();
            assert_eq!(read, as_of(version, expected), "{name} {version}");
        }
    }
}

#[test]
fn java_s_assignments_of_every_version_are_read() {
    for version in VERSIONS {
        for (name, expected) in
            [("assignment-empty", vec![]), ("assignment-bare", owned()), ("assignment-full", owned())]
        {
            assert_eq!(decode_assignment(golden(name, version)).unwrap(), expected, "{name} {version}");
        }
    }
}

#[test]
fn our_subscriptions_are_java_s_byte_for_byte() {
    for (name, subscription) in subscriptions() {
        assert_eq!(encode_subscription(&subscription).unwrap(), golden(name, OUR_SUBSCRIPTION), "{name}");
    }
}

#[test]
fn our_assignments_are_java_s_byte_for_byte() {
    for (name, partitions) in [("assignment-empty", vec![]), ("assignment-bare", owned())] {
        assert_eq!(encode_assignment(&partitions).unwrap(), golden(name, OUR_ASSIGNMENT), "{name}");
    }
}
