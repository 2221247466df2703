//! Groups watched from outside, again and again: which there are, their commits and members, in as few requests as the
//! protocol allows.
//!
//! A coordinator stays where it is until its broker goes, so it is asked for once; whatever it then refuses or leaves
//! unanswered is looked up anew the next time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::ConsumerGroupDescribeRequest;
use kafka_protocol::messages::consumer_group_describe_response::{DescribedGroup, Member};

use crate::cluster::{Client, Lane};
use crate::coordinator;
use crate::error::Error;
use crate::group_admin::{GroupDescription, GroupListing, GroupMember, group_id};
use crate::lag::CommittedOffsets;
use crate::types::{BrokerId, PartitionId, TopicPartition};

/// ConsumerGroupDescribe 0 is the first (KIP-848); later ones add what is not read here.
const CONSUMER_GROUP_DESCRIBE_VERSION: i16 = 0;
/// Groups in one request: with 2,000 partitions each, an answer of some 5 MB.
const GROUPS_PER_REQUEST: usize = 64;

/// What was read of each group, or what ails it.
pub type OfGroups<T> = BTreeMap<String, Result<T, Error>>;

/// Watches the groups of a cluster.
pub struct GroupWatch {
    client: Client,
    coordinators: Mutex<HashMap<String, BrokerId>>,
}

type Answers<T> = HashMap<String, Result<T, Error>>;

/// A question about many groups that one broker coordinates.
trait Question {
    type Answer;

    fn put(
        &self,
        client: &Client,
        broker: BrokerId,
        groups: &[&str],
    ) -> impl Future<Output = Result<Answers<Self::Answer>, Error>> + Send;
}

struct Commits;

impl Question for Commits {
    type Answer = CommittedOffsets;

    async fn put(&self, client: &Client, broker: BrokerId, groups: &[&str]) -> Result<Answers<Self::Answer>, Error> {
        client.fetch_committed(broker, groups, None).await
    }
}

struct ClassicMembers;

impl Question for ClassicMembers {
    type Answer = GroupDescription;

    async fn put(&self, client: &Client, broker: BrokerId, groups: &[&str]) -> Result<Answers<Self::Answer>, Error> {
        client.describe_groups_each(broker, groups).await
    }
}

struct ConsumerMembers;

impl Question for ConsumerMembers {
    type Answer = GroupDescription;

    async fn put(&self, client: &Client, broker: BrokerId, groups: &[&str]) -> Result<Answers<Self::Answer>, Error> {
        let ids = groups.iter().map(|group| group_id(group)).collect();
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(ids);
        let answer = client.call(broker, Lane::Short, CONSUMER_GROUP_DESCRIBE_VERSION, &request).await?;
        Ok(answer.groups.iter().map(|group| (group.group_id.to_string(), read_group(group))).collect())
    }
}

impl GroupWatch {
    /// Watches the groups of the cluster of `client`.
    pub fn new(client: Client) -> Self {
        Self { client, coordinators: Mutex::default() }
    }

    /// All groups that we may see, in the order of their ids.
    ///
    /// # Errors
    /// What kept a broker from answering: a list that leaves out the groups of one broker would look complete.
    pub async fn list(&self) -> Result<Vec<GroupListing>, Error> {
        let listings = self.client.list_groups().await?;
        let mut coordinators = self.coordinators();
        if coordinators.len() > 2 * listings.len() {
            coordinators.retain(|group, _| listings.binary_search_by(|one| one.group.cmp(group)).is_ok());
        }
        Ok(listings)
    }

    /// All committed positions of `groups`; what ails one group stands in its place.
    ///
    /// # Errors
    /// What kept the cluster from answering at all.
    pub async fn committed(&self, groups: &[&str]) -> Result<OfGroups<CommittedOffsets>, Error> {
        self.ask(groups, &Commits).await
    }

    /// The members of groups of the classic protocol; what ails one group stands in its place.
    ///
    /// # Errors
    /// What kept the cluster from answering at all.
    pub async fn describe_classic(&self, groups: &[&str]) -> Result<OfGroups<GroupDescription>, Error> {
        self.ask(groups, &ClassicMembers).await
    }

    /// The members of groups of the consumer protocol (KIP-848); what ails one group stands in its place.
    ///
    /// # Errors
    /// What kept the cluster from answering at all.
    pub async fn describe_consumer(&self, groups: &[&str]) -> Result<OfGroups<GroupDescription>, Error> {
        self.ask(groups, &ConsumerMembers).await
    }

