//! The plan of a source topic and its dead letter topic, which every service makes sure of at its start.
//!
//! Services start at once and race each other: every step accepts that another one has just done it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;

use crate::admin::{MIN_IN_SYNC, REPLICATION, TopicSpec};
use crate::cluster::{Client, TopicMetadata};
use crate::error::{Error, ErrorKind};

/// How long the source topic keeps its records.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the dead letter topic keeps its letters.
pub const DEAD_LETTER_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// Room in the dead letter topic for the headers around a value of the largest size that the source takes.
pub const DEAD_LETTER_EXTRA_BYTES: u64 = 64 * 1024;
/// What the name of a dead letter topic has behind that of its source.
pub const DEAD_LETTER_SUFFIX: &str = ".DLT";

/// How long new partitions may take to get their leaders.
const LEADER_WAIT: Duration = Duration::from_secs(15);
const LEADER_POLL: Duration = Duration::from_millis(50);
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// What a service may do to the topics: `--topic-create`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Create what is missing, grow the dead letter topic with its source.
    Auto,
    /// Change nothing; whatever differs from the plan is an error.
    Check,
    /// Change nothing; whatever differs from the plan is a warning. A missing source topic is waited for.
    Off,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "check" => Ok(Self::Check),
            "off" => Ok(Self::Off),
            _ => Err("use auto, check or off".to_owned()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Check => "check",
            Self::Off => "off",
        })
    }
}

/// The topics as they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the source topic.
    pub topic: String,
    /// Number of partitions that the source topic should have at least, and is created with: `--topic-partitions`.
    pub partitions: i32,
    /// Name of its dead letter topic, for services that write or read letters.
    pub dead_letter_topic: Option<String>,
}

/// The topics as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Number of partitions of the source topic.
    pub partitions: i32,
    /// Number of partitions of the dead letter topic; `None` when the plan has none or it does not exist.
    pub dead_letter_partitions: Option<i32>,
    /// What differs from the plan and is not an error: one line each, with the remedy.
    pub warnings: Vec<String>,
}

/// The usual name of the dead letter topic of `topic`.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}{DEAD_LETTER_SUFFIX}")
}

/// Makes sure of the topics of `plan` as far as `mode` allows, and waits until every partition has a leader.
///
/// # Errors
/// Transient ones may be retried as a whole. Fatal ones name what to change.
pub async fn ensure(client: &Client, mode: Mode, plan: &Plan) -> Result<Outcome, Error> {
    let mut survey = Survey { client, mode, warnings: Vec::new() };
    let source = survey.source(plan).await?;
    let dead_letters = match &plan.dead_letter_topic {
        Some(name) => survey.dead_letters(name, &source).await?,
        None => None,
    };
    Ok(Outcome {
        partitions: source.partition_count(),
        dead_letter_partitions: dead_letters.map(|topic| topic.partition_count()),
        warnings: survey.warnings,
    })
}

/// One pass over the topics, gathering warnings.
struct Survey<'c> {
    client: &'c Client,
    mode: Mode,
    warnings: Vec<String>,
}

