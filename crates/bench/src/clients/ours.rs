//! The `kafka` crate, set as the services set it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kafka::{
    Claim, Client, ClientConfig, Commit, Compression, Consumer, ConsumerConfig, FetchConfig, Fetched, GroupEvent,
    Incarnation, Offset, OutRecord, Producer, ProducerConfig, TopicPartition,
};
use tokio::time::Instant;

use super::{Measurement, Seen, paced};
use crate::error::Error;
use crate::job::Job;

/// The writers' own values: `--fetch-min-bytes` and the bounds of an answer.
const FETCH_MIN_BYTES: i32 = 10 * 1024;
const FETCH_MAX_BYTES: i32 = 8 * 1024 * 1024;
const FETCH_PARTITION_MAX_BYTES: i32 = 1024 * 1024;
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

fn client(job: &Job) -> Client {
    Client::new(ClientConfig::new(vec![job.bootstrap.clone()], "bench-ours"))
}

pub(super) async fn produce(job: &Job) -> Result<(), Error> {
    let config = ProducerConfig {
        linger: job.linger,
        linger_max: job.linger,
        compression: Compression::Lz4,
        ..ProducerConfig::standard()
    };
    let producer = Producer::new(client(job), config);
    producer.warm(&job.topic).await?;
    let topic: Arc<str> = job.topic.as_str().into();
    paced::produce(job, |payload, _, timestamp_ms| {
        let delivery = producer.enqueue(OutRecord {
            topic: Arc::clone(&topic),
            partition: None,
            key: Some(payload.key.clone()),
            value: Some(payload.value.clone()),
            headers: Vec::new(),
            timestamp_ms,
        });
        async move {
            match delivery {
                Ok(delivery) => delivery.await.is_ok(),
                Err(_) => false,
            }
        }
    })
    .await
}

pub(super) async fn fetch(job: &Job) -> Result<(), Error> {
    read_backlog(job, false).await?;
    read_backlog(job, true).await
}

async fn read_backlog(job: &Job, measured: bool) -> Result<(), Error> {
    let mut member = Member::join(job).await?;
    let measurement = if measured { Some(Measurement::begin()?) } else { None };
    member.start();
    let mut seen = Seen::default();
    while seen.records < job.records {
        let fetched = member.consumer.fetched.recv().await;
        member.look_at(fetched.ok_or_else(|| Error::client("the consumer ended"))?, &mut seen)?;
    }
    if let Some(measurement) = measurement {
        measurement.report(seen.count()?)?;
    }
    member.consumer.handle.close().await;
    Ok(())
}

pub(super) async fn consume(job: &Job) -> Result<(), Error> {
    let mut member = Member::join(job).await?;
    member.start();
    while member.read_for(Duration::from_millis(100)).await? == 0 {}
    member.read_for(job.warm).await?;
    let measurement = Measurement::begin()?;
    let records = member.read_for(job.measured).await?;
    measurement.report(records)?;
    member.consumer.handle.close().await;
    Ok(())
}

/// The only member of a group that is new, so that it reads from the beginning.
struct Member {
    consumer: Consumer,
    claim: Claim,
    partitions: Vec<TopicPartition>,
    incarnations: HashMap<TopicPartition, Incarnation>,
    positions: HashMap<TopicPartition, Offset>,
}

impl Member {
    async fn join(job: &Job) -> Result<Self, Error> {
        let unique = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut config = ConsumerConfig::new(format!("bench-ours-{unique}"), vec![job.topic.as_str().into()]);
        config.fetch = FetchConfig {
            min_bytes: FETCH_MIN_BYTES,
            max_wait: job.linger,
            max_bytes: FETCH_MAX_BYTES,
            partition_max_bytes: FETCH_PARTITION_MAX_BYTES,
            interval: job.linger,
            ..FetchConfig::default()
        };
        let mut consumer = Consumer::join(client(job), config);
        let mut partitions = Vec::new();
        let mut rightful = None;
        while partitions.len() < job.partitions.unsigned_abs() as usize {
            match consumer.events.recv().await {
                Some(GroupEvent::Assigned { partitions: assigned, claim }) => {
                    partitions.extend(assigned.into_iter().map(|assigned| assigned.partition));
                    rightful = Some(claim);
                }
                Some(GroupEvent::Failed(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Err(Error::client("the member ended")),
            }
        }
        let claim = rightful.ok_or_else(|| Error::client("the topic has no partitions"))?;
        Ok(Self { consumer, claim, partitions, incarnations: HashMap::new(), positions: HashMap::new() })
    }

    fn start(&mut self) {
        for partition in &self.partitions {
            let incarnation = self.consumer.handle.start(partition, Offset(0));
            self.incarnations.insert(partition.clone(), incarnation);
        }
    }

    fn look_at(&mut self, fetched: Vec<Fetched>, seen: &mut Seen) -> Result<(), Error> {
        for fetched in fetched.into_iter().filter(|one| self.incarnations.get(&one.partition) == Some(&one.incarnation))
        {
            for batch in &fetched.batches {
                for record in batch.decode().map_err(Error::client)? {
                    seen.record(record.key.as_deref(), record.value.as_deref(), record.timestamp_ms);
                }
            }
            if let Some(last) = fetched.batches.last() {
                self.positions.insert(fetched.partition, last.next());
            }
        }
        Ok(())
    }

    async fn read_for(&mut self, time: Duration) -> Result<u64, Error> {
        let mut seen = Seen::default();
        let until = Instant::now() + time;
        let mut commit = tokio::time::interval_at(Instant::now() + COMMIT_INTERVAL, COMMIT_INTERVAL);
        loop {
            tokio::select! {
                fetched = self.consumer.fetched.recv() => {
                    self.look_at(fetched.ok_or_else(|| Error::client("the consumer ended"))?, &mut seen)?;
                }
                _ = commit.tick() => self.commit().await?,
                () = tokio::time::sleep_until(until) => return seen.count(),
            }
        }
    }

    async fn commit(&self) -> Result<(), Error> {
        let commits: Vec<Commit> = self
            .positions
            .iter()
            .map(|(partition, offset)| Commit {
                partition: partition.clone(),
                offset: *offset,
                metadata: String::new(),
            })
            .collect();
        Ok(self.consumer.handle.commit(&commits, &self.claim).await?)
    }
}
