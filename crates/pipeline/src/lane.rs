//! One batch on its way: decode, publish its dead letters, write, with retries until it is settled.
//!
//! Several lanes run at a time, on partitions of their own each. A lane ends only when its records are settled, or when
//! it is cancelled because a partition of it was lost.

use std::sync::Arc;
use std::time::Duration;

use backpressure::Tally;
use kafka::{Claim, DeadLetterPublisher, Offset, Record};
use tokio::time::Instant;

use crate::backlog::{Entry, RawSlice};
use crate::flood::{FloodGate, FloodHeld};
use crate::guard::{SinkGuard, Turn};
use crate::letters::{self, PendingLetters};
use crate::metrics::PipelineMetrics;
use crate::sink::{Batch, Decode, Item, RecordFault, Refused, Sink, Slice, WriteError, Written};

/// Retries of a fault of unknown kind.
const UNKNOWN_RETRIES: u32 = 3;
/// Pause before each of them.
const UNKNOWN_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Pause before a partition is tried again whose dead letter could not be published.
const BLOCKED_PAUSE: Duration = Duration::from_secs(1);

const UNDECODABLE_BATCH: &str = "undecodable_batch";
const SINK_REFUSED: &str = "sink_refused";

/// What became of one slice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// Its position may be committed.
    Settled { last_timestamp_ms: i64 },
    /// A dead letter of it cannot be published: try again later.
    Blocked { until: Instant },
    /// Somebody else has moved on in its partition.
    Fenced,
}

/// What the lanes of a pipeline share.
pub(crate) struct Lane<S: Sink> {
    pub(crate) decode: Decode<S::Event>,
    pub(crate) sink: Arc<S>,
    pub(crate) letters: Option<DeadLetterPublisher>,
    pub(crate) guard: Arc<SinkGuard>,
    pub(crate) metrics: Arc<PipelineMetrics>,
    /// Set where letters are bounded by their share.
    pub(crate) flood: Option<Arc<FloodGate>>,
}

impl<S: Sink> Clone for Lane<S> {
    fn clone(&self) -> Self {
        Self {
            decode: self.decode,
            sink: Arc::clone(&self.sink),
            letters: self.letters.clone(),
            guard: Arc::clone(&self.guard),
            metrics: Arc::clone(&self.metrics),
            flood: self.flood.clone(),
        }
    }
}

/// A decoded slice and the letters of the records in it that are none.
struct Decoded<E> {
    slice: Slice<E>,
    letters: PendingLetters,
}

impl<S: Sink> Lane<S> {
    /// Settles `slices`; each comes back with what became of it. Publishes and writes only while `claim` holds.
    pub(crate) async fn run(self, slices: Vec<RawSlice>, claim: Claim) -> Vec<(RawSlice, Outcome)> {
        claim.held().await;
        let (mut decoded, mut held) = (Vec::with_capacity(slices.len()), Vec::new());
        for slice in slices {
            match self.decode_slice(&slice).await {
                Ok(content) => decoded.push((content, slice)),
                Err(FloodHeld { until }) => held.push((slice, Outcome::Blocked { until })),
            }
        }
        // Every letter is on its way by now. A sink that moves offsets together with the items must not run ahead of
        // the letters; for any other they only hold up the commit.
        if S::KEEPS_OFFSETS {
            let (published, blocked) = self.until_published(decoded).await;
            let mut outcomes = self.settle(published, &claim).await;
            outcomes.extend(blocked.into_iter().chain(held));
            return outcomes;
        }
        let (slices, letters): (Vec<_>, Vec<_>) =
            decoded.into_iter().map(|(Decoded { slice, letters }, raw)| ((slice, raw.clone()), (letters, raw))).unzip();
        let outcomes = self.settle(slices, &claim).await;
        let mut outcomes = self.unless_unpublished(outcomes, letters).await;
        outcomes.extend(held);
        outcomes
    }

