//! A real Prometheus scrapes lag-exporter and evaluates our rules while the pipeline is made to lag.

use std::fs;
use std::path::PathBuf;

use e2e::{Scene, Witness, event, eventually, now_ms, shared};
use native::{Launch, Port, Process, Wish};
use serde_json::Value;

const PARTITIONS: i32 = 2;
/// Records that wait when the writer stands still; above the threshold of the test's rules.
const WAITING: i64 = 1_500;
const ALERT: &str = "KafkaConsumerLagCritical";
/// The rules as they are but for names, sizes and times: those of the test.
const THRESHOLD: (&str, &str) = ("> 100000", "> 1000");
const FOR: (&str, &str) = ("for: 60s", "for: 1s");
const GROUP: &str = "driver-location-redis";

/// A Prometheus of the test's own. Dropping it stops it.
struct Prometheus {
    _process: Process,
    _data: tempfile::TempDir,
    port: Port,
}

impl Prometheus {
    fn start(scene: &Scene<'_>, target: &str) -> Self {
        let program = native::ensure_prometheus().unwrap().prometheus;
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("rules.yml"), rules(&scene.redis_group())).unwrap();
        let config = format!(
            "global:\n  scrape_interval: 250ms\n  scrape_timeout: 250ms\n  evaluation_interval: 250ms\nrule_files: [rules.yml]\n\
             scrape_configs:\n  - job_name: driver-location\n    static_configs:\n      - targets: ['{target}']\n"
        );
        fs::write(data.path().join("prometheus.yml"), config).unwrap();
        let port = Port::lease(Wish::Any).unwrap();
        let flag = |name: &str, value: PathBuf| format!("--{name}={}", value.display());
        let launch = Launch::new("alerting-prometheus", program, data.path().join("prometheus.log"))
            .arg(flag("config.file", data.path().join("prometheus.yml")))
            .arg(flag("storage.tsdb.path", data.path().join("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()));
        let process = Process::spawn(&launch).unwrap_or_else(|error| panic!("{error}"));
        Self { _process: process, _data: data, port }
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", self.port.number());
        let answer = native::http::get(&url).map_err(|error| error.to_string())?;
        serde_json::from_str(&answer.body).map_err(|error| format!("{error} in {}", answer.body))
    }

    /// The alerts of that name that fire.
    fn firing(&self) -> Result<Vec<Value>, String> {
        let answer = self.get("alerts")?;
        let alerts = answer["data"]["alerts"].as_array().ok_or_else(|| answer.to_string())?;
        let fires = |alert: &&Value| alert["labels"]["alertname"] == ALERT && alert["state"] == "firing";
        Ok(alerts.iter().filter(fires).cloned().collect())
    }

    /// Whether the series is there, so that its alert is not silent only for want of it.
    fn sees(&self, group: &str) -> Result<(), String> {
        let answer = self.get(&format!("query?query=sum(kafka_consumer_lag%7Bgroup%3D%22{group}%22%7D)"))?;
        let found = answer["data"]["result"].as_array().is_some_and(|result| !result.is_empty());
        if found { Ok(()) } else { Err(answer.to_string()) }
    }
}

fn rules(group: &str) -> String {
    let text = fs::read_to_string(native::root_dir().join("deploy/prometheus/rules.yml")).unwrap();
    for (ours, _) in [THRESHOLD, FOR] {
        assert!(text.contains(ours), "{ours} is not in the rules");
    }
    text.replace(GROUP, group).replace(THRESHOLD.0, THRESHOLD.1).replace(FOR.0, FOR.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_while_the_map_is_behind_and_resolves_when_it_has_caught_up() {
    let scene = Scene::set(shared().await, "alerting", PARTITIONS).await;
    scene.create_topics().await;
    let (exporter, writer) = (scene.lag_exporter(&[]), scene.redis_writer(&[]));
    exporter.becomes_ready().await;
    writer.becomes_ready().await;
    let group = scene.redis_group();
    let prometheus = Prometheus::start(&scene, &exporter.metrics_address().to_string());
    eventually("Prometheus has the lag", async || prometheus.sees(&group)).await;
    assert!(prometheus.firing().unwrap().is_empty());

    writer.freeze();
    let now = now_ms();
    let records = (0..WAITING).map(|number| Witness::record("d", Some(event("d", now + number)), now + number));
    scene.witness().await.put(scene.topic(), 0, records.collect()).await;
    let fired = eventually("the alert fires", async || match prometheus.firing()?.pop() {
        Some(alert) => Ok(alert),
        None => Err(prometheus.get("alerts")?.to_string()),
    })
    .await;
    assert_eq!(fired["labels"]["severity"], "critical");
    assert!(fired["annotations"]["summary"].as_str().unwrap().contains("records behind"), "{fired}");
    assert_eq!(fired["annotations"]["runbook_url"], format!("docs/runbooks/{ALERT}.md"));

    writer.thaw();
    eventually("the alert resolves", async || match prometheus.firing()?.pop() {
        None => prometheus.sees(&group),
        Some(alert) => Err(alert.to_string()),
    })
    .await;
}
