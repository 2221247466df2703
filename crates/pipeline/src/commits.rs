//! Which offsets are still to be committed. Pure.

use std::collections::BTreeMap;

use kafka::{Commit, CommitMetadata, Offset, TopicPartition};

/// A settled position and the timestamp of the last record before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) next: Offset,
    pub(crate) last_timestamp_ms: i64,
}

/// Positions that are settled and not yet committed, and those that a request is carrying.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    waiting: BTreeMap<TopicPartition, Settled>,
    under_way: BTreeMap<TopicPartition, Settled>,
}

impl Commits {
    pub(crate) fn settle(&mut self, partition: TopicPartition, settled: Settled) {
        let before = self.waiting.get(&partition).or_else(|| self.under_way.get(&partition));
        // A stretch without records (a marker, a skip) leaves the time of the last record as it was.
        let last_timestamp_ms = settled.last_timestamp_ms.max(before.map_or(0, |before| before.last_timestamp_ms));
        self.waiting.insert(partition, Settled { last_timestamp_ms, ..settled });
    }

    /// Forgets a partition that is not ours any more.
    pub(crate) fn forget(&mut self, partition: &TopicPartition) {
        self.waiting.remove(partition);
        self.under_way.remove(partition);
    }

    /// What to commit now; nothing while a request is under way.
    pub(crate) fn begin(&mut self) -> Option<Vec<Commit>> {
        if !self.under_way.is_empty() || self.waiting.is_empty() {
            return None;
        }
        self.under_way = std::mem::take(&mut self.waiting);
        let commits = self.under_way.iter().map(|(partition, settled)| Commit {
            partition: partition.clone(),
            offset: settled.next,
            metadata: metadata(*settled),
        });
        Some(commits.collect())
    }

    /// The request was taken.
    pub(crate) fn committed(&mut self) {
        self.under_way.clear();
    }

    /// The request was refused: its positions wait again, unless they have moved on since.
    pub(crate) fn refused(&mut self) {
        for (partition, settled) in std::mem::take(&mut self.under_way) {
            self.waiting.entry(partition).or_insert(settled);
        }
    }

    /// Whether a partition has something that is not committed yet.
    pub(crate) fn is_pending(&self, partition: &TopicPartition) -> bool {
        self.waiting.contains_key(partition) || self.under_way.contains_key(partition)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }
}

/// A time that is not known is left out: read as 1970, it would look like half a century of lag.
fn metadata(settled: Settled) -> String {
    match settled.last_timestamp_ms {
        ..=0 => String::new(),
        timestamp_ms => CommitMetadata { timestamp_ms }.encode(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka::PartitionId;

    fn partition(id: i32) -> TopicPartition {
        TopicPartition::new("t", PartitionId(id))
    }

    fn settled(next: i64) -> Settled {
        Settled { next: Offset(next), last_timestamp_ms: 1_000 + next }
    }

    #[test]
    fn one_request_carries_all_partitions_and_the_next_waits_for_it() {
        let mut commits = Commits::default();
        commits.settle(partition(0), settled(5));
        commits.settle(partition(1), settled(7));
        assert_eq!(commits.begin().map(|c| c.len()), Some(2));
        commits.settle(partition(0), settled(9));
        assert_eq!(commits.begin(), None);
        commits.committed();
        let next = commits.begin().unwrap();
        assert_eq!((next[0].offset, next[0].metadata.as_str()), (Offset(9), "v1;ts=1009"));
    }

    #[test]
    fn a_refused_commit_never_moves_a_position_back() {
        let mut commits = Commits::default();
        commits.settle(partition(0), settled(5));
        commits.settle(partition(1), settled(5));
        commits.begin();
        commits.settle(partition(0), settled(8));
        commits.refused();
        let offsets: Vec<_> = commits.begin().unwrap().iter().map(|commit| commit.offset.0).collect();
        assert_eq!(offsets, [8, 5]);
    }

    #[test]
    fn a_stretch_without_records_keeps_the_time_of_the_last_record() {
        let mut commits = Commits::default();
        commits.settle(partition(0), settled(5));
        commits.settle(partition(0), Settled { next: Offset(6), last_timestamp_ms: 0 });
        assert_eq!(commits.begin().unwrap()[0].metadata, "v1;ts=1005");
    }

    #[test]
    fn a_time_that_is_not_known_is_left_out() {
        let mut commits = Commits::default();
        commits.settle(partition(0), Settled { next: Offset(6), last_timestamp_ms: 0 });
        assert_eq!(commits.begin().unwrap()[0].metadata, "");
    }

    #[test]
    fn a_lost_partition_is_not_committed() {
        let mut commits = Commits::default();
        commits.settle(partition(0), settled(5));
        commits.begin();
        commits.forget(&partition(0));
        commits.refused();
        assert!(commits.begin().is_none() && commits.is_empty());
    }
}
