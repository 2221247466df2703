//! Names of all metrics of lag-exporter, and the counters about itself.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_histogram, histogram};

/// A family of the snapshot: its name, its type and what it says.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) help: &'static str,
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "gauge", help }
}

pub(crate) const LAG: Family = gauge(
    "kafka_consumer_lag",
    "Log end offset minus committed offset, in records; all that the partition holds where nothing was committed.",
);
pub(crate) const LAG_SECONDS: Family = gauge(
    "kafka_consumer_lag_seconds",
    "Age of the oldest record that the group has not processed; 0 when there is none, no series where it is unknown.",
);
pub(crate) const COMMITTED: Family = gauge(
    "kafka_consumer_committed_offset",
    "The next offset that the group will process; no series before its first commit.",
);
pub(crate) const BEYOND_END: Family = gauge(
    "kafka_consumer_beyond_end_records",
    "Records by which the committed offset lies behind the end of the log: the topic was created again, or records were taken back. No series elsewhere.",
);
pub(crate) const END: Family = gauge("kafka_topic_end_offset", "End of the partition's log.");
pub(crate) const START: Family = gauge("kafka_topic_start_offset", "First offset that the partition keeps.");
pub(crate) const TOPIC_RATE: Family =
    gauge("kafka_topic_production_rate", "Records appended to the topic a second, over --window.");
pub(crate) const TOPIC_HOTTEST: Family = gauge(
    "kafka_topic_hottest_partition_share",
    "Part of the topic's records of the last --window that went into the partition with the most.",
);
pub(crate) const GROUP_LAG: Family = gauge(
    "kafka_consumer_group_lag",
    "Sum of kafka_consumer_lag over the group; no series while a partition is unknown.",
);
pub(crate) const GROUP_LAG_MAX: Family = gauge(
    "kafka_consumer_group_lag_max",
    "Largest kafka_consumer_lag of the group; no series while a partition is unknown.",
);
pub(crate) const GROUP_LAG_SECONDS_SUM: Family = gauge(
    "kafka_consumer_group_lag_seconds_sum",
    "Sum of kafka_consumer_lag_seconds over the group; no series while a partition is unknown.",
);
pub(crate) const GROUP_LAG_SECONDS_MAX: Family = gauge(
    "kafka_consumer_group_lag_seconds_max",
    "Largest kafka_consumer_lag_seconds of the group; no series while a partition is unknown.",
);
pub(crate) const CONSUMPTION_RATE: Family = gauge(
    "kafka_consumer_group_consumption_rate",
    "Records a second by which the group's commits moved on, over --window.",
);
pub(crate) const PRODUCTION_RATE: Family =
    gauge("kafka_consumer_group_production_rate", "Records a second that were put before the group, over --window.");
pub(crate) const DRAIN_SECONDS: Family = gauge(
    "kafka_consumer_group_drain_seconds",
    "Time until nothing waits, should both rates stay; 0 without lag, no series while the lag does not shrink.",
);
pub(crate) const MEMBERS: Family = gauge("kafka_consumer_group_members", "Members of the group, of either protocol.");
pub(crate) const STATE: Family =
    gauge("kafka_consumer_group_state", "1 for the state that the group is in, by Kafka's name, and its protocol.");
pub(crate) const VERDICT: Family =
    gauge("kafka_consumer_group_verdict", "1 for the verdict that holds over --window, 0 for the others.");
pub(crate) const HOTTEST: Family = gauge(
    "kafka_consumer_group_hottest_partition_share",
    "Part of the group's lag that waits in the partition with the most; 0 without lag.",
);
pub(crate) const MARGIN_RECORDS: Family = gauge(
    "kafka_consumer_group_retention_margin_records",
    "Records between the start of the log and the group, where least; only where the log has been cut and something waits.",
);
pub(crate) const MARGIN_SECONDS: Family = gauge(
    "kafka_consumer_group_retention_margin_seconds",
    "Time until retention.ms reaches the oldest record that waits; no series where nothing waits.",
);
pub(crate) const MARGIN_RATIO: Family = gauge(
    "kafka_consumer_group_retention_margin_ratio",
    "Part of the retention that is left before the oldest record that waits is deleted, by time or by offsets, whichever is less; 1 where nothing waits.",
);
pub(crate) const LOST: Family = Family {
    name: "kafka_consumer_group_records_lost_to_retention_total",
    kind: "counter",
    help: "Records that retention took before the group had processed them.",
};
pub(crate) const COMMIT_AGE: Family = gauge(
    "kafka_consumer_group_commit_age_seconds",
    "Time since a commit of the group was seen to move; no series before the first one that was seen.",
);
pub(crate) const BEYOND_END_PARTITIONS: Family = gauge(
    "kafka_consumer_group_beyond_end_partitions",
    "Partitions whose committed offset lies behind the end of the log; see kafka_consumer_beyond_end_records.",
);
pub(crate) const UNKNOWN: Family = gauge(
    "kafka_consumer_group_unknown",
    "Partitions whose lag or time lag is not known, by reason; no series where all is known.",
);
pub(crate) const METHOD: Family = gauge(
    "kafka_consumer_group_time_lag_info",
    "1 for each way by which time lag of the group is told: commit (exact), history (from the ends of the log over time), record (the record was read).",
);

