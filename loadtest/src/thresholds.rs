//! Every number that a verdict depends on, in one table.

/// What a run must keep to pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Accepted share of what was offered, from which a stage counts as held.
    pub held_share: f64,
    /// p99 staleness that every stage stays under, in milliseconds.
    pub staleness_p99_ms: f64,
    /// Seconds of offered traffic that the Redis group may lag by, at p99 of samples once a second.
    pub lag_s: f64,
    /// Malformed records that must be found in the dead letter topic.
    pub poison: u64,
    /// Recovery stays under this, in seconds.
    pub recovery_s: f64,
    /// Cores that redis-writer may take at the peak.
    pub redis_writer_cores: f64,
    /// Memory that redis-writer may take, in MiB.
    pub redis_writer_mib: f64,
    /// Share of the machine that must have been busy where it is to blame for a stage that was not held.
    pub machine_busy: f64,
    /// Only stages above this rate may be missed for want of machine, in events per second.
    pub machine_limited_above: u32,
    /// Accepted events per second that are owed even then, one position a POST.
    pub floor_single: f64,
    /// The same from [`Thresholds::floor_batch_from`] positions a POST.
    pub floor_batch: f64,
    /// Positions in a POST from which [`Thresholds::floor_batch`] holds.
    pub floor_batch_from: u32,
}

/// What the surge must keep.
pub const SURGE: Thresholds = Thresholds {
    held_share: 0.99,
    staleness_p99_ms: 2_000.0,
    lag_s: 0.2,
    poison: crate::specification::POISON as u64,
    recovery_s: 10.0,
    redis_writer_cores: 4.0,
    redis_writer_mib: 3_072.0,
    machine_busy: 0.95,
    machine_limited_above: 15_000,
    floor_single: 30_000.0,
    floor_batch: 50_000.0,
    floor_batch_from: 10,
};

/// When Redis counts as recovered: p99 staleness over one second under this, in milliseconds …
pub const RECOVERED_STALENESS_MS: f64 = 2_000.0;
/// … and the lag of its group under this, in records.
pub const RECOVERED_LAG: u64 = 2_000;

impl Thresholds {
    /// Accepted events per second that are owed on a machine that is too small.
    #[must_use]
    pub fn floor(&self, positions_per_post: u32) -> f64 {
        if positions_per_post >= self.floor_batch_from { self.floor_batch } else { self.floor_single }
    }
}
