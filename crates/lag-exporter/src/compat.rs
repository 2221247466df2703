//! The same figures by the names and labels of other exporters, so that dashboards and rules written for them go on
//! working: danielqsj's kafka_exporter and seglo's kafka-lag-exporter.
//!
//! What is not known has no series here either, where kafka_exporter shows −1 and kafka-lag-exporter NaN.

use crate::metrics::Family;
use crate::report::{GroupReport, GroupTopic, Pair, Report, TopicReport};
use crate::sample::PartitionReading;
use crate::snapshot::{Shown, each_pair};
use crate::text::{Label, Number, Text};

type OfPartition = fn(&PartitionReading) -> Option<i64>;
type OfPair = fn(&Pair) -> Option<Number>;
type OfGroup = fn(&GroupReport) -> Option<Number>;

/// An exporter whose names are to be exported as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compat {
    /// danielqsj/kafka_exporter
    KafkaExporter,
    /// seglo/kafka-lag-exporter
    KafkaLagExporter,
}

impl Compat {
    /// Families with one series for each group and partition.
    pub(crate) fn pair_families(self) -> usize {
        match self {
            Self::KafkaExporter => 2,
            Self::KafkaLagExporter => 3,
        }
    }

    /// Families with one series for each partition.
    pub(crate) fn partition_families(self) -> usize {
        match self {
            Self::KafkaExporter => 7,
            Self::KafkaLagExporter => 2,
        }
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "gauge", help }
}

/// Families of groups and topics as a whole.
pub(crate) fn summaries(text: &mut Text, report: &Report, shown: &Shown) {
    for compat in &shown.compat {
        match compat {
            Compat::KafkaExporter => kafka_exporter_summaries(text, report),
            Compat::KafkaLagExporter => lag_exporter_summaries(text, report, &shown.cluster_name),
        }
    }
}

/// Families of single partitions, of the groups and topics that there is room for.
pub(crate) fn details(text: &mut Text, groups: &[&GroupReport], topics: &[&TopicReport], shown: &Shown) {
    for compat in &shown.compat {
        match compat {
            Compat::KafkaExporter => kafka_exporter_details(text, groups, topics),
            Compat::KafkaLagExporter => lag_exporter_details(text, groups, topics, &shown.cluster_name),
        }
    }
}

fn kafka_exporter_summaries(text: &mut Text, report: &Report) {
    let brokers = gauge("kafka_brokers", "Number of Brokers in the Kafka Cluster.");
    text.header(&brokers);
    text.series(&brokers, "", report.brokers.len());
    let info = gauge("kafka_broker_info", "Information about the Kafka Broker.");
    text.header(&info);
    for (id, address) in &report.brokers {
        text.series(&info, &format!("{{address=\"{}\",id=\"{id}\"}}", Label(address)), 1_u64);
    }
    let partitions = gauge("kafka_topic_partitions", "Number of partitions for this Topic");
    text.header(&partitions);
    for topic in &report.topics {
        text.series(&partitions, &format!("{{topic=\"{}\"}}", Label(&topic.topic)), topic.partitions.len());
    }
    let members = gauge("kafka_consumergroup_members", "Amount of members in a consumer group");
    text.header(&members);
    for group in &report.groups {
        if let Some(count) = group.members {
            text.series(&members, &format!("{{consumergroup=\"{}\"}}", Label(&group.group)), count);
        }
    }
    let offsets = gauge(
        "kafka_consumergroup_current_offset_sum",
        "Current Offset of a ConsumerGroup at Topic for all partitions",
    );
    sums(text, report, &offsets, |topic| topic.pairs.iter().map(|pair| pair.committed).sum());
    let lags =
        gauge("kafka_consumergroup_lag_sum", "Current Approximate Lag of a ConsumerGroup at Topic for all partitions");
    sums(text, report, &lags, lag_of);
}

/// One series for each group and topic by kafka_exporter's labels.
fn sums(text: &mut Text, report: &Report, family: &Family, value: impl Fn(&GroupTopic) -> Option<i64>) {
    text.header(family);
    for group in &report.groups {
        for topic in &group.topics {
            let labels = format!("{{consumergroup=\"{}\",topic=\"{}\"}}", Label(&group.group), Label(&topic.topic));
            if let Some(value) = value(topic) {
                text.series(family, &labels, value);
            }
        }
    }
}

/// Unknown as soon as one partition is.
fn lag_of(topic: &GroupTopic) -> Option<i64> {
    topic.pairs.iter().map(|pair| i64::try_from(pair.lag.ok()?).ok()).sum()
}

