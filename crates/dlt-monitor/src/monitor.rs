//! What dlt-monitor does with each letter: a count and one line in the log; under a flood, one line a second with counts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka::{Offset, Record, TopicPartition};
use pipeline::{Batch, RecordFault, Sink, Slice, WriteError, Written};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::letter::{Letter, OrUnknown, UNKNOWN};
use crate::lines::Lines;
use crate::metrics::LetterMetrics;

/// Interval of the lines with counts.
const SUMMARY_EVERY: Duration = Duration::from_secs(1);

/// Reads a letter; every record is one, whatever it holds.
#[expect(clippy::unnecessary_wraps, reason = "the pipeline asks for a decoder that may fail")]
pub(crate) fn read_letter(record: &Record) -> Result<Letter, RecordFault> {
    Ok(Letter::of(record))
}

/// Counts letters and tells of them. It cannot fail: what it is given may be committed.
#[derive(Debug)]
pub(crate) struct LetterSink {
    metrics: LetterMetrics,
    lines: Mutex<Lines>,
}

impl LetterSink {
    pub(crate) fn new(metrics: LetterMetrics) -> Self {
        Self { metrics, lines: Mutex::default() }
    }

    /// Writes the lines with counts, until shutdown and once more.
    pub(crate) async fn summarize(&self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(SUMMARY_EVERY)).await.is_some() {
            self.tell_summary();
        }
    }

    /// What has no line of its own yet, in one.
    pub(crate) fn tell_summary(&self) {
        if let Some(summary) = self.lines().summary() {
            tracing::error!(letters = summary.letters, reasons = %summary, "a flood of dead letters");
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Counts only: a panic elsewhere leaves nothing half done.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, slice: &Slice<Letter>) {
        for item in &slice.items {
            self.metrics.count(&item.event);
            let reason = item.event.reason.as_deref().unwrap_or(UNKNOWN);
            if self.lines().admit(Instant::now(), reason) {
                log(&slice.partition, item.offset, &item.event);
            }
        }
    }
}

/// Header texts of strangers may quote the record, so the exception's message stays out of the log.
fn log(place: &TopicPartition, at: Offset, letter: &Letter) {
    tracing::error!(
        topic = %OrUnknown(&letter.topic),
        partition = %OrUnknown(&letter.partition),
        offset = %OrUnknown(&letter.offset),
        reason = %OrUnknown(&letter.reason),
        group = %OrUnknown(&letter.group),
        letter = %format_args!("{place}@{at}"),
        "dead letter"
    );
}

impl Sink for LetterSink {
    const KEEPS_OFFSETS: bool = false;
    type Event = Letter;

    async fn write(&self, batch: &Batch<Letter>) -> Result<Written, WriteError> {
        batch.slices.iter().for_each(|slice| self.tell(slice));
        Ok(Written { outcomes: vec![("written", u64::try_from(batch.len()).unwrap_or(u64::MAX))] })
    }

    async fn positions(&self, _partitions: &[TopicPartition]) -> Result<HashMap<TopicPartition, Offset>, WriteError> {
        Ok(HashMap::new())
    }

    async fn probe(&self) -> Result<(), WriteError> {
        Ok(())
    }
}
