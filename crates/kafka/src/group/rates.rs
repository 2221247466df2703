//! How much comes into each partition: measured, told to the leader in the subscription's user data, turned into weights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use crate::types::{Offset, PartitionId, TopicPartition};

/// A change of the load shows in the rate by two thirds after this time.
const SMOOTHING: Duration = Duration::from_secs(30);
/// Part of the mean that a partition weighs besides its records: a fetch and a batch cost something even when idle.
const IDLE_WEIGHT: f64 = 0.02;
/// Format of the user data of a subscription.
const USER_DATA_VERSION: i16 = 1;

/// Records a second that come into partitions, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rates(BTreeMap<TopicPartition, f64>);

impl Rates {
    /// Takes over what `other` knows; on what both know, `other` wins.
    pub(crate) fn learn(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// What each of `partitions` weighs: its rate and a little for being there. One whose rate nobody knows weighs as
    /// much as the mean of the others; when none is known, all weigh the same.
    pub(crate) fn weights(&self, partitions: &BTreeSet<TopicPartition>) -> BTreeMap<TopicPartition, f64> {
        let known: Vec<f64> = partitions.iter().filter_map(|partition| self.0.get(partition)).copied().collect();
        let mean = mean(&known).filter(|mean| *mean > 0.0);
        let weight = |partition| match mean {
            Some(mean) => self.0.get(partition).copied().unwrap_or(mean) + mean * IDLE_WEIGHT,
            None => 1.0,
        };
        partitions.iter().map(|partition| (partition.clone(), weight(partition))).collect()
    }

    /// The rates of `partitions` as a member tells them: version, number of topics, then for each its name, the number
    /// of its partitions, and for each of those its number and records a second (big-endian, IEEE 754).
    pub(crate) fn encode(&self, partitions: &BTreeSet<TopicPartition>) -> Bytes {
        let mut topics = BTreeMap::<&Arc<str>, Vec<(PartitionId, f64)>>::new();
        for (partition, rate) in self.0.iter().filter(|(partition, _)| partitions.contains(partition)) {
            topics.entry(&partition.topic).or_default().push((partition.partition, *rate));
        }
        let mut bytes = BytesMut::new();
        bytes.put_i16(USER_DATA_VERSION);
        bytes.put_u32(length(topics.len()));
        for (topic, rates) in topics {
            bytes.put_u32(length(topic.len()));
            bytes.put_slice(topic.as_bytes());
            bytes.put_u32(length(rates.len()));
            for (partition, rate) in rates {
                bytes.put_i32(partition.0);
                bytes.put_f64(rate);
            }
        }
        bytes.freeze()
    }

    /// Reads what another member told; nothing of it when it is of another format, or none.
    pub(crate) fn decode(mut bytes: Bytes) -> Self {
        read(&mut bytes).unwrap_or_default()
    }
}

impl FromIterator<(TopicPartition, f64)> for Rates {
    fn from_iter<I: IntoIterator<Item = (TopicPartition, f64)>>(rates: I) -> Self {
        Self(rates.into_iter().collect())
    }
}

fn read(bytes: &mut Bytes) -> Option<Rates> {
    let mut rates = BTreeMap::new();
    if bytes.try_get_i16().ok()? != USER_DATA_VERSION {
        return None;
    }
    for _ in 0..bytes.try_get_u32().ok()? {
        let name = usize::try_from(bytes.try_get_u32().ok()?).ok().filter(|length| *length <= bytes.len())?;
        let name = bytes.split_to(name);
        let topic: Arc<str> = Arc::from(std::str::from_utf8(&name).ok()?);
        for _ in 0..bytes.try_get_u32().ok()? {
            let partition = PartitionId(bytes.try_get_i32().ok()?);
            let rate = bytes.try_get_f64().ok().filter(|rate| rate.is_finite() && *rate >= 0.0)?;
            rates.insert(TopicPartition::new(Arc::clone(&topic), partition), rate);
        }
    }
    Some(Rates(rates))
}

/// Turns log ends, seen again and again, into rates.
#[derive(Debug, Default)]
pub(crate) struct RateMeter(BTreeMap<TopicPartition, Gauged>);

#[derive(Debug)]
struct Gauged {
    end: Offset,
    seen_at: Instant,
    rate: Option<f64>,
}

impl RateMeter {
    /// Takes in where the logs ended at `now`; partitions that are not named are forgotten.
    pub(crate) fn sample(&mut self, ends: impl IntoIterator<Item = (TopicPartition, Offset)>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (partition, end) in ends {
            let gauged = match before.remove(&partition) {
                // A log that has become shorter is another log.
                Some(last) if last.end <= end && last.seen_at < now => last.go_on(end, now),
                Some(last) if last.end <= end => last,
                _ => Gauged { end, seen_at: now, rate: None },
            };
            self.0.insert(partition, gauged);
        }
    }