    /// Splits off the slices whose letters cannot be published.
    async fn until_published(
        &self,
        decoded: Vec<(Decoded<S::Event>, RawSlice)>,
    ) -> (Vec<(Slice<S::Event>, RawSlice)>, Vec<(RawSlice, Outcome)>) {
        let (mut published, mut blocked_slices) = (Vec::new(), Vec::new());
        for (Decoded { slice, letters }, raw) in decoded {
            match letters.published(&self.metrics).await {
                Ok(()) => published.push((slice, raw)),
                Err(_) => blocked_slices.push((raw, blocked())),
            }
        }
        (published, blocked_slices)
    }

    /// Turns settled slices into blocked ones where a letter could not be published.
    async fn unless_unpublished(
        &self,
        mut outcomes: Vec<(RawSlice, Outcome)>,
        letters: Vec<(PendingLetters, RawSlice)>,
    ) -> Vec<(RawSlice, Outcome)> {
        for (letters, source) in letters {
            if letters.published(&self.metrics).await.is_err()
                && let Some((_, outcome)) = outcomes.iter_mut().find(|(raw, _)| raw.partition == source.partition)
            {
                *outcome = blocked();
            }
        }
        outcomes
    }

    /// Decodes a slice and sends its letters off, unless there are so many of them that the partition waits.
    async fn decode_slice(&self, source: &RawSlice) -> Result<Decoded<S::Event>, FloodHeld> {
        let mut slice = Slice {
            partition: source.partition.clone(),
            start: source.start,
            next: source.next(),
            last_timestamp_ms: 0,
            items: Vec::new(),
        };
        let withholds = self.flood.is_some();
        let mut pending = if withholds { PendingLetters::withholding() } else { PendingLetters::default() };
        let mut poison_since = None;
        for entry in &source.entries {
            match entry {
                Entry::Skip { outcome, records, .. } => self.metrics.records(outcome, *records),
                Entry::Records(batch) => {
                    slice.last_timestamp_ms = slice.last_timestamp_ms.max(batch.max_timestamp_ms().unwrap_or(0));
                    match batch.decode() {
                        Ok(records) => self.decode_records(records, &mut slice, &mut pending, &mut poison_since).await,
                        Err(error) => {
                            let fault = RecordFault { reason: UNDECODABLE_BATCH, detail: error.to_string() };
                            let letter = letters::of_batch(&source.partition, batch, fault);
                            pending.publish(self.letters.as_ref(), letter).await;
                        }
                    }
                }
            }
        }
        self.note_poison_cost(&mut poison_since);
        if let Some(flood) = &self.flood {
            let faults = pending.withheld();
            let tally = Tally { records: slice.items.len() as u64 + faults, faults };
            flood.admit(self.decode, &slice.partition, slice.start, tally).await?;
            pending.release(self.letters.as_ref()).await;
        }
        Ok(Decoded { slice, letters: pending })
    }

    async fn decode_records(
        &self,
        records: Vec<Record>,
        slice: &mut Slice<S::Event>,
        pending: &mut PendingLetters,
        poison_since: &mut Option<Instant>,
    ) {
        slice.items.reserve(records.len());
        for record in records {
            let begun = Instant::now();
            self.note_poison_cost(poison_since);
            match (self.decode)(&record) {
                Ok(event) => slice.items.push(Item::new(record, event)),
                Err(fault) => {
                    *poison_since = Some(begun);
                    pending.publish(self.letters.as_ref(), letters::of_record(&slice.partition, record, fault)).await;
                }
            }
        }
    }

    fn note_poison_cost(&self, since: &mut Option<Instant>) {
        if let Some(begun) = since.take() {
            self.metrics.poison_cost.record(begun.elapsed().as_secs_f64());
        }
    }

