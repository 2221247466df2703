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

/// Which of the two protocols a group speaks; each has a request of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Classic,
    /// KIP-848.
    Consumer,
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
        self.ask(groups, async |broker, some| self.client.fetch_committed(broker, some, None).await).await
    }

    /// The members of groups of the classic protocol; what ails one group stands in its place.
    ///
    /// # Errors
    /// What kept the cluster from answering at all.
    pub async fn describe_classic(&self, groups: &[&str]) -> Result<OfGroups<GroupDescription>, Error> {
        self.describe(groups, Protocol::Classic).await
    }

    /// The members of groups of the consumer protocol (KIP-848); what ails one group stands in its place.
    ///
    /// # Errors
    /// What kept the cluster from answering at all.
    pub async fn describe_consumer(&self, groups: &[&str]) -> Result<OfGroups<GroupDescription>, Error> {
        self.describe(groups, Protocol::Consumer).await
    }

    async fn describe(&self, groups: &[&str], protocol: Protocol) -> Result<OfGroups<GroupDescription>, Error> {
        self.ask(groups, async |broker, some| match protocol {
            Protocol::Classic => self.client.describe_groups_each(broker, some).await,
            Protocol::Consumer => self.describe_consumer_of(broker, some).await,
        })
        .await
    }

    /// Puts a question about groups to their coordinators; once more to the new ones of groups that have moved.
    async fn ask<T>(
        &self,
        groups: &[&str],
        question: impl AsyncFn(BrokerId, &[&str]) -> Result<HashMap<String, Result<T, Error>>, Error>,
    ) -> Result<OfGroups<T>, Error> {
        let mut answered = self.ask_once(groups, &question).await?;
        let moved: Vec<_> = groups
            .iter()
            .copied()
            .filter(|group| matches!(answered.get(*group), Some(Err(error)) if has_moved(error)))
            .collect();
        if !moved.is_empty() {
            self.coordinators().retain(|group, _| !moved.contains(&group.as_str()));
            answered.extend(self.ask_once(&moved, &question).await?);
        }
        Ok(answered)
    }

    async fn ask_once<T>(
        &self,
        groups: &[&str],
        question: &impl AsyncFn(BrokerId, &[&str]) -> Result<HashMap<String, Result<T, Error>>, Error>,
    ) -> Result<OfGroups<T>, Error> {
        let (by_broker, failed) = self.by_coordinator(groups).await?;
        let requests = by_broker
            .iter()
            .flat_map(|(broker, groups)| groups.chunks(GROUPS_PER_REQUEST).map(|some| (*broker, some)))
            .map(async |(broker, some)| match question(broker, some).await {
                Ok(answered) => answered,
                Err(error) => some.iter().map(|group| ((*group).to_owned(), Err(error.clone()))).collect(),
            });
        let mut answered: BTreeMap<_, _> = join_all(requests).await.into_iter().flatten().collect();
        answered.extend(failed.into_iter().map(|(group, error)| (group.to_owned(), Err(error))));
        Ok(answered)
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

    async fn describe_consumer_of(
        &self,
        broker: BrokerId,
        groups: &[&str],
    ) -> Result<HashMap<String, Result<GroupDescription, Error>>, Error> {
        let ids = groups.iter().map(|group| group_id(group)).collect();
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(ids);
        let answer = self.client.call(broker, Lane::Short, CONSUMER_GROUP_DESCRIBE_VERSION, &request).await?;
        Ok(answer.groups.iter().map(|group| (group.group_id.to_string(), read_group(group))).collect())
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
