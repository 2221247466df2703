//! Peers that are no broker of ours: too old (no such broker is at hand, so a responder says what one would), or no
//! broker at all.

use std::net::SocketAddr;

use bytes::BytesMut;
use kafka::{Client, ClientConfig, Error, ErrorKind, Security};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};
use kafka_protocol::protocol::Encodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::broker::broker;

/// Answers the first request of each connection with `answer` of its correlation id, then says nothing.
async fn responder(answer: impl Fn(i32) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 12];
            if stream.read_exact(&mut head).await.is_ok() {
                let correlation_id = i32::from_be_bytes(head[8..].try_into().unwrap());
                stream.write_all(&answer(correlation_id)).await.unwrap();
                kept.push(stream);
            }
        }
    });
    address
}

fn frame(correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).unwrap() + 4;
    [&length.to_be_bytes()[..], &correlation_id.to_be_bytes(), body].concat()
}

async fn refusal(address: SocketAddr, security: Security) -> Error {
    let config = ClientConfig::new(vec![address.to_string()], "foreign-test").secured(security);
    let error = Client::new(config).broker_count().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal, "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    error
}

/// Kafka before 2.4 answers a version of ApiVersions that it does not know in version 0 (KIP-511).
#[tokio::test]
async fn a_broker_before_2_4_is_told_the_version_that_is_needed() {
    let unsupported_version_and_no_keys = [0, 35, 0, 0, 0, 0];
    let old = responder(move |id| frame(id, &unsupported_version_and_no_keys)).await;
    let error = refusal(old, Security::default()).await;
    let expected = format!("Kafka at {old} does not support ApiVersions version 3; Kafka 3.0 or newer is needed");
    assert_eq!(error.to_string(), expected);
}

/// Kafka 2.8 knows ApiVersions 3 and not yet what we ask after it.
#[tokio::test]
async fn a_broker_before_3_0_is_told_the_version_that_is_needed() {
    let old = responder(|id| frame(id, &versions_of_2_8())).await;
    let error = refusal(old, Security::default()).await;
    let expected = format!("Kafka at {old} does not support FindCoordinator version 4; Kafka 3.0 or newer is needed");
    assert_eq!(error.to_string(), expected);
}

fn versions_of_2_8() -> Vec<u8> {
    let keys =
        [(ApiKey::Metadata, 11), (ApiKey::FindCoordinator, 3), (ApiKey::OffsetFetch, 7), (ApiKey::ApiVersions, 3)];
    let keys = keys.map(|(key, max)| ApiVersion::default().with_api_key(key as i16).with_max_version(max));
    let mut body = BytesMut::new();
    ApiVersionsResponse::default().with_api_keys(keys.to_vec()).encode(&mut body, 3).unwrap();
    body.to_vec()
}

#[tokio::test]
async fn a_web_server_is_told_from_a_broker() {
    let web = responder(|_| b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()).await;
    let error = refusal(web, Security::default()).await;
    assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains("--brokers"), "{error}");
    let error = refusal(web, Security { tls: Some(broker().tls()), sasl: None }).await;
    assert!(error.to_string().contains("it does not speak TLS; check --brokers and --kafka-security"), "{error}");
}

/// An answer that is cut short is no answer: the broker may be going away, and is asked again.
#[tokio::test]
async fn a_broker_that_closes_at_once_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    for security in [Security::default(), Security { tls: Some(broker().tls()), sasl: None }] {
        let config = ClientConfig::new(vec![address.to_string()], "foreign-test").secured(security);
        let error = Client::new(config).broker_count().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    }
}
