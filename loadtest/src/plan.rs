//! What is offered and when: each event's intended moment is a function of its number, so that no queue is needed to remember it.

use std::time::Duration;

const NANOS: u64 = 1_000_000_000;

/// A stretch of constant rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Name in the report.
    pub name: String,
    /// Events per second.
    pub rate: u32,
    /// How long it lasts.
    pub length: Duration,
    /// Drivers that take turns.
    pub drivers: u32,
}

impl Stage {
    /// A stage of `rate` events/s in which as many drivers as events per second take turns, so that each posts once a second.
    pub fn of(name: impl Into<String>, rate: u32, length: Duration, fleet: u32) -> Self {
        Self { name: name.into(), rate, length, drivers: rate.clamp(1, fleet) }
    }

    fn events(&self) -> u64 {
        let nanos = u64::try_from(self.length.as_nanos()).unwrap_or(u64::MAX);
        mul_div(u64::from(self.rate), nanos, NANOS)
    }
}

/// Stages one after the other, from moment zero.
#[derive(Debug, Clone)]
pub struct Plan {
    stages: Vec<Placed>,
}

#[derive(Debug, Clone)]
struct Placed {
    stage: Stage,
    start: Duration,
    events: u64,
}

/// Where the generator stands in a plan: the next event not yet sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    stage: usize,
    index: u64,
}

/// The events that travel in one POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Post {
    /// Number of the stage.
    pub stage: usize,
    /// Number of its first event within the stage.
    pub index: u64,
    /// How many events it carries.
    pub events: u32,
    /// Intended moment of its first event.
    pub first_due: Duration,
    /// Intended moment of its last event: when it is to be sent.
    pub due: Duration,
}

impl Plan {
    /// Lays the stages end to end.
    #[must_use]
    pub fn new(stages: Vec<Stage>) -> Self {
        let mut start = Duration::ZERO;
        let place = |stage: Stage| {
            let placed = Placed { start, events: stage.events(), stage };
            start += placed.stage.length;
            placed
        };
        Self { stages: stages.into_iter().map(place).collect() }
    }

    /// The stages in their order.
    pub fn stages(&self) -> impl ExactSizeIterator<Item = &Stage> {
        self.stages.iter().map(|placed| &placed.stage)
    }

    /// First moment of a stage and the first moment after it.
    #[must_use]
    pub fn window(&self, stage: usize) -> (Duration, Duration) {
        let placed = &self.stages[stage];
        (placed.start, placed.start + placed.stage.length)
    }

    /// End of the last stage.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.stages.last().map_or(Duration::ZERO, |placed| placed.start + placed.stage.length)
    }

    /// The stage that `at` falls into, or the number of stages when it is over.
    #[must_use]
    pub fn stage_at(&self, at: Duration) -> usize {
        self.stages.partition_point(|placed| placed.start + placed.stage.length <= at)
    }

    /// Events of the whole plan.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.stages.iter().map(|placed| placed.events).sum()
    }

    /// Events of one stage.
    #[must_use]
    pub fn events_in(&self, stage: usize) -> u64 {
        self.stages[stage].events
    }

    /// Events whose intended moment is before `at`.
    #[must_use]
    pub fn events_before(&self, at: Duration) -> u64 {
        (0..self.stages.len()).map(|stage| self.events_before_in(stage, at)).sum()
    }

    /// Events of one stage whose intended moment is before `at`.
    #[must_use]
    pub fn events_before_in(&self, stage: usize, at: Duration) -> u64 {
        let placed = &self.stages[stage];
        let inside = at.saturating_sub(placed.start).min(placed.stage.length);
        let nanos = u64::try_from(inside.as_nanos()).unwrap_or(u64::MAX);
        div_ceil(u64::from(placed.stage.rate), nanos, NANOS).min(placed.events)
    }

    /// Intended moment of an event.
    #[must_use]
    pub fn moment(&self, stage: usize, index: u64) -> Duration {
        let placed = &self.stages[stage];
        placed.start + Duration::from_nanos(mul_div(index, NANOS, u64::from(placed.stage.rate.max(1))))
    }

    /// The driver, counted from 0, whose turn an event is.
    #[must_use]
    pub fn driver(&self, stage: usize, index: u64) -> u32 {
        let turn = index % u64::from(self.stages[stage].stage.drivers.max(1));
        u32::try_from(turn).expect("smaller than a u32")
    }

    /// The POST of up to `positions` events at `cursor`, if the plan holds one more.
    #[must_use]
    pub fn post_at(&self, cursor: Cursor, positions: u32) -> Option<Post> {
        let mut cursor = cursor;
        while cursor.index >= self.stages.get(cursor.stage)?.events {
            cursor = Cursor { stage: cursor.stage + 1, index: 0 };
        }
        let left = self.stages[cursor.stage].events - cursor.index;
        let events = u64::from(positions).min(left);
        Some(Post {
            stage: cursor.stage,
            index: cursor.index,
            events: u32::try_from(events).unwrap_or(u32::MAX),
            first_due: self.moment(cursor.stage, cursor.index),
            due: self.moment(cursor.stage, cursor.index + events - 1),
        })
    }
}

