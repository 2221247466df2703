//! The bounds of a batch, seen from the table: rows of one transaction have the same `xmin`.

use kafka::{OffsetSpec, PartitionId, Producer, ProducerConfig, TopicPartition};

use crate::service::{Running, client, produce};
use crate::world::{World, nth, until};

const RECORDS: i64 = 5_000;
/// `--batch-bytes` of the bounded writer, and what one batch of the producer has at the most.
const BYTES: usize = 16 << 10;

/// A producer whose batches are small, since they stay whole.
fn producer() -> Producer {
    Producer::new(client(), ProducerConfig { batch_bytes: BYTES, ..ProducerConfig::standard() })
}

async fn largest_transaction(world: &World) -> i64 {
    let query = "SELECT max(rows) FROM (SELECT count(*) AS rows FROM driver_locations GROUP BY xmin) AS transactions";
    world.client.query_one(query, &[]).await.unwrap().get(0)
}

/// Writes a backlog of one partition; how many rows the largest transaction had.
async fn drained(flags: &[&str]) -> i64 {
    let world = World::bare().await;
    let flags = [&["--batch-max", "50000", "--writers", "1"], flags].concat();
    // The topic is there before the records, and they before the writer that is looked at.
    let first = Running::start(&world, &flags).await;
    until("the topics are there", async || first.context.health.is_ready()).await;
    first.stop().await;
    let producer = producer();
    for offset in 0..RECORDS {
        produce(&producer, &world.name, 0, Some(nth(0, offset))).await;
    }
    let partition = TopicPartition::new(world.name.as_str(), PartitionId(0));
    until("all is in Kafka", async || {
        let ends = client().list_offsets(std::slice::from_ref(&partition), OffsetSpec::Latest).await.unwrap();
        ends[0].1.as_ref().unwrap().offset.0 == RECORDS
    })
    .await;
    let writer = Running::start(&world, &flags).await;
    until("all are written", async || world.rows().await == RECORDS).await;
    writer.stop().await;
    largest_transaction(&world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_full_when_its_bytes_are() {
    let most = i64::try_from(2 * BYTES / nth(0, 0).encode().len()).unwrap();
    let bounded = drained(&["--batch-bytes", "16KiB"]).await;
    assert!(bounded <= most, "{bounded} rows in a transaction, at most {most}");
    let free = drained(&[]).await;
    assert!(free > most, "{free} rows in a transaction without the bound, {most} with it");
}
