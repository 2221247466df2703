//! Dead letters of one slice: published as they are found, waited for together.

use std::time::Duration;

use kafka::{
    DeadLetter, DeadLetterPublisher, LetterDelivery, RawBatch, Record, RejectReason, TimestampType, TopicPartition,
};

use crate::metrics::PipelineMetrics;
use crate::sink::RecordFault;

/// Pause before a letter is offered again that found no room or no topic.
const OFFER_PAUSE: Duration = Duration::from_millis(50);
/// How often it is offered: about as long as a delivery may take.
const OFFERS: u32 = 200;

/// Kafka's word for a timestamp that is not known.
const NO_TIMESTAMP_MS: i64 = -1;

/// The letter of a record that can never succeed.
pub(crate) fn of_record(partition: &TopicPartition, record: Record, fault: RecordFault) -> DeadLetter {
    DeadLetter { source: partition.clone(), record, reason: fault.reason, detail: fault.detail, attempts: 1 }
}

/// A batch that cannot be decoded is one letter, with its bytes as the value.
pub(crate) fn of_batch(partition: &TopicPartition, batch: &RawBatch, fault: RecordFault) -> DeadLetter {
    let record = Record {
        offset: batch.start(),
        timestamp_ms: batch.max_timestamp_ms().unwrap_or(NO_TIMESTAMP_MS),
        timestamp_type: TimestampType::CreateTime,
        key: None,
        value: Some(batch.bytes().clone()),
        headers: Vec::new(),
    };
    of_record(partition, record, fault)
}

/// A letter was not taken by the dead letter topic.
#[derive(Debug)]
pub(crate) struct Unpublished;

#[derive(Default)]
pub(crate) struct PendingLetters {
    under_way: Vec<(&'static str, LetterDelivery)>,
    /// Letters that are not sent before their number is known, where it may be a flood.
    withheld: Option<Vec<DeadLetter>>,
    failed: bool,
}

impl PendingLetters {
    /// Keeps letters until [`PendingLetters::release`]; no more than the records of one slice.
    pub(crate) fn withholding() -> Self {
        Self { withheld: Some(Vec::new()), ..Self::default() }
    }

    /// How many are withheld.
    pub(crate) fn withheld(&self) -> u64 {
        self.withheld.as_ref().map_or(0, Vec::len) as u64
    }

    /// Sends what was withheld.
    pub(crate) async fn release(&mut self, publisher: Option<&DeadLetterPublisher>) {
        for letter in self.withheld.take().unwrap_or_default() {
            self.publish(publisher, letter).await;
        }
    }

    /// Sends a letter off. Waits only while there is no room for it, or no topic.
    pub(crate) async fn publish(&mut self, publisher: Option<&DeadLetterPublisher>, letter: DeadLetter) {
        if let Some(withheld) = &mut self.withheld {
            return withheld.push(letter);
        }
        let (partition, offset) = (&letter.source, letter.record.offset);
        tracing::debug!(%partition, %offset, reason = letter.reason, detail = letter.detail, "dead letter");
        let Some(publisher) = publisher else { return };
        match offer(publisher, &letter).await {
            Ok(delivery) => self.under_way.push((letter.reason, delivery)),
            Err(error) => {
                tracing::error!(%partition, %offset, %error, "dead letter not published: its partition waits");
                self.failed = true;
            }
        }
    }

    /// Waits until all are acknowledged.
    pub(crate) async fn published(self, metrics: &PipelineMetrics) -> Result<(), Unpublished> {
        let mut failed = self.failed;
        for (reason, delivery) in self.under_way {
            match delivery.await {
                Ok(_) => metrics.dead_letter(reason),
                Err(error) => {
                    tracing::error!(reason, %error, "dead letter not published: its partition waits");
                    failed = true;
                }
            }
        }
        if failed { Err(Unpublished) } else { Ok(()) }
    }
}

async fn offer(publisher: &DeadLetterPublisher, letter: &DeadLetter) -> Result<LetterDelivery, RejectReason> {
    for _ in 1..OFFERS {
        match publisher.publish(letter) {
            Err(RejectReason::BufferFull) => {}
            Err(RejectReason::NoMetadata) => {
                if let Err(error) = publisher.warm().await {
                    tracing::debug!(%error, "the dead letter topic is not there");
                }
            }
            taken_or_refused => return taken_or_refused,
        }
        tokio::time::sleep(OFFER_PAUSE).await;
    }
    publisher.publish(letter)
}
