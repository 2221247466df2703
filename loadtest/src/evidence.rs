//! Everything that a run has seen, and the report that it makes: from here on nothing is measured any more.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::generator::{StageTold, Told};
use crate::ledger::Outcome;
use crate::losses::Comparison;
use crate::plan::Plan;
use crate::quantile::quantile;
use crate::recovery::{Look, recovered_after};
use crate::report::{self, Cost, Detail, Machine, Recovery, Report, Totals, rounded};
use crate::sampler::{self, Sample};
use crate::scrape::Buckets;
use crate::staleness::Summary;
use crate::witness::{DeadLetters, Place};

/// Share of a stage's samples that must be known for its p99 to be one.
const KNOWN_SHARE: f64 = 0.8;
const MICROS_PER_MS: f64 = 1_000.0;
const MICROS_PER_S: f64 = 1_000_000.0;

/// What a run has seen so far; a run that is cut off leaves parts of it empty.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Positions in a POST.
    pub positions_per_post: u32,
    /// What was to be offered.
    pub plan: Option<Arc<Plan>>,
    /// Which stages of the plan the report is about.
    pub judged: Range<usize>,
    /// How far the plan was played.
    pub played: Duration,
    /// One sample a second.
    pub samples: Vec<Sample>,
    /// What the generator was told.
    pub surge: Option<Told>,
    /// What the prober was told.
    pub probes: Option<Told>,
    /// Staleness, stage by stage from the plan's first.
    pub staleness: Vec<Summary>,
    /// Where the malformed records went.
    pub poison: BTreeSet<Place>,
    /// When Redis was stopped and when it answered again.
    pub outage: Option<(Duration, Duration)>,
    /// What was seen from then on.
    pub looks: Vec<Look>,
    /// Rows against ledgers.
    pub rows: Option<Comparison>,
    /// Records of the topic against ledgers.
    pub records: Option<Comparison>,
    /// What the dead letter topic holds.
    pub dead_letters: Option<DeadLetters>,
    /// What malformed records cost.
    pub poison_cost: Buckets,
    /// What it ran on.
    pub machine: Machine,
    /// What went wrong on the way, each in a line.
    pub troubles: Vec<String>,
}

