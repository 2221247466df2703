//! What is fetched and not yet written: a queue for each partition, the gate on all of them, and which records go into
//! the next batch. Pure.
//!
//! ```text
//!   fetched ──▶ queue of each partition (encoded batches) ──take──▶ in flight ──complete──▶ position, to be committed
//!                  └── counted in records and bytes ──▶ gate ──▶ which partitions pause fetching
//! ```
//!
//! A partition is in at most one batch at a time: that keeps its order. Its memory is counted until it is written.

use std::collections::{BTreeMap, VecDeque};

use backpressure::{Gate, GateState};
use kafka::{Incarnation, Offset, RawBatch, TopicPartition};
use tokio::time::Instant;

/// A queue entry: something to read, or a stretch that is left out on purpose.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Records(RawBatch),
    Skip { to: Offset, outcome: &'static str, records: u64 },
}

impl Entry {
    fn next(&self) -> Offset {
        match self {
            Self::Records(batch) => batch.next(),
            Self::Skip { to, .. } => *to,
        }
    }

    fn load(&self) -> Load {
        match self {
            Self::Records(batch) => {
                Load { records: u64::from(batch.record_count()), bytes: batch.bytes().len() as u64 }
            }
            Self::Skip { .. } => Load::default(),
        }
    }
}

/// How much is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Load {
    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }

    fn sub(&mut self, other: Self) {
        self.records -= other.records;
        self.bytes -= other.bytes;
    }
}

/// Consecutive entries of one partition, taken to be written.
#[derive(Debug, Clone)]
pub(crate) struct RawSlice {
    /// Which taking this is: what comes back of an earlier life of the partition is told apart.
    ticket: u64,
    pub(crate) partition: TopicPartition,
    pub(crate) start: Offset,
    pub(crate) entries: Vec<Entry>,
}

impl RawSlice {
    pub(crate) fn next(&self) -> Offset {
        self.entries.last().map_or(self.start, Entry::next)
    }

    fn load(&self) -> Load {
        let mut load = Load::default();
        self.entries.iter().for_each(|entry| load.add(entry.load()));
        load
    }
}

struct Partition {
    incarnation: Incarnation,
    /// Everything before it is settled.
    position: Offset,
    /// Everything before it is settled or in flight: where the queue begins.
    taken: Offset,
    queue: VecDeque<Entry>,
    /// Queued and in flight.
    held: Load,
    /// Ticket of the slice that is under way.
    in_flight: Option<u64>,
    /// Set while the partition cannot move (its dead letters cannot be published).
    blocked_until: Option<Instant>,
    paused: bool,
}

/// Limits of a [`Backlog`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) batch_records: u64,
    pub(crate) batch_bytes: u64,
    pub(crate) pause_above: u64,
    pub(crate) resume_below: u64,
    pub(crate) buffer_bytes: u64,
}

/// See the drawing above.
pub(crate) struct Backlog {
    limits: Limits,
    partitions: BTreeMap<TopicPartition, Partition>,
    held: Load,
    record_gate: Gate,
    byte_gate: Gate,
    tickets: u64,
    /// Where the next batch begins to look, so that every partition gets its turn.
    turn: Option<TopicPartition>,
}

/// What the fetches have to do after a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FetchChanges {
    pub(crate) pause: Vec<TopicPartition>,
    pub(crate) resume: Vec<TopicPartition>,
}

impl Backlog {
    /// # Errors
    /// When the marks are in the wrong order.
    pub(crate) fn new(limits: Limits) -> Result<Self, backpressure::MarksError> {
        Ok(Self {
            record_gate: Gate::new(limits.pause_above, limits.resume_below)?,
            byte_gate: Gate::new(limits.buffer_bytes, limits.buffer_bytes / 2)?,
            limits,
            partitions: BTreeMap::new(),
            held: Load::default(),
            tickets: 0,
            turn: None,
        })
    }

    /// Begins a partition at `position`.
    pub(crate) fn start(&mut self, partition: TopicPartition, incarnation: Incarnation, position: Offset) {
        self.remove(&partition);
        let fresh = Partition {
            incarnation,
            position,
            taken: position,
            queue: VecDeque::new(),
            held: Load::default(),
            in_flight: None,
            blocked_until: None,
            paused: false,
        };
        self.partitions.insert(partition, fresh);
    }

    /// Forgets a partition; what is in flight of it is no longer counted.
    pub(crate) fn remove(&mut self, partition: &TopicPartition) {
        if let Some(removed) = self.partitions.remove(partition) {
            self.held.sub(removed.held);
        }
    }

