//! The protobuf form. Reading goes through the generated message; writing is by hand, field by field, because the
//! generated one would want an owned copy of the driver id for each event. Golden bytes of another implementation hold
//! both to the schema.

use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use prost::encoding::{self, WireType};

use crate::location::Draft;
use crate::{DriverLocation, Invalid, Reason};

#[allow(missing_docs, unreachable_pub, reason = "generated; the schema in proto/ documents each field")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/driverlocation.v1.rs"));
}

/// The longest `detail` that a decoder's error may add.
const DETAIL_MAX_BYTES: usize = 200;

mod tag {
    pub(super) const DRIVER_ID: u32 = 1;
    pub(super) const LATITUDE: u32 = 2;
    pub(super) const LONGITUDE: u32 = 3;
    pub(super) const HEADING: u32 = 4;
    pub(super) const SPEED: u32 = 5;
    pub(super) const TIMESTAMP: u32 = 6;
    pub(super) const RECEIVED_AT: u32 = 7;
    pub(super) const EFFECTIVE_AT: u32 = 8;
}

impl DriverLocation {
    /// The protobuf bytes, fields in the order of their numbers, as every protobuf library writes them.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        let id = self.driver_id.as_str();
        encoding::encode_key(tag::DRIVER_ID, WireType::LengthDelimited, &mut out);
        encoding::encode_varint(id.len() as u64, &mut out);
        out.put_slice(id.as_bytes());
        encoding::double::encode(tag::LATITUDE, &self.latitude, &mut out);
        encoding::double::encode(tag::LONGITUDE, &self.longitude, &mut out);
        if let Some(heading) = &self.heading {
            encoding::float::encode(tag::HEADING, heading, &mut out);
        }
        if let Some(speed) = &self.speed {
            encoding::float::encode(tag::SPEED, speed, &mut out);
        }
        encoding::int64::encode(tag::TIMESTAMP, &self.timestamp_ms, &mut out);
        encoding::int64::encode(tag::RECEIVED_AT, &self.received_at_ms, &mut out);
        encoding::int64::encode(tag::EFFECTIVE_AT, &self.effective_at_ms, &mut out);
        out.into()
    }

    fn encoded_len(&self) -> usize {
        let id = self.driver_id.as_str().len();
        encoding::key_len(tag::DRIVER_ID)
            + encoding::encoded_len_varint(id as u64)
            + id
            + encoding::double::encoded_len(tag::LATITUDE, &self.latitude)
            + encoding::double::encoded_len(tag::LONGITUDE, &self.longitude)
            + self.heading.map_or(0, |heading| encoding::float::encoded_len(tag::HEADING, &heading))
            + self.speed.map_or(0, |speed| encoding::float::encoded_len(tag::SPEED, &speed))
            + encoding::int64::encoded_len(tag::TIMESTAMP, &self.timestamp_ms)
            + encoding::int64::encoded_len(tag::RECEIVED_AT, &self.received_at_ms)
            + encoding::int64::encoded_len(tag::EFFECTIVE_AT, &self.effective_at_ms)
    }

    /// Reads and checks what a Kafka record holds, if it holds anything; see [`Self::decode`].
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn of_record(value: Option<&[u8]>, record_timestamp_ms: i64) -> Result<Self, Invalid> {
        let value = value.ok_or(Reason::NullValue)?;
        Self::decode(value, record_timestamp_ms)
    }

    /// Reads and checks the value of a Kafka record whose own time is `record_timestamp_ms` (−1: none).
    ///
    /// The ingest writes all three times. A record of another producer may lack `received_at` (then the record's time
    /// stands in) or `effective_at` (then the earlier of timestamp and receipt); neither may be later than what bounds
    /// it, so that no forged time keeps a position on the map beyond its life.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn decode(value: &[u8], record_timestamp_ms: i64) -> Result<Self, Invalid> {
        let message = generated::DriverLocation::decode(value).map_err(|error| undecodable(&error))?;
        let record_time = (record_timestamp_ms >= 0).then_some(record_timestamp_ms);
        let received_at = match (message.received_at, record_time) {
            (Some(received_at), Some(record_time)) => received_at.min(record_time),
            (received_at, record_time) => received_at.or(record_time).or(message.timestamp).unwrap_or_default(),
        };
        let draft = Draft {
            driver_id: message.driver_id,
            latitude: message.latitude,
            longitude: message.longitude,
            heading: message.heading,
            speed: message.speed,
            timestamp_ms: message.timestamp,
        };
        let mut location = draft.check(received_at)?;
        if let Some(effective_at) = message.effective_at {
            location.effective_at_ms = effective_at.clamp(crate::EARLIEST_MS.min(received_at), received_at);
        }
        Ok(location)
    }
}

