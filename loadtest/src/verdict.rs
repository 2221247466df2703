//! What a run comes to: a pure function of its report and of the table of thresholds.

use crate::report::{Report, Stage, Verdict};
use crate::table::{grouped, measured};
use crate::thresholds::Thresholds;

/// The process whose cost has a limit.
const REDIS_WRITER: &str = "redis-writer";

/// A verdict with its reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What failed; empty unless the verdict is fail.
    pub failures: Vec<String>,
    /// Stages that were not held for want of machine.
    pub limits: Vec<String>,
}

/// Judges a run of `positions_per_post` positions a POST.
#[must_use]
pub fn judge(report: &Report, positions_per_post: u32, thresholds: &Thresholds) -> Judgement {
    let floor = thresholds.floor(positions_per_post);
    let mut failures = counted(report, thresholds);
    failures.extend(recovered(report, thresholds));
    failures.extend(report.stages.iter().flat_map(|stage| kept(stage, thresholds)));
    failures.extend(cost(report, thresholds));
    let mut limits = Vec::new();
    let owed = owed_was_done(report, floor);
    for stage in report.stages.iter().filter(|stage| !is_held(stage, thresholds)) {
        let excused = owed && is_machine_limited(stage, thresholds);
        if excused { &mut limits } else { &mut failures }.push(shortfall(stage));
    }
    if report.stages.is_empty() {
        failures.push("no stage of the surge was played".to_owned());
    }
    let verdict = match (failures.is_empty(), limits.is_empty()) {
        (true, true) => Verdict::Pass,
        (true, false) => Verdict::MachineLimited,
        (false, _) => Verdict::Fail,
    };
    Judgement { verdict, failures, limits }
}

fn is_held(stage: &Stage, thresholds: &Thresholds) -> bool {
    stage.accepted_per_s >= thresholds.held_share * stage.offered_per_s
}

/// Whether what is owed on any machine was done wherever the most was asked for.
fn owed_was_done(report: &Report, floor: f64) -> bool {
    let most = report.stages.iter().map(|stage| stage.offered_per_s).fold(0.0, f64::max);
    report.stages.iter().filter(|stage| stage.offered_per_s >= most).all(|stage| stage.accepted_per_s >= floor)
}

fn is_machine_limited(stage: &Stage, thresholds: &Thresholds) -> bool {
    stage.offered_per_s > f64::from(thresholds.machine_limited_above)
        && stage.machine_busy.is_some_and(|busy| busy >= thresholds.machine_busy)
}

fn shortfall(stage: &Stage) -> String {
    format!(
        "{}: {} of {} events/s were accepted in time ({} were rejected, {} failed, the others had to wait), machine busy {} %",
        stage.name,
        measured(Some(stage.accepted_per_s), 0),
        measured(Some(stage.offered_per_s), 0),
        grouped(stage.rejected),
        grouped(stage.failed),
        measured(stage.machine_busy.map(|busy| busy * 100.0), 0),
    )
}

/// Every record is where it belongs, once.
fn counted(report: &Report, thresholds: &Thresholds) -> Vec<String> {
    let totals = &report.totals;
    let mut failures = Vec::new();
    match totals.lost {
        Some(0) => {}
        Some(lost) => failures.push(format!("{} accepted events have no row", grouped(lost))),
        None => failures.push("whether anything was lost is not known: rows were not compared".to_owned()),
    }
    if let (Some(rows), Some(distinct)) = (totals.rows, totals.rows_distinct)
        && rows != distinct
    {
        failures.push(format!("{} rows are there more than once", grouped(rows - distinct)));
    }
    let (sent, found) = (totals.poison_sent, totals.poison_distinct_in_dlt);
    if sent != thresholds.poison || found != Some(thresholds.poison) {
        let found = found.map_or_else(|| "an unknown number".to_owned(), grouped);
        failures.push(format!(
            "{found} of {} malformed records are in the dead letter topic; {sent} were put in",
            thresholds.poison
        ));
    }
    failures
}

