//! The pipeline's metrics: names, meanings and the handles that the hot path keeps.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Records by what became of them.
pub const RECORDS: &str = "pipeline_records_total";
/// Dead letters published and acknowledged, by reason.
pub const DEAD_LETTERS: &str = "pipeline_dead_letters_total";
/// From the start of decoding a poison record to the start of decoding the next record of its partition.
pub const POISON_COST: &str = "pipeline_poison_cost_seconds";
/// Records of each batch offered to the sink.
pub const BATCH_RECORDS: &str = "pipeline_batch_records";
/// Time of one attempt to write a batch.
pub const SINK_WRITE: &str = "pipeline_sink_write_seconds";
/// Attempts that failed, by kind of fault.
pub const SINK_FAULTS: &str = "pipeline_sink_faults_total";
/// Attempts to write records that an earlier attempt had offered already.
pub const RETRIES: &str = "pipeline_retries_total";
/// 1 while the sink works.
pub const SINK_UP: &str = "pipeline_sink_up";
/// Records fetched and not yet settled.
pub const HELD_RECORDS: &str = "pipeline_held_records";
/// Their bytes.
pub const HELD_BYTES: &str = "pipeline_held_bytes";
/// Partitions that are assigned.
pub const ASSIGNED: &str = "pipeline_assigned_partitions";
/// Partitions whose fetches are paused.
pub const PAUSED: &str = "pipeline_paused_partitions";
/// Partitions that cannot move because a dead letter cannot be published.
pub const BLOCKED: &str = "pipeline_blocked_partitions";
/// Offset commits by result.
pub const COMMITS: &str = "pipeline_commits_total";
/// Records that retention removed before they were read.
pub const LOST_TO_RETENTION: &str = "pipeline_records_lost_to_retention_total";

/// Buckets for the histograms above, for the recorder.
pub const BUCKETS: [(&str, &[f64]); 3] = [
    (POISON_COST, &[1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1]),
    (BATCH_RECORDS, &[1.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 5e4]),
    (SINK_WRITE, &[5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 2e-1, 5e-1, 1.0, 5.0, 30.0]),
];

/// There from the start: a rate needs the 0 before the first.
const FAULTS: [&str; 4] = ["sink", "refused", "unknown", "fenced"];

pub(crate) struct PipelineMetrics {
    group: String,
    pub(crate) poison_cost: Histogram,
    pub(crate) batch_records: Histogram,
    pub(crate) sink_write: Histogram,
    pub(crate) retries: Counter,
    pub(crate) sink_up: Gauge,
    pub(crate) held_records: Gauge,
    pub(crate) held_bytes: Gauge,
    pub(crate) assigned: Gauge,
    pub(crate) paused: Gauge,
    pub(crate) blocked: Gauge,
    pub(crate) lost_to_retention: Counter,
}

impl PipelineMetrics {
    pub(crate) fn new(group: &str) -> Self {
        describe();
        let label = || group.to_owned();
        for kind in FAULTS {
            counter!(SINK_FAULTS, "group" => label(), "kind" => kind).increment(0);
        }
        Self {
            group: group.to_owned(),
            poison_cost: histogram!(POISON_COST, "group" => label()),
            batch_records: histogram!(BATCH_RECORDS, "group" => label()),
            sink_write: histogram!(SINK_WRITE, "group" => label()),
            retries: counter!(RETRIES, "group" => label()),
            sink_up: gauge!(SINK_UP, "group" => label()),
            held_records: gauge!(HELD_RECORDS, "group" => label()),
            held_bytes: gauge!(HELD_BYTES, "group" => label()),
            assigned: gauge!(ASSIGNED, "group" => label()),
            paused: gauge!(PAUSED, "group" => label()),
            blocked: gauge!(BLOCKED, "group" => label()),
            lost_to_retention: counter!(LOST_TO_RETENTION, "group" => label()),
        }
    }

    /// Once a batch, not once a record.
    pub(crate) fn records(&self, outcome: &'static str, count: u64) {
        if count > 0 {
            counter!(RECORDS, "group" => self.group.clone(), "outcome" => outcome).increment(count);
        }
    }

    pub(crate) fn dead_letter(&self, reason: &'static str) {
        counter!(DEAD_LETTERS, "group" => self.group.clone(), "reason" => reason).increment(1);
        self.records("dead_letter", 1);
    }

    pub(crate) fn fault(&self, kind: &'static str) {
        counter!(SINK_FAULTS, "group" => self.group.clone(), "kind" => kind).increment(1);
    }

    pub(crate) fn commit(&self, result: &'static str) {
        counter!(COMMITS, "group" => self.group.clone(), "result" => result).increment(1);
    }

    pub(crate) fn wrote(&self, records: usize, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 records")]
        self.batch_records.record(records as f64);
        self.sink_write.record(took.as_secs_f64());
    }
}

fn describe() {
    describe_counter!(RECORDS, "Records settled, by outcome: written, superseded, expired, late, dead_letter.");
    describe_counter!(DEAD_LETTERS, "Dead letters published and acknowledged, by reason.");
    describe_histogram!(
        POISON_COST,
        Unit::Seconds,
        "From the start of decoding a poison record to the start of decoding the next one of its partition."
    );
    describe_histogram!(BATCH_RECORDS, "Records of each batch offered to the sink.");
    describe_histogram!(SINK_WRITE, Unit::Seconds, "Time of one attempt to write a batch.");
    describe_counter!(SINK_FAULTS, "Attempts to write that failed: sink, refused, unknown, fenced.");
    describe_counter!(RETRIES, "Attempts to write that repeat an earlier one, whole or in part.");
    describe_gauge!(SINK_UP, "1 while the sink works, 0 while writes wait for it.");
    describe_gauge!(HELD_RECORDS, "Records fetched and not yet settled.");
    describe_gauge!(HELD_BYTES, Unit::Bytes, "Bytes fetched and not yet settled, as they came over the wire.");
    describe_gauge!(ASSIGNED, "Partitions assigned to this member.");
    describe_gauge!(PAUSED, "Partitions whose fetches are paused: the sink is down or the buffer is full.");
    describe_gauge!(BLOCKED, "Partitions that wait because a dead letter cannot be published.");
    describe_counter!(COMMITS, "Offset commits, by result: ok, refused.");
    describe_counter!(LOST_TO_RETENTION, "Records that retention removed before they were read.");
}
