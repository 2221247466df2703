//! Compressed bodies, and what they must not do.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::cluster::Running;
use crate::phone::{Answer, BATCH, Phone, SINGLE, now_ms, position};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(body).unwrap();
    out.finish().unwrap()
}

fn deflate(body: &[u8]) -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::default());
    out.write_all(body).unwrap();
    out.finish().unwrap()
}

async fn post(ingest: &Running, path: &str, coding: &str, body: &[u8]) -> Answer {
    let mut phone = Phone::connect(ingest.address).await;
    let length = body.len();
    phone.write(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\nContent-Length: {length}\r\n\r\n")).await;
    phone.write_bytes(body).await;
    phone.answer().await
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_deflate_and_zstd_are_read() {
    let ingest = Running::ready("encodings-read", &[]).await;
    let body = position("driver-1", now_ms()).to_string();
    let batch = format!("[{body}]");
    for (coding, single, many) in [
        ("gzip", gzip(body.as_bytes()), gzip(batch.as_bytes())),
        ("deflate", deflate(body.as_bytes()), deflate(batch.as_bytes())),
        ("zstd", zstd::encode_all(body.as_bytes(), 3).unwrap(), zstd::encode_all(batch.as_bytes(), 3).unwrap()),
    ] {
        assert_eq!(post(&ingest, SINGLE, coding, &single).await.status, 202, "{coding}");
        assert_eq!(post(&ingest, BATCH, coding, &many).await.status, 200, "{coding}");
        let answer = post(&ingest, SINGLE, coding, b"not that").await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "malformed_encoding"), "{coding}");
    }
    let answer = post(&ingest, SINGLE, "br", body.as_bytes()).await;
    assert_eq!((answer.status, answer.header("accept-encoding")), (415, Some("gzip, deflate, zstd")));
    assert_eq!(ingest.events().await.len(), 6);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_a_413_and_costs_no_memory() {
    let ingest = Running::ready("encodings-bomb", &["--max-batch-body=1MiB"]).await;
    let zeros = vec![b' '; 256 << 20];
    let bombs = [("gzip", gzip(&zeros)), ("zstd", zstd::encode_all(&zeros[..], 3).unwrap())];
    drop(zeros);
    for (coding, bomb) in bombs {
        assert!(bomb.len() < 1 << 20, "{coding}: {}", bomb.len());
        for _ in 0..4 {
            let answer = post(&ingest, BATCH, coding, &bomb).await;
            assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"), "{coding}");
        }
    }
    assert_eq!(ingest.counter("ingest_body_in_flight_bytes"), 0);
    assert_eq!(
        Phone::connect(ingest.address).await.post(SINGLE, &position("d", now_ms()).to_string()).await.status,
        202
    );
    ingest.stop().await.unwrap();
}
