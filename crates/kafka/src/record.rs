//! What a fetch brings: record batches, still encoded, and the records in them.
//!
//! A fetch response is cut into batches by their headers alone; decoding is left to whoever processes the partition,
//! on its own core and at its own time. A batch that cannot be decoded is one item with its bytes, never the end of
//! its partition.
//!
//! Batch header (Kafka protocol guide, "Record Batch", magic 2), big-endian:
//! ```text
//! 0 baseOffset i64 │ 8 batchLength i32 │ 12 leaderEpoch i32 │ 16 magic i8 │ 17 crc u32 │ 21 attributes i16 │
//! 23 lastOffsetDelta i32 │ 27 baseTimestamp i64 │ 35 maxTimestamp i64 │ 43 producerId i64 │ 51 epoch i16 │
//! 53 baseSequence i32 │ 57 recordCount i32 │ 61 records …
//! ```

use std::collections::{HashSet, VecDeque};

use bytes::{Buf, Bytes};
use kafka_protocol::messages::fetch_response::AbortedTransaction;
use kafka_protocol::records::{Record as WireRecord, RecordBatchDecoder};

use crate::types::Offset;

const HEADER_BYTES: usize = 61;
/// `batchLength` counts from the leader epoch on.
const LENGTH_PREFIX: usize = 12;
/// A record takes at least 7 bytes (length, attributes, two deltas, key, value and header lengths), uncompressed.
const MIN_RECORD_BYTES: usize = 7;
const MAGIC: u8 = 2;
const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// What a record's timestamp means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// Set by the producer.
    CreateTime,
    /// Set by the broker on append.
    LogAppendTime,
}

impl TimestampType {
    /// Kafka's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

/// One record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position in the partition.
    pub offset: Offset,
    /// Its timestamp in ms since the epoch.
    pub timestamp_ms: i64,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
    /// Key, if it has one.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in their order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// A batch as fetched: its bytes and what its header says.
#[derive(Debug, Clone)]
pub struct RawBatch {
    bytes: Bytes,
    /// First offset that is wanted from it (a fetch may begin inside a batch).
    start: Offset,
    /// Position after it.
    next: Offset,
    /// Largest timestamp in it, ms.
    max_timestamp_ms: i64,
    contents: Contents,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Contents {
    /// Records for the reader; the count is the header's.
    Records(u32),
    /// Nothing for the reader: a transaction marker, an aborted transaction's records, a compacted hole.
    Nothing,
    /// Bytes that are no batch.
    Undecodable(&'static str),
}

/// Why a batch cannot be decoded: bad checksum, unknown codec, cut short, unknown format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct UndecodableBatch {
    /// One line for people.
    pub detail: String,
}

impl RawBatch {
    /// Cuts a stretch of a log, as a broker would send it for a fetch from `position`, into its batches.
    pub fn from_log(bytes: Bytes, position: Offset) -> Vec<Self> {
        split(bytes, position, Vec::new())
    }

    /// First offset that is wanted from the batch.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// Position after the batch, also where nothing comes out of it.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The largest record timestamp in it, ms since the epoch, as its header says.
    pub fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// Number of records for the reader, as the header says (an undecodable batch counts as one).
    pub fn record_count(&self) -> u32 {
        match self.contents {
            Contents::Records(count) => count,
            Contents::Nothing => 0,
            Contents::Undecodable(_) => 1,
        }
    }

    /// The batch as it came over the wire.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Decodes the records from [`RawBatch::start`] on, in order of their offsets.
    ///
    /// # Errors
    /// [`UndecodableBatch`]: none of its records can be had, now or later.
    pub fn decode(&self) -> Result<Vec<Record>, UndecodableBatch> {
        match self.contents {
            Contents::Nothing => Ok(Vec::new()),
            Contents::Undecodable(detail) => Err(UndecodableBatch { detail: detail.to_owned() }),
            Contents::Records(_) => self.decode_records(),
        }
    }

