//! rdkafka: librdkafka's threads, and its interface for Rust.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::{Measurement, Seen, paced};
use crate::error::Error;
use crate::job::Job;

const POLL: Duration = Duration::from_millis(100);

pub(super) async fn produce(job: &Job) -> Result<(), Error> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &job.bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", job.linger.as_millis().to_string())
        .set("compression.type", "lz4")
        // Java's partitioner.
        .set("partitioner", "murmur2_random")
        .create()
        .map_err(Error::client)?;
    paced::produce(job, |payload, _, timestamp_ms| {
        let record =
            FutureRecord::to(&job.topic).key(&payload.key[..]).payload(&payload.value[..]).timestamp(timestamp_ms);
        let delivery = producer.send_result(record).ok();
        async move {
            match delivery {
                Some(delivery) => matches!(delivery.await, Ok(Ok(_))),
                None => false,
            }
        }
    })
    .await
}

pub(super) fn fetch(job: &Job) -> Result<(), Error> {
    read_backlog(job, false)?;
    read_backlog(job, true)
}

fn read_backlog(job: &Job, measured: bool) -> Result<(), Error> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &job.bootstrap)
        .set("group.id", "bench-rdkafka")
        .set("enable.auto.commit", "false")
        // As all the others do.
        .set("check.crcs", "true")
        .create()
        .map_err(Error::client)?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..job.partitions {
        partitions.add_partition_offset(&job.topic, partition, Offset::Beginning).map_err(Error::client)?;
    }
    let measurement = if measured { Some(Measurement::begin()?) } else { None };
    consumer.assign(&partitions).map_err(Error::client)?;
    let mut seen = Seen::default();
    while seen.records < job.records {
        if let Some(message) = consumer.poll(POLL) {
            let message = message.map_err(Error::client)?;
            seen.record(message.key(), message.payload(), message.timestamp().to_millis().unwrap_or(0));
        }
    }
    let records = seen.count()?;
    measurement.map_or(Ok(()), |measurement| measurement.report(records))
}
