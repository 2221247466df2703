//! All that waits to be sent or acknowledged, by topic and partition, and the decision what leaves when.
//!
//! Pure: no I/O, and the clock comes in as an argument. The producer appends, the sender steps; both hold the lock for
//! about a microsecond.
//!
//! One request carries every partition of a broker that has something to send. The first record that waits starts the
//! linger of its broker; when it is over, the records of all the others ride along. A partition with a batch under way
//! keeps filling its next one, so batches grow with the load by themselves.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use tokio::time::Instant;

use super::answer::Answer;
use super::delivery::{Delivery, ProduceError};
use super::pace::{Jitter, Pace, PaceLimits, backoff};
use super::partition::{Batch, BatchLimits, Effects, Partition, Readiness};
use super::record::OutRecord;
use super::sequence::{Identity, Stamp};
use crate::cluster::TopicMetadata;
use crate::partitioner::partition_for_key;
use crate::types::{BrokerId, PartitionId};

/// Bounds of everything below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) batch: BatchLimits,
    pub(crate) pace: PaceLimits,
    /// Bytes beyond which a request takes no further batch.
    pub(crate) request_bytes: usize,
}

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: PartitionId,
    pub(crate) stamp: Stamp,
    pub(crate) batch: Batch,
}

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) broker: BrokerId,
    pub(crate) parcels: Vec<Parcel>,
}

/// Whether a broker answered a request at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Answered,
    None,
}

/// A request that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) broker: BrokerId,
    pub(crate) reply: Reply,
    pub(crate) answers: Vec<(Parcel, Answer)>,
}

/// What is to be done now, and when to look again.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) requests: Vec<Outgoing>,
    pub(crate) effects: Effects,
    /// The next moment at which there may be something to do without a new event.
    pub(crate) wake_at: Option<Instant>,
    pub(crate) needs: Needs,
}

/// What has to be asked of the cluster before more can be sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// A leader is unknown or has changed.
    pub(crate) metadata: bool,
    /// A partition has no producer id.
    pub(crate) identity: bool,
}

/// Why a record cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unplaced {
    UnknownTopic,
    UnknownPartition,
}

/// Whether the sender has to look before it would have by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    Sender,
    Nobody,
}

