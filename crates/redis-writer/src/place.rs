//! A position together with where in Kafka its record lies: what decides which of two positions is the newer one. Pure.

use event::DriverLocation;
use kafka::{Offset, PartitionId};
use pipeline::Batch;

/// Where a record lies. Of two records with the same effective time the greater place is the newer one: within a
/// partition that is the later record, across partitions (one that grew, for a moment) the same answer for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
}

/// A position and its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed<'a> {
    pub(crate) position: &'a DriverLocation,
    pub(crate) place: Place,
    /// Whether it was preferred to another position of its driver and time: then its value must tell its place, or that
    /// other one could still replace it.
    pub(crate) won_tie: bool,
}

impl<'a> Placed<'a> {
    /// All positions of a batch, slice by slice, in the order of their offsets within each.
    pub(crate) fn all(batch: &'a Batch<DriverLocation>) -> impl Iterator<Item = Self> {
        batch.slices.iter().flat_map(|slice| {
            slice.items.iter().map(|item| {
                let place = Place { partition: slice.partition.partition, offset: item.offset };
                Self { position: &item.event, place, won_tie: false }
            })
        })
    }

    /// The newer one of two positions of the same driver.
    pub(crate) fn newer(self, other: Self) -> Self {
        let order = (self.position.effective_at_ms, self.place).cmp(&(other.position.effective_at_ms, other.place));
        let (mut newer, older) = if order.is_lt() { (other, self) } else { (self, other) };
        let tie = newer.position.effective_at_ms == older.position.effective_at_ms;
        newer.won_tie |= tie && (older.won_tie || newer.position != older.position);
        newer
    }
}
