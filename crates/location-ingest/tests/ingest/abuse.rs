//! What is done to a front door: connections that dawdle, bodies of any bytes, a broker that stops in mid-load, restarts.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cluster::{LIMIT, Running, disturbable, events};
use crate::phone::{BATCH, Phone, SINGLE, now_ms, position, request};

const JSON: &str = "Content-Type: application/json";
const SLOW_CONNECTIONS: usize = 1_000;
/// How long the broker stands still; `LONG=1` for what is promised.
const FROZEN: Duration = Duration::from_secs(4);
const FROZEN_LONG: Duration = Duration::from_secs(20);
/// Bodies of random and changed bytes; `LONG=1` for a million.
const BODIES: usize = 2_000;
const BODIES_LONG: usize = 1_000_000;
const SENDERS: usize = 16;

fn is_long() -> bool {
    std::env::var_os("LONG").is_some()
}

/// A driver who posts one position after the other and keeps what was acknowledged.
struct Driver {
    name: String,
    acknowledged: Vec<i64>,
    /// Statuses of the answers that were no 202.
    refused: Vec<u16>,
    /// Connections that ended without an answer.
    unanswered: usize,
}

fn drive(
    name: String,
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    total: Arc<AtomicUsize>,
) -> JoinHandle<Driver> {
    tokio::spawn(async move {
        let mut driver = Driver { name, acknowledged: Vec::new(), refused: Vec::new(), unanswered: 0 };
        let mut phone = None;
        let mut at = 0;
        for timestamp in now_ms() - 60_000.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if phone.is_none() {
                // Another one each time, as behind a load balancer; one that is gone is passed over.
                at += 1;
                phone = Phone::try_connect(addresses[at % addresses.len()]).await;
                if phone.is_none() {
                    continue;
                }
            }
            let body = position(&driver.name, timestamp).to_string();
            let whole = request("POST", SINGLE, &[JSON], &body);
            let Some(connected) = &mut phone else { continue };
            let answer = match connected.try_write(&whole).await {
                Ok(()) => connected.try_answer().await,
                Err(_) => None,
            };
            match answer {
                Some(answer) if answer.status == 202 => {
                    total.fetch_add(1, Ordering::Relaxed);
                    driver.acknowledged.push(timestamp);
                    if answer.header("connection") == Some("close") {
                        phone = None;
                    }
                }
                Some(answer) => {
                    driver.refused.push(answer.status);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                None => {
                    driver.unanswered += 1;
                    phone = None;
                }
            }
        }
        driver
    })
}

