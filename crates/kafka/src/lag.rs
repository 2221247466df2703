//! What lag is made of: offsets of the log (by leader) and committed offsets of groups (by coordinator).
//!
//! Each broker gets one request for all that it knows; what ails one partition or group stands in its place.

use std::collections::{BTreeMap, HashMap};

use futures::future::join_all;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsResponse};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{GroupId, ListOffsetsRequest, OffsetFetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::{Client, Lane};
use crate::coordinator;
use crate::error::Error;
use crate::types::{BrokerId, Offset, PartitionId, TopicPartition, by_topic};

/// ListOffsets 7 is what every broker since Kafka 2.8 reads.
const LIST_OFFSETS_VERSION: i16 = 7;
/// OffsetFetch 8 is the first that asks for many groups at a time (KIP-709).
const OFFSET_FETCH_VERSION: i16 = 8;
/// Groups in one OffsetFetch: at 48 partitions with our metadata the answer is about 1 MB.
const GROUPS_PER_REQUEST: usize = 256;
/// `replica_id` of a client.
const NO_REPLICA: i32 = -1;
/// Offset that the protocol gives for "none": no commit, or no record at or after the time.
const NO_OFFSET: i64 = -1;

/// Which offset of a partition to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first that is still kept.
    Earliest,
    /// The one behind the last record that all in-sync replicas have: the end of the log.
    Latest,
    /// The first record with this timestamp or a later one, in milliseconds since the epoch; the end of the log when
    /// there is none.
    AtTimestamp(i64),
}

/// An offset of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset.
    pub offset: Offset,
    /// Timestamp of the record there, where one was looked up by time; else −1.
    pub timestamp_ms: i64,
}

/// A committed position of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to process.
    pub offset: Offset,
    /// What was committed with it; see [`crate::CommitMetadata`] for ours.
    pub metadata: String,
}

/// Offsets by partition, or what ails that partition.
pub type ListedOffsets = Vec<(TopicPartition, Result<ListedOffset, Error>)>;
/// The committed positions of a group; partitions without a commit are absent.
pub type CommittedOffsets = Vec<(TopicPartition, Committed)>;

impl Client {
    /// Looks up one offset of each partition, one request a leader, in the order of `partitions`.
    ///
    /// # Errors
    /// What kept the cluster from answering at all.
    pub async fn list_offsets(&self, partitions: &[TopicPartition], spec: OffsetSpec) -> Result<ListedOffsets, Error> {
        let mut listed = self.list_offsets_once(partitions, spec).await?;
        // Leaders that have moved since our metadata: look again, once. The rest is for the caller's next try.
        let moved: Vec<_> = listed.iter().filter(|(_, result)| result.as_ref().is_err_and(has_moved)).collect();
        if !moved.is_empty() {
            let moved: Vec<_> = moved.into_iter().map(|(partition, _)| partition.clone()).collect();
            self.topics(&topic_names(&moved)).await?;
            listed.extend(self.list_offsets_once(&moved, spec).await?);
        }
        let mut listed = listed.into_iter().collect::<HashMap<_, _>>();
        let ends = self.ends_where_none(&listed, spec).await?;
        listed.extend(ends);
        Ok(partitions.iter().filter_map(|partition| listed.remove_entry(partition)).collect())
    }

