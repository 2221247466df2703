//! A record on its way into Kafka, and its encoding inside a batch.
//!
//! ```text
//! length │ attributes i8 │ timestamp delta │ offset delta │ key length, key │ value length, value │
//! header count │ (name length, name, value length, value)*            lengths, deltas and counts: zigzag varints
//! ```
//! (Kafka protocol guide, "Record", magic 2.)

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::PartitionId;

/// Upper bound of what surrounds a record's key, value and headers: framing, and the place of whoever waits for it.
const RECORD_OVERHEAD: usize = 64;
/// Upper bound of the two lengths of a header.
const HEADER_OVERHEAD: usize = 10;
/// A varint carries 7 bits a byte.
const VARINT_BITS: u32 = 7;
const VARINT_MAX_BYTES: usize = 10;
/// Length of a key or value that is null.
const NULL: i64 = -1;

/// A header: its name and its value. Names may repeat, and their order is kept.
pub type Header = (Bytes, Option<Bytes>);

/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    /// The topic that takes it.
    pub topic: Arc<str>,
    /// The partition that takes it; `None` lets the key decide, as Java's clients do.
    pub partition: Option<PartitionId>,
    /// Key; records of one key keep their order. Without key and partition the record goes wherever a batch fills.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in their order.
    pub headers: Vec<Header>,
    /// The record's timestamp in ms since the epoch.
    pub timestamp_ms: i64,
}

impl OutRecord {
    /// Share of the producer's buffer that the record takes until its outcome is known; not less than its encoding.
    pub(crate) fn charge(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + len(value.as_ref()) + HEADER_OVERHEAD);
        RECORD_OVERHEAD + len(self.key.as_ref()) + len(self.value.as_ref()) + headers.sum::<usize>()
    }

    /// Appends the record's encoding, as number `offset_delta` of a batch whose first timestamp is `base_timestamp`.
    pub(crate) fn encode(&self, out: &mut BytesMut, offset_delta: i64, base_timestamp: i64) {
        let timestamp_delta = self.timestamp_ms.saturating_sub(base_timestamp);
        let size = self.body_size(timestamp_delta, offset_delta);
        out.reserve(size + VARINT_MAX_BYTES);
        put_varint(out, wide(size));
        out.put_i8(0);
        put_varint(out, timestamp_delta);
        put_varint(out, offset_delta);
        put_field(out, self.key.as_ref());
        put_field(out, self.value.as_ref());
        put_varint(out, wide(self.headers.len()));
        for (name, value) in &self.headers {
            put_field(out, Some(name));
            put_field(out, value.as_ref());
        }
    }

    fn body_size(&self, timestamp_delta: i64, offset_delta: i64) -> usize {
        let headers = self.headers.iter().map(|(name, value)| field_size(Some(name)) + field_size(value.as_ref()));
        1 + varint_size(timestamp_delta)
            + varint_size(offset_delta)
            + field_size(self.key.as_ref())
            + field_size(self.value.as_ref())
            + varint_size(wide(self.headers.len()))
            + headers.sum::<usize>()
    }
}

/// The body of an encoded record, cut at the offset delta, which is all that changes when it moves to another batch.
pub(crate) struct Encoded<'a> {
    pub(crate) timestamp_delta: i64,
    rest: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// Takes the next record off `input`; `None` at its end.
    pub(crate) fn take(input: &mut &'a [u8]) -> Option<Self> {
        let size = usize::try_from(take_varint(input)?).ok()?;
        let (body, behind) = input.split_at_checked(size)?;
        *input = behind;
        let mut rest = body.get(1..)?;
        let timestamp_delta = take_varint(&mut rest)?;
        take_varint(&mut rest)?;
        Some(Self { timestamp_delta, rest })
    }

    /// Appends the record as number `offset_delta` of a batch with the same first timestamp.
    pub(crate) fn put(&self, out: &mut BytesMut, offset_delta: i64) {
        let size = 1 + varint_size(self.timestamp_delta) + varint_size(offset_delta) + self.rest.len();
        put_varint(out, wide(size));
        out.put_i8(0);
        put_varint(out, self.timestamp_delta);
        put_varint(out, offset_delta);
        out.put_slice(self.rest);
    }
}

fn len(field: Option<&Bytes>) -> usize {
    field.map_or(0, Bytes::len)
}

fn wide(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn field_size(field: Option<&Bytes>) -> usize {
    field.map_or(varint_size(NULL), |bytes| varint_size(wide(bytes.len())) + bytes.len())
}

fn put_field(out: &mut BytesMut, field: Option<&Bytes>) {
    match field {
        None => put_varint(out, NULL),
        Some(bytes) => {
            put_varint(out, wide(bytes.len()));
            out.put_slice(bytes);
        }
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint_size(value: i64) -> usize {
    let bits = u64::BITS - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(VARINT_BITS) as usize
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut left = zigzag(value);
    let mut bytes = [0; VARINT_MAX_BYTES];
    let mut used = 0;
    while left >= 0x80 {
        bytes[used] = (left & 0x7f) as u8 | 0x80;
        left >>= VARINT_BITS;
        used += 1;
    }
    bytes[used] = left as u8;
    out.put_slice(&bytes[..=used]);
}

fn take_varint(input: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(VARINT_BITS as usize) {
        let (byte, behind) = input.split_first()?;
        *input = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_come_back_and_take_their_computed_size(value: i64) {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_size(value));
            prop_assert_eq!(take_varint(&mut &out[..]), Some(value));
        }

        #[test]
        fn the_charge_covers_the_encoding(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            headers in proptest::collection::vec("[a-z]{0,200}", 0..20),
            timestamp_ms: i64,
        ) {
            let headers = headers.into_iter().map(|name| (Bytes::from(name.clone()), Some(Bytes::from(name)))).collect();
            let key = key.map(Bytes::from);
            let record =
                OutRecord { topic: "t".into(), partition: None, value: key.clone(), key, headers, timestamp_ms };
            let mut out = BytesMut::new();
            record.encode(&mut out, 1_000_000, 0);
            prop_assert!(out.len() <= record.charge());
        }
    }
}
