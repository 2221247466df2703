//! Every codec that Java's producer has.

use kafka::{Offset, TimestampType};

use crate::reader::{read, read_within};
use crate::scene::{client, create, end, producer, send, shared};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const BATCH: i64 = 60;
/// `BASE` of `Produce.java`.
const BASE_MS: i64 = 1_795_441_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_java_s_producer_are_read_in_every_codec() {
    let bootstrap = shared();
    let client = client(&bootstrap);
    let partition = create(&client, "codecs", &[]).await;
    let stamped = create(&client, "stamped", &[("message.timestamp.type", "LogAppendTime")]).await;
    let mut java = producer("codecs", &bootstrap);
    for (first, codec) in (0..).step_by(60).zip(CODECS) {
        java.command(&format!("producer {codec} {codec}")).await;
        send(&mut java, codec, "codecs", first, BATCH).await;
        send(&mut java, codec, "stamped", first, BATCH).await;
    }
    let all = BATCH * 5;
    let seen = read(&client, &partition, Offset(0), end(&client, &partition).await).await;
    assert_eq!(seen.numbers(), (0..all).collect::<Vec<_>>());
    let codecs: Vec<u8> = seen.batches.iter().map(|batch| batch.bytes()[22] & 7).collect();
    assert!((0..5).all(|codec| codecs.contains(&codec)), "every codec was used: {codecs:?}");
    let (records, _) = seen.sorted();
    for record in &records {
        assert_eq!(record.timestamp_ms, BASE_MS + record.offset.0);
        assert_eq!(record.timestamp_type, TimestampType::CreateTime);
    }

    // With a bound that none of them keeps each is one item, and the end is reached all the same.
    let bounded = read_within(&client, &partition, Offset(0)..end(&client, &partition).await, 1_000).await;
    let (records, undecodable) = bounded.sorted();
    assert_eq!((records.len(), undecodable.len()), (0, seen.batches.len()));

    let seen = read(&client, &stamped, Offset(0), end(&client, &stamped).await).await;
    assert_eq!(seen.numbers(), (0..all).collect::<Vec<_>>());
    for batch in &seen.batches {
        let newest_ms = batch.max_timestamp_ms().unwrap();
        for record in batch.decode().unwrap() {
            assert_eq!((record.timestamp_type, record.timestamp_ms), (TimestampType::LogAppendTime, newest_ms));
            assert_ne!(record.timestamp_ms, BASE_MS + record.offset.0, "the producer's time is not the broker's");
        }
    }
}
