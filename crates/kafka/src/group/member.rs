//! Runs one membership: feeds the protocol's machine with what happens, carries out what it decides.
//!
//! One slow step (join, sync, look-up, hand-back, pause, leave) is under way at a time; heartbeats, the looks at the
//! topics and the events for the reader go on beside it. A reader that does not listen holds up nothing but its own events.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kafka_protocol::protocol::StrBytes;
use rand::RngExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::assignor::{Assignment, Assignor, Rebalance};
use super::claim::{Claim, Standing};
use super::classic::Classic;
use super::codec::Subscription;
use super::consumer_protocol::ConsumerProtocol;
use super::leader::{self, Led, Scope, Sighting};
use super::machine::{Action, Input, Joined};
use super::rates::RateMeter;
use super::wire::{HeartbeatTerms, JoinTerms, Wire, timed};
use crate::cluster::Client;
use crate::consumer::{AssignedPartition, ClassicConfig, ConsumerConfig, GroupEvent, GroupProtocol, Revocation};
use crate::error::Error;
use crate::lag::Committed;
use crate::types::TopicPartition;

/// Pause between attempts while the coordinator is away: short against the session time-out.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often the leader looks for new partitions of its topics, and members measure their load.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Members hear of a rebalance by their heartbeats, and until the last one has heard of it what moves has no owner. So
/// those that just took part in a rebalance (another may follow: what is released has to be given out) and those that
/// have records flowing ask more often than the session needs it.
const NOTICE_INTERVAL: Duration = Duration::from_millis(400);
/// How long after a rebalance.
const FOLLOW_UP: Duration = Duration::from_secs(3);
/// How long after a commit.
const FLOWING: Duration = Duration::from_secs(1);
/// Interval of the consumer protocol's heartbeats until the coordinator has said its own.
const FIRST_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// What a slow step ends in; the leader's sync also in what it has shared out.
type StepEnd = (Input, Option<Led>);

enum Machine {
    Classic(Classic),
    Consumer(ConsumerProtocol),
}

/// Runs one membership until it is closed.
pub(crate) struct MemberTask {
    wire: Wire,
    config: ConsumerConfig,
    events: mpsc::Sender<GroupEvent>,
    closing: CancellationToken,
    machine: Machine,
    /// Made by the client in the consumer protocol, for the life of the process.
    own_id: String,
    outbox: VecDeque<GroupEvent>,
    step: Option<BoxFuture<'static, StepEnd>>,
    heartbeat: Option<BoxFuture<'static, Input>>,
    /// A heartbeat was asked for while another was under way.
    heartbeat_again: bool,
    heartbeat_at: Instant,
    heartbeat_interval: Duration,
    synced_at: Option<Instant>,
    look: Option<BoxFuture<'static, Sighting>>,
    look_at: Instant,
    meter: RateMeter,
    led: Option<Led>,
    standing: watch::Sender<Standing>,
    is_over: bool,
}

impl MemberTask {
    pub(crate) fn new(
        wire: Wire,
        config: ConsumerConfig,
        events: mpsc::Sender<GroupEvent>,
        closing: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let is_static = config.instance_id.is_some();
        let (machine, heartbeat_interval) = match &config.protocol {
            GroupProtocol::Classic(classic) => {
                let rebalance = Rebalance::of(&classic.assignors);
                let machine = Classic::new(rebalance, classic.session_timeout, is_static, now);
                (Machine::Classic(machine), classic.heartbeat_interval)
            }
            GroupProtocol::Consumer { .. } => {
                (Machine::Consumer(ConsumerProtocol::new(is_static)), FIRST_HEARTBEAT_INTERVAL)
            }
        };
        Self {
            wire,
            config,
            events,
            closing,
            machine,
            own_id: format!("{:032x}", rand::rng().random::<u128>()),
            outbox: VecDeque::new(),
            step: None,
            heartbeat: None,
            heartbeat_again: false,
            heartbeat_at: now + heartbeat_interval,
            heartbeat_interval,
            synced_at: None,
            look: None,
            look_at: now + LOOK_INTERVAL,
            meter: RateMeter::default(),
            led: None,
            standing: watch::Sender::default(),
            is_over: false,
        }
    }

