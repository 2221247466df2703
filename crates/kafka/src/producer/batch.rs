//! A record batch while it fills and while it travels: records are encoded as they arrive, the header when it leaves.
//!
//! ```text
//! 0 baseOffset i64 │ 8 batchLength i32 │ 12 leaderEpoch i32 │ 16 magic i8 │ 17 crc u32 │ 21 attributes i16 │
//! 23 lastOffsetDelta i32 │ 27 baseTimestamp i64 │ 35 maxTimestamp i64 │ 43 producerId i64 │ 51 epoch i16 │
//! 53 baseSequence i32 │ 57 recordCount i32 │ 61 records …            (Kafka protocol guide, "Record Batch", magic 2)
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::lz4;
use super::record::{Encoded, OutRecord};
use super::sequence::Stamp;

const HEADER_BYTES: usize = 61;
/// `batchLength` counts from the leader epoch on.
const LENGTH_PREFIX: usize = 12;
/// The checksum covers everything from the attributes on.
const CHECKED_FROM: usize = 21;
const MAGIC: i8 = 2;
/// The leader fills in its own.
const NO_LEADER_EPOCH: i32 = -1;
/// Room for the first records of a partition that has no history to go by.
const FIRST_CAPACITY: usize = 1024;

/// How the records of a batch are packed on the wire and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// LZ4, in the fast mode.
    Lz4,
}

impl Compression {
    /// The codec's number in a batch's attributes.
    fn attributes(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Lz4 => 3,
        }
    }
}

