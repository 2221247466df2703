//! Topic administration: create with settings, add partitions, delete, read settings, delete records.
//!
//! Any broker of a KRaft cluster takes these and forwards them to the controller; records are their leader's to delete.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::{Client, Lane};
use crate::error::Error;
use crate::lag::topic_name;
use crate::types::{Offset, TopicPartition};

const CREATE_TOPICS_VERSION: i16 = 7;
const CREATE_PARTITIONS_VERSION: i16 = 3;
/// DeleteTopics 6 speaks of topic ids; names are what we have.
const DELETE_TOPICS_VERSION: i16 = 5;
const DESCRIBE_CONFIGS_VERSION: i16 = 4;
const DELETE_RECORDS_VERSION: i16 = 2;
const RESOURCE_TYPE_TOPIC: i8 = 2;

/// Replicas of a topic where the cluster has as many brokers; with two of them in sync a write survives one broker.
pub const REPLICATION: i16 = 3;
/// `min.insync.replicas` that belongs to [`REPLICATION`].
pub const MIN_IN_SYNC: i16 = 2;

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Number of partitions, at least 1.
    pub partitions: i32,
    /// Number of replicas; `None` means [`REPLICATION`] with `min.insync.replicas` [`MIN_IN_SYNC`] where there are that
    /// many brokers, and 1 where there are not.
    pub replication: Option<i16>,
    /// Topic settings by name, as in Kafka's documentation.
    pub settings: Vec<(String, String)>,
}

/// What came of creating a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// We made it.
    Created,
    /// It was there already, perhaps with other settings.
    AlreadyExists,
}

impl Client {
    /// Creates a topic. Brokers learn of it a moment later: wait for [`Client::topic`] before using it.
    ///
    /// # Errors
    /// What kept the cluster from answering, or its refusal.
    pub async fn create_topic(&self, spec: &TopicSpec) -> Result<Created, Error> {
        let (replication, min_in_sync) = self.replication(spec).await?;
        let topic = CreatableTopic::default()
            .with_name(topic_name(&spec.name))
            .with_num_partitions(spec.partitions)
            .with_replication_factor(replication)
            .with_configs(settings(spec, min_in_sync));
        let request =
            CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(self.controller_timeout_ms());
        let answer = self.call_any(CREATE_TOPICS_VERSION, &request).await?;
        match answer.topics.first() {
            None => Err(Error::Config(format!("the cluster did not say whether it created topic {}", spec.name))),
            Some(result) => match result.error_code.err() {
                None => Ok(Created::Created),
                Some(ResponseError::TopicAlreadyExists) => Ok(Created::AlreadyExists),
                Some(code) => {
                    Err(refused("CreateTopics", &spec.name, result.error_message.as_ref(), too_few_brokers(code)))
                }
            },
        }
    }

    /// Grows a topic to `total` partitions. Keys move to other partitions by it, and order per key breaks across the move.
    ///
    /// # Errors
    /// What kept the cluster from answering, or its refusal (`InvalidPartitions` when it has as many already).
    pub async fn create_partitions(&self, topic: &str, total: i32) -> Result<(), Error> {
        let growth =
            CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(total).with_assignments(None);
        let request =
            CreatePartitionsRequest::default().with_topics(vec![growth]).with_timeout_ms(self.controller_timeout_ms());
        let answer = self.call_any(CREATE_PARTITIONS_VERSION, &request).await?;
        match answer.results.first().map(|result| (result.error_code.err(), result)) {
            Some((Some(code), result)) => Err(refused("CreatePartitions", topic, result.error_message.as_ref(), code)),
            _ => Ok(()),
        }
    }