    /// Writes until everything is written, refused or blocked.
    async fn settle(&self, slices: Vec<(Slice<S::Event>, RawSlice)>, claim: &Claim) -> Vec<(RawSlice, Outcome)> {
        let (slices, mut raw): (Vec<_>, Vec<_>) = slices.into_iter().unzip();
        let mut batch = Batch { slices };
        let mut outcomes = Vec::new();
        let (mut unknown_faults, mut is_repeated) = (0, false);
        while !batch.slices.is_empty() {
            let turn = self.guard.turn().await;
            claim.held().await;
            if std::mem::replace(&mut is_repeated, true) {
                self.metrics.retries.increment(1);
            }
            let begun = Instant::now();
            let result = self.offer(&batch, &turn).await;
            self.metrics.wrote(batch.len(), begun.elapsed());
            match result {
                Ok(written) => {
                    turn.answered();
                    written.outcomes.into_iter().for_each(|(outcome, count)| self.metrics.records(outcome, count));
                    let settled = |(source, slice): (RawSlice, Slice<_>)| {
                        (source, Outcome::Settled { last_timestamp_ms: slice.last_timestamp_ms })
                    };
                    outcomes.extend(raw.into_iter().zip(batch.slices).map(settled));
                    return outcomes;
                }
                Err(WriteError::SinkFault(why) | WriteError::Denied(why) | WriteError::Untrusted(why)) => {
                    self.metrics.fault("sink");
                    turn.failed(&why);
                }
                Err(WriteError::Refused(refused)) => {
                    self.metrics.fault("refused");
                    turn.answered();
                    outcomes.extend(self.bury(&mut batch, &mut raw, refused).await);
                }
                Err(WriteError::Unknown(why)) if unknown_faults < UNKNOWN_RETRIES => {
                    unknown_faults += 1;
                    self.metrics.fault("unknown");
                    tracing::warn!(attempt = unknown_faults, why, "the sink gave an unknown fault, trying again");
                    drop(turn);
                    tokio::time::sleep(UNKNOWN_RETRY_PAUSE).await;
                }
                Err(WriteError::Unknown(why)) => {
                    unknown_faults = 0;
                    match self.find_refused(&mut batch, &why).await {
                        Ok(refused) => {
                            turn.answered();
                            outcomes.extend(self.bury(&mut batch, &mut raw, refused).await);
                        }
                        Err(fault) => turn.failed(&fault),
                    }
                }
                Err(WriteError::Fenced(why)) => {
                    self.metrics.fault("fenced");
                    turn.answered();
                    tracing::error!(why, "another owner has moved on in these partitions: dropping the batch");
                    outcomes.extend(raw.into_iter().map(|source| (source, Outcome::Fenced)));
                    return outcomes;
                }
            }
        }
        outcomes
    }

    /// Writes a batch. One without items may ask nothing of the sink, and so be no sign that it is back.
    async fn offer(&self, batch: &Batch<S::Event>, turn: &Turn<'_>) -> Result<Written, WriteError> {
        if turn.is_probe() && batch.is_empty() {
            self.sink.probe().await?;
        }
        self.sink.write(batch).await
    }

    /// Dead-letters refused items and takes them out of the batch. A slice whose letter cannot be published leaves the
    /// batch with all that it has.
    async fn bury(
        &self,
        batch: &mut Batch<S::Event>,
        raw: &mut Vec<RawSlice>,
        mut refused: Vec<Refused>,
    ) -> Vec<(RawSlice, Outcome)> {
        // From the back, so that the indices of those still to come stay true.
        refused.sort_by_key(|refused| std::cmp::Reverse((refused.slice, refused.item)));
        let mut outcomes = Vec::new();
        for (index, of_slice) in by_slice(refused) {
            let mut pending = PendingLetters::default();
            let slice = &mut batch.slices[index];
            for Refused { item, fault, .. } in of_slice {
                let item = slice.items.remove(item);
                pending.publish(self.letters.as_ref(), letters::of_record(&slice.partition, item.record, fault)).await;
            }
            if pending.published(&self.metrics).await.is_err() {
                batch.slices.remove(index);
                outcomes.push((raw.remove(index), blocked()));
            }
        }
        outcomes
    }

