//! The binary itself: usage errors, ports in use, signals under load, exit codes.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use native::{Launch, Process, Signal};

use crate::cluster::{LIMIT, PARTITIONS, bootstrap, events};
use crate::phone::{Phone, SINGLE, now_ms, position};

const BINARY: &str = env!("CARGO_BIN_EXE_location-ingest");
/// Events acknowledged before the signal: the senders are in full swing.
const UNDER_LOAD: usize = 500;

/// Runs the binary to its end: exit code and what it printed.
fn run(name: &str, args: &[&str]) -> (i32, String) {
    let process = spawn(name, args);
    let status = process.wait(LIMIT).unwrap();
    (status.code().expect("an exit code and no signal"), std::fs::read_to_string(process.log_path()).unwrap())
}

fn spawn(name: &str, args: &[&str]) -> Process {
    Process::spawn(&Launch::new(name, BINARY, log(name)).args(args)).unwrap()
}

fn log(name: &str) -> PathBuf {
    let dir = native::stack_dir("location-ingest-process");
    std::fs::create_dir_all(&dir).unwrap();
    let log = dir.join(format!("{name}.log"));
    // Logs are appended to, and what an earlier run said is not what this test asks about.
    if log.exists() {
        std::fs::remove_file(&log).unwrap();
    }
    log
}

/// An ingest as a process of its own, ready, with its two addresses.
async fn ready(name: &str, flags: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let (process, listen, metrics) = start(name, name, free(), flags).await;
    (process, listen, metrics)
}

/// The same on a topic that others use too.
pub(crate) async fn ready_on(name: &str, topic: &str) -> (Process, SocketAddr, SocketAddr) {
    start(name, topic, free(), &[]).await
}

