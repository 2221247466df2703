//! The alerts of deploy/prometheus, by Prometheus' own tool: each fires, does not fire, and resolves; each has its page.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const WANTED: [&str; 11] = [
    "IngestRefusing",
    "KafkaConsumerLagCritical",
    "KafkaConsumerStalled",
    "KafkaConsumerStopped",
    "KafkaDLTEventsHigh",
    "KafkaRecordsLostToRetention",
    "KafkaRetentionNear",
    "LagExporterBlind",
    "MapStalenessOver2s",
    "MapStalenessOver30s",
    "SinkPaused",
];

fn prometheus_dir() -> PathBuf {
    native::root_dir().join("deploy/prometheus")
}

/// Runs promtool beside the rules; panics with what it said unless it is content.
fn promtool<A: AsRef<Path>>(subcommand: [&str; 2], files: &[A]) {
    let promtool = native::ensure_prometheus().unwrap().promtool;
    let mut command = Command::new(promtool);
    command.args(subcommand).args(files.iter().map(AsRef::as_ref)).current_dir(prometheus_dir()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{subcommand:?}: {said}");
}

/// The values of `key:` in a file of ours, which has each on a line of its own.
fn values(text: &str, key: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("- "));
    lines.filter_map(|line| Some(line.strip_prefix(key)?.strip_prefix(": ")?.trim_matches('"').to_owned())).collect()
}

fn rules() -> String {
    fs::read_to_string(prometheus_dir().join("rules.yml")).unwrap()
}

fn test_files() -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(prometheus_dir().join("tests")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn prometheus_takes_the_rules_and_the_configuration() {
    promtool(["check", "rules"], &["rules.yml"]);
    promtool(["check", "config"], &["prometheus.yml"]);
}

#[test]
fn each_alert_fires_does_not_fire_and_resolves() {
    promtool(["test", "rules"], &test_files());
}

#[test]
fn each_alert_has_a_test_of_each_kind_and_a_page() {
    let alerts = values(&rules(), "alert");
    assert_eq!(alerts, WANTED.map(str::to_owned).into());
    for alert in &alerts {
        let page = native::root_dir().join(format!("docs/runbooks/{alert}.md"));
        let page = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        for part in ["## What it means", "## What to look at", "## What to do"] {
            assert!(page.contains(part), "{alert}: {part}");
        }
        let tests = fs::read_to_string(prometheus_dir().join(format!("tests/{alert}.yml"))).unwrap();
        let names: Vec<_> = values(&tests, "name").into_iter().collect();
        assert!(names.iter().any(|name| name.starts_with("fires") && name.contains("resolves")), "{alert}: {names:?}");
        assert!(names.iter().any(|name| name.starts_with("does not fire")), "{alert}: {names:?}");
    }
}

#[test]
fn each_runbook_url_leads_to_the_page_of_its_alert() {
    let urls = values(&rules(), "runbook_url");
    assert_eq!(urls, WANTED.map(|alert| format!("docs/runbooks/{alert}.md")).into());
}
