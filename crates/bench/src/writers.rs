//! The writers as they are shipped, each a process of its own: what they drain from a backlog, and what poison costs.
//!
//! ```text
//! feed (our producer, lz4) ──▶ Kafka, 48 partitions ──▶ target/release/redis-writer, timescale-writer ──▶ Redis, PostgreSQL
//!                                                              │ /proc, /metrics                           │ their own counters
//!                                                              └────────────── looks from outside ─────────┘
//! ```
//!
//! A figure and its reference are taken by turns, after a first drain that is not counted (the broker compiles itself as
//! it runs), and the median of each counts: what a neighbour on the machine takes, it takes from both.

mod feed;
mod look;
mod map;
pub(crate) mod poison_cost;
mod process;
pub(crate) mod redis_writer;
pub(crate) mod time_to_fresh;
pub(crate) mod timescale_writer;
mod visibility;
mod world;

use std::time::Duration;

use crate::error::Error;

/// Partitions of every topic.
const PARTITIONS: i32 = 48;
/// Drivers, one after the other.
const DRIVERS: u64 = 50_000;
/// Records of a backlog that is drained.
const BACKLOG: u64 = 1_000_000;
/// A drain that takes longer has failed.
const DRAIN_LIMIT: Duration = Duration::from_mins(3);

/// Takes `ours` and `reference` by turns, `rounds` times each; who begins changes with the round.
fn by_turns<A, B>(
    rounds: usize,
    mut ours: impl FnMut(usize) -> Result<A, Error>,
    mut reference: impl FnMut(usize) -> Result<B, Error>,
) -> Result<(Vec<A>, Vec<B>), Error> {
    let (mut all_ours, mut references) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 1 {
            references.push(reference(round)?);
        }
        all_ours.push(ours(round)?);
        if round % 2 == 0 {
            references.push(reference(round)?);
        }
    }
    Ok((all_ours, references))
}

/// The median of a figure; of an even number of them the mean of the two in the middle.
fn median<T>(all: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    let mut figures: Vec<f64> = all.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => figures[count / 2],
        count => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_figure_in_the_middle() {
        assert_eq!(median(&[9.0, 1.0, 2.0], |figure| *figure), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0], |figure| *figure), 3.0);
        assert!(median(&[], |figure: &f64| *figure).is_nan());
    }

    #[test]
    fn who_begins_changes_with_the_round() {
        let order = std::cell::RefCell::new(String::new());
        let take = |name: char| {
            order.borrow_mut().push(name);
            Ok(())
        };
        by_turns(3, |_| take('o'), |_| take('r')).unwrap();
        assert_eq!(order.into_inner(), "orroor");
    }
}