pub(crate) const UP: Family =
    gauge("kafka_lag_exporter_up", "1 when the last collection succeeded and is not older than --stale-after, else 0.");
pub(crate) const SAMPLE_AGE_SECONDS: Family =
    gauge("kafka_lag_exporter_sample_age_seconds", "Age of the lag that is exported.");
pub(crate) const UNREAD_TOPIC: Family = gauge(
    "kafka_lag_exporter_unread_topic",
    "1 for each topic that could not be read, with the reason; no series where all could.",
);
pub(crate) const SERIES: Family = gauge("kafka_lag_exporter_series", "Series of groups and topics that are exported.");
pub(crate) const SERIES_CUT: Family =
    gauge("kafka_lag_exporter_series_cut", "Series that are left out because of --max-series.");

const COLLECTION_SECONDS: &str = "kafka_lag_exporter_collection_seconds";
const COLLECTIONS: &str = "kafka_lag_exporter_collections_total";
const FAILED: &str = "kafka_lag_exporter_failed_collections_total";
const UNREAD_GROUPS: &str = "kafka_lag_exporter_unread_groups_total";
const UNREAD_PARTITIONS: &str = "kafka_lag_exporter_unread_partitions_total";
const ERRORS: &str = "kafka_lag_exporter_errors_total";

/// The requests that a collection is made of; what fails before any is `connect`.
const APIS: [&str; 9] = [
    "ListGroups",
    "FindCoordinator",
    "OffsetFetch",
    "DescribeGroups",
    "ConsumerGroupDescribe",
    "Metadata",
    "ListOffsets",
    "DescribeConfigs",
    "Fetch",
];
const NO_API: &str = "connect";
const OTHER_API: &str = "other";

pub(crate) fn describe() {
    describe_histogram!(COLLECTION_SECONDS, "Time of a collection, successful or not.");
    describe_counter!(COLLECTIONS, "Collections that succeeded.");
    describe_counter!(FAILED, "Collections that failed: the cluster did not answer, or refused.");
    describe_counter!(UNREAD_GROUPS, "Groups whose offsets could not be read, once a collection.");
    describe_counter!(UNREAD_PARTITIONS, "Partitions whose offsets could not be read, once a collection.");
    describe_counter!(
        ERRORS,
        "What Kafka refused or left unanswered, by the request's name; connect for a connection."
    );
    for name in [COLLECTIONS, FAILED, UNREAD_GROUPS, UNREAD_PARTITIONS] {
        counter!(name).absolute(0);
    }
    for api in APIS.into_iter().chain([NO_API, OTHER_API]) {
        counter!(ERRORS, "api" => api).absolute(0);
    }
}

pub(crate) fn collected(took: Duration) {
    histogram!(COLLECTION_SECONDS).record(took);
    counter!(COLLECTIONS).increment(1);
}

pub(crate) fn failed(took: Duration, error: &kafka::Error) {
    histogram!(COLLECTION_SECONDS).record(took);
    counter!(FAILED).increment(1);
    self::error(error);
}

pub(crate) fn error(error: &kafka::Error) {
    let api = error.api().map_or(NO_API, |api| if APIS.contains(&api) { api } else { OTHER_API });
    counter!(ERRORS, "api" => api).increment(1);
}

pub(crate) fn group_unread() {
    counter!(UNREAD_GROUPS).increment(1);
}

pub(crate) fn partition_unread() {
    counter!(UNREAD_PARTITIONS).increment(1);
}
