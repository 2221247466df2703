//! What Kafka's own tool says of a group of ours: members, hosts, client ids, the assignor and the lag.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka::{Producer, ProducerConfig};
use native::{KafkaOptions, Stack};

use crate::crew::Hand;
use crate::load;
use crate::member::MemberOptions;
use crate::support::{self, on};

const TOPIC: &str = "described";
const GROUP: &str = "described-group";
const PARTITIONS: i32 = 6;
const TOOL: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

#[tokio::test(flavor = "multi_thread")]
async fn kafkas_own_tool_shows_members_hosts_assignor_and_lag() {
    let _turn = support::turn().await;
    let stack = support::start("kafka-described", KafkaOptions::single()).await;
    let bootstrap = stack.kafka.bootstrap();
    let client = load::client(&bootstrap);
    let producer = load::producer(&client, TOPIC, PARTITIONS, ProducerConfig::standard()).await;
    put(&producer, 300).await;
    let mut hands: Vec<Hand> =
        ["left-hand", "right-hand"].map(|name| Hand::task(MemberOptions::new(&bootstrap, TOPIC, name))).into();
    support::evenly_shared(&hands, PARTITIONS).await;
    let ends = support::ends(&client, TOPIC).await;
    support::all_committed(&client, GROUP, &ends).await;

    let rows = describe(&stack, &[]).await;
    assert_eq!(rows.len(), 6);
    for row in &rows {
        assert_eq!((row["GROUP"].as_str(), row["TOPIC"].as_str()), (GROUP, TOPIC));
        let end = ends[&row["PARTITION"].parse().unwrap()].to_string();
        assert_eq!((&row["CURRENT-OFFSET"], &row["LOG-END-OFFSET"], row["LAG"].as_str()), (&end, &end, "0"));
        assert!(row["CONSUMER-ID"].starts_with(&row["CLIENT-ID"]) && row["HOST"] == "/127.0.0.1", "{row:?}");
    }
    let clients: BTreeSet<&str> = rows.iter().map(|row| row["CLIENT-ID"].as_str()).collect();
    assert_eq!(clients, BTreeSet::from(["left-hand", "right-hand"]));

    let members = describe(&stack, &["--members"]).await;
    let shares: Vec<&str> = members.iter().map(|row| row["#PARTITIONS"].as_str()).collect();
    assert_eq!(shares, ["3", "3"]);
    let state = describe(&stack, &["--state"]).await;
    let [state] = state.as_slice() else { panic!("{state:?}") };
    assert_eq!((state["STATE"].as_str(), state["#MEMBERS"].as_str()), ("Stable", "2"));
    assert_eq!(state["ASSIGNMENT-STRATEGY"], "load-aware");

    // Without members the group keeps its offsets, and what comes then is its lag.
    for hand in &mut hands {
        hand.leave().await;
    }
    put(&producer, 100).await;
    let rows = describe(&stack, &[]).await;
    let lag: i64 = rows.iter().map(|row| row["LAG"].parse::<i64>().unwrap()).sum();
    assert_eq!((lag, rows[0]["CONSUMER-ID"].as_str()), (100, "-"));
}

/// `count` records, acknowledged.
async fn put(producer: &Producer, count: u32) {
    let topic: Arc<str> = TOPIC.into();
    let records = (0..count).map(|n| producer.enqueue(load::record(&topic, &format!("driver-{n}"), n)).unwrap());
    for delivery in records.collect::<Vec<_>>() {
        delivery.await.unwrap();
    }
}

type Row = BTreeMap<String, String>;

/// The tool's table, each row by its heading.
async fn describe(stack: &Arc<Stack>, more: &'static [&'static str]) -> Vec<Row> {
    let said = on(stack, move |stack| {
        let bootstrap = stack.kafka.bootstrap();
        let about = ["--bootstrap-server", &bootstrap, "--describe", "--group", GROUP];
        stack.kafka.tool(TOOL, &[&about[..], more].concat(), "").unwrap()
    })
    .await;
    let mut lines = said.lines().skip_while(|line| !line.starts_with("GROUP"));
    let headings = columns(lines.next().unwrap_or_else(|| panic!("no table: {said}")));
    let rows = lines.map(columns).filter(|row| !row.is_empty());
    rows.map(|row| {
        assert_eq!(row.len(), headings.len(), "{said}");
        headings.iter().cloned().zip(row).collect()
    })
    .collect()
}

/// Words, without the bracketed ones: `COORDINATOR (ID)`, `127.0.0.1:9092 (1)`.
fn columns(line: &str) -> Vec<String> {
    line.split_whitespace().filter(|word| !word.starts_with('(')).map(str::to_owned).collect()
}
