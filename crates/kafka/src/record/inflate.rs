//! Decompression that stops at a bound: a megabyte from the wire can stand for gigabytes.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;

use super::UndecodableBatch;

/// Positions in a city compress three- to fivefold; more room is made where it is needed.
const USUAL_RATIO: usize = 4;
/// How a stream of snappy-java begins; 8 bytes of versions follow, then blocks, each behind its length.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

/// The records of a batch as they were before the codec with this number (0–4) was applied; at most `limit` bytes.
pub(super) fn inflate(codec: i16, packed: &Bytes, limit: usize) -> Result<Bytes, UndecodableBatch> {
    let plain = match codec {
        0 if packed.len() > limit => Err(Fault::TooLarge),
        0 => return Ok(packed.clone()),
        1 => read(MultiGzDecoder::new(&packed[..]), packed.len(), limit),
        2 => unsnap(packed, limit),
        3 => lz4::Decoder::new(&packed[..]).map_err(Fault::from).and_then(|lz4| read(lz4, packed.len(), limit)),
        4 => unzstd(packed, limit),
        _ => return Err(UndecodableBatch::new(format!("unknown compression codec {codec}"))),
    };
    plain.map(Bytes::from).map_err(|fault| match fault {
        Fault::TooLarge => too_large(limit),
        Fault::Damaged(detail) => UndecodableBatch::new(format!("{} data is damaged: {detail}", name(codec))),
    })
}

pub(super) fn too_large(limit: usize) -> UndecodableBatch {
    UndecodableBatch::new(format!("the batch takes more than {limit} bytes once it is decoded"))
}

#[derive(Debug)]
pub(super) enum Fault {
    TooLarge,
    Damaged(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

fn name(codec: i16) -> &'static str {
    match codec {
        1 => "gzip",
        2 => "snappy",
        3 => "lz4",
        _ => "zstd",
    }
}

/// A frame may ask for a window of up to 128 MiB (Java's level 22 does, whatever the content): memory that is not touched
/// before as much is inflated.
fn unzstd(packed: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    read(zstd::Decoder::with_buffer(packed)?, packed.len(), limit)
}

/// Never asks the decoder for more than one byte beyond the bound.
pub(super) fn read(decoder: impl Read, packed_bytes: usize, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut plain = Vec::with_capacity(packed_bytes.saturating_mul(USUAL_RATIO).min(limit));
    decoder.take(limit as u64 + 1).read_to_end(&mut plain)?;
    if plain.len() > limit { Err(Fault::TooLarge) } else { Ok(plain) }
}

/// Blocks as snappy-java frames them; one bare block as others do, without a frame.
fn unsnap(mut packed: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    let mut plain = Vec::new();
    if !packed.starts_with(XERIAL_MAGIC) {
        unsnap_block(packed, &mut plain, limit)?;
        return Ok(plain);
    }
    while !packed.is_empty() {
        // Streams may follow each other.
        if packed.starts_with(XERIAL_MAGIC) {
            packed = packed.get(XERIAL_HEADER_BYTES..).ok_or_else(cut_short)?;
            continue;
        }
        let length = packed.try_get_u32().map_err(|_| cut_short())? as usize;
        let (block, rest) = packed.split_at_checked(length).ok_or_else(cut_short)?;
        unsnap_block(block, &mut plain, limit)?;
        packed = rest;
    }
    Ok(plain)
}

fn unsnap_block(block: &[u8], plain: &mut Vec<u8>, limit: usize) -> Result<(), Fault> {
    let damaged = |error: snap::Error| Fault::Damaged(error.to_string());
    let start = plain.len();
    let end = start.saturating_add(snap::raw::decompress_len(block).map_err(damaged)?);
    if end > limit {
        return Err(Fault::TooLarge);
    }
    plain.resize(end, 0);
    snap::raw::Decoder::new().decompress(block, &mut plain[start..]).map_err(damaged)?;
    Ok(())
}

fn cut_short() -> Fault {
    Fault::Damaged("it ends inside a block".to_owned())
}
