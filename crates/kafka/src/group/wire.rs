//! The wire calls of a group member, each one request to its coordinator: what goes out, and what came back, decoded.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as HeldTopic;
use kafka_protocol::messages::consumer_group_heartbeat_response::TopicPartitions as AssignedTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponse;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest,
    SyncGroupRequest,
};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::time::Instant;

use super::assignor::{Assignment, Assignor};
use super::claim::Claim;
use super::codec::{self, Subscription};
use super::consumer_protocol::Report;
use super::machine::{Beat, JoinAnswer, Joined, Leads};
use crate::cluster::{Client, Lane, TopicMetadata};
use crate::consumer::Commit;
use crate::coordinator;
use crate::error::Error;
use crate::group_admin::commit_topics;
use crate::lag::topic_name;
use crate::types::{BrokerId, PartitionId, TopicPartition, by_topic};

/// JoinGroup 9 tells the leader that came back to leave the assignment as it is (KIP-814).
const JOIN_VERSION: i16 = 9;
const SYNC_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;
const LEAVE_VERSION: i16 = 5;
const CONSUMER_HEARTBEAT_VERSION: i16 = 1;
/// OffsetCommit 9 takes member epochs (KIP-848), and is the last version before topic ids took the place of names.
const OFFSET_COMMIT_VERSION: i16 = 9;
const PROTOCOL_TYPE: &str = "consumer";
/// Leaving is a courtesy to the others: the session time-out does the same, later.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A coordinator that waits for the other members answers a join this much later than the rebalance time-out.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// Who we are in the group: what a commit must carry to be taken.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    /// Unknown before the first look-up, and again once it has gone away or moved.
    pub(crate) coordinator: Option<BrokerId>,
    pub(crate) member_id: StrBytes,
    /// Generation (classic protocol) or member epoch (consumer protocol).
    pub(crate) generation: i32,
    /// When the last commit was taken: records are flowing.
    pub(crate) committed_at: Option<Instant>,
}

/// The way to the coordinator of one member's group; clones share what is known of it.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) client: Client,
    pub(crate) group: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) lane: usize,
    pub(crate) membership: Arc<Mutex<Membership>>,
}

/// What a member of the classic protocol says when it joins.
pub(crate) struct JoinTerms {
    pub(crate) member_id: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// The assignors offered, the preferred one first, each with its subscription.
    pub(crate) offers: Vec<(Assignor, Subscription)>,
}

/// What a member of the consumer protocol says when it says everything.
pub(crate) struct HeartbeatTerms {
    pub(crate) member_id: String,
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) remote_assignor: Option<String>,
    pub(crate) limit: Duration,
}

impl Wire {
    /// Joins the group. Answered when the whole group is there.
    pub(crate) async fn join(&self, terms: JoinTerms) -> Result<JoinAnswer, Error> {
        let mut request = JoinGroupRequest::default();
        request.group_id = self.group_id();
        request.group_instance_id = self.instance_id();
        request.session_timeout_ms = millis(terms.session_timeout);
        request.rebalance_timeout_ms = millis(terms.rebalance_timeout);
        request.member_id = StrBytes::from_string(terms.member_id);
        request.protocol_type = StrBytes::from_static_str(PROTOCOL_TYPE);
        for (assignor, subscription) in &terms.offers {
            let mut protocol = JoinGroupRequestProtocol::default();
            protocol.name = StrBytes::from_static_str(assignor.name());
            protocol.metadata = codec::encode_subscription(subscription).map_err(|error| unreadable(&error))?;
            request.protocols.push(protocol);
        }
        let limit = terms.rebalance_timeout + JOIN_GRACE;
        let answer = self.call(Lane::Join(self.lane), JOIN_VERSION, &request, limit).await?;
        match answer.error_code.err() {
            None => joined(&answer).map(JoinAnswer::Joined),
            Some(ResponseError::MemberIdRequired) => Ok(JoinAnswer::TakeId(answer.member_id.to_string())),
            Some(code) => Err(self.refused("JoinGroup", code)),
        }
    }

    /// Gives the assignment out (the leader's) and returns our own part of it.
    pub(crate) async fn sync(
        &self,
        joined: &Joined,
        assignment: Assignment,
        limit: Duration,
    ) -> Result<BTreeSet<TopicPartition>, Error> {
        let mut request = SyncGroupRequest::default();
        request.group_id = self.group_id();
        request.group_instance_id = self.instance_id();
        request.generation_id = joined.generation;
        request.member_id = StrBytes::from_string(joined.member_id.clone());
        request.protocol_type = Some(StrBytes::from_static_str(PROTOCOL_TYPE));
        request.protocol_name = Some(StrBytes::from_string(joined.protocol.clone()));
        for (member, partitions) in assignment {
            let mut one = SyncGroupRequestAssignment::default();
            one.member_id = StrBytes::from_string(member);
            one.assignment = codec::encode_assignment(&partitions).map_err(|error| unreadable(&error))?;
            request.assignments.push(one);
        }
        let answer = self.call(Lane::Join(self.lane), SYNC_VERSION, &request, limit + JOIN_GRACE).await?;
        match answer.error_code.err() {
            None => {
                let assigned = codec::decode_assignment(answer.assignment).map_err(|error| unreadable(&error))?;
                Ok(assigned.into_iter().collect())
            }
            Some(code) => Err(self.refused("SyncGroup", code)),
        }
    }

