//! The subcommand, as a process of its own.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::scene::{Timeline, bootstrap, commit, create, now_ms};

fn once(args: &[&str]) -> std::process::Output {
    let brokers = bootstrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lag-exporter"));
    command.args(["once", "--brokers", &brokers]).args(args).stdin(Stdio::null());
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn once_shows_each_partition_with_its_lag_in_records_and_seconds() {
    let brokers = bootstrap();
    create(&brokers, "shown", 2).await;
    let mut timeline = Timeline::of(&brokers, "shown", 0).await;
    timeline.put(600).await;
    commit(&brokers, "shown-group", "shown", 0, 100, String::new()).await;

    let output = once(&["--groups", "shown-group", "--output", "json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let group = &answer["groups"][0];
    assert_eq!((&group["group"], &group["lag"], &group["members"]), (&"shown-group".into(), &500.into(), &0.into()));
    let partition = &group["partitions"][0];
    assert_eq!(
        (&partition["committedOffset"], &partition["endOffset"], &partition["lag"]),
        (&100.into(), &600.into(), &500.into())
    );
    let (seconds, age) = (partition["lagSeconds"].as_f64().unwrap(), now_ms() - timeline.at_ms(100));
    #[expect(clippy::cast_precision_loss, reason = "ms of a test")]
    let age = age as f64 / 1_000.0;
    assert!(seconds <= age && seconds > age - 30.0, "{seconds} of {age}");
    assert_eq!(
        partition["producedPerSecond"].as_f64().map(f64::round),
        Some(10.0),
        "600 in the last minute: {partition}"
    );

    let table = once(&["--groups", "shown-group"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = table.lines().map(words).collect();
    assert_eq!(
        lines[0][..6],
        ["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"].map(str::to_owned)
    );
    assert_eq!(lines[1][..6], ["shown-group", "shown", "0", "100", "600", "500"].map(str::to_owned), "{table}");
    assert!(lines.iter().any(|line| line.starts_with(&["shown-group".to_owned(), "Empty".to_owned()])), "{table}");
}

#[test]
fn without_kafka_once_ends_with_one_line() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lag-exporter"));
    let output = command.args(["once", "--brokers", "127.0.0.1:1"]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.lines().last().unwrap().starts_with("error: cannot connect to Kafka at 127.0.0.1:1"), "{said}");
    assert!(output.stdout.is_empty());
}
