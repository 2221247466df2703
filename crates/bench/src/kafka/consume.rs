//! 50,000 records a second, read as they come in by the only member of a group, beside the Java consumer.

use std::time::Duration;

use super::Client;
use super::rig::{Pairs, Rig};
use crate::Setting;
use crate::child::Cost;
use crate::error::Error;
use crate::job::Role;
use crate::line::Line;

/// The ingest's linger under load.
const FEED_LINGER: Duration = Duration::from_millis(10);
/// `--linger-max` of redis-writer.
const CONSUME_LINGER: Duration = Duration::from_millis(5);
/// Longer than any run of a consumer, its start included; the feed is stopped when the consumer is done.
const FEED_TIME: Duration = Duration::from_secs(150);

pub(super) fn run(rig: &mut Rig, setting: &Setting) -> Result<Vec<Line>, Error> {
    let pairs = Pairs::take(setting.rounds, |client, round| beside_feed(rig, client, round))?;
    let (broker, java_broker) = pairs.least(Cost::broker_us);
    let (cpu, java_cpu) = pairs.least(Cost::client_us);
    // The feed's own requests are the same for both.
    let (requests, java_requests) = pairs.least(|cost| cost.requests.others / cost.report.seconds);
    Ok(vec![
        Line::new("kafka-consume-cpu", cpu, java_cpu, "µs of client CPU a record"),
        Line::new(
            "kafka-consume-broker",
            broker,
            java_broker,
            "µs of broker CPU a record, the producer's part included",
        ),
        Line::new("kafka-consume-requests", requests, java_requests, "requests/s, produce requests not counted"),
    ])
}

/// A new topic each time: the consumer reads it from the beginning, which is not far back.
fn beside_feed(rig: &mut Rig, client: Client, round: usize) -> Result<Cost, Error> {
    let topic = format!("bench-consume-{}-{round}", client.name());
    rig.create_topic(&topic)?;
    let mut feed = rig.job(Role::Produce, &topic, FEED_LINGER);
    (feed.warm, feed.measured) = (Duration::ZERO, FEED_TIME);
    let mut feed = rig.start(Client::Ours, &feed)?;
    feed.await_begin()?;
    feed.go()?;
    let job = rig.job(Role::Consume, &topic, CONSUME_LINGER);
    let cost = rig.measure("consume", client, &job)?;
    let expected = job.rate as f64 * cost.report.seconds;
    if (cost.report.records / expected - 1.0).abs() > 0.05 {
        return Err(Error::Client(format!(
            "{} did not keep up: {} of {expected} records",
            client.title(),
            cost.report.records
        )));
    }
    Ok(cost)
}
