//! Positions into PostgreSQL or TimescaleDB, and the database's errors into faults. No file but this one and those
//! below it imports tokio-postgres.

mod certificate;
mod conninfo;
mod database;
mod fault;
mod offsets;
mod options;
mod passfile;
mod refused;
mod schema;
mod settings;
mod storage;
mod tls;
mod upkeep;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use event::DriverLocation;
use futures::SinkExt;
use futures::future::try_join;
use kafka::{Offset, TopicPartition};
use pipeline::{Batch, Sink, WriteError, Written};
use tokio_postgres::{Client, CopyInSink, Error, Statement};

use crate::copy::Encoder;
use crate::metrics::SinkMetrics;
use database::Connection;
use offsets::{Claim, Keys};

pub use database::{Database, DatabaseConfig};
pub(crate) use fault::Fault;
pub(crate) use offsets::{Kept, Stored};
pub use offsets::{TopicId, TopicIds};
pub(crate) use schema::check_schema;
pub use schema::{Migrate, SchemaConfig, prepare_schema};
pub use settings::{Environment, Given, ServerSettings, SettingError};
pub use storage::{Storage, TableKind};
pub(crate) use upkeep::{OffsetsById, Owner, Upkeep};

/// An outcome that is rightly no row: a trigger of the operator's said so.
const SUPPRESSED: &str = "suppressed";
/// An outcome of records that are read again: their rows were kept.
const ALREADY_STORED: &str = "already_stored";
const WRITTEN: &str = "written";

/// READ COMMITTED whatever the database's default: the fence wants to see what a rival committed while it waited.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Says whether the database would take no write.
const READ_ONLY: &str = "SELECT current_setting('transaction_read_only')";

/// What a [`TimescaleSink`] is made from, beside the database.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// The consumer group under which offsets are kept.
    pub group: String,
    /// Where the ids of topics come from.
    pub topic_ids: TopicIds,
}

/// The history.
pub struct TimescaleSink {
    database: Arc<Database>,
    group: String,
    keys: Keys,
    metrics: SinkMetrics,
}

/// Why a transaction wrote nothing (or, where an answer is missing, may have).
#[derive(Debug)]
enum Failure {
    /// The stored offsets are not those that the batch begins at.
    Fenced,
    Fault(Fault),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fault(error.into())
    }
}

impl TimescaleSink {
    /// A sink on `database`, whose schema is in place. Connects when it is first used.
    pub fn new(database: Arc<Database>, config: SinkConfig) -> Self {
        let SinkConfig { group, topic_ids } = config;
        Self { database, group, keys: Keys::new(topic_ids), metrics: SinkMetrics::new() }
    }

    /// Writes rows and offsets in one transaction.
    ///
    /// Whatever fails, the connection is dropped, which rolls back: the server sees the end of the connection.
    async fn transact(&self, batch: &Batch<DriverLocation>, claim: &Claim) -> Result<Copied, Failure> {
        let lease = self.database.lease().await?;
        let copied = self.database.limited(self.transact_on(&lease, batch, claim)).await?;
        lease.keep();
        Ok(copied)
    }

    async fn transact_on(
        &self,
        connection: &Connection,
        batch: &Batch<DriverLocation>,
        claim: &Claim,
    ) -> Result<Copied, Failure> {
        let client = connection.client();
        // Awaited alone: if it failed and the next statements were on their way, each would commit by itself.
        client.batch_execute(BEGIN).await?;
        let fence = async {
            let moved = claim.fence(client, connection.fence(), &self.group).await?;
            if moved == claim.len() { Ok(()) } else { Err(Failure::Fenced) }
        };
        let copy = async { Ok(copy_in(client, connection.copy(), claim.rows(batch).map(|row| row.event)).await?) };
        // Both are on their way at once; nothing is committed before both are answered well.
        let is_empty = claim.rows(batch).next().is_none();
        let copied = if is_empty { fence.await.map(|()| Copied::default())? } else { try_join(fence, copy).await?.1 };
        client.batch_execute("COMMIT").await?;
        Ok(copied)
    }

    async fn stored(&self, claim: &Claim) -> Result<HashMap<TopicPartition, Stored>, WriteError> {
        let reading = async {
            let lease = self.database.lease().await?;
            let stored = self.database.limited(claim.stored(lease.client(), &self.group)).await?;
            lease.keep();
            Ok(stored)
        };
        reading.await.map_err(|fault: Fault| self.sink_fault(&fault))
    }

    async fn is_read_only(&self) -> Result<bool, Fault> {
        let lease = self.database.lease().await?;
        let asking = async { Ok::<_, Fault>(lease.client().query_one(READ_ONLY, &[]).await?) };
        let setting: String = self.database.limited(asking).await?.try_get(0)?;
        lease.keep();
        Ok(setting != "off")
    }