impl Survey<'_> {
    async fn source(&mut self, plan: &Plan) -> Result<Arc<TopicMetadata>, Error> {
        let name = &plan.topic;
        let topic = match self.look(name).await? {
            Some(topic) => topic,
            None if self.mode == Mode::Auto => self.create(source_spec(plan)).await?,
            None if self.mode == Mode::Check => return Err(Error::Config(missing_in_check(name, plan.partitions))),
            None => return Err(Error::UnknownTopic(name.clone())),
        };
        if topic.partition_count() < plan.partitions {
            self.complain(too_few_partitions(name, topic.partition_count(), plan.partitions))?;
        }
        self.replicas(&topic);
        self.led(topic).await
    }

    async fn dead_letters(&mut self, name: &str, source: &TopicMetadata) -> Result<Option<Arc<TopicMetadata>>, Error> {
        let largest = self.largest_message(&source.name).await?;
        let topic = match self.look(name).await? {
            Some(topic) => topic,
            None if self.mode == Mode::Auto => {
                self.create(dead_letter_spec(name, source.partition_count(), largest)).await?
            }
            None => {
                let count = source.partition_count();
                self.complain(format!(
                    "dead letter topic {name} does not exist (--dead-letter-topic): create it with {count} partitions, \
                     or use --topic-create auto"
                ))?;
                return Ok(None);
            }
        };
        let topic = self.grow(topic, source).await?;
        self.replicas(&topic);
        self.room_for_letters(name, largest).await?;
        self.led(topic).await.map(Some)
    }

    /// Letters keep the partition number of their original, so the dead letter topic follows its source.
    async fn grow(&mut self, topic: Arc<TopicMetadata>, source: &TopicMetadata) -> Result<Arc<TopicMetadata>, Error> {
        let (name, has, wants) = (&topic.name, topic.partition_count(), source.partition_count());
        if has >= wants {
            return Ok(topic);
        }
        if self.mode != Mode::Auto {
            self.complain(format!(
                "dead letter topic {name} has {has} partitions, its source {} has {wants} (--dead-letter-topic): grow it \
                 with kafka-topics.sh --alter --topic {name} --partitions {wants}, or use --topic-create auto",
                source.name
            ))?;
            return Ok(topic);
        }
        match self.client.create_partitions(name, wants).await {
            // Another service grew it between our look and our request.
            Err(error) if error.code() != Some(ResponseError::InvalidPartitions) => return Err(error),
            _ => {}
        }
        let topic = self.await_topic(name, wants).await?;
        tracing::info!(topic = %topic.name, from = has, to = wants, "dead letter topic grown with its source");
        Ok(topic)
    }

    async fn room_for_letters(&mut self, name: &str, largest: Option<u64>) -> Result<(), Error> {
        let (Some(source), Some(has)) = (largest, self.largest_message(name).await?) else { return Ok(()) };
        let wants = source + DEAD_LETTER_EXTRA_BYTES;
        if has < wants {
            self.complain(format!(
                "dead letter topic {name} has {MAX_MESSAGE_BYTES}={has}, a letter of the largest event needs {wants}: set \
                 it with kafka-configs.sh --alter --entity-type topics --entity-name {name} \
                 --add-config {MAX_MESSAGE_BYTES}={wants}"
            ))?;
        }
        Ok(())
    }

    /// `None` when we may not read the topic's settings: then nothing can be said of them.
    async fn largest_message(&mut self, name: &str) -> Result<Option<u64>, Error> {
        match self.client.topic_settings(name).await {
            Ok(settings) => Ok(settings.get(MAX_MESSAGE_BYTES).and_then(|bytes| bytes.parse().ok())),
            Err(error) if error.kind() == ErrorKind::Transient => Err(error),
            Err(error) => {
                self.warnings.push(format!("the settings of topic {name} cannot be checked: {error}"));
                Ok(None)
            }
        }
    }

    fn replicas(&mut self, topic: &TopicMetadata) {
        let fewest = topic.partitions.iter().map(|partition| partition.replicas).min().unwrap_or(0);
        if fewest < usize::from(REPLICATION.unsigned_abs()) {
            self.warnings.push(format!(
                "topic {} has {fewest} replica(s): an acknowledged event is lost with its broker; a cluster of at least \
                 {REPLICATION} brokers gets {REPLICATION} replicas and min.insync.replicas {MIN_IN_SYNC}",
                topic.name
            ));
        }
    }

    async fn look(&self, name: &str) -> Result<Option<Arc<TopicMetadata>>, Error> {
        match self.client.topic(name).await {
            Ok(topic) => Ok(Some(topic)),
            Err(Error::UnknownTopic(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, spec: TopicSpec) -> Result<Arc<TopicMetadata>, Error> {
        let created = self.client.create_topic(&spec).await?;
        // Whoever was faster may have used another partition count; any will do here, it is compared later.
        let topic = self.await_topic(&spec.name, 1).await?;
        tracing::info!(topic = %topic.name, partitions = topic.partition_count(), ?created, "topic created");
        Ok(topic)
    }

    /// Waits until the topic is known, has `partitions`, and each has a leader.
    async fn await_topic(&self, name: &str, partitions: i32) -> Result<Arc<TopicMetadata>, Error> {
        let deadline = tokio::time::Instant::now() + LEADER_WAIT;
        loop {
            let found = self.look(name).await?;
            let ready = found.as_deref().is_some_and(|topic| topic.partition_count() >= partitions && is_led(topic));
            match found {
                Some(topic) if ready => return Ok(topic),
                found if tokio::time::Instant::now() >= deadline => return Err(not_led(name, found.as_deref())),
                _ => tokio::time::sleep(LEADER_POLL).await,
            }
        }
    }

    async fn led(&self, topic: Arc<TopicMetadata>) -> Result<Arc<TopicMetadata>, Error> {
        if is_led(&topic) { Ok(topic) } else { self.await_topic(&topic.name, topic.partition_count()).await }
    }

    /// An error where the plan must hold, else a warning.
    fn complain(&mut self, text: String) -> Result<(), Error> {
        if self.mode == Mode::Check {
            return Err(Error::Config(text));
        }
        self.warnings.push(text);
        Ok(())
    }
}

fn is_led(topic: &TopicMetadata) -> bool {
    !topic.partitions.is_empty() && topic.partitions.iter().all(|partition| partition.leader.is_some())
}

fn not_led(name: &str, topic: Option<&TopicMetadata>) -> Error {
    let leaderless = topic.and_then(|topic| topic.partitions.iter().find(|partition| partition.leader.is_none()));
    match leaderless {
        Some(partition) => Error::NoLeader(format!("{name}-{}", partition.id)),
        None => Error::UnknownTopic(name.to_owned()),
    }
}

fn source_spec(plan: &Plan) -> TopicSpec {
    TopicSpec {
        name: plan.topic.clone(),
        partitions: plan.partitions,
        replication: None,
        settings: vec![retention(RETENTION), create_time()],
    }
}

fn dead_letter_spec(name: &str, partitions: i32, largest: Option<u64>) -> TopicSpec {
    let mut settings = vec![retention(DEAD_LETTER_RETENTION), create_time()];
    settings.extend(
        largest.map(|bytes| (MAX_MESSAGE_BYTES.to_owned(), bytes.saturating_add(DEAD_LETTER_EXTRA_BYTES).to_string())),
    );
    TopicSpec { name: name.to_owned(), partitions, replication: None, settings }
}

fn retention(time: Duration) -> (String, String) {
    ("retention.ms".to_owned(), time.as_millis().to_string())
}

/// Time lag, seeking and retention stand on the timestamp that the ingest gives.
fn create_time() -> (String, String) {
    ("message.timestamp.type".to_owned(), "CreateTime".to_owned())
}

fn missing_in_check(name: &str, partitions: i32) -> String {
    format!(
        "--topic {name}: the topic does not exist; create it with {partitions} partitions, or use --topic-create auto"
    )
}

fn too_few_partitions(name: &str, has: i32, wants: i32) -> String {
    format!(
        "--topic-partitions {wants}: topic {name} has {has} partitions; grow it with kafka-topics.sh --alter --topic \
         {name} --partitions {wants}, or set --topic-partitions {has}"
    )
}

#[cfg(test)]
mod tests {
    use super::{Mode, dead_letter_spec, dead_letter_topic};

    #[test]
    fn a_letter_has_room_for_the_largest_event_and_its_headers() {
        let spec = dead_letter_spec("t.DLT", 48, Some(1_048_588));
        assert!(spec.settings.contains(&("max.message.bytes".to_owned(), "1114124".to_owned())));
        assert!(spec.settings.contains(&("retention.ms".to_owned(), "2592000000".to_owned())));
        assert_eq!(spec.partitions, 48);
    }

    #[test]
    fn modes_read_as_they_are_written() {
        for mode in [Mode::Auto, Mode::Check, Mode::Off] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("on".parse::<Mode>().is_err());
    }

    #[test]
    fn the_dead_letter_topic_is_named_after_its_source() {
        assert_eq!(dead_letter_topic("driver-location-updates"), "driver-location-updates.DLT");
    }
}
