//! krafka: pure Rust, with groups and assignors of its own.

use std::sync::Arc;
use std::time::Duration;

use krafka::consumer::AutoOffsetReset;
use krafka::producer::Acks;
use krafka::{Compression, Kafka, Record};

use super::{Measurement, Seen, paced};
use crate::error::Error;
use crate::job::Job;

const POLL: Duration = Duration::from_millis(100);

async fn connect(job: &Job) -> Result<Kafka, Error> {
    Kafka::builder(job.bootstrap.as_str()).connect().await.map_err(Error::client)
}

pub(super) async fn produce(job: &Job) -> Result<(), Error> {
    let builder = connect(job).await?.producer().acks(Acks::All).linger(job.linger).compression(Compression::Lz4);
    let producer = Arc::new(builder.build().await.map_err(Error::client)?);
    paced::produce(job, |payload, _, timestamp_ms| {
        let producer = Arc::clone(&producer);
        let record =
            Record::new(job.topic.as_str(), payload.value.clone()).key(payload.key.clone()).timestamp(timestamp_ms);
        async move { producer.send(record).await.is_ok() }
    })
    .await
}

pub(super) async fn fetch(job: &Job) -> Result<(), Error> {
    read_backlog(job, false).await?;
    read_backlog(job, true).await
}

async fn read_backlog(job: &Job, measured: bool) -> Result<(), Error> {
    let consumer = connect(job)
        .await?
        .consumer_without_group()
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .build()
        .await
        .map_err(Error::client)?;
    let measurement = if measured { Some(Measurement::begin()?) } else { None };
    consumer.assign(&job.topic, (0..job.partitions).collect()).await.map_err(Error::client)?;
    let mut seen = Seen::default();
    while seen.records < job.records {
        for record in consumer.poll(POLL).await.map_err(Error::client)? {
            seen.record(record.key.as_deref(), record.value.as_deref(), record.timestamp);
        }
    }
    let records = seen.count()?;
    measurement.map_or(Ok(()), |measurement| measurement.report(records))
}