fn recovered(report: &Report, thresholds: &Thresholds) -> Option<String> {
    match report.recovery.recovered_in_s {
        Some(seconds) if seconds < thresholds.recovery_s => None,
        Some(seconds) => Some(format!("recovery took {seconds:.1} s, and {} s is the limit", thresholds.recovery_s)),
        None => Some("the map did not become fresh again after Redis was away".to_owned()),
    }
}

/// Staleness and lag of one stage.
fn kept(stage: &Stage, thresholds: &Thresholds) -> Vec<String> {
    let mut failures = Vec::new();
    if !stage.staleness_p99_ms.is_some_and(|staleness| staleness < thresholds.staleness_p99_ms) {
        let found = measured(stage.staleness_p99_ms, 0);
        failures.push(format!(
            "{}: p99 staleness {found} ms, and under {} ms is specified",
            stage.name, thresholds.staleness_p99_ms
        ));
    }
    let allowed = thresholds.lag_s * stage.offered_per_s;
    if !stage.redis_lag_p99.is_some_and(|lag| lag as f64 <= allowed) {
        let found = stage.redis_lag_p99.map_or_else(|| "unknown".to_owned(), grouped);
        failures.push(format!(
            "{}: p99 lag of the Redis group {found}, and {} is specified",
            stage.name,
            measured(Some(allowed), 0)
        ));
    }
    failures
}

fn cost(report: &Report, thresholds: &Thresholds) -> Vec<String> {
    let cost = report.cost.get(REDIS_WRITER).copied().unwrap_or_default();
    let mut failures = Vec::new();
    if !cost.cpu_cores_at_peak.is_some_and(|cores| cores <= thresholds.redis_writer_cores) {
        let found = measured(cost.cpu_cores_at_peak, 2);
        failures.push(format!(
            "{REDIS_WRITER} took {found} cores at the peak, and {} is the limit",
            thresholds.redis_writer_cores
        ));
    }
    if !cost.rss_max_mib.is_some_and(|mib| mib <= thresholds.redis_writer_mib) {
        let found = measured(cost.rss_max_mib, 0);
        failures.push(format!("{REDIS_WRITER} took {found} MiB, and {} is the limit", thresholds.redis_writer_mib));
    }
    failures
}

