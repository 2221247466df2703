//! `report.json`: everything that a run measured, and what was made of it. Unknown is null, never 0.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The whole report.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The surge, stage by stage.
    pub stages: Vec<Stage>,
    /// Every record, counted at the end.
    pub totals: Totals,
    /// The time that Redis was away.
    pub recovery: Recovery,
    /// CPU and memory by process.
    pub cost: BTreeMap<String, Cost>,
    /// What it ran on.
    pub machine: Machine,
    /// What all this comes to.
    pub verdict: Verdict,
    /// Why it is not a pass; empty otherwise.
    pub failures: Vec<String>,
    /// Whether the run ended before its end.
    pub cut_off: bool,
    /// What helps to understand the figures above.
    pub detail: Detail,
}

/// One stage of the surge. Counts are of the generator alone; staleness is the prober's.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// How long it lasted.
    pub seconds: f64,
    /// Events per second that were due.
    pub offered_per_s: f64,
    /// Events per second that were accepted while it lasted.
    pub accepted_per_s: f64,
    /// Events refused while it lasted.
    pub rejected: u64,
    /// Events given up while it lasted: not sent in time, or sent and never answered.
    pub failed: u64,
    /// p99 of the Redis group's lag, sampled once a second.
    pub redis_lag_p99: Option<u64>,
    /// Largest sample of it.
    pub redis_lag_max: Option<u64>,
    /// Last sample of it.
    pub redis_lag_end: Option<u64>,
    /// Largest sample of the analytics group's lag.
    pub analytics_lag_max: Option<u64>,
    /// Last sample of it.
    pub analytics_lag_end: Option<u64>,
    /// Median time from an event's intended moment to its acceptance.
    pub ack_p50_ms: Option<f64>,
    /// 99th percentile of it.
    pub ack_p99_ms: Option<f64>,
    /// Median staleness.
    pub staleness_p50_ms: Option<f64>,
    /// 99th percentile of it; a probe never seen counts with its age.
    pub staleness_p99_ms: Option<f64>,
    /// Probes due while it lasted.
    pub probes_sent: u64,
    /// Those of them that were seen in Redis.
    pub probes_seen: u64,
    /// Busy share of the machine, 0 to 1.
    pub machine_busy: Option<f64>,
}

/// Every record. Events are those of the generator and of the prober together.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Events that the service said are in Kafka.
    pub accepted: Option<u64>,
    /// Records in the topic, the malformed ones included, re-read by the independent client.
    pub in_kafka: Option<u64>,
    /// Rows of `driver_locations`.
    pub rows: Option<u64>,
    /// Different (driver, timestamp) among them.
    pub rows_distinct: Option<u64>,
    /// Accepted events without a row.
    pub lost: Option<u64>,
    /// Malformed records put in.
    pub poison_sent: u64,
    /// Those of them that the dead letter topic names.
    pub poison_distinct_in_dlt: Option<u64>,
    /// Letters in the dead letter topic: each group writes its own.
    pub dead_letters: Option<u64>,
    /// Median time that a malformed record cost its partition.
    pub poison_cost_p50_us: Option<f64>,
    /// 99th percentile of it.
    pub poison_cost_p99_us: Option<f64>,
}

/// The time that Redis was away.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recovery {
    /// From stopping it until it answered again.
    pub outage_s: Option<f64>,
    /// From then until the map was fresh.
    pub recovered_in_s: Option<f64>,
}

/// What a process took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Cost {
    /// Cores while the surge was at its peak.
    pub cpu_cores_at_peak: Option<f64>,
    /// Seconds of CPU over the whole run.
    pub cpu_s: Option<f64>,
    /// Largest resident memory.
    pub rss_max_mib: Option<f64>,
}

/// What it ran on.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    /// Processors.
    pub cores: u64,
    /// Memory.
    pub memory_gib: Option<f64>,
    /// Version of Kafka.
    pub kafka: Option<String>,
    /// Version of Redis.
    pub redis: Option<String>,
    /// Version of PostgreSQL.
    pub postgres: Option<String>,
    /// Version of TimescaleDB; null where PostgreSQL is without it.
    pub timescaledb: Option<String>,
}

/// What a run comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything held.
    Pass,
    /// Everything held but a rate that the machine is too small for.
    MachineLimited,
    /// Something did not hold.
    #[default]
    Fail,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::MachineLimited => "machine-limited",
            Self::Fail => "fail",
        }
    }
}

/// What helps to understand the figures.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Detail {
    /// Name of the scenario.
    pub scenario: String,
    /// Positions in a POST.
    pub positions_per_post: u32,
    /// Events refused, over the whole run.
    pub refused: u64,
    /// Events never sent.
    pub never_sent: u64,
    /// Events sent and never answered.
    pub unknown: u64,
    /// Rows of events whose outcome was unknown: allowed.
    pub rows_of_unknown: Option<u64>,
    /// Rows of events that were refused.
    pub rows_of_refused: Option<u64>,
    /// Rows that nobody sent.
    pub rows_of_strangers: Option<u64>,
    /// Accepted events that the re-read topic does not hold: lost before the writers.
    pub accepted_not_in_kafka: Option<u64>,
    /// Answers by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// What was short of the specification, where the machine is to blame.
    pub limits: Vec<String>,
}

/// Writes `value` as JSON to `name` in `dir`, whole or not at all.
pub fn write(dir: &Path, name: &str, value: &impl Serialize) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let path = dir.join(name);
    let unfinished = dir.join(format!("{name}.part"));
    let mut text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    text.push('\n');
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, &path)?;
    Ok(path)
}

/// Rounds a measured value: more places than a measurement has are noise.
#[must_use]
pub fn rounded(value: f64, places: i32) -> f64 {
    let unit = 10f64.powi(places);
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_the_fields_of_the_specification() {
        let report = Report {
            stages: vec![Stage::default()],
            cost: [("redis".to_owned(), Cost::default())].into(),
            ..Report::default()
        };
        let json = serde_json::to_value(&report).unwrap();
        let keys = |value: &serde_json::Value| {
            value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
        };
        let set = |names: &str| names.split_whitespace().map(str::to_owned).collect();
        assert!(keys(&json).is_superset(&set("stages totals recovery cost machine verdict failures")));
        assert_eq!(
            keys(&json["stages"][0]),
            set("name seconds offered_per_s accepted_per_s rejected failed redis_lag_p99 \
            redis_lag_max redis_lag_end analytics_lag_max analytics_lag_end ack_p50_ms ack_p99_ms staleness_p50_ms \
            staleness_p99_ms probes_sent probes_seen machine_busy")
        );
        assert_eq!(
            keys(&json["totals"]),
            set("accepted in_kafka rows rows_distinct lost poison_sent poison_distinct_in_dlt \
            dead_letters poison_cost_p50_us poison_cost_p99_us")
        );
        assert_eq!(keys(&json["recovery"]), set("outage_s recovered_in_s"));
        assert_eq!(keys(&json["cost"]["redis"]), set("cpu_cores_at_peak cpu_s rss_max_mib"));
        assert_eq!(keys(&json["machine"]), set("cores memory_gib kafka redis postgres timescaledb"));
    }

    #[test]
    fn a_verdict_is_written_as_its_word() {
        for verdict in [Verdict::Pass, Verdict::MachineLimited, Verdict::Fail] {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.as_str());
        }
    }

    #[test]
    fn a_report_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("proof");
        write(&nested, "report.json", &1).unwrap();
        let path = write(&nested, "report.json", &2).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "2\n");
        assert_eq!(fs::read_dir(nested).unwrap().count(), 1);
    }
}
