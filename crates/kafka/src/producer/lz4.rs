//! LZ4 frames as Kafka's clients write them: independent blocks of 64 KiB, no checksums but the frame header's own.
//!
//! Made from blocks by hand, since the frame encoders at hand set up a context (and one of them the slow mode) for each
//! batch, which costs more than compressing the few hundred bytes that a batch often has. Format: "LZ4 Frame Format
//! Description" 1.6.

use bytes::{BufMut, BytesMut};
use lz4::block::{CompressionMode, compress_bound, compress_to_buffer};

/// Magic number; flags: version 1, independent blocks; block size 64 KiB; second byte of xxh32 over the two.
const FRAME_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const BLOCK_BYTES: usize = 64 * 1024;
/// Set in a block's length when it is stored as it is.
const STORED: u32 = 1 << 31;
const END_MARK: u32 = 0;

/// Appends a frame with `plain` in it.
pub(super) fn compress(plain: &[u8], out: &mut BytesMut) {
    out.put_slice(&FRAME_HEADER);
    let mut block = vec![0; compress_bound(plain.len().min(BLOCK_BYTES)).unwrap_or(0)];
    for part in plain.chunks(BLOCK_BYTES) {
        put_block(part, &mut block, out);
    }
    out.put_u32_le(END_MARK);
}

fn put_block(part: &[u8], scratch: &mut [u8], out: &mut BytesMut) {
    match compress_to_buffer(part, Some(CompressionMode::DEFAULT), false, scratch) {
        Ok(length) if length < part.len() => {
            out.put_u32_le(block_length(length));
            out.put_slice(&scratch[..length]);
        }
        // It does not shrink: stored.
        _ => {
            out.put_u32_le(block_length(part.len()) | STORED);
            out.put_slice(part);
        }
    }
}

/// At most [`BLOCK_BYTES`].
fn block_length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn decompressed(frame: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        lz4::Decoder::new(frame).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn the_library_reads_frames_of_every_size() {
        for size in [0, 1, 100, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES] {
            let plain: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
            let mut frame = BytesMut::new();
            compress(&plain, &mut frame);
            assert_eq!(decompressed(&frame), plain, "{size} bytes");
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored() {
        let noise: [u8; 1_000] = rand::random();
        let mut frame = BytesMut::new();
        compress(&noise, &mut frame);
        assert_eq!(decompressed(&frame), noise.to_vec());
        assert_eq!(frame.len(), FRAME_HEADER.len() + 4 + noise.len() + 4);
    }
}
