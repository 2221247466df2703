//! Flood protection: a partition of which too many records would become letters waits until that is over.
//!
//! The decision is `backpressure::Flood`'s; here is the probe, which reads the newest minute of the partition and decodes
//! it, and how people are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backpressure::flood::{PROBE_EVERY, Verdict, WINDOW};
use backpressure::{Flood, FloodState, ShareError, Tally};
use kafka::{Client, Offset, OffsetSpec, Reader, Stretch, TopicPartition};
use metrics::{Gauge, describe_gauge, gauge};
use tokio::time::Instant;

use crate::sink::Decode;

/// Partitions that wait because too many of their records would become letters.
const FLOODED: &str = "pipeline_flooded_partitions";
/// Records that a probe reads at most: the newest ones.
const PROBE_RECORDS: i64 = 10_000;
/// A partition that has not been asked about for so many probes is no longer ours.
const FORGOTTEN_AFTER: u32 = 3;

/// Flags of flood protection.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pipeline options")]
pub struct FloodArgs {
    /// Share of a partition's last minute that may become dead letters, more than 0 and at most 1: with more than that (a
    /// wrong schema was deployed) the partition waits and says so, looks every 5s whether its newest minute is good again,
    /// and goes on by itself [default: off]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub dead_letter_max_share: Option<f64>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| Flood::new(*share).is_ok());
    share.ok_or_else(|| "give a share of more than 0 and at most 1, such as 0.5".to_owned())
}

/// A stretch that must wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloodHeld {
    pub(crate) until: Instant,
}

/// The gates of all partitions.
pub(crate) struct FloodGate {
    closed: Flood,
    client: Client,
    partitions: Mutex<HashMap<TopicPartition, Flood>>,
    flooded: Gauge,
}

impl FloodGate {
    /// `None` where letters are not bounded.
    pub(crate) fn new(max_share: Option<f64>, client: &Client, group: &str) -> Result<Option<Arc<Self>>, ShareError> {
        describe_gauge!(FLOODED, "Partitions that wait because too many of their records would become dead letters.");
        let flooded = gauge!(FLOODED, "group" => group.to_owned());
        flooded.set(0.0);
        let Some(max_share) = max_share else { return Ok(None) };
        let (client, partitions) = (client.clone(), Mutex::default());
        Ok(Some(Arc::new(Self { closed: Flood::new(max_share)?, client, partitions, flooded })))
    }

    /// Asks whether a stretch may go on; probes where it is time to.
    ///
    /// # Errors
    /// It must wait.
    pub(crate) async fn admit<E>(
        self: &Arc<Self>,
        decode: Decode<E>,
        partition: &TopicPartition,
        start: Offset,
        tally: Tally,
    ) -> Result<(), FloodHeld> {
        let position = u64::try_from(start.0).unwrap_or(0);
        let was_holding = self.is_holding(partition);
        let verdict = match self.of(partition, |gate| gate.admit(Instant::now(), position, tally)) {
            Verdict::Probe => self.probe(decode, partition).await,
            verdict => verdict,
        };
        self.show();
        match verdict {
            Verdict::Hold { until } => {
                if !was_holding {
                    tracing::error!(
                        %partition, records = tally.records, letters = tally.faults,
                        "too many records would become dead letters (--dead-letter-max-share): the partition waits; was a \
                         wrong schema deployed?"
                    );
                }
                self.show_later();
                Err(FloodHeld { until })
            }
            Verdict::Pass | Verdict::Probe => {
                if was_holding {
                    tracing::warn!(%partition, "the flood of dead letters is over: the partition goes on");
                }
                Ok(())
            }
        }
    }

    async fn probe<E>(&self, decode: Decode<E>, partition: &TopicPartition) -> Verdict {
        match self.newest(decode, partition).await {
            Ok((tally, end)) => {
                tracing::info!(%partition, records = tally.records, faults = tally.faults, "probed the newest records");
                let end = u64::try_from(end.0).unwrap_or(0);
                self.of(partition, |gate| gate.probed(Instant::now(), tally, end))
            }
            Err(error) => {
                tracing::warn!(%partition, %error, "the newest records cannot be probed");
                self.of(partition, |gate| gate.not_probed(Instant::now()))
            }
        }
    }

    /// The records of the newest minute, by Kafka's timestamps, and the end of the log.
    async fn newest<E>(&self, decode: Decode<E>, partition: &TopicPartition) -> Result<(Tally, Offset), kafka::Error> {
        let window_ms = i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX);
        let begin = self.offset(partition, OffsetSpec::AtTimestamp(now_ms() - window_ms)).await?;
        let end = self.offset(partition, OffsetSpec::Latest).await?;
        let from = begin.max(Offset(end.0 - PROBE_RECORDS));
        let mut reader = Reader::new(self.client.clone(), vec![Stretch { partition: partition.clone(), from, end }]);
        let mut tally = Tally::default();
        while let Some(answer) = reader.next().await? {
            for batch in answer.iter().flat_map(|read| &read.batches) {
                let Ok(records) = batch.decode() else {
                    tally.records += 1;
                    tally.faults += 1;
                    continue;
                };
                tally.records += records.len() as u64;
                tally.faults += records.iter().filter(|record| decode(record).is_err()).count() as u64;
            }
        }
        Ok((tally, end))
    }

    async fn offset(&self, partition: &TopicPartition, spec: OffsetSpec) -> Result<Offset, kafka::Error> {
        let listed = self.client.list_offsets(std::slice::from_ref(partition), spec).await?;
        let listed = listed.into_iter().next().map(|(_, listed)| listed);
        listed.unwrap_or_else(|| Err(kafka::Error::NoLeader(partition.to_string()))).map(|listed| listed.offset)
    }

    fn of<T>(&self, partition: &TopicPartition, ask: impl FnOnce(&mut Flood) -> T) -> T {
        ask(self.lock().entry(partition.clone()).or_insert_with(|| self.closed.clone()))
    }

    fn is_holding(&self, partition: &TopicPartition) -> bool {
        let held = self.lock().get(partition).map(Flood::state);
        matches!(held, Some(FloodState::Holding { .. }))
    }

    /// A partition that went to another member is not asked about any more: it is forgotten after a while.
    fn show(&self) {
        let now = Instant::now();
        let mut partitions = self.lock();
        partitions.retain(|_, gate| match gate.state() {
            FloodState::Holding { probe_at } => now < probe_at + PROBE_EVERY * FORGOTTEN_AFTER,
            FloodState::Watching | FloodState::Draining { .. } => true,
        });
        let holding = partitions.values().filter(|gate| matches!(gate.state(), FloodState::Holding { .. }));
        self.flooded.set(f64::from(u32::try_from(holding.count()).unwrap_or(u32::MAX)));
    }

    fn show_later(self: &Arc<Self>) {
        let gate = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(PROBE_EVERY * (FORGOTTEN_AFTER + 2)).await;
            if let Some(gate) = gate.upgrade() {
                gate.show();
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Flood>> {
        // Each gate is changed by one call that cannot panic half way.
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_more_than_nothing_and_at_most_everything() {
        assert_eq!((share("0.5"), share("1"), share("0.001")), (Ok(0.5), Ok(1.0), Ok(0.001)));
        for wrong in ["", "0", "-1", "1.1", "50%", "NaN", "inf"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
