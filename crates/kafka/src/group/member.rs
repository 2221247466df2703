//! One member of a group: joins, is assigned partitions, keeps its session alive, hands partitions back, leaves.
//!
//! ```text
//!             ┌──────────── rejoin: the group rebalances, or something was handed back ────────────┐
//!             ▼                                                                                    │
//!   find coordinator ──▶ join ──▶ sync ──▶ take the assignment ──▶ (hand back what moved) ──▶ stable, heartbeats
//!             ▲                                                                                    │
//!             └── back-off ◀── trouble: coordinator away, moved, busy; session over = partitions lost ◀┘
//! ```
//!
//! What stays assigned through a rebalance goes on without a pause. Partitions are *revoked* while the coordinator
//! still counts us in (finish, commit, answer), and *lost* when it does not, or when it has not heard from us for a
//! session time-out: somebody else may own them already. Heartbeats go on while a revocation or an offset look-up is
//! waited for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponse;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::assignor::{COOPERATIVE_STICKY, cooperative_sticky};
use super::codec::{self, Subscription};
use crate::cluster::{Client, Lane};
use crate::consumer::{AssignedPartition, ConsumerConfig, GroupEvent, Revocation};
use crate::coordinator;
use crate::error::{Error, ErrorKind};
use crate::lag::Committed;
use crate::types::{BrokerId, TopicPartition};

const JOIN_VERSION: i16 = 7;
const SYNC_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;
const LEAVE_VERSION: i16 = 4;
const PROTOCOL_TYPE: &str = "consumer";
const NO_GENERATION: i32 = -1;
/// Pause between attempts while the coordinator is away: short against the session time-out.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often the leader looks for new partitions of its topics.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Leaving is a courtesy to the others: the session time-out does the same, later.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A coordinator that waits for the other members answers a join this much later than the rebalance time-out.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// Who we are in the group: what a commit must carry to be taken.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) coordinator: Option<BrokerId>,
    pub(crate) member_id: StrBytes,
    pub(crate) generation: i32,
}

impl Default for Membership {
    fn default() -> Self {
        Self { coordinator: None, member_id: StrBytes::new(), generation: NO_GENERATION }
    }
}

/// What a member does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Join again: the group changes.
    Rejoin,
    /// The coordinator does not know us in this generation: all partitions are lost.
    LoseAll,
    /// Look for the coordinator again, after a pause.
    Retry,
    /// Leave.
    Close,
    /// Waiting does not help.
    GiveUp,
}

/// What to do about a code in the answer to a join, sync or heartbeat.
fn next_after(code: ResponseError) -> Next {
    use ResponseError as E;
    match code {
        E::RebalanceInProgress | E::MemberIdRequired => Next::Rejoin,
        E::UnknownMemberId | E::IllegalGeneration => Next::LoseAll,
        E::FencedInstanceId => Next::GiveUp,
        code if crate::error::is_transient(code) => Next::Retry,
        _ => Next::GiveUp,
    }
}

/// Why the cycle of a member was left.
#[derive(Debug)]
struct Interrupt {
    next: Next,
    cause: Option<Error>,
}

impl From<Next> for Interrupt {
    fn from(next: Next) -> Self {
        Self { next, cause: None }
    }
}

impl From<Error> for Interrupt {
    fn from(error: Error) -> Self {
        let next = match (error.code(), error.kind()) {
            (Some(code), _) => next_after(code),
            (None, ErrorKind::Transient) => Next::Retry,
            (None, ErrorKind::Fatal) => Next::GiveUp,
        };
        Self { next, cause: Some(error) }
    }
}

type Step<T> = Result<T, Interrupt>;

/// Runs one membership until it is closed.
pub(crate) struct MemberTask {
    client: Client,
    config: ConsumerConfig,
    events: mpsc::Sender<GroupEvent>,
    membership: Arc<Mutex<Membership>>,
    closing: CancellationToken,
    lane: usize,
    owned: BTreeSet<TopicPartition>,
    /// Generation in which `owned` was confirmed.
    owned_generation: i32,
    /// When the last exchange that the coordinator answered was begun.
    last_contact: Instant,
    /// The partition counts that the assignment of this generation rests on; only the leader has them.
    leading: Option<HashMap<Arc<str>, i32>>,
}