    /// Deletes a topic and all that it holds. Brokers forget it a moment later.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] when it is not there; else what kept the cluster from answering, or its refusal.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(topic)])
            .with_timeout_ms(self.controller_timeout_ms());
        let answer = self.call_any(DELETE_TOPICS_VERSION, &request).await?;
        match answer.responses.first().map(|result| (result.error_code.err(), result)) {
            Some((Some(code), result)) => Err(refused("DeleteTopics", topic, result.error_message.as_ref(), code)),
            _ => Ok(()),
        }
    }

    /// Deletes the records of a partition before `offset`, as retention would; returns where the log begins then.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] or [`Error::NoLeader`]; else what kept its leader from answering, or its refusal
    /// (`OffsetOutOfRange` when the log does not reach that far, `PolicyViolation` where the topic is compacted).
    pub async fn delete_records(&self, partition: &TopicPartition, offset: Offset) -> Result<Offset, Error> {
        let (by_leader, failed) = self.by_leader(std::slice::from_ref(partition)).await?;
        let Some(leader) = by_leader.into_keys().next() else {
            let told = failed.into_iter().find_map(|(_, result)| result.err());
            return Err(told.unwrap_or_else(|| Error::NoLeader(partition.to_string())));
        };
        let before =
            DeleteRecordsPartition::default().with_partition_index(partition.partition.0).with_offset(offset.0);
        let topic = DeleteRecordsTopic::default().with_name(topic_name(&partition.topic)).with_partitions(vec![before]);
        let request =
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(self.controller_timeout_ms());
        let answer = self.call(leader, Lane::Short, DELETE_RECORDS_VERSION, &request).await?;
        let result = answer.topics.first().and_then(|topic| topic.partitions.first());
        let result = result.ok_or_else(|| Error::NoLeader(partition.to_string()))?;
        match result.error_code.err() {
            Some(code) => Err(refused("DeleteRecords", &partition.to_string(), None, code)),
            None => Ok(Offset(result.low_watermark)),
        }
    }

    /// The settings that hold for a topic, those inherited from the cluster included. Secrets are left out.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] when it is not there; else what kept the cluster from answering, or its refusal.
    pub async fn topic_settings(&self, topic: &str) -> Result<BTreeMap<String, String>, Error> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_TYPE_TOPIC)
            .with_resource_name(StrBytes::from_string(topic.to_owned()))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.call_any(DESCRIBE_CONFIGS_VERSION, &request).await?;
        let result = answer.results.first().ok_or_else(|| Error::UnknownTopic(topic.to_owned()))?;
        if let Some(code) = result.error_code.err() {
            return Err(refused("DescribeConfigs", topic, result.error_message.as_ref(), code));
        }
        let settings = result.configs.iter();
        Ok(settings.filter_map(|one| Some((one.name.to_string(), one.value.as_ref()?.to_string()))).collect())
    }

    /// Some settings of several topics, by topic and name; topics whose settings we may not see are left out.
    ///
    /// # Errors
    /// What kept the cluster from answering.
    pub async fn settings_of(
        &self,
        topics: &[&str],
        names: &[&str],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let resources = topics.iter().map(|topic| {
            DescribeConfigsResource::default()
                .with_resource_type(RESOURCE_TYPE_TOPIC)
                .with_resource_name(text(topic))
                .with_configuration_keys(Some(names.iter().map(|name| text(name)).collect()))
        });
        let request = DescribeConfigsRequest::default().with_resources(resources.collect());
        let answer = self.ask_any(DESCRIBE_CONFIGS_VERSION, &request).await?;
        let seen = answer.results.iter().filter(|result| result.error_code.err().is_none());
        let settings = seen.map(|result| {
            let values = result.configs.iter();
            let values = values.filter_map(|one| Some((one.name.to_string(), one.value.as_ref()?.to_string())));
            (result.resource_name.to_string(), values.collect())
        });
        Ok(settings.collect())
    }

    /// Replicas for the topic, and `min.insync.replicas` where the rule sets it.
    async fn replication(&self, spec: &TopicSpec) -> Result<(i16, Option<i16>), Error> {
        if let Some(given) = spec.replication {
            return Ok((given, None));
        }
        // A cluster that is still starting shows fewer brokers than it has; those that the user names count as well, so
        // that such a moment does not leave a topic with one replica for good.
        let brokers = self.broker_count().await?.max(self.config().brokers.len());
        Ok(replication_rule(brokers))
    }

    /// The controller must give up before we do: then its answer says what went wrong.
    fn controller_timeout_ms(&self) -> i32 {
        let limit: Duration = self.config().request_timeout * 3 / 4;
        i32::try_from(limit.as_millis()).unwrap_or(i32::MAX)
    }
}

fn replication_rule(brokers: usize) -> (i16, Option<i16>) {
    if brokers >= usize::from(REPLICATION.unsigned_abs()) { (REPLICATION, Some(MIN_IN_SYNC)) } else { (1, Some(1)) }
}

fn settings(spec: &TopicSpec, min_in_sync: Option<i16>) -> Vec<CreatableTopicConfig> {
    let mut settings: BTreeMap<&str, String> = BTreeMap::new();
    if let Some(replicas) = min_in_sync {
        settings.insert("min.insync.replicas", replicas.to_string());
    }
    settings.extend(spec.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let settings = settings.into_iter();
    settings
        .map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(name.to_owned()))
                .with_value(Some(StrBytes::from_string(value)))
        })
        .collect()
}

/// Brokers that have yet to register are the usual reason for this refusal, and waiting cures it.
fn too_few_brokers(code: ResponseError) -> ResponseError {
    match code {
        ResponseError::InvalidReplicationFactor => ResponseError::BrokerNotAvailable,
        other => other,
    }
}

fn refused(api: &'static str, topic: &str, message: Option<&StrBytes>, code: ResponseError) -> Error {
    if code == ResponseError::UnknownTopicOrPartition {
        return Error::UnknownTopic(topic.to_owned());
    }
    let reason = message.filter(|text| !text.is_empty()).map(|text| format!(" ({})", text.as_str().trim()));
    Error::refused(api, format!("topic {topic}{}", reason.unwrap_or_default()), code)
}

#[cfg(test)]
mod tests {
    use super::{TopicSpec, replication_rule, settings};

    #[test]
    fn three_brokers_are_needed_for_three_replicas() {
        for (brokers, expected) in [(1, (1, Some(1))), (2, (1, Some(1))), (3, (3, Some(2))), (9, (3, Some(2)))] {
            assert_eq!(replication_rule(brokers), expected, "{brokers} brokers");
        }
    }

    #[test]
    fn a_setting_that_is_given_wins_over_the_rule() {
        let given = vec![("min.insync.replicas".to_owned(), "1".to_owned())];
        let spec = TopicSpec { name: "t".to_owned(), partitions: 1, replication: None, settings: given };
        let made = settings(&spec, Some(2));
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].value.as_deref(), Some("1"));
    }
}
