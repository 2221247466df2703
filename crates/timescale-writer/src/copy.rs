//! Rows in PostgreSQL's binary COPY format (documentation of COPY, "Binary Format"), encoded by hand: no value of a row
//! is copied or boxed on its way into the stream.
//!
//! ```text
//! "PGCOPY\n\xff\r\n\0" │ flags i32 │ extension length i32 │ row … │ −1 i16
//! row: number of fields i16 │ for each: length i32 (−1 = NULL), bytes │ big-endian throughout
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use event::DriverLocation;

/// The statement that reads the stream; the order of the columns is the order of the fields.
pub const STATEMENT: &str =
    "COPY driver_locations (driver_id, lat, lng, heading, speed, ts) FROM STDIN (FORMAT binary)";

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const NO_FLAGS: i32 = 0;
const NO_EXTENSION: i32 = 0;
const TRAILER: i16 = -1;
const FIELDS: i16 = 6;
const NULL: i32 = -1;
/// PostgreSQL counts time from 2000-01-01, the events from 1970-01-01.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;
const MICROS_PER_MS: i64 = 1_000;
/// A row without the driver's id: the number of fields, six lengths, three values of 8 bytes and two of 4.
const ROW_BYTES: usize = 2 + 6 * 4 + 3 * 8 + 2 * 4;
/// A piece of the stream; encoding the next one overlaps with sending it.
const PIECE_BYTES: usize = 64 << 10;
/// Longest id, in bytes, so that a piece never grows while it is filled.
const ID_MAX_BYTES: usize = 128;

/// Encodes a stream piece by piece.
#[derive(Debug)]
pub struct Encoder {
    piece: BytesMut,
}

impl Encoder {
    /// A stream that begins with its header.
    #[must_use]
    pub fn begin() -> Self {
        let mut piece = new_piece();
        piece.put_slice(SIGNATURE);
        piece.put_i32(NO_FLAGS);
        piece.put_i32(NO_EXTENSION);
        Self { piece }
    }

    /// Appends a row; gives back a piece to send when one is full.
    pub fn row(&mut self, event: &DriverLocation) -> Option<Bytes> {
        put_row(&mut self.piece, event);
        (self.piece.len() >= PIECE_BYTES).then(|| std::mem::replace(&mut self.piece, new_piece()).freeze())
    }

    /// The last piece, with the trailer.
    #[must_use]
    pub fn end(mut self) -> Bytes {
        self.piece.put_i16(TRAILER);
        self.piece.freeze()
    }
}

fn new_piece() -> BytesMut {
    BytesMut::with_capacity(PIECE_BYTES + ROW_BYTES + ID_MAX_BYTES)
}

fn put_row(out: &mut BytesMut, event: &DriverLocation) {
    let id = event.driver_id.as_str().as_bytes();
    out.put_i16(FIELDS);
    // A validated id has 128 bytes at the most.
    out.put_i32(i32::try_from(id.len()).unwrap_or(i32::MAX));
    out.put_slice(id);
    put_f64(out, event.latitude);
    put_f64(out, event.longitude);
    put_f32(out, event.heading);
    put_f32(out, event.speed);
    out.put_i32(8);
    out.put_i64((event.effective_at_ms - POSTGRES_EPOCH_MS) * MICROS_PER_MS);
}

fn put_f64(out: &mut BytesMut, value: f64) {
    out.put_i32(8);
    out.put_f64(value);
}

fn put_f32(out: &mut BytesMut, value: Option<f32>) {
    match value {
        Some(value) => {
            out.put_i32(4);
            out.put_f32(value);
        }
        None => out.put_i32(NULL),
    }
}

#[cfg(test)]
mod tests {
    use event::DriverId;

    use super::*;

    fn event(id: &str) -> DriverLocation {
        DriverLocation {
            driver_id: DriverId::try_from(id).unwrap(),
            latitude: 1.0,
            longitude: -2.0,
            heading: None,
            speed: Some(1.5),
            timestamp_ms: 0,
            received_at_ms: POSTGRES_EPOCH_MS,
            effective_at_ms: POSTGRES_EPOCH_MS - 1,
        }
    }

    #[test]
    fn a_stream_has_header_rows_and_trailer() {
        let mut encoder = Encoder::begin();
        assert_eq!(encoder.row(&event("ab")), None);
        let stream = encoder.end();
        let (header, rest) = stream.split_at(19);
        assert_eq!(header, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        let (row, trailer) = rest.split_at(rest.len() - 2);
        assert_eq!(trailer, [0xff, 0xff]);
        let mut expected = vec![0, 6, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 8];
        expected.extend(1.0_f64.to_be_bytes());
        expected.extend([0, 0, 0, 8]);
        expected.extend((-2.0_f64).to_be_bytes());
        expected.extend([0xff; 4]);
        expected.extend([0, 0, 0, 4]);
        expected.extend(1.5_f32.to_be_bytes());
        expected.extend([0, 0, 0, 8]);
        expected.extend((-1_000_i64).to_be_bytes());
        assert_eq!(row, expected);
    }

    #[test]
    fn a_piece_never_grows_while_it_is_filled() {
        let mut encoder = Encoder::begin();
        let id = "x".repeat(ID_MAX_BYTES);
        let capacity = encoder.piece.capacity();
        let piece = loop {
            assert_eq!(encoder.piece.capacity(), capacity);
            if let Some(piece) = encoder.row(&event(&id)) {
                break piece;
            }
        };
        assert!((PIECE_BYTES..=capacity).contains(&piece.len()));
    }
}
