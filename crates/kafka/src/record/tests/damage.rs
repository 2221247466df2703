//! Each kind of damage is one item with its bytes, and the batch behind it is read.

use super::*;

/// `damaged` (offsets 0–2) becomes one undecodable item, its bytes unchanged; the batch behind it (3–4) is read.
fn check_one_item(damaged: BytesMut, why: &str) {
    let bytes = damaged.clone().freeze();
    let batches = read(&[damaged, plain(3..5)], 0);
    assert_eq!(batches.len(), 2, "{why}");
    let error = batches[0].decode().unwrap_err();
    assert!(error.detail.contains(why), "{error} instead of {why}");
    assert!(!error.detail.contains('\n'));
    assert_eq!((batches[0].start(), batches[0].next(), batches[0].bytes()), (Offset(0), Offset(3), &bytes), "{why}");
    assert_eq!(offsets(&batches[1]), [3, 4], "{why}");
}

#[test]
fn a_bad_checksum() {
    for codec in CODECS {
        let mut damaged = batch(0..3, -1, codec);
        let last = damaged.len() - 1;
        damaged[last] ^= 0xff;
        check_one_item(damaged, "bad checksum");
    }
}

#[test]
fn an_unknown_codec() {
    for codec in [5, 6, 7] {
        check_one_item(with_attributes(plain(0..3), codec), &format!("unknown compression codec {codec}"));
    }
}

#[test]
fn an_unknown_format() {
    for magic in [3, 4, 127] {
        let mut damaged = plain(0..3);
        damaged[16] = magic;
        check_one_item(damaged, &format!("magic {magic}"));
    }
}

#[test]
fn a_message_of_the_format_of_old_is_one_offset() {
    let mut old = plain(0..3);
    (old[16], old[17]) = (1, !old[17]);
    let batches = read(&[old, plain(1..3)], 0);
    assert_eq!(batches[0].next(), Offset(1));
    assert_eq!(offsets(&batches[1]), [1, 2]);
}

#[test]
fn damaged_compressed_data() {
    for (codec, name) in [(1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd")] {
        check_one_item(with_attributes(plain(0..3), codec), &format!("{name} data is damaged"));
    }
}

#[test]
fn compressed_data_cut_short() {
    // lz4's decoder takes the end of its input for the end of the data: then the records are missed.
    let codecs = [
        (Compression::Gzip, "gzip data is damaged"),
        (Compression::Snappy, "snappy data is damaged"),
        (Compression::Lz4, "cut short"),
        (Compression::Zstd, "zstd data is damaged"),
    ];
    for (codec, why) in codecs {
        let mut cut = batch(0..3, -1, codec);
        cut.truncate(61 + (cut.len() - 61) / 2);
        let length = i32::try_from(cut.len() - 12).unwrap();
        check_one_item(patched(cut, 8, &length.to_be_bytes()), why);
    }
}

#[test]
fn records_cut_short() {
    let mut cut = plain(0..3);
    cut.truncate(cut.len() - 1);
    let length = i32::try_from(cut.len() - 12).unwrap();
    check_one_item(patched(cut, 8, &length.to_be_bytes()), "cut short");
}

#[test]
fn lies_about_the_number_of_records() {
    let told = |count: i32| patched(plain(0..3), 57, &count.to_be_bytes());
    check_one_item(told(2), "more bytes than records");
    check_one_item(told(4), "more records than offsets");
    check_one_item(told(i32::MAX), "more records than offsets");
    check_one_item(told(-1), "negative number of records");
    // With as many offsets, so that the count alone would reserve 200 GB.
    let swollen = patched(with_last_offset_delta(plain(0..3), i32::MAX - 1), 57, &i32::MAX.to_be_bytes());
    let error = read(&[swollen], 0)[0].decode().unwrap_err();
    assert!(error.detail.contains("takes more than"), "{error}");
}

#[test]
fn an_impossible_length_takes_the_rest_and_the_position_moves() {
    for length in [-1, i32::MIN, 0, 48] {
        let mut damaged = plain(4..6);
        damaged[8..12].copy_from_slice(&length.to_be_bytes());
        let batches = read(&[damaged, plain(6..7)], 4);
        assert_eq!((batches.len(), batches[0].next()), (1, Offset(5)), "{length}");
        assert!(batches[0].decode().unwrap_err().detail.contains("impossible length"));
    }
}

#[test]
fn a_batch_cut_short_by_the_response_comes_with_the_next_fetch() {
    let whole = log(&[plain(0..3), plain(3..6)]);
    let first = plain(0..3).len();
    for end in first..whole.len() {
        let batches = RawBatch::from_log(whole.slice(..end), Offset(0));
        assert_eq!((batches.len(), batches[0].next()), (1, Offset(3)), "{end} bytes");
        assert_eq!(offsets(&batches[0]), [0, 1, 2]);
    }
}

#[test]
fn a_batch_cut_short_where_the_answer_begins_is_cut_short_in_the_log() {
    let whole = log(&[plain(4..7)]);
    for end in 1..whole.len() {
        let batches = read_until(whole.slice(..end), 4, 9);
        assert_eq!((batches.len(), batches[0].bytes().len(), batches[0].record_count()), (1, end, 1));
        assert!(batches[0].decode().unwrap_err().detail.contains("cut short"));
        assert_eq!(batches[0].next(), if end < 61 { Offset(5) } else { Offset(7) }, "{end} bytes");
    }
    assert_eq!(read(&[], 4).len(), 0, "nothing is nothing");
}

#[test]
fn a_damaged_end_is_believed_only_as_far_as_the_next_batch_and_the_log_s_end() {
    let mut damaged = plain(0..3);
    damaged[23..27].copy_from_slice(&i32::MAX.to_be_bytes());
    let batches = read(&[damaged.clone(), plain(3..5)], 0);
    assert_eq!((batches[0].next(), batches[0].max_timestamp_ms()), (Offset(3), None));
    assert_eq!(offsets(&batches[1]), [3, 4]);
    assert_eq!(read_until(damaged.freeze(), 0, 8)[0].next(), Offset(8));
}

/// Every byte of a batch in turn, with a checksum made right for it: what is handed out may be wrong, but it is
/// something, it does not panic, and the position moves.
#[test]
fn no_single_byte_stalls_the_reader() {
    for codec in CODECS {
        let mut good = wire_record(0, -1);
        good.headers.insert("name".into(), Some(Bytes::from_static(b"value")));
        let good = encode(&[good, wire_record(1, -1)], codec);
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let damaged = patched(good.clone(), at, &[good[at] ^ flip]);
                let batches = read_until(damaged.freeze(), 0, 2);
                // A base before the position: the broker would not have sent it.
                let moved = batches.last().map(RawBatch::next);
                assert!(moved.is_some_and(|next| next > Offset(0)) || at < 8, "{codec:?}, byte {at}: {moved:?}");
                for batch in &batches {
                    let _told_or_read = batch.decode();
                }
            }
        }
    }
}
