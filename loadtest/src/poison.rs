//! Malformed records, encoded by hand: this file shares no code with the event crate, so that one mistake cannot hide in both.

use crate::specification::POISON;
use crate::wire::{
    DRIVER_ID, FIXED32, FIXED64, HEADING, LATITUDE, LENGTH, LONGITUDE, SPEED, TIMESTAMP, VARINT, push_varint, tag,
};

/// Ways for a record to be unreadable or invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A valid event without its last bytes.
    Truncated,
    /// No bytes at all: an event without any field.
    EmptyValue,
    /// A tombstone.
    NullValue,
    /// The latitude as a varint.
    WrongWireType,
    /// Bytes of no format.
    Noise,
    /// JSON where protobuf belongs.
    Json,
    /// A driver id that is not UTF-8.
    DriverIdNotUtf8,
    /// A driver id of no bytes.
    EmptyDriverId,
    /// A driver id longer than allowed.
    LongDriverId,
    /// A driver id with a NUL in it.
    NulInDriverId,
    /// No driver id.
    MissingDriverId,
    /// No latitude: the record that used to block its partition.
    MissingLatitude,
    /// Latitude 91.
    LatitudeOutOfRange,
    /// Latitude infinite.
    InfiniteLatitude,
    /// No longitude.
    MissingLongitude,
    /// Longitude that is not a number.
    LongitudeNan,
    /// Heading 361.
    HeadingOutOfRange,
    /// Speed below zero.
    NegativeSpeed,
    /// No timestamp.
    MissingTimestamp,
    /// A timestamp in 1999.
    TimestampTooOld,
    /// A timestamp two days ahead.
    TimestampTooFarAhead,
}

/// One malformed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// What is wrong with it.
    pub kind: Kind,
    /// Key of the record.
    pub key: Vec<u8>,
    /// Value of the record; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

const DAY_MS: i64 = 24 * 3_600 * 1_000;
const IN_1999_MS: i64 = 930_000_000_000;

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::Truncated,
        Self::EmptyValue,
        Self::NullValue,
        Self::WrongWireType,
        Self::Noise,
        Self::Json,
        Self::DriverIdNotUtf8,
        Self::EmptyDriverId,
        Self::LongDriverId,
        Self::NulInDriverId,
        Self::MissingDriverId,
        Self::MissingLatitude,
        Self::LatitudeOutOfRange,
        Self::InfiniteLatitude,
        Self::MissingLongitude,
        Self::LongitudeNan,
        Self::HeadingOutOfRange,
        Self::NegativeSpeed,
        Self::MissingTimestamp,
        Self::TimestampTooOld,
        Self::TimestampTooFarAhead,
    ];

    fn value(self, now_ms: i64) -> Option<Vec<u8>> {
        let fields = match self {
            Self::NullValue => return None,
            Self::EmptyValue => return Some(Vec::new()),
            Self::Truncated => return Some(truncated(Fields::valid(now_ms).encode())),
            Self::Noise => return Some(noise()),
            Self::Json => return Some(br#"{"driverId":"poison","latitude":40.7,"longitude":-74.0}"#.to_vec()),
            Self::WrongWireType => return Some(wrong_wire_type(now_ms)),
            other => Fields::valid(now_ms).spoiled_by(other, now_ms),
        };
        Some(fields.encode())
    }
}

/// The malformed records of a run: every kind in turn.
#[must_use]
pub fn records(now_ms: i64) -> Vec<Poison> {
    let kinds = Kind::ALL.into_iter().cycle().take(POISON);
    let record = |(number, kind): (usize, Kind)| Poison {
        kind,
        key: format!("poison-{number}").into_bytes(),
        value: kind.value(now_ms),
    };
    kinds.enumerate().map(record).collect()
}

/// The fields of an event by their numbers in the schema.
struct Fields {
    driver_id: Option<Vec<u8>>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    heading: f32,
    speed: f32,
    timestamp: Option<i64>,
}

impl Fields {
    fn valid(now_ms: i64) -> Self {
        Self {
            driver_id: Some(b"poison".to_vec()),
            latitude: Some(40.7128),
            longitude: Some(-74.006),
            heading: 90.0,
            speed: 12.5,
            timestamp: Some(now_ms),
        }
    }