    fn decode_records(&self) -> Result<Vec<Record>, UndecodableBatch> {
        let mut bytes = self.bytes.clone();
        let decoded = RecordBatchDecoder::decode(&mut bytes)
            .map_err(|error| UndecodableBatch { detail: one_line(&error.to_string()) })?;
        let append_time = Header(&self.bytes).is_log_append_time().then_some(self.max_timestamp_ms);
        let records = decoded.records.into_iter().filter(|record| record.offset >= self.start.0 && !record.control);
        Ok(records.map(|record| into_record(record, append_time)).collect())
    }
}

fn into_record(wire: WireRecord, append_time: Option<i64>) -> Record {
    let timestamp_type = append_time.map_or(TimestampType::CreateTime, |_| TimestampType::LogAppendTime);
    let headers = wire.headers.into_iter().map(|(name, value)| (name.to_string(), value));
    Record {
        offset: Offset(wire.offset),
        timestamp_ms: append_time.unwrap_or(wire.timestamp),
        timestamp_type,
        key: wire.key,
        value: wire.value,
        headers: headers.collect(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cuts the records of one partition of a fetch response into batches.
///
/// `position` is what was asked for. Records of transactions in `aborted` are left out, as `isolation_level` 1 asks
/// of a client. A batch cut short by the response's size limit ends the list: it comes again with the next fetch.
pub(crate) fn split(mut bytes: Bytes, position: Offset, aborted: Vec<AbortedTransaction>) -> Vec<RawBatch> {
    let mut batches = Vec::new();
    let mut transactions = Aborted::new(aborted);
    let mut position = position;
    while let Some(batch) = split_first(&mut bytes, position, &mut transactions) {
        if batch.next > position {
            position = batch.next;
            batches.push(batch);
        }
    }
    batches
}

fn split_first(bytes: &mut Bytes, position: Offset, transactions: &mut Aborted) -> Option<RawBatch> {
    if bytes.len() < HEADER_BYTES {
        return None;
    }
    let header = Header(bytes);
    let Some(length) = header.total_bytes() else {
        // Without a length there is no next batch to go on with: hand out the rest as one item and step over it.
        return Some(garbage(std::mem::take(bytes), position));
    };
    if length > bytes.len() {
        return None;
    }
    let bytes = bytes.split_to(length);
    let header = Header(&bytes);
    let next = header.next().max(header.base().next());
    let contents = contents(&header, transactions);
    let max_timestamp_ms = header.max_timestamp_ms();
    Some(RawBatch { start: header.base().max(position), next, max_timestamp_ms, contents, bytes })
}

fn garbage(bytes: Bytes, position: Offset) -> RawBatch {
    let next = position.max(Header(&bytes).base()).next();
    let contents = Contents::Undecodable("the batch header carries an impossible length");
    RawBatch { bytes, start: position, next, max_timestamp_ms: 0, contents }
}

fn contents(header: &Header<'_>, transactions: &mut Aborted) -> Contents {
    if header.0[16] != MAGIC {
        return Contents::Undecodable("the batch is of a format other than magic 2");
    }
    let aborted = transactions.covers(header);
    let count = header.record_count();
    if aborted || header.attributes() & CONTROL != 0 || count == 0 {
        return Contents::Nothing;
    }
    let uncompressed = header.attributes() & COMPRESSION_MASK == 0;
    match u32::try_from(count) {
        // The decoder reserves room for the count that it is told: a lie must not reach it.
        Ok(count) if uncompressed && count as usize > header.0.len() / MIN_RECORD_BYTES => {
            Contents::Undecodable("the batch is too short for the number of its records")
        }
        Ok(count) if i64::from(count) > header.next().0 - header.base().0 => {
            Contents::Undecodable("the batch has more records than offsets")
        }
        Ok(count) => Contents::Records(count),
        Err(_) => Contents::Undecodable("the batch has a negative number of records"),
    }
}

/// The fields of a batch header; at least [`HEADER_BYTES`] long.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn base(&self) -> Offset {
        Offset((&self.0[0..]).get_i64())
    }

    fn total_bytes(&self) -> Option<usize> {
        let length = usize::try_from((&self.0[8..]).get_i32()).ok()?;
        let total = length.checked_add(LENGTH_PREFIX)?;
        (total >= HEADER_BYTES).then_some(total)
    }

    fn attributes(&self) -> i16 {
        (&self.0[21..]).get_i16()
    }

    fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME != 0
    }

    fn next(&self) -> Offset {
        let delta = i64::from((&self.0[23..]).get_i32().max(0));
        Offset(self.base().0.saturating_add(delta).saturating_add(1))
    }

    fn max_timestamp_ms(&self) -> i64 {
        (&self.0[35..]).get_i64()
    }

    fn producer_id(&self) -> i64 {
        (&self.0[43..]).get_i64()
    }

    fn record_count(&self) -> i32 {
        (&self.0[57..]).get_i32()
    }
}

/// Which producers' transactions are known to end in an abort, along one fetch response.
struct Aborted {
    upcoming: VecDeque<AbortedTransaction>,
    open: HashSet<i64>,
}

impl Aborted {
    fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_by_key(|transaction| transaction.first_offset);
        Self { upcoming: aborted.into(), open: HashSet::new() }
    }