impl Evidence {
    /// The report; verdict and failures are for the judge to fill in.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            stages: self.plan.iter().flat_map(|plan| self.stages(plan)).collect(),
            totals: self.totals(),
            recovery: self.recovery(),
            cost: self.cost(),
            machine: self.machine.clone(),
            detail: self.detail(),
            ..Report::default()
        }
    }

    /// The stages that were played to their end.
    fn stages(&self, plan: &Plan) -> Vec<report::Stage> {
        let ended = |stage: &usize| plan.window(*stage).1 <= self.played;
        self.judged.clone().filter(ended).map(|stage| self.stage(plan, stage)).collect()
    }

    fn stage(&self, plan: &Plan, number: usize) -> report::Stage {
        let (from, until) = plan.window(number);
        let seconds = (until - from).as_secs_f64();
        let samples = sampler::span(&self.samples, from, until);
        // The sample at the very start shows what the stage before has left.
        let inside = samples.get(1..).unwrap_or_default();
        let redis: Vec<u64> = inside.iter().filter_map(|sample| sample.lags.redis).collect();
        let analytics: Vec<u64> = inside.iter().filter_map(|sample| sample.lags.analytics).collect();
        let staleness = self.staleness.get(number).copied().unwrap_or_default();
        let told = self.surge.as_ref().and_then(|told| told.stages.get(number));
        let counts = told.map(|told| told.counts).unwrap_or_default();
        report::Stage {
            name: plan.stages().nth(number).map(|stage| stage.name.clone()).unwrap_or_default(),
            seconds,
            offered_per_s: rounded(plan.events_in(number) as f64 / seconds, 1),
            accepted_per_s: rounded(counts.accepted as f64 / seconds, 1),
            rejected: counts.refused,
            failed: counts.unknown + counts.never_sent,
            redis_lag_p99: quantile(&redis, 0.99).filter(|_| redis.len() as f64 >= KNOWN_SHARE * inside.len() as f64),
            redis_lag_max: redis.iter().max().copied(),
            redis_lag_end: inside.last().and_then(|sample| sample.lags.redis),
            analytics_lag_max: analytics.iter().max().copied(),
            analytics_lag_end: inside.last().and_then(|sample| sample.lags.analytics),
            ack_p50_ms: told.and_then(|told| ack_ms(told, 0.5)),
            ack_p99_ms: told.and_then(|told| ack_ms(told, 0.99)),
            staleness_p50_ms: staleness.p50_ms.map(|ms| rounded(ms, 1)),
            staleness_p99_ms: staleness.p99_ms.map(|ms| rounded(ms, 1)),
            probes_sent: staleness.sent,
            probes_seen: staleness.seen,
            machine_busy: sampler::machine_busy(samples).map(|busy| rounded(busy, 3)),
        }
    }

    fn told(&self) -> impl Iterator<Item = &Told> {
        self.surge.iter().chain(&self.probes)
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.told().map(|told| told.ledger.count(outcome)).sum()
    }

    fn totals(&self) -> Totals {
        let micros = |q| self.poison_cost.quantile(q).map(|seconds| rounded(seconds * MICROS_PER_S, 1));
        let found = |letters: &DeadLetters| letters.originals.intersection(&self.poison).count() as u64;
        Totals {
            accepted: self.surge.is_some().then(|| self.count(Outcome::Accepted)),
            in_kafka: self.records.map(|records| records.rows),
            rows: self.rows.map(|rows| rows.rows),
            rows_distinct: self.rows.map(|rows| rows.distinct),
            lost: self.rows.map(|rows| rows.lost),
            poison_sent: self.poison.len() as u64,
            poison_distinct_in_dlt: self.dead_letters.as_ref().map(found),
            dead_letters: self.dead_letters.as_ref().map(|letters| letters.letters),
            poison_cost_p50_us: micros(0.5),
            poison_cost_p99_us: micros(0.99),
        }
    }

    fn recovery(&self) -> Recovery {
        let outage = self.outage.map(|(stopped, answering)| answering.saturating_sub(stopped));
        let recovered = self.outage.and_then(|(_, answering)| recovered_after(answering, &self.looks));
        let seconds = |span: Duration| rounded(span.as_secs_f64(), 2);
        Recovery { outage_s: outage.map(seconds), recovered_in_s: recovered.map(seconds) }
    }

    /// The samples of the stages with the highest rate, from the first of them to the last.
    fn peak(&self) -> &[Sample] {
        let Some(plan) = &self.plan else { return &[] };
        let surge = || plan.stages().enumerate().filter(|(number, _)| self.judged.contains(number));
        let highest = surge().map(|(_, stage)| stage.rate).max();
        let peak = || surge().filter(|(_, stage)| Some(stage.rate) == highest).map(|(number, _)| plan.window(number));
        let (Some((from, _)), Some((_, until))) = (peak().next(), peak().last()) else { return &[] };
        sampler::span(&self.samples, from, until)
    }

    fn cost(&self) -> BTreeMap<String, Cost> {
        let peak = self.peak();
        let names: BTreeSet<&str> = self.samples.iter().flat_map(|sample| sample.usage.keys().copied()).collect();
        let usage =
            |name: &'_ str| self.samples.iter().filter_map(move |sample| sample.usage.get(name)).collect::<Vec<_>>();
        let cost = |name: &str| {
            let usage = usage(name);
            Cost {
                cpu_cores_at_peak: sampler::cores(peak, name).map(|cores| rounded(cores, 3)),
                cpu_s: usage.last().map(|usage| rounded(usage.cpu_s, 2)),
                rss_max_mib: usage.iter().map(|usage| usage.rss_mib).reduce(f64::max).map(|mib| rounded(mib, 1)),
            }
        };
        names.into_iter().map(|name| (name.to_owned(), cost(name))).collect()
    }

    fn detail(&self) -> Detail {
        let mut statuses = BTreeMap::new();
        for (status, count) in self.told().flat_map(|told| &told.statuses) {
            *statuses.entry(*status).or_default() += count;
        }
        Detail {
            scenario: self.scenario.to_owned(),
            positions_per_post: self.positions_per_post,
            refused: self.count(Outcome::Refused),
            never_sent: self.count(Outcome::NeverSent),
            unknown: self.count(Outcome::Unknown),
            rows_of_unknown: self.rows.map(|rows| rows.of_unknown),
            rows_of_refused: self.rows.map(|rows| rows.of_refused),
            rows_of_strangers: self.rows.map(|rows| rows.of_strangers),
            accepted_not_in_kafka: self.records.map(|records| records.lost),
            statuses,
            limits: Vec::new(),
        }
    }
}

