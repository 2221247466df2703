//! rskafka: one client for each partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use futures::future::try_join_all;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::producer::aggregator::RecordAggregator;
use rskafka::client::producer::{BatchProducer, BatchProducerBuilder};
use rskafka::record::Record;

use super::{Measurement, Seen, paced};
use crate::error::Error;
use crate::job::Job;
use crate::payload;

/// A fetch answers at once and with up to a mebibyte, as the other clients' fetches of one partition.
const FETCH_BYTES: std::ops::Range<i32> = 1..1_048_576;
const MAX_WAIT_MS: i32 = 100;
/// Java's size of a batch.
const BATCH_BYTES: usize = 16 * 1024;

async fn partitions(job: &Job) -> Result<Vec<Arc<PartitionClient>>, Error> {
    let client = ClientBuilder::new(vec![job.bootstrap.clone()]).build().await.map_err(Error::client)?;
    let mut partitions = Vec::new();
    for partition in 0..job.partitions {
        let one = client.partition_client(&job.topic, partition, UnknownTopicHandling::Retry).await;
        partitions.push(Arc::new(one.map_err(Error::client)?));
    }
    Ok(partitions)
}

pub(super) async fn produce(job: &Job) -> Result<(), Error> {
    let producers: Vec<Arc<BatchProducer<RecordAggregator>>> = partitions(job)
        .await?
        .into_iter()
        .map(|partition| {
            let builder =
                BatchProducerBuilder::new(partition).with_linger(job.linger).with_compression(Compression::Lz4);
            Arc::new(builder.build(RecordAggregator::new(BATCH_BYTES)))
        })
        .collect();
    // It leaves the choice of the partition to its caller: made ahead, so that it costs nothing here.
    let places: Vec<usize> = payload::pool()
        .iter()
        .map(|payload| kafka::partition_for_key(&payload.key, job.partitions).0.unsigned_abs() as usize)
        .collect();
    paced::produce(job, |payload, index, timestamp_ms| {
        let producer = Arc::clone(&producers[places[index]]);
        let record = Record {
            key: Some(payload.key.to_vec()),
            value: Some(payload.value.to_vec()),
            headers: BTreeMap::new(),
            timestamp: DateTime::from_timestamp_millis(timestamp_ms).unwrap_or_default(),
        };
        async move { producer.produce(record).await.is_ok() }
    })
    .await
}

pub(super) async fn fetch(job: &Job) -> Result<(), Error> {
    read_backlog(job, false).await?;
    read_backlog(job, true).await
}

async fn read_backlog(job: &Job, measured: bool) -> Result<(), Error> {
    let partitions = partitions(job).await?;
    let ends =
        try_join_all(partitions.iter().map(|one| one.get_offset(OffsetAt::Latest))).await.map_err(Error::client)?;
    let measurement = if measured { Some(Measurement::begin()?) } else { None };
    let readers = partitions.into_iter().zip(ends).map(|(partition, end)| tokio::spawn(read(partition, end)));
    let mut records = 0;
    for seen in try_join_all(readers).await.map_err(Error::client)? {
        records += seen?.count()?;
    }
    if records < job.records {
        return Err(Error::Client(format!("{records} records instead of {}", job.records)));
    }
    measurement.map_or(Ok(()), |measurement| measurement.report(records))
}

async fn read(partition: Arc<PartitionClient>, end: i64) -> Result<Seen, Error> {
    let mut seen = Seen::default();
    let mut position = 0;
    while position < end {
        let fetched = partition.fetch_records(position, FETCH_BYTES, MAX_WAIT_MS).await;
        for found in fetched.map_err(Error::client)?.0 {
            let record = &found.record;
            seen.record(record.key.as_deref(), record.value.as_deref(), record.timestamp.timestamp_millis());
            position = found.offset + 1;
        }
    }
    Ok(seen)
}
