//! How long a redis-writer that is started behind a backlog takes until the map is fresh, while the input goes on: it
//! must not depend on how large the backlog is.

use std::time::Duration;

use tokio::time::Instant;

use super::feed::{Feed, now_ms};
use super::map::Map;
use super::world::{Live, World};
use super::{DRAIN_LIMIT, look, median};
use crate::error::Error;
use crate::line::Line;
use crate::summary::figure;
use crate::{Setting, say};

const NAME: &str = "time-to-fresh";
/// Records a second, those of the backlog by their timestamps and those that go on coming in.
const RATE: u64 = 20_000;
const BACKLOGS: [u64; 3] = [200_000, 1_000_000, 2_400_000];
/// The map is fresh when no driver's position on it is older than the newest one of this age: what is younger may be
/// on its way.
const FRESH: Duration = Duration::from_secs(1);
/// Between two looks at the map.
const INTERVAL: Duration = Duration::from_millis(10);
/// Every so manieth driver is looked at first; all of them are once these are fresh.
const SAMPLE: usize = 997;

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>, Error> {
    let world = World::with_redis(NAME)?;
    let mut map = Map::open(&world.stack.redis)?;
    // Not counted: whoever comes first finds a broker that still compiles itself.
    time_to_fresh(&world, &mut map, BACKLOGS[0], 0)?;
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 1..=setting.rounds {
        for (backlog, times) in BACKLOGS.iter().zip(&mut times) {
            times.push(time_to_fresh(&world, &mut map, *backlog, round)?);
        }
    }
    let seconds = times.each_ref().map(|times| median(times, |seconds| *seconds));
    let (shortest, longest) =
        (seconds.iter().copied().fold(f64::NAN, f64::min), seconds.iter().copied().fold(f64::NAN, f64::max));
    let mut lines =
        vec![Line::new(NAME, longest, ("1.5 × the shortest + 1 s", 1.5 * shortest + 1.0), "s, the longest")];
    for (backlog, seconds) in BACKLOGS.iter().zip(seconds) {
        let name = format!("{NAME}-{}k", backlog / 1_000);
        lines.push(Line::new(name, seconds, ("the shortest", shortest), "s from the start of the process"));
    }
    Ok(lines)
}

fn time_to_fresh(world: &World, map: &mut Map, backlog: u64, round: usize) -> Result<f64, Error> {
    let topic = format!("{NAME}-{backlog}-{round}");
    let live = world.feed(&Feed::behind(&topic, RATE, backlog))?;
    map.reset()?;
    let (held, begun) = (live.sent(), Instant::now());
    let writer = world.redis_writer(&topic, &topic, &[])?;
    while !(is_fresh(map, &live, SAMPLE)? && is_fresh(map, &live, 1)?) {
        writer.is_running()?;
        if begun.elapsed() > DRAIN_LIMIT {
            return Err(Error::Client(format!("the map is not fresh after {DRAIN_LIMIT:?}")));
        }
        look::pause(INTERVAL);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let expired = writer.settled(Some("expired"))?;
    say(format_args!("backlog of {held}: fresh after {} s, {expired} expired records were left out", figure(seconds)));
    let is_live = live.is_live();
    writer.stop();
    world.end(live)?;
    match is_live {
        true => Ok(seconds),
        false => Err(Error::client("the input did not keep its rate")),
    }
}

/// Whether every `step`th driver is on the map with its newest position of an age of [`FRESH`], or a newer one.
fn is_fresh(map: &mut Map, live: &Live, step: usize) -> Result<bool, Error> {
    let known = live.feed.due(now_ms() - i64::try_from(FRESH.as_millis()).unwrap_or(i64::MAX));
    let is_new = |driver: u64, value: &[u8]| {
        let newest_ms = Feed::last_of(driver, known).map(|number| live.feed.at_ms(number));
        time_of(value) >= newest_ms
    };
    map.first_wrong(step, is_new).map(|wrong| wrong.is_none())
}

/// The time at the end of a value.
fn time_of(value: &[u8]) -> Option<i64> {
    let (_, time) = std::str::from_utf8(value).ok()?.rsplit_once("\"timestamp\":")?;
    time.trim_end_matches('}').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_time_and_nothing_is_older_than_any() {
        assert_eq!(time_of(br#"{"latitude":1.0,"timestamp":1795441689633}"#), Some(1_795_441_689_633));
        assert!(time_of(b"") < Some(0));
    }
}