fn ack_ms(told: &StageTold, q: f64) -> Option<f64> {
    (!told.ack_us.is_empty()).then(|| rounded(told.ack_us.value_at_quantile(q) as f64 / MICROS_PER_MS, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Lags;
    use crate::plan::Stage;
    use crate::procfs::{MachineTime, Usage};

    fn sample(at_s: u64, lag: u64) -> Sample {
        let cpu_s = at_s as f64 / 2.0;
        Sample {
            at: Duration::from_secs(at_s) + Duration::from_millis(3),
            lags: Lags { redis: Some(lag), analytics: Some(lag * 10), dead_letters: Some(0) },
            machine: Some(MachineTime { busy: at_s * 90, total: at_s * 100 }),
            usage: [("kafka", Usage { cpu_s, rss_mib: 100.0 + cpu_s })].into(),
            ..Sample::default()
        }
    }

    fn evidence(played_s: u64) -> Evidence {
        let stage = |name, rate| Stage::of(name, rate, Duration::from_secs(2), 100);
        Evidence {
            plan: Some(Arc::new(Plan::new(vec![
                stage("low", 10),
                stage("peak", 20),
                stage("hold", 20),
                stage("outage", 10),
            ]))),
            judged: 0..3,
            played: Duration::from_secs(played_s),
            samples: (0..=8).map(|second| sample(second, second * 100)).collect(),
            ..Evidence::default()
        }
    }

    #[test]
    fn a_stage_owns_the_samples_behind_its_start_up_to_its_end() {
        let report = evidence(8).report();
        let lows: Vec<_> = report.stages.iter().map(|stage| (stage.redis_lag_max, stage.redis_lag_end)).collect();
        assert_eq!(lows, [(Some(200), Some(200)), (Some(400), Some(400)), (Some(600), Some(600))]);
        assert_eq!(report.stages[1].analytics_lag_max, Some(4_000));
        assert_eq!(report.stages[1].machine_busy, Some(0.9));
        assert_eq!(report.stages[1].offered_per_s, 20.0);
    }

    #[test]
    fn a_p99_of_few_samples_is_not_known() {
        let mut evidence = evidence(8);
        evidence.samples[2].lags.redis = None;
        let report = evidence.report();
        assert_eq!((report.stages[0].redis_lag_p99, report.stages[0].redis_lag_max), (None, Some(100)));
        assert_eq!(report.stages[1].redis_lag_p99, Some(400));
    }

    #[test]
    fn only_stages_played_to_their_end_are_reported() {
        assert_eq!(evidence(5).report().stages.len(), 2);
    }

    #[test]
    fn cost_at_the_peak_is_of_all_stages_with_the_highest_rate() {
        let cost = evidence(8).report().cost["kafka"];
        assert_eq!(cost.cpu_cores_at_peak, Some(0.5));
        assert_eq!(cost.cpu_s, Some(4.0));
        assert_eq!(cost.rss_max_mib, Some(104.0));
    }

    #[test]
    fn poison_counts_only_by_its_place() {
        let letters = DeadLetters { letters: 3, originals: [(0, 7), (1, 9), (5, 5)].into() };
        let evidence = Evidence { poison: [(0, 7), (1, 9), (2, 2)].into(), dead_letters: Some(letters), ..evidence(8) };
        let totals = evidence.report().totals;
        assert_eq!((totals.poison_sent, totals.poison_distinct_in_dlt, totals.dead_letters), (3, Some(2), Some(3)));
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let report = Evidence::default().report();
        assert_eq!(report.totals.lost, None);
        assert_eq!(report.totals.accepted, None);
        assert_eq!(report.recovery.recovered_in_s, None);
    }
}
