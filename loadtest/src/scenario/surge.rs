//! The surge of the specification: a warm-up, five stages, malformed records at the peak, then Redis away for five seconds.

use std::ops::Range;
use std::time::Duration;

use super::SurgeLength;
use crate::error::RunError;
use crate::plan::{Plan, Stage};
use crate::run::Run;
use crate::specification;
use crate::tuning::FLEET;

/// Load before the first stage. The specification's users come at 500 a second; servers that have just started (the broker
/// compiles itself as it runs) get this instead. Its records are counted like all others; its latencies are not in the table.
const WARM_UP: (u32, Duration) = (5_000, Duration::from_secs(6));
/// Where the specified stages stand in the plan: behind the warm-up.
const SPECIFIED: Range<usize> = 1..1 + specification::SURGE.len();
/// Events per second while Redis is away.
const OUTAGE_RATE: u32 = 10_000;
/// How long Redis is away.
const AWAY: Duration = Duration::from_secs(5);
/// Load at the lower rate before Redis is stopped, so that what is measured is the outage and not the end of the surge.
const CALM: Duration = Duration::from_secs(3);
/// Longest wait for the surge's backlog before Redis is stopped all the same.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);
/// Load after the map is fresh again, to see that it stays so.
const AFTERGLOW: Duration = Duration::from_secs(2);
/// Longest that the outage and the recovery from it can take.
const OUTAGE_STAGE: Duration = Duration::from_secs(180);
/// Part of a stage at the peak that passes before the malformed records are put in.
const POISON_AFTER: u32 = 3;

/// The warm-up, the surge's stages, and the one in which Redis is away.
#[must_use]
pub fn plan(length: SurgeLength) -> Plan {
    let warm_up = Stage::of("warm-up", WARM_UP.0, WARM_UP.1, FLEET);
    let rows = specification::SURGE.iter().map(|row| Stage::of(row.name, row.rate, length.of(row), FLEET));
    let outage = Stage::of("redis-outage", OUTAGE_RATE, OUTAGE_STAGE, FLEET);
    Plan::new([warm_up].into_iter().chain(rows).chain([outage]).collect())
}

/// Plays it.
pub async fn play(run: &mut Run, length: SurgeLength) -> Result<(), RunError> {
    run.start_system().await?;
    let plan = plan(length);
    let stages: Vec<(String, (Duration, Duration))> =
        plan.stages().map(|stage| stage.name.clone()).zip((0..).map(|stage| plan.window(stage))).collect();
    run.begin(plan, SPECIFIED).await?;
    for (number, (name, (from, until))) in stages.iter().take(SPECIFIED.end).enumerate() {
        run.enter(name);
        if Some(number) == first_peak() {
            run.until(*from + (*until - *from) / POISON_AFTER).await?;
            run.put_poison().await;
        }
        run.until(*until).await?;
    }
    outage(run).await?;
    run.enter("draining");
    run.drain().await?;
    run.count().await
}

async fn outage(run: &mut Run) -> Result<(), RunError> {
    run.enter("redis-outage");
    let surge_ended = run.now();
    run.until(surge_ended + CALM).await?;
    run.settle(surge_ended + SETTLE_WITHIN).await?;
    run.redis_outage(AWAY).await?;
    run.until(run.now() + AFTERGLOW).await
}

/// The first stage of the plan at the highest rate.
fn first_peak() -> Option<usize> {
    let highest = specification::SURGE.iter().map(|row| row.rate).max();
    let position = specification::SURGE.iter().position(|row| Some(row.rate) == highest);
    position.map(|row| SPECIFIED.start + row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_surge_offers_what_is_specified() {
        let plan = plan(SurgeLength::Short);
        let offered: Vec<u64> = SPECIFIED.map(|stage| plan.events_in(stage)).collect();
        assert_eq!(offered, [75_000, 225_000, 450_000, 750_000, 750_000]);
        assert_eq!(plan.window(5), (Duration::from_secs(66), Duration::from_secs(81)));
    }

    #[test]
    fn a_full_surge_lasts_six_minutes() {
        assert_eq!(plan(SurgeLength::Full).window(5).1 - WARM_UP.1, Duration::from_secs(360));
    }

    #[test]
    fn poison_comes_with_the_first_stage_at_the_peak() {
        assert_eq!(first_peak(), Some(4));
    }
}