    /// Drops what is queued of a partition, so that nothing more of it is begun.
    pub(crate) fn drop_queued(&mut self, partition: &TopicPartition) {
        if let Some(known) = self.partitions.get_mut(partition) {
            for entry in known.queue.drain(..) {
                known.held.sub(entry.load());
                self.held.sub(entry.load());
            }
        }
    }

    /// Goes on with a new incarnation from `to`: what is queued is dropped, and the way there counts as `outcome`.
    pub(crate) fn skip_to(
        &mut self,
        partition: &TopicPartition,
        incarnation: Incarnation,
        to: Offset,
        outcome: &'static str,
    ) {
        self.drop_queued(partition);
        if let Some(known) = self.partitions.get_mut(partition) {
            known.incarnation = incarnation;
            known.queue.push_back(Entry::Skip { to, outcome, records: to.since(known.taken) });
        }
    }

    /// Takes in what was fetched; what belongs to an earlier incarnation is dropped.
    pub(crate) fn push(&mut self, partition: &TopicPartition, incarnation: Incarnation, entries: Vec<Entry>) {
        let Some(known) = self.partitions.get_mut(partition).filter(|known| known.incarnation == incarnation) else {
            return;
        };
        for entry in entries {
            known.held.add(entry.load());
            self.held.add(entry.load());
            known.queue.push_back(entry);
        }
    }

