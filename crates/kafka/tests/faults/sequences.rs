//! A broker that has lost track of what an idempotent producer sent before: its records deleted, its log cut short.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use kafka::{Delivered, Offset, PartitionId, Producer, ProducerConfig};
use native::{KafkaOptions, Stack};

use crate::paced::PATIENCE;
use crate::support::{self, on};
use crate::{load, witness};

const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
const DUMP_LOG: &str = "kafka.tools.DumpLogSegments";

/// The broker has appended and acknowledged what it then lost (a disk that lied, an unclean election): it expects older
/// sequences than the producer goes on with. The answer is OUT_OF_ORDER_SEQUENCE_NUMBER; the records belong into a new
/// epoch, not into an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_tail_is_written_on_in_a_new_epoch() {
    let _turn = support::turn().await;
    let stack = support::start("kafka-cut-short", KafkaOptions::single()).await;
    let producer = producer(&stack, "cut-short").await;
    let kept = put(&producer, "cut-short", 0..10).await;
    let length = segment("kafka-cut-short", "cut-short").metadata().unwrap().len();
    put(&producer, "cut-short", 10..20).await;

    on(&stack, move |stack| {
        stack.kafka.kill();
        let segment = segment("kafka-cut-short", "cut-short");
        let log = File::options().write(true).open(segment).unwrap();
        log.set_len(length).unwrap();
        stack.kafka.start().unwrap();
    })
    .await;

    let after = put(&producer, "cut-short", 20..30).await;
    assert_eq!(after.first_key_value(), Some((&20, &Offset(10))), "behind what the broker still has");
    let log = numbers(&stack, "cut-short").await;
    assert_eq!(log, (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(kept.len() + after.len(), log.len());
    let dump = on(&stack, |stack| {
        let segment = segment("kafka-cut-short", "cut-short");
        stack.kafka.tool(DUMP_LOG, &["--files", &segment.to_string_lossy()], "").unwrap()
    })
    .await;
    assert!(dump.contains("producerEpoch: 1"), "the broker has refused the old sequence: {dump}");
    assert_eq!(producer.stats().failed, 0);
}

/// Retention and DeleteRecords take away all that the broker knew the producer by, also across a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_whose_records_were_all_deleted_goes_on() {
    let _turn = support::turn().await;
    let stack = support::start("kafka-deleted", KafkaOptions::single()).await;
    let producer = producer(&stack, "deleted").await;
    put(&producer, "deleted", 0..10).await;
    on(&stack, |stack| {
        let offsets = stack.dir().join("offsets.json");
        std::fs::write(
            &offsets,
            r#"{"partitions": [{"topic": "deleted", "partition": 0, "offset": 10}], "version": 1}"#,
        )
        .unwrap();
        let bootstrap = stack.kafka.bootstrap();
        let args = ["--bootstrap-server", &bootstrap, "--offset-json-file", &offsets.to_string_lossy()];
        let said = stack.kafka.tool(DELETE_RECORDS, &args, "").unwrap();
        assert!(said.contains("low_watermark: 10"), "{said}");
    })
    .await;
    put(&producer, "deleted", 10..20).await;
    on(&stack, |stack| {
        stack.kafka.stop();
        stack.kafka.start().unwrap();
    })
    .await;
    put(&producer, "deleted", 20..30).await;
    assert_eq!(numbers(&stack, "deleted").await, (10..30).collect::<Vec<_>>(), "once each, in order");
    assert_eq!(producer.stats().failed, 0);
}

async fn producer(stack: &Arc<Stack>, topic: &str) -> Producer {
    let config = ProducerConfig { delivery_timeout: PATIENCE, ..ProducerConfig::standard() };
    load::producer(&load::client(&stack.kafka.bootstrap()), topic, 1, config).await
}

/// Produces the records of these numbers, one after the other; answers with their offsets.
async fn put(producer: &Producer, topic: &str, numbers: std::ops::Range<u32>) -> BTreeMap<u32, Offset> {
    let mut offsets = BTreeMap::new();
    for number in numbers {
        let delivery = producer.enqueue(load::record(&topic.into(), "driver", number)).expect("room");
        let Delivered { partition, offset } = delivery.await.expect("acknowledged");
        assert_eq!(partition, PartitionId(0));
        offsets.insert(number, offset.expect("a new record's offset"));
    }
    offsets
}

/// The numbers in the log, as another client reads them.
async fn numbers(stack: &Arc<Stack>, topic: &str) -> Vec<u32> {
    let found = witness::partition(&stack.kafka.bootstrap(), topic, 0).await;
    let number = |value: Option<Vec<u8>>| {
        let text = String::from_utf8(value.unwrap()).unwrap();
        text.split(' ').nth(1).unwrap().parse().unwrap()
    };
    found.into_iter().map(|(_, record)| number(record.value)).collect()
}

fn segment(stack: &str, topic: &str) -> PathBuf {
    native::stack_dir(stack).join(format!("kafka-1/data/{topic}-0/00000000000000000000.log"))
}