/// What went through, since the beginning.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) requests: u64,
    pub(crate) retries: u64,
    pub(crate) requests_in_flight: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Accumulator {
    limits: Limits,
    topics: HashMap<Arc<str>, Topic>,
    brokers: HashMap<BrokerId, Pace>,
    identity: Option<Identity>,
    linger: Linger,
    /// When the sender looks again; a record that is due earlier wakes it.
    wake_at: Option<Instant>,
    stale: bool,
    used: bool,
    /// Start of the round over the partitions: where a request cannot take all, each comes first in its turn.
    turn: usize,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Linger {
    /// Records wait for company.
    Wait,
    /// The producer is closing: everything leaves at once.
    Skip,
}

#[derive(Debug)]
struct Topic {
    metadata: Arc<TopicMetadata>,
    partitions: Vec<Partition>,
    /// Where records without a key go at the moment.
    sticky: usize,
}

impl Topic {
    fn leader(&self, partition: usize) -> Option<BrokerId> {
        self.metadata.partitions.get(partition)?.leader
    }

    /// Java's rule for keyed records; others stay with one partition for as long as its batch is open.
    fn partition_for(&mut self, record: &OutRecord) -> usize {
        let count = self.metadata.partitions.len().max(1);
        if let Some(key) = &record.key {
            return index(partition_for_key(key, self.metadata.partition_count()));
        }
        if !self.partitions.get(self.sticky).is_some_and(Partition::has_open_batch) {
            self.sticky = (self.sticky + 1) % count;
        }
        self.sticky
    }
}

impl Accumulator {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            topics: HashMap::new(),
            brokers: HashMap::new(),
            identity: None,
            linger: Linger::Wait,
            wake_at: None,
            stale: false,
            used: false,
            turn: 0,
            counts: Counts::default(),
        }
    }

    /// The partition that takes `record`.
    pub(crate) fn place(&mut self, record: &OutRecord) -> Result<PartitionId, Unplaced> {
        let topic = self.topics.get_mut(&record.topic).ok_or(Unplaced::UnknownTopic)?;
        let partition = record.partition.map_or_else(|| topic.partition_for(record), index);
        if partition < topic.metadata.partitions.len() { Ok(id(partition)) } else { Err(Unplaced::UnknownPartition) }
    }

    /// Takes a record on that has its place and its share of the buffer.
    pub(crate) fn append(
        &mut self,
        record: &OutRecord,
        partition: PartitionId,
        charge: usize,
        now: Instant,
    ) -> Option<(Delivery, Wake)> {
        let topic = self.topics.get_mut(&record.topic)?;
        let slot = topic.partitions.get_mut(index(partition))?;
        let before = slot.readiness(now);
        let (state, number) = slot.append(record, charge, now, self.limits.batch);
        let after = slot.readiness(now);
        let leader = topic.leader(index(partition));
        self.used = true;
        self.counts.records += 1;
        self.counts.bytes += charge as u64;
        let wake = if before == after { Wake::Nobody } else { self.wake_for(after, leader, now) };
        Some((Delivery::new(state, partition, number), wake))
    }

    fn wake_for(&mut self, readiness: Readiness, leader: Option<BrokerId>, now: Instant) -> Wake {
        let due = match leader {
            Some(leader) => self.due_at(readiness, leader, now),
            None => Some(now),
        };
        match due {
            Some(due) if self.wake_at.is_none_or(|at| due < at) => {
                self.wake_at = Some(due);
                Wake::Sender
            }
            _ => Wake::Nobody,
        }
    }

    /// When a partition in this state is to be sent; `None` while its broker has enough under way.
    fn due_at(&self, readiness: Readiness, leader: BrokerId, now: Instant) -> Option<Instant> {
        let pace = self.brokers.get(&leader);
        let due = match readiness {
            Readiness::Nothing => return None,
            Readiness::At(at) => at,
            Readiness::Now => now,
            Readiness::Filling { .. } if self.linger == Linger::Skip => now,
            Readiness::Filling { since } => {
                since + pace.map_or(self.limits.pace.linger, |pace| pace.linger(self.limits.pace))
            }
        };
        let open = pace.map_or(Some(now), |pace| pace.open_at(now, self.limits.pace))?;
        Some(due.max(open))
    }

    /// Lets time act: settles what has expired, takes what is due.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        self.expire(now, &mut step.effects);
        let due = self.due_brokers(now, &mut step);
        for broker in due {
            let outgoing = self.request_for(broker, now, &mut step);
            step.requests.extend(outgoing);
        }
        step.needs.metadata |= self.stale;
        self.turn = self.turn.wrapping_add(1);
        self.wake_at = step.wake_at;
        self.absorb(&mut step.effects);
        step
    }

    fn expire(&mut self, now: Instant, effects: &mut Effects) {
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.expire(now, effects);
        }
    }

    fn due_brokers(&self, now: Instant, step: &mut Step) -> Vec<BrokerId> {
        let mut due = Vec::new();
        for topic in self.topics.values() {
            for (number, partition) in topic.partitions.iter().enumerate().filter(|(_, slot)| !slot.is_empty()) {
                step.look_again(partition.next_deadline());
                let readiness = partition.readiness(now);
                match topic.leader(number) {
                    None => step.needs.metadata |= readiness != Readiness::Nothing,
                    Some(leader) => match self.due_at(readiness, leader, now) {
                        Some(at) if at <= now && due.contains(&leader) => {}
                        Some(at) if at <= now => due.push(leader),
                        at => step.look_again(at),
                    },
                }
            }
        }
        due
    }

    fn request_for(&mut self, broker: BrokerId, now: Instant, step: &mut Step) -> Option<Outgoing> {
        let mut parcels = Vec::new();
        let mut bytes = 0;
        for topic in self.topics.values_mut() {
            let count = topic.partitions.len();
            for number in (0..count).map(|number| (number + self.turn) % count) {
                if topic.leader(number) != Some(broker) {
                    continue;
                }
                let partition = &mut topic.partitions[number];
                if !matches!(partition.readiness(now), Readiness::Now | Readiness::Filling { .. }) {
                    continue;
                }
                if !parcels.is_empty() && bytes + partition.head_len() > self.limits.request_bytes {
                    step.look_again(Some(now));
                    continue;
                }
                let Some((stamp, batch)) = partition.take(self.identity) else {
                    step.needs.identity = true;
                    continue;
                };
                bytes += batch.records.len();
                let topic = Arc::clone(&topic.metadata.name);
                parcels.push(Parcel { topic, partition: id(number), stamp, batch });
            }
        }
        (!parcels.is_empty()).then(|| self.outgoing(broker, parcels, now))
    }

    fn outgoing(&mut self, broker: BrokerId, parcels: Vec<Parcel>, now: Instant) -> Outgoing {
        let records = parcels.iter().map(|parcel| parcel.batch.records.count()).sum();
        self.brokers.entry(broker).or_insert_with(|| Pace::new(now)).sent(records, now);
        self.counts.requests += 1;
        self.counts.requests_in_flight += 1;
        self.counts.retries += parcels.iter().filter(|parcel| parcel.batch.attempts() > 1).count() as u64;
        Outgoing { broker, parcels }
    }

    /// A request has ended. The flag tells whether the broker's silence began or ended with it.
    pub(crate) fn complete(&mut self, finished: Finished, now: Instant, jitter: Jitter) -> (Effects, Turn) {
        let mut effects = Effects::default();
        self.counts.requests_in_flight = self.counts.requests_in_flight.saturating_sub(1);
        let turn = self.note_reply(finished.broker, finished.reply, now, jitter);
        for (parcel, answer) in finished.answers {
            self.stale |= matches!(answer, Answer::InDoubt | Answer::NotAppended);
            // After silence it is the broker that gets a pause: its partitions come back in one request, or at once
            // if another broker leads them by then.
            let pause = match finished.reply {
                Reply::Answered => backoff(parcel.batch.attempts(), jitter),
                Reply::None => std::time::Duration::ZERO,
            };
            if let Some(partition) = self.partition_mut(&parcel.topic, parcel.partition) {
                partition.complete(parcel.batch, answer, now + pause, &mut effects);
            }
        }
        self.absorb(&mut effects);
        (effects, turn)
    }

    fn note_reply(&mut self, broker: BrokerId, reply: Reply, now: Instant, jitter: Jitter) -> Turn {
        let pace = self.brokers.entry(broker).or_insert_with(|| Pace::new(now));
        let turned = match reply {
            Reply::Answered => pace.answered(),
            Reply::None => pace.failed(now, jitter),
        };
        match (reply, turned) {
            (Reply::Answered, true) => Turn::Better,
            (Reply::None, true) => Turn::Worse,
            (_, false) => Turn::AsBefore,
        }
    }

    fn partition_mut(&mut self, topic: &Arc<str>, partition: PartitionId) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.partitions.get_mut(index(partition))
    }

    fn absorb(&mut self, effects: &mut Effects) {
        self.counts.delivered += effects.delivered;
        self.counts.failed += effects.failed;
        if self.identity.is_some_and(|identity| effects.spent_identities.contains(&identity.producer_id)) {
            self.identity = None;
        }
        effects.spent_identities.clear();
    }

    /// Takes over what the cluster says of a topic; partitions whose leader has changed need not wait any longer.
    pub(crate) fn learn_topic(&mut self, metadata: Arc<TopicMetadata>) {
        let topic = self.topics.entry(Arc::clone(&metadata.name)).or_insert_with(|| Topic {
            metadata: Arc::clone(&metadata),
            partitions: Vec::new(),
            sticky: 0,
        });
        if topic.partitions.len() < metadata.partitions.len() {
            topic.partitions.resize_with(metadata.partitions.len(), Partition::default);
        }
        for (slot, (old, new)) in
            topic.partitions.iter_mut().zip(topic.metadata.partitions.iter().zip(&metadata.partitions))
        {
            if old.leader != new.leader {
                slot.retry_now();
            }
        }
        topic.metadata = metadata;
    }

    /// Whether `metadata` is what the topic goes by already.
    pub(crate) fn goes_by(&self, metadata: &Arc<TopicMetadata>) -> bool {
        self.topics.get(&metadata.name).is_some_and(|topic| Arc::ptr_eq(&topic.metadata, metadata))
    }

    /// What is known of the leaders is out of date.
    pub(crate) fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// The topics that records were enqueued for, or were to be.
    pub(crate) fn topic_names(&self) -> Vec<Arc<str>> {
        self.topics.keys().cloned().collect()
    }

    /// Whether there is a topic to send to.
    pub(crate) fn knows_topics(&self) -> bool {
        !self.topics.is_empty()
    }

    /// The metadata was asked for again: what is stale or used from now on asks for the next time.
    pub(crate) fn metadata_refreshed(&mut self) {
        self.stale = false;
        self.used = false;
    }

    /// Whether records were enqueued since the metadata was last asked for.
    pub(crate) fn used_since_refresh(&self) -> bool {
        self.used
    }

    /// Whether there is a producer id for the next partition that needs one.
    pub(crate) fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// The cluster has given us a producer id.
    pub(crate) fn learn_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// The cluster will not give us a producer id: what waits for one is refused with its code.
    pub(crate) fn refuse_unidentified(&mut self, code: ResponseError) -> Effects {
        let mut effects = Effects::default();
        let partitions = self.topics.values_mut().flat_map(|topic| &mut topic.partitions);
        for partition in partitions.filter(|partition| partition.needs_identity()) {
            partition.give_up(ProduceError::Refused { code }, &mut effects);
        }
        self.absorb(&mut effects);
        effects
    }

    /// From now on everything leaves at once.
    pub(crate) fn skip_linger(&mut self) {
        self.linger = Linger::Skip;
    }

    /// Settles everything that is still here.
    pub(crate) fn give_up(&mut self, error: ProduceError) -> Effects {
        let mut effects = Effects::default();
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.give_up(error, &mut effects);
        }
        self.absorb(&mut effects);
        effects
    }

    /// Whether nothing is queued or under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.values().all(|topic| topic.partitions.iter().all(Partition::is_empty))
    }

    /// What went through so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Number of partitions of a topic, if it is known.
    pub(crate) fn partition_count(&self, topic: &str) -> Option<i32> {
        self.topics.get(topic).map(|topic| topic.metadata.partition_count())
    }
}

