//! Batches as others write them, and as damage leaves them. kafka-protocol's encoder makes the good ones.

mod bombs;
mod damage;

use bytes::{Buf, BytesMut};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, Record as WireRecord, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType as WireTimestampType,
};

use super::*;

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
const LOG_APPEND_TIME: i16 = 1 << 3;
const CONTROL: i16 = 1 << 5;
/// Within a small record, behind its length, attributes and timestamp; a zigzag varint.
const OFFSET_DELTA_AT: usize = 3;

fn wire_record(offset: i64, producer_id: i64) -> WireRecord {
    WireRecord {
        transactional: producer_id >= 0,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: WireTimestampType::Creation,
        offset,
        sequence: i32::try_from(offset).unwrap(),
        timestamp: 1_000 + offset,
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::from(format!("v{offset}"))),
        headers: indexmap::IndexMap::new(),
    }
}

fn encode(records: &[WireRecord], compression: Compression) -> BytesMut {
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, records, &RecordEncodeOptions { version: 2, compression }).unwrap();
    bytes
}

fn batch(offsets: std::ops::Range<i64>, producer_id: i64, compression: Compression) -> BytesMut {
    let records: Vec<_> = offsets.map(|offset| wire_record(offset, producer_id)).collect();
    encode(&records, compression)
}

fn plain(offsets: std::ops::Range<i64>) -> BytesMut {
    batch(offsets, -1, Compression::None)
}

/// Overwrites a part of a batch and makes its checksum right again.
fn patched(mut batch: BytesMut, at: usize, with: &[u8]) -> BytesMut {
    batch[at..at + with.len()].copy_from_slice(with);
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch
}

fn with_attributes(batch: BytesMut, more: i16) -> BytesMut {
    let attributes = (&batch[21..]).get_i16() | more;
    patched(batch, 21, &attributes.to_be_bytes())
}

fn with_last_offset_delta(batch: BytesMut, delta: i32) -> BytesMut {
    patched(batch, 23, &delta.to_be_bytes())
}

fn log(batches: &[BytesMut]) -> Bytes {
    batches.concat().into()
}

fn read(batches: &[BytesMut], position: i64) -> Vec<RawBatch> {
    RawBatch::from_log(log(batches), Offset(position))
}

/// As read of a partition that ends at `end`.
fn read_until(bytes: Bytes, position: i64, end: i64) -> Vec<RawBatch> {
    let (position, end, max_decoded_bytes) = (Offset(position), Offset(end), MAX_DECODED_BYTES);
    LogSlice { bytes, position, end, aborted: vec![], max_decoded_bytes }.into_batches()
}

fn read_without(batches: &[BytesMut], aborted: &[(i64, i64)]) -> Vec<RawBatch> {
    let aborted = aborted.iter().map(|(producer_id, first_offset)| {
        let mut transaction = AbortedTransaction::default();
        transaction.producer_id = (*producer_id).into();
        transaction.first_offset = *first_offset;
        transaction
    });
    let (position, end, max_decoded_bytes) = (Offset(0), Offset(i64::MAX), MAX_DECODED_BYTES);
    LogSlice { bytes: log(batches), position, end, aborted: aborted.collect(), max_decoded_bytes }.into_batches()
}

fn offsets(batch: &RawBatch) -> Vec<i64> {
    batch.decode().unwrap().iter().map(|record| record.offset.0).collect()
}

fn all_offsets(batches: &[RawBatch]) -> Vec<i64> {
    batches.iter().flat_map(offsets).collect()
}

#[test]
fn reads_every_codec() {
    for codec in CODECS {
        let batches = read(&[batch(5..8, -1, codec)], 5);
        assert_eq!(offsets(&batches[0]), [5, 6, 7], "{codec:?}");
        assert_eq!((batches[0].next(), batches[0].record_count()), (Offset(8), 3));
        assert_eq!(batches[0].max_timestamp_ms(), Some(1_007));
    }
}

