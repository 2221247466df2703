//! What HTTP asks for: the answer only after Kafka's acknowledgement, methods, paths, media types, framing.

use kafka::partition_for_key;

use crate::cluster::{PARTITIONS, Running, by_driver};
use crate::phone::{BATCH, Phone, SINGLE, now_ms, position, request};

const JSON: &str = "Content-Type: application/json";

#[tokio::test(flavor = "multi_thread")]
async fn a_202_means_that_the_event_is_in_kafka() {
    let ingest = Running::ready("http-202", &[]).await;
    let mut phone = Phone::connect(ingest.address).await;
    let mut expected = Vec::new();
    for driver in ["driver-17", "Jörg/🚕", "x"] {
        let sent = now_ms();
        let answer = phone.post(SINGLE, &position(driver, sent).to_string()).await;
        assert_eq!((answer.status, answer.header("content-type")), (202, Some("application/json")), "{answer:?}");
        let body = answer.json();
        assert_eq!(body["nextUpdateMs"], 2_000);
        assert!((sent..=now_ms()).contains(&body["serverTime"].as_i64().unwrap()), "{body}");
        // Read after the answer and before anything else is sent.
        let events = ingest.events().await;
        let event = events.iter().find(|event| event.key == driver).expect("the acknowledged event is in Kafka");
        assert_eq!(event.location.driver_id.as_str(), driver);
        assert_eq!((event.location.latitude, event.location.longitude), (40.7128, -74.006));
        assert_eq!((event.location.heading, event.location.speed), (Some(90.0), Some(31.5)));
        assert_eq!((event.location.timestamp_ms, event.location.effective_at_ms), (sent, sent));
        assert_eq!(event.record_time_ms, event.location.received_at_ms);
        assert_eq!(event.partition, partition_for_key(driver.as_bytes(), PARTITIONS).0);
        expected.push(driver);
        assert_eq!(events.len(), expected.len());
    }
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drivers_events_keep_their_order() {
    let ingest = Running::ready("http-order", &[]).await;
    let mut phone = Phone::connect(ingest.address).await;
    let start = now_ms() - 500;
    for at in 0..20 {
        assert_eq!(phone.post(SINGLE, &position("driver-1", start + at).to_string()).await.status, 202);
    }
    let batch: Vec<_> = (20..500).map(|at| position("driver-1", start + at).to_string()).collect();
    assert_eq!(phone.post(BATCH, &format!("[{}]", batch.join(","))).await.status, 200);
    let events = ingest.events().await;
    assert_eq!(by_driver(&events)["driver-1"], (start..start + 500).collect::<Vec<_>>());
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_methods_and_media_types_are_checked() {
    let ingest = Running::ready("http-refusals", &[]).await;
    let body = position("driver-1", now_ms()).to_string();
    let cases = [
        (request("POST", "/", &[JSON], &body), 404, "not_found"),
        (request("POST", "/api/drivers/location/", &[JSON], &body), 404, "not_found"),
        (request("GET", "/metrics", &[], ""), 404, "not_found"),
        (request("GET", SINGLE, &[], ""), 405, "method_not_allowed"),
        (request("PUT", SINGLE, &[JSON], &body), 405, "method_not_allowed"),
        (request("DELETE", BATCH, &[], ""), 405, "method_not_allowed"),
        (request("POST", SINGLE, &[], &body), 415, "unsupported_media_type"),
        (request("POST", SINGLE, &["Content-Type: text/plain"], &body), 415, "unsupported_media_type"),
        (
            request("POST", BATCH, &["Content-Type: application/x-www-form-urlencoded"], &body),
            415,
            "unsupported_media_type",
        ),
        (request("POST", SINGLE, &[JSON, "Content-Encoding: br"], &body), 415, "unsupported_content_encoding"),
    ];
    for (request, status, code) in cases {
        let answer = Phone::connect(ingest.address).await.send(&request).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{request}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("POST"), "{request}");
    }
    let typed = request("POST", SINGLE, &["content-type: Application/JSON; charset=utf-8"], &body);
    assert_eq!(Phone::connect(ingest.address).await.send(&typed).await.status, 202);
    let queried = request("POST", &format!("{SINGLE}?x=1"), &[JSON], &body);
    assert_eq!(Phone::connect(ingest.address).await.send(&queried).await.status, 202);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_the_connection_usable() {
    let ingest = Running::ready("http-keepalive", &[]).await;
    let mut phone = Phone::connect(ingest.address).await;
    assert_eq!(phone.post(SINGLE, "nonsense").await.status, 400);
    assert_eq!(phone.post("/nowhere", "{}").await.status, 404);
    assert_eq!(phone.post(SINGLE, &position("driver-1", now_ms()).to_string()).await.status, 202);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_pipelines_and_expectations_are_understood() {
    let ingest = Running::ready("http-framing", &[]).await;
    let body = position("driver-1", now_ms()).to_string();

    let mut phone = Phone::connect(ingest.address).await;
    phone.write(&format!("POST {SINGLE} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    let (front, back) = body.split_at(body.len() / 2);
    for part in [front, back] {
        phone.write(&format!("{:x}\r\n{part}\r\n", part.len())).await;
    }
    assert_eq!(phone.send("0\r\nX-Trailer: 1\r\n\r\n").await.status, 202);

    let two = request("POST", SINGLE, &[JSON], &body).repeat(2);
    assert_eq!(phone.send(&two).await.status, 202);
    assert_eq!(phone.answer().await.status, 202);

    let length = body.len();
    let expecting = format!(
        "POST {SINGLE} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    );
    assert_eq!(phone.send(&expecting).await.status, 100);
    assert_eq!(phone.send(&body).await.status, 202);

    let old = format!("POST {SINGLE} HTTP/1.0\r\n{JSON}\r\nContent-Length: {length}\r\n\r\n{body}");
    assert_eq!(phone.send(&old).await.status, 202);
    assert!(phone.is_closed().await);
    assert_eq!(ingest.events().await.len(), 5);
    ingest.stop().await.unwrap();
}
