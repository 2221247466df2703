//! The Kafka client of the data path, on the generated `kafka-protocol` codec.
//!
//! ```text
//!   Client ───── a handle to a cluster: metadata, leaders, one connection for each broker and purpose
//!     ├── Producer ──── enqueue ▶ Delivery ▶ acknowledged by all in-sync replicas | refused | unknown
//!     │       └── DeadLetterPublisher ──── a letter about a record, with Spring's headers
//!     ├── Consumer ──── one member of a group
//!     │       ├── events   Assigned + Claim │ Revoked │ Lost │ Trouble │ Failed
//!     │       ├── fetched  whole batches, still encoded, of what was started
//!     │       └── handle   start, pause, resume, stop, commit, close
//!     ├── lag ───────── offsets of the log, committed offsets of any group, the time of the record at an offset
//!     ├── GroupWatch ── all groups again and again: commits and members, a request for many groups
//!     ├── Reader ────── stretches of a log, once, without a group
//!     └── topics, groups: create, grow, describe, alter offsets, delete
//! ```
//!
//! **A member** ([`Consumer`]) joins by the classic protocol, eager or cooperative, or by the broker's own (KIP-848), see
//! [`GroupProtocol`]; the classic one shares out by range, by number or by load ([`Assignor`]). It hands out partitions as
//! they come and go, and batches ([`RawBatch`]) of those that its reader has started. It promises:
//!
//! - what stays assigned through a rebalance goes on without a pause;
//! - a revoked partition is given on only once its reader has answered, or the rebalance time-out has passed;
//! - after a loss nothing more is committed, and a [`Claim`] tells the reader before each write whether it still may;
//! - heartbeats wait for nobody, least of all for a sink;
//! - every batch moves the position: one that cannot be decoded is handed out once, with its bytes and offsets;
//! - records of aborted transactions are not handed out, and a position that retention took is told as a [`Jump`].
//!
//! **A producer** ([`Producer`]) is idempotent, keeps the order of each key through retries, and gives every record an
//! outcome within its time limit; an unknown one is told apart from a refusal ([`ProduceError`]).
//!
//! Every call ends: by its answer, or by an [`Error`] that says what to check and whether waiting helps ([`ErrorKind`]).
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
mod peek;
mod pending;
pub mod producer;
mod reader;
mod record;
mod sasl;
mod scram;
mod tls;
pub mod topics;
mod types;
mod watch;

pub use ::tls::{Authorities, BadPem, CertificateChain, PrivateKey, Tls};
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
pub use peek::{Peeked, PeekedAt};
pub use producer::{
    Compression, Delivered, Delivery, Header, OutRecord, ProduceError, Producer, ProducerConfig, ProducerStats,
    RejectReason, Rejected,
};
pub use reader::{READ_MAX_BYTES, Read, Reader, Stretch};
pub use record::{MAX_DECODED_BYTES, RawBatch, Record, TimestampType, UndecodableBatch};
pub use sasl::{Sasl, SaslMechanism, Secret};
pub use types::{BrokerId, Offset, PartitionId, TopicPartition};
pub use watch::{GroupWatch, OfGroups};
