//! The loop that ties group, fetches, lanes and commits together. It decides and passes on; it never waits for a sink.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use kafka::{
    AssignedPartition, Claim, Client, CommitMetadata, Committed, Consumer, ConsumerConfig, FetchConfig, Fetched,
    GroupEvent, Offset, OffsetSpec, Revocation, TopicPartition,
};
use service::Component;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backlog::{Backlog, Entry, RawSlice};
use crate::commits::{Commits, Settled};
use crate::error::Error;
use crate::guard::SinkGuard;
use crate::lane::{Lane, Outcome};
use crate::metrics::PipelineMetrics;
use crate::settings::Settings;
use crate::sink::Sink;

/// How long the records in flight of a revoked partition may take to settle before they are dropped; the next owner
/// reads them again.
const HAND_BACK_LIMIT: Duration = Duration::from_secs(5);
/// How long the records in flight may take to settle at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);
/// How long the last commit may take at shutdown.
const LAST_COMMIT_LIMIT: Duration = Duration::from_secs(3);
/// Pause before looking up start offsets again.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(500);

const EXPIRED: &str = "expired";
const LOST_TO_RETENTION: &str = "lost_to_retention";

type Committing = BoxFuture<'static, Result<(), kafka::Error>>;
type LaneId = u64;
type LaneEnd = (LaneId, Option<Vec<(RawSlice, Outcome)>>);

/// Where partitions begin, once it is known; `None` when the look-up must be repeated.
struct LookedUp {
    assigned: Vec<AssignedPartition>,
    starts: Option<HashMap<TopicPartition, Offset>>,
}

/// Offsets to move on to, because everything before them has expired.
type Horizon = Vec<(TopicPartition, Offset)>;

struct RunningLane {
    partitions: BTreeSet<TopicPartition>,
    cancel: CancellationToken,
}

struct HandingBack {
    revocation: Revocation,
    deadline: Instant,
}

/// What the runtime reports to.
pub(crate) struct Reports {
    pub(crate) kafka: Component,
    pub(crate) sink: Component,
}

pub(crate) struct Runtime<S: Sink> {
    settings: Settings,
    client: Client,
    consumer: Consumer,
    lane: Lane<S>,
    guard_state: watch::Receiver<Option<String>>,
    reports: Reports,
    metrics: Arc<PipelineMetrics>,
    backlog: Backlog,
    commits: Commits,
    committing: Option<Committing>,
    lanes: JoinSet<LaneEnd>,
    running: BTreeMap<LaneId, RunningLane>,
    next_lane: LaneId,
    /// Partitions that are ours, also while their start is looked up.
    owned: BTreeSet<TopicPartition>,
    /// The right to work on them. Whoever loses one by the clock loses all, so the last one speaks for all.
    claim: Option<Claim>,
    looking_up: FuturesUnordered<BoxFuture<'static, LookedUp>>,
    seeking: FuturesUnordered<BoxFuture<'static, (Vec<TopicPartition>, Horizon)>>,
    seeking_partitions: BTreeSet<TopicPartition>,
    handing_back: Vec<HandingBack>,
}

impl<S: Sink> Runtime<S> {
    pub(crate) fn new(settings: Settings, client: Client, lane: Lane<S>, reports: Reports, backlog: Backlog) -> Self {
        let consumer = Consumer::join(client.clone(), consumer_config(&settings));
        Self {
            guard_state: lane.guard.watch(),
            metrics: Arc::clone(&lane.metrics),
            settings,
            client,
            consumer,
            lane,
            reports,
            backlog,
            commits: Commits::default(),
            committing: None,
            lanes: JoinSet::new(),
            running: BTreeMap::new(),
            next_lane: 0,
            owned: BTreeSet::new(),
            claim: None,
            looking_up: FuturesUnordered::new(),
            seeking: FuturesUnordered::new(),
            seeking_partitions: BTreeSet::new(),
            handing_back: Vec::new(),
        }
    }

