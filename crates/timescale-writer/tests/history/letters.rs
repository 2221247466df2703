//! The whole service and rows that the database refuses: exactly those become dead letters, the rest is stored in the
//! same order.

use std::collections::BTreeSet;

use event::DriverLocation;
use kafka::OffsetSpec;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::UnknownTopicHandling;

use crate::service::{Running, client, committed, produce, producer};
use crate::world::{KAFKA, World, nth, until};

const RECORDS: i64 = 10_000;
const SOUTH: f64 = -33.8688;
/// Bytes of one look at the dead letters, and how long it may wait for them.
const FETCH: std::ops::Range<i32> = 1..8_000_000;
const WAIT_MS: i32 = 500;

/// Which of the records the database is to refuse, and how it says so.
struct Refusal {
    records: BTreeSet<i64>,
    rule: &'static str,
    detail: &'static str,
}

/// Rows need not lie in the order in which they came: what was rolled back leaves room between them.
const NUMBER_ROWS: &str = "ALTER TABLE driver_locations ADD COLUMN came bigserial";
const CHECK: &str = "ALTER TABLE driver_locations ADD CONSTRAINT north_only CHECK (lat >= 0)";
const OF_CHECK: &str = "the database refuses the row: SQLSTATE 23514, constraint north_only";
const TRIGGER: &str = "
    CREATE FUNCTION too_far() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.lat < 0 THEN RAISE EXCEPTION 'latitude %', NEW.lat USING ERRCODE = '22003'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER too_far BEFORE INSERT ON driver_locations FOR EACH ROW EXECUTE FUNCTION too_far()";
const OF_TRIGGER: &str = "the database refuses the row: SQLSTATE 22003";

/// Offset and reason in words of every dead letter of partition 0.
async fn letters(topic: &str, count: usize) -> Vec<(i64, String)> {
    let client = ClientBuilder::new(vec![KAFKA.kafka.bootstrap()]).build().await.unwrap();
    let topic = format!("{topic}.DLT");
    let mut letters = Vec::new();
    for partition in 0..4 {
        let reader = client.partition_client(&topic, partition, UnknownTopicHandling::Retry).await.unwrap();
        let mut next = 0;
        loop {
            let (records, end) = reader.fetch_records(next, FETCH, WAIT_MS).await.unwrap();
            for letter in records {
                next = letter.offset + 1;
                let header = |name: &str| letter.record.headers[name].as_slice();
                let offset = i64::from_be_bytes(header("kafka_dlt-original-offset").try_into().unwrap());
                letters.push((offset, String::from_utf8_lossy(header("kafka_dlt-exception-message")).into_owned()));
            }
            if next >= end {
                break;
            }
        }
    }
    assert_eq!(letters.len(), count, "one letter for each");
    letters.sort();
    letters
}

async fn exactly_these_are_letters(refusal: Refusal) {
    let world = World::new().await;
    world.execute(refusal.rule).await;
    world.execute(NUMBER_ROWS).await;
    let producer = producer();
    let flags = ["--batch-max", "10000", "--writers", "1"];
    // The topic is there before the writer is: so it finds all records at once.
    let first = Running::start(&world, &flags).await;
    until("the topics are there", async || first.context.health.is_ready()).await;
    first.stop().await;
    for offset in 0..RECORDS {
        let event = nth(0, offset);
        let south = refusal.records.contains(&offset);
        let event = if south { DriverLocation { latitude: SOUTH, ..event } } else { event };
        produce(&producer, &world.name, 0, Some(event)).await;
    }
    until("all is in Kafka", async || {
        let ends = client().list_offsets(&[tp(&world)], OffsetSpec::Latest).await.unwrap();
        ends[0].1.as_ref().unwrap().offset.0 == RECORDS
    })
    .await;
    let writer = Running::start(&world, &flags).await;
    until("everything is settled", async || committed(&world.name).await == RECORDS).await;
    writer.stop().await;
    let found = letters(&world.name, refusal.records.len()).await;
    assert!(found.iter().map(|(offset, _)| offset).eq(&refusal.records));
    assert!(found.iter().all(|(_, detail)| detail.ends_with(refusal.detail)), "{:?}", found.first());
    let rest: Vec<_> = (0..RECORDS).filter(|offset| !refusal.records.contains(offset)).collect();
    let order = "SELECT split_part(driver_id, '-', 3)::bigint FROM driver_locations ORDER BY came";
    let rows = world.client.query(order, &[]).await.unwrap();
    assert!(rows.iter().map(|row| row.get::<_, i64>(0)).eq(rest));
}

fn tp(world: &World) -> kafka::TopicPartition {
    kafka::TopicPartition::new(world.name.as_str(), kafka::PartitionId(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_row_of_ten_thousand_is_one_letter() {
    exactly_these_are_letters(Refusal { records: BTreeSet::from([7_311]), rule: TRIGGER, detail: OF_TRIGGER }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_refused_rows_of_ten_thousand_are_a_hundred_letters() {
    let records = (0..100).map(|index| index * 97 + 13).collect();
    exactly_these_are_letters(Refusal { records, rule: CHECK, detail: OF_CHECK }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_refused_rows_are_ten_thousand_letters_and_the_partition_goes_on() {
    exactly_these_are_letters(Refusal { records: (0..RECORDS).collect(), rule: CHECK, detail: OF_CHECK }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_of_nothing_but_poison_is_passed_and_holds_up_no_other() {
    const POISON: i64 = 3_000;
    let (world, producer) = (World::bare().await, producer());
    let writer = Running::start(&world, &[]).await;
    until("the topics are there", async || writer.context.health.is_ready()).await;
    for offset in 0..POISON {
        produce(&producer, &world.name, 0, None).await;
        produce(&producer, &world.name, 1, Some(nth(1, offset))).await;
    }
    until("everything is settled", async || committed(&world.name).await == 2 * POISON).await;
    writer.stop().await;
    let found = letters(&world.name, usize::try_from(POISON).unwrap()).await;
    assert!(found.iter().map(|(offset, _)| *offset).eq(0..POISON));
    let rows = "SELECT count(*), count(DISTINCT driver_id) FROM driver_locations WHERE driver_id LIKE 'driver-1-%'";
    let row = world.client.query_one(rows, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), world.rows().await), (POISON, POISON, POISON));
    let offsets = "SELECT next_offset FROM driver_location_offsets WHERE partition < 2";
    let offsets = world.client.query(offsets, &[]).await.unwrap();
    assert!(offsets.len() == 2 && offsets.iter().all(|row| row.get::<_, i64>(0) == POISON));
}
