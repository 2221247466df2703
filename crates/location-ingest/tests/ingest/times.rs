//! Wrong clocks and late uploads, through the whole service.

use serde_json::{Value, json};

use crate::cluster::{Running, by_driver};
use crate::phone::{Phone, SINGLE, now_ms, position, request};

const MINUTE: i64 = 60_000;

/// Posts, and gives the effective time relative to the receipt.
async fn effective_age(ingest: &Running, body: &Value, headers: &[&str]) -> i64 {
    let headers = [&["Content-Type: application/json"], headers].concat();
    let answer = Phone::connect(ingest.address).await.send(&request("POST", SINGLE, &headers, &body.to_string())).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let events = ingest.events().await;
    let driver = body["driverId"].as_str().unwrap();
    let event = &events.iter().find(|event| event.key == driver).unwrap().location;
    assert_eq!(event.timestamp_ms, body["timestamp"].as_i64().unwrap(), "the phone's own timestamp is kept");
    event.received_at_ms - event.effective_at_ms
}

fn is_about(age: i64, expected: i64) -> bool {
    (age - expected).abs() < 5_000
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_clock_is_corrected_by_sent_at_or_date() {
    let ingest = Running::ready("times-slow", &[]).await;
    let corrected = ingest.counter("ingest_clocks_corrected_total");
    let phone = now_ms() - 5 * MINUTE;
    let mut stated = position("sent-at", phone - 100);
    stated["sentAt"] = json!(phone);
    assert!(is_about(effective_age(&ingest, &stated, &[]).await, 100));

    let date = httpdate::fmt_http_date(std::time::SystemTime::now() - std::time::Duration::from_secs(300));
    let dated = position("date", phone - 100);
    assert!(is_about(effective_age(&ingest, &dated, &[&format!("Date: {date}")]).await, 100));
    assert!(ingest.counter("ingest_clocks_corrected_total") >= corrected + 2);

    let late = ingest.counter("ingest_events_late_total");
    let silent = position("silent", phone - 100);
    assert!(is_about(effective_age(&ingest, &silent, &["Date: whenever"]).await, 5 * MINUTE + 100));
    assert!(ingest.counter("ingest_events_late_total") > late);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_clock_is_clamped_and_counted() {
    let ingest = Running::ready("times-fast", &[]).await;
    let clamped = ingest.counter("ingest_clocks_clamped_total");
    assert_eq!(effective_age(&ingest, &position("fast", now_ms() + 5 * MINUTE), &[]).await, 0);
    assert!(ingest.counter("ingest_clocks_clamped_total") > clamped);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buffered_hour_keeps_its_age_and_its_receipt() {
    let ingest = Running::ready("times-buffered", &[]).await;
    let now = now_ms();
    let batch: Vec<_> = (0..60)
        .map(|minute| {
            let mut point = position("tunnel", now - minute * MINUTE - 50);
            point["sentAt"] = json!(now);
            point.to_string()
        })
        .collect();
    let answer =
        Phone::connect(ingest.address).await.post(crate::phone::BATCH, &format!("[{}]", batch.join(","))).await;
    assert_eq!(answer.json()["accepted"], 60);
    let events = ingest.events().await;
    assert_eq!(by_driver(&events)["tunnel"].len(), 60);
    for event in &events {
        assert_eq!(event.record_time_ms, event.location.received_at_ms);
        assert!(event.record_time_ms >= now, "Kafka's time is the receipt, however old the position is");
        assert_eq!(event.location.effective_at_ms, event.location.timestamp_ms);
    }
    assert_eq!(events.iter().filter(|event| event.location.is_late()).count(), 59);
    ingest.stop().await.unwrap();
}
