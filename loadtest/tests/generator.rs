//! The generator against a small HTTP server of the test's own, over real sockets.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loadtest::clock::Clock;
use loadtest::generator::{self, GeneratorConfig, Handle, Target, Told};
use loadtest::ledger::{EventKey, Outcome};
use loadtest::plan::{Plan, Stage};
use loadtest::roster::Roster;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with a request.
enum Reply {
    Answer(u16, String),
    HangUp,
    Silence,
}

type Script = Arc<dyn Fn(&Value) -> Reply + Send + Sync>;

/// A server that answers each request by a script.
async fn serve(script: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script: Script = Arc::new(script);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, Arc::clone(&script)));
        }
    });
    address
}

async fn talk(mut stream: TcpStream, script: Script) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let body = next_body(&mut stream, &mut bytes).await?;
        match script(&serde_json::from_slice(&body).unwrap()) {
            Reply::Answer(status, body) => {
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.ok()?;
            }
            Reply::HangUp => return None,
            Reply::Silence => std::future::pending().await,
        }
    }
}

async fn next_body(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
            let length: usize = text.rsplit_once("content-length: ").unwrap().1.parse().unwrap();
            if bytes.len() >= head + 4 + length {
                let rest = bytes.split_off(head + 4 + length);
                return Some(std::mem::replace(bytes, rest).split_off(head + 4));
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn config(address: SocketAddr, stages: &[(u32, u64)]) -> GeneratorConfig {
    let stage = |(number, &(rate, ms)): (usize, &(u32, u64))| {
        Stage::of(format!("{number}"), rate, Duration::from_millis(ms), 50_000)
    };
    GeneratorConfig {
        name: "generator",
        target: Target { address, host: address.to_string() },
        plan: Arc::new(Plan::new(stages.iter().enumerate().map(stage).collect())),
        roster: Roster::Crowd,
        positions_per_post: 1,
        connections: 256,
        tick: Duration::from_millis(1),
        send_within: Duration::from_secs(5),
        answer_within: Duration::from_secs(5),
    }
}

async fn finish(handle: Handle) -> Told {
    tokio::task::spawn_blocking(|| handle.join()).await.unwrap().unwrap()
}

async fn play(config: GeneratorConfig) -> Told {
    finish(generator::spawn(config, Clock::starting_in(Duration::from_millis(5))).unwrap()).await
}

fn accept() -> Reply {
    Reply::Answer(202, r#"{"nextUpdateMs":2000}"#.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_sent_once_and_the_ledger_knows_each() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let address = serve(move |body| {
        notes
            .lock()
            .unwrap()
            .push((body["driverId"].as_str().unwrap().to_owned(), body["timestamp"].as_i64().unwrap()));
        accept()
    })
    .await;
    let clock = Clock::starting_in(Duration::from_millis(5));
    let told = finish(generator::spawn(config(address, &[(500, 400), (2_000, 400)]), clock).unwrap()).await;
    let sent: Vec<EventKey> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(id, at)| EventKey::of(id.as_bytes(), *at, clock.base_ms()).unwrap())
        .collect();
    let ledger: HashSet<EventKey> = told.ledger.iter().map(|(key, _)| key).collect();
    assert_eq!(sent.len(), 1_000);
    assert_eq!(sent.into_iter().collect::<HashSet<_>>(), ledger);
    assert_eq!(told.ledger.count(Outcome::Accepted), 1_000);
    assert_eq!(told.statuses.into_iter().collect::<Vec<_>>(), [(202, 1_000)]);
    assert_eq!(told.stages[0].ack_us.len() + told.stages[1].ack_us.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_does_not_slow_the_offer() {
    let address = serve(|_| Reply::Silence).await;
    let mut config = config(address, &[(1_000, 1_000)]);
    config.connections = 10;
    config.send_within = Duration::from_millis(200);
    config.answer_within = Duration::from_millis(400);
    let told = play(config).await;
    assert_eq!(told.ledger.len(), 1_000);
    assert_eq!(told.ledger.count(Outcome::Unknown) + told.ledger.count(Outcome::NeverSent), 1_000);
    // Ten connections, each free again after 400 ms of silence.
    let unknown = told.ledger.count(Outcome::Unknown);
    assert!((10..=40).contains(&unknown), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_counted_by_its_status() {
    let address = serve(|body| match body["timestamp"].as_i64().unwrap() % 2 {
        0 => accept(),
        _ => Reply::Answer(503, String::new()),
    })
    .await;
    let told = play(config(address, &[(1_000, 500)])).await;
    assert_eq!(told.ledger.count(Outcome::Accepted), 250);
    assert_eq!(told.ledger.count(Outcome::Refused), 250);
    assert_eq!(told.statuses[&503], 250);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_leaves_its_event_unknown_and_no_other() {
    let address = serve(|body| match body["driverId"].as_str().unwrap() {
        "driver-7" => Reply::HangUp,
        _ => accept(),
    })
    .await;
    let told = play(config(address, &[(500, 1_000)])).await;
    assert_eq!(told.ledger.count(Outcome::Unknown), 1);
    assert_eq!(told.ledger.count(Outcome::Accepted), 499);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_is_settled_item_by_item() {
    let address = serve(|body| match body.as_array().unwrap().len() {
        10 => Reply::Answer(
            200,
            r#"{"accepted":8,"rejected":[{"index":3,"code":"x","retry":false},{"index":0,"code":"x","retry":false}]}"#
                .to_owned(),
        ),
        _ => Reply::Answer(200, r#"{"accepted":0,"rejected":[{"index":0,"code":"x","retry":true}]}"#.to_owned()),
    })
    .await;
    let mut config = config(address, &[(1_010, 100)]);
    config.positions_per_post = 10;
    let told = play(config).await;
    let refused: Vec<usize> = told
        .ledger
        .iter()
        .enumerate()
        .filter(|(_, (_, outcome))| *outcome == Outcome::Refused)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(told.ledger.len(), 101);
    assert_eq!(refused.len(), 21);
    assert_eq!(&refused[..4], [0, 3, 10, 13]);
    assert_eq!(refused[20], 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_server_costs_events_and_not_the_run() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut config = config(free, &[(1_000, 300)]);
    config.send_within = Duration::from_millis(50);
    let told = play(config).await;
    assert_eq!(told.ledger.count(Outcome::NeverSent), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_ends_the_offer_and_awaits_what_was_offered() {
    let address = serve(|_| accept()).await;
    let handle = generator::spawn(config(address, &[(1_000, 60_000)]), Clock::starting_in(Duration::ZERO)).unwrap();
    while handle.live().accepted < 100 {
        tokio::task::yield_now().await;
    }
    handle.stop();
    let told = finish(handle).await;
    assert!(told.ledger.len() < 10_000);
    assert_eq!(told.ledger.count(Outcome::Accepted), told.ledger.len() as u64);
}
