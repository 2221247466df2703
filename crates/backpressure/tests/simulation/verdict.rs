//! What a played case comes to, beside the bounds that are promised.

use crate::model::{Case, Phones, SLOW_FROM_S, STOP_S, Second, Sink};

/// Long enough to settle after the change, and after the sink is back.
pub(crate) const SECONDS: usize = 150;
/// At the end, what has settled is averaged over so many seconds.
const SETTLED_S: usize = 30;
/// Settled: from here on within this share of the value at the end. The same bounds the overshoot.
const BAND: f64 = 0.2;

/// Every combination that is promised.
pub(crate) fn cases() -> Vec<Case> {
    let sinks = [Sink::Share(1.0), Sink::Share(0.6), Sink::Share(0.2), Sink::Stop];
    let mut cases = Vec::new();
    for sink in sinks {
        for phones in [Phones::Obedient, Phones::Mixed, Phones::Stubborn] {
            for replicas in [1, 4] {
                cases.push(Case { phones, sink, replicas });
            }
        }
    }
    cases
}

/// The figures of one case, from the change on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) max_lag_s: f64,
    pub(crate) end_lag_s: f64,
    /// Mean stretch at the end, 1 to 5; beyond 5 turns are shed.
    pub(crate) stretch: f64,
    /// How far the largest stretch lies above that, as a share of it.
    pub(crate) overshoot: f64,
    /// Seconds after the change until the stretch stays in its band.
    pub(crate) settled_s: usize,
    /// Seconds after the sink is back until time lag is below 2 s for good.
    pub(crate) recovered_s: usize,
    /// The smallest share of drivers who were on the map with a position younger than 15 s.
    pub(crate) seen: f64,
    pub(crate) obedient_seen: f64,
    /// At the end, as shares of what is needed.
    pub(crate) accepted: f64,
    pub(crate) refused: f64,
}

/// Sums a case up.
pub(crate) fn figures(case: Case, seconds: &[Second]) -> Figures {
    // A stop is not settled in but got over: what is asked there is how it ends.
    let from = if case.sink == Sink::Stop { SLOW_FROM_S + STOP_S } else { SLOW_FROM_S };
    let after = &seconds[from..];
    let end = &after[after.len() - SETTLED_S..];
    let mean = |of: fn(&Second) -> f64| end.iter().map(of).sum::<f64>() / end.len() as f64;
    let largest = |of: fn(&Second) -> f64| seconds[SLOW_FROM_S..].iter().map(of).fold(0.0, f64::max);
    let smallest = |of: fn(&Second) -> f64| seconds[SLOW_FROM_S..].iter().map(of).fold(1.0, f64::min);
    let stretch = mean(|second| second.stretch);
    let last = |is_wrong: &dyn Fn(&Second) -> bool| after.iter().rposition(is_wrong).map_or(0, |at| at + 1);
    Figures {
        max_lag_s: largest(|second| second.time_lag_s),
        end_lag_s: mean(|second| second.time_lag_s),
        stretch,
        overshoot: if case.sink == Sink::Stop { 0.0 } else { largest(|second| second.stretch) / stretch - 1.0 },
        settled_s: last(&|second| (second.stretch - stretch).abs() > BAND * stretch),
        recovered_s: last(&|second| second.time_lag_s >= 2.0),
        seen: smallest(|second| second.seen),
        obedient_seen: smallest(|second| second.obedient_seen),
        accepted: mean(|second| second.accepted),
        refused: mean(|second| second.refused),
    }
}

/// What of the promises is broken, in words.
pub(crate) fn broken(case: Case, figures: &Figures) -> Vec<&'static str> {
    let is_slow = |share| case.sink == Sink::Share(share);
    let enough = is_slow(1.0) || is_slow(0.6);
    let promises = [
        (enough && figures.max_lag_s >= 5.0, "time lag stays below 5 s from 60 % on"),
        (case.sink == Sink::Share(0.2) && figures.end_lag_s > 15.0, "time lag settles at 20 %"),
        (figures.max_lag_s > 61.0, "time lag is bounded"),
        (is_slow(0.6) && figures.seen < 0.99, "99 % are seen within 15 s at 60 %"),
        (figures.settled_s > 30, "settles within 30 s"),
        (figures.overshoot >= BAND, "overshoots by less than 20 %"),
        (case.sink == Sink::Stop && figures.recovered_s > 10, "time lag is below 2 s within 10 s after a stop"),
        (is_slow(1.0) && figures.refused > 0.0, "with enough capacity nobody is refused"),
    ];
    promises.into_iter().filter(|(is_broken, _)| *is_broken).map(|(_, promise)| promise).collect()
}
