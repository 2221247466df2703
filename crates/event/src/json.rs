//! The JSON form: the value under a driver's key in Redis.

use crate::DriverLocation;

/// Longest forms: 5 names and braces, two 24-byte doubles, two 16-byte floats, a 20-byte integer.
const TYPICAL_BYTES: usize = 112;

impl DriverLocation {
    /// Appends `{"latitude":…,"longitude":…,"heading":…,"speed":…,"timestamp":…}`: always these five keys, an unknown
    /// heading or speed as null, each number in its shortest form that reads back the same, timestamp = effective time.
    pub fn to_json(&self, out: &mut Vec<u8>) {
        out.reserve(TYPICAL_BYTES);
        let mut number = zmij::Buffer::new();
        out.extend_from_slice(b"{\"latitude\":");
        out.extend_from_slice(number.format_finite(self.latitude).as_bytes());
        out.extend_from_slice(b",\"longitude\":");
        out.extend_from_slice(number.format_finite(self.longitude).as_bytes());
        out.extend_from_slice(b",\"heading\":");
        out.extend_from_slice(self.heading.map_or("null", |value| number.format_finite(value)).as_bytes());
        out.extend_from_slice(b",\"speed\":");
        out.extend_from_slice(self.speed.map_or("null", |value| number.format_finite(value)).as_bytes());
        out.extend_from_slice(b",\"timestamp\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.effective_at_ms).as_bytes());
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use crate::location::samples::locations;
    use crate::{DriverId, DriverLocation};

    fn json(location: &DriverLocation) -> String {
        let mut out = Vec::new();
        location.to_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn sample() -> DriverLocation {
        DriverLocation {
            driver_id: DriverId::try_from("driver-17").unwrap(),
            latitude: 40.7128,
            longitude: -74.006,
            heading: Some(90.0),
            speed: Some(31.7),
            timestamp_ms: 1_795_441_689_633,
            received_at_ms: 1_795_441_689_700,
            effective_at_ms: 1_795_441_689_634,
        }
    }

    #[test]
    fn numbers_have_their_shortest_form() {
        let expected =
            r#"{"latitude":40.7128,"longitude":-74.006,"heading":90.0,"speed":31.7,"timestamp":1795441689634}"#;
        assert_eq!(json(&sample()), expected);
    }

    #[test]
    fn unknown_heading_and_speed_are_null() {
        let expected = r#"{"latitude":0.0,"longitude":-0.0,"heading":null,"speed":null,"timestamp":1795441689634}"#;
        let location = DriverLocation { latitude: 0.0, longitude: -0.0, heading: None, speed: None, ..sample() };
        assert_eq!(json(&location), expected);
    }

    proptest! {
        #[test]
        fn json_reads_back_to_the_same_numbers(location in locations()) {
            let value: Value = serde_json::from_str(&json(&location)).unwrap();
            prop_assert_eq!(value["latitude"].as_f64(), Some(location.latitude));
            prop_assert_eq!(value["longitude"].as_f64(), Some(location.longitude));
            prop_assert_eq!(value["heading"].as_f64().map(|n| n as f32), location.heading);
            prop_assert_eq!(value["speed"].as_f64().map(|n| n as f32), location.speed);
            prop_assert_eq!(value["timestamp"].as_i64(), Some(location.effective_at_ms));
            prop_assert_eq!(value.as_object().map(serde_json::Map::len), Some(5));
        }
    }
}
