//! Dead letters of one slice: published as they are found, waited for together.

use kafka::{DeadLetter, DeadLetterPublisher, Delivery, RawBatch, Record, TimestampType, TopicPartition};

use crate::metrics::PipelineMetrics;
use crate::sink::RecordFault;

/// A record on its way to the dead letter topic.
pub(crate) struct Letter {
    letter: DeadLetter,
    reason: &'static str,
}

impl Letter {
    pub(crate) fn of_record(partition: &TopicPartition, record: Record, fault: RecordFault) -> Self {
        let letter = DeadLetter {
            source: partition.clone(),
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            timestamp_type: record.timestamp_type,
            key: record.key,
            value: record.value,
            headers: record.headers,
            reason: fault.reason.to_owned(),
            detail: fault.detail,
            attempts: 1,
        };
        Self { letter, reason: fault.reason }
    }

    /// A batch that cannot be decoded is one letter, with its bytes as the value.
    pub(crate) fn of_batch(partition: &TopicPartition, batch: &RawBatch, fault: RecordFault) -> Self {
        let record = Record {
            offset: batch.start(),
            timestamp_ms: batch.max_timestamp_ms(),
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value: Some(batch.bytes().clone()),
            headers: Vec::new(),
        };
        Self::of_record(partition, record, fault)
    }
}

/// A letter was not taken by the dead letter topic.
#[derive(Debug)]
pub(crate) struct Unpublished;

#[derive(Default)]
pub(crate) struct PendingLetters {
    under_way: Vec<(&'static str, Delivery)>,
    failed: bool,
}

impl PendingLetters {
    /// Sends a letter off. Waits only while the producer's buffer is full.
    pub(crate) async fn publish(&mut self, publisher: Option<&DeadLetterPublisher>, letter: Letter) {
        let Letter { letter, reason } = letter;
        let place = (letter.source.clone(), letter.offset);
        tracing::debug!(partition = %place.0, offset = %place.1, reason, detail = letter.detail, "dead letter");
        let Some(publisher) = publisher else { return };
        match publisher.publish(letter).await {
            Ok(delivery) => self.under_way.push((reason, delivery)),
            Err(error) => {
                tracing::error!(partition = %place.0, offset = %place.1, reason, %error, "dead letter not published");
                self.failed = true;
            }
        }
    }

    /// Waits until all are acknowledged.
    pub(crate) async fn published(self, metrics: &PipelineMetrics) -> Result<(), Unpublished> {
        let mut failed = self.failed;
        for (reason, delivery) in self.under_way {
            match delivery.await {
                Ok(_) => {
                    metrics.dead_letter(reason);
                    metrics.records("dead_letter", 1);
                }
                Err(error) => {
                    tracing::error!(reason, %error, "dead letter not published: its partition waits");
                    failed = true;
                }
            }
        }
        if failed { Err(Unpublished) } else { Ok(()) }
    }
}
