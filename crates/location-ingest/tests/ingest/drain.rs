//! Shutdown inside the process: what was accepted is finished, and nothing new is taken in.

use tokio::net::TcpStream;

use crate::cluster::Running;
use crate::phone::{Phone, SINGLE, now_ms, position, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_finished_and_its_connection_closed() {
    let ingest = Running::ready("drain-request", &[]).await;
    let address = ingest.address;
    let body = position("driver-1", now_ms()).to_string();
    let whole = request("POST", SINGLE, &["Content-Type: application/json"], &body);
    let mut under_way = Phone::connect(address).await;
    under_way.write(&whole[..whole.len() - 10]).await;
    let mut idle = Phone::connect(address).await;
    assert_eq!(idle.post(SINGLE, &body).await.status, 202);
    // Both connections have been accepted by now; the first may still be unread.
    while ingest.counter("ingest_connections") < 2 {
        tokio::task::yield_now().await;
    }
    let context = ingest.context.clone();
    let stopped = tokio::spawn(ingest.stop());
    context.shutdown.cancelled().await;
    assert!(!context.health.is_ready());
    assert!(idle.is_closed().await);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let answer = under_way.send(&whole[whole.len() - 10..]).await;
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
    stopped.await.unwrap().unwrap();
}
