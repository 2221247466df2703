//! What a reader finds: value, form, remaining life, and what is never shown.

use event::DriverLocation;
use pipeline::Sink;
use redis_writer::{Conflate, SinkConfig, ValueFormat};

use crate::resp::{self, Answer};
use crate::world::*;
use crate::writer::{Writer, stack};

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_readable_as_json_until_its_effective_time_plus_its_life() {
    let redis = redis("json");
    let sink = sink(config(redis.redis.port())).await;
    let at = now_ms() - 12_000;
    let written = write(&sink, [position("driver-17", at, 31)]).await.unwrap();
    assert_eq!(count(&written, "written"), 1);
    let expected =
        format!(r#"{{"latitude":40.7128,"longitude":-74.006,"heading":90.0,"speed":31.0,"timestamp":{at}}}"#);
    assert_eq!(value(redis.redis.port(), "driver-17").unwrap(), expected.as_bytes());
    assert_eq!(expires_at(redis.redis.port(), "driver-17"), at + 30_000, "not from the moment of the write");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_readable_as_protobuf() {
    let redis = redis("protobuf");
    let port = redis.redis.port();
    let sink =
        sink(SinkConfig { value_format: ValueFormat::Protobuf, key_prefix: "p:".to_owned(), ..config(port) }).await;
    let event = position("driver-17", now_ms(), 31);
    write(&sink, [event.clone()]).await.unwrap();
    let value = resp::command(port, &["GET", "p:driver-17"]).bytes().unwrap();
    assert_eq!(DriverLocation::decode(&value, event.received_at_ms).unwrap(), event);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_late_positions_are_counted_and_never_visible() {
    let redis = redis("expired");
    let sink = sink(config(redis.redis.port())).await;
    let now = now_ms();
    let late = DriverLocation { received_at_ms: now, ..position("late", now - 30_001, 1) };
    let written = write(&sink, [position("expired", now - 30_000, 2), late, position("fresh", now, 3)]).await.unwrap();
    assert_eq!((count(&written, "expired"), count(&written, "late"), count(&written, "written")), (1, 1, 1));
    assert_eq!(resp::command(redis.redis.port(), &["DBSIZE"]).integer(), 1);
    assert_eq!(calls(redis.redis.port(), "set"), 1, "what is skipped costs Redis nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_disappears_when_its_position_has_lived() {
    let redis = redis("disappears");
    let sink = sink(config(redis.redis.port())).await;
    write(&sink, [position("a", now_ms() - 29_500, 1)]).await.unwrap();
    until("the key is gone", async || value(redis.redis.port(), "a").is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_of_a_batch_is_written() {
    let redis = redis("conflated");
    let sink = sink(config(redis.redis.port())).await;
    let now = now_ms();
    let positions = (0..100).map(|index| position(&format!("d{}", index % 4), now - 1_000 + i64::from(index), index));
    let written = write(&sink, positions).await.unwrap();
    assert_eq!((count(&written, "written"), count(&written, "superseded")), (4, 96));
    assert_eq!(calls(redis.redis.port(), "set"), 4);
    assert_eq!(mark(redis.redis.port(), "d3"), Some(99));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_conflation_every_position_is_written() {
    let redis = redis("every");
    let sink = sink(SinkConfig { conflate: Conflate::Off, ..config(redis.redis.port()) }).await;
    // The calls of a batch are on their way together. While the server does not know the script yet, a later one can
    // overtake an earlier one, whose older positions are then superseded instead of written.
    write(&sink, [position("first", now_ms(), 0)]).await.unwrap();
    let before = calls(redis.redis.port(), "set");
    let now = now_ms();
    // More than one call holds, and each driver several times.
    let positions =
        (0..2_500).map(|index| position(&format!("d{}", index % 500), now - 3_000 + i64::from(index), index));
    let written = write(&sink, positions).await.unwrap();
    assert_eq!(count(&written, "written"), 2_500);
    assert_eq!(calls(redis.redis.port(), "set") - before, 2_500);
    assert_eq!(mark(redis.redis.port(), "d0"), Some(2_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_is_overwritten() {
    let redis = redis("foreign");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    resp::ok(port, &["LPUSH", "driver:loc:list", "x"]);
    resp::ok(port, &["HSET", "driver:loc:hash", "f", "v"]);
    resp::ok(port, &["SET", "driver:loc:text", "something else"]);
    resp::ok(port, &["SET", "driver:loc:empty", ""]);
    let drivers = ["list", "hash", "text", "empty", "new"];
    let now = now_ms();
    let written = write(&sink, drivers.map(|driver| position(driver, now, 7))).await.unwrap();
    assert_eq!(count(&written, "written"), 5);
    for driver in drivers {
        assert_eq!((mark(port, driver), expires_at(port, driver)), (Some(7), now + 30_000), "{driver}");
    }
}

/// Keys of all other types, in three batches: each is overwritten and counted, and one line is all that is said of them.
/// A process of its own, with a service's log and metrics; a single broker feeds it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_type_are_counted_and_logged_once() {
    let stack = stack("foreign-log");
    let port = stack.redis.port();
    let kinds: [(&str, &[&str]); 5] = [
        ("hash", &["HSET", "driver:loc:hash", "f", "v"]),
        ("list", &["LPUSH", "driver:loc:list", "x"]),
        ("set", &["SADD", "driver:loc:set", "x"]),
        ("zset", &["ZADD", "driver:loc:zset", "1", "x"]),
        ("stream", &["XADD", "driver:loc:stream", "*", "f", "v"]),
    ];
    let writer = Writer::start(&stack, &[]);
    let mut counted = 0;
    for rounds in 1..=3 {
        kinds.iter().for_each(|(_, words)| resp::ok(port, words));
        let now = now_ms();
        writer.feed(kinds.iter().map(|(driver, _)| position(driver, now, rounds))).await;
        for (driver, _) in kinds {
            until("the position is there", async || type_of(port, driver) == "string").await;
            assert_eq!((mark(port, driver), expires_at(port, driver)), (Some(rounds), now + 30_000), "{driver}");
        }
        counted += kinds.len();
        let expected = format!("redis_foreign_keys_total {counted}");
        until("they are counted", async || writer.metrics().lines().any(|line| line == expected)).await;
        kinds.iter().for_each(|(driver, _)| resp::ok(port, &["DEL", &format!("driver:loc:{driver}")]));
    }
    let log = writer.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("another type")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("WARN") && lines[0].contains("prefix=\"driver:loc:\""), "{}", lines[0]);
}

fn type_of(port: u16, driver: &str) -> String {
    match resp::command(port, &["TYPE", &format!("driver:loc:{driver}")]) {
        Answer::Status(kind) => kind,
        other => panic!("no type: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_items_asks_nothing_of_redis() {
    let redis = redis("empty");
    let sink = sink(config(redis.redis.port())).await;
    redis.redis.stop();
    sink.write(&batch([])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_positions_of_all_slots_are_written_in_order() {
    // Alone it has met nobody who could tell it its address.
    let redis = SpecialRedis::new("cluster").in_a_cluster().with("cluster-announce-ip", "127.0.0.1").start();
    let port = redis.port();
    resp::ok(port, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let url = format!("redis-cluster://127.0.0.1:{port}");
    let sink = sink(SinkConfig { url, ..config(port) }).await;
    let now = now_ms();
    let drivers: Vec<_> = (0..300).map(|index| format!("d{index}")).collect();
    let written = write(&sink, drivers.iter().map(|driver| position(driver, now, 2))).await.unwrap();
    assert_eq!(count(&written, "written"), 300);
    let written = write(&sink, drivers.iter().map(|driver| position(driver, now - 1, 1))).await.unwrap();
    assert_eq!(count(&written, "superseded"), 300);
    for driver in &drivers {
        assert_eq!((mark(port, driver), expires_at(port, driver)), (Some(2), now + 30_000));
    }
}