    pub(crate) async fn run(mut self) {
        let (closing, events) = (self.closing.clone(), self.events.clone());
        let mut is_closing = false;
        self.take(Input::Begin);
        while !self.is_over {
            let session_deadline = self.session_deadline();
            tokio::select! {
                () = closing.cancelled(), if !is_closing => {
                    is_closing = true;
                    self.take(Input::Close);
                }
                (input, led) = under_way(&mut self.step) => {
                    self.step = None;
                    self.led = led.or(self.led.take());
                    self.take(input);
                }
                input = under_way(&mut self.heartbeat) => {
                    self.heartbeat = None;
                    self.take(input);
                    if std::mem::take(&mut self.heartbeat_again) {
                        self.begin_heartbeat();
                    }
                }
                () = tokio::time::sleep_until(self.heartbeat_at) => {
                    self.heartbeat_at = Instant::now() + self.next_heartbeat();
                    self.take(Input::HeartbeatDue);
                }
                () = sleep_until_some(session_deadline) => self.take(Input::SessionOver),
                () = tokio::time::sleep_until(self.look_at) => self.begin_look(),
                sighting = under_way(&mut self.look) => self.take_sighting(&sighting),
                permit = events.reserve(), if !self.outbox.is_empty() => match (permit, self.outbox.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    // Nobody listens any more, since the consumer was dropped: there is nothing to be a member for.
                    _ => closing.cancel(),
                },
            }
        }
        for event in self.outbox {
            // The same: without a listener there is nobody to tell of the end.
            let _ = closing.run_until_cancelled(events.send(event)).await;
        }
    }

    fn take(&mut self, input: Input) {
        if let Input::Heartbeat { answer: Ok(beat), .. } = &input
            && let Some(interval) = beat.interval
        {
            self.heartbeat_interval = interval;
        }
        if let Input::Synced { answer: Ok(_), .. } = &input {
            self.synced_at = Some(Instant::now());
            self.heartbeat_at = Instant::now() + self.next_heartbeat();
        }
        let actions = match &mut self.machine {
            Machine::Classic(member) => member.on(input, Instant::now()),
            Machine::Consumer(member) => member.on(input),
        };
        self.publish_membership();
        for action in actions {
            self.carry_out(action);
        }
    }

    /// Commits are made with this from now on.
    fn publish_membership(&self) {
        let (member_id, generation, standing) = match &self.machine {
            Machine::Classic(member) => (member.member_id(), member.generation(), member.standing()),
            Machine::Consumer(member) => (self.own_id.as_str(), member.epoch(), member.standing()),
        };
        self.standing.send_if_modified(|before| std::mem::replace(before, standing) != standing);
        self.wire.with_membership(|membership| {
            membership.generation = generation;
            if membership.member_id.as_str() != member_id {
                membership.member_id = StrBytes::from_string(member_id.to_owned());
            }
        });
    }

    fn next_heartbeat(&self) -> Duration {
        let within = |since: Option<Instant>, time| since.is_some_and(|since| since.elapsed() < time);
        let committed_at = self.wire.with_membership(|membership| membership.committed_at);
        // By the consumer protocol the coordinator says how often it wants to hear from us.
        let is_asking = matches!(self.machine, Machine::Classic(_))
            && (within(self.synced_at, FOLLOW_UP) || within(committed_at, FLOWING));
        if is_asking { self.heartbeat_interval.min(NOTICE_INTERVAL) } else { self.heartbeat_interval }
    }