    /// After an unknown fault that does not pass: offers ever smaller parts, so that a record that fails alone while
    /// others succeed is found out.
    ///
    /// # Errors
    /// What the sink said, when nothing succeeds: then it is the sink that is at fault.
    async fn find_refused(&self, batch: &mut Batch<S::Event>, why: &str) -> Result<Vec<Refused>, String> {
        if S::KEEPS_OFFSETS {
            return Err(why.to_owned());
        }
        let mut parts: Vec<Vec<(usize, usize)>> = vec![all_items(batch)];
        let (mut refused, mut succeeded, mut last_fault) = (Vec::new(), 0_usize, why.to_owned());
        while let Some(mut part) = parts.pop() {
            match self.write_part(batch, &part).await {
                Ok(()) => succeeded += part.len(),
                Err(WriteError::Unknown(fault)) => {
                    last_fault = fault;
                    if part.len() > 1 {
                        let second = part.split_off(part.len() / 2);
                        parts.extend([second, part]);
                    } else {
                        let fault = RecordFault { reason: SINK_REFUSED, detail: last_fault.clone() };
                        refused.extend(part.into_iter().map(|(slice, item)| Refused {
                            slice,
                            item,
                            fault: fault.clone(),
                        }));
                    }
                }
                Err(other) => return Err(other.to_string()),
            }
        }
        if succeeded > 0 || refused.is_empty() { Ok(refused) } else { Err(last_fault) }
    }

    /// Offers the given items alone, as a batch of their own, and puts them back.
    async fn write_part(&self, batch: &mut Batch<S::Event>, part: &[(usize, usize)]) -> Result<(), WriteError> {
        let mut alone = Batch { slices: Vec::new() };
        let first = part.first().map_or(0, |(slice, _)| *slice);
        let last = part.last().map_or(0, |(slice, _)| *slice);
        for index in first..=last {
            let items: Vec<usize> = part.iter().filter(|(slice, _)| *slice == index).map(|(_, item)| *item).collect();
            if let (Some(from), Some(to)) = (items.first(), items.last()) {
                let source = &mut batch.slices[index];
                let taken: Vec<_> = source.items.drain(*from..=*to).collect();
                alone.slices.push(Slice {
                    partition: source.partition.clone(),
                    start: taken.first().map_or(source.start, |item| item.offset),
                    next: taken.last().map_or(source.next, |item| item.offset.next()),
                    last_timestamp_ms: source.last_timestamp_ms,
                    items: taken,
                });
            }
        }
        self.metrics.retries.increment(1);
        let result = self.sink.write(&alone).await;
        for slice in alone.slices {
            put_back(batch, slice);
        }
        result.map(drop)
    }
}

fn blocked() -> Outcome {
    Outcome::Blocked { until: Instant::now() + BLOCKED_PAUSE }
}

/// Groups neighbours of one slice; the order is kept.
fn by_slice(refused: Vec<Refused>) -> Vec<(usize, Vec<Refused>)> {
    let mut groups: Vec<(usize, Vec<Refused>)> = Vec::new();
    for one in refused {
        match groups.last_mut() {
            Some((slice, group)) if *slice == one.slice => group.push(one),
            _ => groups.push((one.slice, vec![one])),
        }
    }
    groups
}

fn all_items<E>(batch: &Batch<E>) -> Vec<(usize, usize)> {
    let slices = batch.slices.iter().enumerate();
    slices.flat_map(|(slice, content)| (0..content.items.len()).map(move |item| (slice, item))).collect()
}

fn put_back<E>(batch: &mut Batch<E>, slice: Slice<E>) {
    if let Some(home) = batch.slices.iter_mut().find(|home| home.partition == slice.partition) {
        let first: Option<Offset> = slice.items.first().map(|item| item.offset);
        let at = home.items.partition_point(|item| Some(item.offset) < first);
        home.items.splice(at..at, slice.items);
    }
}