    /// The next batch: whole entries of as many partitions as fit, one after the other from where the last one ended.
    /// At least one entry, however large it is.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Vec<RawSlice>> {
        let order = self.ready_in_turn(now);
        let mut load = Load::default();
        let mut slices = Vec::new();
        for partition in order {
            if load.records >= self.limits.batch_records || load.bytes >= self.limits.batch_bytes {
                break;
            }
            self.turn = Some(partition.clone());
            slices.push(self.take_slice(&partition, &mut load)?);
        }
        (!slices.is_empty()).then_some(slices)
    }

    fn ready_in_turn(&self, now: Instant) -> Vec<TopicPartition> {
        let ready = |known: &Partition| {
            known.in_flight.is_none() && !known.queue.is_empty() && known.blocked_until.is_none_or(|until| until <= now)
        };
        let (mut after, mut before) = (Vec::new(), Vec::new());
        for (partition, _) in self.partitions.iter().filter(|(_, known)| ready(known)) {
            let is_after = self.turn.as_ref().is_none_or(|turn| partition > turn);
            if is_after { &mut after } else { &mut before }.push(partition.clone());
        }
        after.append(&mut before);
        after
    }

    fn take_slice(&mut self, partition: &TopicPartition, load: &mut Load) -> Option<RawSlice> {
        let limits = self.limits;
        let known = self.partitions.get_mut(partition)?;
        self.tickets += 1;
        known.in_flight = Some(self.tickets);
        known.blocked_until = None;
        let mut entries = Vec::new();
        while let Some(entry) = known.queue.pop_front() {
            load.add(entry.load());
            entries.push(entry);
            if load.records >= limits.batch_records || load.bytes >= limits.batch_bytes {
                break;
            }
        }
        let slice = RawSlice { ticket: self.tickets, partition: partition.clone(), start: known.position, entries };
        known.taken = slice.next();
        Some(slice)
    }

    /// A slice is settled: its partition's position moves to `next`. False when the partition is no longer ours.
    pub(crate) fn complete(&mut self, slice: &RawSlice, next: Offset) -> bool {
        let mine = |known: &&mut Partition| known.in_flight == Some(slice.ticket);
        let Some(known) = self.partitions.get_mut(&slice.partition).filter(mine) else { return false };
        known.in_flight = None;
        known.position = next;
        known.held.sub(slice.load());
        self.held.sub(slice.load());
        true
    }

    /// A slice could not be settled for a reason of its own: it goes back to the front of its queue until `until`.
    pub(crate) fn put_back(&mut self, slice: RawSlice, until: Instant) {
        let mine = |known: &&mut Partition| known.in_flight == Some(slice.ticket);
        if let Some(known) = self.partitions.get_mut(&slice.partition).filter(mine) {
            known.in_flight = None;
            known.blocked_until = Some(until);
            known.taken = slice.start;
            slice.entries.into_iter().rev().for_each(|entry| known.queue.push_front(entry));
        }
    }

    /// Whether nothing of the partition is under way (or it is not ours).
    pub(crate) fn is_idle(&self, partition: &TopicPartition) -> bool {
        self.partitions.get(partition).is_none_or(|known| known.in_flight.is_none())
    }

    /// Position up to which everything is settled.
    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.partitions.get(partition).map(|known| known.position)
    }

    /// Position after the last record that was fetched.
    pub(crate) fn fetched_to(&self, partition: &TopicPartition) -> Option<Offset> {
        let known = self.partitions.get(partition)?;
        Some(known.queue.back().map_or(known.taken, Entry::next))
    }

    /// When the first blocked partition may be tried again.
    pub(crate) fn next_unblock(&self) -> Option<Instant> {
        self.partitions.values().filter(|known| known.in_flight.is_none()).filter_map(|known| known.blocked_until).min()
    }

    pub(crate) fn held(&self) -> Load {
        self.held
    }

    /// Partitions whose fetches are paused, and those whose records cannot move.
    pub(crate) fn paused_and_blocked(&self) -> (usize, usize) {
        let paused = self.partitions.values().filter(|known| known.paused).count();
        let blocked = self.partitions.values().filter(|known| known.blocked_until.is_some()).count();
        (paused, blocked)
    }

    /// Decides which partitions may go on fetching. While a gate is closed, those that hold more than an equal share of
    /// the low mark pause: one that cannot move fills the room alone and pauses alone.
    pub(crate) fn fetch_changes(&mut self, sink_is_up: bool) -> FetchChanges {
        let records = self.record_gate.observe(self.held.records);
        let bytes = self.byte_gate.observe(self.held.bytes);
        let open = records == GateState::Open && bytes == GateState::Open;
        let count = self.partitions.len().max(1) as u64;
        let share = Load { records: self.limits.resume_below / count, bytes: self.limits.buffer_bytes / 2 / count };
        let mut changes = FetchChanges::default();
        for (partition, known) in &mut self.partitions {
            let over = known.held.records > share.records || known.held.bytes > share.bytes;
            let pause = !sink_is_up || (!open && over);
            match (known.paused, pause) {
                (false, true) => changes.pause.push(partition.clone()),
                (true, false) => changes.resume.push(partition.clone()),
                _ => {}
            }
            known.paused = pause;
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka::PartitionId;
    use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
    use std::time::Duration;

    const LIFE: Incarnation = Incarnation(1);
    const LIMITS: Limits =
        Limits { batch_records: 10, batch_bytes: 1 << 20, pause_above: 100, resume_below: 20, buffer_bytes: 1 << 20 };

    fn partition(id: i32) -> TopicPartition {
        TopicPartition::new("t", PartitionId(id))
    }

    /// A batch of the records `offsets`.
    fn records(offsets: std::ops::Range<i64>) -> Entry {
        let first = offsets.start;
        let records: Vec<_> = offsets.map(record).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
        Entry::Records(RawBatch::from_log(bytes.freeze(), Offset(first)).remove(0))
    }

    fn record(offset: i64) -> Record {
        Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset,
            sequence: i32::try_from(offset).unwrap(),
            timestamp: offset,
            key: None,
            value: Some(Bytes::from_static(b"v")),
            headers: Default::default(),
        }
    }

    fn backlog(partitions: i32) -> Backlog {
        let mut backlog = Backlog::new(LIMITS).unwrap();
        (0..partitions).for_each(|id| backlog.start(partition(id), LIFE, Offset(0)));
        backlog
    }

    fn taken(backlog: &mut Backlog) -> Vec<(i32, i64, i64)> {
        let slices = backlog.take(Instant::now()).unwrap_or_default();
        slices.iter().map(|slice| (slice.partition.partition.0, slice.start.0, slice.next().0)).collect()
    }

    #[test]
    fn a_batch_gathers_partitions_and_each_has_its_turn() {
        let mut backlog = backlog(3);
        (0..3).for_each(|id| backlog.push(&partition(id), LIFE, vec![records(0..6)]));
        assert_eq!(taken(&mut backlog), [(0, 0, 6), (1, 0, 6)], "full after the second");
        assert_eq!(taken(&mut backlog), [(2, 0, 6)]);
    }

    #[test]
    fn a_batch_is_full_with_its_records_or_with_its_bytes() {
        let entry = records(0..1);
        let limits = Limits { batch_records: 1_000, batch_bytes: 3 * entry.load().bytes, ..LIMITS };
        let mut backlog = Backlog::new(limits).unwrap();
        (0..2).for_each(|id| backlog.start(partition(id), LIFE, Offset(0)));
        backlog.push(&partition(0), LIFE, (0..2).map(|offset| records(offset..offset + 1)).collect());
        backlog.push(&partition(1), LIFE, (0..5).map(|offset| records(offset..offset + 1)).collect());
        assert_eq!(taken(&mut backlog), [(0, 0, 2), (1, 0, 1)], "three batches of the producer");
    }

    #[test]
    fn a_partition_is_in_one_batch_at_a_time() {
        let mut backlog = backlog(1);
        backlog.push(&partition(0), LIFE, vec![records(0..10), records(10..20)]);
        let first = backlog.take(Instant::now()).unwrap();
        assert!(backlog.take(Instant::now()).is_none());
        assert!(backlog.complete(&first[0], first[0].next()));
        assert_eq!(taken(&mut backlog), [(0, 10, 20)]);
    }

    #[test]
    fn memory_is_counted_until_it_is_written() {
        let mut backlog = backlog(1);
        backlog.push(&partition(0), LIFE, vec![records(0..10)]);
        let slices = backlog.take(Instant::now()).unwrap();
        assert_eq!(backlog.held().records, 10);
        backlog.complete(&slices[0], slices[0].next());
        assert_eq!(backlog.held(), Load::default());
    }

    #[test]
    fn what_comes_back_from_an_earlier_life_changes_nothing() {
        let mut backlog = backlog(1);
        backlog.push(&partition(0), LIFE, vec![records(0..5)]);
        let old = backlog.take(Instant::now()).unwrap();
        backlog.start(partition(0), Incarnation(2), Offset(0));
        backlog.push(&partition(0), LIFE, vec![records(5..9)]);
        backlog.push(&partition(0), Incarnation(2), vec![records(0..3)]);
        let new = backlog.take(Instant::now()).unwrap();
        assert!(!backlog.complete(&old[0], old[0].next()));
        assert_eq!(backlog.position(&partition(0)), Some(Offset(0)));
        assert!(backlog.complete(&new[0], new[0].next()));
        assert_eq!(backlog.position(&partition(0)), Some(Offset(3)));
    }

    #[test]
    fn a_blocked_slice_comes_again_and_the_others_go_on() {
        let mut backlog = backlog(2);
        backlog.push(&partition(0), LIFE, vec![records(0..5)]);
        let blocked = backlog.take(Instant::now()).unwrap().remove(0);
        let until = Instant::now() + Duration::from_secs(60);
        backlog.put_back(blocked, until);
        backlog.push(&partition(0), LIFE, vec![records(5..6)]);
        backlog.push(&partition(1), LIFE, vec![records(0..2)]);
        assert_eq!(taken(&mut backlog), [(1, 0, 2)]);
        assert_eq!(backlog.next_unblock(), Some(until));
        let again = backlog.take(until).unwrap();
        assert_eq!((again[0].start, again[0].next()), (Offset(0), Offset(6)));
    }

    #[test]
    fn over_the_high_mark_the_fullest_pause_and_resume_below_the_low_one() {
        let mut backlog = backlog(2);
        backlog.push(&partition(0), LIFE, vec![records(0..101)]);
        backlog.push(&partition(1), LIFE, vec![records(0..2)]);
        assert_eq!(backlog.fetch_changes(true), FetchChanges { pause: vec![partition(0)], resume: vec![] });
        assert_eq!(backlog.fetch_changes(true), FetchChanges::default(), "said once");
        for slice in backlog.take(Instant::now()).unwrap() {
            backlog.complete(&slice, slice.next());
        }
        assert_eq!(backlog.fetch_changes(true), FetchChanges { pause: vec![], resume: vec![partition(0)] });
    }

    #[test]
    fn a_sink_that_is_down_pauses_everything() {
        let mut backlog = backlog(2);
        assert_eq!(backlog.fetch_changes(false).pause.len(), 2);
        assert_eq!(backlog.fetch_changes(true).resume.len(), 2);
    }

    #[test]
    fn skipping_drops_what_is_queued_and_moves_the_position() {
        let mut backlog = backlog(1);
        backlog.push(&partition(0), LIFE, vec![records(0..10)]);
        backlog.skip_to(&partition(0), Incarnation(2), Offset(500), "expired");
        let slices = backlog.take(Instant::now()).unwrap();
        assert!(matches!(slices[0].entries[..], [Entry::Skip { to: Offset(500), records: 500, .. }]));
        assert_eq!(backlog.held(), Load::default());
        backlog.complete(&slices[0], slices[0].next());
        assert_eq!(backlog.position(&partition(0)), Some(Offset(500)));
    }
}
