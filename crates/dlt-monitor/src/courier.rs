//! Sends originals back: many under way at a time, at the rate that was asked for, and none forgotten.

use kafka::{Client, Compression, Delivery, OutRecord, ProduceError, Producer, ProducerConfig, RejectReason};
use tokio::time::Instant;

use crate::error::Error;
use crate::pace::Pace;

/// Sends records and waits for their acknowledgements batch by batch.
pub(crate) struct Courier {
    producer: Producer,
    pace: Option<Pace>,
    under_way: Vec<Delivery>,
}

impl Courier {
    /// Learns the topic that takes the records.
    ///
    /// # Errors
    /// It is not there, or Kafka is away.
    pub(crate) async fn new(client: &Client, topic: &str, rate: Option<u32>) -> Result<Self, Error> {
        let config = ProducerConfig { compression: Compression::Lz4, ..ProducerConfig::standard() };
        let producer = Producer::new(client.clone(), config);
        producer.warm(topic).await?;
        Ok(Self { producer, pace: rate.map(Pace::new), under_way: Vec::new() })
    }

    /// When the next record may go: now, unless a rate holds it back.
    pub(crate) fn due(&mut self) -> Instant {
        let now = Instant::now();
        self.pace.as_mut().map_or(now, |pace| pace.due(now))
    }

    /// Takes a record on; waits only while the producer has no room.
    ///
    /// # Errors
    /// Kafka did not take it in time, or never will.
    pub(crate) async fn send(&mut self, record: OutRecord) -> Result<(), Error> {
        match self.producer.send(record).await {
            Ok(delivery) => self.under_way.push(delivery),
            Err(rejected) => return Err(not_taken(&rejected.record.topic, rejected.reason)),
        }
        Ok(())
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Waits until everything that was sent is acknowledged by all in-sync replicas.
    ///
    /// # Errors
    /// The first record that was not.
    pub(crate) async fn settle(&mut self) -> Result<(), Error> {
        let mut first_fault = Ok(());
        for delivery in self.under_way.drain(..) {
            if let Err(error) = delivery.await {
                first_fault = first_fault.and(Err(unsent(error)));
            }
        }
        first_fault
    }
}

fn not_taken(topic: &str, reason: RejectReason) -> Error {
    Error::Unsent(format!("a record was not sent to {topic}: {reason}; what was sent before is acknowledged"))
}

fn unsent(error: ProduceError) -> Error {
    let advice = match error {
        denied if denied.is_denied() => {
            return Error::Input(format!("{denied}; grant this user the right to write there"));
        }
        ProduceError::Refused { .. } => "check the topic's settings (max.message.bytes), or try --timestamp now",
        ProduceError::TimedOut | ProduceError::Unavailable | ProduceError::Closed => {
            "start again with the same --name when Kafka is back"
        }
    };
    Error::Unsent(format!("{error}; {advice}"))
}