    /// Says that the member lives.
    pub(crate) async fn heartbeat(&self, limit: Duration) -> Result<Beat, Error> {
        let mut request = HeartbeatRequest::default();
        request.group_id = self.group_id();
        request.group_instance_id = self.instance_id();
        self.with_membership(|membership| {
            request.generation_id = membership.generation;
            request.member_id = membership.member_id.clone();
        });
        let answer = self.call(Lane::Member(self.lane), HEARTBEAT_VERSION, &request, limit).await?;
        match answer.error_code.err() {
            None => Ok(Beat::default()),
            Some(code) => Err(self.refused("Heartbeat", code)),
        }
    }

    /// Commits in the generation that the member is in at the moment.
    pub(crate) async fn commit(&self, commits: &[Commit], claim: &Claim) -> Result<(), Error> {
        let mut request = OffsetCommitRequest::default();
        request.group_id = self.group_id();
        request.group_instance_id = self.instance_id();
        self.with_membership(|membership| {
            request.generation_id_or_member_epoch = membership.generation;
            request.member_id = membership.member_id.clone();
        });
        // Asked after the generation was read: a generation that came after a loss never carries positions from before it.
        if !claim.holds() {
            return Err(self.refused("OffsetCommit", ResponseError::UnknownMemberId));
        }
        request.topics =
            commit_topics(commits.iter().map(|commit| (&commit.partition, commit.offset, commit.metadata.as_str())));
        let limit = self.client.config().request_timeout;
        let answer = self.call(Lane::Member(self.lane), OFFSET_COMMIT_VERSION, &request, limit).await?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        match partitions.filter_map(|partition| partition.error_code.err()).next() {
            None => {
                self.with_membership(|membership| membership.committed_at = Some(Instant::now()));
                Ok(())
            }
            Some(code) => Err(self.refused("OffsetCommit", code)),
        }
    }

    /// Says goodbye. A failure is only told: the session time-out does the same, later.
    pub(crate) async fn leave(&self) {
        let mut member = MemberIdentity::default();
        member.member_id = self.with_membership(|membership| membership.member_id.clone());
        let mut request = LeaveGroupRequest::default();
        request.group_id = self.group_id();
        request.members = vec![member];
        let left = self.call(Lane::Member(self.lane), LEAVE_VERSION, &request, LEAVE_TIMEOUT).await;
        self.after_leaving(left.map(drop));
    }

