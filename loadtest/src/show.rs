//! The end of a run as a person reads it: the table of the specification with what was measured beside it, totals, cost, verdict.

use std::path::Path;

use crate::report::{Report, Stage, Verdict};
use crate::specification::{RATE_BEFORE, RECOVERY_BEFORE, Row};
use crate::table::{Table, grouped, grouped_or_dash, measured};
use crate::thresholds::Thresholds;
use crate::verdict::who_used_the_cores;

/// Everything that is printed at the end.
#[must_use]
pub fn lines(report: &Report, thresholds: &Thresholds, path: Option<&Path>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut section = |title: &str, body: Vec<String>| {
        lines.extend([String::new(), title.to_owned(), String::new()]);
        lines.extend(body);
    };
    // A run that ended before its first stage did has nothing to lay out.
    if !report.stages.is_empty() {
        section(
            "Lag of the Redis group: before (claimed; computed from 150 events/s), specified, to prove, measured",
            lag(report, thresholds),
        );
        section("Staleness: before, to prove, measured from outside", staleness(report));
        section("Load: latency counts from each event's intended moment", load(report));
        section("Every record, counted", totals(report));
        section("CPU and memory", cost(report));
    }
    section(&format!("Verdict: {}", report.verdict.as_str()), reasons(report));
    lines.extend(path.map(|path| format!("report: {}", path.display())));
    lines
}

fn lag(report: &Report, thresholds: &Thresholds) -> Vec<String> {
    let mut table = Table::new(&[
        "stage",
        "s",
        "claimed",
        "computed",
        "specified",
        "to prove",
        "MEASURED p99",
        "max",
        "end",
        "analytics max",
        "end",
    ]);
    let mut backlog = 0.0;
    for stage in &report.stages {
        backlog += (stage.offered_per_s - f64::from(RATE_BEFORE)) * stage.seconds;
        let row = Row::named(&stage.name);
        table.row(vec![
            stage.name.clone(),
            measured(Some(stage.seconds), 0),
            grouped_or_dash(row.map(|row| row.lag_before)),
            measured(Some(backlog), 0),
            grouped_or_dash(row.map(|row| row.lag_specified)),
            measured(Some(thresholds.lag_s * stage.offered_per_s), 0),
            grouped_or_dash(stage.redis_lag_p99),
            grouped_or_dash(stage.redis_lag_max),
            grouped_or_dash(stage.redis_lag_end),
            grouped_or_dash(stage.analytics_lag_max),
            grouped_or_dash(stage.analytics_lag_end),
        ]);
    }
    table.lines()
}

fn staleness(report: &Report) -> Vec<String> {
    let mut table = Table::new(&["stage", "claimed p99", "to prove", "MEASURED p50", "p99", "probes sent", "seen"]);
    for stage in &report.stages {
        let row = Row::named(&stage.name);
        table.row(vec![
            stage.name.clone(),
            row.map_or("-", |row| row.staleness_before).to_owned(),
            row.map_or("-", |row| row.staleness_to_prove).to_owned(),
            milliseconds(stage.staleness_p50_ms),
            milliseconds(stage.staleness_p99_ms),
            grouped(stage.probes_sent),
            grouped(stage.probes_seen),
        ]);
    }
    table.lines()
}

fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{} ms", measured(Some(value), 0)))
}

fn load(report: &Report) -> Vec<String> {
    let mut table = Table::new(&[
        "stage",
        "offered/s",
        "accepted/s",
        "share",
        "rejected",
        "failed",
        "ack p50",
        "ack p99",
        "machine busy",
    ]);
    for stage in &report.stages {
        table.row(vec![
            stage.name.clone(),
            measured(Some(stage.offered_per_s), 0),
            measured(Some(stage.accepted_per_s), 0),
            percent(share(stage)),
            grouped(stage.rejected),
            grouped(stage.failed),
            milliseconds(stage.ack_p50_ms),
            milliseconds(stage.ack_p99_ms),
            percent(stage.machine_busy),
        ]);
    }
    table.lines()
}

