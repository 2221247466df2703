//! Names of all metrics of lag-exporter, and the counters about itself.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_histogram, histogram};

/// A family of the snapshot: its name and what it says.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
}

pub(crate) const LAG: Family = Family {
    name: "kafka_consumer_lag",
    help: "Log end offset minus committed offset, in records; all that the partition holds where nothing was committed.",
};
pub(crate) const LAG_SECONDS: Family = Family {
    name: "kafka_consumer_lag_seconds",
    help: "Age of the oldest record that the group has not processed; no series where it is unknown.",
};
pub(crate) const GROUP_LAG: Family = Family {
    name: "kafka_consumer_group_lag",
    help: "Sum of kafka_consumer_lag over the group; no series while a partition is unknown.",
};
pub(crate) const GROUP_LAG_MAX: Family = Family {
    name: "kafka_consumer_group_lag_max",
    help: "Largest kafka_consumer_lag of the group; no series while a partition is unknown.",
};
pub(crate) const GROUP_LAG_SECONDS_MAX: Family = Family {
    name: "kafka_consumer_group_lag_seconds_max",
    help: "Largest kafka_consumer_lag_seconds of the group; no series while a partition is unknown.",
};
pub(crate) const UP: Family = Family {
    name: "kafka_lag_exporter_up",
    help: "1 when the last collection succeeded and is not older than --stale-after, else 0.",
};
pub(crate) const SAMPLE_AGE_SECONDS: Family =
    Family { name: "kafka_lag_exporter_sample_age_seconds", help: "Age of the lag that is exported." };

const COLLECTION_SECONDS: &str = "kafka_lag_exporter_collection_seconds";
const COLLECTIONS: &str = "kafka_lag_exporter_collections_total";
const FAILED: &str = "kafka_lag_exporter_failed_collections_total";
const UNREAD_GROUPS: &str = "kafka_lag_exporter_unread_groups_total";
const UNREAD_PARTITIONS: &str = "kafka_lag_exporter_unread_partitions_total";

pub(crate) fn describe() {
    describe_histogram!(COLLECTION_SECONDS, "Time of a collection, successful or not.");
    describe_counter!(COLLECTIONS, "Collections that succeeded.");
    describe_counter!(FAILED, "Collections that failed: the cluster did not answer, or refused.");
    describe_counter!(UNREAD_GROUPS, "Groups whose offsets could not be read, once a collection.");
    describe_counter!(UNREAD_PARTITIONS, "Partitions whose offsets could not be read, once a collection.");
    for name in [COLLECTIONS, FAILED, UNREAD_GROUPS, UNREAD_PARTITIONS] {
        counter!(name).absolute(0);
    }
}

pub(crate) fn collected(took: Duration) {
    histogram!(COLLECTION_SECONDS).record(took);
    counter!(COLLECTIONS).increment(1);
}

pub(crate) fn failed(took: Duration) {
    histogram!(COLLECTION_SECONDS).record(took);
    counter!(FAILED).increment(1);
}

pub(crate) fn group_unread() {
    counter!(UNREAD_GROUPS).increment(1);
}

pub(crate) fn partition_unread() {
    counter!(UNREAD_PARTITIONS).increment(1);
}
