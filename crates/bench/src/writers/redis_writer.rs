//! redis-writer on a backlog of a million records: each of them written, and, conflating, the newest of each driver,
//! beside redis-benchmark's SETs on the same server.

use super::feed::Feed;
use super::map::{Map, Plain};
use super::world::World;
use super::{BACKLOG, DRIVERS, by_turns, look, median};
use crate::error::Error;
use crate::line::Line;
use crate::summary::figure;
use crate::{Setting, meter, say};

/// Records a second, by their timestamps.
const RATE: u64 = 50_000;
/// The backlog must not be worthless by its age, which this bench is not about.
const TTL: [&str; 2] = ["--position-ttl", "1h"];
/// SETs of one run of redis-benchmark.
const PLAIN_SETS: u64 = 2_000_000;
const PLAIN: &str = "redis-benchmark: SET, pipelined 200, 12 clients, random keys of 50,000, values as long";

/// A drain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// Records a second.
    pub(super) rate: f64,
    /// CPU of the writer for a record.
    pub(super) writer_us: f64,
    pub(super) peak_rss_mib: f64,
    redis_us: f64,
    redis_waited_us: f64,
    kafka_us: f64,
}

/// What a drain must come to, beside all records settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Every record is a write.
    Each,
    /// Every driver has a key.
    Newest,
}

/// Every record is written.
pub(crate) fn drain(setting: &Setting) -> Result<Vec<Line>, Error> {
    run(setting, "redis-writer-drain", Kind::Each)
}

/// Only the newest position of each driver is.
pub(crate) fn catchup(setting: &Setting) -> Result<Vec<Line>, Error> {
    run(setting, "redis-writer-catchup", Kind::Newest)
}

fn run(setting: &Setting, name: &str, kind: Kind) -> Result<Vec<Line>, Error> {
    let world = World::with_redis(name)?;
    let feed = Feed::behind(name, RATE, BACKLOG);
    world.fill(&feed, BACKLOG)?;
    let value_bytes = value_bytes(&feed)?;
    let mut map = Map::open(&world.stack.redis)?;
    say(format_args!("not counted: {}", drained(&world, &mut map, &feed, kind, "warm")?.line()));
    let shared = std::cell::RefCell::new(&mut map);
    let (ours, plain) = by_turns(
        setting.rounds,
        |round| {
            let drain = drained(&world, &mut shared.borrow_mut(), &feed, kind, &round.to_string())?;
            say(format_args!("{}", drain.line()));
            Ok(drain)
        },
        |_| {
            let mut map = shared.borrow_mut();
            map.reset()?;
            let before = world.servers_used()?;
            let plain = map.benchmark(PLAIN_SETS, value_bytes)?;
            let redis_us = (world.servers_used()?.sink_s - before.sink_s) / PLAIN_SETS as f64 * 1e6;
            say(format_args!("redis-benchmark: {} SET/s, redis {} µs", figure(plain.rate), figure(redis_us)));
            Ok(plain)
        },
    )?;
    lines(&world, name, &ours, &plain)
}

fn lines(world: &World, name: &str, ours: &[Drain], plain: &[Plain]) -> Result<Vec<Line>, Error> {
    let pid = world.stack.redis.pid().map(|pid| pid.to_string()).unwrap_or_default();
    let redis_mib = meter::peak_rss_mib(&pid);
    let most = ours.iter().map(|drain| drain.peak_rss_mib).fold(f64::NAN, f64::max);
    Ok(vec![
        Line::new(name, median(ours, |drain| drain.rate), (PLAIN, median(plain, |plain| plain.rate)), "records/s"),
        Line::new(
            format!("{name}-cpu"),
            median(ours, |drain| drain.writer_us),
            ("redis-benchmark's client, a SET", median(plain, |plain| plain.client_us)),
            "µs of the writer's CPU a record, its start included",
        ),
        Line::new(format!("{name}-memory"), most, ("redis-server", redis_mib), "MiB at the most"),
    ])
}

/// How long the values are that the writer makes of these records.
fn value_bytes(feed: &Feed) -> Result<usize, Error> {
    let mut text = Vec::new();
    for number in 0..DRIVERS {
        feed.position(number)?.to_json(&mut text);
    }
    Ok(text.len() / DRIVERS as usize)
}

fn drained(world: &World, map: &mut Map, feed: &Feed, kind: Kind, round: &str) -> Result<Drain, Error> {
    map.reset()?;
    let (servers, group) = (world.servers_used()?, format!("{}-{round}", feed.topic));
    let conflate: &[&str] = if kind == Kind::Each { &["--conflate", "off"] } else { &[] };
    let writer = world.redis_writer(&feed.topic, &group, &[conflate, &TTL].concat())?;
    let seconds = match kind {
        Kind::Each => look::until("SETs in Redis", BACKLOG, || writer.is_running().and_then(|()| map.writes()))?,
        Kind::Newest => look::until("the map is the newest", BACKLOG, || {
            writer.is_running()?;
            settled_when_written(map, || writer.settled(None))
        })?,
    };
    look::until("all records are settled", BACKLOG, || writer.settled(None))?;
    let (used, after) = (writer.used()?, world.servers_used()?);
    writer.stop();
    verify(map, feed, kind)?;
    let us = |seconds: f64| seconds / BACKLOG as f64 * 1e6;
    Ok(Drain {
        rate: BACKLOG as f64 / seconds,
        writer_us: us(used.cpu_s),
        peak_rss_mib: used.peak_rss_mib,
        redis_us: us(after.sink_s - servers.sink_s),
        redis_waited_us: us(after.sink_waited_s - servers.sink_waited_s),
        kafka_us: us(after.kafka_s - servers.kafka_s),
    })
}

/// Redis does not see what conflation leaves out: its first write begins the time, the writer's own count ends it.
fn settled_when_written(map: &mut Map, settled: impl FnOnce() -> Result<u64, Error>) -> Result<u64, Error> {
    match map.writes()? {
        0 => Ok(0),
        _ => settled().map(|settled| settled.max(1)),
    }
}

/// Every driver is there with its newest position, nothing has expired, and without conflation Redis counts as many
/// writes as there are records.
fn verify(map: &mut Map, feed: &Feed, kind: Kind) -> Result<(), Error> {
    let (writes, keys, expired) = (map.writes()?, map.keys()?, map.expired()?);
    if keys != DRIVERS || expired != 0 || (kind == Kind::Each && writes != BACKLOG) {
        return Err(Error::Client(format!("{keys} keys, {expired} expired, {writes} writes for {BACKLOG} records")));
    }
    let wrong = map.first_wrong(1, |driver, value| {
        let newest = Feed::last_of(driver, BACKLOG).and_then(|number| feed.position(number).ok());
        newest.is_some_and(|position| {
            let mut expected = Vec::new();
            position.to_json(&mut expected);
            expected == value
        })
    })?;
    wrong.map_or(Ok(()), |wrong| Err(Error::Client(format!("not the newest position: {wrong}"))))
}

impl Drain {
    /// For people.
    pub(super) fn line(&self) -> String {
        format!(
            "{} records/s, CPU a record: writer {} µs, redis {} µs (and {} µs without a core), kafka {} µs; writer {} MiB",
            figure(self.rate),
            figure(self.writer_us),
            figure(self.redis_us),
            figure(self.redis_waited_us),
            figure(self.kafka_us),
            figure(self.peak_rss_mib)
        )
    }
}