impl MemberTask {
    pub(crate) fn new(
        client: Client,
        config: ConsumerConfig,
        events: mpsc::Sender<GroupEvent>,
        membership: Arc<Mutex<Membership>>,
        closing: CancellationToken,
        lane: usize,
    ) -> Self {
        Self {
            client,
            config,
            events,
            membership,
            closing,
            lane,
            owned: BTreeSet::new(),
            owned_generation: NO_GENERATION,
            last_contact: Instant::now(),
            leading: None,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let Err(Interrupt { next, cause }) = self.cycle().await;
            match next {
                Next::Rejoin => {}
                Next::LoseAll => self.lose_all(cause).await,
                Next::Retry => self.wait_for_better_times(cause).await,
                Next::Close => break self.leave().await,
                Next::GiveUp => {
                    self.lose_all(None).await;
                    let error = cause.unwrap_or_else(|| Error::Config("the group membership ended".to_owned()));
                    break self.tell(GroupEvent::Failed(error)).await;
                }
            }
        }
    }

    /// From the join to whatever ends the generation.
    async fn cycle(&mut self) -> Step<std::convert::Infallible> {
        self.find_coordinator().await?;
        let joined = self.join().await?;
        let assigned = self.sync(&joined).await?;
        let generation = joined.generation_id;
        self.take(assigned, generation).await?;
        self.stay().await
    }

    async fn find_coordinator(&mut self) -> Step<()> {
        let (client, group) = (self.client.clone(), self.config.group.clone());
        let broker = self.unless_closed(coordinator::find(&client, &group)).await??;
        self.with_membership(|membership| membership.coordinator = Some(broker));
        Ok(())
    }

    async fn join(&mut self) -> Step<JoinGroupResponse> {
        loop {
            let request = self.join_request()?;
            let begun = Instant::now();
            let limit = self.config.rebalance_timeout + JOIN_GRACE;
            let answer = self.call_coordinator(Lane::Join(self.lane), JOIN_VERSION, &request, limit).await?;
            match answer.error_code.err() {
                None => {
                    self.last_contact = begun;
                    self.with_membership(|membership| {
                        membership.member_id = answer.member_id.clone();
                        membership.generation = answer.generation_id;
                    });
                    return Ok(answer);
                }
                Some(ResponseError::MemberIdRequired) => {
                    self.with_membership(|membership| membership.member_id = answer.member_id.clone());
                }
                Some(code) => return Err(self.refused("JoinGroup", code)),
            }
        }
    }

    fn join_request(&self) -> Step<JoinGroupRequest> {
        let subscription = Subscription {
            topics: self.config.topics.clone(),
            owned: self.owned.iter().cloned().collect(),
            generation: self.owned_generation,
        };
        let mut protocol = JoinGroupRequestProtocol::default();
        protocol.name = StrBytes::from_static_str(COOPERATIVE_STICKY);
        protocol.metadata = codec::encode_subscription(&subscription).map_err(|error| unreadable(&error))?;
        let mut request = JoinGroupRequest::default();
        request.group_id = self.group_id();
        request.session_timeout_ms = millis(self.config.session_timeout);
        request.rebalance_timeout_ms = millis(self.config.rebalance_timeout);
        request.member_id = self.with_membership(|membership| membership.member_id.clone());
        request.protocol_type = StrBytes::from_static_str(PROTOCOL_TYPE);
        request.protocols = vec![protocol];
        Ok(request)
    }

    async fn sync(&mut self, joined: &JoinGroupResponse) -> Step<BTreeSet<TopicPartition>> {
        let mut request = SyncGroupRequest::default();
        request.group_id = self.group_id();
        request.generation_id = joined.generation_id;
        request.member_id = joined.member_id.clone();
        request.protocol_type = Some(StrBytes::from_static_str(PROTOCOL_TYPE));
        request.protocol_name.clone_from(&joined.protocol_name);
        self.leading = None;
        if joined.leader == joined.member_id {
            request.assignments = self.assign(joined).await?;
        }
        let begun = Instant::now();
        let limit = self.config.rebalance_timeout + JOIN_GRACE;
        let answer = self.call_coordinator(Lane::Join(self.lane), SYNC_VERSION, &request, limit).await?;
        if let Some(code) = answer.error_code.err() {
            return Err(self.refused("SyncGroup", code));
        }
        self.last_contact = begun;
        let assigned = codec::decode_assignment(answer.assignment).map_err(|error| unreadable(&error))?;
        Ok(assigned.into_iter().collect())
    }

    /// As leader: shares the partitions out.
    async fn assign(&mut self, joined: &JoinGroupResponse) -> Step<Vec<SyncGroupRequestAssignment>> {
        let members = read_members(joined)?;
        let counts = self.partition_counts(&members).await?;
        let assignment = cooperative_sticky(&members, &counts);
        self.leading = Some(counts);
        let mut encoded = Vec::with_capacity(assignment.len());
        for (member, partitions) in assignment {
            let mut one = SyncGroupRequestAssignment::default();
            one.member_id = StrBytes::from_string(member);
            one.assignment = codec::encode_assignment(&partitions).map_err(|error| unreadable(&error))?;
            encoded.push(one);
        }
        Ok(encoded)
    }

