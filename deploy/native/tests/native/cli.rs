//! `native up`, `status`, `logs` and `down`.

use std::process::{Child, Stdio};

use crate::support::{LIMIT, dir, native, processes, run, wait_gone};

#[test]
fn up_and_down_and_both_twice() {
    let dir = dir("cli");
    let native = |args: &[&str]| run(native(&dir, args));
    native(&["down"]);
    assert_eq!(native(&["down"]), (Some(0), "not up\n".to_owned()));

    let (code, said) = native(&["up"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("kafka-1") && said.contains("redis://127.0.0.1:") && said.contains("/locations"), "{said}");
    let all = processes(&dir);
    assert_eq!(native(&["up"]), (Some(0), format!("already up\n{said}")));
    let (_, status) = native(&["status"]);
    assert_eq!(status.matches("(running, process ").count(), 3, "{status}");
    let (code, logs) = native(&["logs", "redis"]);
    assert!(code == Some(0) && logs.contains("Ready to accept connections"), "{logs}");

    assert_eq!(native(&["down"]), (Some(0), "stopped\n".to_owned()));
    wait_gone(&all);
    assert_eq!(native(&["status"]), (Some(0), "not up\n".to_owned()));
}

#[test]
fn an_interrupted_up_leaves_nothing_running() {
    let dir = dir("cli-interrupted");
    let mut up: Child = native(&dir, &["up"]).stdout(Stdio::null()).spawn().unwrap();
    native::wait_until(LIMIT, "the start has begun", || dir.join("logs/redis.log").exists()).unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    let is_down = || run(native(&dir, &["status"])).1 == "not up\n";
    native::wait_until(LIMIT, "the supervisor has followed", is_down).unwrap();
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    let (code, said) = run(native(&dir("cli-usage"), &["up", "--kafka-brokers", "0"]));
    assert_eq!(code, Some(64));
    assert!(said.contains("--kafka-brokers") && said.contains("1..=5"), "{said}");
}

#[test]
fn an_unwritable_directory_is_named() {
    let (code, said) = run(native("/proc/native".as_ref(), &["up"]));
    assert_eq!(code, Some(1));
    assert!(said.contains("error: cannot create /proc/native"), "{said}");
}
