//! The numbers by which a broker recognises what it has already appended (KIP-98, KIP-360).
//!
//! Why a retry neither duplicates nor reorders:
//!
//! 1. A partition has one batch under way at a time. The next one leaves only after the request of the former has
//!    ended and its outcome is settled or given up.
//! 2. An attempt that ended without a definite answer is repeated under the same (producer id, epoch, sequence). The
//!    broker appends it if it is next in sequence, and answers with the old offset if it is among the last five.
//! 3. A batch that was sent and is given up ends the epoch: the partition goes on under the next epoch from sequence 0.
//!    The broker takes a higher epoch from an idempotent producer without being told of it beforehand, and from that
//!    append on it refuses the lower one – also a request that still lies in a socket of a connection that we closed
//!    long ago. So the batch is in the log at most once, and never behind a later record. (Where we know that it is
//!    not in the log this would not be needed, but an epoch costs nothing, and a number that is used twice costs a
//!    record if ever a broker said "not appended" of what it had appended.)
//! 4. A batch that the broker refuses at the first attempt leaves the sequence as it was; the next takes its numbers.
//!
//! The broker keeps this state for each partition by itself, so one partition's new epoch does not concern another.

/// What a batch's header says of its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) base_sequence: i32,
}

/// A producer id as the cluster gave it out; no other producer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

/// One partition's place in the sequence.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    identity: Option<Identity>,
    next: i32,
}

impl Sequence {
    /// The stamp of the next batch; the partition takes on `fresh` if it has no identity of its own.
    pub(crate) fn stamp(&mut self, fresh: Option<Identity>) -> Option<Stamp> {
        if self.identity.is_none() {
            self.identity = fresh;
            self.next = 0;
        }
        let Identity { producer_id, epoch } = self.identity?;
        Some(Stamp { producer_id, epoch, base_sequence: self.next })
    }

    /// Whether the next batch needs an identity from the cluster first.
    pub(crate) fn needs_identity(&self) -> bool {
        self.identity.is_none()
    }

    /// The batch that bore the last stamp is in the log.
    pub(crate) fn appended(&mut self, records: u32) {
        // Sequences count to i32::MAX and go on from 0.
        let wide = (i64::from(self.next) + i64::from(records)) % (i64::from(i32::MAX) + 1);
        self.next = i32::try_from(wide).unwrap_or(0);
    }

    /// The batch that bore the last stamp was given up: a new epoch shuts it out.
    /// Answers with the producer id that is used up, if this was its last epoch.
    pub(crate) fn end_epoch(&mut self) -> Option<i64> {
        let identity = self.identity?;
        self.next = 0;
        match identity.epoch.checked_add(1) {
            Some(epoch) => {
                self.identity = Some(Identity { epoch, ..identity });
                None
            }
            None => self.end_identity(),
        }
    }

    /// The cluster does not honour our producer id any more. Answers with it.
    pub(crate) fn end_identity(&mut self) -> Option<i64> {
        self.next = 0;
        self.identity.take().map(|identity| identity.producer_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Option<Identity> = Some(Identity { producer_id: 9, epoch: 0 });

    fn stamp(producer_id: i64, epoch: i16, base_sequence: i32) -> Option<Stamp> {
        Some(Stamp { producer_id, epoch, base_sequence })
    }

    #[test]
    fn numbers_advance_only_with_what_was_appended() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.stamp(None), None);
        assert_eq!(sequence.stamp(FRESH), stamp(9, 0, 0));
        assert_eq!(sequence.stamp(FRESH), stamp(9, 0, 0));
        sequence.appended(5);
        assert_eq!(sequence.stamp(None), stamp(9, 0, 5));
    }

    #[test]
    fn doubt_starts_a_new_epoch_from_zero() {
        let mut sequence = Sequence::default();
        sequence.stamp(FRESH);
        sequence.appended(5);
        assert_eq!(sequence.end_epoch(), None);
        assert_eq!(sequence.stamp(FRESH), stamp(9, 1, 0));
    }

    #[test]
    fn the_last_epoch_is_followed_by_another_producer_id() {
        let mut sequence = Sequence::default();
        sequence.stamp(Some(Identity { producer_id: 9, epoch: i16::MAX }));
        assert_eq!(sequence.end_epoch(), Some(9));
        assert!(sequence.needs_identity());
        assert_eq!(sequence.stamp(Some(Identity { producer_id: 10, epoch: 0 })), stamp(10, 0, 0));
    }

    #[test]
    fn numbers_wrap_to_zero_as_the_broker_expects() {
        let mut sequence = Sequence::default();
        sequence.stamp(FRESH);
        sequence.appended(i32::MAX.unsigned_abs());
        assert_eq!(sequence.stamp(None), stamp(9, 0, i32::MAX));
        sequence.appended(3);
        assert_eq!(sequence.stamp(None), stamp(9, 0, 2));
    }
}
