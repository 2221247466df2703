//! What dlt-monitor does with each letter: a count and one line in the log.

use std::collections::HashMap;

use kafka::{Offset, Record, TopicPartition};
use pipeline::{Batch, RecordFault, Sink, Slice, WriteError, Written};

use crate::letter::{Letter, OrUnknown};
use crate::metrics::LetterMetrics;

/// Reads a letter; every record is one, whatever it holds.
#[expect(clippy::unnecessary_wraps, reason = "the pipeline asks for a decoder that may fail")]
pub(crate) fn read_letter(record: &Record) -> Result<Letter, RecordFault> {
    Ok(Letter::of(record))
}

/// Counts letters and tells of them. It cannot fail: what it is given may be committed.
#[derive(Debug)]
pub(crate) struct LetterSink {
    metrics: LetterMetrics,
}

impl LetterSink {
    pub(crate) fn new(metrics: LetterMetrics) -> Self {
        Self { metrics }
    }

    fn tell(&self, slice: &Slice<Letter>) {
        for item in &slice.items {
            self.metrics.count(&item.event);
            log(&slice.partition, item.offset, &item.event);
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
