//! The way into Kafka: topics at the start, events into the producer, and a watch that keeps readiness true.

pub(crate) mod lag;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use ::kafka::topics::{self, Mode, Outcome, Plan};
use ::kafka::{
    Client, Compression, Delivery, ErrorKind, OutRecord, ProduceError, Producer, ProducerConfig, RejectReason,
};
use bytes::Bytes;
use event::DriverLocation;
use service::{Component, Context};
use tracing::{info, warn};

use crate::INFO;
use crate::config::Args;
use crate::error::Error;
use crate::problem::Problem;

/// Pause between tries to reach a cluster that is not there yet.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How often the cluster is asked whether it is still there, and how many partitions the topic has.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Why a valid event is not (known to be) in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpublished {
    /// The producer's buffer is full; certainly not in Kafka.
    Overloaded,
    /// Kafka cannot be reached, or we are closing; certainly not in Kafka.
    Unavailable,
    /// May or may not be in Kafka.
    TimedOut,
    /// Kafka will never take it as it is; certainly not in Kafka.
    Refused,
}

impl From<Unpublished> for Problem {
    fn from(unpublished: Unpublished) -> Self {
        match unpublished {
            Unpublished::Overloaded => Self::TooManyBytesInFlight,
            Unpublished::Unavailable => Self::KafkaUnavailable,
            Unpublished::TimedOut => Self::KafkaTimeout,
            Unpublished::Refused => Self::KafkaRefused,
        }
    }
}

impl From<RejectReason> for Unpublished {
    fn from(reason: RejectReason) -> Self {
        match reason {
            RejectReason::BufferFull => Self::Overloaded,
            RejectReason::NoMetadata | RejectReason::NoSuchPartition | RejectReason::Closed => Self::Unavailable,
            RejectReason::TooLarge => Self::Refused,
        }
    }
}

impl From<ProduceError> for Unpublished {
    fn from(error: ProduceError) -> Self {
        match error {
            ProduceError::Unavailable | ProduceError::Closed => Self::Unavailable,
            ProduceError::TimedOut => Self::TimedOut,
            ProduceError::Refused { .. } => Self::Refused,
        }
    }
}

/// Starts the producer; [`Watch::run`] brings the topics up and keeps an eye on the cluster.
pub(crate) fn start(args: &Args, context: &Context) -> (Publisher, Watch, lag::Reader) {
    let client = Client::new(args.common.client_config(INFO.name));
    let config = ProducerConfig {
        linger: args.linger,
        linger_max: args.linger_max,
        buffer_bytes: args.producer_buffer,
        delivery_timeout: args.ack_timeout,
        compression: Compression::Lz4,
        ..ProducerConfig::standard()
    };
    let producer = Producer::new(client.clone(), config);
    let component = context.health.component("kafka");
    component.not_ready(format!("connecting to {}", args.common.brokers.join(",")));
    let dead_letter_topic = args.dead_letter_topic.clone();
    let plan = Plan {
        topic: args.common.topic.clone(),
        partitions: args.topic_partitions,
        dead_letter_topic: dead_letter_topic.or_else(|| Some(topics::dead_letter_topic(&args.common.topic))),
    };
    let publisher =
        Publisher { producer: producer.clone(), topic: plan.topic.as_str().into(), limit: args.ack_timeout };
    let reader = lag::Reader::new(client.clone(), &plan.topic, &args.admission_groups.0);
    let watch = Watch { client, producer, plan, mode: args.topic_create, component };
    (publisher, watch, reader)
}

/// Puts events into Kafka; cheap to clone.
#[derive(Clone)]
pub(crate) struct Publisher {
    producer: Producer,
    topic: Arc<str>,
    limit: Duration,
}

impl Publisher {
    /// Hands an event to the producer, in the order of calls for each driver.
    pub(crate) fn publish(&self, event: &DriverLocation) -> Result<Acknowledgement, Unpublished> {
        let record = OutRecord {
            topic: Arc::clone(&self.topic),
            partition: None,
            key: Some(Bytes::copy_from_slice(event.driver_id.as_str().as_bytes())),
            value: Some(event.encode()),
            headers: Vec::new(),
            timestamp_ms: event.received_at_ms,
        };
        self.producer.enqueue(record).map(Acknowledgement).map_err(|rejected| rejected.reason.into())
    }

    /// Sends what is left and waits for its outcome.
    pub(crate) async fn close(&self) {
        self.producer.close(self.limit).await;
    }

    /// Bytes that wait for Kafka, requests sent and batches repeated, for the metrics.
    pub(crate) fn stats(&self) -> ::kafka::ProducerStats {
        self.producer.stats()
    }
}

/// Ends, within `--ack-timeout`, with the event in all in-sync replicas or with the reason why it may not be.
#[derive(Debug)]
#[must_use = "an event that nobody waits for must not be answered with a 2xx"]
pub(crate) struct Acknowledgement(Delivery);

impl Future for Acknowledgement {
    type Output = Result<(), Unpublished>;

    fn poll(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(poller).map(|outcome| outcome.map(drop).map_err(Unpublished::from))
    }
}

/// Brings the topics up, then reports the cluster's state to the readiness for ever.
pub(crate) struct Watch {
    client: Client,
    producer: Producer,
    plan: Plan,
    mode: Mode,
    component: Component,
}

impl Watch {
    /// Returns only when a person has to change something first.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let outcome = self.come_up().await?;
        info!(topic = self.plan.topic, partitions = outcome.partitions, "topic found");
        for warning in outcome.warnings {
            warn!("{warning}");
        }
        loop {
            // Also learns partitions that were added, and that a topic was deleted.
            match self.producer.warm(&self.plan.topic).await {
                Ok(()) => self.component.ready(),
                Err(error) => self.component.not_ready(error.to_string()),
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    async fn come_up(&self) -> Result<Outcome, Error> {
        loop {
            match topics::ensure(&self.client, self.mode, &self.plan).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) if error.kind() == ErrorKind::Transient => self.component.not_ready(error.to_string()),
                Err(error) => return Err(Error::Topics(error.to_string())),
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }
}
