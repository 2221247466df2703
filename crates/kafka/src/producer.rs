//! Producing: idempotent, in order for each partition, with bounded memory, and an end to every call.
//!
//! ```text
//!  enqueue / send ──▶ Accumulator: topic → partition → batches ──▶ SenderTask ──▶ one request a broker ──▶ Kafka
//!       │               (encoded on arrival, under one lock)          │  ▲
//!       ▼                                                             │  └─ leaders, producer ids
//!   Delivery ◀───────────────── outcome of the batch ─────────────────┘
//! ```
//! - A record's outcome is an acknowledgement by all in-sync replicas, a refusal, "certainly not in Kafka" or "unknown":
//!   see [`ProduceError`]. It comes at the latest when `delivery_timeout` has passed since the record was enqueued
//!   (a tenth earlier for records that joined a batch late).
//! - Records of a partition are appended in the order of `enqueue`, and a retry never appends one twice: see
//!   `producer/sequence.rs`. When a topic's partitions grow, keys move to other partitions, as with Java's clients.
//! - A full buffer hands the record back ([`Producer::enqueue`]) or makes the caller wait ([`Producer::send`]).

mod accumulator;
mod answer;
mod batch;
mod delivery;
mod lz4;
#[cfg(test)]
mod model;
mod pace;
mod partition;
mod record;
mod sender;
mod sequence;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{SemaphorePermit, TryAcquireError};
use tokio::time::Instant;

use self::accumulator::{Accumulator, Limits, Unplaced, Wake};
use self::pace::{Jitter, PaceLimits, backoff};
use self::partition::BatchLimits;
use self::sender::{Phase, SenderTask, Shared};
use crate::cluster::Client;
use crate::error::Error;

pub use self::batch::Compression;
pub use self::delivery::{Delivered, Delivery, ProduceError};
pub use self::record::{Header, OutRecord};

/// Time that the first record of an idle producer waits for company.
pub const LINGER: Duration = Duration::from_millis(5);
/// The same under full load.
pub const LINGER_MAX: Duration = Duration::from_millis(20);
/// Size of a batch, within the topic's default `max.message.bytes` of 1 MiB.
pub const BATCH_BYTES: usize = 256 * 1024;
/// Memory for records whose outcome is not known yet.
pub const BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// Time from enqueueing a record to its outcome.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests under way to one broker.
pub const MAX_IN_FLIGHT_PER_BROKER: usize = 2;
/// Bytes beyond which a request takes no further batch; far below a broker's `socket.request.max.bytes` (100 MiB).
const REQUEST_BYTES: usize = 8 * 1024 * 1024;
/// The largest record that is tried at all. What a topic takes is for its broker to say.
const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

/// How to produce.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// Time that the first record of an idle producer waits for company.
    pub linger: Duration,
    /// The linger grows towards this with the load.
    pub linger_max: Duration,
    /// Size beyond which a batch takes no further record; a larger record makes a batch of its own.
    pub batch_bytes: usize,
    /// Memory for records whose outcome is not known yet.
    pub buffer_bytes: usize,
    /// Time from enqueueing a record to its outcome.
    pub delivery_timeout: Duration,
    /// How batches are packed.
    pub compression: Compression,
    /// Requests under way to one broker; a partition has one at most.
    pub max_in_flight_per_broker: usize,
}

impl ProducerConfig {
    /// The named values of this module.
    pub fn standard() -> Self {
        Self {
            linger: LINGER,
            linger_max: LINGER_MAX,
            batch_bytes: BATCH_BYTES,
            buffer_bytes: BUFFER_BYTES,
            delivery_timeout: DELIVERY_TIMEOUT,
            compression: Compression::None,
            max_in_flight_per_broker: MAX_IN_FLIGHT_PER_BROKER,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            batch: BatchLimits { bytes: self.batch_bytes, delivery_timeout: self.delivery_timeout },
            pace: PaceLimits {
                linger: self.linger,
                linger_max: self.linger_max,
                max_in_flight: self.max_in_flight_per_broker.max(1),
            },
            request_bytes: REQUEST_BYTES,
        }
    }
}

