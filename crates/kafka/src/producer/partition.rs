//! One partition's records between `enqueue` and their outcome: a pure state machine, driven by events and a clock.
//!
//! ```text
//!              append                 take                    complete(Appended | Refused)
//!   (nothing) ───────▶ queue: head … ─────▶ flight (one batch) ──────────────────────────▶ settled
//!                        ▲                    │ NotAppended, InDoubt: same sequence, after a pause
//!                        ├────────────────────┤ OutOfSequence, IdentityLost: next epoch, if not in doubt
//!                        └────────────────────┘ RefusedForContent: in two halves
//!   expire: whatever has passed its deadline is settled – as Unavailable if it is certainly not in the log, else as
//!   TimedOut. A batch in flight is settled for its callers at once; the partition stays shut until its request ends.
//! ```
//! Order and uniqueness: see [`super::sequence`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::Answer;
use super::batch::Records;
use super::delivery::{BatchState, ProduceError, Resolution};
use super::record::OutRecord;
use super::sequence::{Identity, Sequence, Stamp};

/// A batch's deadline is that of its first record; it takes no more records once this share of their time is gone, so
/// that none is given up much too early.
const OPEN_SHARE_OF_DELIVERY_TIMEOUT: u32 = 10;

/// Bounds of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    /// Bytes beyond which a batch takes no further record.
    pub(crate) bytes: usize,
    /// Time from enqueueing a record to its outcome.
    pub(crate) delivery_timeout: Duration,
}

/// Records that share their fate.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) records: Records,
    state: Arc<BatchState>,
    opened: Instant,
    deadline: Instant,
    charged: usize,
    attempts: u32,
    certainty: Certainty,
}

/// Whether an earlier attempt may have put the batch into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    NotInLog,
    InDoubt,
}

impl Batch {
    fn open(expected: usize, now: Instant, limits: BatchLimits) -> Self {
        Self {
            records: Records::with_capacity(expected),
            state: Arc::default(),
            opened: now,
            deadline: now + limits.delivery_timeout,
            charged: 0,
            attempts: 0,
            certainty: Certainty::NotInLog,
        }
    }

    fn takes(&self, charge: usize, now: Instant, limits: BatchLimits) -> bool {
        self.attempts == 0
            && self.records.len() + charge <= limits.bytes
            && now.duration_since(self.opened) <= limits.delivery_timeout / OPEN_SHARE_OF_DELIVERY_TIMEOUT
    }

    /// What the callers learn if the batch is given up now.
    fn given_up(&self, certainly_not_in_log: ProduceError) -> ProduceError {
        match self.certainty {
            Certainty::NotInLog => certainly_not_in_log,
            Certainty::InDoubt => ProduceError::TimedOut,
        }
    }

    /// Number of times the batch was sent.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// What a transition asks of the world around the state machine.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Batches whose callers are to be told; done outside of all locks, since it wakes them.
    pub(crate) resolved: Vec<(Arc<BatchState>, Resolution)>,
    /// Bytes of the buffer that are free again.
    pub(crate) freed: usize,
    /// Records acknowledged.
    pub(crate) delivered: u64,
    /// Records given up.
    pub(crate) failed: u64,
    /// Producer ids that are used up: the next batch that needs one needs another.
    pub(crate) spent_identities: Vec<i64>,
}

impl Effects {
    /// Tells the callers.
    pub(crate) fn tell(&mut self) {
        for (state, resolution) in self.resolved.drain(..) {
            state.resolve(resolution);
        }
    }

    fn settle(&mut self, batch: &Batch, resolution: Resolution) {
        let records = u64::from(batch.records.count());
        match resolution {
            Resolution::Delivered(_) => self.delivered += records,
            Resolution::Failed(_) => self.failed += records,
            Resolution::Split { .. } => {}
        }
        self.resolved.push((Arc::clone(&batch.state), resolution));
    }
}

/// Whether a partition has something to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Nothing is queued, or a batch is under way.
    Nothing,
    /// Not before this moment (a retry).
    At(Instant),
    /// Records wait since this moment for company.
    Filling { since: Instant },
    /// A full batch, or one that has been sent before.
    Now,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    sequence: Sequence,
    queue: VecDeque<Batch>,
    flight: Option<Flight>,
    retry_at: Option<Instant>,
    /// Size of the last batch taken: the next one will hardly need less room.
    last_size: usize,
}

