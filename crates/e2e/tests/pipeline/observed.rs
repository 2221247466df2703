//! Every metric that a dashboard, a rule or the documentation names is there when the whole pipeline is scraped.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use e2e::{Phone, Scene, Service, Witness, eventually, now_ms, position, shared};
use kafka::{Offset, PartitionId, TopicPartition};
use serde_json::Value;

const PARTITIONS: i32 = 2;
const DRIVERS: usize = 20;
/// How our metrics begin; other words of an expression are functions and labels.
const PREFIXES: [&str; 8] = ["kafka_", "pipeline_", "ingest_", "redis_", "timescale_", "dlt_", "process_", "service_"];
const BUILD_INFO: &str = "build_info";
/// Recorded by rules, not scraped.
const RECORDED: &str = "map:";

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_a_panel_a_rule_and_the_documentation_is_scraped() {
    let mut named = documented();
    let recorded = recorded();
    for (place, expression) in rules().into_iter().chain(panels()) {
        for name in names_in(&expression) {
            if name.starts_with(RECORDED) {
                assert!(recorded.contains(&name), "{place}: {name} is recorded by no rule");
            } else {
                named.insert((place.clone(), name));
            }
        }
    }
    assert!(named.len() > 80, "{named:?}");

    let scene = Scene::set(shared().await, "observed", PARTITIONS).await;
    let Happened { ingest, services, mut seen } = everything_has_happened(&scene).await;
    // Some tell of what goes on (a rate, a share), some of what has gone on: what was seen once is there.
    eventually("every metric is scraped", async || {
        post(ingest).await;
        seen.extend(scraped(&services)?);
        let missing: Vec<_> = named.iter().filter(|(_, name)| !seen.contains(name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
}

/// A pipeline that has seen something.
struct Happened {
    ingest: SocketAddr,
    /// Those that still run.
    services: Vec<Service>,
    /// Scraped of one that does not.
    seen: BTreeSet<String>,
}

/// Runs the pipeline through what its metrics tell of: records, a dead letter, a group that lags and that retention
/// nears, a commit behind the end of the log.
async fn everything_has_happened(scene: &Scene<'_>) -> Happened {
    scene.create_topics().await;
    let ingest = scene.ingest(&[]);
    let analytics = scene.timescale_writer(&[]);
    let services = vec![ingest.service, scene.redis_writer(&[]), scene.dlt_monitor(&[]), scene.lag_exporter(&[])];
    for service in services.iter().chain([&analytics]) {
        service.becomes_ready().await;
    }
    let witness = scene.witness().await;
    witness.put(scene.topic(), 0, vec![Witness::record("d", Some(b"no event".to_vec()), now_ms())]).await;
    post(ingest.address).await;
    scene.drains().await;
    let seen = scraped(std::slice::from_ref(&analytics)).unwrap();
    analytics.terminate();
    assert_eq!(analytics.ended().code(), Some(0));
    post(ingest.address).await;
    let at = |partition| TopicPartition::new(scene.topic(), PartitionId(partition));
    let (client, group) = (scene.client(), scene.analytics_group());
    client.delete_records(&at(0), Offset(1)).await.unwrap();
    client.delete_records(&at(1), Offset(1)).await.unwrap();
    let positions = [(at(0), Offset(1_000_000), String::new()), (at(1), Offset(1), String::new())];
    client.alter_offsets(&group, &positions).await.unwrap();
    Happened { ingest: ingest.address, services, seen }
}

async fn post(address: SocketAddr) {
    let mut phone = Phone::connect(address).await.unwrap();
    for number in 0..DRIVERS {
        let answer = phone.post(&position(&format!("driver-{number}"), now_ms())).await.unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
    }
}

/// Names of all series that have a value.
fn scraped(services: &[Service]) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::new();
    for service in services {
        let text = service.scrape()?;
        let series = text.lines().filter(|line| !line.starts_with('#'));
        names.extend(series.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned));
        // A histogram is documented by its own name.
        let histograms = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"));
        names.extend(histograms.map(str::to_owned));
    }
    Ok(names)
}

/// First column of the tables of docs/metrics.md.
fn documented() -> BTreeSet<(String, String)> {
    let text = read("docs/metrics.md");
    let names = text.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()));
    let names: BTreeSet<_> = names.filter(|name| is_ours(name) && !is_of_others(name)).collect();
    names.into_iter().map(|name| ("docs/metrics.md".to_owned(), name)).collect()
}

/// What only `--compat` exports, or only a broker with rights brings about, has a test of its own, in lag-exporter.
fn is_of_others(name: &str) -> bool {
    [
        "kafka_consumergroup_",
        "kafka_partition_",
        "kafka_topic_partition",
        "kafka_broker",
        "kafka_lag_exporter_unread_topic",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// Expressions of the rules, with what they belong to.
fn rules() -> Vec<(String, String)> {
    // Everything behind `expr:` up to the next key, and the queries of the annotations.
    let text = read("deploy/prometheus/rules.yml");
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    vec![("rules.yml".to_owned(), code.lines().filter(|line| !is_key(line)).collect::<Vec<_>>().join("\n"))]
}

fn is_key(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches("- ");
    ["alert:", "record:", "name:", "runbook_url:", "severity:"].iter().any(|key| line.starts_with(key))
}

fn recorded() -> BTreeSet<String> {
    let text = read("deploy/prometheus/rules.yml");
    text.lines().filter_map(|line| line.trim().strip_prefix("- record: ").map(str::to_owned)).collect()
}

/// Expressions of the dashboards' panels and variables, with the panel's title.
fn panels() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in ["pipeline", "groups"] {
        let dashboard: Value = serde_json::from_str(&read(&format!("deploy/grafana/{file}.json"))).unwrap();
        is_complete(file, &dashboard);
        for panel in dashboard["panels"].as_array().unwrap() {
            let place = format!("{file}.json: {}", panel["title"].as_str().unwrap());
            for target in panel["targets"].as_array().into_iter().flatten() {
                found.push((place.clone(), target["expr"].as_str().unwrap().to_owned()));
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["definition"].as_str() {
                found.push((format!("{file}.json: variable"), query.to_owned()));
            }
        }
    }
    found
}

/// What makes a dashboard usable elsewhere: a fixed uid, variables for data source and job, a unit on each panel.
fn is_complete(file: &str, dashboard: &Value) {
    assert!(dashboard["uid"].as_str().is_some_and(|uid| !uid.is_empty() && uid.len() <= 40), "{file}");
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables: Vec<_> = variables.map(|variable| variable["name"].as_str().unwrap()).collect();
    assert!(variables.contains(&"datasource") && variables.contains(&"job"), "{file}: {variables:?}");
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_i64()), "{file}: {panel}");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {panel}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{file}: {panel}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("job=~\"$job\"") || expression.starts_with(RECORDED), "{file}: {expression}");
        }
    }
}

/// Names of metrics in an expression: its words outside of label matchers.
fn names_in(expression: &str) -> BTreeSet<String> {
    let mut outside = String::new();
    let mut depth = 0;
    for character in expression.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            other if depth == 0 => outside.push(other),
            _ => {}
        }
        if character == '{' || character == '}' {
            outside.push(' ');
        }
    }
    let words = outside.split(|character: char| !(character.is_ascii_alphanumeric() || "_:".contains(character)));
    words.filter(|word| is_ours(word) || word.starts_with(RECORDED)).map(str::to_owned).collect()
}

fn is_ours(name: &str) -> bool {
    name == BUILD_INFO || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn read(path: &str) -> String {
    fs::read_to_string(native::root_dir().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
