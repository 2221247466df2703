//! As much protobuf as the witness needs to write malformed events and to read which event a record is
//! (<https://protobuf.dev/programming-guides/encoding/>). Of its own, so that a mistake of the event crate cannot hide.

/// Wire types.
pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const LENGTH: u8 = 2;
pub(crate) const FIXED32: u8 = 5;

/// Numbers of fields in the schema.
pub(crate) const DRIVER_ID: u8 = 1;
pub(crate) const LATITUDE: u8 = 2;
pub(crate) const LONGITUDE: u8 = 3;
pub(crate) const HEADING: u8 = 4;
pub(crate) const SPEED: u8 = 5;
pub(crate) const TIMESTAMP: u8 = 6;
const EFFECTIVE_AT: u8 = 8;

/// The byte in front of a field; ours have numbers below 16.
pub(crate) const fn tag(number: u8, wire_type: u8) -> u8 {
    number << 3 | wire_type
}

/// Appends a varint.
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Driver id and effective time of an event; `None` when the bytes do not hold both.
#[must_use]
pub fn identity(mut bytes: &[u8]) -> Option<(&[u8], i64)> {
    let (mut driver_id, mut effective_at) = (None, None);
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        match ((key >> 3) as u8, (key & 7) as u8) {
            (DRIVER_ID, LENGTH) => driver_id = Some(take_bytes(&mut bytes)?),
            (EFFECTIVE_AT, VARINT) => effective_at = Some(take_varint(&mut bytes)?.cast_signed()),
            (_, VARINT) => drop(take_varint(&mut bytes)?),
            (_, LENGTH) => drop(take_bytes(&mut bytes)?),
            (_, FIXED64) => bytes = bytes.get(8..)?,
            (_, FIXED32) => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some((driver_id?, effective_at?))
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_what_the_event_crate_encodes_is_found() {
        let driver_id = event::DriverId::try_from("driver-17").unwrap();
        let event = event::DriverLocation {
            driver_id,
            latitude: 40.0,
            longitude: -74.0,
            heading: Some(1.0),
            speed: None,
            timestamp_ms: 1_795_441_689_999,
            received_at_ms: 1_795_441_689_700,
            effective_at_ms: 1_795_441_689_633,
        };
        assert_eq!(identity(&event.encode()), Some((&b"driver-17"[..], 1_795_441_689_633)));
    }

    #[test]
    fn the_identity_is_found_among_other_fields() {
        let mut bytes = vec![tag(LATITUDE, FIXED64), 0, 0, 0, 0, 0, 0, 0, 0, tag(DRIVER_ID, LENGTH), 2, b'd', b'1'];
        bytes.extend([tag(SPEED, FIXED32), 0, 0, 0, 0, tag(EFFECTIVE_AT, VARINT)]);
        push_varint(&mut bytes, 1_795_441_689_633);
        assert_eq!(identity(&bytes), Some((&b"d1"[..], 1_795_441_689_633)));
        assert_eq!(identity(&bytes[..bytes.len() - 1]), None);
        assert_eq!(identity(&[]), None);
    }
}
