//! Requests as bytes: the head is prepared once, and a body is fixed pieces with digits between them.

use crate::fleet::Position;
use crate::roster::Roster;

/// Path that takes one position.
pub const SINGLE_PATH: &str = "/api/drivers/location";
/// Path that takes a JSON array of positions.
pub const BATCH_PATH: &str = "/api/drivers/locations";
/// Most positions that the service takes in one POST.
pub const MAX_POSITIONS: u32 = 1_000;

/// Writes POSTs for one target; its buffers are used again for every request.
#[derive(Debug)]
pub struct RequestWriter {
    head: Vec<u8>,
    body: Vec<u8>,
    request: Vec<u8>,
}

/// Whether a body is one position or an array of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One position, to [`SINGLE_PATH`].
    Single,
    /// An array, to [`BATCH_PATH`].
    Batch,
}

impl RequestWriter {
    /// A writer for `host` (`name:port`).
    #[must_use]
    pub fn new(host: &str, shape: Shape) -> Self {
        let path = match shape {
            Shape::Single => SINGLE_PATH,
            Shape::Batch => BATCH_PATH,
        };
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: ");
        Self { head: head.into_bytes(), body: Vec::new(), request: Vec::new() }
    }

    /// Begins a body.
    pub fn begin(&mut self, shape: Shape) {
        self.body.clear();
        if shape == Shape::Batch {
            self.body.push(b'[');
        }
    }

    /// Adds a position of driver `slot` at `timestamp_ms`.
    pub fn position(&mut self, roster: &Roster, slot: u32, position: &Position, timestamp_ms: i64) {
        let body = &mut self.body;
        if body.len() > 1 {
            body.push(b',');
        }
        body.extend_from_slice(b"{\"driverId\":\"");
        roster.write_id(slot, body);
        body.extend_from_slice(b"\",\"latitude\":");
        push_decimal(body, position.latitude_e6, 6);
        body.extend_from_slice(b",\"longitude\":");
        push_decimal(body, position.longitude_e6, 6);
        body.extend_from_slice(b",\"heading\":");
        push_digits(body, position.heading_deg);
        body.extend_from_slice(b",\"speed\":");
        push_decimal(body, i32::from(position.speed_dm_s), 1);
        body.extend_from_slice(b",\"timestamp\":");
        push_digits(body, timestamp_ms);
        body.push(b'}');
    }

    /// Ends the body and gives the whole request.
    pub fn finish(&mut self, shape: Shape) -> &[u8] {
        if shape == Shape::Batch {
            self.body.push(b']');
        }
        self.request.clear();
        self.request.extend_from_slice(&self.head);
        push_digits(&mut self.request, self.body.len());
        self.request.extend_from_slice(b"\r\n\r\n");
        self.request.extend_from_slice(&self.body);
        &self.request
    }
}

fn push_digits(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes `scaled` / 10^`places` with exactly that many places.
fn push_decimal(out: &mut Vec<u8>, scaled: i32, places: u32) {
    let unit = 10u32.pow(places);
    if scaled < 0 {
        out.push(b'-');
    }
    let magnitude = scaled.unsigned_abs();
    push_digits(out, magnitude / unit);
    out.push(b'.');
    // The sum has one digit more than `places`; that leading 1 keeps the zeros behind it, and is left out.
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(&digits.format(unit + magnitude % unit).as_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const POSITION: Position =
        Position { latitude_e6: 40_700_008, longitude_e6: -74_006_000, heading_deg: 90, speed_dm_s: 315 };

    fn body(request: &[u8]) -> Value {
        let text = std::str::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn a_single_request_is_the_specified_json() {
        let mut writer = RequestWriter::new("127.0.0.1:8080", Shape::Single);
        writer.begin(Shape::Single);
        writer.position(&Roster::Crowd, 16, &POSITION, 1_795_441_689_633);
        let request = writer.finish(Shape::Single);
        assert!(request.starts_with(b"POST /api/drivers/location HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n"));
        let expected = json!({"driverId": "driver-17", "latitude": 40.700008, "longitude": -74.006, "heading": 90,
                              "speed": 31.5, "timestamp": 1_795_441_689_633i64});
        assert_eq!(body(request), expected);
    }

    #[test]
    fn a_batch_is_an_array_in_order() {
        let mut writer = RequestWriter::new("h", Shape::Batch);
        for _ in 0..2 {
            writer.begin(Shape::Batch);
            for slot in 0..3 {
                writer.position(&Roster::Crowd, slot, &POSITION, 5);
            }
            let ids: Vec<String> = (1..=3).map(|number| format!("driver-{number}")).collect();
            let array = body(writer.finish(Shape::Batch));
            let found: Vec<&str> =
                array.as_array().unwrap().iter().map(|item| item["driverId"].as_str().unwrap()).collect();
            assert_eq!(found, ids);
        }
    }

    #[test]
    fn decimals_keep_their_zeros_and_sign() {
        for (scaled, places, text) in
            [(5, 6, "0.000005"), (-74_006_000, 6, "-74.006000"), (-3, 1, "-0.3"), (300, 1, "30.0")]
        {
            let mut out = Vec::new();
            push_decimal(&mut out, scaled, places);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
