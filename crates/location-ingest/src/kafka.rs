//! The way into Kafka: topics at the start, events into the producer, and a watch that keeps readiness true.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use backpressure::{Backoff, RetryPolicy};
use bytes::Bytes;
use event::DriverLocation;
use kafka::topics::{self, Mode, Plan};
use kafka::{Client, ClientConfig, Delivery, ErrorKind, OutRecord, ProduceError, Producer, ProducerConfig, RejectReason};
use service::{Component, Context};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::INFO;
use crate::config::Args;
use crate::error::Error;
use crate::problem::Problem;

/// How often the cluster is asked whether it is still there.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Why a valid event is not (known to be) in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpublished {
    /// The producer's buffer is full; certainly not in Kafka.
    Overloaded,
    /// Kafka cannot be reached; certainly not in Kafka.
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
