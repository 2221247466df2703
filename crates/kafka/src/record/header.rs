//! The header of a record batch (Kafka protocol guide, "Record Batch", magic 2), big-endian:
//! ```text
//! 0 baseOffset i64 │ 8 batchLength i32 │ 12 leaderEpoch i32 │ 16 magic i8 │ 17 crc u32 │ 21 attributes i16 │
//! 23 lastOffsetDelta i32 │ 27 baseTimestamp i64 │ 35 maxTimestamp i64 │ 43 producerId i64 │ 51 epoch i16 │
//! 53 baseSequence i32 │ 57 recordCount i32 │ 61 records …
//! ```

use bytes::Buf;

use crate::types::Offset;

pub(super) const HEADER_BYTES: usize = 61;
/// `batchLength` counts from the leader epoch on.
const LENGTH_PREFIX: usize = 12;
const MAGIC: u8 = 2;
/// The checksum covers what stands behind it.
const CHECKED_FROM: usize = 21;
const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// The fields of a batch header; the bytes are at least [`HEADER_BYTES`] long.
pub(super) struct Header<'a>(pub(super) &'a [u8]);

impl Header<'_> {
    pub(super) fn base(&self) -> Offset {
        Offset((&self.0[0..]).get_i64())
    }

    /// Length of the whole batch; `None` where the field says what cannot be.
    pub(super) fn total_bytes(&self) -> Option<usize> {
        let length = usize::try_from((&self.0[8..]).get_i32()).ok()?;
        let total = length.checked_add(LENGTH_PREFIX)?;
        (total >= HEADER_BYTES).then_some(total)
    }

    /// Number of the format.
    pub(super) fn magic(&self) -> u8 {
        self.0[16]
    }

    pub(super) fn is_of_known_format(&self) -> bool {
        self.magic() == MAGIC
    }

    /// The checksum that the header carries, and that of the bytes; the batch is whole.
    pub(super) fn checksums(&self) -> (u32, u32) {
        ((&self.0[17..]).get_u32(), crc32c::crc32c(&self.0[CHECKED_FROM..]))
    }

    /// Number of the codec; 0 is none.
    pub(super) fn compression(&self) -> i16 {
        self.attributes() & COMPRESSION_MASK
    }

    pub(super) fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME != 0
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    pub(super) fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    /// Position after the batch.
    pub(super) fn next(&self) -> Offset {
        let delta = i64::from((&self.0[23..]).get_i32().max(0));
        Offset(self.base().0.saturating_add(delta).saturating_add(1))
    }

    pub(super) fn base_timestamp_ms(&self) -> i64 {
        (&self.0[27..]).get_i64()
    }

    pub(super) fn max_timestamp_ms(&self) -> i64 {
        (&self.0[35..]).get_i64()
    }

    pub(super) fn producer_id(&self) -> i64 {
        (&self.0[43..]).get_i64()
    }

    pub(super) fn record_count(&self) -> i32 {
        (&self.0[57..]).get_i32()
    }

    fn attributes(&self) -> i16 {
        (&self.0[21..]).get_i16()
    }
}
