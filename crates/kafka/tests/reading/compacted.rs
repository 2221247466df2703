//! A compacted log has gaps, inside batches and between them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka::Offset;
use tokio::time::Instant;

use crate::reader::{number, read};
use crate::scene::{client, create, end, producer, shared};

/// The cleaner looks every 100 ms here, and shares two cores with everything else.
const PATIENCE: Duration = Duration::from_secs(60);
const ROUNDS: i64 = 10;
const BATCH: i64 = 30;
const KEYS: i64 = 7;
/// Of the first batch: most of them never come again, so that something of it stays.
const FIRST_KEYS: i64 = 13;

#[tokio::test(flavor = "multi_thread")]
async fn gaps_of_a_compacted_log_are_stepped_over() {
    let bootstrap = shared();
    let client = client(&bootstrap);
    // Each batch is older than the next by more than a segment may last.
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "1000"), ("min.cleanable.dirty.ratio", "0.001")];
    let partition = create(&client, "compacted", &settings).await;
    let mut java = producer("compacted", &bootstrap);
    java.command("producer p lz4").await;
    let mut expected = BTreeMap::<Bytes, i64>::new();
    for round in 0..ROUNDS {
        let keys = if round == 0 { FIRST_KEYS } else { KEYS };
        let first = round * BATCH;
        java.command(&format!("send p compacted 0 {first} {BATCH} {keys} 100")).await;
        expected.extend((first..first + BATCH).map(|number| (format!("k{}", number % keys).into(), number)));
    }
    let end = end(&client, &partition).await;
    let deadline = Instant::now() + PATIENCE;
    let whole = usize::try_from(ROUNDS * BATCH).unwrap();
    let records = loop {
        let seen = read(&client, &partition, Offset(0), end).await;
        let (records, undecodable) = seen.sorted();
        assert_eq!(undecodable.len(), 0);
        if records.len() < whole / 2 {
            break records;
        }
        assert!(Instant::now() < deadline, "{} of {whole} records are still there", records.len());
    };
    assert!(records.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    assert!(records.windows(2).any(|pair| pair[0].offset.next() < pair[1].offset), "there are gaps");
    let last: BTreeMap<_, _> = records.iter().map(|record| (record.key.clone().unwrap(), number(record))).collect();
    assert_eq!(last, expected, "the last record of every key");
    assert!(records.iter().all(|record| record.offset.0 == number(record)));
}