    /// The one exchange of the consumer protocol.
    pub(crate) async fn consumer_heartbeat(&self, terms: &HeartbeatTerms, report: Report) -> Result<Beat, Error> {
        let request = self.consumer_heartbeat_request(terms, report).await?;
        let lane = Lane::Member(self.lane);
        let answer = self.call(lane, CONSUMER_HEARTBEAT_VERSION, &request, terms.limit).await?;
        if let Some(code) = answer.error_code.err() {
            return Err(self.refused("ConsumerGroupHeartbeat", code));
        }
        let assigned = match answer.assignment {
            Some(assignment) => Some(self.with_names(&assignment.topic_partitions, &terms.topics).await?),
            None => None,
        };
        let interval = u64::try_from(answer.heartbeat_interval_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        Ok(Beat { epoch: answer.member_epoch, assigned, interval })
    }

    /// Says goodbye by the consumer protocol; as [`Wire::leave`].
    pub(crate) async fn consumer_leave(&self, terms: &HeartbeatTerms, report: Report) {
        let left = tokio::time::timeout(LEAVE_TIMEOUT, self.consumer_heartbeat(terms, report)).await;
        let too_slow = |_| Error::Config(format!("no answer to the goodbye within {} ms", LEAVE_TIMEOUT.as_millis()));
        self.after_leaving(left.map_err(too_slow).and_then(|left| left.map(drop)));
    }

    fn after_leaving(&self, left: Result<(), Error>) {
        if let Err(error) = left {
            tracing::warn!(group = %self.group, %error, "left without a word: the session time-out will tell");
        }
    }

    async fn consumer_heartbeat_request(
        &self,
        terms: &HeartbeatTerms,
        report: Report,
    ) -> Result<ConsumerGroupHeartbeatRequest, Error> {
        let mut request = ConsumerGroupHeartbeatRequest::default();
        request.group_id = self.group_id();
        request.member_id = StrBytes::from_string(terms.member_id.clone());
        request.member_epoch = report.epoch;
        request.instance_id = self.instance_id();
        request.rebalance_timeout_ms = -1;
        if report.tells_all {
            request.rebalance_timeout_ms = millis(terms.rebalance_timeout);
            request.server_assignor = terms.remote_assignor.clone().map(StrBytes::from_string);
            request.subscribed_topic_names = Some(terms.topics.iter().map(|topic| topic_name(topic)).collect());
        }
        if let Some(owned) = report.owned {
            request.topic_partitions = Some(self.with_ids(&owned).await?);
        }
        Ok(request)
    }

    async fn with_ids(&self, owned: &BTreeSet<TopicPartition>) -> Result<Vec<HeldTopic>, Error> {
        let topics = by_topic(owned);
        let mut held = Vec::with_capacity(topics.len());
        for (topic, partitions) in topics {
            let known = match self.client.known_topic(topic) {
                Some(known) => known,
                None => self.client.topic(topic).await?,
            };
            let mut one = HeldTopic::default();
            one.topic_id = uuid::Uuid::from_bytes(known.topic_id);
            one.partitions = partitions;
            held.push(one);
        }
        Ok(held)
    }

    async fn with_names(
        &self,
        assigned: &[AssignedTopic],
        topics: &[Arc<str>],
    ) -> Result<BTreeSet<TopicPartition>, Error> {
        let is_known = |topics: &[Arc<TopicMetadata>]| {
            assigned.iter().all(|one| topics.iter().any(|topic| topic.topic_id == *one.topic_id.as_bytes()))
        };
        let mut known: Vec<_> = topics.iter().filter_map(|topic| self.client.known_topic(topic)).collect();
        if !is_known(&known) {
            let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
            known = self.client.topics(&names).await?.into_iter().flatten().collect();
        }
        let named = assigned.iter().flat_map(|one| {
            // A topic that we do not see any more has been deleted: there is nothing to read in it.
            let topic = known.iter().find(|topic| topic.topic_id == *one.topic_id.as_bytes());
            let partitions = one.partitions.iter().filter_map(move |id| {
                topic.map(|topic| TopicPartition::new(Arc::clone(&topic.name), PartitionId(*id)))
            });
            partitions.collect::<Vec<_>>()
        });
        Ok(named.collect())
    }

    async fn call<R: Request>(
        &self,
        lane: Lane,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, Error> {
        let coordinator = self.coordinator().await?;
        let answer = self.client.call_within(coordinator, lane, version, request, limit).await;
        if answer.is_err() {
            self.forget_coordinator();
        }
        answer
    }

    async fn coordinator(&self) -> Result<BrokerId, Error> {
        if let Some(known) = self.with_membership(|membership| membership.coordinator) {
            return Ok(known);
        }
        let found = coordinator::find(&self.client, &self.group).await?;
        self.with_membership(|membership| membership.coordinator = Some(found));
        Ok(found)
    }

    fn refused(&self, api: &'static str, code: ResponseError) -> Error {
        if matches!(code, ResponseError::NotCoordinator | ResponseError::CoordinatorNotAvailable) {
            self.forget_coordinator();
        }
        Error::refused(api, format!("group {} (--group)", self.group), code)
    }

    fn forget_coordinator(&self) {
        self.with_membership(|membership| membership.coordinator = None);
    }

    pub(crate) fn with_membership<T>(&self, act: impl FnOnce(&mut Membership) -> T) -> T {
        act(&mut self.membership.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group.to_string()))
    }

    fn instance_id(&self) -> Option<StrBytes> {
        self.instance_id.as_ref().map(|id| StrBytes::from_string(id.to_string()))
    }
}

fn joined(answer: &JoinGroupResponse) -> Result<Joined, Error> {
    let protocol = answer.protocol_name.clone().unwrap_or_default().to_string();
    let leads = if answer.leader == answer.member_id { Some(leads(answer, &protocol)?) } else { None };
    Ok(Joined { member_id: answer.member_id.to_string(), generation: answer.generation_id, protocol, leads })
}

fn leads(answer: &JoinGroupResponse, protocol: &str) -> Result<Leads, Error> {
    let assignor = protocol.parse::<Assignor>().map_err(|_| {
        Error::Config(format!("the group chose the assignor {protocol}, which this member does not offer"))
    })?;
    let members = answer.members.iter().map(|member| {
        let mut subscription =
            codec::decode_subscription(member.metadata.clone()).map_err(|error| unreadable(&error))?;
        subscription.instance_id = member.group_instance_id.as_ref().map(|id| Arc::from(id.as_str()));
        Ok((member.member_id.to_string(), subscription))
    });
    let members = members.collect::<Result<_, Error>>()?;
    Ok(Leads { assignor, members, keeps_assignment: answer.skip_assignment })
}

fn unreadable(error: &codec::Malformed) -> Error {
    Error::Config(error.to_string())
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// When an exchange began, beside its answer.
pub(crate) async fn timed<F: Future>(exchange: F) -> (Instant, F::Output) {
    let begun = Instant::now();
    (begun, exchange.await)
}