fn kafka_exporter_details(text: &mut Text, groups: &[&GroupReport], topics: &[&TopicReport]) {
    let families: [(Family, OfPartition); 7] = [
        (gauge("kafka_topic_partition_current_offset", "Current Offset of a Broker at Topic/Partition"), |partition| {
            partition.end
        }),
        (gauge("kafka_topic_partition_oldest_offset", "Oldest Offset of a Broker at Topic/Partition"), |partition| {
            partition.start
        }),
        (
            gauge("kafka_topic_partition_in_sync_replica", "Number of In-Sync Replicas for this Topic/Partition"),
            |partition| i64::try_from(partition.in_sync).ok(),
        ),
        (gauge("kafka_topic_partition_leader", "Leader Broker ID of this Topic/Partition"), |partition| {
            partition.leader.map(i64::from)
        }),
        (
            gauge("kafka_topic_partition_leader_is_preferred", "1 if Topic/Partition is using the Preferred Broker"),
            |partition| Some(i64::from(partition.leader.is_some() && partition.leader == partition.preferred)),
        ),
        (gauge("kafka_topic_partition_replicas", "Number of Replicas for this Topic/Partition"), |partition| {
            i64::try_from(partition.replicas).ok()
        }),
        (
            gauge("kafka_topic_partition_under_replicated_partition", "1 if Topic/Partition is under Replicated"),
            |partition| Some(i64::from(partition.in_sync < partition.replicas)),
        ),
    ];
    for (family, value) in &families {
        text.header(family);
        for topic in topics {
            for (number, partition) in topic.partitions.iter().enumerate() {
                let labels = format!("{{partition=\"{number}\",topic=\"{}\"}}", Label(&topic.topic));
                if let Some(value) = value(partition) {
                    text.series(family, &labels, value);
                }
            }
        }
    }
    let offset = gauge("kafka_consumergroup_current_offset", "Current Offset of a ConsumerGroup at Topic/Partition");
    let lag = gauge("kafka_consumergroup_lag", "Current Approximate Lag of a ConsumerGroup at Topic/Partition");
    let families: [(Family, OfPair); 2] =
        [(offset, |pair| pair.committed.map(Number::Offset)), (lag, |pair| pair.lag.ok().map(Number::Count))];
    for (family, value) in &families {
        text.header(family);
        for (group, topic, number, pair) in each_pair(groups) {
            let (group, topic) = (Label(&group.group), Label(&topic.topic));
            if let Some(value) = value(pair) {
                let labels = format!("{{consumergroup=\"{group}\",partition=\"{number}\",topic=\"{topic}\"}}");
                text.series(family, &labels, value);
            }
        }
    }
}

fn lag_exporter_summaries(text: &mut Text, report: &Report, cluster: &str) {
    let families: [(Family, OfGroup); 3] = [
        (gauge("kafka_consumergroup_group_max_lag", "Max group offset lag"), |group| {
            group.lag_max().map(Number::Count)
        }),
        (gauge("kafka_consumergroup_group_max_lag_seconds", "Max group time lag"), |group| {
            group.seconds_max().map(Number::Seconds)
        }),
        (gauge("kafka_consumergroup_group_sum_lag", "Sum of group offset lag"), |group| {
            group.lag_sum().map(Number::Count)
        }),
    ];
    let cluster = Label(cluster);
    for (family, value) in &families {
        text.header(family);
        for group in &report.groups {
            if let Some(value) = value(group) {
                let labels = format!("{{cluster_name=\"{cluster}\",group=\"{}\"}}", Label(&group.group));
                text.series(family, &labels, value);
            }
        }
    }
    let sum = gauge("kafka_consumergroup_group_topic_sum_lag", "Sum of group offset lag across topic partitions");
    text.header(&sum);
    for group in &report.groups {
        for topic in &group.topics {
            let (group, name) = (Label(&group.group), Label(&topic.topic));
            if let Some(lag) = lag_of(topic) {
                text.series(&sum, &format!("{{cluster_name=\"{cluster}\",group=\"{group}\",topic=\"{name}\"}}"), lag);
            }
        }
    }
}

fn lag_exporter_details(text: &mut Text, groups: &[&GroupReport], topics: &[&TopicReport], cluster: &str) {
    let families: [(Family, OfPartition); 2] = [
        (gauge("kafka_partition_latest_offset", "Latest offset of a partition"), |partition| partition.end),
        (gauge("kafka_partition_earliest_offset", "Earliest offset of a partition"), |partition| partition.start),
    ];
    let cluster = Label(cluster);
    for (family, value) in &families {
        text.header(family);
        for topic in topics {
            for (number, partition) in topic.partitions.iter().enumerate() {
                let topic = Label(&topic.topic);
                if let Some(value) = value(partition) {
                    let labels = format!("{{cluster_name=\"{cluster}\",topic=\"{topic}\",partition=\"{number}\"}}");
                    text.series(family, &labels, value);
                }
            }
        }
    }
    let families: [(Family, OfPair); 3] = [
        (gauge("kafka_consumergroup_group_offset", "Last group consumed offset of a partition"), |pair| {
            pair.committed.map(Number::Offset)
        }),
        (gauge("kafka_consumergroup_group_lag", "Group offset lag of a partition"), |pair| {
            pair.lag.ok().map(Number::Count)
        }),
        (gauge("kafka_consumergroup_group_lag_seconds", "Group time lag of a partition"), |pair| {
            pair.seconds.ok().map(Number::Seconds)
        }),
    ];
    for (family, value) in &families {
        text.header(family);
        for (group, topic, number, pair) in each_pair(groups) {
            let Some(value) = value(pair) else { continue };
            let (host, member, client) = match &pair.owner {
                Some(owner) => (owner.host.as_str(), owner.member_id.as_str(), owner.client_id.as_str()),
                None => ("", "", ""),
            };
            let (group, topic) = (Label(&group.group), Label(&topic.topic));
            let (host, member, client) = (Label(host), Label(member), Label(client));
            let labels = format!(
                "{{cluster_name=\"{cluster}\",group=\"{group}\",topic=\"{topic}\",partition=\"{number}\",member_host=\"{host}\",consumer_id=\"{member}\",client_id=\"{client}\"}}"
            );
            text.series(family, &labels, value);
        }
    }
}