    /// Whether the batch belongs to an aborted transaction; a marker ends its producer's transaction.
    fn covers(&mut self, header: &Header<'_>) -> bool {
        while let Some(transaction) = self.upcoming.pop_front_if(|next| next.first_offset < header.next().0) {
            self.open.insert(*transaction.producer_id);
        }
        if header.attributes() & CONTROL != 0 {
            self.open.remove(&header.producer_id());
            return false;
        }
        header.attributes() & TRANSACTIONAL != 0 && self.open.contains(&header.producer_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::records::{
        Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, RecordBatchEncoder, RecordEncodeOptions,
        TimestampType as WireTimestampType,
    };

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

    fn batch(offsets: std::ops::Range<i64>, producer_id: i64, compression: Compression) -> BytesMut {
        let records: Vec<_> = offsets.map(|offset| wire_record(offset, producer_id)).collect();
        let mut bytes = BytesMut::new();
        RecordBatchEncoder::encode(&mut bytes, &records, &RecordEncodeOptions { version: 2, compression }).unwrap();
        bytes
    }

    fn log(batches: &[BytesMut]) -> Bytes {
        batches.concat().into()
    }

    fn offsets(batch: &RawBatch) -> Vec<i64> {
        batch.decode().unwrap().iter().map(|record| record.offset.0).collect()
    }

    #[test]
    fn reads_every_codec() {
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        for codec in codecs {
            let batches = split(log(&[batch(5..8, -1, codec)]), Offset(5), vec![]);
            assert_eq!(offsets(&batches[0]), [5, 6, 7], "{codec:?}");
            assert_eq!((batches[0].next(), batches[0].record_count()), (Offset(8), 3));
        }
    }

    #[test]
    fn a_fetch_that_begins_inside_a_batch_gets_the_rest_of_it() {
        let batches = split(log(&[batch(0..10, -1, Compression::Lz4)]), Offset(7), vec![]);
        assert_eq!(offsets(&batches[0]), [7, 8, 9]);
    }

    #[test]
    fn a_batch_cut_short_by_the_response_comes_with_the_next_fetch() {
        let whole = log(&[batch(0..3, -1, Compression::None), batch(3..6, -1, Compression::None)]);
        let batches = split(whole.slice(..whole.len() - 1), Offset(0), vec![]);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].next(), Offset(3));
    }

    #[test]
    fn a_damaged_batch_is_one_item_and_the_next_one_is_read() {
        let mut damaged = batch(0..3, -1, Compression::None);
        let last = damaged.len() - 1;
        damaged[last] ^= 0xff;
        let batches = split(log(&[damaged, batch(3..5, -1, Compression::None)]), Offset(0), vec![]);
        assert!(batches[0].decode().is_err());
        assert_eq!(batches[0].next(), Offset(3));
        assert_eq!(offsets(&batches[1]), [3, 4]);
    }

    #[test]
    fn an_impossible_length_does_not_stall_the_partition() {
        let mut bytes = batch(4..6, -1, Compression::None);
        bytes[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
        let batches = split(log(&[bytes]), Offset(4), vec![]);
        assert!(batches[0].decode().is_err());
        assert_eq!(batches[0].next(), Offset(5));
    }

    #[test]
    fn a_lie_about_the_number_of_records_is_undecodable() {
        let mut bytes = batch(0..2, -1, Compression::None);
        bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(split(log(&[bytes]), Offset(0), vec![])[0].decode().is_err());
    }

    #[test]
    fn records_of_aborted_transactions_are_left_out_and_the_position_moves() {
        let marker = {
            let mut bytes = batch(2..3, 7, Compression::None);
            let attributes = (&bytes[21..]).get_i16() | CONTROL;
            bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
            bytes
        };
        let mut transaction = AbortedTransaction::default();
        transaction.producer_id = 7.into();
        transaction.first_offset = 0;
        let log = log(&[batch(0..2, 7, Compression::None), marker, batch(3..4, 7, Compression::None)]);
        let batches = split(log, Offset(0), vec![transaction]);
        let counts: Vec<_> = batches.iter().map(RawBatch::record_count).collect();
        assert_eq!(counts, [0, 0, 1], "aborted, marker, the producer's next transaction");
        assert_eq!(batches[2].next(), Offset(4));
    }
}
