//! The surge of the specification: five stages, malformed records at the peak, then Redis away for five seconds.

use std::time::Duration;

use super::SurgeLength;
use crate::error::RunError;
use crate::plan::{Plan, Stage};
use crate::run::Run;
use crate::specification;
use crate::tuning::FLEET;

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

/// The surge's stages, and the one in which Redis is away.
#[must_use]
pub fn plan(length: SurgeLength) -> Plan {
    let rows = specification::SURGE.iter().map(|row| Stage::of(row.name, row.rate, length.of(row), FLEET));
    let outage = Stage::of("redis-outage", OUTAGE_RATE, OUTAGE_STAGE, FLEET);
    Plan::new(rows.chain([outage]).collect())
}

/// Plays it.
pub async fn play(run: &mut Run, length: SurgeLength) -> Result<(), RunError> {
    run.start_system().await?;
    let plan = plan(length);
    let stages: Vec<(String, (Duration, Duration))> =
        plan.stages().map(|stage| stage.name.clone()).zip((0..).map(|stage| plan.window(stage))).collect();
    run.begin(plan, specification::SURGE.len()).await?;
    for (number, (name, (from, until))) in stages.iter().take(specification::SURGE.len()).enumerate() {
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

fn first_peak() -> Option<usize> {
    let highest = specification::SURGE.iter().map(|row| row.rate).max();
    specification::SURGE.iter().position(|row| Some(row.rate) == highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_surge_offers_what_is_specified() {
        let plan = plan(SurgeLength::Short);
        let offered: Vec<u64> = (0..5).map(|stage| plan.events_in(stage)).collect();
        assert_eq!(offered, [75_000, 225_000, 450_000, 750_000, 750_000]);
        assert_eq!(plan.window(4).1, Duration::from_secs(75));
    }

    #[test]
    fn a_full_surge_lasts_six_minutes() {
        assert_eq!(plan(SurgeLength::Full).window(4).1, Duration::from_secs(360));
    }

    #[test]
    fn poison_comes_with_the_first_stage_at_the_peak() {
        assert_eq!(first_peak(), Some(3));
    }
}