    fn session_deadline(&self) -> Option<Instant> {
        match &self.machine {
            Machine::Classic(member) => member.session_deadline(),
            Machine::Consumer(_) => None,
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Join => self.begin_join(),
            Action::Sync(joined) => self.begin_sync(joined),
            Action::LookUp(added) => self.begin_look_up(added),
            Action::HandBack(revoked) => self.begin_hand_back(revoked),
            Action::Pause => self.begin(tokio::time::sleep(RETRY_PAUSE).map(|()| Input::Begin)),
            Action::Leave => self.begin_leave(),
            Action::Heartbeat => self.begin_heartbeat(),
            Action::HeartbeatSoon => self.heartbeat_at = Instant::now() + RETRY_PAUSE,
            Action::Assigned(partitions) => {
                let claim = Claim::new(&self.standing);
                self.outbox.push_back(GroupEvent::Assigned { partitions, claim });
            }
            Action::Lost { partitions, cause } => {
                tracing::warn!(group = %self.wire.group, partitions = partitions.len(), %cause, "partitions lost");
                self.outbox.push_back(GroupEvent::Lost(partitions));
            }
            Action::Trouble(error) => self.outbox.push_back(GroupEvent::Trouble(error)),
            Action::Failed(error) => self.outbox.push_back(GroupEvent::Failed(error)),
            Action::End => self.is_over = true,
        }
    }

    fn begin(&mut self, step: impl Future<Output = Input> + Send + 'static) {
        self.step = Some(step.map(|input| (input, None)).boxed());
    }

    fn begin_join(&mut self) {
        let (Machine::Classic(member), GroupProtocol::Classic(config)) = (&self.machine, &self.config.protocol) else {
            return;
        };
        let (owned, generation) = member.claim();
        let offers = config.assignors.iter().map(|assignor| {
            let user_data = match assignor {
                Assignor::LoadAware => self.meter.rates().encode(owned),
                Assignor::Range | Assignor::CooperativeSticky => bytes::Bytes::new(),
            };
            let owned = owned.iter().cloned().collect();
            let topics = self.config.topics.clone();
            (*assignor, Subscription { topics, owned, generation, user_data, instance_id: None })
        });
        let terms = JoinTerms {
            member_id: member.member_id().to_owned(),
            session_timeout: config.session_timeout,
            rebalance_timeout: self.config.rebalance_timeout,
            offers: offers.collect(),
        };
        let wire = self.wire.clone();
        self.led = None;
        self.begin(async move {
            let (begun, answer) = timed(wire.join(terms)).await;
            Input::Joined { begun, answer }
        });
    }

    fn begin_sync(&mut self, mut joined: Joined) {
        let GroupProtocol::Classic(ClassicConfig { rebalance_interval, .. }) = self.config.protocol else { return };
        let (wire, rates) = (self.wire.clone(), self.meter.rates());
        let limit = self.config.rebalance_timeout;
        self.step = Some(Box::pin(async move {
            let begun = Instant::now();
            let (assignment, led) = match joined.leads.take() {
                None => (Assignment::new(), None),
                Some(leads) => match leader::share_out(&wire.client, leads, rates, rebalance_interval).await {
                    Ok((assignment, led)) => (assignment, Some(led)),
                    Err(error) => return (Input::Synced { begun, answer: Err(error) }, None),
                },
            };
            let (begun, answer) = timed(wire.sync(&joined, assignment, limit)).await;
            (Input::Synced { begun, answer }, led)
        }));
    }

    fn begin_look_up(&mut self, added: Vec<TopicPartition>) {
        let wire = self.wire.clone();
        self.begin(async move { Input::LookedUp(with_committed(&wire.client, &wire.group, added).await) });
    }

    fn begin_hand_back(&mut self, partitions: Vec<TopicPartition>) {
        let (done, finished) = oneshot::channel();
        self.outbox.push_back(GroupEvent::Revoked(Revocation { partitions, done }));
        let finished = tokio::time::timeout(self.config.rebalance_timeout, finished);
        // A reader that drops its revocation unanswered has not said that it is done with the partitions.
        self.begin(finished.map(|finished| Input::HandedBack { in_time: matches!(finished, Ok(Ok(()))) }));
    }