/// A record that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected {
    /// The record, to be tried again or told about.
    pub record: Box<OutRecord>,
    /// Why it was not taken.
    pub reason: RejectReason,
}

/// Why a record was not taken. It is certainly not in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// The buffer is full: Kafka takes records more slowly than they come.
    #[error("the producer's buffer is full")]
    BufferFull,
    /// The topic's partitions are not known: [`Producer::warm`] has not succeeded yet.
    #[error("the topic's partitions are not known yet")]
    NoMetadata,
    /// The topic has no partition of that number.
    #[error("the topic has no such partition")]
    NoSuchPartition,
    /// The record could never fit.
    #[error("the record is larger than the producer's buffer or 16 MiB")]
    TooLarge,
    /// The producer is closed.
    #[error("the producer is closed")]
    Closed,
}

/// What a producer did so far, and holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStats {
    /// Records taken on.
    pub records: u64,
    /// Their bytes, as counted against the buffer.
    pub bytes: u64,
    /// Records acknowledged.
    pub delivered: u64,
    /// Records given up: refused, expired, closed.
    pub failed: u64,
    /// Produce requests sent.
    pub requests: u64,
    /// Batches sent again.
    pub retries: u64,
    /// Produce requests under way.
    pub requests_in_flight: usize,
    /// Bytes of the buffer in use.
    pub buffered_bytes: usize,
}

/// Handle to a producer; clones share it. When the last one is dropped, what is enqueued is still sent.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

struct Handle {
    client: Client,
    config: ProducerConfig,
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(Instant::now() + self.config.delivery_timeout);
    }
}

impl Producer {
    /// A producer on `client`'s cluster. Does no I/O yet, but starts a task: call it inside a tokio runtime.
    pub fn new(client: Client, config: ProducerConfig) -> Self {
        let shared = Arc::new(Shared::new(Accumulator::new(config.limits()), config.buffer_bytes));
        let task = SenderTask::new(client.clone(), Arc::clone(&shared), config.compression);
        tokio::spawn(task.run());
        Self { handle: Arc::new(Handle { client, config, shared }) }
    }

    /// Learns the partitions of `topic`, so that records for it can be enqueued.
    ///
    /// # Errors
    /// What kept the cluster from answering, or that the topic is not there. Try again where waiting may help.
    pub async fn warm(&self, topic: &str) -> Result<(), Error> {
        let metadata = self.handle.client.topic(topic).await?;
        self.shared().lock().accumulator.learn_topic(metadata);
        self.shared().wake();
        Ok(())
    }

    /// Takes a record on without waiting.
    ///
    /// # Errors
    /// [`Rejected`] hands the record back; it is certainly not in Kafka.
    pub fn enqueue(&self, record: OutRecord) -> Result<Delivery, Rejected> {
        self.put(record, None)
    }

    /// Takes a record on, waiting for room in the buffer and for the topic's metadata, no longer than the delivery
    /// time-out.
    ///
    /// # Errors
    /// [`Rejected`] hands the record back; it is certainly not in Kafka.
    pub async fn send(&self, record: OutRecord) -> Result<Delivery, Rejected> {
        let until = Instant::now() + self.handle.config.delivery_timeout;
        let charge = record.charge();
        let (mut record, mut room, mut attempt) = (record, None, 0);
        loop {
            let rejected = match self.put(record, room.take()) {
                Ok(delivery) => return Ok(delivery),
                Err(rejected) => rejected,
            };
            attempt += 1;
            let helped = async {
                match rejected.reason {
                    RejectReason::BufferFull => room = self.wait_for_room(charge).await,
                    RejectReason::NoMetadata => self.wait_for_metadata(&rejected.record.topic, attempt).await,
                    RejectReason::NoSuchPartition | RejectReason::TooLarge | RejectReason::Closed => return Err(()),
                }
                Ok(())
            };
            match tokio::time::timeout_at(until, helped).await {
                Ok(Ok(())) => record = *rejected.record,
                Ok(Err(())) | Err(_) => return Err(rejected),
            }
        }
    }