/// The callers' side of the batch that is under way.
#[derive(Debug)]
struct Flight {
    state: Arc<BatchState>,
    deadline: Instant,
    records: u32,
    /// The callers have been told already.
    settled: bool,
}

impl Partition {
    /// Takes a record on; answers with its batch and its number there.
    pub(crate) fn append(
        &mut self,
        record: &OutRecord,
        charge: usize,
        now: Instant,
        limits: BatchLimits,
    ) -> (Arc<BatchState>, u32) {
        if !self.queue.back().is_some_and(|open| open.takes(charge, now, limits)) {
            self.queue.push_back(Batch::open(self.last_size, now, limits));
        }
        let batch = self.queue.back_mut().expect("a batch was opened if there was none");
        batch.charged += charge;
        (Arc::clone(&batch.state), batch.records.push(record))
    }

    /// Whether a batch is there that still takes records.
    pub(crate) fn has_open_batch(&self) -> bool {
        self.queue.back().is_some_and(|batch| batch.attempts == 0)
    }

    /// Whether nothing is queued or under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.flight.is_none()
    }

    /// Whether the next batch needs a producer id from the cluster first.
    pub(crate) fn needs_identity(&self) -> bool {
        self.sequence.needs_identity()
    }

    /// Whether there is something to send at `now`.
    pub(crate) fn readiness(&self, now: Instant) -> Readiness {
        let Some(head) = self.queue.front().filter(|_| self.flight.is_none()) else {
            return Readiness::Nothing;
        };
        match self.retry_at {
            Some(at) if at > now => Readiness::At(at),
            _ if head.attempts > 0 || self.queue.len() > 1 => Readiness::Now,
            _ => Readiness::Filling { since: head.opened },
        }
    }

    /// Size of what [`Partition::take`] would take.
    pub(crate) fn head_len(&self) -> usize {
        self.queue.front().map_or(0, |head| head.records.len())
    }

    /// Takes the first batch to send it; `None` when the partition needs an identity first.
    ///
    /// Queue → flight.
    pub(crate) fn take(&mut self, fresh: Option<Identity>) -> Option<(Stamp, Batch)> {
        let stamp = self.sequence.stamp(fresh)?;
        let mut batch = self.queue.pop_front()?;
        batch.attempts += 1;
        self.retry_at = None;
        self.last_size = batch.records.len();
        self.flight = Some(Flight {
            state: Arc::clone(&batch.state),
            deadline: batch.deadline,
            records: batch.records.count(),
            settled: false,
        });
        Some((stamp, batch))
    }

    /// The request that carried `batch` has ended.
    ///
    /// Flight → settled, or back to the head of the queue, not to be sent before `retry_at`.
    pub(crate) fn complete(&mut self, mut batch: Batch, answer: Answer, retry_at: Instant, effects: &mut Effects) {
        let settled = self.flight.take().is_some_and(|flight| flight.settled);
        match answer {
            Answer::Appended(offset) => {
                self.sequence.appended(batch.records.count());
                self.finish(&batch, settled, Resolution::Delivered(offset), effects);
            }
            Answer::InDoubt => {
                batch.certainty = Certainty::InDoubt;
                self.again(batch, settled, retry_at, effects);
            }
            Answer::NotAppended => self.again(batch, settled, retry_at, effects),
            Answer::Refused(code) | Answer::RefusedForContent(code) if batch.certainty == Certainty::InDoubt => {
                // The refusal speaks of this attempt only; an earlier one may have passed other rules.
                tracing::debug!(?code, "a batch in doubt was refused");
                self.abandon(&batch, settled, effects);
            }
            Answer::RefusedForContent(_) if batch.records.count() > 1 && !settled => self.split(&batch, effects),
            Answer::Refused(code) | Answer::RefusedForContent(code) => {
                if batch.attempts > 1 {
                    effects.spent_identities.extend(self.sequence.end_epoch());
                }
                self.finish(&batch, settled, Resolution::Failed(ProduceError::Refused { code }), effects);
            }
            Answer::OutOfSequence | Answer::IdentityLost => self.resequence(batch, settled, answer, retry_at, effects),
        }
    }

    /// The broker's idea of our sequence differs from ours: records that it had acknowledged are gone from its log
    /// (an unclean election, a truncated disk), or another producer has our id.
    ///
    /// What this attempt carried is not in the log. Unless an earlier attempt left that open, it goes out once more
    /// under a new epoch; a batch in doubt is given up, for under a new epoch nothing would recognise a duplicate.
    fn resequence(&mut self, batch: Batch, settled: bool, answer: Answer, retry_at: Instant, effects: &mut Effects) {
        let in_doubt = batch.certainty == Certainty::InDoubt;
        if in_doubt {
            self.abandon(&batch, settled, effects);
        } else {
            self.again(batch, settled, retry_at, effects);
        }
        effects.spent_identities.extend(match answer {
            Answer::IdentityLost => self.sequence.end_identity(),
            // Giving the batch up has ended the epoch already.
            _ if in_doubt => None,
            _ => self.sequence.end_epoch(),
        });
    }

    /// Back to the head of the queue, unless nobody waits for it any more.
    fn again(&mut self, batch: Batch, settled: bool, retry_at: Instant, effects: &mut Effects) {
        if settled {
            self.abandon(&batch, settled, effects);
        } else {
            self.retry_at = Some(retry_at);
            self.queue.push_front(batch);
        }
    }

    /// Gives a batch up whose time is over.
    fn abandon(&mut self, batch: &Batch, settled: bool, effects: &mut Effects) {
        self.abandon_as(ProduceError::Unavailable, batch, settled, effects);
    }

    /// Gives a batch up; if it was ever sent, its epoch ends with it. `error` is for what is certainly not in the log.
    fn abandon_as(&mut self, error: ProduceError, batch: &Batch, settled: bool, effects: &mut Effects) {
        if batch.attempts > 0 {
            effects.spent_identities.extend(self.sequence.end_epoch());
        }
        self.finish(batch, settled, Resolution::Failed(batch.given_up(error)), effects);
    }

    fn finish(&mut self, batch: &Batch, settled: bool, resolution: Resolution, effects: &mut Effects) {
        effects.freed += batch.charged;
        if !settled {
            effects.settle(batch, resolution);
        }
    }

    fn split(&mut self, batch: &Batch, effects: &mut Effects) {
        let [left, right] = batch.records.halves();
        let at = left.count();
        let half = batch.charged / 2;
        let part = |records, charged| Batch {
            records,
            state: Arc::default(),
            charged,
            opened: batch.opened,
            deadline: batch.deadline,
            attempts: batch.attempts,
            certainty: Certainty::NotInLog,
        };
        let (left, right) = (part(left, half), part(right, batch.charged - half));
        let parts = [Arc::clone(&left.state), Arc::clone(&right.state)];
        effects.settle(batch, Resolution::Split { at, parts });
        self.queue.push_front(right);
        self.queue.push_front(left);
    }

    /// Settles whatever has passed its deadline.
    pub(crate) fn expire(&mut self, now: Instant, effects: &mut Effects) {
        if self.flight.as_ref().is_some_and(|flight| flight.deadline <= now) {
            self.settle_flight(effects);
        }
        while let Some(batch) = self.queue.pop_front_if(|head| head.deadline <= now) {
            self.abandon(&batch, false, effects);
        }
        if self.queue.is_empty() {
            self.retry_at = None;
        }
    }

    fn settle_flight(&mut self, effects: &mut Effects) {
        if let Some(flight) = self.flight.as_mut().filter(|flight| !flight.settled) {
            flight.settled = true;
            effects.failed += u64::from(flight.records);
            effects.resolved.push((Arc::clone(&flight.state), Resolution::Failed(ProduceError::TimedOut)));
        }
    }

    /// Settles everything, since nothing will be sent any more; `error` is for what is certainly not in the log.
    pub(crate) fn give_up(&mut self, error: ProduceError, effects: &mut Effects) {
        self.settle_flight(effects);
        for batch in std::mem::take(&mut self.queue) {
            self.abandon_as(error, &batch, false, effects);
        }
        self.retry_at = None;
    }

    /// The next moment at which [`Partition::expire`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let flight = self.flight.iter().filter(|flight| !flight.settled).map(|flight| flight.deadline);
        flight.chain(self.queue.front().map(|head| head.deadline)).min()
    }

    /// Another broker leads now: the pause was meant for the old one.
    pub(crate) fn retry_now(&mut self) {
        self.retry_at = None;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;
    use kafka_protocol::error::ResponseError;

    use super::super::delivery::{Delivered, Delivery};
    use super::*;
    use crate::types::{Offset, PartitionId};

    const LIMITS: BatchLimits = BatchLimits { bytes: 1_000, delivery_timeout: Duration::from_secs(10) };
    const ID: Option<Identity> = Some(Identity { producer_id: 7, epoch: 0 });
    const PAUSE: Duration = Duration::from_millis(100);
    const CHARGE: usize = 100;

    /// A partition, its clock, and everything it asked of the world.
    struct Bench {
        partition: Partition,
        now: Instant,
        effects: Effects,
    }

    impl Bench {
        fn new() -> Self {
            Self { partition: Partition::default(), now: Instant::now(), effects: Effects::default() }
        }

        fn enqueue(&mut self) -> Delivery {
            let record = OutRecord {
                topic: "t".into(),
                partition: None,
                key: None,
                value: Some(Bytes::from_static(b"value")),
                headers: Vec::new(),
                timestamp_ms: 0,
            };
            let (state, number) = self.partition.append(&record, CHARGE, self.now, LIMITS);
            Delivery::new(state, PartitionId(0), number)
        }

        fn take(&mut self) -> (Stamp, Batch) {
            self.partition.take(ID).expect("something to send")
        }

        fn answer(&mut self, batch: Batch, answer: Answer) {
            self.partition.complete(batch, answer, self.now + PAUSE, &mut self.effects);
            self.effects.tell();
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.partition.expire(self.now, &mut self.effects);
            self.effects.tell();
        }

        fn readiness(&self) -> Readiness {
            self.partition.readiness(self.now)
        }
    }

    fn outcome(delivery: Delivery) -> Option<Result<Option<Offset>, ProduceError>> {
        delivery.now_or_never().map(|outcome| outcome.map(|Delivered { offset, .. }| offset))
    }

    fn stamp(epoch: i16, base_sequence: i32) -> Stamp {
        Stamp { producer_id: 7, epoch, base_sequence }
    }

    const REFUSED: ResponseError = ResponseError::TopicAuthorizationFailed;

    #[test]
    fn records_fill_one_batch_and_learn_their_offsets() {
        let mut bench = Bench::new();
        let deliveries = [bench.enqueue(), bench.enqueue()];
        let (first, batch) = bench.take();
        assert_eq!((first, batch.records.count()), (stamp(0, 0), 2));
        bench.answer(batch, Answer::Appended(Some(Offset(40))));
        assert_eq!(deliveries.map(outcome), [Some(Ok(Some(Offset(40)))), Some(Ok(Some(Offset(41))))]);
        assert_eq!((bench.effects.freed, bench.effects.delivered), (2 * CHARGE, 2));
        let _later = bench.enqueue();
        assert_eq!(bench.take().0, stamp(0, 2));
    }

    #[test]
    fn nothing_follows_while_a_batch_is_under_way() {
        let mut bench = Bench::new();
        let _first = bench.enqueue();
        let (_, batch) = bench.take();
        let _second = bench.enqueue();
        assert_eq!(bench.readiness(), Readiness::Nothing);
        bench.answer(batch, Answer::Appended(None));
        assert_eq!(bench.readiness(), Readiness::Filling { since: bench.now });
    }

    #[test]
    fn a_retry_goes_before_what_came_later_and_bears_the_same_numbers() {
        for again in [Answer::InDoubt, Answer::NotAppended] {
            let mut bench = Bench::new();
            let first = bench.enqueue();
            let (sent, batch) = bench.take();
            let _second = bench.enqueue();
            bench.answer(batch, again);
            assert_eq!(bench.readiness(), Readiness::At(bench.now + PAUSE));
            bench.pass(PAUSE);
            assert_eq!(bench.readiness(), Readiness::Now);
            let (resent, batch) = bench.take();
            assert_eq!((resent, batch.records.count(), batch.attempts()), (sent, 1, 2));
            bench.answer(batch, Answer::Appended(Some(Offset(3))));
            assert_eq!(outcome(first), Some(Ok(Some(Offset(3)))));
            assert_eq!(bench.take().0, stamp(0, 1));
        }
    }

    #[test]
    fn a_sent_batch_takes_no_more_records() {
        let mut bench = Bench::new();
        let _first = bench.enqueue();
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::InDoubt);
        let _second = bench.enqueue();
        bench.pass(PAUSE);
        assert_eq!(bench.take().1.records.count(), 1);
    }

    #[test]
    fn what_was_never_sent_expires_as_certainly_not_in_kafka() {
        let mut bench = Bench::new();
        let delivery = bench.enqueue();
        assert_eq!(bench.partition.next_deadline(), Some(bench.now + LIMITS.delivery_timeout));
        bench.pass(LIMITS.delivery_timeout);
        assert_eq!(outcome(delivery), Some(Err(ProduceError::Unavailable)));
        assert_eq!((bench.effects.freed, bench.effects.failed), (CHARGE, 1));
        assert!(bench.partition.is_empty());
    }

    #[test]
    fn what_was_sent_and_certainly_not_appended_expires_likewise_and_ends_the_epoch() {
        let mut bench = Bench::new();
        let delivery = bench.enqueue();
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::NotAppended);
        bench.pass(LIMITS.delivery_timeout);
        assert_eq!(outcome(delivery), Some(Err(ProduceError::Unavailable)));
        let _next = bench.enqueue();
        assert_eq!(bench.take().0, stamp(1, 0));
    }

    #[test]
    fn what_may_be_in_the_log_expires_as_unknown_and_ends_the_epoch() {
        let mut bench = Bench::new();
        let delivery = bench.enqueue();
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::InDoubt);
        bench.pass(LIMITS.delivery_timeout);
        assert_eq!(outcome(delivery), Some(Err(ProduceError::TimedOut)));
        let _next = bench.enqueue();
        assert_eq!(bench.take().0, stamp(1, 0));
    }

    #[test]
    fn callers_learn_at_the_deadline_but_the_partition_stays_shut_until_the_request_ends() {
        let mut bench = Bench::new();
        let delivery = bench.enqueue();
        let (_, batch) = bench.take();
        bench.pass(LIMITS.delivery_timeout);
        assert_eq!(outcome(delivery), Some(Err(ProduceError::TimedOut)));
        let _next = bench.enqueue();
        assert_eq!(bench.readiness(), Readiness::Nothing);
        assert_eq!(bench.effects.freed, 0);
        bench.answer(batch, Answer::InDoubt);
        assert_eq!((bench.effects.freed, bench.effects.failed), (CHARGE, 1));
        assert_eq!(bench.take().0, stamp(1, 0));
    }

    #[test]
    fn a_late_acknowledgement_keeps_the_epoch() {
        let mut bench = Bench::new();
        let _first = bench.enqueue();
        let (_, batch) = bench.take();
        bench.pass(LIMITS.delivery_timeout);
        bench.answer(batch, Answer::Appended(Some(Offset(0))));
        let _next = bench.enqueue();
        assert_eq!(bench.take().0, stamp(0, 1));
    }

    #[test]
    fn a_refusal_ends_the_batch_and_leaves_its_numbers_to_the_next() {
        let mut bench = Bench::new();
        let delivery = bench.enqueue();
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::Refused(REFUSED));
        assert_eq!(outcome(delivery), Some(Err(ProduceError::Refused { code: REFUSED })));
        let _next = bench.enqueue();
        assert_eq!(bench.take().0, stamp(0, 0));
    }

    #[test]
    fn a_refusal_after_doubt_does_not_claim_that_the_record_is_not_in_kafka() {
        let mut bench = Bench::new();
        let delivery = bench.enqueue();
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::InDoubt);
        bench.pass(PAUSE);
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::Refused(REFUSED));
        assert_eq!(outcome(delivery), Some(Err(ProduceError::TimedOut)));
        let _next = bench.enqueue();
        assert_eq!(bench.take().0, stamp(1, 0));
    }

    #[test]
    fn a_refused_content_is_halved_until_the_culprit_stands_alone() {
        let code = ResponseError::MessageTooLarge;
        let mut bench = Bench::new();
        let deliveries = [bench.enqueue(), bench.enqueue(), bench.enqueue()];
        let mut appended = 0;
        // Record 1 is the one that the broker does not take: whatever holds it is refused.
        let mut sizes = Vec::new();
        let mut position = 0;
        while bench.readiness() != Readiness::Nothing {
            let (_, batch) = bench.take();
            let (count, first) = (batch.records.count(), position);
            sizes.push(count);
            if (first..first + count).contains(&1) {
                if count == 1 {
                    position += 1;
                }
                bench.answer(batch, Answer::RefusedForContent(code));
            } else {
                position += count;
                bench.answer(batch, Answer::Appended(Some(Offset(appended))));
                appended += i64::from(count);
            }
        }
        let refused = Some(Err(ProduceError::Refused { code }));
        assert_eq!(deliveries.map(outcome), [Some(Ok(Some(Offset(0)))), refused, Some(Ok(Some(Offset(1))))]);
        assert_eq!(sizes, [3, 1, 2, 1, 1]);
        assert_eq!(bench.effects.freed, 3 * CHARGE);
        let _next = bench.enqueue();
        assert_eq!(bench.take().0, stamp(1, 1));
    }

    #[test]
    fn lost_sequences_start_a_new_epoch_and_the_batch_goes_out_again() {
        let mut bench = Bench::new();
        let delivery = bench.enqueue();
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::OutOfSequence);
        bench.pass(PAUSE);
        let (second, batch) = bench.take();
        assert_eq!(second, stamp(1, 0));
        bench.answer(batch, Answer::Appended(Some(Offset(5))));
        assert_eq!(outcome(delivery), Some(Ok(Some(Offset(5)))));
    }

    #[test]
    fn lost_sequences_after_doubt_leave_the_outcome_unknown() {
        let mut bench = Bench::new();
        let delivery = bench.enqueue();
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::InDoubt);
        bench.pass(PAUSE);
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::OutOfSequence);
        assert_eq!(outcome(delivery), Some(Err(ProduceError::TimedOut)));
        let _next = bench.enqueue();
        assert_eq!(bench.take().0, stamp(1, 0));
    }

    #[test]
    fn a_lost_identity_is_replaced_before_anything_else_is_sent() {
        let mut bench = Bench::new();
        let _delivery = bench.enqueue();
        let (_, batch) = bench.take();
        bench.answer(batch, Answer::IdentityLost);
        assert_eq!(bench.effects.spent_identities, [7]);
        bench.pass(PAUSE);
        assert!(bench.partition.take(None).is_none());
        let (stamp, _) = bench.partition.take(Some(Identity { producer_id: 8, epoch: 0 })).unwrap();
        assert_eq!(stamp, Stamp { producer_id: 8, epoch: 0, base_sequence: 0 });
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_in_the_time_it_stays_open() {
        let mut bench = Bench::new();
        for _ in 0..100 {
            drop(bench.enqueue());
        }
        assert_eq!(bench.readiness(), Readiness::Now);
        assert!(bench.take().1.records.len() <= LIMITS.bytes);

        let mut bench = Bench::new();
        let _early = bench.enqueue();
        bench.now += LIMITS.delivery_timeout / 5;
        let late = bench.enqueue();
        bench.pass(LIMITS.delivery_timeout * 4 / 5);
        assert_eq!(outcome(late), None);
        assert_eq!(bench.effects.failed, 1);
    }

    #[test]
    fn a_record_larger_than_a_batch_gets_one_of_its_own() {
        let mut bench = Bench::new();
        let large = OutRecord {
            topic: "t".into(),
            partition: None,
            key: None,
            value: Some(Bytes::from(vec![0; 5_000])),
            headers: Vec::new(),
            timestamp_ms: 0,
        };
        let _small = bench.enqueue();
        bench.partition.append(&large, large.charge(), bench.now, LIMITS);
        let _small = bench.enqueue();
        let sizes: Vec<_> = bench.partition.queue.iter().map(|batch| batch.records.count()).collect();
        assert_eq!(sizes, [1, 1, 1]);
    }

    #[test]
    fn giving_up_tells_the_certain_from_the_uncertain() {
        let mut bench = Bench::new();
        let sent = bench.enqueue();
        let (_, _in_flight) = bench.take();
        let queued = bench.enqueue();
        bench.partition.give_up(ProduceError::Closed, &mut bench.effects);
        bench.effects.tell();
        assert_eq!(outcome(sent), Some(Err(ProduceError::TimedOut)));
        assert_eq!(outcome(queued), Some(Err(ProduceError::Closed)));
    }
}
