//! The closed set of reasons for which a position is refused: error codes of HTTP answers, labels of metrics, headers of
//! dead letters.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $field:expr, $explanation:literal;)*) => {
        /// Why a position is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code, for example `missing_latitude`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The JSON field to blame, where one is.
            #[must_use]
            pub const fn field(self) -> Option<&'static str> {
                match self { $(Self::$name => $field,)* }
            }

            /// What would be right, as a sentence for the sender.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => $explanation,)* }
            }
        }
    };
}

reasons! {
    /// A Kafka record without a value.
    NullValue = "null_value", None, "The record has no value.";
    /// Bytes that are no protobuf `DriverLocation`.
    Undecodable = "undecodable", None, "The value is not a protobuf DriverLocation.";
    /// A Kafka record batch that cannot be read at all.
    UndecodableBatch = "undecodable_batch", None, "The record batch cannot be read.";
    /// The sink refuses this record for its content.
    SinkRefused = "sink_refused", None, "The sink refuses this record for its content.";
    /// A body that is not JSON.
    MalformedJson = "malformed_json", None, "The body is not valid JSON.";
    /// JSON, but not an object where one position is expected.
    NotAnObject = "not_an_object", None, "A position is a JSON object.";
    /// No `driverId`, or null.
    MissingDriverId = "missing_driver_id", Some("driverId"), "driverId is missing.";
    /// Not a string, empty, too long or with unprintable characters.
    InvalidDriverId = "invalid_driver_id", Some("driverId"), "driverId must be a string of 1 to 128 bytes of printable UTF-8.";
    /// No `latitude`, or null.
    MissingLatitude = "missing_latitude", Some("latitude"), "latitude is missing.";
    /// Not a number, or outside −90…90.
    InvalidLatitude = "invalid_latitude", Some("latitude"), "latitude must be a number from -90 to 90, in degrees north.";
    /// No `longitude`, or null.
    MissingLongitude = "missing_longitude", Some("longitude"), "longitude is missing.";
    /// Not a number, or outside −180…180.
    InvalidLongitude = "invalid_longitude", Some("longitude"), "longitude must be a number from -180 to 180, in degrees east.";
    /// Not a number, or outside 0…360.
    InvalidHeading = "invalid_heading", Some("heading"), "heading must be a number from 0 to 360, in degrees, or absent.";
    /// Not a number, negative or infinite.
    InvalidSpeed = "invalid_speed", Some("speed"), "speed must be a finite number of 0 or more, in metres per second, or absent.";
    /// No `timestamp`, or null.
    MissingTimestamp = "missing_timestamp", Some("timestamp"), "timestamp is missing.";
    /// Not a whole number of milliseconds.
    InvalidTimestamp = "invalid_timestamp", Some("timestamp"), "timestamp must be a whole number of milliseconds since 1970-01-01T00:00:00Z.";
    /// Before 2000-01-01.
    TimestampTooOld = "timestamp_too_old", Some("timestamp"), "timestamp must not be before 2000-01-01T00:00:00Z; it is in milliseconds.";
    /// More than 24 h ahead of the receiver's clock.
    TimestampTooFarAhead = "timestamp_too_far_ahead", Some("timestamp"), "timestamp must not be more than 24 hours ahead of serverTime; it is in milliseconds.";
    /// Not a whole number of milliseconds, or a moment that `timestamp` may not have either.
    InvalidSentAt = "invalid_sent_at", Some("sentAt"), "sentAt must be a whole number of milliseconds since 1970-01-01T00:00:00Z, not before 2000-01-01 and not more than 24 hours ahead of serverTime, or absent.";
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A code that names no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reason code")]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == code).ok_or(UnknownReason)
    }
}

/// A position that is refused. Holds neither coordinates nor driver ids: it goes into logs, headers and answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Invalid {
    /// The stable code.
    pub reason: Reason,
    /// A sentence for people.
    pub detail: String,
}

impl From<Reason> for Invalid {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: reason.explanation().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_is_unique_and_reads_back() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            assert!(reason.as_str().chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{reason}");
        }
        assert_eq!("latitude".parse::<Reason>(), Err(UnknownReason));
    }

    #[test]
    fn a_code_about_a_field_names_it() {
        for reason in Reason::ALL {
            if let Some(field) = reason.field() {
                assert!(reason.explanation().starts_with(field), "{reason}");
            }
        }
    }
}
