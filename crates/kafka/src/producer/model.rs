//! The whole state machine against a model of the broker, under every mishap that a wire knows: lost requests, lost
//! answers, requests that arrive long after we gave them up, deposed leaders, full replicas, time passing.
//!
//! The model's rules are those of Kafka's `ProducerStateManager` and `ProducerAppendInfo`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::FutureExt;
use kafka_protocol::error::ResponseError;
use kafka_protocol::records::RecordBatchDecoder;
use proptest::prelude::*;
use tokio::time::Instant;

use super::accumulator::{Accumulator, Finished, Limits, Outgoing, Reply};
use super::answer::Answer;
use super::batch::Compression;
use super::delivery::{Delivered, Delivery, ProduceError};
use super::pace::{Jitter, PaceLimits};
use super::partition::BatchLimits;
use super::record::OutRecord;
use super::sequence::Identity;
use crate::cluster::{PartitionMetadata, TopicMetadata};
use crate::types::{BrokerId, Offset, PartitionId};

const PARTITIONS: usize = 3;
const LIMITS: Limits = Limits {
    batch: BatchLimits { bytes: 400, delivery_timeout: Duration::from_secs(5) },
    pace: PaceLimits { linger: Duration::from_millis(5), linger_max: Duration::from_millis(20), max_in_flight: 2 },
    request_bytes: 1_000,
};
/// Batches whose offsets a broker remembers for each producer.
const REMEMBERED: usize = 5;

/// One partition's log and what its leader knows of the producers.
#[derive(Default)]
struct Log {
    records: Vec<u32>,
    producers: HashMap<i64, Known>,
}

#[derive(Default)]
struct Known {
    epoch: i16,
    last_sequence: i32,
    recent: VecDeque<(i32, Offset)>,
}

impl Log {
    fn append(&mut self, mut batch: Bytes) -> Result<Offset, ResponseError> {
        let records = RecordBatchDecoder::decode(&mut batch).unwrap().records;
        let (first, count) = (records[0].clone(), i32::try_from(records.len()).unwrap());
        let known = self.producers.entry(first.producer_id).or_insert_with(|| Known {
            epoch: first.producer_epoch,
            last_sequence: first.sequence - 1,
            recent: VecDeque::new(),
        });
        if first.producer_epoch < known.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if first.producer_epoch > known.epoch {
            if first.sequence != 0 {
                return Err(ResponseError::OutOfOrderSequenceNumber);
            }
            *known = Known { epoch: first.producer_epoch, last_sequence: -1, recent: VecDeque::new() };
        }
        if let Some((_, offset)) = known.recent.iter().find(|(sequence, _)| *sequence == first.sequence) {
            return Ok(*offset);
        }
        if first.sequence != known.last_sequence + 1 {
            return Err(ResponseError::OutOfOrderSequenceNumber);
        }
        let offset = Offset(i64::try_from(self.records.len()).unwrap());
        known.last_sequence += count;
        known.recent.push_back((first.sequence, offset));
        if known.recent.len() > REMEMBERED {
            known.recent.pop_front();
        }
        self.records.extend(records.iter().map(|record| record.value.clone().unwrap().get_u32()));
        Ok(offset)
    }
}

/// What may happen next.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    Enqueue(usize),
    Pass(Duration),
    /// A request under way (by its place) meets its fate.
    Fate(usize, Fate),
    /// A request that we gave up reaches the broker after all.
    Ghost(usize),
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    AnswerLost,
    RequestLost,
    /// Given up by us while it still lies in a socket.
    Delayed,
    NeverSent,
    NotEnoughReplicas,
    NotLeader,
    AppendedByADeposedLeader,
    TooLarge,
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        2 => Just(Fate::AnswerLost),
        1 => Just(Fate::RequestLost),
        2 => Just(Fate::Delayed),
        1 => Just(Fate::NeverSent),
        1 => Just(Fate::NotEnoughReplicas),
        1 => Just(Fate::NotLeader),
        1 => Just(Fate::AppendedByADeposedLeader),
        1 => Just(Fate::TooLarge),
    ];
    prop_oneof![
        6 => (0..PARTITIONS).prop_map(Mishap::Enqueue),
        4 => prop_oneof![Just(7), Just(60), Just(1_100), Just(3_000)].prop_map(|ms| Mishap::Pass(Duration::from_millis(ms))),
        6 => (0..4_usize, fate).prop_map(|(place, fate)| Mishap::Fate(place, fate)),
        1 => (0..8_usize).prop_map(Mishap::Ghost),
    ]
}

/// Producer, wire and broker.
struct World {
    now: Instant,
    accumulator: Accumulator,
    logs: Vec<Log>,
    under_way: Vec<Outgoing>,
    ghosts: Vec<(usize, Bytes)>,
    deliveries: Vec<(usize, Delivery)>,
    next_identity: i64,
}

impl World {
    fn new() -> Self {
        let mut accumulator = Accumulator::new(LIMITS);
        let partitions = (0..PARTITIONS).map(|number| PartitionMetadata {
            id: PartitionId(i32::try_from(number).unwrap()),
            leader: Some(BrokerId(i32::try_from(number % 2).unwrap())),
            preferred: None,
            replicas: 1,
            in_sync: 1,
        });
        let topic = TopicMetadata { name: "t".into(), topic_id: [0; 16], partitions: partitions.collect() };
        accumulator.learn_topic(Arc::new(topic));
        Self {
            now: Instant::now(),
            accumulator,
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            under_way: Vec::new(),
            ghosts: Vec::new(),
            deliveries: Vec::new(),
            next_identity: 0,
        }
    }