/// The processes that used the cores at the peak, the largest first: who to look at when the machine was too small.
#[must_use]
pub fn who_used_the_cores(report: &Report) -> String {
    let mut shares: Vec<(&str, f64)> =
        report.cost.iter().filter_map(|(name, cost)| Some((name.as_str(), cost.cpu_cores_at_peak?))).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares.iter().map(|(name, cores)| format!("{name} {cores:.2}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::{Cost, Recovery, Totals};
    use crate::specification;
    use crate::thresholds::SURGE;

    fn held(name: &str, rate: u32) -> Stage {
        Stage {
            name: name.to_owned(),
            seconds: 15.0,
            offered_per_s: f64::from(rate),
            accepted_per_s: f64::from(rate),
            redis_lag_p99: Some(u64::from(rate) / 5),
            staleness_p99_ms: Some(1_999.0),
            machine_busy: Some(0.5),
            ..Stage::default()
        }
    }

    fn good() -> Report {
        Report {
            stages: specification::SURGE.iter().map(|row| held(row.name, row.rate)).collect(),
            totals: Totals {
                lost: Some(0),
                rows: Some(10),
                rows_distinct: Some(10),
                poison_sent: 47,
                poison_distinct_in_dlt: Some(47),
                ..Totals::default()
            },
            recovery: Recovery { outage_s: Some(5.0), recovered_in_s: Some(9.9) },
            cost: writer_took(4.0, 3_072.0),
            ..Report::default()
        }
    }

    fn writer_took(cores: f64, mib: f64) -> BTreeMap<String, Cost> {
        let cost = Cost { cpu_cores_at_peak: Some(cores), cpu_s: None, rss_max_mib: Some(mib) };
        [(REDIS_WRITER.to_owned(), cost)].into()
    }

    fn verdict(change: impl FnOnce(&mut Report)) -> (Verdict, usize) {
        verdict_of(1, change)
    }

    fn verdict_of(positions: u32, change: impl FnOnce(&mut Report)) -> (Verdict, usize) {
        let mut report = good();
        change(&mut report);
        let judgement = judge(&report, positions, &SURGE);
        (judgement.verdict, judgement.failures.len())
    }

    #[test]
    fn a_run_on_the_thresholds_passes() {
        assert_eq!(verdict(|_| {}), (Verdict::Pass, 0));
        assert_eq!(verdict(|report| report.stages[3].accepted_per_s = 49_500.0), (Verdict::Pass, 0));
    }

    #[test]
    fn each_rule_alone_fails_a_run() {
        let rules: [fn(&mut Report); 13] = [
            |report| report.totals.lost = Some(1),
            |report| report.totals.lost = None,
            |report| report.totals.rows_distinct = Some(9),
            |report| report.totals.poison_distinct_in_dlt = Some(46),
            |report| report.totals.poison_sent = 46,
            |report| report.recovery.recovered_in_s = Some(10.0),
            |report| report.recovery.recovered_in_s = None,
            |report| report.stages[0].staleness_p99_ms = Some(2_000.0),
            |report| report.stages[0].redis_lag_p99 = Some(1_001),
            |report| report.stages[0].redis_lag_p99 = None,
            |report| report.stages[0].accepted_per_s = 4_949.0,
            |report| report.cost = writer_took(4.1, 1.0),
            |report| report.cost = writer_took(0.1, 3_073.0),
        ];
        for (number, rule) in rules.into_iter().enumerate() {
            assert_eq!(verdict(rule), (Verdict::Fail, 1), "rule {number}");
        }
    }

    #[test]
    fn a_small_machine_is_to_blame_when_it_was_busy_and_did_what_is_owed() {
        let limited = |accepted: f64, busy: f64| {
            move |report: &mut Report| {
                report.stages[4].accepted_per_s = accepted;
                report.stages[4].machine_busy = Some(busy);
            }
        };
        assert_eq!(verdict(limited(41_000.0, 0.95)), (Verdict::MachineLimited, 0));
        assert_eq!(verdict(limited(41_000.0, 0.94)), (Verdict::Fail, 1));
        assert_eq!(verdict(limited(29_999.0, 1.0)), (Verdict::Fail, 1));
        assert_eq!(verdict_of(10, limited(41_000.0, 1.0)), (Verdict::Fail, 1));
    }

    #[test]
    fn a_stage_up_to_15_000_is_owed_on_any_machine() {
        let slow = |report: &mut Report| {
            report.stages[1].accepted_per_s = 14_000.0;
            report.stages[1].machine_busy = Some(1.0);
        };
        assert_eq!(verdict(slow), (Verdict::Fail, 1));
    }

    #[test]
    fn the_stage_at_30_000_may_miss_it_when_a_later_one_reached_it() {
        let slow = |peak: f64| {
            move |report: &mut Report| {
                for (stage, accepted) in [(2, 29_000.0), (3, peak), (4, peak)] {
                    report.stages[stage].accepted_per_s = accepted;
                    report.stages[stage].machine_busy = Some(1.0);
                }
            }
        };
        assert_eq!(verdict(slow(35_000.0)), (Verdict::MachineLimited, 0));
        assert_eq!(verdict(slow(29_500.0)), (Verdict::Fail, 3));
    }

    #[test]
    fn staleness_is_owed_by_a_stage_that_was_not_held_too() {
        let slow = |report: &mut Report| {
            report.stages[4].accepted_per_s = 41_000.0;
            report.stages[4].machine_busy = Some(1.0);
            report.stages[4].staleness_p99_ms = Some(2_500.0);
        };
        assert_eq!(verdict(slow), (Verdict::Fail, 1));
    }

    #[test]
    fn the_largest_user_of_the_cores_comes_first() {
        let mut report = good();
        report.cost.insert("kafka".to_owned(), Cost { cpu_cores_at_peak: Some(5.0), ..Cost::default() });
        assert_eq!(who_used_the_cores(&report), "kafka 5.00, redis-writer 4.00");
    }
}
