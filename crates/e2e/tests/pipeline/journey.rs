//! A position's way from the phone to the map and into the history.

use e2e::{Map, Phone, Row, Scene, eventually, now_ms, position, shared};
use serde_json::{Value, json};

/// How long a position may be on the map, from its effective time on.
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
    let map = scene.map().await;
    let mut phone = Phone::connect(ingest.address).await.unwrap();

    let taken_at = now_ms() - 1_000;
    let answer = phone.post(&position("driver-17", taken_at)).await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["nextUpdateMs"], 2_000);
    assert!((answer.json()["serverTime"].as_i64().unwrap() - now_ms()).abs() < 60_000, "{answer:?}");
    is_on_the_map(&map, "driver-17", taken_at).await;
    is_in_the_history(&scene, "driver-17", &[taken_at]).await;

    let bad = position("driver-18", taken_at).replace("40.7128", "null");
    let late = position("driver-19", taken_at - 2 * LIFE_MS);
    let batch = format!("[{},{bad},{late},{}]", position("driver-20", taken_at), position("driver-17", taken_at - 1));
    let answer = phone.post_batch(&batch).await.unwrap();
    let rejected = json!([{"index": 1, "code": "missing_latitude", "field": "latitude", "retry": false}]);
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(3)), "{answer:?}");
    assert_eq!(answer.json()["rejected"], rejected);
    is_on_the_map(&map, "driver-20", taken_at).await;
    is_in_the_history(&scene, "driver-19", &[taken_at - 2 * LIFE_MS]).await;
    is_in_the_history(&scene, "driver-17", &[taken_at - 1, taken_at]).await;

    // Once the group has committed all of them, what is not on the map will never be.
    let end = scene.ends().await;
    scene.reaches(&scene.redis_group(), &end).await;
    map.value("driver-18").await.expect_err("a refused position");
    map.value("driver-19").await.expect_err("a late position");
    assert_eq!(map.timestamp("driver-17").await, Ok(taken_at), "the newer position stays");
    assert_eq!(scene.letters().await.len(), 0);
}

async fn is_on_the_map(map: &Map, driver: &str, taken_at: i64) {
    let value = eventually("the position is on the map", async || map.value(driver).await).await;
    let expected =
        json!({"latitude": 40.7128, "longitude": -74.006, "heading": 90.0, "speed": 31.5, "timestamp": taken_at});
    assert_eq!(serde_json::from_str::<Value>(&value).unwrap(), expected);
    let (before, life, after) = (now_ms(), map.remaining_life_ms(driver).await, now_ms());
    let left = |now| taken_at + LIFE_MS - now;
    // Redis rounds to the millisecond that it began the command in.
    assert!((left(after) - 1..=left(before) + 1).contains(&life), "{life} ms left of {}", left(before));
}

async fn is_in_the_history(scene: &Scene<'_>, driver: &str, taken_at: &[i64]) {
    let history = scene.history();
    let rows = eventually("the position is in the history", async || {
        let rows = history.of(driver).await?;
        if rows.len() >= taken_at.len() { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let row = |taken_at: &i64| Row {
        latitude: 40.7128,
        longitude: -74.006,
        heading: Some(90.0),
        speed: Some(31.5),
        timestamp_ms: *taken_at,
    };
    assert_eq!(rows, taken_at.iter().map(row).collect::<Vec<_>>());
}
