//! Names of the headers that make a record a dead letter.
//!
//! The first group is Spring Kafka's (`KafkaHeaders.DLT_*`), so that its tools and others' read our letters; the second
//! is ours, all text. Readers take the last of a repeated name.

/// Topic of the original (UTF-8).
pub const ORIGINAL_TOPIC: &str = "kafka_dlt-original-topic";
/// Partition of the original (4 bytes, big-endian).
pub const ORIGINAL_PARTITION: &str = "kafka_dlt-original-partition";
/// Offset of the original (8 bytes, big-endian).
pub const ORIGINAL_OFFSET: &str = "kafka_dlt-original-offset";
/// Timestamp of the original in ms since the epoch (8 bytes, big-endian).
pub const ORIGINAL_TIMESTAMP: &str = "kafka_dlt-original-timestamp";
/// `CreateTime` or `LogAppendTime` (UTF-8).
pub const ORIGINAL_TIMESTAMP_TYPE: &str = "kafka_dlt-original-timestamp-type";
/// The consumer group that could not take it (UTF-8).
pub const ORIGINAL_CONSUMER_GROUP: &str = "kafka_dlt-original-consumer-group";
/// Class of the fault (UTF-8).
pub const EXCEPTION_FQCN: &str = "kafka_dlt-exception-fqcn";
/// One line of detail (UTF-8).
pub const EXCEPTION_MESSAGE: &str = "kafka_dlt-exception-message";
/// Class, reason and detail in one bounded line: there is no stack to show (UTF-8).
pub const EXCEPTION_STACKTRACE: &str = "kafka_dlt-exception-stacktrace";

/// The consumer group that could not take the record.
pub const GROUP: &str = "driver-location-group";
/// The service that published the letter.
pub const SERVICE: &str = "driver-location-service";
/// The service's version.
pub const VERSION: &str = "driver-location-version";
/// Stable code of the reason.
pub const REASON: &str = "driver-location-reason";
/// One line of detail.
pub const DETAIL: &str = "driver-location-detail";
/// How often the record was tried, in decimal digits.
pub const ATTEMPTS: &str = "driver-location-attempts";
/// Which parts were cut, of `headers`, `key`, `value`, separated by commas; absent on a whole letter.
pub const TRUNCATED: &str = "driver-location-truncated";
/// Bytes of the original's key, value and headers, in decimal digits; absent on a whole letter.
pub const ORIGINAL_SIZE: &str = "driver-location-original-size";

/// On a record that was sent back from the dead letter topic, and on its letter if it fails again: how often that was.
pub const REDRIVE_COUNT: &str = "redrive-count";
/// On such a record: where the first original was, as `TOPIC-PARTITION@OFFSET`.
pub const REDRIVE_OF: &str = "redrive-of";

/// Spring has more of them than we write.
const SPRING_PREFIX: &str = "kafka_dlt-";
/// Kafka Connect's letters, which may come back to us as records.
const CONNECT_PREFIX: &str = "__connect.errors.";
const OURS: [&str; 8] = [GROUP, SERVICE, VERSION, REASON, DETAIL, ATTEMPTS, TRUNCATED, ORIGINAL_SIZE];

/// Whether a header belongs to a letter and not to its original. Those of a redrive are the original's: they outlive
/// letters, so that what fails for ever does not go round for ever.
pub fn is_letter_header(name: &str) -> bool {
    name.starts_with(SPRING_PREFIX) || name.starts_with(CONNECT_PREFIX) || OURS.contains(&name)
}
