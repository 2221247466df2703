//! Groups seen from outside: which there are, who is in them, their offsets altered, themselves deleted.

use std::collections::{BTreeMap, HashMap};

use bytes::{Buf, Bytes};
use futures::future::{join_all, try_join_all};
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest,
    OffsetCommitRequest,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use crate::cluster::{Client, Lane};
use crate::coordinator;
use crate::error::Error;
use crate::lag::topic_name;
use crate::types::{BrokerId, Offset, PartitionId, TopicPartition};

/// ListGroups 5 tells the two group protocols apart (KIP-848); older brokers answer without that.
const LIST_GROUPS_VERSION: i16 = 5;
const DESCRIBE_GROUPS_VERSION: i16 = 5;
/// OffsetCommit 8 takes topic names and knows no member epochs: all that a group without members needs.
const OFFSET_COMMIT_VERSION: i16 = 8;
const DELETE_GROUPS_VERSION: i16 = 2;
/// Generation of a commit from outside the group; the coordinator takes it when the group has no members.
const NO_GENERATION: i32 = -1;
const GROUPS_PER_REQUEST: usize = 256;

/// One line of the list of groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    /// Its id.
    pub group: String,
    /// `consumer` for consumer groups, empty for a group that only ever committed from outside.
    pub protocol_type: String,
    /// Kafka's name of its state (`Stable`, `Empty`, …); empty from brokers before 2.6.
    pub state: String,
    /// `classic`, `consumer` (KIP-848) or another kind of group; empty from brokers before 3.8.
    pub kind: String,
}

/// A group as its coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its id.
    pub group: String,
    /// Kafka's name of its state; `Dead` for one that is not there or of another protocol.
    pub state: String,
    /// Who is in it.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id within the group.
    pub member_id: String,
    /// Name that the client gave itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// What is assigned to it.
    pub partitions: Vec<TopicPartition>,
}

impl Client {
    /// All groups that we may see, asked of every broker, in the order of their ids.
    ///
    /// # Errors
    /// What kept a broker from answering: a list that leaves out the groups of one broker would look complete.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        let brokers = self.broker_ids().await?;
        let lists = try_join_all(brokers.into_iter().map(|broker| self.list_groups_of(broker))).await?;
        let mut groups = lists.concat();
        groups.sort();
        Ok(groups)
    }

    /// Describes groups of the classic protocol, in no particular order.
    ///
    /// # Errors
    /// What kept the cluster from answering, or the first refusal.
    pub async fn describe_groups(&self, groups: &[&str]) -> Result<Vec<GroupDescription>, Error> {
        let (by_broker, failed) = coordinator::group_by_coordinator(self, groups).await?;
        if let Some((_, error)) = failed.into_iter().next() {
            return Err(error);
        }
        let requests = by_broker
            .iter()
            .flat_map(|(broker, groups)| groups.chunks(GROUPS_PER_REQUEST).map(|some| (*broker, some)))
            .map(|(broker, some)| self.describe_groups_of(broker, some));
        join_all(requests).await.into_iter().collect::<Result<Vec<_>, _>>().map(|lists| lists.concat())
    }

    /// Sets the committed positions of a group that has no members.
    ///
    /// # Errors
    /// [`Error::Config`] when the group has members; else what kept the cluster from answering, or its first refusal.
    pub async fn alter_offsets(
        &self,
        group: &str,
        positions: &[(TopicPartition, Offset, String)],
    ) -> Result<(), Error> {
        let broker = coordinator::find(self, group).await?;
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(NO_GENERATION)
            .with_topics(commit_topics(
                positions.iter().map(|(at, offset, metadata)| (at, *offset, metadata.as_str())),
            ));
        let answer = self.call(broker, Lane::Short, OFFSET_COMMIT_VERSION, &request).await?;
        let mut codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code);
        codes.find_map(ParseResponseErrorCode::err).map_or(Ok(()), |code| Err(not_altered(group, code)))
    }

    /// Deletes a group that has no members, with its committed positions.
    ///
    /// # Errors
    /// What kept the cluster from answering, or its refusal (`NonEmptyGroup`, `GroupIdNotFound`).
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let broker = coordinator::find(self, group).await?;
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
        let answer = self.call(broker, Lane::Short, DELETE_GROUPS_VERSION, &request).await?;
        let code = answer.results.first().and_then(|result| result.error_code.err());
        code.map_or(Ok(()), |code| Err(Error::refused("DeleteGroups", format!("group {group}"), code)))
    }

    async fn list_groups_of(&self, broker: BrokerId) -> Result<Vec<GroupListing>, Error> {
        let answer = self.call(broker, Lane::Short, LIST_GROUPS_VERSION, &ListGroupsRequest::default()).await?;
        if let Some(code) = answer.error_code.err() {
            return Err(Error::refused("ListGroups", format!("broker {broker}"), code));
        }
        let groups = answer.groups.iter().map(|group| GroupListing {
            group: group.group_id.to_string(),
            protocol_type: group.protocol_type.to_string(),
            state: group.group_state.to_string(),
            kind: group.group_type.to_string(),
        });
        Ok(groups.collect())
    }

    async fn describe_groups_of(&self, broker: BrokerId, groups: &[&str]) -> Result<Vec<GroupDescription>, Error> {
        self.describe_groups_each(broker, groups).await?.into_values().collect()
    }

    /// Describes groups that `broker` coordinates; what ails one group stands in its place.
    pub(crate) async fn describe_groups_each(
        &self,
        broker: BrokerId,
        groups: &[&str],
    ) -> Result<HashMap<String, Result<GroupDescription, Error>>, Error> {
        let ids = groups.iter().map(|group| group_id(group)).collect();
        let request = DescribeGroupsRequest::default().with_groups(ids);
        let answer = self.call(broker, Lane::Short, DESCRIBE_GROUPS_VERSION, &request).await?;
        Ok(answer.groups.iter().map(|group| (group.group_id.to_string(), read_group(group))).collect())
    }
}

