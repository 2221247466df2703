//! `export`, a repair by hand, `import`; and `purge`.

use bytes::Bytes;
use event::DriverLocation;
use serde_json::{Value, json};

use crate::world::{World, about, header, original};

/// Exports everything into a file, repairs each line, and gives the file's path.
fn repaired(name: &str, exported: &str, repair: impl Fn(&mut Value)) -> String {
    let lines = exported.lines().map(|line| {
        let mut json: Value = serde_json::from_str(line).unwrap();
        repair(&mut json);
        format!("{json}\n")
    });
    let path = native::target_dir().join(format!("{name}-{}.jsonl", std::process::id()));
    std::fs::write(&path, lines.collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repaired_letter_goes_back_with_its_history() {
    let world = World::new("repaired").await;
    let (partition, mut broken) = original(4);
    broken.value = Some(Bytes::from_static(b"{\"no\": \"protobuf\"}"));
    broken.headers.push(("redrive-count".to_owned(), Some(Bytes::from_static(b"1"))));
    broken.headers.push(("redrive-of".to_owned(), Some(Bytes::from_static(b"repaired-1@2"))));
    world.publish("redis", [(partition, broken, "undecodable")]).await;
    let exported = world.done(&["export", "--reason", "undecodable"]).await;
    let event =
        json!({"driverId": "driver-secret-4", "latitude": 1.5, "longitude": 2.5, "timestamp": 1_795_441_689_633_i64});
    let file = repaired("repaired", &exported, |json| json["value"] = json!({ "event": event }));
    let dry = world.done(&["import", "--file", &file, "--dry-run"]).await;
    assert!(dry.contains("1 records would be sent"), "{dry}");
    assert_eq!(world.count("repaired").await, 0);
    assert_eq!(world.done(&["import", "--file", &file, "--yes"]).await, "1 records sent to repaired\n");
    let back = world.back().await;
    let record = &back[0].1.record;
    let position = DriverLocation::decode(record.value.as_ref().unwrap(), original(4).1.timestamp_ms).unwrap();
    assert_eq!((position.latitude, position.longitude), (1.5, 2.5));
    assert_eq!(record.key.as_deref(), Some(&b"driver-secret-4"[..]));
    let all: Vec<_> = ["trace", "redrive-count", "redrive-of"].iter().map(|name| header(record, name)).collect();
    assert_eq!(all, [Some("4"), Some("2"), Some("repaired-1@2")]);
    assert_eq!(record.headers.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_one_line_sends_nothing() {
    let world = World::new("mistaken").await;
    world.publish("redis", about(0..3, "undecodable")).await;
    let exported = world.done(&["export"]).await;
    assert_eq!(exported.lines().count(), 3);
    let file = repaired("mistaken", &exported, |json| {
        if json["offset"] == 0 && json["partition"] == 2 {
            json["value"] = "bytes?".into();
        }
    });
    let line = world.run(&["import", "--file", &file, "--yes"]).await.refusal(64).to_owned();
    assert!(line.contains("line ") && line.contains("value: give null") && line.contains("nothing was sent"), "{line}");
    assert_eq!(world.count("mistaken").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_letters_of_one_original_are_one_record_and_two_repairs_are_a_mistake() {
    let world = World::new("repaired-twice").await;
    world.publish("redis", about(0..2, "undecodable")).await;
    world.publish("analytics", about(0..2, "undecodable")).await;
    let exported = world.done(&["export"]).await;
    let file = repaired("repaired-twice", &exported, |_| ());
    assert_eq!(world.done(&["import", "--file", &file, "--yes"]).await, "2 records sent to repaired-twice\n");
    let file = repaired("repaired-otherwise", &exported, |json| {
        if json["group"] == "redis" {
            json["value"] = json!({"text": "otherwise"});
        }
    });
    let done = world.run(&["import", "--file", &file, "--yes"]).await;
    assert!(done.refusal(64).contains("another line repairs repaired-twice-"), "{done:?}");
    assert_eq!(world.count("repaired-twice").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_removed_for_good_only_when_somebody_agrees() {
    let world = World::new("purged").await;
    world.publish("redis", about(0..9, "undecodable")).await;
    assert!(world.done(&["purge", "--dry-run"]).await.starts_with("9 letters of purged.DLT would be removed"));
    assert_eq!(world.run(&["purge"]).await.refusal(64), "--yes: is needed where nobody can be asked");
    assert!(world.done(&["purge", "--before", "1h", "--yes"]).await.starts_with("0 letters"), "none is that old");
    assert!(world.done(&["purge", "--partition", "1", "--yes"]).await.starts_with("3 letters"));
    assert_eq!(world.run(&["stats", "--output", "json"]).await.json()["letters"], 6);
    assert!(world.done(&["purge", "--before", "2099-01-01T00:00:00Z", "--yes"]).await.starts_with("6 letters"));
    assert_eq!(world.run(&["stats", "--output", "json"]).await.json()["letters"], 0);
}
