//! How many letters wait to be redriven, and how long the oldest of them has: looked up now and then.
//!
//! A letter waits while it is in the topic and the redrive that is watched (`--redrive-name`) has not passed it.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka::{Client, Offset, OffsetSpec, Reader, Stretch, TopicPartition};
use metrics::{Unit, describe_gauge, gauge};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::moment::now_ms;
use crate::scan::offsets;

const WAITING: &str = "dlt_letters_waiting";
const OLDEST: &str = "dlt_oldest_letter_age_seconds";
const EVERY: Duration = Duration::from_secs(5);

/// Looks until shutdown.
pub(crate) struct WaitingTask {
    pub(crate) client: Client,
    pub(crate) dead_letter_topic: String,
    /// The group of the redrive that is watched.
    pub(crate) group: String,
}

/// When the first letter that waits was published, by partition and offset: it is read once.
type Times = BTreeMap<TopicPartition, (Offset, i64)>;

impl WaitingTask {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        describe_gauge!(WAITING, "Letters that are in the topic and that the watched redrive has not passed.");
        describe_gauge!(OLDEST, Unit::Seconds, "Age of the oldest letter that waits; 0 when none does.");
        let mut times = Times::new();
        let looking = async {
            loop {
                match self.look(&mut times).await {
                    Ok((waiting, oldest_ms)) => self.show(waiting, oldest_ms),
                    // Old figures would look like news: they stay until the next look, which comes soon.
                    Err(error) => tracing::debug!(%error, "the letters that wait cannot be counted"),
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        shutdown.run_until_cancelled(looking).await;
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; the loss begins at 2^52")]
    fn show(&self, waiting: u64, oldest_ms: Option<i64>) {
        let topic = || self.dead_letter_topic.clone();
        let age_ms = oldest_ms.map_or(0, |oldest| (now_ms() - oldest).max(0));
        gauge!(WAITING, "topic" => topic()).set(waiting as f64);
        gauge!(OLDEST, "topic" => topic()).set(age_ms as f64 / 1_000.0);
    }

    /// How many wait, and the time of the oldest.
    async fn look(&self, times: &mut Times) -> Result<(u64, Option<i64>), Error> {
        let waiting = self.stretches().await?;
        times.retain(|partition, (offset, _)| {
            waiting.iter().any(|one| one.partition == *partition && one.from == *offset)
        });
        let unknown: Vec<_> = waiting.iter().filter(|one| !times.contains_key(&one.partition)).cloned().collect();
        times.extend(self.first_times(unknown).await?);
        let count = waiting.iter().map(|one| one.end.since(one.from)).sum();
        Ok((count, times.values().map(|(_, time)| *time).min()))
    }

    async fn stretches(&self) -> Result<Vec<Stretch>, Error> {
        let partitions = self.client.topic(&self.dead_letter_topic).await?.topic_partitions();
        let starts = offsets(&self.client, &partitions, OffsetSpec::Earliest).await?;
        let ends = offsets(&self.client, &partitions, OffsetSpec::Latest).await?;
        let passed: BTreeMap<_, _> =
            self.client.committed_offsets(&self.group, Some(&partitions)).await?.into_iter().collect();
        let stretch = |partition: TopicPartition| {
            let passed = passed.get(&partition).map_or(Offset(0), |committed| committed.offset);
            let (from, end) = (starts.get(&partition)?.max(&passed), ends.get(&partition)?);
            (from < end).then_some(Stretch { from: *from, end: *end, partition })
        };
        Ok(partitions.into_iter().filter_map(stretch).collect())
    }

    /// Reads the first batch of each stretch.
    async fn first_times(&self, stretches: Vec<Stretch>) -> Result<Times, Error> {
        let mut times = Times::new();
        for stretch in stretches {
            let (partition, from) = (stretch.partition.clone(), stretch.from);
            let first = Stretch { end: from.next(), ..stretch };
            let mut reader = Reader::bounded(self.client.clone(), vec![first], 1);
            if let Some(answer) = reader.next().await? {
                let batch = answer.iter().flat_map(|read| &read.batches).next();
                let records = batch.and_then(|batch| batch.decode().ok()).unwrap_or_default();
                times.extend(records.first().map(|record| (partition, (from, record.timestamp_ms))));
            }
        }
        Ok(times)
    }
}
