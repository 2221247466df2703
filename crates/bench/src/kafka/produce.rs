//! 50,000 records a second, the acknowledgement of each awaited.

use std::time::Duration;

use super::Client;
use super::fetch::cheapest;
use super::rig::{Pairs, Rig, least};
use crate::Setting;
use crate::child::Cost;
use crate::error::Error;
use crate::job::Role;
use crate::line::Line;

const LINGERS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(25)];

pub(super) fn run(rig: &mut Rig, setting: &Setting) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    for linger in LINGERS {
        lines.extend(with_linger(rig, setting, linger)?);
    }
    Ok(lines)
}

fn with_linger(rig: &mut Rig, setting: &Setting, linger: Duration) -> Result<Vec<Line>, Error> {
    let (name, topic) = (format!("{}ms", linger.as_millis()), format!("bench-produce-{}ms", linger.as_millis()));
    let work = format!("produce {name}");
    rig.create_topic(&topic)?;
    let job = rig.job(Role::Produce, &topic, linger);
    let mut others = Vec::new();
    for client in [Client::Rskafka, Client::Rdkafka, Client::Krafka] {
        others.push((client, rig.measure(&work, client, &job)?));
    }
    let pairs = Pairs::take(setting.rounds, |client, _| rig.measure(&work, client, &job))?;
    others.extend(pairs.java.iter().map(|cost| (Client::Java, *cost)));
    let (broker, java_broker) = pairs.least(Cost::broker_us);
    let (requests, java_requests) = pairs.least(Cost::requests_per_s);
    let line =
        |what: &str, ours, reference, unit| Line::new(format!("kafka-produce-{name}-{what}"), ours, reference, unit);
    Ok(vec![
        line("cpu", least(&pairs.ours, Cost::client_us), cheapest(&others), "µs of client CPU a record"),
        line("broker", broker, java_broker, "µs of broker CPU a record"),
        line("requests", requests, java_requests, "requests/s"),
    ])
}