    fn spoiled_by(mut self, kind: Kind, now_ms: i64) -> Self {
        match kind {
            Kind::DriverIdNotUtf8 => self.driver_id = Some(vec![b'd', 0xff, 0xfe]),
            Kind::EmptyDriverId => self.driver_id = Some(Vec::new()),
            Kind::LongDriverId => self.driver_id = Some(vec![b'd'; 129]),
            Kind::NulInDriverId => self.driver_id = Some(b"dri\0ver".to_vec()),
            Kind::MissingDriverId => self.driver_id = None,
            Kind::MissingLatitude => self.latitude = None,
            Kind::LatitudeOutOfRange => self.latitude = Some(91.0),
            Kind::InfiniteLatitude => self.latitude = Some(f64::INFINITY),
            Kind::MissingLongitude => self.longitude = None,
            Kind::LongitudeNan => self.longitude = Some(f64::NAN),
            Kind::HeadingOutOfRange => self.heading = 361.0,
            Kind::NegativeSpeed => self.speed = -1.0,
            Kind::MissingTimestamp => self.timestamp = None,
            Kind::TimestampTooOld => self.timestamp = Some(IN_1999_MS),
            Kind::TimestampTooFarAhead => self.timestamp = Some(now_ms + 2 * DAY_MS),
            // These are spoiled as bytes, not field by field.
            Kind::Truncated | Kind::EmptyValue | Kind::NullValue | Kind::WrongWireType | Kind::Noise | Kind::Json => {}
        }
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(id) = &self.driver_id {
            out.push(tag(DRIVER_ID, LENGTH));
            push_varint(&mut out, id.len() as u64);
            out.extend_from_slice(id);
        }
        for (number, degrees) in [(LATITUDE, self.latitude), (LONGITUDE, self.longitude)] {
            if let Some(degrees) = degrees {
                out.push(tag(number, FIXED64));
                out.extend_from_slice(&degrees.to_le_bytes());
            }
        }
        for (number, value) in [(HEADING, self.heading), (SPEED, self.speed)] {
            out.push(tag(number, FIXED32));
            out.extend_from_slice(&value.to_le_bytes());
        }
        if let Some(timestamp) = self.timestamp {
            out.push(tag(TIMESTAMP, VARINT));
            push_varint(&mut out, timestamp.cast_unsigned());
        }
        out
    }
}

fn truncated(mut whole: Vec<u8>) -> Vec<u8> {
    whole.truncate(whole.len() - 3);
    whole
}

fn noise() -> Vec<u8> {
    // Every byte claims to be followed by more of the same number: no field ever begins.
    (0..64u8).map(|byte| byte.wrapping_mul(151) | 0x80).collect()
}

fn wrong_wire_type(now_ms: i64) -> Vec<u8> {
    let mut out = Fields { latitude: None, ..Fields::valid(now_ms) }.encode();
    out.push(tag(LATITUDE, VARINT));
    push_varint(&mut out, 40);
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use event::{DriverLocation, Reason};

    use super::*;

    const NOW_MS: i64 = 1_795_441_689_633;

    /// What the services are to find in each kind.
    fn reason(kind: Kind) -> Reason {
        match kind {
            Kind::Truncated | Kind::WrongWireType | Kind::Noise | Kind::Json | Kind::DriverIdNotUtf8 => {
                Reason::Undecodable
            }
            Kind::NullValue => Reason::NullValue,
            Kind::EmptyValue | Kind::MissingDriverId => Reason::MissingDriverId,
            Kind::EmptyDriverId | Kind::LongDriverId | Kind::NulInDriverId => Reason::InvalidDriverId,
            Kind::MissingLatitude => Reason::MissingLatitude,
            Kind::LatitudeOutOfRange | Kind::InfiniteLatitude => Reason::InvalidLatitude,
            Kind::MissingLongitude => Reason::MissingLongitude,
            Kind::LongitudeNan => Reason::InvalidLongitude,
            Kind::HeadingOutOfRange => Reason::InvalidHeading,
            Kind::NegativeSpeed => Reason::InvalidSpeed,
            Kind::MissingTimestamp => Reason::MissingTimestamp,
            Kind::TimestampTooOld => Reason::TimestampTooOld,
            Kind::TimestampTooFarAhead => Reason::TimestampTooFarAhead,
        }
    }

    #[test]
    fn the_event_crate_refuses_each_kind_for_what_is_wrong_with_it() {
        for poison in records(NOW_MS) {
            let Some(value) = poison.value else {
                assert_eq!(poison.kind, Kind::NullValue);
                continue;
            };
            let found = DriverLocation::decode(&value, NOW_MS).map_err(|invalid| invalid.reason);
            assert_eq!(found, Err(reason(poison.kind)), "{:?}", poison.kind);
        }
    }

    #[test]
    fn what_is_spoiled_would_be_valid_otherwise() {
        let event = DriverLocation::decode(&Fields::valid(NOW_MS).encode(), NOW_MS).unwrap();
        assert_eq!((event.latitude, event.longitude), (40.7128, -74.006));
    }

    #[test]
    fn all_kinds_are_among_the_records() {
        let kinds: BTreeSet<Kind> = records(NOW_MS).iter().map(|poison| poison.kind).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
        assert_eq!(records(0).len(), 47);
    }
}
