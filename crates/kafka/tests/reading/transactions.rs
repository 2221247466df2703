//! Transactions: what was committed is read, what was aborted is not, and markers hold nobody up.

use kafka::Offset;

use crate::reader::read;
use crate::scene::{client, create, ends_at, producer, send, shared};

const ROUNDS: i64 = 4;
/// Five times ten in each round, then thirty.
const RECORDS: i64 = ROUNDS * 50 + 30;
/// Of two transactions in each round, and of the last one.
const MARKERS: i64 = ROUNDS * 2 + 1;

#[tokio::test(flavor = "multi_thread")]
async fn only_committed_records_are_read_and_markers_are_stepped_over() {
    let bootstrap = shared();
    let client = client(&bootstrap);
    let partition = create(&client, "transactions", &[]).await;
    let mut java = producer("transactions", &bootstrap);
    for command in ["transactional one lz4", "transactional two zstd", "producer plain none"] {
        java.command(command).await;
    }
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let at = round * 100;
        java.command("begin one").await;
        java.command("begin two").await;
        // Each in turn, so that their batches stand between each other's.
        for (shift, who) in [(0, "one"), (20, "two"), (40, "plain"), (50, "one"), (70, "two")] {
            send(&mut java, who, "transactions", at + shift, 10).await;
        }
        let [one, two] = [round % 2 == 0, round < 2];
        java.command(if one { "commit one" } else { "abort one" }).await;
        java.command(if two { "commit two" } else { "abort two" }).await;
        let kept = [(0, one), (20, two), (40, true), (50, one), (70, two)];
        let kept = kept.iter().filter(|(_, kept)| *kept);
        expected.extend(kept.flat_map(|(shift, _)| at + shift..at + shift + 10));
    }
    // The log ends with a transaction of which nothing is read.
    java.command("begin one").await;
    send(&mut java, "one", "transactions", 900, 30).await;
    java.command("abort one").await;

    let end = Offset(RECORDS + MARKERS);
    ends_at(&client, &partition, end).await;
    let seen = read(&client, &partition, Offset(0), end).await;
    assert_eq!(seen.numbers(), expected);
    // From inside an aborted transaction, and from its marker.
    for before_end in [15, 1] {
        let seen = read(&client, &partition, Offset(end.0 - before_end), end).await;
        assert_eq!(seen.numbers(), Vec::<i64>::new());
    }
}