    /// The committed positions of a group, of `partitions` or of all that it has.
    ///
    /// # Errors
    /// What kept the cluster from answering, or its refusal; transient while the group's coordinator moves.
    pub async fn committed_offsets(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<CommittedOffsets, Error> {
        let broker = coordinator::find(self, group).await?;
        let mut answered = self.fetch_committed(broker, &[group], partitions).await?;
        answered.remove(group).unwrap_or_else(|| Ok(Vec::new()))
    }

    /// All committed positions of several groups, one request for many groups of a coordinator.
    ///
    /// # Errors
    /// What kept the cluster from answering at all; what ails one group stands in its place.
    pub async fn committed_offsets_of(
        &self,
        groups: &[&str],
    ) -> Result<BTreeMap<String, Result<CommittedOffsets, Error>>, Error> {
        let (by_broker, failed) = coordinator::group_by_coordinator(self, groups).await?;
        let requests = by_broker
            .iter()
            .flat_map(|(broker, groups)| groups.chunks(GROUPS_PER_REQUEST).map(|some| (*broker, some)))
            .map(async |(broker, some)| match self.fetch_committed(broker, some, None).await {
                Ok(answered) => answered,
                Err(error) => some.iter().map(|group| ((*group).to_owned(), Err(error.clone()))).collect(),
            });
        let mut answered: BTreeMap<_, _> = join_all(requests).await.into_iter().flatten().collect();
        answered.extend(failed.into_iter().map(|(group, error)| (group.to_owned(), Err(error))));
        Ok(answered)
    }

    async fn list_offsets_once(&self, partitions: &[TopicPartition], spec: OffsetSpec) -> Result<ListedOffsets, Error> {
        let (by_leader, mut listed) = self.by_leader(partitions).await?;
        let requests = by_leader.iter().map(|(leader, partitions)| self.ask_leader(*leader, partitions, spec));
        listed.extend(join_all(requests).await.into_iter().flatten());
        Ok(listed)
    }

    /// The partitions by leader, and those that have none or whose topic is not there.
    pub(crate) async fn by_leader(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<(HashMap<BrokerId, Vec<TopicPartition>>, ListedOffsets), Error> {
        let unknown: Vec<_> = partitions.iter().filter(|one| self.known_leader(one).is_none()).cloned().collect();
        if !unknown.is_empty() {
            self.topics(&topic_names(&unknown)).await?;
        }
        let mut by_leader: HashMap<_, Vec<_>> = HashMap::new();
        let mut failed = Vec::new();
        for partition in partitions {
            match self.known_leader(partition) {
                Some(leader) => by_leader.entry(leader).or_default().push(partition.clone()),
                None => failed.push((partition.clone(), Err(self.leaderless(partition)))),
            }
        }
        Ok((by_leader, failed))
    }

    fn leaderless(&self, partition: &TopicPartition) -> Error {
        match self.known_topic(&partition.topic) {
            Some(_) => Error::NoLeader(partition.to_string()),
            None => Error::UnknownTopic(partition.topic.to_string()),
        }
    }

    async fn ask_leader(&self, leader: BrokerId, partitions: &[TopicPartition], spec: OffsetSpec) -> ListedOffsets {
        let request = list_request(partitions, spec);
        match self.call(leader, Lane::Short, LIST_OFFSETS_VERSION, &request).await {
            Ok(answer) => read_listed(&answer, partitions),
            Err(error) => partitions.iter().map(|partition| (partition.clone(), Err(error.clone()))).collect(),
        }
    }

    /// A time behind the last record has no offset: then the end of the log is meant.
    async fn ends_where_none(
        &self,
        listed: &HashMap<TopicPartition, Result<ListedOffset, Error>>,
        spec: OffsetSpec,
    ) -> Result<ListedOffsets, Error> {
        let is_none = |result: &Result<ListedOffset, Error>| {
            matches!(spec, OffsetSpec::AtTimestamp(_)) && result.as_ref().is_ok_and(|found| found.offset.0 == NO_OFFSET)
        };
        let none: Vec<_> =
            listed.iter().filter(|(_, result)| is_none(result)).map(|(partition, _)| partition.clone()).collect();
        if none.is_empty() { Ok(Vec::new()) } else { self.list_offsets_once(&none, OffsetSpec::Latest).await }
    }

    pub(crate) async fn fetch_committed(
        &self,
        broker: BrokerId,
        groups: &[&str],
        partitions: Option<&[TopicPartition]>,
    ) -> Result<HashMap<String, Result<CommittedOffsets, Error>>, Error> {
        let groups = groups.iter().map(|group| {
            OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(StrBytes::from_string((*group).to_owned())))
                .with_topics(partitions.map(fetch_topics))
        });
        let request = OffsetFetchRequest::default().with_groups(groups.collect());
        let answer = self.call(broker, Lane::Short, OFFSET_FETCH_VERSION, &request).await?;
        Ok(answer.groups.iter().map(|group| (group.group_id.to_string(), read_committed(group))).collect())
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn topic_names(partitions: &[TopicPartition]) -> Vec<&str> {
    by_topic(partitions).into_keys().collect()
}

fn has_moved(error: &Error) -> bool {
    match error {
        Error::Refused { code, .. } => matches!(
            code,
            ResponseError::NotLeaderOrFollower
                | ResponseError::UnknownTopicOrPartition
                | ResponseError::LeaderNotAvailable
                | ResponseError::FencedLeaderEpoch
        ),
        Error::Connect { .. } | Error::Disconnected { .. } | Error::UnknownBroker(_) => true,
        _ => false,
    }
}

fn list_request(partitions: &[TopicPartition], spec: OffsetSpec) -> ListOffsetsRequest {
    let timestamp = match spec {
        OffsetSpec::Latest => -1,
        OffsetSpec::Earliest => -2,
        OffsetSpec::AtTimestamp(ms) => ms.max(0),
    };
    let topics = by_topic(partitions).into_iter().map(|(topic, numbers)| {
        let partitions = numbers
            .into_iter()
            .map(|number| ListOffsetsPartition::default().with_partition_index(number).with_timestamp(timestamp));
        ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect())
    });
    ListOffsetsRequest::default().with_replica_id(NO_REPLICA.into()).with_topics(topics.collect())
}

fn read_listed(answer: &ListOffsetsResponse, asked: &[TopicPartition]) -> ListedOffsets {
    let mut by_place = HashMap::new();
    for topic in &answer.topics {
        for partition in &topic.partitions {
            by_place.insert((topic.name.as_str(), partition.partition_index), partition);
        }
    }
    let read = |partition: &TopicPartition| match by_place.get(&(&*partition.topic, partition.partition.0)) {
        Some(found) => read_offset(partition, found),
        None => Err(Error::Config(format!("the answer to ListOffsets leaves {partition} out"))),
    };
    asked.iter().map(|partition| (partition.clone(), read(partition))).collect()
}

fn read_offset(partition: &TopicPartition, found: &ListOffsetsPartitionResponse) -> Result<ListedOffset, Error> {
    match found.error_code.err() {
        None => Ok(ListedOffset { offset: Offset(found.offset), timestamp_ms: found.timestamp }),
        Some(code) => Err(Error::refused("ListOffsets", partition.to_string(), code)),
    }
}

fn fetch_topics(partitions: &[TopicPartition]) -> Vec<OffsetFetchRequestTopics> {
    let topics = by_topic(partitions).into_iter();
    topics
        .map(|(topic, numbers)| {
            OffsetFetchRequestTopics::default().with_name(topic_name(topic)).with_partition_indexes(numbers)
        })
        .collect()
}

fn read_committed(group: &OffsetFetchResponseGroup) -> Result<CommittedOffsets, Error> {
    let refused = |code| Error::refused("OffsetFetch", format!("group {}", group.group_id.as_str()), code);
    if let Some(code) = group.error_code.err() {
        return Err(refused(code));
    }
    let mut committed = Vec::new();
    for topic in &group.topics {
        let name: std::sync::Arc<str> = topic.name.as_str().into();
        for found in &topic.partitions {
            if let Some(code) = found.error_code.err() {
                return Err(refused(code));
            }
            if found.committed_offset != NO_OFFSET {
                let metadata = found.metadata.as_ref().map(ToString::to_string).unwrap_or_default();
                let position = Committed { offset: Offset(found.committed_offset), metadata };
                let partition = PartitionId(found.partition_index);
                committed.push((TopicPartition::new(std::sync::Arc::clone(&name), partition), position));
            }
        }
    }
    Ok(committed)
}
