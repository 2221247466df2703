//! The Kafka client beside others: one broker, 48 partitions, lz4, values of 60 bytes, one client after the other.
//!
//! The figures that are judged are taken in several rounds, ours and the reference by turns, and the best of each
//! counts: a neighbour on the machine can only make a figure worse. The other clients are there for comparison and
//! take part once.

mod consume;
mod fetch;
mod produce;
mod rig;

use native::{KafkaOptions, Stack, StackOptions};

use self::rig::Rig;
use crate::error::Error;
use crate::line::Line;
use crate::{Setting, say};

/// Partitions of every topic.
const PARTITIONS: i32 = 48;
/// Records a second where they come at a steady rate.
const RATE: u64 = 50_000;

/// A client under measurement, and how it is named in the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Ours,
    Rskafka,
    Rdkafka,
    Krafka,
    Java,
}

impl Client {
    /// Its name on the command line of the child.
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Rskafka => "rskafka",
            Self::Rdkafka => "rdkafka",
            Self::Krafka => "krafka",
            Self::Java => "java",
        }
    }

    /// With its version.
    fn title(self) -> String {
        match self {
            Self::Ours => "kafka (ours)".to_owned(),
            Self::Rskafka => "rskafka 0.6.0".to_owned(),
            Self::Rdkafka => "rdkafka 0.38.0".to_owned(),
            Self::Krafka => "krafka 0.28.0".to_owned(),
            Self::Java => "kafka-clients 4.1.0 (Java)".to_owned(),
        }
    }
}

/// Runs all parts on one broker.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>, Error> {
    let options = KafkaOptions::single();
    let dir = native::stack_dir("bench-kafka");
    let stack = Stack::start(StackOptions { dir, kafka: Some(options), redis: false, postgres: false })?;
    let mut rig = Rig::new(&stack)?;
    let mut lines = fetch::run(&mut rig, setting)?;
    lines.extend(produce::run(&mut rig, setting)?);
    lines.extend(consume::run(&mut rig, setting)?);
    say(format_args!("{}", rig.table()));
    Ok(lines)
}
