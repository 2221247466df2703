//! A gibibyte of zeros in each codec. Half of the packed bytes are missing, and that is never noticed: the reader gives up
//! at its bound, long before it would get there.

use std::io::{self, Read, Write};

use super::super::inflate;
use super::*;

const BOMB_BYTES: usize = 1 << 30;
const PIECE: usize = 1 << 20;

fn zeros(mut into: impl Write) {
    let piece = vec![0; PIECE];
    (0..BOMB_BYTES / PIECE).for_each(|_| into.write_all(&piece).unwrap());
}

fn gzip() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zeros(&mut encoder);
    encoder.finish().unwrap()
}

/// A literal zero, then copies of 64 bytes from one byte back (the format's description, "Compressed stream").
fn raw_snappy() -> Vec<u8> {
    const COPY_64: [u8; 3] = [0b1111_1110, 1, 0];
    let length: [u8; 5] = [0x80, 0x80, 0x80, 0x80, 0x04];
    let mut packed = [length.as_slice(), &[0, 0]].concat();
    packed.extend(COPY_64.repeat((BOMB_BYTES - 1) / 64));
    packed.extend([0b1111_1010, 1, 0]);
    packed
}

fn xerial_snappy() -> Vec<u8> {
    let block = snap::raw::Encoder::new().compress_vec(&[0; 1 << 15]).unwrap();
    let framed = [u32::try_from(block.len()).unwrap().to_be_bytes().as_slice(), &block].concat();
    let header = [b"\x82SNAPPY\0".as_slice(), &1_u32.to_be_bytes(), &1_u32.to_be_bytes()].concat();
    [header, framed.repeat(BOMB_BYTES >> 15)].concat()
}

fn lz4() -> Vec<u8> {
    let mut encoder = ::lz4::EncoderBuilder::new().build(Vec::new()).unwrap();
    zeros(&mut encoder);
    let (packed, outcome) = encoder.finish();
    outcome.unwrap();
    packed
}

fn zstd() -> Vec<u8> {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    zeros(&mut encoder);
    encoder.finish().unwrap()
}

/// One batch of one record with `packed` for its records.
fn armed(codec: i16, packed: &[u8]) -> BytesMut {
    let mut batch = plain(0..1);
    batch.truncate(61);
    batch.extend_from_slice(packed);
    let length = i32::try_from(batch.len() - 12).unwrap();
    with_attributes(patched(batch, 8, &length.to_be_bytes()), codec)
}

fn check(codec: i16, mut packed: Vec<u8>) {
    packed.truncate(packed.len() / 2);
    let batches = read(&[armed(codec, &packed), plain(1..3)], 0);
    assert_eq!((batches.len(), batches[0].record_count(), batches[0].next()), (2, 1, Offset(1)));
    let error = batches[0].decode().unwrap_err();
    assert!(error.detail.contains(&format!("takes more than {MAX_DECODED_BYTES} bytes")), "codec {codec}: {error}");
    assert_eq!(offsets(&batches[1]), [1, 2]);
}

#[test]
fn a_gzip_bomb_is_one_undecodable_item() {
    check(1, gzip());
}

#[test]
fn a_snappy_bomb_is_one_undecodable_item() {
    check(2, raw_snappy());
}

#[test]
fn a_framed_snappy_bomb_is_one_undecodable_item() {
    check(2, xerial_snappy());
}

#[test]
fn an_lz4_bomb_is_one_undecodable_item() {
    check(3, lz4());
}

#[test]
fn a_zstd_bomb_is_one_undecodable_item() {
    check(4, zstd());
}

/// The bomb above is one that would go off: nothing else is wrong with it.
#[test]
fn the_snappy_made_by_hand_is_snappy() {
    let mut small = raw_snappy();
    // 1 + 64 bytes instead of a gibibyte.
    small.truncate(5 + 2 + 3);
    small.splice(..5, [65]);
    assert_eq!(inflate::inflate(2, &small.into(), 65).ok(), Some(Bytes::from(vec![0; 65])));
}

#[test]
fn the_bound_is_exact_for_every_codec() {
    let records = plain(0..50).split_off(61);
    for codec in CODECS {
        let packed = batch(0..50, -1, codec).split_off(61).freeze();
        let number = codec as i16;
        let fits = inflate::inflate(number, &packed, records.len()).unwrap();
        assert_eq!(fits, records, "{codec:?}");
        let error = inflate::inflate(number, &packed, records.len() - 1).unwrap_err();
        assert!(error.detail.contains("takes more than"), "{codec:?}: {error}");
    }
}

/// Counts what is taken out of it.
struct Endless<'a>(&'a mut usize);

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        *self.0 += buffer.len();
        Ok(buffer.len())
    }
}

#[test]
fn a_decoder_is_asked_for_no_more_than_one_byte_beyond_the_bound() {
    for limit in [0, 1, 1_000, PIECE] {
        let mut taken = 0;
        assert!(inflate::read(Endless(&mut taken), 100, limit).is_err());
        assert_eq!(taken, limit + 1);
    }
}

/// What records take in memory besides their bytes counts as well: 7 bytes on the wire are over a hundred here.
#[test]
fn empty_records_are_counted_at_what_they_take_in_memory() {
    let count = MAX_DECODED_BYTES / 100;
    let delta = i32::try_from(count).unwrap();
    let all = patched(with_last_offset_delta(armed(0, &[0; 8]), delta - 1), 57, &delta.to_be_bytes());
    let error = read(&[all], 0)[0].decode().unwrap_err();
    assert!(error.detail.contains("takes more than"), "{error}");
}
