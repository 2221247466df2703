//! What a writer brings: how a record becomes an event, and where events go.

use std::collections::HashMap;
use std::future::Future;

use kafka::{Offset, Record, TopicPartition};

/// Turns a record into an event, or says why it can never be one: then it goes to the dead letter topic.
pub type Decode<E> = fn(&Record) -> Result<E, RecordFault>;

/// Why a record can never succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFault {
    /// Stable code, for people and for labels: from a closed set.
    pub reason: &'static str,
    /// One line for people; holds no coordinates and no driver id.
    pub detail: String,
}

/// Where events are written.
pub trait Sink: Send + Sync + 'static {
    /// What is written.
    type Event: Send + Sync + 'static;

    /// Whether the sink keeps offsets of its own, moved by each write together with the items.
    const KEEPS_OFFSETS: bool;

    /// Writes all items of `batch`. On success the `next` of every slice may be committed.
    ///
    /// Called at the same time for batches of disjoint partitions. After an error nothing of the batch is committed
    /// and the same records are offered again, unless the partition was lost meanwhile.
    fn write(&self, batch: &Batch<Self::Event>) -> impl Future<Output = Result<Written, WriteError>> + Send;

    /// Where to go on reading, if the sink keeps offsets of its own: they win over Kafka's. A sink that keeps none
    /// answers with nothing.
    fn positions(
        &self,
        partitions: &[TopicPartition],
    ) -> impl Future<Output = Result<HashMap<TopicPartition, Offset>, WriteError>> + Send;

    /// Whether the sink answers. Asked before anything is consumed.
    fn probe(&self) -> impl Future<Output = Result<(), WriteError>> + Send;
}

/// A decoded record on its way to the sink.
#[derive(Debug)]
pub struct Item<E> {
    /// Its position in the partition.
    pub offset: Offset,
    /// Its timestamp in Kafka, ms since the epoch.
    pub timestamp_ms: i64,
    /// What it holds.
    pub event: E,
    /// The record itself, for the dead letter if the sink refuses it.
    pub(crate) record: Record,
}

impl<E> Item<E> {
    /// An item of `event`, decoded from `record`.
    pub fn new(record: Record, event: E) -> Self {
        Self { offset: record.offset, timestamp_ms: record.timestamp_ms, event, record }
    }
}

/// Consecutive records of one partition.
#[derive(Debug)]
pub struct Slice<E> {
    /// The partition.
    pub partition: TopicPartition,
    /// Position that the group has reached so far: what a sink with offsets of its own must hold before the write.
    pub start: Offset,
    /// Position after this slice, reached when it is written. May lie behind the last item: poison, markers, holes.
    pub next: Offset,
    /// Timestamp in Kafka of the last record that the slice covers, ms since the epoch.
    pub last_timestamp_ms: i64,
    /// The good records, in order of their offsets; may be empty.
    pub items: Vec<Item<E>>,
}

/// Slices of different partitions, each at most once.
#[derive(Debug)]
pub struct Batch<E> {
    /// The slices.
    pub slices: Vec<Slice<E>>,
}

impl<E> Batch<E> {
    /// All items, slice by slice.
    pub fn items(&self) -> impl Iterator<Item = &Item<E>> {
        self.slices.iter().flat_map(|slice| &slice.items)
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.slices.iter().map(|slice| slice.items.len()).sum()
    }

    /// Whether there is nothing to write (positions may move all the same).
    pub fn is_empty(&self) -> bool {
        self.slices.iter().all(|slice| slice.items.is_empty())
    }
}

/// What became of the items of a batch that was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Items by outcome, each from a closed set of names: `written`, `superseded`, `expired`, `late`.
    pub outcomes: Vec<(&'static str, u64)>,
}

/// An item that the sink refuses for its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Index of its slice in the batch.
    pub slice: usize,
    /// Index of the item in the slice.
    pub item: usize,
    /// Why.
    pub fault: RecordFault,
}

/// Why a batch was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The sink is down, slow or refuses everything: the batch is kept and tried again until it works.
    #[error("{0}")]
    SinkFault(String),
    /// The sink is there and refuses us: a wrong password, a missing right. Before anything is consumed that ends the
    /// pipeline; later it is a sink fault, which an operator may mend while the batch is kept.
    #[error("{0}")]
    Denied(String),
    /// The sink is there, and either its certificate is no good to us or ours none to it. Handled like a denial, which
    /// ends the start with another exit code.
    #[error("{0}")]
    Untrusted(String),
    /// These items can never be written; nothing of the batch was. They become dead letters and the rest is offered
    /// again. The one way for a sink with offsets of its own to refuse records: it must find them out by itself.
    #[error("{} records refused", .0.len())]
    Refused(Vec<Refused>),
    /// On neither list: tried again a few times, then item by item. A sink with offsets of its own cannot be asked
    /// item by item (its offsets move with the items), so for it this is a sink fault.
    #[error("{0}")]
    Unknown(String),
    /// Somebody else has moved on in these partitions: drop the batch, they are not ours.
    #[error("{0}")]
    Fenced(String),
}