    async fn partition_counts(&self, members: &BTreeMap<String, Subscription>) -> Step<HashMap<Arc<str>, i32>> {
        let topics: BTreeSet<&str> = members.values().flat_map(|m| &m.topics).map(|topic| &**topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let found = self.client.topics(&topics).await?;
        // A topic that is not there has no partitions: the leader looks again every few seconds.
        Ok(found.into_iter().flatten().map(|topic| (Arc::clone(&topic.name), topic.partition_count())).collect())
    }

    /// Takes over a new assignment; ends in a rejoin when something had to be handed back first.
    async fn take(&mut self, assigned: BTreeSet<TopicPartition>, generation: i32) -> Step<()> {
        let revoked: Vec<_> = self.owned.difference(&assigned).cloned().collect();
        let added: Vec<_> = assigned.difference(&self.owned).cloned().collect();
        self.owned_generation = generation;
        let added = self.with_committed(added).await?;
        self.owned.extend(added.iter().map(|added| added.partition.clone()));
        self.tell(GroupEvent::Assigned(added)).await;
        if revoked.is_empty() {
            return Ok(());
        }
        self.hand_back(revoked).await?;
        Err(Next::Rejoin.into())
    }

    async fn with_committed(&mut self, added: Vec<TopicPartition>) -> Step<Vec<AssignedPartition>> {
        if added.is_empty() {
            return Ok(Vec::new());
        }
        let (client, group, wanted) = (self.client.clone(), self.config.group.clone(), added.clone());
        let look_up = async move { client.committed_offsets(&group, Some(&wanted)).await };
        let mut committed: HashMap<TopicPartition, Committed> =
            self.while_heartbeating(look_up).await??.into_iter().collect();
        let with_offset = |partition| AssignedPartition { committed: committed.remove(&partition), partition };
        Ok(added.into_iter().map(with_offset).collect())
    }

    async fn hand_back(&mut self, revoked: Vec<TopicPartition>) -> Step<()> {
        let (done, finished) = oneshot::channel();
        // From here on we do not claim them, whatever happens while we wait: claimed but dropped, nobody would read them.
        self.owned.retain(|partition| !revoked.contains(partition));
        self.tell(GroupEvent::Revoked(Revocation { partitions: revoked.clone(), done })).await;
        let finished = tokio::time::timeout(self.config.rebalance_timeout, finished);
        let waited = self.while_heartbeating(finished).await;
        if !matches!(waited, Ok(Ok(_))) {
            tracing::warn!(group = %self.config.group, partitions = revoked.len(), "not handed back in time: lost");
            self.tell(GroupEvent::Lost(revoked)).await;
        }
        waited.map(drop)
    }

    /// Heartbeats until something changes.
    async fn stay(&mut self) -> Step<std::convert::Infallible> {
        let mut heartbeat = interval(self.config.heartbeat_interval);
        let mut topic_check = interval(TOPIC_CHECK_INTERVAL);
        let closing = self.closing.clone();
        loop {
            tokio::select! {
                () = closing.cancelled() => return Err(Next::Close.into()),
                _ = heartbeat.tick() => self.heartbeat().await?,
                _ = topic_check.tick(), if self.leading.is_some() => self.check_topics().await?,
            }
        }
    }

    async fn heartbeat(&mut self) -> Step<()> {
        let mut request = HeartbeatRequest::default();
        request.group_id = self.group_id();
        self.with_membership(|membership| {
            request.generation_id = membership.generation;
            request.member_id = membership.member_id.clone();
        });
        let begun = Instant::now();
        let limit = self.config.session_timeout;
        let answer = self.call_coordinator(Lane::Member(self.lane), HEARTBEAT_VERSION, &request, limit).await?;
        match answer.error_code.err() {
            None => {
                self.last_contact = begun;
                Ok(())
            }
            Some(code) => Err(self.refused("Heartbeat", code)),
        }
    }

    /// As leader: new partitions, or a topic made anew, need a new assignment.
    async fn check_topics(&mut self) -> Step<()> {
        let Some(known) = &self.leading else { return Ok(()) };
        let topics: Vec<&str> = self.config.topics.iter().map(|topic| &**topic).collect();
        let Ok(found) = self.client.topics(&topics).await else { return Ok(()) };
        let changed = found.into_iter().flatten().any(|topic| known.get(&topic.name) != Some(&topic.partition_count()));
        if changed { Err(Next::Rejoin.into()) } else { Ok(()) }
    }

    /// Waits for `work` while the session is kept alive. A rebalance that a heartbeat reports can wait until the
    /// work is done; the next heartbeat reports it again.
    async fn while_heartbeating<F: Future>(&mut self, work: F) -> Step<F::Output> {
        let mut work = std::pin::pin!(work);
        let mut heartbeat = interval(self.config.heartbeat_interval);
        loop {
            tokio::select! {
                output = &mut work => return Ok(output),
                _ = heartbeat.tick() => match self.heartbeat().await {
                    Err(Interrupt { next: Next::Rejoin | Next::Retry, .. }) if !self.is_expired() => {}
                    answer => answer?,
                },
            }
        }
    }

    async fn lose_all(&mut self, cause: Option<Error>) {
        self.with_membership(|membership| *membership = Membership::default());
        self.owned_generation = NO_GENERATION;
        let lost: Vec<_> = std::mem::take(&mut self.owned).into_iter().collect();
        if !lost.is_empty() {
            let cause = cause.map_or_else(|| "the session is over".to_owned(), |error| error.to_string());
            tracing::warn!(group = %self.config.group, partitions = lost.len(), %cause, "partitions lost");
            self.tell(GroupEvent::Lost(lost)).await;
        }
    }

    async fn wait_for_better_times(&mut self, cause: Option<Error>) {
        if self.is_expired() {
            self.lose_all(cause.clone()).await;
        }
        if let Some(error) = cause {
            self.tell(GroupEvent::Trouble(error)).await;
        }
        // Closing while the coordinator is away is noticed by the next cycle's first step.
        let _ = self.unless_closed(tokio::time::sleep(RETRY_PAUSE)).await;
    }

    fn is_expired(&self) -> bool {
        self.last_contact.elapsed() >= self.config.session_timeout
    }

    async fn leave(&mut self) {
        let (coordinator, member_id) =
            self.with_membership(|membership| (membership.coordinator, membership.member_id.clone()));
        let (Some(coordinator), false) = (coordinator, member_id.is_empty()) else { return };
        let mut member = MemberIdentity::default();
        member.member_id = member_id;
        let mut request = LeaveGroupRequest::default();
        request.group_id = self.group_id();
        request.members = vec![member];
        let lane = Lane::Member(self.lane);
        let left = self.client.call_within(coordinator, lane, LEAVE_VERSION, &request, LEAVE_TIMEOUT).await;
        if let Err(error) = left {
            tracing::warn!(group = %self.config.group, %error, "left without a word: the session time-out will tell");
        }
    }

    async fn call_coordinator<R: kafka_protocol::protocol::Request>(
        &mut self,
        lane: Lane,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Step<R::Response> {
        let coordinator = self.with_membership(|membership| membership.coordinator).ok_or(Next::Retry)?;
        let client = self.client.clone();
        let answer = self.unless_closed(client.call_within(coordinator, lane, version, request, limit)).await?;
        Ok(answer?)
    }

    async fn unless_closed<F: Future>(&self, work: F) -> Step<F::Output> {
        self.closing.run_until_cancelled(work).await.ok_or_else(|| Next::Close.into())
    }

    async fn tell(&self, event: GroupEvent) {
        // Nobody listens any more when the consumer was dropped: then there is nothing to tell.
        if self.events.send(event).await.is_err() {
            self.closing.cancel();
        }
    }

    fn refused(&self, api: &'static str, code: ResponseError) -> Interrupt {
        Error::refused(api, format!("group {} (--group)", self.config.group), code).into()
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.config.group.clone()))
    }