impl Cursor {
    /// The place behind `post`.
    #[must_use]
    pub fn behind(post: &Post) -> Self {
        Self { stage: post.stage, index: post.index + u64::from(post.events) }
    }
}

fn mul_div(a: u64, b: u64, divisor: u64) -> u64 {
    u64::try_from(u128::from(a) * u128::from(b) / u128::from(divisor)).unwrap_or(u64::MAX)
}

fn div_ceil(a: u64, b: u64, divisor: u64) -> u64 {
    u64::try_from((u128::from(a) * u128::from(b)).div_ceil(u128::from(divisor))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn plan(stages: &[(u32, u64)]) -> Plan {
        let stage = |&(rate, seconds): &(u32, u64)| Stage::of("s", rate, Duration::from_secs(seconds), 50_000);
        Plan::new(stages.iter().map(stage).collect())
    }

    fn walk(plan: &Plan, positions: u32) -> Vec<Post> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(|| {
            let post = plan.post_at(cursor, positions)?;
            cursor = Cursor::behind(&post);
            Some(post)
        })
        .collect()
    }

    #[test]
    fn moments_are_evenly_spread_and_rise() {
        let posts = walk(&plan(&[(1_000, 1), (3_000, 2)]), 1);
        assert_eq!(posts.len(), 7_000);
        assert!(posts.windows(2).all(|pair| pair[0].due < pair[1].due));
        assert_eq!(posts[999].due, Duration::from_millis(999));
        assert_eq!(posts[1_000].due, Duration::from_secs(1));
    }

    #[test]
    fn a_post_is_due_with_its_last_event_and_never_crosses_a_stage() {
        let posts = walk(&plan(&[(1_005, 1), (1_000, 1)]), 10);
        assert_eq!(posts[0].due, Duration::from_nanos(9 * NANOS / 1_005));
        assert_eq!(posts[100].events, 5);
        assert_eq!(posts[101].stage, 1);
        assert_eq!(posts.iter().map(|post| u64::from(post.events)).sum::<u64>(), 2_005);
    }

    #[test]
    fn events_before_a_moment_are_those_due_earlier() {
        let plan = plan(&[(1_000, 1), (3_000, 2)]);
        let posts = walk(&plan, 1);
        for at in [0, 1, 999_999, 1_000_000, 1_500_001, 3_000_000, 9_000_000] {
            let at = Duration::from_micros(at);
            let due = posts.iter().filter(|post| post.due < at).count();
            assert_eq!(plan.events_before(at), u64::try_from(due).unwrap(), "{at:?}");
        }
    }

    #[test]
    fn no_driver_has_two_events_in_one_millisecond() {
        let plan = plan(&[(500, 1), (1_500, 2), (50, 1), (3_000, 1)]);
        let mut seen = HashSet::new();
        for post in walk(&plan, 1) {
            assert!(seen.insert((plan.driver(post.stage, post.index), post.due.as_millis())));
        }
    }

    #[test]
    fn the_stage_of_a_moment_begins_at_its_start() {
        let plan = plan(&[(10, 1), (20, 2)]);
        assert_eq!(plan.stage_at(Duration::ZERO), 0);
        assert_eq!(plan.stage_at(Duration::from_secs(1)), 1);
        assert_eq!(plan.stage_at(Duration::from_secs(3)), 2);
    }
}