async fn grows(total: &AtomicUsize, by: usize) -> Duration {
    let (started, before) = (Instant::now(), total.load(Ordering::Relaxed));
    let grown = async {
        while total.load(Ordering::Relaxed) < before + by {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, grown).await.expect("positions are acknowledged");
    started.elapsed()
}

/// Ends the drivers and checks that nothing that was acknowledged is missing.
async fn nothing_is_lost(
    drivers: Vec<JoinHandle<Driver>>,
    stop: &AtomicBool,
    bootstrap: &str,
    topic: &str,
) -> Vec<Driver> {
    stop.store(true, Ordering::Relaxed);
    let mut ended = Vec::new();
    for driver in drivers {
        ended.push(tokio::time::timeout(LIMIT, driver).await.expect("a driver ends").unwrap());
    }
    let events = events(bootstrap, topic).await;
    let stored: HashSet<_> = events.iter().map(|event| (event.key.as_str(), event.location.timestamp_ms)).collect();
    for driver in &ended {
        for timestamp in &driver.acknowledged {
            assert!(
                stored.contains(&(driver.name.as_str(), *timestamp)),
                "{} {timestamp} was acknowledged",
                driver.name
            );
        }
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_connections_hold_nothing_that_others_need() {
    let ingest = Running::ready("abuse-slow", &[]).await;
    let mut slow = Vec::new();
    for at in 0..SLOW_CONNECTIONS {
        let mut stream = TcpStream::connect(ingest.address).await.unwrap();
        // Some dawdle in the preface, some in the header, some in the body.
        let begun = match at % 3 {
            0 => "P".to_owned(),
            1 => format!("POST {SINGLE} HTTP/1.1\r\nHost: x\r\nX-Slow: "),
            _ => format!("POST {SINGLE} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n{{"),
        };
        stream.write_all(begun.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    while ingest.counter("ingest_connections") < SLOW_CONNECTIONS as u64 {
        tokio::task::yield_now().await;
    }
    let mut phone = Phone::connect(ingest.address).await;
    for at in 0..200 {
        // The slow ones go on being slow meanwhile.
        slow[at * 5].write_all(b"x").await.unwrap();
        let answer = phone.post(SINGLE, &position("driver-1", now_ms() - 1_000 + at as i64).to_string()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    assert_eq!(ingest.events().await.len(), 200);
    ingest.context.shutdown.cancel();
    drop(slow);
    ingest.stop().await.unwrap();
}

/// Sends bodies with some of their bytes changed, and insists on answers that are no 5xx.
async fn send_damaged(address: SocketAddr, seeds: [(&'static str, &'static str, Vec<u8>); 6], count: usize) {
    let mut phone = Phone::connect(address).await;
    for at in 0..count {
        let (path, header, seed) = &seeds[at % seeds.len()];
        let body = damaged(seed);
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}\r\n{header}Content-Length: {length}\r\n\r\n");
        phone.write_bytes(&[head.as_bytes(), &body].concat()).await;
        let answer = phone.answer().await;
        assert!(answer.status < 500, "{answer:?} to {path} {:?}", String::from_utf8_lossy(&body));
        if answer.header("connection") == Some("close") {
            phone = Phone::connect(address).await;
        }
    }
}

fn damaged(seed: &[u8]) -> Vec<u8> {
    let mut body = seed.to_vec();
    for _ in 0..rand::random_range(0..6) {
        let place = rand::random_range(0..body.len());
        match rand::random_range(0..3) {
            0 => body[place] = rand::random(),
            1 => body.truncate(place.max(1)),
            _ => body.insert(place, rand::random()),
        }
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_of_a_body_make_a_5xx() {
    let ingest = Running::ready("abuse-bodies", &[]).await;
    let right = position("driver-1", now_ms()).to_string();
    let seeds: [(&'static str, &'static str, Vec<u8>); 6] = [
        (SINGLE, "", right.clone().into_bytes()),
        (BATCH, "", format!("[{right},{right}]").into_bytes()),
        (BATCH, "Content-Encoding: gzip\r\n", zstd::encode_all(right.as_bytes(), 1).unwrap()),
        ("/api/drivers/overland", "", include_bytes!("../formats/overland.json").to_vec()),
        ("/api/drivers/owntracks", "", include_bytes!("../formats/owntracks.json").to_vec()),
        (
            "/api/drivers/traccar",
            "Content-Encoding: zstd\r\n",
            zstd::encode_all(&include_bytes!("../formats/traccar.json")[..], 1).unwrap(),
        ),
    ];
    let bodies = if is_long() { BODIES_LONG } else { BODIES };
    let senders: Vec<_> =
        (0..SENDERS).map(|_| tokio::spawn(send_damaged(ingest.address, seeds.clone(), bodies / SENDERS))).collect();
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(ingest.counter("ingest_body_in_flight_bytes"), 0);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stands_still_costs_no_acknowledged_event() {
    let stack = disturbable().await;
    let flags = ["--ack-timeout=2s", "--max-requests-in-flight=8"];
    let ingest = Running::start(&stack.kafka.bootstrap(), "abuse-frozen", &flags).await;
    ingest.until_ready(true).await;
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let drive = |number| drive(format!("driver-{number}"), vec![ingest.address], Arc::clone(&stop), Arc::clone(&total));
    let drivers: Vec<_> = (0..16).map(drive).collect();
    grows(&total, 500).await;
    stack.kafka.freeze();
    // While it stands still there is no condition to wait for: the time is the test.
    tokio::time::sleep(if is_long() { FROZEN_LONG } else { FROZEN }).await;
    let answer = Phone::connect(ingest.address).await.post(SINGLE, &position("one-more", now_ms()).to_string()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    answer.problem();
    assert!(ingest.counter("ingest_requests_in_flight") <= 8, "what waits is bounded");
    stack.kafka.thaw();
    // Five seconds are promised; the machine of a test may be three times as slow.
    let again = grows(&total, 100).await;
    assert!(again < Duration::from_secs(15), "accepted again after {again:?}");
    let drivers = nothing_is_lost(drivers, &stop, &ingest.bootstrap, &ingest.topic).await;
    let refused: HashSet<_> = drivers.iter().flat_map(|driver| driver.refused.iter().copied()).collect();
    assert!(refused == HashSet::from([503]), "{refused:?}");
    assert_eq!(drivers.iter().map(|driver| driver.unanswered).sum::<usize>(), 0);
    ingest.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing_and_fails_nobody_without_a_word() {
    let (first, address_1, _) = crate::process::ready_on("abuse-rolling-1", "abuse-rolling").await;
    let (second, address_2, _) = crate::process::ready_on("abuse-rolling-2", "abuse-rolling").await;
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let drive =
        |number| drive(format!("driver-{number}"), vec![address_1, address_2], Arc::clone(&stop), Arc::clone(&total));
    let drivers: Vec<_> = (0..8).map(drive).collect();
    grows(&total, 300).await;
    first.signal(native::Signal::SIGTERM);
    let status = tokio::task::block_in_place(|| first.wait(LIMIT)).unwrap();
    assert_eq!(status.code(), Some(0), "{}", first.log_tail());
    grows(&total, 300).await;
    let (replaced, _) = crate::process::restarted("abuse-rolling-3", "abuse-rolling", address_1).await;
    grows(&total, 300).await;
    second.signal(native::Signal::SIGTERM);
    let status = tokio::task::block_in_place(|| second.wait(LIMIT)).unwrap();
    assert_eq!(status.code(), Some(0), "{}", second.log_tail());
    grows(&total, 300).await;
    let bootstrap = crate::cluster::bootstrap().await;
    let drivers = nothing_is_lost(drivers, &stop, &bootstrap, "abuse-rolling").await;
    for driver in &drivers {
        assert!(driver.refused.is_empty(), "{}: {:?}", driver.name, driver.refused);
        // An idle connection may be closed at the moment when the next request leaves: at most once for each restart.
        assert!(driver.unanswered <= 2, "{}: {} connections ended without an answer", driver.name, driver.unanswered);
    }
    drop(replaced);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_kill_is_in_kafka() {
    let (process, address, _) = crate::process::ready_on("abuse-kill", "abuse-kill").await;
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let drive = |number| drive(format!("driver-{number}"), vec![address], Arc::clone(&stop), Arc::clone(&total));
    let drivers: Vec<_> = (0..8).map(drive).collect();
    grows(&total, 300).await;
    process.signal(native::Signal::SIGKILL);
    tokio::task::block_in_place(|| process.wait(LIMIT)).unwrap();
    nothing_is_lost(drivers, &stop, &crate::cluster::bootstrap().await, "abuse-kill").await;
}
