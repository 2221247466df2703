//! The two opaque blobs of the classic group protocol: what a member subscribes to and what it is assigned.
//!
//! Both are Java's `ConsumerProtocol`: a 2-byte version, then the message of that version; a newer version than we know
//! is read as the newest that we know, since fields are only ever appended.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::consumer_protocol_assignment::{
    ConsumerProtocolAssignment, TopicPartition as AssignedTopic,
};
use kafka_protocol::messages::consumer_protocol_subscription::{
    ConsumerProtocolSubscription, TopicPartition as OwnedTopic,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::types::{PartitionId, TopicPartition, by_topic};

/// Version 2 brought the generation (KIP-792), by which a stale claim is told from a current one.
const SUBSCRIPTION_VERSION: i16 = 2;
const SUBSCRIPTION_MAX: i16 = 3;
const ASSIGNMENT_VERSION: i16 = 0;
const ASSIGNMENT_MAX: i16 = 3;

/// What a member tells the leader when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subscription {
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) owned: Vec<TopicPartition>,
    /// Generation in which it got what it owns; −1 when it owns nothing.
    pub(crate) generation: i32,
    /// What the assignor's members tell each other; empty when there is nothing to tell.
    pub(crate) user_data: Bytes,
    /// The member's static identity. It does not travel in the subscription: the coordinator tells it beside it.
    pub(crate) instance_id: Option<Arc<str>>,
}

/// A blob that is no subscription or assignment.
#[derive(Debug, thiserror::Error)]
#[error("a member's group protocol data cannot be read: {0}")]
pub(crate) struct Malformed(String);

pub(crate) fn encode_subscription(subscription: &Subscription) -> Result<Bytes, Malformed> {
    let mut message = ConsumerProtocolSubscription::default();
    message.topics = subscription.topics.iter().map(|topic| str_bytes(topic)).collect();
    message.generation_id = subscription.generation;
    message.user_data = (!subscription.user_data.is_empty()).then(|| subscription.user_data.clone());
    message.owned_partitions = by_topic(&subscription.owned)
        .into_iter()
        .map(|(topic, partitions)| {
            let mut owned = OwnedTopic::default();
            owned.topic = TopicName(str_bytes(topic));
            owned.partitions = partitions;
            owned
        })
        .collect();
    encode(&message, SUBSCRIPTION_VERSION)
}

pub(crate) fn decode_subscription(bytes: Bytes) -> Result<Subscription, Malformed> {
    let message: ConsumerProtocolSubscription = decode(bytes, SUBSCRIPTION_MAX)?;
    let owned = message.owned_partitions.iter().flat_map(|owned| expand(&owned.topic, &owned.partitions));
    Ok(Subscription {
        topics: message.topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
        owned: owned.collect(),
        generation: message.generation_id,
        user_data: message.user_data.unwrap_or_default(),
        instance_id: None,
    })
}

pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes, Malformed> {
    let mut message = ConsumerProtocolAssignment::default();
    message.assigned_partitions = by_topic(partitions)
        .into_iter()
        .map(|(topic, partitions)| {
            let mut assigned = AssignedTopic::default();
            assigned.topic = TopicName(str_bytes(topic));
            assigned.partitions = partitions;
            assigned
        })
        .collect();
    encode(&message, ASSIGNMENT_VERSION)
}

/// An empty blob is what a member gets that the leader did not know: nothing is assigned.
pub(crate) fn decode_assignment(bytes: Bytes) -> Result<Vec<TopicPartition>, Malformed> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let message: ConsumerProtocolAssignment = decode(bytes, ASSIGNMENT_MAX)?;
    Ok(message.assigned_partitions.iter().flat_map(|topic| expand(&topic.topic, &topic.partitions)).collect())
}

fn encode<M: Encodable>(message: &M, version: i16) -> Result<Bytes, Malformed> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(version);
    message.encode(&mut bytes, version).map_err(|error| Malformed(error.to_string()))?;
    Ok(bytes.freeze())
}

fn decode<M: Decodable>(mut bytes: Bytes, newest: i16) -> Result<M, Malformed> {
    let version = bytes.try_get_i16().map_err(|error| Malformed(error.to_string()))?;
    if version < 0 {
        return Err(Malformed(format!("version {version}")));
    }
    M::decode(&mut bytes, version.min(newest)).map_err(|error| Malformed(error.to_string()))
}

fn expand(topic: &TopicName, partitions: &[i32]) -> Vec<TopicPartition> {
    let topic: Arc<str> = Arc::from(topic.as_str());
    partitions.iter().map(|id| TopicPartition::new(Arc::clone(&topic), PartitionId(*id))).collect()
}

fn str_bytes(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(ids: &[i32]) -> Vec<TopicPartition> {
        ids.iter().map(|id| TopicPartition::new("t", PartitionId(*id))).collect()
    }

    #[test]
    fn a_subscription_survives_the_wire() {
        let subscription = Subscription {
            topics: vec!["t".into(), "u".into()],
            owned: partitions(&[0, 3]),
            generation: 7,
            user_data: Bytes::from_static(b"rates"),
            instance_id: None,
        };
        assert_eq!(decode_subscription(encode_subscription(&subscription).unwrap()).unwrap(), subscription);
    }

    #[test]
    fn an_assignment_survives_the_wire_and_an_empty_one_is_nothing() {
        let bytes = encode_assignment(&partitions(&[1, 2])).unwrap();
        assert_eq!(decode_assignment(bytes).unwrap(), partitions(&[1, 2]));
        assert_eq!(decode_assignment(Bytes::new()).unwrap(), vec![]);
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(decode_subscription(Bytes::from_static(b"\x00\x01\xff")).is_err());
        assert!(decode_assignment(Bytes::from_static(b"\xff\xff")).is_err());
    }
}
