//! A position's way from the phone to the map and into the history.

use e2e::{Phone, Row, Scene, eventually, now_ms, position, shared};
use serde_json::{Value, json};

const LIFE_MS: i64 = 30_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_position_travels_to_the_map_and_into_the_history() {
    let scene = Scene::set(shared().await, "journey", 3).await;
    let ingest = scene.ingest(&[]);
    let writers = [scene.redis_writer(&[]), scene.timescale_writer(&[])];
    ingest.service.becomes_ready().await;
    for writer in &writers {
        writer.becomes_ready().await;
    }
    let (map, history) = (scene.map().await, scene.history());
    let mut phone = Phone::connect(ingest.address).await.unwrap();

    let taken_at = now_ms() - 1_000;
    let answer = phone.post(&position("driver-17", taken_at)).await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["nextUpdateMs"], 2_000);
    assert!((body["serverTime"].as_i64().unwrap() - now_ms()).abs() < 60_000, "{answer:?}");

    let value = eventually("the position is on the map", async || map.value("driver-17").await).await;
    let expected = json!({"latitude": 40.7128, "longitude": -74.006, "heading": 90.0, "speed": 31.5, "timestamp": taken_at});
    assert_eq!(serde_json::from_str::<Value>(&value).unwrap(), expected);
    let (before, life, after) = (now_ms(), map.remaining_life_ms("driver-17").await, now_ms());
    let left = |now| taken_at + LIFE_MS - now;
    assert!((left(after)..=left(before)).contains(&life), "{life} ms left of {}", left(before));

    let row = Row { latitude: 40.7128, longitude: -74.006, heading: Some(90.0), speed: Some(31.5), timestamp_ms: taken_at };
    let rows = eventually("the position is in the history", async || {
        history.of("driver-17").await.and_then(|rows| if rows.is_empty() { Err("no row".to_owned()) } else { Ok(rows) })
    })
    .await;
    assert_eq!(rows, [row]);
}
