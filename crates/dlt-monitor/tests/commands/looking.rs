//! `list`, `stats`, `show`: what is in the topic, and what must not be in the output.

use std::collections::BTreeMap;

use crate::world::{TIME, World, about, original};

const SECRET: &str = "driver-secret";

/// 6 + 6 letters of two groups about the same originals, and 3 of another reason.
async fn looked_at(topic: &str) -> World {
    let world = World::new(topic).await;
    world.publish("redis", about(0..6, "missing_latitude")).await;
    world.publish("analytics", about(0..6, "missing_latitude")).await;
    world.publish("redis", about(6..9, "undecodable")).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_without_positions_and_with_hashes_for_drivers() {
    let world = looked_at("listed").await;
    let table = world.done(&["list"]).await;
    assert!(table.ends_with("15 letters\n"), "{table}");
    let hash = service::hash_id("driver-secret-0");
    for part in ["LETTER", "missing_latitude", "undecodable", "analytics", "listed-0@0", "it is undecodable", &hash] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let json = world.run(&["list", "--output", "json"]).await.json();
    assert_eq!(json.as_array().unwrap().len(), 15);
    let first = &json[0];
    assert_eq!(
        (&first["reason"], &first["service"], &first["attempts"]),
        (&"missing_latitude".into(), &"test".into(), &1.into())
    );
    assert_eq!(first["original"]["topic"], "listed");
    assert_eq!(first["redrive_count"], 0);
    for text in [&table, &json.to_string()] {
        assert!(!text.contains(SECRET) && !text.contains("40.7") && !text.contains("latitude\":4"), "{text}");
    }
    let named = world.done(&["list", "--log-driver-ids"]).await;
    assert!(named.contains("driver-secret-0") && !named.contains("40.7"), "{named}");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_letters() {
    let world = looked_at("filtered").await;
    let hash = service::hash_id("driver-secret-3");
    for (args, expected) in [
        (&["--reason", "undecodable"][..], 3),
        (&["--reason", "undecodable,missing_latitude"], 15),
        (&["--group", "analytics"], 6),
        (&["--group", "analytics", "--reason", "undecodable"], 0),
        (&["--partition", "1"], 5),
        (&["--partition", "0,2"], 10),
        (&["--key", "driver-secret-3"], 2),
        (&["--key", &hash], 2),
        (&["--since", "1h"], 15),
        (&["--until", "1h"], 0),
        (&["--since", "2001-01-01T00:00:00Z", "--until", "2099-01-01T00:00:00+01:00"], 15),
        (&["--limit", "4"], 4),
        (&["--limit", "2", "--reason", "undecodable"], 2),
    ] {
        let json = world.run(&[&["list", "--output", "json"], args].concat()).await.json();
        assert_eq!(json.as_array().unwrap().len(), expected, "{args:?}: {json}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn since_begins_where_kafka_says_that_the_moment_is() {
    let world = World::new("since").await;
    // A letter of old, and those of now: their own time counts, not that of their originals.
    world.put(0, b"old", None, BTreeMap::new()).await;
    world.publish("redis", about(0..3, "undecodable")).await;
    let count = async |args: &[&str]| {
        world.run(&[&["list", "--output", "json"], args].concat()).await.json().as_array().unwrap().len()
    };
    assert_eq!(count(&[]).await, 4);
    // TIME lies in November 2026: whichever of the two is now, the two differ by more than a second.
    let old = rskafka::chrono::DateTime::from_timestamp_millis(TIME).unwrap().to_rfc3339();
    assert_eq!(count(&["--since", &old, "--until", &old]).await, 1);
    assert_eq!(count(&["--since", "10m", "--until", "0s"]).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_counted_in_histograms() {
    let world = looked_at("counted-by").await;
    let json = world.run(&["stats", "--output", "json"]).await.json();
    assert_eq!(json["letters"], 15);
    assert_eq!(json["by_reason"], serde_json::json!({"missing_latitude": 12, "undecodable": 3}));
    assert_eq!(json["by_group"], serde_json::json!({"redis": 9, "analytics": 6}));
    assert_eq!(json["by_partition"], serde_json::json!({"0": 5, "1": 5, "2": 5}));
    let hours = json["by_hour"].as_object().unwrap();
    assert_eq!(hours.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 15);
    let table = world.done(&["stats", "--reason", "undecodable"]).await;
    assert!(table.starts_with("3 letters") && table.contains("█") && !table.contains("missing_latitude"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_letter_is_shown_whole_and_says_where_its_value_broke() {
    let world = World::new("shown").await;
    let (partition, mut cut) = original(1);
    let value = cut.value.take().unwrap();
    cut.value = Some(value.slice(..value.len() - 4));
    world.publish("redis", [(partition, cut, "undecodable")]).await;
    let table = world.done(&["show", "1:0"]).await;
    for part in [
        "shown-1@1",
        "driver-secret-1",
        "latitude     40.7128",
        "broke at byte",
        "the bytes end inside",
        "today's rules: undecodable",
        "kafka_dlt-original-partition       1",
        "00000000  0a 0f 64 72",
        "trace",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let json = world.run(&["show", "1:0", "--output", "json"]).await.json();
    assert_eq!(json["fields"][1]["value"], 40.7128);
    assert!(json["broke"]["at"].as_u64().unwrap() > 20, "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_of_a_letter_does_not_flood_the_terminal() {
    let world = World::new("bombs").await;
    let headers = (0..2_000).map(|n| (format!("h{n}"), vec![0x1b; 100])).collect();
    world.put(0, &[0xff; 5_000], Some(&[0xa5; 600_000]), headers).await;
    for args in [&["list"][..], &["show", "0:0"]] {
        let text = world.done(args).await;
        assert!(text.len() < 50_000 && !text.contains('\u{1b}'), "{args:?}: {}", text.len());
    }
}