    /// Puts a question about groups to their coordinators; once more to the new ones of groups that have moved.
    async fn ask<Q: Question>(&self, groups: &[&str], question: &Q) -> Result<OfGroups<Q::Answer>, Error> {
        let mut answered = self.ask_once(groups, question).await?;
        let moved: Vec<_> = groups
            .iter()
            .copied()
            .filter(|group| matches!(answered.get(*group), Some(Err(error)) if has_moved(error)))
            .collect();
        if !moved.is_empty() {
            self.coordinators().retain(|group, _| !moved.contains(&group.as_str()));
            answered.extend(self.ask_once(&moved, question).await?);
        }
        Ok(answered)
    }

    async fn ask_once<Q: Question>(&self, groups: &[&str], question: &Q) -> Result<OfGroups<Q::Answer>, Error> {
        let (by_broker, failed) = self.by_coordinator(groups).await?;
        let mut requests = Vec::new();
        for (broker, groups) in &by_broker {
            requests.extend(groups.chunks(GROUPS_PER_REQUEST).map(|some| self.put(question, *broker, some)));
        }
        let mut answered: BTreeMap<_, _> = join_all(requests).await.into_iter().flatten().collect();
        answered.extend(failed.into_iter().map(|(group, error)| (group.to_owned(), Err(error))));
        Ok(answered)
    }

    async fn put<Q: Question>(&self, question: &Q, broker: BrokerId, groups: &[&str]) -> Answers<Q::Answer> {
        match question.put(&self.client, broker, groups).await {
            Ok(answered) => answered,
            Err(error) => groups.iter().map(|group| ((*group).to_owned(), Err(error.clone()))).collect(),
        }
    }

    async fn by_coordinator<'g>(
        &self,
        groups: &[&'g str],
    ) -> Result<(HashMap<BrokerId, Vec<&'g str>>, Vec<(&'g str, Error)>), Error> {
        let unknown: Vec<_> = {
            let known = self.coordinators();
            groups.iter().copied().filter(|group| !known.contains_key(*group)).collect()
        };
        let mut failed = Vec::new();
        if !unknown.is_empty() {
            let (found, not_found) = coordinator::group_by_coordinator(&self.client, &unknown).await?;
            let found =
                found.into_iter().flat_map(|(broker, groups)| groups.into_iter().map(move |group| (group, broker)));
            self.coordinators().extend(found.map(|(group, broker)| (group.to_owned(), broker)));
            failed = not_found;
        }
        let mut by_broker: HashMap<BrokerId, Vec<&str>> = HashMap::new();
        let known = self.coordinators();
        for group in groups {
            if let Some(broker) = known.get(*group) {
                by_broker.entry(*broker).or_default().push(group);
            }
        }
        Ok((by_broker, failed))
    }

    fn coordinators(&self) -> MutexGuard<'_, HashMap<String, BrokerId>> {
        self.coordinators.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_moved(error: &Error) -> bool {
    match error {
        Error::Refused { code, .. } => {
            matches!(code, ResponseError::NotCoordinator | ResponseError::CoordinatorNotAvailable)
        }
        Error::Connect { .. } | Error::Disconnected { .. } | Error::UnknownBroker(_) => true,
        _ => false,
    }
}

fn read_group(group: &DescribedGroup) -> Result<GroupDescription, Error> {
    if let Some(code) = group.error_code.err() {
        return Err(Error::refused("ConsumerGroupDescribe", format!("group {}", group.group_id.as_str()), code));
    }
    Ok(GroupDescription {
        group: group.group_id.to_string(),
        state: group.group_state.to_string(),
        members: group.members.iter().map(read_member).collect(),
    })
}

fn read_member(member: &Member) -> GroupMember {
    let mut partitions = Vec::new();
    for topic in &member.assignment.topic_partitions {
        let name: std::sync::Arc<str> = topic.topic_name.as_str().into();
        let numbers = topic.partitions.iter().map(|number| PartitionId(*number));
        partitions.extend(numbers.map(|number| TopicPartition::new(std::sync::Arc::clone(&name), number)));
    }
    GroupMember {
        member_id: member.member_id.to_string(),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        partitions,
    }
}