fn share(stage: &Stage) -> Option<f64> {
    (stage.offered_per_s > 0.0).then(|| stage.accepted_per_s / stage.offered_per_s)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn totals(report: &Report) -> Vec<String> {
    let (totals, detail, recovery) = (&report.totals, &report.detail, &report.recovery);
    let poison = format!(
        "{} of {} in the dead letter topic, {} letters of two groups; each cost its partition {} µs at p50, {} µs at p99",
        grouped_or_dash(totals.poison_distinct_in_dlt),
        totals.poison_sent,
        grouped_or_dash(totals.dead_letters),
        measured(totals.poison_cost_p50_us, 0),
        measured(totals.poison_cost_p99_us, 0),
    );
    let offered = format!(
        "{} accepted, {} refused, {} never sent, {} of unknown outcome",
        grouped_or_dash(totals.accepted),
        grouped(detail.refused),
        grouped(detail.never_sent),
        grouped(detail.unknown),
    );
    let rows = format!(
        "{} rows, {} distinct, {} of them of unknown outcome",
        grouped_or_dash(totals.rows),
        grouped_or_dash(totals.rows_distinct),
        grouped_or_dash(detail.rows_of_unknown),
    );
    let recovered = format!(
        "Redis was away for {} s, and {} s later the map was fresh (before: {RECOVERY_BEFORE})",
        measured(recovery.outage_s, 1),
        measured(recovery.recovered_in_s, 1),
    );
    let lost = format!("{} accepted events without a row", grouped_or_dash(totals.lost));
    let kafka = format!("{} records, malformed ones included", grouped_or_dash(totals.in_kafka));
    [
        ("events", offered),
        ("in Kafka", kafka),
        ("history", rows),
        ("LOST", lost),
        ("malformed", poison),
        ("recovery", recovered),
    ]
    .map(|(name, text)| format!("{name:<10} {text}"))
    .into()
}

fn cost(report: &Report) -> Vec<String> {
    let mut table = Table::new(&["process", "cores at the peak", "CPU s", "most memory, MiB"]);
    for (name, cost) in &report.cost {
        table.row(vec![
            name.clone(),
            measured(cost.cpu_cores_at_peak, 2),
            measured(cost.cpu_s, 1),
            measured(cost.rss_max_mib, 0),
        ]);
    }
    let machine = &report.machine;
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "not known".to_owned());
    let mut lines = table.lines();
    lines.push(String::new());
    lines.push(format!(
        "machine: {} cores, {} GiB; Kafka {}, Redis {}, PostgreSQL {}, TimescaleDB {}",
        machine.cores,
        measured(machine.memory_gib, 1),
        version(&machine.kafka),
        version(&machine.redis),
        version(&machine.postgres),
        machine.timescaledb.as_deref().unwrap_or("absent"),
    ));
    lines
}

fn reasons(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report.failures.iter().map(|failure| format!("failed: {failure}")).collect();
    lines.extend(report.detail.limits.iter().map(|limit| format!("not held: {limit}")));
    if !report.detail.limits.is_empty() || report.verdict == Verdict::MachineLimited {
        lines.push(format!("the cores were used by: {}", who_used_the_cores(report)));
    }
    if lines.is_empty() {
        lines.push(
            "every record accounted for, every stage held, staleness, lag, recovery and cost within the specification"
                .to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thresholds::SURGE;

    fn report() -> Report {
        let stage = Stage {
            name: "peak-50000".to_owned(),
            seconds: 10.0,
            offered_per_s: 50_000.0,
            accepted_per_s: 41_000.0,
            ..Stage::default()
        };
        Report { stages: vec![stage], verdict: Verdict::MachineLimited, ..Report::default() }
    }

    #[test]
    fn measured_stands_beside_claimed_computed_and_specified() {
        let text = lines(&report(), &SURGE, None).join("\n");
        for part in ["2,400,000", "498,500", "850", "10,000", "240 s", "< 2 s", "41,000", "82.0 %"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_small_machine_comes_with_who_used_the_cores() {
        let mut report = report();
        report.detail.limits.push("peak-50000: short".to_owned());
        report
            .cost
            .insert("kafka".to_owned(), crate::report::Cost { cpu_cores_at_peak: Some(0.5), ..Default::default() });
        let text = lines(&report, &SURGE, Some(Path::new("target/proof/report.json"))).join("\n");
        assert!(text.contains("the cores were used by: kafka 0.50"));
        assert!(text.ends_with("report: target/proof/report.json"));
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let text = lines(&report(), &SURGE, None).join("\n");
        assert!(text.contains("LOST       - accepted events"));
    }
}
