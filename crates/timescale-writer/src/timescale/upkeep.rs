//! What an operator does to the history by hand: look at offsets, set them, remove rows.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka::Offset;
use tokio_postgres::Client;

use super::database::{Database, Session};
use super::fault::Fault;
use super::offsets::{Kept, Stored, TopicId};
use crate::replay::Move;

/// Removing rows of a large table takes its time.
const LIMIT: Duration = Duration::from_hours(1);

const OFFSETS: &str = "
    SELECT topic_id::text, partition, next_offset, kept_until, (extract(epoch FROM kept_before) * 1000)::bigint
    FROM driver_location_offsets
    WHERE consumer_group = $1 AND topic = $2
    ORDER BY topic_id, partition";
const LOCK: &str = "
    SELECT FROM driver_location_offsets WHERE consumer_group = $1 AND topic = $2 AND topic_id = $3::text::uuid FOR UPDATE";
/// Somebody else whose rows are in the table: rows do not say whose they are.
const OTHERS: &str = "
    SELECT consumer_group, topic, topic_id::text FROM driver_location_offsets
    WHERE (consumer_group, topic, topic_id) <> ($1, $2, $3::text::uuid)
    LIMIT 1";
const SET: &str = "
    INSERT INTO driver_location_offsets
        (consumer_group, topic, topic_id, partition, next_offset, kept_until, kept_before)
    SELECT $1, $2, $3::text::uuid, partition, next_offset, kept_until, to_timestamp(kept_before_ms / 1000.0)
    FROM unnest($4::int4[], $5::int8[], $6::int8[], $7::int8[])
        AS given (partition, next_offset, kept_until, kept_before_ms)
    ON CONFLICT (consumer_group, topic, topic_id, partition) DO UPDATE
    SET next_offset = excluded.next_offset, kept_until = excluded.kept_until, kept_before = excluded.kept_before";
const TRUNCATE: &str = "DELETE FROM driver_locations WHERE ts >= to_timestamp($1::int8 / 1000.0)";
const ERASE: &str = "DELETE FROM driver_locations WHERE driver_id = $1";

/// Whose offsets.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) topic_id: TopicId,
}

/// Stored offsets by topic id, then by partition.
pub(crate) type OffsetsById = BTreeMap<String, BTreeMap<i32, Stored>>;

/// A session with a limit of its own, for work by hand.
pub(crate) struct Upkeep {
    session: Session,
}

impl Upkeep {
    pub(crate) async fn begin(database: &Database) -> Result<Self, Fault> {
        let session = database.session().await?;
        session.client.batch_execute(&format!("SET statement_timeout = {}", LIMIT.as_millis())).await?;
        Ok(Self { session })
    }

    fn client(&self) -> &Client {
        &self.session.client
    }

    /// What is stored for a group and a topic name, of earlier topics of that name too.
    pub(crate) async fn offsets(&self, group: &str, topic: &str) -> Result<OffsetsById, Fault> {
        let mut found = OffsetsById::new();
        for row in self.client().query(OFFSETS, &[&group, &topic]).await? {
            let kept = row.try_get::<_, Option<i64>>(3)?.zip(row.try_get::<_, Option<i64>>(4)?);
            let kept = kept.map(|(until, before_ms)| Kept { until: Offset(until), before_ms });
            let stored = Stored { next: Offset(row.try_get(2)?), kept };
            found.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, stored);
        }
        Ok(found)
    }

    /// Begins a transaction in which nobody else moves the offsets of `owner`.
    pub(crate) async fn lock(&self, owner: &Owner) -> Result<(), Fault> {
        self.client().batch_execute(super::BEGIN).await?;
        self.client().query(LOCK, &[&owner.group, &owner.topic, &owner.topic_id.to_string()]).await?;
        Ok(())
    }

    /// Another group or topic that has rows in the table, in words.
    pub(crate) async fn other_than(&self, owner: &Owner) -> Result<Option<String>, Fault> {
        let row = self.client().query_opt(OTHERS, &[&owner.group, &owner.topic, &owner.topic_id.to_string()]).await?;
        let Some(row) = row else { return Ok(None) };
        let (group, topic, id): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Some(format!("group {group} and topic {topic} with id {id}")))
    }

    /// Removes rows from a time on; returns how many.
    pub(crate) async fn truncate(&self, from_ms: i64) -> Result<u64, Fault> {
        Ok(self.client().execute(TRUNCATE, &[&from_ms]).await?)
    }

    /// Moves offsets and ends the transaction.
    pub(crate) async fn set(&self, owner: &Owner, moves: &[Move]) -> Result<(), Fault> {
        let partitions: Vec<i32> = moves.iter().map(|one| one.partition).collect();
        let next: Vec<i64> = moves.iter().map(|one| one.to.0).collect();
        let until: Vec<_> = moves.iter().map(|one| one.kept.map(|kept| kept.until.0)).collect();
        let before: Vec<_> = moves.iter().map(|one| one.kept.map(|kept| kept.before_ms)).collect();
        let id = owner.topic_id.to_string();
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&owner.group, &owner.topic, &id, &partitions, &next, &until, &before];
        self.client().execute(SET, &values).await?;
        self.client().batch_execute("COMMIT").await?;
        Ok(())
    }

    /// Removes all rows of a driver; returns how many.
    pub(crate) async fn erase(&self, driver: &str) -> Result<u64, Fault> {
        Ok(self.client().execute(ERASE, &[&driver]).await?)
    }
}