    /// Runs until shutdown, then drains.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut commit_tick = tokio::time::interval(self.settings.commit_interval);
        commit_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let result = loop {
            self.begin_lanes();
            let unblock = self.next_deadline();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(()),
                event = self.consumer.events.recv() => match event {
                    Some(GroupEvent::Failed(error)) => break Err(error.into()),
                    Some(event) => self.take_event(event),
                    None => break Ok(()),
                },
                Some(looked_up) = self.looking_up.next() => self.start_partitions(looked_up),
                result = answer_of(&mut self.committing) => self.after_commit(&result),
                Some(ended) = self.lanes.join_next() => self.after_lane(ended),
                Some((asked, horizon)) = self.seeking.next() => self.skip_expired(&asked, horizon),
                _ = self.guard_state.changed() => self.report_sink(),
                _ = commit_tick.tick() => self.begin_commit(),
                Some(fetched) = self.consumer.fetched.recv() => self.take_fetched(fetched),
                () = tokio::time::sleep_until(unblock) => {}
            }
            self.continue_handing_back();
            self.steer_fetches();
        };
        self.drain().await;
        result
    }

    fn take_event(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned { partitions: assigned, claim } => {
                self.reports.kafka.ready();
                if !assigned.is_empty() {
                    self.claim = Some(claim);
                    tracing::info!(group = self.settings.policy.group, partitions = assigned.len(), "assigned");
                    self.owned.extend(assigned.iter().map(|assigned| assigned.partition.clone()));
                    self.look_up(assigned, Duration::ZERO);
                }
            }
            GroupEvent::Revoked(revocation) => self.begin_hand_back(revocation),
            GroupEvent::Lost(partitions) => self.lose(&partitions),
            GroupEvent::Trouble(error) => self.reports.kafka.not_ready(error.to_string()),
            GroupEvent::Failed(error) => tracing::error!(%error, "the group membership ended"),
        }
        self.metrics.assigned.set(count(self.owned.len()));
    }

    // --- where partitions begin -------------------------------------------------------------------------------

    fn look_up(&mut self, assigned: Vec<AssignedPartition>, pause: Duration) {
        let (client, sink, guard) = (self.client.clone(), Arc::clone(&self.lane.sink), Arc::clone(&self.lane.guard));
        self.looking_up.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let starts = start_offsets(&client, &*sink, &guard, &assigned).await;
            LookedUp { assigned, starts }
        }));
    }

    fn start_partitions(&mut self, looked_up: LookedUp) {
        let LookedUp { mut assigned, starts } = looked_up;
        assigned.retain(|assigned| self.owned.contains(&assigned.partition));
        let Some(starts) = starts else { return self.look_up(assigned, LOOK_UP_PAUSE) };
        for AssignedPartition { partition, committed } in assigned {
            if let Some(offset) = starts.get(&partition) {
                if S::KEEPS_OFFSETS {
                    self.catch_up_commit(&partition, committed, *offset);
                }
                let incarnation = self.consumer.handle.start(&partition, *offset);
                self.backlog.start(partition, incarnation, *offset);
            }
        }
    }

    /// A sink that kept offsets may have been killed before they reached Kafka: without new records they never would,
    /// and the group would seem to lag for ever.
    fn catch_up_commit(&mut self, partition: &TopicPartition, committed: Option<Committed>, kept: Offset) {
        if committed.as_ref().map_or(Offset(0), |committed| committed.offset) != kept {
            let metadata = committed.and_then(|committed| CommitMetadata::parse(&committed.metadata));
            let last_timestamp_ms = metadata.map_or(0, |metadata| metadata.timestamp_ms);
            self.commits.settle(partition.clone(), Settled { next: kept, last_timestamp_ms });
        }
    }

    // --- what is fetched --------------------------------------------------------------------------------------

    fn take_fetched(&mut self, fetched: Vec<Fetched>) {
        let now_ms = now_ms();
        let mut expired = Vec::new();
        for Fetched { partition, incarnation, batches, jump, .. } in fetched {
            if let Some(jump) = jump {
                self.note_jump(&partition, jump);
                let skip = Entry::Skip { to: jump.to, outcome: LOST_TO_RETENTION, records: jump.lost() };
                self.backlog.push(&partition, incarnation, vec![skip]);
            }
            let rule = self.settings.policy.freshness;
            // A damaged header does not say how old its records are: a letter tells, a skip would not.
            let is_expired = |batch: &kafka::RawBatch| {
                rule.zip(batch.max_timestamp_ms()).is_some_and(|(rule, newest_ms)| rule.is_expired(newest_ms, now_ms))
            };
            if batches.last().is_some_and(is_expired) && !self.seeking_partitions.contains(&partition) {
                expired.push(partition.clone());
            }
            let entries = batches.into_iter().map(|batch| {
                if is_expired(&batch) {
                    let records = u64::from(batch.record_count());
                    Entry::Skip { to: batch.next(), outcome: EXPIRED, records }
                } else {
                    Entry::Records(batch)
                }
            });
            self.backlog.push(&partition, incarnation, entries.collect());
        }
        self.seek_horizon(expired, now_ms);
    }

    fn note_jump(&self, partition: &TopicPartition, jump: kafka::Jump) {
        self.metrics.lost_to_retention.increment(jump.lost());
        tracing::error!(
            %partition, from = %jump.from, to = %jump.to, lost = jump.lost(),
            "the log does not hold the position any more: reading goes on where it does"
        );
    }

    /// Everything that was fetched of these has expired: look where the records begin that have not.
    fn seek_horizon(&mut self, partitions: Vec<TopicPartition>, now_ms: i64) {
        let Some(rule) = self.settings.policy.freshness.filter(|_| !partitions.is_empty()) else { return };
        self.seeking_partitions.extend(partitions.iter().cloned());
        let client = self.client.clone();
        let spec = OffsetSpec::AtTimestamp(rule.horizon_ms(now_ms));
        self.seeking.push(Box::pin(async move {
            let found = client.list_offsets(&partitions, spec).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "no horizon found; the records are read and left out one by one");
                Vec::new()
            });
            let found = found.into_iter().filter_map(|(partition, listed)| Some((partition, listed.ok()?.offset)));
            let horizon = found.collect();
            (partitions, horizon)
        }));
    }

    fn skip_expired(&mut self, asked: &[TopicPartition], horizon: Horizon) {
        asked.iter().for_each(|partition| {
            self.seeking_partitions.remove(partition);
        });
        for (partition, to) in horizon {
            if self.backlog.fetched_to(&partition).is_some_and(|reached| to > reached) {
                tracing::info!(%partition, %to, "skipping what has expired");
                let incarnation = self.consumer.handle.start(&partition, to);
                self.backlog.skip_to(&partition, incarnation, to, EXPIRED);
            }
        }
    }

    fn steer_fetches(&mut self) {
        let sink_is_up = self.guard_state.borrow().is_none();
        let changes = self.backlog.fetch_changes(sink_is_up);
        changes.pause.iter().for_each(|partition| self.consumer.handle.pause(partition));
        changes.resume.iter().for_each(|partition| self.consumer.handle.resume(partition));
        let held = self.backlog.held();
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats; the loss begins at 2^52")]
        {
            self.metrics.held_records.set(held.records as f64);
            self.metrics.held_bytes.set(held.bytes as f64);
        }
        let (paused, blocked) = self.backlog.paused_and_blocked();
        self.metrics.paused.set(count(paused));
        self.metrics.blocked.set(count(blocked));
    }

    fn report_sink(&mut self) {
        let fault = self.guard_state.borrow_and_update().clone();
        match fault {
            None => self.reports.sink.ready(),
            Some(why) => self.reports.sink.not_ready(why),
        }
        self.metrics.sink_up.set(f64::from(u8::from(self.reports.sink.is_ready())));
    }

    // --- lanes ------------------------------------------------------------------------------------------------

    fn begin_lanes(&mut self) {
        let Some(claim) = self.claim.clone() else { return };
        while self.running.len() < self.settings.policy.writers {
            let Some(slices) = self.backlog.take(Instant::now()) else { return };
            let id = self.next_lane;
            self.next_lane += 1;
            let cancel = CancellationToken::new();
            let partitions = slices.iter().map(|slice| slice.partition.clone()).collect();
            self.running.insert(id, RunningLane { partitions, cancel: cancel.clone() });
            let work = self.lane.clone().run(slices, claim.clone());
            self.lanes.spawn(async move { (id, cancel.run_until_cancelled_owned(work).await) });
        }
    }

    fn after_lane(&mut self, ended: Result<LaneEnd, tokio::task::JoinError>) {
        let (id, outcomes) = match ended {
            Ok(ended) => ended,
            // A lane that panicked has settled nothing; going on could skip its records.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let lane = self.running.remove(&id);
        match outcomes {
            Some(outcomes) => outcomes.into_iter().for_each(|(slice, outcome)| self.take_outcome(slice, outcome)),
            None => self.restart(&lane.map(|lane| lane.partitions).unwrap_or_default()),
        }
    }

    fn take_outcome(&mut self, slice: RawSlice, outcome: Outcome) {
        match outcome {
            Outcome::Settled { last_timestamp_ms } => {
                let next = slice.next();
                if self.backlog.complete(&slice, next) {
                    self.commits.settle(slice.partition, Settled { next, last_timestamp_ms });
                }
            }
            Outcome::Blocked { until } => self.backlog.put_back(slice, until),
            // The other owner has committed further in the sink: begin again where the sink says.
            Outcome::Fenced => self.restart(&BTreeSet::from([slice.partition])),
        }
    }

    /// Begins partitions again from their settled positions: how far their records in flight got is not known, but a
    /// sink with offsets of its own can tell.
    fn restart(&mut self, partitions: &BTreeSet<TopicPartition>) {
        let ours = partitions.iter().filter(|partition| self.owned.contains(partition));
        let assigned: Vec<_> = ours
            .map(|partition| {
                let offset = self.backlog.position(partition);
                let committed = offset.map(|offset| Committed { offset, metadata: String::new() });
                AssignedPartition { partition: partition.clone(), committed }
            })
            .collect();
        for AssignedPartition { partition, .. } in &assigned {
            self.consumer.handle.stop(partition);
            self.backlog.remove(partition);
        }
        if !assigned.is_empty() {
            self.look_up(assigned, LOOK_UP_PAUSE);
        }
    }

    fn cancel_lanes_of(&mut self, partitions: &[TopicPartition]) {
        for lane in self.running.values() {
            if partitions.iter().any(|partition| lane.partitions.contains(partition)) {
                lane.cancel.cancel();
            }
        }
    }

    // --- handing back -----------------------------------------------------------------------------------------

    fn begin_hand_back(&mut self, revocation: Revocation) {
        tracing::info!(group = self.settings.policy.group, partitions = revocation.partitions.len(), "handing back");
        for partition in &revocation.partitions {
            self.owned.remove(partition);
            self.consumer.handle.stop(partition);
            self.backlog.drop_queued(partition);
        }
        self.handing_back.push(HandingBack { revocation, deadline: Instant::now() + HAND_BACK_LIMIT });
    }

    fn continue_handing_back(&mut self) {
        let sink_is_down = self.guard_state.borrow().is_some();
        for handing_back in std::mem::take(&mut self.handing_back) {
            let partitions = &handing_back.revocation.partitions;
            let settled = partitions.iter().all(|partition| self.backlog.is_idle(partition));
            let committed = !partitions.iter().any(|partition| self.commits.is_pending(partition));
            let late = Instant::now() >= handing_back.deadline;
            if settled && committed || late {
                self.cancel_lanes_of(partitions);
                self.forget(partitions);
                handing_back.revocation.finish();
                continue;
            }
            if !settled && sink_is_down {
                // What waits for a sink that is down would hold the whole group up: the next owner reads it again.
                self.cancel_lanes_of(partitions);
                partitions.iter().for_each(|partition| self.backlog.remove(partition));
            }
            self.handing_back.push(handing_back);
            self.begin_commit();
        }
    }

    fn lose(&mut self, partitions: &[TopicPartition]) {
        tracing::warn!(group = self.settings.policy.group, partitions = partitions.len(), "partitions lost");
        partitions.iter().for_each(|partition| {
            self.owned.remove(partition);
        });
        self.cancel_lanes_of(partitions);
        self.forget(partitions);
        self.handing_back.retain(|waiting| !waiting.revocation.partitions.iter().any(|p| partitions.contains(p)));
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.consumer.handle.stop(partition);
            self.backlog.remove(partition);
            self.commits.forget(partition);
        }
    }

    // --- commits ----------------------------------------------------------------------------------------------

    fn begin_commit(&mut self) {
        if self.committing.is_none()
            && let Some(claim) = self.claim.clone()
            && let Some(commits) = self.commits.begin()
        {
            let handle = self.consumer.handle.clone();
            self.committing = Some(Box::pin(async move { handle.commit(&commits, &claim).await }));
        }
    }

    fn after_commit(&mut self, result: &Result<(), kafka::Error>) {
        self.committing = None;
        match result {
            Ok(()) => {
                self.metrics.commit("ok");
                self.commits.committed();
            }
            Err(error) => {
                // The next tick tries again; a rebalance refuses commits for a moment as a matter of course.
                tracing::debug!(%error, "commit refused");
                self.metrics.commit("refused");
                self.commits.refused();
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let blocked = self.backlog.next_unblock();
        let handing_back = self.handing_back.iter().map(|waiting| waiting.deadline).min();
        [blocked, handing_back].into_iter().flatten().min().unwrap_or(far)
    }

    // --- the end ----------------------------------------------------------------------------------------------

    /// Settles what is in flight, commits it, leaves the group. What is only queued is read again by the next owner.
    async fn drain(mut self) {
        let in_flight = self.running.len();
        tracing::info!(in_flight, "draining");
        self.owned.iter().for_each(|partition| self.consumer.handle.stop(partition));
        // Whoever waits for these goes on when we leave.
        self.handing_back.clear();
        let deadline = Instant::now() + DRAIN_LIMIT;
        while !self.running.is_empty() && self.guard_state.borrow().is_none() {
            tokio::select! {
                Some(ended) = self.lanes.join_next() => self.after_lane(ended),
                _ = self.guard_state.changed() => {}
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        self.lanes.shutdown().await;
        let last_commit = tokio::time::timeout(LAST_COMMIT_LIMIT, self.commit_rest()).await;
        if last_commit.is_err() {
            tracing::warn!("the last positions could not be committed: their records will be read again");
        }
        self.consumer.handle.close().await;
    }

    async fn commit_rest(&mut self) {
        while !self.commits.is_empty() {
            self.begin_commit();
            let result = answer_of(&mut self.committing).await;
            self.after_commit(&result);
            if !self.commits.is_empty() {
                tokio::time::sleep(self.settings.commit_interval).await;
            }
        }
    }
}

/// The answer to the commit that is under way; never, while there is none.
async fn answer_of(committing: &mut Option<Committing>) -> Result<(), kafka::Error> {
    match committing {
        Some(commit) => commit.await,
        None => std::future::pending().await,
    }
}

/// Where to begin: the sink's own offsets win over the group's, and those over the beginning of the log.
async fn start_offsets<S: Sink>(
    client: &Client,
    sink: &S,
    guard: &SinkGuard,
    assigned: &[AssignedPartition],
) -> Option<HashMap<TopicPartition, Offset>> {
    let partitions: Vec<_> = assigned.iter().map(|assigned| assigned.partition.clone()).collect();
    let turn = guard.turn().await;
    let kept = match sink.positions(&partitions).await {
        Ok(kept) => {
            turn.answered();
            kept
        }
        Err(error) => {
            turn.failed(&error.to_string());
            return None;
        }
    };
    let committed = assigned.iter().filter_map(|a| Some((a.partition.clone(), a.committed.as_ref()?.offset)));
    let mut starts: HashMap<_, _> = committed.collect();
    for (partition, offset) in kept {
        if let Some(other) = starts.insert(partition.clone(), offset).filter(|other| *other != offset) {
            tracing::info!(%partition, sink = %offset, kafka = %other, "the sink's offset wins over the group's");
        }
    }
    let unknown: Vec<_> = partitions.into_iter().filter(|partition| !starts.contains_key(partition)).collect();
    let earliest = client.list_offsets(&unknown, OffsetSpec::Earliest).await.ok()?;
    for (partition, listed) in earliest {
        starts.insert(partition, listed.ok()?.offset);
    }
    Some(starts)
}

fn consumer_config(settings: &Settings) -> ConsumerConfig {
    let default = ConsumerConfig::new(settings.policy.group.as_str(), vec![Arc::clone(&settings.topic)]);
    ConsumerConfig {
        instance_id: settings.membership.instance_id.clone(),
        protocol: settings.membership.protocol.clone(),
        fetch: FetchConfig {
            min_bytes: settings.policy.fetch_min_bytes,
            max_wait: settings.policy.linger_max,
            interval: settings.policy.linger_max,
            ..default.fetch
        },
        ..default
    }
}

#[expect(clippy::cast_precision_loss, reason = "a process has far fewer than 2^52 partitions")]
fn count(number: usize) -> f64 {
    number as f64
}

fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
