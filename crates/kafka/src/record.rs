//! What a fetch brings: record batches, still encoded, and the records in them.
//!
//! A fetch response is cut into batches by their headers alone; decoding is left to whoever processes the partition,
//! on its own core and at its own time. A batch that cannot be decoded is one item with its bytes, never the end of
//! its partition.
//!
//! ```text
//! LogSlice ── into_batches: header, checksum, aborted transactions ──▶ RawBatch ── decode: inflate ─▶ decode ──▶ Records
//! ```

mod aborted;
mod decode;
mod header;
mod inflate;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::AbortedTransaction;

use self::aborted::Aborted;
use self::header::{HEADER_BYTES, Header};
use crate::types::Offset;

/// What one batch may take in memory once it is decoded, unless [`crate::FetchConfig`] says otherwise: far more than any
/// batch of a topic with Kafka's usual `max.message.bytes` (1 MiB), far less than what a batch made for it can swell to.
pub const MAX_DECODED_BYTES: usize = 64 << 20;

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
    /// Largest timestamp in it, ms, where its header can be believed.
    max_timestamp_ms: Option<i64>,
    /// What it may take in memory once it is decoded.
    max_decoded_bytes: usize,
    contents: Contents,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Contents {
    /// Records for the reader; the count is the header's.
    Records(u32),
    /// Nothing for the reader: a transaction marker, an aborted transaction's records, a compacted hole.
    Nothing,
    /// Bytes that are no batch.
    Undecodable(String),
}

/// Why a batch cannot be decoded: bad checksum, unknown codec, cut short, unknown format, too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct UndecodableBatch {
    /// One line for people.
    pub detail: String,
}

impl UndecodableBatch {
    /// `detail` may have come from a library, in any shape.
    fn new(detail: impl AsRef<str>) -> Self {
        Self { detail: detail.as_ref().split_whitespace().collect::<Vec<_>>().join(" ") }
    }
}

impl RawBatch {
    /// Cuts a stretch of a log, as a broker would send it for a fetch from `position`, into its batches.
    pub fn from_log(bytes: Bytes, position: Offset) -> Vec<Self> {
        let (end, aborted) = (Offset(i64::MAX), Vec::new());
        LogSlice { bytes, position, end, aborted, max_decoded_bytes: MAX_DECODED_BYTES }.into_batches()
    }

    /// First offset that is wanted from the batch.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// Position after the batch, also where nothing comes out of it.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The largest record timestamp in it, ms since the epoch, as its header says; `None` when that is damaged.
    pub fn max_timestamp_ms(&self) -> Option<i64> {
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
        match &self.contents {
            Contents::Nothing => Ok(Vec::new()),
            Contents::Undecodable(detail) => Err(UndecodableBatch::new(detail)),
            Contents::Records(_) => self.decode_records(),
        }
    }

    fn decode_records(&self) -> Result<Vec<Record>, UndecodableBatch> {
        let header = Header(&self.bytes);
        let limit = self.max_decoded_bytes;
        let plain = inflate::inflate(header.compression(), &self.bytes.slice(HEADER_BYTES..), limit)?;
        let mut records = decode::records(&header, plain, limit)?;
        records.retain(|record| record.offset >= self.start);
        Ok(records)
    }
}

/// A stretch of a partition's log as a broker sends it: whole batches, and perhaps a part of one more.
pub(crate) struct LogSlice {
    pub(crate) bytes: Bytes,
    /// What was asked for: the first batch may begin before it.
    pub(crate) position: Offset,
    /// Nothing that a reader may see reaches beyond it.
    pub(crate) end: Offset,
    /// Transactions whose records are to be left out, as `isolation_level` 1 asks of a client.
    pub(crate) aborted: Vec<AbortedTransaction>,
    /// What each batch may take in memory once it is decoded.
    pub(crate) max_decoded_bytes: usize,
}

impl LogSlice {
    /// The batches that are whole. One cut short by the response's size limit comes again with the next fetch; but the
    /// first one a broker always sends whole (KIP-74), so that one is cut short in the log itself.
    pub(crate) fn into_batches(mut self) -> Vec<RawBatch> {
        let mut batches = Vec::new();
        let mut aborted = Aborted::new(std::mem::take(&mut self.aborted));
        let all_bytes = self.bytes.len();
        while let Some(batch) = self.next_batch(&mut aborted) {
            if batch.next > self.position {
                self.position = batch.next;
                batches.push(batch);
            }
        }
        if self.bytes.len() == all_bytes && all_bytes > 0 {
            batches.push(self.rest_as_cut_short());
        }
        batches
    }

    fn next_batch(&mut self, aborted: &mut Aborted) -> Option<RawBatch> {
        if self.bytes.len() < HEADER_BYTES {
            return None;
        }
        let Some(length) = Header(&self.bytes).total_bytes() else {
            // Without a length there is no next batch to go on with: hand out the rest as one item and step over it.
            let bytes = std::mem::take(&mut self.bytes);
            return Some(self.undecodable(
                bytes,
                self.position.next(),
                "the batch has an impossible length".to_owned(),
            ));
        };
        if length > self.bytes.len() {
            return None;
        }
        let bytes = self.bytes.split_to(length);
        let header = Header(&bytes);
        let (told, found) = header.checksums();
        if !header.is_of_known_format() {
            // Where the checksum holds, the fields are where we look for them; the formats of old have one offset.
            let next = if told == found { header.next() } else { header.base().next() };
            let detail = format!("the batch is of magic {}, not 2", header.magic());
            return Some(self.undecodable(bytes, next, detail));
        }
        if told != found {
            let (next, detail) = (header.next(), format!("bad checksum: {found:08x} instead of {told:08x}"));
            return Some(self.undecodable(bytes, next, detail));
        }
        Some(RawBatch {
            start: header.base().max(self.position),
            next: header.next(),
            max_timestamp_ms: Some(header.max_timestamp_ms()),
            max_decoded_bytes: self.max_decoded_bytes,
            contents: contents(&header, aborted),
            bytes,
        })
    }

    fn rest_as_cut_short(&mut self) -> RawBatch {
        let bytes = std::mem::take(&mut self.bytes);
        let next = if bytes.len() < HEADER_BYTES { self.position.next() } else { Header(&bytes).next() };
        let detail = format!("the batch is cut short: {} bytes are there", bytes.len());
        self.undecodable(bytes, next, detail)
    }

    /// What a damaged header says about the batch's end is believed only as far as the next batch, or the log's end.
    fn undecodable(&self, bytes: Bytes, next: Offset, detail: String) -> RawBatch {
        let following = (self.bytes.len() >= HEADER_BYTES).then(|| Header(&self.bytes).base());
        let bound = following.unwrap_or(self.end).min(self.end);
        RawBatch {
            start: self.position,
            next: next.min(bound).max(self.position.next()),
            max_timestamp_ms: None,
            max_decoded_bytes: self.max_decoded_bytes,
            contents: Contents::Undecodable(detail),
            bytes,
        }
    }
}

fn contents(header: &Header<'_>, aborted: &mut Aborted) -> Contents {
    let is_aborted = aborted.covers(header);
    let count = header.record_count();
    if is_aborted || header.is_control() || count == 0 {
        return Contents::Nothing;
    }
    match u32::try_from(count) {
        Ok(count) if i64::from(count) > header.next().0 - header.base().0 => {
            Contents::Undecodable("the batch has more records than offsets".to_owned())
        }
        Ok(count) => Contents::Records(count),
        Err(_) => Contents::Undecodable("the batch has a negative number of records".to_owned()),
    }
}
