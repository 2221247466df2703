//! What is known after a collection, ready to be shown: by Prometheus, or as a table.

use std::collections::BTreeMap;
use std::sync::Arc;

use backpressure::Verdict;

use crate::pair::Method;
use crate::sample::{Owner, PartitionReading, Reason};

/// All that is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// Wall clock in ms since the epoch.
    pub(crate) taken_at_ms: i64,
    pub(crate) topics: Vec<TopicReport>,
    /// Topics that could not be read.
    pub(crate) unread_topics: Vec<(Arc<str>, Reason)>,
    pub(crate) groups: Vec<Arc<GroupReport>>,
    /// Number and address.
    pub(crate) brokers: Vec<(i32, String)>,
}

/// A topic that some group consumes.
#[derive(Debug, Clone)]
pub(crate) struct TopicReport {
    pub(crate) topic: Arc<str>,
    pub(crate) partitions: Vec<PartitionReading>,
    /// Records a second over the window, by partition number.
    pub(crate) rates: Vec<Option<f64>>,
    /// Their sum.
    pub(crate) production_rate: Option<f64>,
    /// Part of the records of the window that went into the partition with the most.
    pub(crate) hottest_share: Option<f64>,
}

/// A group.
#[derive(Debug, Clone)]
pub(crate) struct GroupReport {
    pub(crate) group: Arc<str>,
    pub(crate) protocol: String,
    pub(crate) state: String,
    pub(crate) members: Option<usize>,
    /// Why nothing is known of what it consumes.
    pub(crate) unread: Option<Reason>,
    pub(crate) topics: Vec<GroupTopic>,
    pub(crate) verdict: Verdict,
    pub(crate) consumption_rate: Option<f64>,
    pub(crate) production_rate: Option<f64>,
    pub(crate) drain_seconds: Option<f64>,
    pub(crate) commit_age_seconds: Option<f64>,
    pub(crate) lost_to_retention: u64,
    pub(crate) margin: Margin,
}

/// What a group consumes of a topic, by partition number.
#[derive(Debug, Clone)]
pub(crate) struct GroupTopic {
    pub(crate) topic: Arc<str>,
    pub(crate) pairs: Vec<Pair>,
}

/// A group on a partition.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) committed: Option<i64>,
    pub(crate) lag: Result<u64, Reason>,
    pub(crate) seconds: Result<f64, Reason>,
    pub(crate) method: Method,
    /// Records by which the commit lies behind the end of the log; 0 unless the topic is another one by now.
    pub(crate) beyond: u64,
    pub(crate) owner: Option<Arc<Owner>>,
}

/// How far retention is from what a group has yet to process, where it is nearest. Only partitions on which something
/// waits count; without any, or where nothing is ever deleted, there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Margin {
    /// Records between the start of the log and the group, where the log has been cut before.
    pub(crate) records: Option<u64>,
    /// Seconds until the topic's `retention.ms` reaches the oldest record that waits.
    pub(crate) seconds: Option<f64>,
    /// The lesser part of either that is left: 1 is all, 0 is none.
    pub(crate) ratio: Option<f64>,
}

impl Margin {
    /// Takes note of a partition on which something waits.
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub(crate) fn add(&mut self, pair: &Pair, partition: &PartitionReading, retention_ms: Option<i64>) {
        let Some(PartitionReading { start: Some(start), end: Some(end), .. }) = Some(*partition) else { return };
        if !pair.lag.is_ok_and(|lag| lag > 0) {
            return;
        }
        if let (Ok(waited), Some(retention_ms)) = (pair.seconds, retention_ms) {
            let retention = retention_ms as f64 / 1_000.0;
            least(&mut self.seconds, (retention - waited).max(0.0));
            least(&mut self.ratio, (1.0 - waited / retention.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0));
        }
        if let Some(committed) = pair.committed.filter(|_| start > 0) {
            let records = u64::try_from(committed - start).unwrap_or(0);
            self.records = Some(self.records.map_or(records, |least| least.min(records)));
            least(&mut self.ratio, (records as f64 / (end - start).max(1) as f64).clamp(0.0, 1.0));
        }
    }
}

fn least(known: &mut Option<f64>, value: f64) {
    *known = Some(known.map_or(value, |least| least.min(value)));
}