    /// Takes no more records, waits until the outcome of every enqueued one is known, but no longer than `limit`.
    /// What is left then is given up: [`ProduceError::Closed`], or [`ProduceError::TimedOut`] where it was sent.
    pub async fn close(&self, limit: Duration) {
        self.shared().close(Instant::now() + limit);
        self.shared().ended().await;
    }

    /// What the producer did so far, and holds now.
    pub fn stats(&self) -> ProducerStats {
        let counts = self.shared().lock().accumulator.counts();
        let free = self.shared().room.available_permits();
        ProducerStats {
            records: counts.records,
            bytes: counts.bytes,
            delivered: counts.delivered,
            failed: counts.failed,
            requests: counts.requests,
            retries: counts.retries,
            requests_in_flight: counts.requests_in_flight,
            buffered_bytes: self.handle.config.buffer_bytes.saturating_sub(free),
        }
    }

    /// Number of partitions of a topic, once [`Producer::warm`] has learned it.
    pub fn partition_count(&self, topic: &str) -> Option<i32> {
        self.shared().lock().accumulator.partition_count(topic)
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    fn put(&self, record: OutRecord, room: Option<SemaphorePermit<'_>>) -> Result<Delivery, Rejected> {
        match self.try_put(&record, room) {
            Ok((delivery, Wake::Sender)) => {
                self.shared().wake();
                Ok(delivery)
            }
            Ok((delivery, Wake::Nobody)) => Ok(delivery),
            Err(reason) => Err(Rejected { record: Box::new(record), reason }),
        }
    }

    fn try_put(&self, record: &OutRecord, room: Option<SemaphorePermit<'_>>) -> Result<(Delivery, Wake), RejectReason> {
        let charge = record.charge();
        if charge > self.handle.config.buffer_bytes.min(MAX_RECORD_BYTES) {
            return Err(RejectReason::TooLarge);
        }
        let mut state = self.shared().lock();
        if state.phase != Phase::Open {
            return Err(RejectReason::Closed);
        }
        let partition = state.accumulator.place(record)?;
        // The room is taken under the lock, so that no two threads overtake each other between room and place.
        match room {
            Some(held) => held.forget(),
            None => self.shared().room.try_acquire_many(permits(charge))?.forget(),
        }
        state.accumulator.append(record, partition, charge, Instant::now()).ok_or(RejectReason::NoMetadata)
    }

    /// `None` when the producer is closed meanwhile; the next attempt says so.
    async fn wait_for_room(&self, charge: usize) -> Option<SemaphorePermit<'_>> {
        self.shared().room.acquire_many(permits(charge)).await.ok()
    }

    async fn wait_for_metadata(&self, topic: &str, attempt: u32) {
        if let Err(error) = self.warm(topic).await {
            tracing::debug!(topic, %error, "the topic's partitions cannot be learned");
            tokio::time::sleep(backoff(attempt, Jitter(rand::random()))).await;
        }
    }
}

/// At most [`MAX_RECORD_BYTES`].
fn permits(charge: usize) -> u32 {
    u32::try_from(charge).unwrap_or(u32::MAX)
}

impl From<Unplaced> for RejectReason {
    fn from(unplaced: Unplaced) -> Self {
        match unplaced {
            Unplaced::UnknownTopic => Self::NoMetadata,
            Unplaced::UnknownPartition => Self::NoSuchPartition,
        }
    }
}

impl From<TryAcquireError> for RejectReason {
    fn from(error: TryAcquireError) -> Self {
        match error {
            TryAcquireError::NoPermits => Self::BufferFull,
            TryAcquireError::Closed => Self::Closed,
        }
    }
}