/// The same at the address of one that has ended.
pub(crate) async fn restarted(name: &str, topic: &str, listen: SocketAddr) -> (Process, SocketAddr) {
    let (process, _, metrics) = start(name, topic, listen, &[]).await;
    (process, metrics)
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn start(name: &str, topic: &str, listen: SocketAddr, flags: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let metrics = free();
    let (bootstrap, partitions) = (bootstrap().await, PARTITIONS.to_string());
    let common = [
        "--listen",
        &listen.to_string(),
        "--metrics-listen",
        &metrics.to_string(),
        "--brokers",
        &bootstrap,
        "--topic",
        topic,
        "--topic-partitions",
        &partitions,
    ];
    let process = spawn(name, &[&common[..], flags].concat());
    let url = format!("http://{metrics}/readyz");
    tokio::task::block_in_place(|| process.wait_ready(&url, LIMIT)).unwrap();
    (process, listen, metrics)
}

#[test]
fn a_wrong_flag_is_one_line_and_exit_code_64() {
    for (at, (args, part)) in [
        (&["--linger", "soon"][..], "--linger soon: give 0ms to 1s"),
        (&["--brokers", "localhost"], "--brokers localhost: give HOST:PORT"),
        (&["--no-such-flag"], "--no-such-flag: no such flag"),
        (&["--log", "a=b=c"], "--log a=b=c: "),
        (&["--ack-timeout", "1m"], "--ack-timeout 1m: a drain waits for acknowledgements"),
    ]
    .into_iter()
    .enumerate()
    {
        let (code, output) = run(&format!("usage-{at}"), args);
        assert_eq!(code, 64, "{output}");
        assert!(output.starts_with(&format!("error: {part}")) && output.lines().count() == 1, "{output}");
    }
}

#[test]
fn a_wrong_environment_variable_is_told_by_its_flag() {
    let launch = Launch::new("usage-environment", BINARY, log("usage-environment")).env("MAX_CONNECTIONS", "none");
    let process = Process::spawn(&launch).unwrap();
    assert_eq!(process.wait(LIMIT).unwrap().code(), Some(64));
    let output = std::fs::read_to_string(process.log_path()).unwrap();
    assert!(output.starts_with("error: --max-connections none: give 1 to 1000000"), "{output}");
}

#[test]
fn help_is_complete_and_exit_code_0() {
    let (code, output) = run("help", &["--help"]);
    assert_eq!(code, 0);
    for part in [
        "--listen <IP:PORT>",
        "[env: LISTEN]",
        "[default: 127.0.0.1:8080]",
        "[env: ACK_TIMEOUT]",
        "[default: 127.0.0.1:9101]",
    ] {
        assert!(output.contains(part), "{part} is not in:\n{output}");
    }
    let (code, output) = run("version", &["--version"]);
    assert_eq!((code, output.trim()), (0, concat!("location-ingest ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_69() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--listen", "--metrics-listen"), ("--metrics-listen", "--listen")] {
        let (code, output) = run(&format!("port{flag}"), &[flag, &address, other, "127.0.0.1:0", "--log=off"]);
        assert_eq!(code, 69, "{output}");
        let line = format!("error: {flag} {address}: the port is in use; stop the other process or give another port");
        assert!(output.starts_with(&line) && output.lines().count() == 1, "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_ends_with_0_and_every_acknowledged_event_in_kafka() {
    let (process, address, _) = ready("process-sigterm", &[]).await;
    let total = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..16)
        .map(|driver| {
            let total = Arc::clone(&total);
            tokio::spawn(async move {
                let (mut phone, mut acknowledged) = (Phone::connect(address).await, Vec::new());
                let (driver, start) = (format!("driver-{driver}"), now_ms() - 1_000);
                for timestamp in start.. {
                    let body = position(&driver, timestamp).to_string();
                    let request = crate::phone::request("POST", SINGLE, &["Content-Type: application/json"], &body);
                    if phone.try_write(&request).await.is_err() {
                        break;
                    }
                    match phone.try_answer().await {
                        Some(answer) if answer.status == 202 => {
                            total.fetch_add(1, Ordering::Relaxed);
                            acknowledged.push((driver.clone(), timestamp));
                        }
                        Some(answer) => panic!("{answer:?}"),
                        None => break,
                    }
                }
                acknowledged
            })
        })
        .collect();
    let loaded = || total.load(Ordering::Relaxed) > UNDER_LOAD;
    tokio::task::block_in_place(|| native::wait_until(LIMIT, "the load is on", loaded)).unwrap();
    process.signal(Signal::SIGTERM);
    let status = tokio::task::block_in_place(|| process.wait(LIMIT)).unwrap();
    assert_eq!(status.code(), Some(0), "{}", process.log_tail());
    let mut acknowledged = HashSet::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    assert!(acknowledged.len() > UNDER_LOAD);
    let events = events(&bootstrap().await, "process-sigterm").await;
    let stored: HashSet<_> = events.iter().map(|event| (event.key.clone(), event.location.timestamp_ms)).collect();
    assert_eq!(stored.len(), events.len(), "nothing is stored twice");
    assert_eq!(acknowledged.difference(&stored).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_has_a_limit_and_a_second_signal_none() {
    let stall = async |name: &str, flags: &[&str]| {
        let (process, address, metrics) = ready(name, flags).await;
        // A body that never ends holds the drain.
        let mut phone = Phone::connect(address).await;
        phone.write("POST /api/drivers/location HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{").await;
        let url = format!("http://{metrics}/metrics");
        let held =
            || native::http::get(&url).is_ok_and(|answer| answer.body.contains("\ningest_body_in_flight_bytes 1\n"));
        tokio::task::block_in_place(|| native::wait_until(LIMIT, "the body is being read", held)).unwrap();
        process.signal(Signal::SIGTERM);
        (process, phone)
    };
    let (process, _phone) = stall("process-limit", &["--shutdown-timeout=600ms", "--ack-timeout=300ms"]).await;
    assert_eq!(tokio::task::block_in_place(|| process.wait(LIMIT)).unwrap().code(), Some(75));
    assert!(
        process.log_tail().contains("error: --shutdown-timeout 600ms: the drain did not end within it"),
        "{}",
        process.log_tail()
    );

    let (process, _phone) = stall("process-second", &["--body-timeout=10m"]).await;
    let draining = || process.log_tail().contains("draining");
    tokio::task::block_in_place(|| native::wait_until(LIMIT, "the drain begins", draining)).unwrap();
    process.signal(Signal::SIGINT);
    assert_eq!(tokio::task::block_in_place(|| process.wait(LIMIT)).unwrap().code(), Some(130));
}
