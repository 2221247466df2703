//! What becomes of a record: one shared state for each batch, and a future for each record that looks into it.
//!
//! Thousands of callers may wait for one batch. A channel for each would cost an allocation a record; here a waiting
//! caller costs a slot in its batch's list.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use kafka_protocol::error::ResponseError;

use crate::error::is_denial;
use crate::types::{Offset, PartitionId};

/// Where a record ended up, acknowledged by all in-sync replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition that holds the record.
    pub partition: PartitionId,
    /// Its position there; `None` when the broker recognised a repeated batch but no longer knows where it lies.
    pub offset: Option<Offset>,
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// Kafka will never take this record as it is: it is certainly not in the log.
    #[error("Kafka refused the record: {code:?}")]
    Refused {
        /// The broker's code.
        code: ResponseError,
    },
    /// The outcome is unknown: the record may or may not be in Kafka. It is there at most once, and never behind a
    /// record that was enqueued later for its partition.
    #[error("Kafka did not acknowledge the record in time; it may or may not be in Kafka")]
    TimedOut,
    /// Kafka could not be reached in time: the record is certainly not in Kafka.
    #[error("Kafka took no records in time; the record is not in Kafka")]
    Unavailable,
    /// The producer was closed first: the record is certainly not in Kafka.
    #[error("the producer was closed before it could send the record; the record is not in Kafka")]
    Closed,
}

impl ProduceError {
    /// Whether the right to write is missing.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { code } if is_denial(*code))
    }
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub(crate) enum Resolution {
    /// Acknowledged; the offset is that of the first record.
    Delivered(Option<Offset>),
    /// Given up.
    Failed(ProduceError),
    /// Sent on as two batches; the second begins at record `at`.
    Split { at: u32, parts: [Arc<BatchState>; 2] },
}

/// The part of a batch that its producer and the callers share.
#[derive(Debug, Default)]
pub(crate) struct BatchState {
    resolution: OnceLock<Resolution>,
    waiting: Mutex<Vec<Waker>>,
}

impl BatchState {
    /// Settles the batch and wakes everyone who waits for it; only the first time counts.
    pub(crate) fn resolve(&self, resolution: Resolution) {
        if self.resolution.set(resolution).is_ok() {
            let waiting = std::mem::take(&mut *self.lock());
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Registers the waker, in `slot` if it has one already; `false` when the batch has been settled meanwhile.
    fn park(&self, waker: &Waker, slot: &mut Option<usize>) -> bool {
        let mut waiting = self.lock();
        // Under the lock: whoever settles it after this look finds the waker in the list.
        if self.resolution.get().is_some() {
            return false;
        }
        match *slot {
            Some(at) => waiting[at].clone_from(waker),
            None => {
                *slot = Some(waiting.len());
                waiting.push(waker.clone());
            }
        }
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of one record, some time later. It always comes: at the latest when the delivery time-out has passed.
/// Dropping it loses the answer, not the record.
#[derive(Debug)]
#[must_use = "without waiting for it, nobody knows whether the record is in Kafka"]
pub struct Delivery {
    state: Arc<BatchState>,
    partition: PartitionId,
    index: u32,
    slot: Option<usize>,
}

impl Delivery {
    pub(crate) fn new(state: Arc<BatchState>, partition: PartitionId, index: u32) -> Self {
        Self { state, partition, index, slot: None }
    }

    /// The partition that the record was put in.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The outcome, if it is known by now.
    fn outcome(&mut self) -> Option<Result<Delivered, ProduceError>> {
        loop {
            match self.state.resolution.get()? {
                Resolution::Delivered(base) => return Some(Ok(self.delivered(*base))),
                Resolution::Failed(error) => return Some(Err(*error)),
                Resolution::Split { at, parts } => {
                    let (part, index) =
                        if self.index < *at { (&parts[0], self.index) } else { (&parts[1], self.index - at) };
                    let part = Arc::clone(part);
                    *self = Self::new(part, self.partition, index);
                }
            }
        }
    }

    fn delivered(&self, base: Option<Offset>) -> Delivered {
        let offset = base.map(|base| Offset(base.0 + i64::from(self.index)));
        Delivered { partition: self.partition, offset }
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(outcome) = self.outcome() {
                return Poll::Ready(outcome);
            }
            let this = &mut *self;
            if this.state.park(cx.waker(), &mut this.slot) {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(state: &Arc<BatchState>, index: u32) -> Delivery {
        Delivery::new(Arc::clone(state), PartitionId(4), index)
    }

    #[tokio::test]
    async fn every_record_of_a_batch_learns_its_own_offset() {
        let state = Arc::new(BatchState::default());
        let waiting: Vec<_> = (0..500).map(|index| tokio::spawn(delivery(&state, index))).collect();
        tokio::task::yield_now().await;
        state.resolve(Resolution::Delivered(Some(Offset(1_000))));
        for (offset, waiting) in (1_000..).zip(waiting) {
            let delivered = waiting.await.unwrap().unwrap();
            assert_eq!(delivered, Delivered { partition: PartitionId(4), offset: Some(Offset(offset)) });
        }
    }

    #[tokio::test]
    async fn the_first_resolution_stands() {
        let state = Arc::new(BatchState::default());
        state.resolve(Resolution::Failed(ProduceError::TimedOut));
        state.resolve(Resolution::Delivered(None));
        assert_eq!(delivery(&state, 0).await, Err(ProduceError::TimedOut));
    }

    #[tokio::test]
    async fn a_split_batch_answers_through_its_parts() {
        let whole = Arc::new(BatchState::default());
        let parts = [Arc::new(BatchState::default()), Arc::new(BatchState::default())];
        let waiting: Vec<_> = (0..4).map(|index| tokio::spawn(delivery(&whole, index))).collect();
        tokio::task::yield_now().await;
        whole.resolve(Resolution::Split { at: 3, parts: parts.clone() });
        tokio::task::yield_now().await;
        parts[1].resolve(Resolution::Failed(ProduceError::Unavailable));
        parts[0].resolve(Resolution::Delivered(Some(Offset(7))));
        let mut outcomes = Vec::new();
        for waiting in waiting {
            outcomes.push(waiting.await.unwrap().map(|delivered| delivered.offset));
        }
        let ok = |offset| Ok(Some(Offset(offset)));
        assert_eq!(outcomes, [ok(7), ok(8), ok(9), Err(ProduceError::Unavailable)]);
    }

    #[tokio::test]
    async fn polling_again_takes_no_second_place_in_the_list() {
        let state = Arc::new(BatchState::default());
        let mut delivery = delivery(&state, 0);
        for _ in 0..3 {
            assert!(futures::poll!(&mut delivery).is_pending());
        }
        assert_eq!(state.lock().len(), 1);
    }
}
