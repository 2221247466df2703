//! Clients that send too much, too slowly, or come in too great a number.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::cluster::Running;
use crate::phone::{BATCH, Phone, SINGLE, now_ms, position, request};

const JSON: &str = "Content-Type: application/json";

/// A right position, followed by as much white space as it takes.
fn padded(bytes: usize) -> String {
    let mut body = position("driver-1", now_ms()).to_string();
    body.extend(std::iter::repeat_n(' ', bytes - body.len()));
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_its_limit_is_a_413() {
    let ingest = Running::ready("limits-body", &["--max-body=1KiB", "--max-batch-body=4KiB"]).await;
    let connect = || Phone::connect(ingest.address);
    assert_eq!(connect().await.post(SINGLE, &padded(1_024)).await.status, 202);
    for (path, bytes) in [(SINGLE, 1_025), (SINGLE, 500_000), (BATCH, 4_097)] {
        let answer = connect().await.post(path, &padded(bytes)).await;
        assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"), "{bytes}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    // By its chunks alone nobody can tell beforehand.
    let head = format!("POST {SINGLE} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunks = format!("400\r\n{}\r\n", padded(1_024)).repeat(2);
    let answer = connect().await.send(&format!("{head}{chunks}0\r\n\r\n")).await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"));
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_a_408() {
    let ingest = Running::ready("limits-slow-body", &["--body-timeout=200ms"]).await;
    let body = position("driver-1", now_ms()).to_string();
    let whole = request("POST", SINGLE, &[JSON], &body);
    let mut phone = Phone::connect(ingest.address).await;
    let answer = phone.send(&whole[..whole.len() - 1]).await;
    assert_eq!((answer.status, answer.problem().as_str()), (408, "body_too_slow"));
    assert!(phone.is_closed().await);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_header_and_an_idle_connection_are_closed() {
    let ingest = Running::ready("limits-slow-header", &["--header-timeout=200ms"]).await;
    let mut slow = Phone::connect(ingest.address).await;
    slow.write("POST /api/drivers").await;
    assert!(slow.is_closed().await);
    while ingest.counter("ingest_problems_total{code=\"header_too_slow\"}") == 0 {
        tokio::task::yield_now().await;
    }
    let mut idle = Phone::connect(ingest.address).await;
    assert_eq!(idle.post(SINGLE, &position("driver-1", now_ms()).to_string()).await.status, 202);
    assert!(idle.is_closed().await);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_over_its_limit_is_refused_and_counted() {
    let ingest = Running::ready("limits-header", &["--max-header=8KiB"]).await;
    let sized = |bytes: usize| format!("X-Huge: {}", "x".repeat(bytes));
    let body = position("driver-1", now_ms()).to_string();
    let answer =
        Phone::connect(ingest.address).await.send(&request("POST", SINGLE, &[JSON, &sized(7_000)], &body)).await;
    assert_eq!(answer.status, 202);
    let counted = "ingest_problems_total{code=\"header_too_large\"}";
    let before = ingest.counter(counted);
    let mut phone = Phone::connect(ingest.address).await;
    assert_eq!(phone.send(&request("POST", SINGLE, &[JSON, &sized(64 << 10)], "{}")).await.status, 431);
    while ingest.counter(counted) == before {
        tokio::task::yield_now().await;
    }
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_over_the_limit_waits_for_a_place() {
    let ingest = Running::ready("limits-connections", &["--max-connections=2"]).await;
    let body = position("driver-1", now_ms()).to_string();
    let (mut first, mut second) = (Phone::connect(ingest.address).await, Phone::connect(ingest.address).await);
    assert_eq!(first.post(SINGLE, &body).await.status, 202);
    assert_eq!(second.post(SINGLE, &body).await.status, 202);
    assert_eq!(ingest.counter("ingest_connections"), 2);
    let mut third = Phone::connect(ingest.address).await;
    third.write(&request("POST", SINGLE, &[JSON], &body)).await;
    drop(first);
    assert_eq!(third.answer().await.status, 202);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_bodies_have_one_memory_and_whole_ones_need_none_of_it() {
    let flags = ["--max-body-bytes-in-flight=1MiB", "--max-batch-body=1MiB"];
    let ingest = Running::ready("limits-memory", &flags).await;
    let large = request("POST", BATCH, &[JSON], &format!("[{}]", " ".repeat(1_000_000)));
    let mut hog = TcpStream::connect(ingest.address).await.unwrap();
    hog.write_all(&large.as_bytes()[..900_000]).await.unwrap();
    while ingest.counter("ingest_body_in_flight_bytes") < 800_000 {
        tokio::task::yield_now().await;
    }
    let answer = Phone::connect(ingest.address).await.send(&large).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too_many_bytes_in_flight"));
    let small = position("driver-1", now_ms()).to_string();
    assert_eq!(Phone::connect(ingest.address).await.post(SINGLE, &small).await.status, 202);
    drop(hog);
    while ingest.counter("ingest_body_in_flight_bytes") > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Phone::connect(ingest.address).await.send(&large).await.status, 200);
    ingest.stop().await.unwrap();
}
