//! The metrics of the map's writer, beside those of `pipeline`.

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

/// Age of a position, from its effective time, at the moment at which Redis had it.
pub const STALENESS: &str = "redis_write_staleness_seconds";
/// Keys under the prefix that held another type and were overwritten.
pub const FOREIGN_KEYS: &str = "redis_foreign_keys_total";

/// Bounds finer around the promise of one and two seconds than those of other durations.
pub const BUCKETS: service::Buckets =
    (STALENESS, &[0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0]);

pub(crate) struct SinkMetrics {
    pub(crate) staleness: Histogram,
    pub(crate) foreign_keys: Counter,
}

impl SinkMetrics {
    pub(crate) fn new() -> Self {
        describe_histogram!(STALENESS, Unit::Seconds, "Age of each written position when Redis had it.");
        describe_counter!(FOREIGN_KEYS, "Keys under the prefix that held another type and were overwritten.");
        Self { staleness: histogram!(STALENESS), foreign_keys: counter!(FOREIGN_KEYS) }
    }
}