/// Whether a broker began or ceased to be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Better,
    Worse,
    AsBefore,
}

impl Step {
    fn look_again(&mut self, at: Option<Instant>) {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
    }
}

/// Place of a partition in a topic's list.
fn index(partition: PartitionId) -> usize {
    usize::try_from(partition.0).unwrap_or(usize::MAX)
}

fn id(index: usize) -> PartitionId {
    PartitionId(i32::try_from(index).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures::FutureExt;

    use super::*;
    use crate::cluster::PartitionMetadata;
    use crate::types::Offset;

    const LINGER: Duration = Duration::from_millis(5);
    const LIMITS: Limits = Limits {
        batch: BatchLimits { bytes: 1_000, delivery_timeout: Duration::from_secs(10) },
        pace: PaceLimits { linger: LINGER, linger_max: LINGER, max_in_flight: 2 },
        request_bytes: 10_000,
    };
    const ID: Identity = Identity { producer_id: 7, epoch: 0 };
    const LEFT: BrokerId = BrokerId(1);
    const RIGHT: BrokerId = BrokerId(2);

    fn metadata(leaders: &[Option<BrokerId>]) -> Arc<TopicMetadata> {
        let partitions = leaders.iter().enumerate().map(|(number, leader)| PartitionMetadata {
            id: id(number),
            leader: *leader,
            preferred: None,
            replicas: 1,
            in_sync: 1,
        });
        Arc::new(TopicMetadata { name: "t".into(), topic_id: [0; 16], partitions: partitions.collect() })
    }

    fn accumulator(leaders: &[Option<BrokerId>]) -> Accumulator {
        let mut accumulator = Accumulator::new(LIMITS);
        accumulator.learn_topic(metadata(leaders));
        accumulator.learn_identity(ID);
        accumulator
    }

    fn record(partition: i32) -> OutRecord {
        OutRecord {
            topic: "t".into(),
            partition: Some(PartitionId(partition)),
            key: None,
            value: Some(Bytes::from_static(b"value")),
            headers: Vec::new(),
            timestamp_ms: 0,
        }
    }

    fn put(accumulator: &mut Accumulator, record: &OutRecord, now: Instant) -> (Delivery, Wake) {
        let partition = accumulator.place(record).expect("the topic is known");
        accumulator.append(record, partition, record.charge(), now).expect("the partition is there")
    }

    /// (broker, partitions) of each request.
    fn requests(step: &Step) -> Vec<(BrokerId, Vec<i32>)> {
        let partitions = |outgoing: &Outgoing| outgoing.parcels.iter().map(|parcel| parcel.partition.0).collect();
        step.requests.iter().map(|outgoing| (outgoing.broker, partitions(outgoing))).collect()
    }

    fn answered(outgoing: Outgoing, answer: Answer) -> Finished {
        let answers = outgoing.parcels.into_iter().map(|parcel| (parcel, answer)).collect();
        Finished { broker: outgoing.broker, reply: Reply::Answered, answers }
    }

    fn unanswered(outgoing: Outgoing, answer: Answer) -> Finished {
        Finished { reply: Reply::None, ..answered(outgoing, answer) }
    }

    #[test]
    fn the_first_record_starts_the_linger_and_the_others_ride_along() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[Some(LEFT), Some(LEFT), Some(RIGHT)]);
        assert_eq!(put(&mut accumulator, &record(0), now).1, Wake::Sender);
        assert_eq!(put(&mut accumulator, &record(0), now).1, Wake::Nobody);
        let later = now + LINGER / 2;
        assert_eq!(put(&mut accumulator, &record(1), later).1, Wake::Nobody);
        assert_eq!(put(&mut accumulator, &record(2), later).1, Wake::Nobody);
        let step = accumulator.step(later);
        assert_eq!((requests(&step), step.wake_at), (vec![], Some(now + LINGER)));
        let mut step = accumulator.step(now + LINGER);
        step.requests.iter_mut().for_each(|outgoing| outgoing.parcels.sort_by_key(|parcel| parcel.partition));
        assert_eq!(requests(&step), [(LEFT, vec![0, 1])]);
        assert_eq!(requests(&accumulator.step(later + LINGER)), [(RIGHT, vec![2])]);
    }

    #[test]
    fn an_idle_accumulator_asks_for_nothing() {
        let step = accumulator(&[Some(LEFT)]).step(Instant::now());
        assert_eq!((step.wake_at, step.needs), (None, Needs::default()));
    }

    #[test]
    fn a_full_batch_leaves_at_once() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[Some(LEFT)]);
        let mut wakes = 0;
        for _ in 0..100 {
            wakes += usize::from(put(&mut accumulator, &record(0), now).1 == Wake::Sender);
        }
        assert_eq!(wakes, 2, "once for the linger, once for the full batch");
        assert_eq!(requests(&accumulator.step(now)), [(LEFT, vec![0])]);
    }

    #[test]
    fn a_broker_has_no_more_than_its_share_of_requests_under_way() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[Some(LEFT), Some(LEFT), Some(LEFT)]);
        let mut under_way = Vec::new();
        for partition in 0..2 {
            put(&mut accumulator, &record(partition), now).0.now_or_never();
            under_way.extend(accumulator.step(now + LINGER).requests);
        }
        assert_eq!(put(&mut accumulator, &record(2), now).1, Wake::Nobody);
        assert_eq!(requests(&accumulator.step(now + LINGER)), []);
        let finished = answered(under_way.remove(0), Answer::Appended(None));
        accumulator.complete(finished, now, Jitter(1.0));
        assert_eq!(requests(&accumulator.step(now + LINGER)), [(LEFT, vec![2])]);
    }

    #[test]
    fn a_request_is_bounded_and_the_rest_follows_at_once() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[Some(LEFT); 20]);
        for partition in 0..20 {
            for _ in 0..10 {
                put(&mut accumulator, &record(partition), now).0.now_or_never();
            }
        }
        accumulator.limits.request_bytes = 2_000;
        let mut sent = 0;
        for _ in 0..20 {
            let step = accumulator.step(now + LINGER);
            let Some(outgoing) = step.requests.into_iter().next() else { break };
            let bytes: usize = outgoing.parcels.iter().map(|parcel| parcel.batch.records.len()).sum();
            assert!(bytes <= 2_000);
            sent += outgoing.parcels.len();
            assert!(sent == 20 || step.wake_at == Some(now + LINGER));
            accumulator.complete(answered(outgoing, Answer::Appended(None)), now, Jitter(1.0));
        }
        assert_eq!(sent, 20);
    }

    #[test]
    fn a_partition_without_leader_asks_for_metadata_and_goes_when_it_has_one() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[None]);
        assert_eq!(put(&mut accumulator, &record(0), now).1, Wake::Sender);
        let step = accumulator.step(now + LINGER);
        assert_eq!((requests(&step), step.needs.metadata), (vec![], true));
        accumulator.learn_topic(metadata(&[Some(RIGHT)]));
        assert_eq!(requests(&accumulator.step(now + LINGER)), [(RIGHT, vec![0])]);
    }

    #[test]
    fn a_moved_leader_is_followed_without_waiting_for_the_pause() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[Some(LEFT)]);
        let (_delivery, _) = put(&mut accumulator, &record(0), now);
        let outgoing = accumulator.step(now + LINGER).requests.remove(0);
        accumulator.complete(answered(outgoing, Answer::InDoubt), now, Jitter(1.0));
        let step = accumulator.step(now);
        assert_eq!((requests(&step), step.needs.metadata), (vec![], true));
        accumulator.learn_topic(metadata(&[Some(RIGHT)]));
        assert_eq!(requests(&accumulator.step(now)), [(RIGHT, vec![0])]);
    }

    #[test]
    fn a_silent_broker_is_left_alone_for_a_while_and_then_gets_one_request() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[Some(LEFT), Some(LEFT), Some(RIGHT)]);
        let (_first, _) = put(&mut accumulator, &record(0), now);
        let outgoing = accumulator.step(now + LINGER).requests.remove(0);
        let (_, turn) = accumulator.complete(unanswered(outgoing, Answer::InDoubt), now, Jitter(1.0));
        assert_eq!(turn, Turn::Worse);
        let (_second, _) = put(&mut accumulator, &record(1), now);
        let (_third, _) = put(&mut accumulator, &record(2), now);
        let step = accumulator.step(now + LINGER);
        assert_eq!(requests(&step), [(RIGHT, vec![2])]);
        let again_at = step.wake_at.unwrap();
        let mut step = accumulator.step(again_at);
        step.requests[0].parcels.sort_by_key(|parcel| parcel.partition);
        assert_eq!(requests(&step), [(LEFT, vec![0, 1])]);
        let (_, turn) =
            accumulator.complete(answered(step.requests.remove(0), Answer::Appended(None)), now, Jitter(1.0));
        assert_eq!(turn, Turn::Better);
    }

    #[test]
    fn nothing_leaves_without_a_producer_id_and_a_refused_one_is_told() {
        let now = Instant::now();
        let mut accumulator = Accumulator::new(LIMITS);
        accumulator.learn_topic(metadata(&[Some(LEFT)]));
        let (delivery, _) = put(&mut accumulator, &record(0), now);
        let step = accumulator.step(now + LINGER);
        assert_eq!((requests(&step), step.needs.identity), (vec![], true));
        let code = ResponseError::ClusterAuthorizationFailed;
        accumulator.refuse_unidentified(code).tell();
        assert_eq!(delivery.now_or_never(), Some(Err(ProduceError::Refused { code })));
    }

    #[test]
    fn one_partitions_lost_identity_does_not_concern_the_others() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[Some(LEFT), Some(LEFT)]);
        let _deliveries = [0, 1].map(|partition| put(&mut accumulator, &record(partition), now));
        let outgoing = accumulator.step(now + LINGER).requests.remove(0);
        let answers = outgoing.parcels.into_iter().map(|parcel| {
            let lost = parcel.partition == PartitionId(0);
            (parcel, if lost { Answer::IdentityLost } else { Answer::Appended(Some(Offset(0))) })
        });
        let finished = Finished { broker: LEFT, reply: Reply::Answered, answers: answers.collect() };
        accumulator.complete(finished, now, Jitter(1.0));
        assert!(!accumulator.has_identity());
        let _again = put(&mut accumulator, &record(1), now);
        let later = now + Duration::from_secs(1);
        let step = accumulator.step(later);
        assert_eq!((requests(&step), step.needs.identity), (vec![(LEFT, vec![1])], true));
        accumulator.learn_identity(Identity { producer_id: 8, epoch: 0 });
        let step = accumulator.step(later);
        assert_eq!(step.requests[0].parcels[0].stamp, Stamp { producer_id: 8, epoch: 0, base_sequence: 0 });
    }

    #[test]
    fn closing_sends_what_lingers() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[Some(LEFT)]);
        let (_delivery, _) = put(&mut accumulator, &record(0), now);
        assert_eq!(requests(&accumulator.step(now)), []);
        accumulator.skip_linger();
        assert_eq!(requests(&accumulator.step(now)), [(LEFT, vec![0])]);
    }

    #[test]
    fn keys_use_new_partitions_as_soon_as_they_are_known() {
        let mut accumulator = accumulator(&[Some(LEFT)]);
        let keyed = OutRecord { partition: None, key: Some(Bytes::from_static(b"driver-17")), ..record(0) };
        assert_eq!(accumulator.place(&keyed), Ok(PartitionId(0)));
        accumulator.learn_topic(metadata(&[Some(LEFT); 48]));
        assert_eq!(accumulator.place(&keyed), Ok(partition_for_key(b"driver-17", 48)));
        assert_eq!(accumulator.place(&record(48)), Err(Unplaced::UnknownPartition));
        let elsewhere = OutRecord { topic: "other".into(), ..record(0) };
        assert_eq!(accumulator.place(&elsewhere), Err(Unplaced::UnknownTopic));
    }

    #[test]
    fn records_without_key_fill_one_batch_before_they_go_to_the_next_partition() {
        let now = Instant::now();
        let mut accumulator = accumulator(&[Some(LEFT), Some(LEFT)]);
        let anywhere = OutRecord { partition: None, ..record(0) };
        let mut partitions = Vec::new();
        for _ in 0..2 {
            for _ in 0..3 {
                partitions.push(put(&mut accumulator, &anywhere, now).0.partition().0);
            }
            accumulator.step(now + LINGER);
        }
        assert_eq!(partitions, [1, 1, 1, 0, 0, 0]);
    }
}
