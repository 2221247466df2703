//! What phones send already, each on its own path, all the way into Kafka.

use event::DriverLocation;
use serde_json::json;

use crate::cluster::{Running, by_driver};
use crate::phone::{Answer, BATCH, Phone, now_ms, position, request};

const JSON: &str = "Content-Type: application/json";
const OVERLAND: &str = "/api/drivers/overland";
const OWNTRACKS: &str = "/api/drivers/owntracks";
const OSMAND: &str = "/api/drivers/osmand";
const TRACCAR: &str = "/api/drivers/traccar";

async fn send(ingest: &Running, request: &str) -> Answer {
    Phone::connect(ingest.address).await.send(request).await
}

async fn post(ingest: &Running, path: &str, body: &str) -> Answer {
    send(ingest, &request("POST", path, &[JSON], body)).await
}

async fn only(ingest: &Running, driver: &str) -> DriverLocation {
    let mut events = ingest.events().await;
    events.retain(|event| event.key == driver);
    assert_eq!(events.len(), 1, "{driver}");
    events.remove(0).location
}

#[tokio::test(flavor = "multi_thread")]
async fn overland_sends_many_late_ones_included_and_hears_ok() {
    let ingest = Running::ready("formats-overland", &[]).await;
    let late = ingest.counter("ingest_events_late_total");
    let answer = post(&ingest, OVERLAND, include_str!("../formats/overland.json")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"result":"ok"}"#));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let events = ingest.events().await;
    assert_eq!(by_driver(&events)["overland-1"], [1_443_711_600_000, 1_443_711_610_000]);
    let first = &events[0].location;
    assert_eq!((first.longitude, first.latitude), (-122.681_29, 45.520_43), "longitude comes first");
    assert_eq!((first.speed, first.heading), (Some(4.0), None));
    assert!(events.iter().all(|event| event.location.is_late()), "history only, never the map");
    assert!(ingest.counter("ingest_events_late_total") >= late + 2);

    // A wrong one never fails the rest, and is not to be sent again.
    let body = json!({"locations": [7, {"geometry": {"coordinates": [2, 1]}, "properties": {"timestamp": "2026-11-24T03:46:08Z"}}]});
    let answer = post(&ingest, &format!("{OVERLAND}?device_id=query-1"), &body.to_string()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"result":"ok"}"#));
    only(&ingest, "query-1").await;
    let answer = post(&ingest, OVERLAND, "{}").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "wrong_format"));
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn owntracks_sends_kilometres_an_hour() {
    let ingest = Running::ready("formats-owntracks", &[]).await;
    let answer = post(&ingest, OWNTRACKS, include_str!("../formats/owntracks.json")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "[]"), "{answer:?}");
    let event = only(&ingest, "jane/phone").await;
    assert_eq!((event.speed, event.heading, event.timestamp_ms), (Some(15.0), Some(90.0), 1_795_441_689_000));
    let body = json!({"_type": "location", "lat": 1, "lon": 2, "tst": now_ms() / 1_000, "vel": -1}).to_string();
    let named = request("POST", OWNTRACKS, &["X-Limit-U: u", "X-Limit-D: d"], &body);
    assert_eq!(send(&ingest, &named).await.status, 200);
    assert_eq!(only(&ingest, "u/d").await.speed, None);
    assert_eq!(post(&ingest, OWNTRACKS, r#"{"_type":"waypoint"}"#).await.body, "[]");
    let answer = post(&ingest, OWNTRACKS, r#"{"_type":"location","tid":"x","lat":91,"lon":0,"tst":1795441689}"#).await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid_latitude"));
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn osmand_sends_knots_in_a_query_or_a_form() {
    let ingest = Running::ready("formats-osmand", &[]).await;
    let fields = |id: &str| format!("id={id}&lat=40.7128&lon=-74.006&timestamp=1795441689&speed=10&bearing=90&hdop=3");
    let query = format!("GET {OSMAND}?{} HTTP/1.1\r\nHost: x\r\n\r\n", fields("query"));
    let form = request("POST", OSMAND, &["Content-Type: application/x-www-form-urlencoded"], &fields("form"));
    let posted = request("POST", &format!("{OSMAND}?{}", fields("posted")), &[], "");
    for (driver, request) in [("query", query), ("form", form), ("posted", posted)] {
        let answer = send(&ingest, &request).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
        let event = only(&ingest, driver).await;
        assert!((event.speed.unwrap() - 5.144_444).abs() < 1e-5, "ten knots in m/s: {:?}", event.speed);
        assert_eq!((event.latitude, event.heading), (40.7128, Some(90.0)));
        assert_eq!(event.timestamp_ms, 1_795_441_689_000);
    }
    let wrong = format!("GET {OSMAND}?id=d&lat=x&lon=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = send(&ingest, &wrong).await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid_latitude"));
    let other = request("PUT", OSMAND, &[], "");
    let answer = send(&ingest, &other).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST")));
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn traccars_client_sends_one_or_many() {
    let ingest = Running::ready("formats-traccar", &["--max-batch-positions=2"]).await;
    let answer = post(&ingest, TRACCAR, include_str!("../formats/traccar.json")).await;
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(1)));
    let event = only(&ingest, "traccar-1").await;
    assert_eq!((event.speed, event.heading, event.timestamp_ms), (Some(12.5), None, 1_795_491_968_250));
    let at = |latitude: f64| json!({"timestamp": now_ms(), "coords": {"latitude": latitude, "longitude": 2}});
    let body = json!({"device_id": "traccar-2", "location": [at(91.0), at(1.0)]}).to_string();
    let answer = post(&ingest, TRACCAR, &body).await.json();
    assert_eq!(answer["accepted"], 1);
    assert_eq!(
        answer["rejected"],
        json!([{"index": 0, "code": "invalid_latitude", "field": "latitude", "retry": false}])
    );
    let body = json!({"device_id": "traccar-2", "location": [at(1.0), at(1.0), at(1.0)]}).to_string();
    assert_eq!(post(&ingest, TRACCAR, &body).await.problem(), "too_many_positions");
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_json_are_a_batch() {
    let ingest = Running::ready("formats-lines", &[]).await;
    let start = now_ms() - 10;
    let lines = format!("{}\n\n{}\r\nnonsense\n", position("driver-1", start), position("driver-1", start + 1));
    let answer = send(&ingest, &request("POST", BATCH, &["Content-Type: application/x-ndjson"], &lines)).await;
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(2)), "{answer:?}");
    assert_eq!(answer.json()["rejected"], json!([{"index": 2, "code": "malformed_json", "retry": false}]));
    assert_eq!(by_driver(&ingest.events().await)["driver-1"], [start, start + 1]);
    ingest.stop().await.unwrap();
}
