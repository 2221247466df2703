//! What poison costs redis-writer: its rate with one record in a hundred undecodable beside none, the time that each of
//! them takes from its partition, and what a reader of the map sees of it.

use super::feed::{Feed, POISON_EVERY};
use super::map::Map;
use super::process::Writer;
use super::world::World;
use super::{BACKLOG, by_turns, look, median, visibility};
use crate::error::Error;
use crate::line::Line;
use crate::summary::figure;
use crate::{Setting, say};

const NAME: &str = "poison-cost";
/// Records a second, by their timestamps.
const RATE: u64 = 50_000;
const FLAGS: [&str; 4] = ["--conflate", "off", "--position-ttl", "1h"];
const COST: &str = "pipeline_poison_cost_seconds_bucket";

/// A drain with poison, or without.
#[derive(Debug, Clone)]
struct Drain {
    rate: f64,
    costs: Costs,
}

/// Bounds of the service's histogram of its poison's cost, in seconds, each with how many samples lie below.
#[derive(Debug, Clone, Default, PartialEq)]
struct Costs(Vec<(f64, f64)>);

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>, Error> {
    let world = World::with_redis(NAME)?;
    let clean = Feed::behind("poison-none", RATE, BACKLOG);
    let poisoned = Feed { is_poisoned: true, ..Feed::behind("poison-some", RATE, BACKLOG) };
    world.fill(&clean, BACKLOG)?;
    world.fill(&poisoned, BACKLOG)?;
    let map = std::cell::RefCell::new(Map::open(&world.stack.redis)?);
    let drain = |feed: &Feed, round: &str| {
        let drain = drained(&world, &mut map.borrow_mut(), feed, round)?;
        say(format_args!("{} {round}: {} records/s", feed.topic, figure(drain.rate)));
        Ok(drain)
    };
    drain(&clean, "warm")?;
    drain(&poisoned, "warm")?;
    let with = |round: usize| drain(&poisoned, &round.to_string());
    let without = |round: usize| drain(&clean, &round.to_string());
    let (with, without) = by_turns(setting.rounds, with, without)?;
    let quantile_ms = |q: f64| median(&with, |drain| drain.costs.quantile(q) * 1e3);
    let mut lines = vec![
        Line::new(
            NAME,
            median(&with, |drain| drain.rate),
            ("without poison", median(&without, |drain| drain.rate)),
            "records/s",
        ),
        Line::new(
            format!("{NAME}-p99"),
            quantile_ms(0.99),
            ("its median", quantile_ms(0.5)),
            "ms from decoding poison to decoding the next record",
        ),
    ];
    lines.extend(visibility::run(&world, &mut map.borrow_mut())?);
    Ok(lines)
}

fn drained(world: &World, map: &mut Map, feed: &Feed, round: &str) -> Result<Drain, Error> {
    map.reset()?;
    let poison = if feed.is_poisoned { BACKLOG / POISON_EVERY } else { 0 };
    let writer = world.redis_writer(&feed.topic, &format!("{}-{round}", feed.topic), &FLAGS)?;
    let seconds = look::until("records written or published as letters", BACKLOG, || {
        writer.is_running()?;
        match map.writes()? {
            // The letters are asked for only when nothing else is missing: the question costs the writer time.
            written if written == BACKLOG - poison => Ok(written + writer.settled(Some("dead_letter"))?),
            written => Ok(written),
        }
    })?;
    look::until("all records are settled", BACKLOG, || writer.settled(None))?;
    let costs = Costs::of(&writer)?;
    writer.stop();
    if costs.samples() != poison as f64 {
        return Err(Error::Client(format!("{} samples of {poison} poison records", costs.samples())));
    }
    Ok(Drain { rate: BACKLOG as f64 / seconds, costs })
}

impl Costs {
    fn of(writer: &Writer) -> Result<Self, Error> {
        let bound = |labels: &str| labels.split("le=\"").nth(1)?.split('"').next()?.parse::<f64>().ok();
        let series = writer.series(COST)?;
        let mut buckets: Vec<_> = series.iter().filter_map(|(labels, count)| Some((bound(labels)?, *count))).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Self(buckets))
    }

    fn samples(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// In seconds, as if the samples of a bucket lay evenly in it. It is below a bound of the histogram exactly if so
    /// many samples are.
    fn quantile(&self, q: f64) -> f64 {
        let wanted = q * self.samples();
        let (mut from, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count > below && *count >= wanted {
                return from + (bound - from) * (wanted - below) / (count - below);
            }
            (from, below) = (*bound, *count);
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_the_bucket_that_reaches_it() {
        let costs = Costs(vec![(1e-6, 0.0), (1e-5, 500.0), (1e-3, 995.0), (f64::INFINITY, 1_000.0)]);
        assert!((costs.quantile(0.5) - 1e-5).abs() < 1e-12);
        let p99 = costs.quantile(0.99);
        assert!((9e-4..1e-3).contains(&p99), "{p99}");
        assert_eq!(costs.quantile(0.999), f64::INFINITY, "beyond the last bound nothing is known");
    }

    #[test]
    fn no_samples_have_no_quantile() {
        assert!(Costs::default().quantile(0.99).is_nan());
        assert!(Costs(vec![(1e-3, 0.0), (f64::INFINITY, 0.0)]).quantile(0.99).is_nan());
    }
}