    fn begin_leave(&mut self) {
        let wire = self.wire.clone();
        match &mut self.machine {
            Machine::Classic(_) => self.begin(async move {
                wire.leave().await;
                Input::Left
            }),
            Machine::Consumer(member) => {
                let report = member.report();
                let terms = self.heartbeat_terms();
                self.begin(async move {
                    wire.consumer_leave(&terms, report).await;
                    Input::Left
                });
            }
        }
    }

    fn begin_heartbeat(&mut self) {
        if self.heartbeat.is_some() {
            self.heartbeat_again = true;
            return;
        }
        let wire = self.wire.clone();
        self.heartbeat = Some(match &mut self.machine {
            Machine::Classic(_) => {
                let limit = self.heartbeat_limit();
                async move { timed(wire.heartbeat(limit)).await }.map(heartbeat_answered).boxed()
            }
            Machine::Consumer(member) => {
                let report = member.report();
                let terms = self.heartbeat_terms();
                async move { timed(wire.consumer_heartbeat(&terms, report)).await }.map(heartbeat_answered).boxed()
            }
        });
    }

    /// How long a heartbeat may go unanswered: beyond it, the session is over or the connection of no use.
    fn heartbeat_limit(&self) -> Duration {
        match &self.config.protocol {
            GroupProtocol::Classic(classic) => classic.session_timeout,
            GroupProtocol::Consumer { .. } => self.wire.client.config().request_timeout,
        }
    }

    fn heartbeat_terms(&self) -> HeartbeatTerms {
        let remote_assignor = match &self.config.protocol {
            GroupProtocol::Consumer { remote_assignor } => remote_assignor.clone(),
            GroupProtocol::Classic(_) => None,
        };
        HeartbeatTerms {
            member_id: self.own_id.clone(),
            topics: self.config.topics.clone(),
            rebalance_timeout: self.config.rebalance_timeout,
            remote_assignor,
            limit: self.heartbeat_limit(),
        }
    }

    fn begin_look(&mut self) {
        self.look_at = Instant::now() + LOOK_INTERVAL;
        let (Machine::Classic(member), GroupProtocol::Classic(config)) = (&self.machine, &self.config.protocol) else {
            return;
        };
        let measures_load = config.assignors.contains(&Assignor::LoadAware);
        let scope = match &self.led {
            Some(led) => Scope::Topics { topics: led.topics(), measures_load },
            None if measures_load => Scope::Partitions(member.claim().0.clone()),
            None => return,
        };
        let client = self.wire.client.clone();
        self.look = Some(Box::pin(async move { leader::look(&client, scope).await }));
    }

    fn take_sighting(&mut self, sighting: &Sighting) {
        self.look = None;
        let now = Instant::now();
        if !sighting.ends.is_empty() {
            self.meter.sample(sighting.ends.clone(), now);
        }
        let rates = self.meter.rates();
        if let (Some(led), Some(counts)) = (&mut self.led, &sighting.counts)
            && led.is_outdated(counts, &rates, now)
        {
            self.take(Input::ShareOutAnew);
        }
    }
}

fn heartbeat_answered((begun, answer): (Instant, Result<super::machine::Beat, Error>)) -> Input {
    Input::Heartbeat { begun, answer }
}

async fn with_committed(
    client: &Client,
    group: &str,
    added: Vec<TopicPartition>,
) -> Result<Vec<AssignedPartition>, Error> {
    let committed = client.committed_offsets(group, Some(&added)).await?;
    let mut committed: std::collections::HashMap<TopicPartition, Committed> = committed.into_iter().collect();
    let with_offset = |partition| AssignedPartition { committed: committed.remove(&partition), partition };
    Ok(added.into_iter().map(with_offset).collect())
}

/// The end of what is under way; never, when nothing is.
async fn under_way<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