/// Encoded records behind an empty header.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    bytes: BytesMut,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Records {
    /// An empty batch with room for about `expected` bytes of records.
    pub(crate) fn with_capacity(expected: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + expected.max(FIRST_CAPACITY));
        bytes.put_bytes(0, HEADER_BYTES);
        Self { bytes, count: 0, base_timestamp: 0, max_timestamp: i64::MIN }
    }

    /// Appends a record; answers with its number in the batch.
    pub(crate) fn push(&mut self, record: &OutRecord) -> u32 {
        if self.count == 0 {
            self.base_timestamp = record.timestamp_ms;
        }
        record.encode(&mut self.bytes, i64::from(self.count), self.base_timestamp);
        self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
        self.count += 1;
        self.count - 1
    }

    /// Number of records.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Size of the whole batch, uncompressed.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The batch as it goes over the wire.
    pub(crate) fn wire(&self, stamp: Stamp, compression: Compression) -> Bytes {
        let mut wire = BytesMut::with_capacity(self.bytes.len());
        match compression {
            Compression::None => wire.put_slice(&self.bytes),
            Compression::Lz4 => {
                wire.put_bytes(0, HEADER_BYTES);
                lz4::compress(&self.bytes[HEADER_BYTES..], &mut wire);
            }
        }
        self.fill_header(&mut wire, stamp, compression);
        wire.freeze()
    }

    fn fill_header(&self, wire: &mut BytesMut, stamp: Stamp, compression: Compression) {
        // A batch is bounded far below 2 GiB (`MAX_RECORD_BYTES`), and its records by its bytes.
        let length = i32::try_from(wire.len() - LENGTH_PREFIX).unwrap_or(i32::MAX);
        let count = i32::try_from(self.count).unwrap_or(i32::MAX);
        let (mut head, _) = wire.split_at_mut(HEADER_BYTES);
        head.put_i64(0);
        head.put_i32(length);
        head.put_i32(NO_LEADER_EPOCH);
        head.put_i8(MAGIC);
        head.put_u32(0);
        head.put_i16(compression.attributes());
        head.put_i32(count - 1);
        head.put_i64(self.base_timestamp);
        head.put_i64(self.max_timestamp);
        head.put_i64(stamp.producer_id);
        head.put_i16(stamp.epoch);
        head.put_i32(stamp.base_sequence);
        head.put_i32(count);
        let checksum = crc32c::crc32c(&wire[CHECKED_FROM..]);
        wire[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
    }

    /// The same records in two batches; the first has half of them, rounded down.
    pub(crate) fn halves(&self) -> [Self; 2] {
        let mut left = self.empty_like();
        let mut right = self.empty_like();
        let mut encoded = &self.bytes[HEADER_BYTES..];
        while let Some(record) = Encoded::take(&mut encoded) {
            let half = if left.count < self.count / 2 { &mut left } else { &mut right };
            record.put(&mut half.bytes, i64::from(half.count));
            half.max_timestamp = half.max_timestamp.max(self.base_timestamp.saturating_add(record.timestamp_delta));
            half.count += 1;
        }
        [left, right]
    }

    /// Deltas count from the base timestamp, so both halves keep it.
    fn empty_like(&self) -> Self {
        Self { base_timestamp: self.base_timestamp, ..Self::with_capacity(self.bytes.len() / 2) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use indexmap::IndexMap;
    use kafka_protocol::protocol::StrBytes;
    use kafka_protocol::records::{
        Compression as WireCompression, NO_PARTITION_LEADER_EPOCH, Record, RecordBatchDecoder, RecordBatchEncoder,
        RecordEncodeOptions, TimestampType,
    };
    use proptest::prelude::*;

    use super::*;

    const STAMP: Stamp = Stamp { producer_id: 4_711, epoch: 3, base_sequence: 1_000 };

    fn record(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        timestamp_ms: i64,
    ) -> OutRecord {
        let bytes = Bytes::copy_from_slice;
        OutRecord {
            topic: Arc::from("t"),
            partition: None,
            key: key.map(bytes),
            value: value.map(bytes),
            headers: headers.iter().map(|(name, value)| (bytes(name.as_bytes()), value.map(bytes))).collect(),
            timestamp_ms,
        }
    }

    fn filled(records: &[OutRecord]) -> Records {
        let mut batch = Records::with_capacity(0);
        for (number, record) in (0..).zip(records) {
            assert_eq!(batch.push(record), number);
        }
        batch
    }

    fn reference(number: i32, record: &OutRecord) -> Record {
        let headers: IndexMap<_, _> = record
            .headers
            .iter()
            .map(|(name, value)| (StrBytes::try_from(name.clone()).unwrap(), value.clone()))
            .collect();
        Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: STAMP.producer_id,
            producer_epoch: STAMP.epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(number),
            sequence: STAMP.base_sequence + number,
            timestamp: record.timestamp_ms,
            key: record.key.clone(),
            value: record.value.clone(),
            headers,
        }
    }

    fn references(records: &[OutRecord]) -> Vec<Record> {
        (0..).zip(records).map(|(number, record)| reference(number, record)).collect()
    }

    fn decoded(mut wire: Bytes) -> Vec<Record> {
        RecordBatchDecoder::decode(&mut wire).unwrap().records
    }

    fn some_records() -> Vec<OutRecord> {
        vec![
            record(Some(b"driver-1"), Some(b"position"), &[], 1_795_441_689_633),
            record(None, Some(b""), &[("one", Some(b"1")), ("none", None)], 1_795_441_689_640),
            record(Some(b""), None, &[("", Some(b""))], 1_795_441_700_000),
            record(Some(&[0xff; 300]), Some(&[7; 70_000]), &[("long", Some(&[1; 20_000]))], 1_795_441_700_001),
        ]
    }

    #[test]
    fn bytes_are_those_of_an_independent_encoder() {
        let records = some_records();
        let mut expected = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: WireCompression::None };
        RecordBatchEncoder::encode(&mut expected, &references(&records), &options).unwrap();
        assert_eq!(filled(&records).wire(STAMP, Compression::None), expected.freeze());
    }

    #[test]
    fn an_independent_decoder_reads_both_packings() {
        let records = some_records();
        for compression in [Compression::None, Compression::Lz4] {
            assert_eq!(decoded(filled(&records).wire(STAMP, compression)), references(&records), "{compression:?}");
        }
    }

    #[test]
    fn lz4_makes_repetition_smaller() {
        let records: Vec<_> = (0..200).map(|n| record(Some(b"driver"), Some(b"same old place"), &[], n)).collect();
        let batch = filled(&records);
        assert!(batch.wire(STAMP, Compression::Lz4).len() * 2 < batch.wire(STAMP, Compression::None).len());
    }

    #[test]
    fn repeated_header_names_survive() {
        let repeated = record(None, None, &[("a", Some(b"1")), ("a", Some(b"2"))], 0);
        let wire = filled(&[repeated]).wire(STAMP, Compression::None);
        // The reference decoder keeps one of a name, so the bytes themselves are looked at.
        assert!(wire.ends_with(&[4, 2, b'a', 2, b'1', 2, b'a', 2, b'2']));
    }

    proptest! {
        #[test]
        fn halves_hold_the_same_records_in_the_same_order(
            timestamps in proptest::collection::vec(0..1_i64 << 40, 2..200),
            width in 0..200_usize,
        ) {
            let value = vec![b'x'; width];
            let records: Vec<_> = timestamps
                .iter()
                .map(|ts| record(Some(&ts.to_be_bytes()), Some(&value), &[("h", Some(b"v"))], *ts))
                .collect();
            let halves = filled(&records).halves();
            let [left, right] = halves.each_ref().map(|half| decoded(half.wire(STAMP, Compression::None)));
            prop_assert_eq!(left.len(), records.len() / 2);
            let read: Vec<_> = left.iter().chain(&right).map(|r| (r.timestamp, r.key.clone(), r.value.clone())).collect();
            let sent: Vec<_> = records.iter().map(|r| (r.timestamp_ms, r.key.clone(), r.value.clone())).collect();
            prop_assert_eq!(read, sent);
            for (half, records) in halves.iter().zip([&left, &right]) {
                prop_assert_eq!(half.max_timestamp, records.iter().map(|r| r.timestamp).max().unwrap());
                prop_assert_eq!(half.count() as usize, records.len());
            }
        }
    }
}
