//! The metrics of the history's writer, beside those of `pipeline`.

use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};

/// Whether `driver_locations` is a hypertable (1) or a plain table (0).
pub const HYPERTABLE: &str = "timescale_hypertable";
/// Connections to the database that were opened.
pub const CONNECTIONS: &str = "timescale_connections_opened_total";
/// Batches whose transaction had been committed already, though its answer was lost.
pub const FOUND_COMMITTED: &str = "timescale_batches_found_committed_total";
/// Batches that were turned away because somebody else had moved on.
pub const FENCED: &str = "timescale_batches_fenced_total";

pub(crate) struct SinkMetrics {
    pub(crate) found_committed: Counter,
    pub(crate) fenced: Counter,
}

impl SinkMetrics {
    pub(crate) fn new() -> Self {
        describe_counter!(
            FOUND_COMMITTED,
            "Batches whose transaction had been committed already, though its answer was lost."
        );
        describe_counter!(FENCED, "Batches turned away because somebody else had moved on in their partitions.");
        Self { found_committed: counter!(FOUND_COMMITTED), fenced: counter!(FENCED) }
    }
}

pub(crate) fn connections() -> Counter {
    describe_counter!(CONNECTIONS, Unit::Count, "Connections to the database that were opened.");
    counter!(CONNECTIONS)
}

pub(crate) fn report_hypertable(is_hypertable: bool) {
    describe_gauge!(HYPERTABLE, "Whether driver_locations is a hypertable (1) or a plain table (0).");
    gauge!(HYPERTABLE).set(f64::from(u8::from(is_hypertable)));
}
