//! The Kafka client of the data path, on the generated `kafka-protocol` codec.
#![allow(clippy::field_reassign_with_default, reason = "the codec's messages are non-exhaustive: no struct literals")]

mod admin;
mod cluster;
mod commit_metadata;
mod config;
mod connection;
mod consumer;
mod coordinator;
pub mod dead_letter;
mod error;
mod fetch;
mod group;
mod group_admin;
mod lag;
mod listener;
mod partitioner;
mod pending;
pub mod producer;
mod record;
mod sasl;
mod scram;
mod tls;
pub mod topics;
mod types;

pub use admin::{Created, MIN_IN_SYNC, REPLICATION, TopicSpec};
pub use cluster::{Client, PartitionMetadata, TopicMetadata};
pub use commit_metadata::CommitMetadata;
pub use config::{ClientConfig, Security};
pub use consumer::{
    AssignedPartition, ClassicConfig, Commit, Consumer, ConsumerConfig, GroupEvent, GroupProtocol, Handle, Revocation,
};
pub use dead_letter::{DeadLetter, DeadLetterConfig, DeadLetterPublisher, LetterDelivery};
pub use error::{Error, ErrorKind};
pub use fetch::{FetchConfig, Fetched, Incarnation, Jump};
pub use group::assignor::Assignor;
pub use group::claim::Claim;
pub use group_admin::{GroupDescription, GroupListing, GroupMember};
pub use lag::{Committed, CommittedOffsets, ListedOffset, ListedOffsets, OffsetSpec};
pub use partitioner::partition_for_key;
pub use producer::{
    Compression, Delivered, Delivery, Header, OutRecord, ProduceError, Producer, ProducerConfig, ProducerStats,
    RejectReason, Rejected,
};
pub use record::{MAX_DECODED_BYTES, RawBatch, Record, TimestampType, UndecodableBatch};
pub use sasl::{Sasl, SaslMechanism, Secret};
pub use tls::{Authorities, BadPem, CertificateChain, PrivateKey, Tls};
pub use types::{BrokerId, Offset, PartitionId, TopicPartition};
