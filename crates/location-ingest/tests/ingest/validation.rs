//! Each rule of validation, alone and in a batch.

use serde_json::{Value, json};

use crate::cluster::Running;
use crate::phone::{BATCH, Phone, SINGLE, now_ms, position};

/// A right position with one field replaced by raw JSON.
fn with(field: &str, raw: &str) -> String {
    let mut position = position("driver-1", now_ms());
    position[field] = json!("REPLACED");
    position.to_string().replace("\"REPLACED\"", raw)
}

fn without(field: &str) -> String {
    let mut position = position("driver-1", now_ms());
    position.as_object_mut().unwrap().remove(field);
    position.to_string()
}

/// Everything that can be wrong with one position: JSON, code, field.
fn faults() -> Vec<(String, &'static str, Option<&'static str>)> {
    let day_ahead = (now_ms() + 24 * 3_600_000 + 60_000).to_string();
    let (long_id, right_id) = (format!("\"{}\"", "x".repeat(129)), "\"driver-1\"");
    let mut faults = vec![
        ("7".to_owned(), "not_an_object", None),
        ("[]".to_owned(), "not_an_object", None),
        (without("driverId"), "missing_driver_id", Some("driverId")),
        (without("latitude"), "missing_latitude", Some("latitude")),
        (without("longitude"), "missing_longitude", Some("longitude")),
        (without("timestamp"), "missing_timestamp", Some("timestamp")),
        (format!("{{\"driverId\":{right_id},\"driverId\":{right_id}}}"), "invalid_driver_id", Some("driverId")),
    ];
    let values: &[(&'static str, &[&str], &'static str)] = &[
        ("driverId", &["null"], "missing_driver_id"),
        ("driverId", &["\"\"", "17", &long_id, "\"a\\u0000b\"", "\"a\\nb\""], "invalid_driver_id"),
        ("latitude", &["null"], "missing_latitude"),
        ("latitude", &["90.01", "-91", "\"40\"", "1e400", "[]"], "invalid_latitude"),
        ("longitude", &["null"], "missing_longitude"),
        ("longitude", &["180.01", "-181", "true"], "invalid_longitude"),
        ("heading", &["-1", "360.5", "\"N\"", "1e39"], "invalid_heading"),
        ("speed", &["-0.1", "1e39", "{}"], "invalid_speed"),
        ("timestamp", &["null"], "missing_timestamp"),
        ("timestamp", &["\"now\"", "1.5", "9223372036854775808"], "invalid_timestamp"),
        ("timestamp", &["0", "946684799999", "1795441689"], "timestamp_too_old"),
        ("timestamp", &[&day_ahead, "9223372036854775807"], "timestamp_too_far_ahead"),
        ("sentAt", &["0", "\"now\"", &day_ahead], "invalid_sent_at"),
    ];
    for (field, raws, code) in values {
        faults.extend(raws.iter().map(|raw| (with(field, raw), *code, Some(*field))));
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_alone_is_a_400_with_code_and_field() {
    let ingest = Running::ready("validation-alone", &[]).await;
    let mut phone = Phone::connect(ingest.address).await;
    for (body, code, field) in faults() {
        let before = ingest.counter(&format!("ingest_events_rejected_total{{reason=\"{code}\"}}"));
        let answer = phone.post(SINGLE, &body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, code), "{body}");
        assert_eq!(answer.json().get("field").and_then(Value::as_str), field, "{body}");
        assert!(ingest.counter(&format!("ingest_events_rejected_total{{reason=\"{code}\"}}")) > before, "{code}");
    }
    for body in ["", "{", "nonsense", "{\"latitude\":NaN}"] {
        let answer = phone.post(SINGLE, body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "malformed_json"), "{body}");
    }
    assert!(ingest.events().await.is_empty());
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_in_a_batch_is_one_rejected_item_among_accepted_ones() {
    let ingest = Running::ready("validation-batch", &[]).await;
    let now = now_ms();
    // good, bad, good, bad, …, good
    let faults = faults();
    let mut items = vec![position("driver-0", now).to_string()];
    for (at, (body, _, _)) in (1..).zip(&faults) {
        items.extend([body.clone(), position(&format!("driver-{at}"), now).to_string()]);
    }
    let answer = Phone::connect(ingest.address).await.post(BATCH, &format!("[{}]", items.join(","))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["accepted"], faults.len() + 1);
    let rejected = body["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), faults.len());
    for (at, (item, (_, code, field))) in rejected.iter().zip(&faults).enumerate() {
        let mut expected = json!({"index": 2 * at + 1, "code": code, "retry": false});
        if let Some(field) = field {
            expected["field"] = json!(field);
        }
        assert_eq!(*item, expected);
    }
    let mut drivers: Vec<_> = ingest.events().await.into_iter().map(|event| event.key).collect();
    let mut expected: Vec<_> = (0..=faults.len()).map(|at| format!("driver-{at}")).collect();
    drivers.sort();
    expected.sort();
    assert_eq!(drivers, expected);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_as_a_whole_can_be_refused() {
    let ingest = Running::ready("validation-whole", &[]).await;
    let mut phone = Phone::connect(ingest.address).await;
    let start = now_ms() - 2_000;
    let batch = |count| {
        let items: Vec<_> = (0..count).map(|at| position("driver-1", start + at).to_string()).collect();
        format!("[{}]", items.join(","))
    };
    for (body, status, code) in [
        ("", 400, "malformed_json"),
        ("[{]", 400, "malformed_json"),
        ("{}", 400, "not_an_array"),
        (&position("driver-1", now_ms()).to_string(), 400, "not_an_array"),
        (&batch(1_001), 413, "too_many_positions"),
    ] {
        let answer = phone.post(BATCH, body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{:.40}", body);
        if status == 413 {
            phone = Phone::connect(ingest.address).await;
        }
    }
    let empty = phone.post(BATCH, "[]").await;
    assert_eq!((empty.status, empty.json()["accepted"].as_i64()), (200, Some(0)));
    let largest = phone.post(BATCH, &batch(1_000)).await;
    assert_eq!((largest.status, largest.json()["accepted"].as_i64()), (200, Some(1_000)), "{largest:?}");
    assert_eq!(ingest.events().await.len(), 1_000);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_within_a_batch_is_dropped_and_said() {
    let ingest = Running::ready("validation-duplicates", &[]).await;
    let (one, other, at) = (position("driver-1", now_ms()), position("driver-2", now_ms()), now_ms() - 100);
    let batch = format!("[{one},{other},{one},{},{one}]", position("driver-1", at));
    let answer = Phone::connect(ingest.address).await.post(BATCH, &batch).await;
    let rejected = serde_json::json!([
        {"index": 2, "code": "duplicate", "retry": false},
        {"index": 4, "code": "duplicate", "retry": false},
    ]);
    assert_eq!((answer.status, &answer.json()["rejected"]), (200, &rejected));
    assert_eq!(answer.json()["accepted"], 3);
    assert_eq!(ingest.events().await.len(), 3);
    ingest.stop().await.unwrap();
}
