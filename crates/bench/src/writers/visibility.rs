//! How long a good record takes from its sending until a reader of the map sees it: behind a poison record and behind a
//! good one, by turns, in pairs of the same partition.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use event::{DriverId, DriverLocation};
use kafka::{OutRecord, PartitionId, Producer};
use tokio::time::Instant;

use super::feed::now_ms;
use super::map::Map;
use super::world::World;
use super::{PARTITIONS, look, median};
use crate::error::Error;
use crate::line::Line;

const TOPIC: &str = "poison-visibility";
const PAIRS: usize = 1_000;
/// Not counted, for connections and caches.
const WARM_PAIRS: usize = 20;
/// Between two looks at the map.
const INTERVAL: Duration = Duration::from_micros(100);
const LIMIT: Duration = Duration::from_secs(10);

/// What goes before the good record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Poison,
    Good,
}

/// Whether the two records come to Kafka in one batch, or the second once the first is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Together,
    Apart,
}

pub(super) fn run(world: &World, map: &mut Map) -> Result<Vec<Line>, Error> {
    world.create_topic(TOPIC)?;
    let writer = world.redis_writer(TOPIC, TOPIC, &[])?;
    writer.becomes_ready()?;
    let producer = world.runtime.block_on(world.producer(TOPIC, Duration::ZERO))?;
    let mut probe = Probe { world, map, producer, probes: 0 };
    let together = probe.line("poison-cost-visibility", Sending::Together)?;
    let apart = probe.line("poison-cost-visibility-apart", Sending::Apart)?;
    writer.stop();
    Ok(vec![together, apart])
}

struct Probe<'a> {
    world: &'a World,
    map: &'a mut Map,
    producer: Producer,
    probes: usize,
}

impl Probe<'_> {
    fn line(&mut self, name: &str, sending: Sending) -> Result<Line, Error> {
        let (mut poison, mut good) = (Vec::new(), Vec::new());
        for pair in 0..WARM_PAIRS + PAIRS {
            let partition = PartitionId((pair % PARTITIONS.unsigned_abs() as usize) as i32);
            let turns = if pair % 2 == 0 { [Before::Poison, Before::Good] } else { [Before::Good, Before::Poison] };
            for before in turns {
                let ms = self.visible_after(before, sending, partition)?.as_secs_f64() * 1e3;
                if pair >= WARM_PAIRS {
                    if before == Before::Poison { &mut poison } else { &mut good }.push(ms);
                }
            }
        }
        let (poison, good) = (median(&poison, |ms| *ms), median(&good, |ms| *ms));
        let what = "a good record behind a good one, until it is seen in Redis";
        Ok(Line::new(name, poison - good, (what, good), "ms more behind poison, medians of 1,000 pairs"))
    }

    /// From the sending of the second record until it is seen.
    fn visible_after(&mut self, before: Before, sending: Sending, partition: PartitionId) -> Result<Duration, Error> {
        let driver = format!("probe-{}", self.probes);
        self.probes += 1;
        let first = match before {
            Before::Poison => record(partition, "probe-poison", Bytes::from_static(&[0xff; 63])),
            Before::Good => record(partition, "probe-good", position("probe-good")?),
        };
        let second = record(partition, &driver, position(&driver)?);
        let producer = &self.producer;
        let sent_at = self.world.runtime.block_on(async {
            let first = producer.send(first).await.map_err(Error::client)?;
            if sending == Sending::Apart {
                first.await.map_err(Error::client)?;
            }
            let sent_at = Instant::now();
            let _counted = producer.send(second).await.map_err(Error::client)?;
            Ok::<_, Error>(sent_at)
        })?;
        while self.map.value(&driver)?.is_none() {
            if sent_at.elapsed() > LIMIT {
                return Err(Error::Client(format!("{driver} is not on the map after {LIMIT:?}")));
            }
            look::pause(INTERVAL);
        }
        Ok(sent_at.elapsed())
    }
}

fn position(driver: &str) -> Result<Bytes, Error> {
    let now_ms = now_ms();
    let position = DriverLocation {
        driver_id: DriverId::try_from(driver).map_err(Error::client)?,
        latitude: 48.137_154,
        longitude: 11.576_124,
        heading: Some(90.0),
        speed: Some(13.9),
        timestamp_ms: now_ms,
        received_at_ms: now_ms,
        effective_at_ms: now_ms,
    };
    Ok(position.encode())
}

fn record(partition: PartitionId, driver: &str, value: Bytes) -> OutRecord {
    OutRecord {
        topic: Arc::from(TOPIC),
        partition: Some(partition),
        key: Some(Bytes::from(driver.to_owned())),
        value: Some(value),
        headers: Vec::new(),
        timestamp_ms: now_ms(),
    }
}