    fn with_membership<T>(&self, act: impl FnOnce(&mut Membership) -> T) -> T {
        act(&mut self.membership.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read_members(joined: &JoinGroupResponse) -> Step<BTreeMap<String, Subscription>> {
    let members = joined.members.iter().map(|member| {
        let subscription = codec::decode_subscription(member.metadata.clone()).map_err(|error| unreadable(&error))?;
        Ok((member.member_id.to_string(), subscription))
    });
    members.collect()
}

fn unreadable(error: &codec::Malformed) -> Interrupt {
    Interrupt { next: Next::GiveUp, cause: Some(Error::Config(error.to_string())) }
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_consequence() {
        use ResponseError as E;
        let cases = [
            (E::RebalanceInProgress, Next::Rejoin),
            (E::MemberIdRequired, Next::Rejoin),
            (E::UnknownMemberId, Next::LoseAll),
            (E::IllegalGeneration, Next::LoseAll),
            (E::NotCoordinator, Next::Retry),
            (E::CoordinatorNotAvailable, Next::Retry),
            (E::CoordinatorLoadInProgress, Next::Retry),
            (E::FencedInstanceId, Next::GiveUp),
            (E::GroupAuthorizationFailed, Next::GiveUp),
            (E::InconsistentGroupProtocol, Next::GiveUp),
            (E::InvalidSessionTimeout, Next::GiveUp),
        ];
        for (code, next) in cases {
            assert_eq!(next_after(code), next, "{code:?}");
        }
    }
}