/// The decoder's own words name fields and wire types, never values.
fn undecodable(error: &prost::DecodeError) -> Invalid {
    let mut detail = error.to_string();
    detail.truncate(detail.floor_char_boundary(DETAIL_MAX_BYTES));
    Invalid { reason: Reason::Undecodable, detail }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::location::samples::locations;
    use crate::{DriverId, EARLIEST_MS};

    /// Bytes that Google's Python protobuf wrote (tests/golden/make.sh).
    macro_rules! golden {
        ($name:literal) => {
            include_bytes!(concat!("../tests/golden/", $name, ".bin")).as_slice()
        };
    }

    const RECEIVED: i64 = 1_795_441_689_700;

    fn normal() -> DriverLocation {
        DriverLocation {
            driver_id: DriverId::try_from("driver-17").unwrap(),
            latitude: 40.7128,
            longitude: -74.006,
            heading: Some(90.5),
            speed: Some(31.7),
            timestamp_ms: 1_795_441_689_633,
            received_at_ms: RECEIVED,
            effective_at_ms: 1_795_441_689_634,
        }
    }

    fn reason(value: &[u8]) -> Reason {
        DriverLocation::decode(value, RECEIVED).unwrap_err().reason
    }

    #[test]
    fn a_record_without_a_value_has_a_reason_of_its_own() {
        assert_eq!(DriverLocation::of_record(None, RECEIVED), Err(Reason::NullValue.into()));
        assert_eq!(DriverLocation::of_record(Some(golden!("normal")), RECEIVED), Ok(normal()));
    }

    #[test]
    fn golden_bytes_are_read_and_written_alike() {
        let longest = DriverId::try_from(format!("{}é", "運".repeat(42))).unwrap();
        assert_eq!(longest.as_str().len(), DriverId::MAX_BYTES);
        let zero = DriverLocation { latitude: 0.0, longitude: 0.0, heading: Some(0.0), speed: Some(0.0), ..normal() };
        for (bytes, location) in [
            (golden!("normal"), normal()),
            (golden!("zero_coordinates"), zero),
            (golden!("optionals_absent"), DriverLocation { heading: None, speed: None, ..normal() }),
            (golden!("longest_id"), DriverLocation { driver_id: longest, ..normal() }),
            (golden!("southwest"), DriverLocation { latitude: -33.8688, longitude: -179.9999, ..normal() }),
        ] {
            assert_eq!(DriverLocation::decode(bytes, RECEIVED), Ok(location.clone()));
            assert_eq!(location.encode(), bytes);
        }
    }

    #[test]
    fn unknown_fields_are_ignored() {
        assert_eq!(DriverLocation::decode(golden!("unknown_fields"), RECEIVED), Ok(normal()));
    }

    #[test]
    fn an_empty_message_lacks_its_first_field() {
        assert!(golden!("empty").is_empty());
        assert_eq!(reason(golden!("empty")), Reason::MissingDriverId);
    }

    #[test]
    fn an_absent_latitude_is_no_zero() {
        assert_eq!(reason(golden!("latitude_absent")), Reason::MissingLatitude);
    }

    #[test]
    fn invalid_golden_bytes_name_their_reason() {
        assert_eq!(reason(golden!("id_too_long")), Reason::InvalidDriverId);
        assert_eq!(reason(golden!("negative")), Reason::InvalidHeading);
        assert_eq!(reason(golden!("not_a_number")), Reason::InvalidLatitude);
        assert_eq!(reason(golden!("truncated")), Reason::Undecodable);
        assert_eq!(reason(golden!("wrong_wire_type")), Reason::Undecodable);
    }

    #[test]
    fn negative_golden_values_are_read_as_such() {
        let message = generated::DriverLocation::decode(golden!("negative")).unwrap();
        assert_eq!((message.latitude, message.longitude), (Some(-90.0), Some(-180.0)));
        assert_eq!((message.heading, message.speed, message.timestamp), (Some(-1.0), Some(-1.0), Some(-1)));
    }

    #[test]
    fn the_records_time_stands_in_for_an_absent_receipt() {
        let location = DriverLocation::decode(golden!("times_absent"), RECEIVED + 7).unwrap();
        assert_eq!((location.received_at_ms, location.effective_at_ms), (RECEIVED + 7, normal().timestamp_ms));
        let unset = DriverLocation::decode(golden!("times_absent"), -1).unwrap();
        assert_eq!(unset.received_at_ms, normal().timestamp_ms);
    }

    #[test]
    fn a_time_later_than_its_bound_is_clamped() {
        let forged = DriverLocation { effective_at_ms: RECEIVED + 3_600_000, ..normal() };
        assert_eq!(DriverLocation::decode(&forged.encode(), RECEIVED).unwrap().effective_at_ms, RECEIVED);
        let forged = DriverLocation { received_at_ms: i64::MAX, effective_at_ms: i64::MAX, ..normal() };
        let location = DriverLocation::decode(&forged.encode(), RECEIVED).unwrap();
        assert_eq!((location.received_at_ms, location.effective_at_ms), (RECEIVED, RECEIVED));
        let forged = DriverLocation { effective_at_ms: i64::MIN, ..normal() };
        assert_eq!(DriverLocation::decode(&forged.encode(), RECEIVED).unwrap().effective_at_ms, EARLIEST_MS);
    }

    #[test]
    fn a_text_that_is_no_utf8_is_undecodable_and_not_repeated_in_the_detail() {
        let invalid = DriverLocation::decode(b"\x0a\x03abc\xff", RECEIVED).unwrap_err();
        assert_eq!(invalid.reason, Reason::Undecodable);
        let invalid = DriverLocation::decode(b"\x0a\x03a\xffb", RECEIVED).unwrap_err();
        assert!(invalid.reason == Reason::Undecodable && !invalid.detail.contains('\u{fffd}'), "{invalid}");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(location in locations()) {
            let bytes = location.encode();
            prop_assert_eq!(bytes.len(), location.encoded_len());
            prop_assert_eq!(DriverLocation::decode(&bytes, location.received_at_ms), Ok(location));
        }

        #[test]
        fn writing_by_hand_equals_the_generated_writer(location in locations()) {
            let bytes = location.encode();
            let message = generated::DriverLocation::decode(bytes.clone()).unwrap();
            prop_assert_eq!(message.encode_to_vec(), bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(value: Vec<u8>, time: i64) {
            let _ = DriverLocation::decode(&value, time);
        }

        #[test]
        fn no_mutation_makes_it_panic_or_break_a_rule(location in locations(), at: prop::sample::Index, byte: u8) {
            let mut bytes = location.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = DriverLocation::decode(&bytes, location.received_at_ms) {
                prop_assert!(read.effective_at_ms <= read.received_at_ms && read.latitude.abs() <= 90.0);
            }
        }
    }
}
