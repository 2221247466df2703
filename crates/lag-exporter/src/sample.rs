//! What one collection read, as plain data: nothing here knows Kafka's requests, and nothing is computed yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka::TopicPartition;

/// What one collection read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Wall clock in ms since the epoch, between the reading of the commits and of the end offsets.
    pub(crate) taken_at_ms: i64,
    /// Every topic that some group consumes.
    pub(crate) topics: BTreeMap<Arc<str>, Result<TopicReading, Reason>>,
    pub(crate) groups: BTreeMap<Arc<str>, GroupReading>,
    /// Number and address.
    pub(crate) brokers: Vec<(i32, String)>,
}

/// What was read of one topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicReading {
    /// Changes when a topic is deleted and created again under the same name.
    pub(crate) id: [u8; 16],
    /// By number.
    pub(crate) partitions: Vec<PartitionReading>,
    /// How long records are kept, where that is limited and we may know it.
    pub(crate) retention_ms: Option<i64>,
}

/// What was read of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PartitionReading {
    /// First offset that is kept; `None` when it could not be read.
    pub(crate) start: Option<i64>,
    /// End of the log; `None` when it could not be read.
    pub(crate) end: Option<i64>,
    pub(crate) leader: Option<i32>,
    pub(crate) preferred: Option<i32>,
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
}

/// What was read of one group.
#[derive(Debug, Clone)]
pub(crate) struct GroupReading {
    /// `classic`, `consumer`, or empty from brokers that do not say.
    pub(crate) protocol: String,
    /// Kafka's name of its state.
    pub(crate) state: String,
    /// How many are in it; `None` when that could not be read.
    pub(crate) members: Option<usize>,
    /// Who owns which partition, as far as it was read.
    pub(crate) owners: HashMap<TopicPartition, Arc<Owner>>,
    /// Every topic that it consumes: the commits by partition number.
    pub(crate) consumed: Result<BTreeMap<Arc<str>, Vec<Option<Commit>>>, Reason>,
}

/// A member that owns a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) member_id: String,
    pub(crate) client_id: String,
    pub(crate) host: String,
}

/// A committed position: the next offset, and the timestamp of the last record before it where the metadata tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: Option<i64>,
}

/// Why something is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    /// We lack the right to see it.
    NotAuthorized,
    /// The group's commits could not be read.
    GroupUnread,
    /// The topic's partitions could not be read.
    TopicUnread,
    /// The end of the partition's log could not be read.
    EndUnread,
    /// The start of the partition's log could not be read.
    StartUnread,
    /// The committed offset lies behind the end of the log.
    BeyondEnd,
    /// The time of the oldest waiting record is older than what was watched, and the record itself may not be read.
    NoHistory,
    /// The oldest waiting record has not been read yet.
    NotReadYet,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotAuthorized => "not_authorized",
            Self::GroupUnread => "group_unread",
            Self::TopicUnread => "topic_unread",
            Self::EndUnread => "end_unread",
            Self::StartUnread => "start_unread",
            Self::BeyondEnd => "beyond_end",
            Self::NoHistory => "no_history",
            Self::NotReadYet => "not_read_yet",
        }
    }
}