impl GroupReport {
    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.topics.iter().flat_map(|topic| &topic.pairs)
    }

    /// Sum over the partitions; unknown as soon as one is, since a part of it would look like less lag.
    pub(crate) fn lag_sum(&self) -> Option<u64> {
        self.all(|pair| pair.lag.ok(), |sum, lag| sum + lag)
    }

    /// The largest of the partitions; unknown as soon as one is.
    pub(crate) fn lag_max(&self) -> Option<u64> {
        self.all(|pair| pair.lag.ok(), u64::max)
    }

    /// Sum of the partitions' time lag; unknown as soon as one is.
    pub(crate) fn seconds_sum(&self) -> Option<f64> {
        self.all(|pair| pair.seconds.ok(), |sum, seconds| sum + seconds)
    }

    /// The largest time lag of the partitions; unknown as soon as one is.
    pub(crate) fn seconds_max(&self) -> Option<f64> {
        self.all(|pair| pair.seconds.ok(), f64::max)
    }

    /// Part of the group's lag that waits in the partition with the most; 0 without lag.
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub(crate) fn hottest_share(&self) -> Option<f64> {
        let (max, sum) = (self.lag_max()?, self.lag_sum()?);
        Some(if sum == 0 { 0.0 } else { max as f64 / sum as f64 })
    }

    /// Partitions whose commit lies behind the end of the log.
    pub(crate) fn beyond_end(&self) -> usize {
        self.pairs().filter(|pair| pair.beyond > 0).count()
    }

    /// Partitions of which lag or time lag is not known, by reason; 1 for a group that could not be read as a whole.
    pub(crate) fn unknown(&self) -> BTreeMap<Reason, usize> {
        let mut unknown: BTreeMap<_, _> = self.unread.iter().map(|reason| (*reason, 1)).collect();
        let reasons = self.pairs().filter_map(|pair| pair.lag.err().or(pair.seconds.err()));
        reasons.for_each(|reason| *unknown.entry(reason).or_default() += 1);
        unknown
    }

    /// The ways by which the time lag of its partitions is told.
    pub(crate) fn methods(&self) -> Vec<Method> {
        let mut methods: Vec<_> = Vec::new();
        for pair in self.pairs().filter(|pair| pair.seconds.is_ok()) {
            if !methods.contains(&pair.method) {
                methods.push(pair.method);
            }
        }
        methods.sort_unstable();
        methods
    }

    /// A figure of every partition put together; `None` unless all are known, and for a group that consumes nothing.
    fn all<T>(&self, figure: impl Fn(&Pair) -> Option<T>, join: impl Fn(T, T) -> T) -> Option<T> {
        let mut joined = None;
        for pair in self.pairs() {
            let figure = figure(pair)?;
            joined = Some(match joined {
                None => figure,
                Some(before) => join(before, figure),
            });
        }
        joined.filter(|_| self.unread.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn pair(lag: Result<u64, Reason>, seconds: Result<f64, Reason>) -> Pair {
        Pair { committed: Some(100), lag, seconds, method: Method::Commit, beyond: 0, owner: None }
    }

    fn group(pairs: Vec<Pair>) -> GroupReport {
        GroupReport {
            group: "g".into(),
            protocol: "classic".to_owned(),
            state: "Stable".to_owned(),
            members: Some(1),
            unread: None,
            topics: vec![GroupTopic { topic: "t".into(), pairs }],
            verdict: Verdict::Ok,
            consumption_rate: None,
            production_rate: None,
            drain_seconds: None,
            commit_age_seconds: None,
            lost_to_retention: 0,
            margin: Margin::default(),
        }
    }

    #[test]
    fn a_group_is_the_sum_and_maximum_of_its_partitions() {
        let group = group(vec![pair(Ok(10), Ok(3.0)), pair(Ok(30), Ok(1.0)), pair(Ok(0), Ok(0.0))]);
        assert_eq!((group.lag_sum(), group.lag_max()), (Some(40), Some(30)));
        assert_eq!((group.seconds_sum(), group.seconds_max()), (Some(4.0), Some(3.0)));
        assert_eq!(group.hottest_share(), Some(0.75));
    }

    #[test]
    fn a_group_with_an_unknown_partition_has_no_sum_and_a_reason() {
        let group =
            group(vec![pair(Ok(10), Err(Reason::NoHistory)), pair(Err(Reason::BeyondEnd), Err(Reason::BeyondEnd))]);
        assert_eq!((group.lag_sum(), group.lag_max(), group.seconds_max()), (None, None, None));
        assert_eq!(group.unknown(), [(Reason::BeyondEnd, 1), (Reason::NoHistory, 1)].into());
    }

    #[test]
    fn a_group_that_consumes_nothing_has_no_sum() {
        let group = group(Vec::new());
        assert_eq!(
            (group.lag_sum(), group.lag_max(), group.seconds_max(), group.hottest_share()),
            (None, None, None, None)
        );
    }

    #[test]
    fn the_margin_is_that_of_the_partition_nearest_to_retention() {
        let log = |start, end| PartitionReading { start: Some(start), end: Some(end), ..PartitionReading::default() };
        let mut margin = Margin::default();
        margin.add(&pair(Ok(0), Ok(0.0)), &log(90, 100), Some(60_000));
        assert_eq!(margin, Margin::default(), "nothing waits");
        margin.add(&pair(Ok(100), Ok(45.0)), &log(0, 200), Some(60_000));
        assert_eq!(margin, Margin { records: None, seconds: Some(15.0), ratio: Some(0.25) });
        margin.add(&pair(Ok(100), Ok(6.0)), &log(90, 190), Some(60_000));
        assert_eq!(margin, Margin { records: Some(10), seconds: Some(15.0), ratio: Some(0.1) });
        margin.add(&pair(Ok(100), Ok(90.0)), &log(150, 200), Some(60_000));
        assert_eq!(margin, Margin { records: Some(0), seconds: Some(0.0), ratio: Some(0.0) });
    }
}
