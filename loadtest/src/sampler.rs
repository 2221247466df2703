//! Once a second: what was offered and accepted, how far both groups lag, how stale Redis is, and what every process has used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, timeout};

use crate::clock::Clock;
use crate::cluster::{Cluster, Lags};
use crate::generator::{Live, LiveCounts};
use crate::prober;
use crate::procfs::{MachineTime, Meter, Processes, Usage};
use crate::staleness::Tracker;

/// Time between samples.
pub const EVERY: Duration = Duration::from_secs(1);
/// A lag that takes longer to read than this is unknown.
const LAGS_WITHIN: Duration = Duration::from_millis(900);
/// How far from the full second a sample may be taken and still stand for it.
const SLACK: Duration = Duration::from_millis(500);

/// One second of a run.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Moment of the run.
    pub at: Duration,
    /// Lag of the groups and number of dead letters.
    pub lags: Lags,
    /// Counters of the generator.
    pub load: LiveCounts,
    /// p99 staleness over the second before.
    pub staleness_p99_ms: Option<f64>,
    /// Time of the machine.
    pub machine: Option<MachineTime>,
    /// What each process has used so far.
    pub usage: BTreeMap<&'static str, Usage>,
}

/// The processes to watch, by name; a server that is started again has another pid.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<Mutex<BTreeMap<&'static str, u32>>>);

impl Watched {
    /// Watches `pid` under `name` from now on.
    pub fn watch(&self, name: &'static str, pid: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, pid);
    }

    fn pids(&self) -> BTreeMap<&'static str, u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Name of the harness itself among the processes.
pub const HARNESS: &str = "loadtest";

/// Takes the samples.
pub struct SamplerTask {
    /// Clock of the run.
    pub clock: Clock,
    /// Where lag is read.
    pub cluster: Arc<Cluster>,
    /// Where staleness is read.
    pub tracker: Arc<Mutex<Tracker>>,
    /// What the generator has done so far.
    pub load: Arc<Live>,
    /// The processes.
    pub watched: Watched,
}

impl SamplerTask {
    /// Gives a sample to `look` every second, until it is dropped.
    pub async fn run(self, mut look: impl FnMut(Sample)) {
        let mut meters = BTreeMap::new();
        let mut tick = tokio::time::interval_at(self.clock.instant(Duration::ZERO), EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            look(self.sample(&mut meters).await);
        }
    }

    async fn sample(&self, meters: &mut BTreeMap<&'static str, Meter>) -> Sample {
        // What depends on the moment comes first; the lag is asked for over the network.
        let at = self.clock.now();
        let usage = self.usage(meters);
        let (machine, load) = (MachineTime::read(), self.load.read());
        let staleness_p99_ms = prober::lock(&self.tracker).p99_ms(at);
        let lags = timeout(LAGS_WITHIN, self.cluster.lags()).await.unwrap_or_default();
        Sample { at, lags, load, staleness_p99_ms, machine, usage }
    }

    fn usage(&self, meters: &mut BTreeMap<&'static str, Meter>) -> BTreeMap<&'static str, Usage> {
        let processes = Processes::read();
        let watched = self.watched.pids();
        let servers = watched.into_iter().filter_map(|(name, pid)| Some((name, processes.usage(pid)?)));
        let all = servers.chain(processes.own_usage().map(|own| (HARNESS, own)));
        let metered = |(name, usage): (&'static str, Usage)| {
            let cpu_s = meters.entry(name).or_default().advance(usage.cpu_s);
            (name, Usage { cpu_s, ..usage })
        };
        all.map(metered).collect()
    }
}

/// The samples from the one that stands for `from` to the one that stands for `until`, both included.
#[must_use]
pub fn span(samples: &[Sample], from: Duration, until: Duration) -> &[Sample] {
    let first = samples.partition_point(|sample| sample.at + SLACK < from);
    let last = samples.partition_point(|sample| sample.at < until + SLACK);
    samples.get(first..last).unwrap_or_default()
}

/// Busy share of the machine between the first and the last of `samples`.
#[must_use]
pub fn machine_busy(samples: &[Sample]) -> Option<f64> {
    let (first, last) = (samples.first()?.machine?, samples.last()?.machine?);
    last.busy_share_since(&first)
}

/// Cores that `process` took between the first and the last of `samples`.
#[must_use]
pub fn cores(samples: &[Sample], process: &str) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    let seconds = (last.at.checked_sub(first.at)?).as_secs_f64();
    let used = last.usage.get(process)?.cpu_s - first.usage.get(process)?.cpu_s;
    (seconds > 0.0).then(|| used / seconds)
}

/// A sample as it is kept for plots.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    at_s: f64,
    offered: u64,
    accepted: u64,
    refused: u64,
    failed: u64,
    redis_lag: Option<u64>,
    analytics_lag: Option<u64>,
    dead_letters: Option<u64>,
    staleness_p99_ms: Option<f64>,
    cpu_s: BTreeMap<&'static str, f64>,
    rss_mib: BTreeMap<&'static str, f64>,
}

impl From<&Sample> for Point {
    fn from(sample: &Sample) -> Self {
        let of = |take: fn(&Usage) -> f64| sample.usage.iter().map(|(name, usage)| (*name, take(usage))).collect();
        Self {
            at_s: sample.at.as_secs_f64(),
            offered: sample.load.offered,
            accepted: sample.load.accepted,
            refused: sample.load.refused,
            failed: sample.load.failed,
            redis_lag: sample.lags.redis,
            analytics_lag: sample.lags.analytics,
            dead_letters: sample.lags.dead_letters,
            staleness_p99_ms: sample.staleness_p99_ms,
            cpu_s: of(|usage| usage.cpu_s),
            rss_mib: of(|usage| usage.rss_mib),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, cpu_s: f64, machine: (u64, u64)) -> Sample {
        Sample {
            at: Duration::from_millis(at_ms),
            machine: Some(MachineTime { busy: machine.0, total: machine.1 }),
            usage: [("kafka", Usage { cpu_s, rss_mib: 1.0 })].into(),
            ..Sample::default()
        }
    }

    #[test]
    fn a_span_has_the_samples_of_both_its_ends_even_when_they_came_late() {
        let samples: Vec<Sample> = [0, 1_003, 2_001, 3_180, 4_000].map(|at| sample(at, 0.0, (0, 0))).into();
        let seconds = |from, until| span(&samples, Duration::from_secs(from), Duration::from_secs(until)).len();
        assert_eq!(seconds(0, 4), 5);
        assert_eq!(seconds(1, 3), 3);
        assert_eq!(seconds(9, 10), 0);
    }

    #[test]
    fn shares_come_from_the_ends_of_a_span() {
        let samples =
            [sample(0, 1.0, (100, 1_000)), sample(1_000, 1.2, (150, 1_100)), sample(2_000, 2.0, (190, 1_200))];
        assert_eq!(cores(&samples, "kafka"), Some(0.5));
        assert_eq!(machine_busy(&samples), Some(0.45));
        assert_eq!(cores(&samples, "redis"), None);
        assert_eq!(cores(&samples[..1], "kafka"), None);
    }
}