    fn happen(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Enqueue(partition) => self.enqueue(partition),
            Mishap::Pass(time) => self.now += time,
            Mishap::Fate(place, fate) if place < self.under_way.len() => self.meet(place, fate),
            Mishap::Ghost(place) if place < self.ghosts.len() => {
                let (partition, batch) = self.ghosts.swap_remove(place);
                let _ = self.logs[partition].append(batch);
            }
            Mishap::Fate(..) | Mishap::Ghost(_) => {}
        }
        self.step();
    }

    fn enqueue(&mut self, partition: usize) {
        let number = u32::try_from(self.deliveries.len()).unwrap();
        let record = OutRecord {
            topic: "t".into(),
            partition: Some(PartitionId(i32::try_from(partition).unwrap())),
            key: None,
            value: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
            headers: Vec::new(),
            timestamp_ms: 0,
        };
        let place = self.accumulator.place(&record).unwrap();
        let (delivery, _) = self.accumulator.append(&record, place, record.charge(), self.now).unwrap();
        self.deliveries.push((partition, delivery));
    }

    fn step(&mut self) {
        let mut step = self.accumulator.step(self.now);
        step.effects.tell();
        self.under_way.append(&mut step.requests);
        if step.needs.identity {
            self.accumulator.learn_identity(Identity { producer_id: self.next_identity, epoch: 0 });
            self.next_identity += 1;
        }
    }

    fn meet(&mut self, place: usize, fate: Fate) {
        let Outgoing { broker, parcels } = self.under_way.swap_remove(place);
        let reply = match fate {
            Fate::AnswerLost | Fate::RequestLost | Fate::Delayed | Fate::NeverSent => Reply::None,
            _ => Reply::Answered,
        };
        let mut answers = Vec::new();
        for parcel in parcels {
            let partition = usize::try_from(parcel.partition.0).unwrap();
            let wire = parcel.batch.records.wire(parcel.stamp, Compression::None);
            answers.push((parcel, self.answer(partition, wire, fate)));
        }
        let (mut effects, _) = self.accumulator.complete(Finished { broker, reply, answers }, self.now, Jitter(0.5));
        effects.tell();
    }

    fn answer(&mut self, partition: usize, wire: Bytes, fate: Fate) -> Answer {
        let log = &mut self.logs[partition];
        let refused = |code: ResponseError| Answer::from_code(code.code(), -1);
        match fate {
            Fate::Answered => match log.append(wire) {
                Ok(offset) => Answer::from_code(0, offset.0),
                Err(code) => refused(code),
            },
            Fate::AnswerLost => {
                let _ = log.append(wire);
                Answer::InDoubt
            }
            Fate::RequestLost => Answer::InDoubt,
            Fate::Delayed => {
                self.ghosts.push((partition, wire));
                Answer::InDoubt
            }
            Fate::NeverSent => Answer::NotAppended,
            Fate::NotEnoughReplicas => refused(ResponseError::NotEnoughReplicas),
            Fate::NotLeader => refused(ResponseError::NotLeaderOrFollower),
            Fate::AppendedByADeposedLeader => match log.append(wire) {
                Ok(offset) => Answer::from_code(ResponseError::NotLeaderOrFollower.code(), offset.0),
                Err(code) => refused(code),
            },
            Fate::TooLarge => refused(ResponseError::MessageTooLarge),
        }
    }

    /// The wire behaves until everything has an outcome; then the ghosts come.
    fn calm_down(&mut self) {
        for _ in 0..200 {
            self.now += Duration::from_millis(200);
            self.step();
            while !self.under_way.is_empty() {
                self.meet(0, Fate::Answered);
            }
        }
        assert!(self.accumulator.is_empty(), "everything ends");
        for (partition, batch) in std::mem::take(&mut self.ghosts) {
            let _ = self.logs[partition].append(batch);
        }
    }

    fn check(self) {
        for log in &self.logs {
            assert!(log.records.is_sorted_by(|a, b| a < b), "in order of enqueue, and none twice: {:?}", log.records);
        }
        for (number, (partition, delivery)) in (0..).zip(self.deliveries) {
            let log = &self.logs[partition].records;
            let position = log.iter().position(|record| *record == number).map(|at| Offset(i64::try_from(at).unwrap()));
            match delivery.now_or_never().expect("every record has an outcome") {
                Ok(Delivered { offset, .. }) => assert_eq!(position, offset, "acknowledged record {number}"),
                Err(ProduceError::TimedOut) => {}
                Err(certain) => assert_eq!(position, None, "record {number} is certainly not in Kafka: {certain}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_mishap_loses_repeats_or_reorders_a_record(mishaps in proptest::collection::vec(mishap(), 0..300)) {
        let mut world = World::new();
        mishaps.into_iter().for_each(|mishap| world.happen(mishap));
        world.calm_down();
        world.check();
    }
}