    /// The fence did not open. Either somebody else moved on, or our own COMMIT of this very batch was done and its
    /// answer lost.
    ///
    /// The lane offers a batch unchanged until it is settled, and offsets move only together with rows. So a stored
    /// offset that equals `next` means: every record from `start` to `next` has been stored (or buried), once. That
    /// holds for our own lost COMMIT and also where a rival committed the same stretch: either way the work of this
    /// batch is done and nothing of it may be written again.
    async fn after_fence(&self, batch: &Batch<DriverLocation>, claim: &Claim) -> Result<Written, WriteError> {
        let stored = positions_of(&self.stored(claim).await?);
        if batch.slices.iter().all(|slice| stored.get(&slice.partition) == Some(&slice.next)) {
            self.metrics.found_committed.increment(1);
            let rows = claim.rows(batch).count() as u64;
            return Ok(written(Copied { rows, offered: rows }, batch.len() as u64));
        }
        self.metrics.fenced.increment(1);
        let strays = batch.slices.iter().filter(|slice| stored.get(&slice.partition) != Some(&slice.start));
        let strays: Vec<_> = strays
            .map(|slice| {
                let at = stored.get(&slice.partition).map_or_else(|| "none".to_owned(), ToString::to_string);
                format!("{} (stored offset {at}, expected {})", slice.partition, slice.start)
            })
            .collect();
        Err(WriteError::Fenced(format!("{}: {}", self.database.address(), strays.join(", "))))
    }

    async fn find_refused(&self, batch: &Batch<DriverLocation>, claim: &Claim, first: &Fault) -> WriteError {
        match refused::find(&self.database, batch, claim).await {
            // The reason is gone again, or lies in something that no single row shows: the batch is tried again.
            Ok(refused) if refused.is_empty() => self.sink_fault(first),
            Ok(refused) => WriteError::Refused(refused),
            Err(fault) => self.sink_fault(&fault),
        }
    }

    fn sink_fault(&self, fault: &Fault) -> WriteError {
        WriteError::SinkFault(self.database.explain(fault))
    }
}

impl Sink for TimescaleSink {
    type Event = DriverLocation;
    const KEEPS_OFFSETS: bool = true;

    async fn write(&self, batch: &Batch<DriverLocation>) -> Result<Written, WriteError> {
        let claim = self.keys.claim(&batch.slices).await?;
        match self.transact(batch, &claim).await {
            Ok(copied) => Ok(written(copied, batch.len() as u64)),
            Err(Failure::Fenced) => self.after_fence(batch, &claim).await,
            Err(Failure::Fault(fault)) if fault.is_about_data() => Err(self.find_refused(batch, &claim, &fault).await),
            Err(Failure::Fault(fault)) => Err(self.sink_fault(&fault)),
        }
    }

    async fn positions(&self, partitions: &[TopicPartition]) -> Result<HashMap<TopicPartition, Offset>, WriteError> {
        let claim = self.keys.look_up(partitions).await?;
        let stored = self.stored(&claim).await?;
        self.keys.note_kept(&stored);
        Ok(positions_of(&stored))
    }

    async fn probe(&self) -> Result<(), WriteError> {
        match self.is_read_only().await {
            Ok(false) => Ok(()),
            Ok(true) => Err(WriteError::SinkFault(format!("{}: the database is read-only", self.database.address()))),
            Err(fault) => Err(self.sink_fault(&fault)),
        }
    }
}

fn positions_of(stored: &HashMap<TopicPartition, Stored>) -> HashMap<TopicPartition, Offset> {
    stored.iter().map(|(partition, stored)| (partition.clone(), stored.next)).collect()
}

/// What became of the rows that were sent.
#[derive(Debug, Clone, Copy, Default)]
struct Copied {
    rows: u64,
    offered: u64,
}

fn written(copied: Copied, records: u64) -> Written {
    let Copied { rows, offered } = copied;
    let (suppressed, already_stored) = (offered.saturating_sub(rows), records.saturating_sub(offered));
    let outcomes = [(WRITTEN, rows), (SUPPRESSED, suppressed), (ALREADY_STORED, already_stored)];
    Written { outcomes: outcomes.into_iter().filter(|(_, count)| *count > 0).collect() }
}

/// Streams rows into the table.
async fn copy_in<'a>(
    client: &Client,
    statement: &Statement,
    events: impl Iterator<Item = &'a DriverLocation>,
) -> Result<Copied, Fault> {
    let sink: CopyInSink<Bytes> = client.copy_in(statement).await?;
    let mut sink = pin!(sink);
    let mut encoder = Encoder::begin();
    let mut offered = 0;
    for event in events {
        offered += 1;
        if let Some(piece) = encoder.row(event) {
            sink.feed(piece).await?;
        }
    }
    sink.feed(encoder.end()).await?;
    Ok(Copied { rows: sink.finish().await?, offered })
}