    /// The rates that are known: of partitions that were seen at least twice.
    pub(crate) fn rates(&self) -> Rates {
        Rates(self.0.iter().filter_map(|(partition, gauged)| Some((partition.clone(), gauged.rate?))).collect())
    }
}

impl Gauged {
    fn go_on(self, end: Offset, now: Instant) -> Self {
        let elapsed = now.duration_since(self.seen_at).as_secs_f64();
        let fresh = as_f64(end.since(self.end)) / elapsed;
        let rate = match self.rate {
            Some(rate) => rate + (fresh - rate) * (1.0 - (-elapsed / SMOOTHING.as_secs_f64()).exp()),
            None => fresh,
        };
        Self { end, seen_at: now, rate: Some(rate) }
    }
}

pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / as_f64(values.len() as u64))
}

#[expect(clippy::cast_precision_loss, reason = "a rate is no count: 2^52 records between two samples do not come")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(id: i32) -> TopicPartition {
        TopicPartition::new("t", PartitionId(id))
    }

    #[test]
    fn rates_survive_the_wire_and_only_those_asked_for_travel() {
        let rates: Rates = [(partition(0), 10.5), (partition(1), 0.0), (partition(2), 7.0)].into_iter().collect();
        let told = BTreeSet::from([partition(0), partition(1), partition(9)]);
        let expected: Rates = [(partition(0), 10.5), (partition(1), 0.0)].into_iter().collect();
        assert_eq!(Rates::decode(rates.encode(&told)), expected);
    }

    #[test]
    fn what_is_no_user_data_of_ours_tells_nothing() {
        let whole: Rates = [(partition(0), 1.0)].into_iter().collect();
        let whole = whole.encode(&BTreeSet::from([partition(0)]));
        for cut in 0..whole.len() {
            assert_eq!(Rates::decode(whole.slice(..cut)), Rates::default(), "cut at {cut}");
        }
        // Java's cooperative-sticky assignor sends its generation.
        assert_eq!(Rates::decode(Bytes::from_static(&[0, 0, 0, 7])), Rates::default());
        assert_eq!(Rates::decode(Bytes::from_static(&[0, 1, 0xff, 0xff, 0xff, 0xff])), Rates::default());
        let nan: Rates = [(partition(0), f64::NAN)].into_iter().collect();
        assert_eq!(Rates::decode(nan.encode(&BTreeSet::from([partition(0)]))), Rates::default());
    }

    #[test]
    fn an_unknown_rate_is_taken_for_the_mean() {
        let rates: Rates = [(partition(0), 10.0), (partition(1), 30.0)].into_iter().collect();
        let weights = rates.weights(&BTreeSet::from([partition(0), partition(1), partition(2)]));
        assert!((weights[&partition(2)] - 20.4).abs() < 1e-9, "{weights:?}");
        let unknown = Rates::default().weights(&BTreeSet::from([partition(0), partition(1)]));
        assert_eq!(unknown.into_values().collect::<Vec<_>>(), [1.0, 1.0]);
    }

    #[test]
    fn a_rate_needs_two_samples_follows_a_change_and_starts_anew_with_a_shorter_log() {
        let mut meter = RateMeter::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let rate = |meter: &RateMeter| meter.rates().0.get(&partition(0)).copied();
        meter.sample([(partition(0), Offset(1_000))], at(0));
        assert_eq!(rate(&meter), None);
        meter.sample([(partition(0), Offset(1_050))], at(5));
        assert_eq!(rate(&meter), Some(10.0));
        meter.sample([(partition(0), Offset(1_050 + 3_000))], at(35));
        let risen = rate(&meter).unwrap();
        assert!((60.0..70.0).contains(&risen), "two thirds of the way from 10 to 100: {risen}");
        meter.sample([(partition(0), Offset(5))], at(40));
        assert_eq!(rate(&meter), None);
        meter.sample([], at(45));
        assert!(meter.0.is_empty());
    }
}
