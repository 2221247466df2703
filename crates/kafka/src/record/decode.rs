//! The records inside a batch (Kafka protocol guide, "Record"), each behind its length:
//! ```text
//! length varint │ attributes i8 │ timestampDelta varlong │ offsetDelta varint │ keyLength varint, key │
//! valueLength varint, value │ headerCount varint, (nameLength varint, name, valueLength varint, value) …
//! ```
//! Numbers are zigzag varints; the length −1 stands for null. What is decoded takes more memory than its bytes (an empty
//! record is 7 bytes long), and every number may be a lie: memory is spent from a [`Budget`] before it is taken.

use bytes::Bytes;

use super::header::Header;
use super::inflate::too_large;
use super::{Record, TimestampType, UndecodableBatch};
use crate::types::Offset;

type Decoded<T> = Result<T, UndecodableBatch>;

/// Decodes all records of a batch from `plain`, its inflated records. `limit` bounds what they take in memory.
pub(super) fn records(header: &Header<'_>, plain: Bytes, limit: usize) -> Decoded<Vec<Record>> {
    let mut budget = Budget { limit, left: limit.saturating_sub(plain.len()) };
    let count = usize::try_from(header.record_count()).map_err(|_| damaged("a negative number of records"))?;
    budget.spend(count.saturating_mul(size_of::<Record>()))?;
    let mut records = Vec::with_capacity(count);
    let mut cursor = Cursor { end: plain.len(), bytes: plain, at: 0 };
    let stamps = Stamps::of(header);
    let mut lowest = header.base();
    for _ in 0..count {
        let record = cursor.record(header.base(), &stamps, &mut budget)?;
        if record.offset < lowest || record.offset >= header.next() {
            return Err(damaged("offsets that do not rise inside the batch"));
        }
        lowest = record.offset.next();
        records.push(record);
    }
    if cursor.at != cursor.end { Err(damaged("more bytes than records")) } else { Ok(records) }
}

/// What the batch says about its records' timestamps.
struct Stamps {
    kind: TimestampType,
    base_ms: i64,
    max_ms: i64,
}

impl Stamps {
    fn of(header: &Header<'_>) -> Self {
        let kind = if header.is_log_append_time() { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        Self { kind, base_ms: header.base_timestamp_ms(), max_ms: header.max_timestamp_ms() }
    }

    /// The broker writes its own into the header alone.
    fn of_record(&self, delta_ms: i64) -> i64 {
        match self.kind {
            TimestampType::CreateTime => self.base_ms.wrapping_add(delta_ms),
            TimestampType::LogAppendTime => self.max_ms,
        }
    }
}

/// Memory that may still be taken, in bytes.
struct Budget {
    limit: usize,
    left: usize,
}

impl Budget {
    fn spend(&mut self, bytes: usize) -> Decoded<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| too_large(self.limit))?;
        Ok(())
    }
}

struct Cursor {
    bytes: Bytes,
    at: usize,
    /// What is being read ends here: the record, or all of them.
    end: usize,
}

impl Cursor {
    fn record(&mut self, base: Offset, stamps: &Stamps, budget: &mut Budget) -> Decoded<Record> {
        let length = self.length()?.ok_or_else(|| damaged("a record without a length"))?;
        let all_end = self.end;
        let end = self.at + length;
        if end > all_end {
            return Err(cut_short());
        }
        self.end = end;
        let _attributes = self.byte()?;
        let timestamp_ms = stamps.of_record(self.varint()?);
        let offset = Offset(base.0.saturating_add(self.varint()?));
        let (key, value) = (self.blob()?, self.blob()?);
        let headers = self.headers(budget)?;
        if self.at != end {
            return Err(damaged("a record that does not fill its length"));
        }
        self.end = all_end;
        Ok(Record { offset, timestamp_ms, timestamp_type: stamps.kind, key, value, headers })
    }

    fn headers(&mut self, budget: &mut Budget) -> Decoded<Vec<(String, Option<Bytes>)>> {
        let count = self.length()?.ok_or_else(|| damaged("a negative number of headers"))?;
        if count == 0 {
            return Ok(Vec::new());
        }
        budget.spend(count.saturating_mul(size_of::<(String, Option<Bytes>)>()))?;
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.blob()?.ok_or_else(|| damaged("a header without a name"))?;
            budget.spend(name.len())?;
            // As Java does: a name that is no UTF-8 is no reason to lose the record.
            headers.push((String::from_utf8_lossy(&name).into_owned(), self.blob()?));
        }
        Ok(headers)
    }

    /// Bytes behind their length.
    fn blob(&mut self) -> Decoded<Option<Bytes>> {
        let Some(length) = self.length()? else { return Ok(None) };
        let start = self.at;
        if length > self.end - start {
            return Err(cut_short());
        }
        self.at += length;
        Ok(Some(self.bytes.slice(start..self.at)))
    }

    /// A length or count; `None` is −1.
    fn length(&mut self) -> Decoded<Option<usize>> {
        match i32::try_from(self.varint()?) {
            Ok(-1) => Ok(None),
            Ok(length) => usize::try_from(length).map(Some).map_err(|_| damaged("a negative length")),
            Err(_) => Err(damaged("a length that is no 32-bit number")),
        }
    }

    /// Seven bits a byte, the lowest first; the last byte has its top bit clear. Zigzag: 0, −1, 1, −2 …
    fn varint(&mut self) -> Decoded<i64> {
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(damaged("a number longer than 64 bits"))
    }

    fn byte(&mut self) -> Decoded<u8> {
        if self.at >= self.end {
            return Err(cut_short());
        }
        let byte = self.bytes[self.at];
        self.at += 1;
        Ok(byte)
    }
}

fn damaged(what: &str) -> UndecodableBatch {
    UndecodableBatch::new(format!("the batch has {what}"))
}

fn cut_short() -> UndecodableBatch {
    UndecodableBatch::new("the batch is cut short: its records end early")
}
