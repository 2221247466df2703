//! A backlog of a million records: fetched, decoded, each record looked at.

use std::time::Duration;

use super::rig::{Rig, least};
use super::{Client, RATE};
use crate::Setting;
use crate::child::Cost;
use crate::error::Error;
use crate::job::Role;
use crate::line::Line;

const RECORDS: u64 = 1_000_000;
const TOPIC: &str = "bench-backlog";
/// The ingest's linger under load, so that the batches are the ones that the writers find.
const LINGER: Duration = Duration::from_millis(10);

pub(super) fn run(rig: &mut Rig, setting: &Setting) -> Result<Vec<Line>, Error> {
    rig.create_topic(TOPIC)?;
    let mut fill = rig.job(Role::Produce, TOPIC, LINGER);
    (fill.warm, fill.measured) = (Duration::ZERO, Duration::from_secs(RECORDS / RATE));
    rig.measure("fill", Client::Ours, &fill)?;

    let mut job = rig.job(Role::Fetch, TOPIC, LINGER);
    job.records = RECORDS;
    let mut others = Vec::new();
    for client in [Client::Rskafka, Client::Rdkafka, Client::Krafka, Client::Java] {
        others.push((client, rig.measure("fetch 1 M", client, &job)?));
    }
    let mut ours = Vec::new();
    for _ in 0..setting.rounds {
        ours.push(rig.measure("fetch 1 M", Client::Ours, &job)?);
    }
    let rate = |cost: &Cost| cost.report.records / cost.report.seconds;
    let fastest = others.iter().map(|(client, cost)| (client.title(), rate(cost))).max_by(|a, b| a.1.total_cmp(&b.1));
    let none = || ("nothing".to_owned(), f64::NAN);
    let best_rate = -least(&ours, |cost| -rate(cost));
    Ok(vec![
        Line::new("kafka-fetch-cpu", least(&ours, Cost::client_us), cheapest(&others), "µs of client CPU a record"),
        Line::new("kafka-fetch-rate", best_rate, fastest.unwrap_or_else(none), "records/s"),
    ])
}

/// The other client that took the least CPU for a record.
pub(super) fn cheapest(others: &[(Client, Cost)]) -> (String, f64) {
    let costs = others.iter().map(|(client, cost)| (client.title(), cost.client_us()));
    costs.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_else(|| ("nothing".to_owned(), f64::NAN))
}
