//! A newer position is never replaced by an older one, whoever writes and in whatever order.

use std::collections::HashMap;

use redis_writer::{Conflate, SinkConfig, ValueFormat};

use crate::resp;
use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_position_replaces_an_older_one() {
    let redis = redis("newer");
    let sink = sink(config(redis.redis.port())).await;
    let now = now_ms();
    write(&sink, [position("a", now - 1, 1)]).await.unwrap();
    let written = write(&sink, [position("a", now, 2)]).await.unwrap();
    assert_eq!(count(&written, "written"), 1);
    assert_eq!(mark(redis.redis.port(), "a"), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_position_changes_neither_value_nor_expiry() {
    let redis = redis("older");
    let port = redis.redis.port();
    for value_format in [ValueFormat::Json, ValueFormat::Protobuf] {
        let sink = sink(SinkConfig { value_format, ..config(port) }).await;
        let now = now_ms();
        write(&sink, [position("a", now, 1)]).await.unwrap();
        let before = value(port, "a");
        let written = write(&sink, [position("b", now, 1), position("a", now - 1, 2)]).await.unwrap();
        assert_eq!((count(&written, "written"), count(&written, "superseded")), (1, 1));
        assert_eq!((value(port, "a"), expires_at(port, "a")), (before, now + 30_000), "{value_format:?}");
        resp::ok(port, &["FLUSHALL"]);
    }
}

/// Two records of a partition with the same effective time, the later one written first by somebody who has read both:
/// a process that thaws and flushes the earlier one changes nothing, in either form and across a change of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tie_is_won_by_the_larger_offset_in_whatever_order_it_is_written() {
    let redis = redis("tie");
    let port = redis.redis.port();
    for (theirs, ours) in [(ValueFormat::Json, ValueFormat::Json), (ValueFormat::Protobuf, ValueFormat::Json)] {
        let other = sink(SinkConfig { value_format: theirs, conflate: Conflate::Off, ..config(port) }).await;
        let conflating = sink(SinkConfig { value_format: theirs, ..config(port) }).await;
        let thawed = sink(SinkConfig { value_format: ours, ..config(port) }).await;
        for (driver, owner) in [("one-by-one", &other), ("conflated", &conflating)] {
            let now = now_ms();
            write(owner, [position(driver, now, 1), position(driver, now, 2)]).await.unwrap();
            let before = value(port, driver);
            let written = write(&thawed, [position(driver, now, 1)]).await.unwrap();
            assert_eq!((count(&written, "superseded"), value(port, driver)), (1, before), "{driver} {theirs:?}");
            assert_eq!(expires_at(port, driver), now + 30_000);
            write(&thawed, [position(driver, now + 1, 3)]).await.unwrap();
            assert_eq!(mark(port, driver), Some(3));
        }
        resp::ok(port, &["FLUSHALL"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_record_again_leaves_the_five_fields_as_they_are() {
    let redis = redis("again");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    let now = now_ms();
    write(&sink, [position("a", now, 1)]).await.unwrap();
    let before = value(port, "a");
    let written = write(&sink, [position("a", now, 1)]).await.unwrap();
    assert_eq!((count(&written, "written"), value(port, "a")), (1, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_across_a_change_of_format_and_of_life() {
    let redis = redis("change");
    let port = redis.redis.port();
    let json = sink(config(port)).await;
    let long = SinkConfig { value_format: ValueFormat::Protobuf, position_ttl: LIFE * 2, ..config(port) };
    let protobuf = sink(long).await;
    let now = now_ms();
    write(&protobuf, [position("a", now - 10, 1)]).await.unwrap();
    write(&json, [position("a", now, 2)]).await.unwrap();
    assert_eq!(mark(port, "a"), Some(2), "although its expiry is earlier than the older one's");
    let written = write(&protobuf, [position("a", now - 1, 3)]).await.unwrap();
    assert_eq!((count(&written, "superseded"), mark(port, "a")), (1, Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_the_script_is_given_it_again() {
    let redis = redis("forgot");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    let now = now_ms();
    for (offset, mark_written) in [(0, 1), (1, 2)] {
        resp::ok(port, &["SCRIPT", "FLUSH"]);
        write(&sink, [position("a", now + offset, mark_written)]).await.unwrap();
        assert_eq!(mark(port, "a"), Some(mark_written));
    }
    assert_eq!(calls(port, "eval"), 3, "the text is sent once per flush, and once to probe");
}

/// Three writers of the same drivers, each with its own shuffle of the history, as after a rebalance that goes wrong in
/// every way: what stays is the newest of all.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_all_stays_however_writers_interleave() {
    let redis = redis("interleaved");
    let port = redis.redis.port();
    let now = now_ms();
    let history: Vec<_> = (0..3_000_u16)
        .map(|index| position(&format!("d{}", index % 50), now - 10_000 + i64::from(index), index))
        .collect();
    let mut writers = tokio::task::JoinSet::new();
    for (seed, conflate) in [(1_u64, Conflate::On), (2, Conflate::Off), (3, Conflate::On)] {
        let sink = sink(SinkConfig { conflate, ..config(port) }).await;
        let shuffled = shuffled(history.clone(), seed);
        writers.spawn(async move {
            for part in shuffled.chunks(70) {
                write(&sink, part.to_vec()).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let newest: HashMap<_, _> = history.iter().map(|event| (event.driver_id.as_str(), event)).collect();
    for (driver, event) in newest {
        let speed = event.speed.map(|speed| speed as u16);
        assert_eq!((mark(port, driver), expires_at(port, driver)), (speed, event.effective_at_ms + 30_000), "{driver}");
    }
}

/// Fisher-Yates with a multiplicative generator: the same for the same seed.
fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let mut state = seed;
    for index in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(index, (state >> 33) as usize % (index + 1));
    }
    items
}