#[test]
fn every_part_of_a_record_is_read() {
    let mut first = wire_record(3, -1);
    first.headers.insert("one".into(), Some(Bytes::from_static(b"1")));
    first.headers.insert("none".into(), None);
    let mut second = wire_record(4, -1);
    (second.key, second.value) = (None, None);
    for codec in CODECS {
        let records = read(&[encode(&[first.clone(), second.clone()], codec)], 3)[0].decode().unwrap();
        let headers = vec![("one".to_owned(), Some(Bytes::from_static(b"1"))), ("none".to_owned(), None)];
        let expected = [
            Record {
                offset: Offset(3),
                timestamp_ms: 1_003,
                timestamp_type: TimestampType::CreateTime,
                key: Some(Bytes::from_static(b"k")),
                value: Some(Bytes::from_static(b"v3")),
                headers,
            },
            Record {
                offset: Offset(4),
                timestamp_ms: 1_004,
                timestamp_type: TimestampType::CreateTime,
                key: None,
                value: None,
                headers: vec![],
            },
        ];
        assert_eq!(records, expected, "{codec:?}");
    }
}

#[test]
fn a_fetch_that_begins_inside_a_batch_gets_the_rest_of_it() {
    let batches = read(&[batch(0..10, -1, Compression::Lz4)], 7);
    assert_eq!(offsets(&batches[0]), [7, 8, 9]);
    assert_eq!(batches[0].start(), Offset(7));
}

#[test]
fn the_broker_s_time_counts_for_every_record_where_the_topic_says_so() {
    for codec in CODECS {
        let stamped = with_attributes(patched(batch(0..3, -1, codec), 35, &77_000_i64.to_be_bytes()), LOG_APPEND_TIME);
        let records = read(&[stamped], 0)[0].decode().unwrap();
        let stamps: Vec<_> = records.iter().map(|record| (record.timestamp_type, record.timestamp_ms)).collect();
        assert_eq!(stamps, [(TimestampType::LogAppendTime, 77_000); 3], "{codec:?}");
    }
}

#[test]
fn the_position_moves_over_what_compaction_has_taken() {
    // Of the offsets 0 to 6 of a batch, 1 and 4 are left; then a whole batch, then one of which the header alone is left.
    let second = 61 + 1 + usize::from(plain(0..2)[61] >> 1);
    let holed = patched(patched(plain(0..2), 61 + OFFSET_DELTA_AT, &[1 << 1]), second + OFFSET_DELTA_AT, &[4 << 1]);
    let holed = with_last_offset_delta(holed, 6);
    let empty = patched(with_last_offset_delta(plain(20..21), 4), 57, &0_i32.to_be_bytes());
    let batches = read(&[holed, plain(10..12), empty, plain(30..31)], 0);
    let next: Vec<_> = batches.iter().map(|batch| batch.next().0).collect();
    assert_eq!(next, [7, 12, 25, 31]);
    let counts: Vec<_> = batches.iter().map(RawBatch::record_count).collect();
    assert_eq!(counts, [2, 2, 0, 1]);
    assert_eq!(all_offsets(&batches), [1, 4, 10, 11, 30]);
}

#[test]
fn records_of_aborted_transactions_are_left_out_and_the_position_moves() {
    let marker = with_attributes(batch(2..3, 7, Compression::None), CONTROL);
    let next_transaction = batch(3..4, 7, Compression::None);
    let batches = read_without(&[batch(0..2, 7, Compression::None), marker, next_transaction], &[(7, 0)]);
    let counts: Vec<_> = batches.iter().map(RawBatch::record_count).collect();
    assert_eq!(counts, [0, 0, 1], "aborted, marker, the producer's next transaction");
    assert_eq!(batches[2].next(), Offset(4));
    assert_eq!(all_offsets(&batches), [3]);
}

#[test]
fn an_aborted_transaction_takes_nothing_of_others_with_it() {
    let marker =
        |offset: i64, producer_id| with_attributes(batch(offset..offset + 1, producer_id, Compression::None), CONTROL);
    let none = Compression::None;
    let written = [
        batch(0..2, 7, none),
        batch(2..4, 8, none),
        plain(4..6),
        marker(6, 8),
        batch(7..8, 7, none),
        marker(8, 7),
        batch(9..10, 8, none),
        marker(10, 8),
    ];
    // 7 aborts all of its first; 8 commits its first and aborts its second.
    let batches = read_without(&written, &[(8, 9), (7, 0)]);
    assert_eq!(all_offsets(&batches), [2, 3, 4, 5]);
    assert_eq!(batches.last().unwrap().next(), Offset(11));
}

#[test]
fn a_marker_alone_is_stepped_over() {
    let marker = with_attributes(batch(5..6, 7, Compression::None), CONTROL);
    let batches = read(&[marker], 5);
    assert_eq!((batches.len(), batches[0].record_count(), batches[0].next()), (1, 0, Offset(6)));
    assert_eq!(batches[0].decode().unwrap(), []);
}
