//! Bytes that have gone bad on the broker's disk. (With an impossible length in a batch it would not even start.)

use std::fs;

use bytes::Bytes;
use kafka::{Offset, RawBatch};

use crate::reader::{number, read};
use crate::scene::{client, create, end, producer, send, start};

const BATCH: i64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gone_bad_on_the_disk_is_handed_out_once_and_the_next_is_read() {
    let stack = start("kafka-reading-damaged");
    let bootstrap = stack.kafka.bootstrap();
    let client = client(&bootstrap);
    let partition = create(&client, "damaged", &[]).await;
    let mut java = producer("damaged", &bootstrap);
    java.command("producer p lz4").await;
    for first in [0, BATCH, 2 * BATCH] {
        send(&mut java, "p", "damaged", first, BATCH).await;
    }
    let (status, _) = java.finish().await;
    assert!(status.success(), "{status}");

    // A broker that was stopped in good order does not look at the records again when it starts.
    stack.kafka.stop();
    let segment = stack.dir().join("kafka-1/data/damaged-0/00000000000000000000.log");
    let mut log = fs::read(&segment).unwrap();
    let whole = RawBatch::from_log(Bytes::from(log.clone()), Offset(0));
    assert_eq!(whole.iter().map(|batch| batch.next().0).collect::<Vec<_>>(), [10, 20, 30], "one batch a send");
    let last_of_second = whole[0].bytes().len() + whole[1].bytes().len() - 1;
    log[last_of_second] ^= 0xff;
    fs::write(&segment, &log).unwrap();
    check(&RawBatch::from_log(Bytes::from(log.clone()), Offset(0)), &log);
    stack.kafka.start().unwrap();

    let end = end(&client, &partition).await;
    let seen = read(&client, &partition, Offset(0), end).await;
    check(&seen.batches, &log);
}

/// The second of three batches is one item with its bytes; the others are read.
fn check(batches: &[RawBatch], log: &[u8]) {
    let numbers = |batch: &RawBatch| batch.decode().unwrap().iter().map(number).collect::<Vec<_>>();
    assert_eq!(batches.len(), 3);
    assert_eq!(numbers(&batches[0]), (0..BATCH).collect::<Vec<_>>());
    let error = batches[1].decode().unwrap_err();
    assert!(error.detail.contains("bad checksum"), "{error}");
    assert_eq!((batches[1].start(), batches[1].next()), (Offset(BATCH), Offset(2 * BATCH)));
    let start = batches[0].bytes().len();
    assert_eq!(batches[1].bytes(), &log[start..start + batches[1].bytes().len()]);
    assert_eq!(numbers(&batches[2]), (2 * BATCH..3 * BATCH).collect::<Vec<_>>());
}