pub(crate) fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}

/// The body of an OffsetCommit: positions and what is stored beside them, by topic.
pub(crate) fn commit_topics<'p>(
    positions: impl IntoIterator<Item = (&'p TopicPartition, Offset, &'p str)>,
) -> Vec<OffsetCommitRequestTopic> {
    let mut topics: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (partition, offset, metadata) in positions {
        let position = OffsetCommitRequestPartition::default()
            .with_partition_index(partition.partition.0)
            .with_committed_offset(offset.0)
            .with_committed_metadata(Some(StrBytes::from_string(metadata.to_owned())));
        topics.entry(&partition.topic).or_default().push(position);
    }
    let topics = topics.into_iter();
    topics
        .map(|(topic, positions)| {
            OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(positions)
        })
        .collect()
}

fn not_altered(group: &str, code: ResponseError) -> Error {
    match code {
        ResponseError::UnknownMemberId | ResponseError::IllegalGeneration | ResponseError::RebalanceInProgress => {
            Error::Config(format!("the offsets of group {group} cannot be set while it has members: stop them first"))
        }
        code => Error::refused("OffsetCommit", format!("group {group}"), code),
    }
}

fn read_group(group: &DescribedGroup) -> Result<GroupDescription, Error> {
    if let Some(code) = group.error_code.err() {
        return Err(Error::refused("DescribeGroups", format!("group {}", group.group_id.as_str()), code));
    }
    Ok(GroupDescription {
        group: group.group_id.to_string(),
        state: group.group_state.to_string(),
        members: group.members.iter().map(read_member).collect(),
    })
}

fn read_member(member: &DescribedGroupMember) -> GroupMember {
    GroupMember {
        member_id: member.member_id.to_string(),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        partitions: read_assignment(member.member_assignment.clone()).unwrap_or_default(),
    }
}

/// Partitions of a member; `None` when the assignment is not that of a consumer.
fn read_assignment(mut bytes: Bytes) -> Option<Vec<TopicPartition>> {
    let version = bytes.try_get_i16().ok()?;
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version.clamp(0, 3)).ok()?;
    let mut partitions = Vec::new();
    for topic in &assignment.assigned_partitions {
        let name: std::sync::Arc<str> = topic.topic.as_str().into();
        let numbers = topic.partitions.iter().map(|number| PartitionId(*number));
        partitions.extend(numbers.map(|number| TopicPartition::new(std::sync::Arc::clone(&name), number)));
    }
    Some(partitions)
}
