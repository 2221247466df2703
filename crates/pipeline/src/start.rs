//! What happens before the first record: topics are made sure of, the sink answers, then the group is joined.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kafka::{Client, Compression, DeadLetterConfig, DeadLetterPublisher, ErrorKind, Producer, ProducerConfig, topics};
use service::{Component, Context};

use crate::backlog::{Backlog, Limits};
use crate::error::Error;
use crate::flood::FloodGate;
use crate::guard::SinkGuard;
use crate::lane::Lane;
use crate::metrics::PipelineMetrics;
use crate::runtime::{Reports, Runtime};
use crate::settings::Settings;
use crate::sink::{Decode, Sink, WriteError};

/// Pause between attempts while Kafka or the sink is away.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Runs a pipeline until `context.shutdown`, then drains it.
///
/// Readiness: the component `kafka` is ready while the member is in its group, `sink` while the sink works.
///
/// # Errors
/// What waiting does not help with: missing rights, topics that contradict `--topic-create check`, wrong marks.
pub async fn run<S: Sink>(
    settings: Settings,
    decode: Decode<S::Event>,
    sink: Arc<S>,
    context: Context,
) -> Result<(), Error> {
    let reports = Reports { kafka: context.health.component("kafka"), sink: context.health.component("sink") };
    let client = Client::new(settings.kafka.clone());
    let starting = prepare(&settings, &client, &*sink, &reports);
    let Some(prepared) = context.shutdown.run_until_cancelled(starting).await else { return Ok(()) };
    let letters = prepared?;
    let guard = SinkGuard::new(u64::from(std::process::id())).map_err(|error| Error::Settings(error.to_string()))?;
    let metrics = Arc::new(PipelineMetrics::new(&settings.policy.group));
    metrics.sink_up.set(1.0);
    let flood = FloodGate::new(settings.dead_letter_max_share, &client, &settings.policy.group);
    let flood = flood.map_err(|error| Error::Settings(error.to_string()))?;
    let lane = Lane { decode, sink, letters, guard: Arc::new(guard), metrics, flood };
    let backlog = Backlog::new(limits(&settings)).map_err(|error| Error::Settings(error.to_string()))?;
    Runtime::new(settings, client, lane, reports, backlog).run(context.shutdown).await
}

/// Kafka and the sink side by side: whichever refuses us ends the start, whether or not the other is there.
async fn prepare<S: Sink>(
    settings: &Settings,
    client: &Client,
    sink: &S,
    reports: &Reports,
) -> Result<Option<DeadLetterPublisher>, Error> {
    let kafka = prepare_kafka(settings, client, &reports.kafka);
    let (letters, ()) = tokio::try_join!(kafka, wait_for_sink(sink, &reports.sink))?;
    Ok(letters)
}

async fn prepare_kafka(
    settings: &Settings,
    client: &Client,
    component: &Component,
) -> Result<Option<DeadLetterPublisher>, Error> {
    let topics = wait_for_kafka(component, || topics::ensure(client, settings.topic_create, &settings.topics)).await?;
    topics.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    match &settings.dead_letter_topic {
        Some(topic) => Ok(Some(wait_for_kafka(component, || publisher(settings, client, topic)).await?)),
        None => Ok(None),
    }
}

async fn wait_for_sink<S: Sink>(sink: &S, component: &Component) -> Result<(), Error> {
    loop {
        match sink.probe().await {
            Ok(()) => break,
            Err(WriteError::Denied(why)) => return Err(Error::Denied(why)),
            Err(WriteError::Untrusted(why)) => return Err(Error::Untrusted(why)),
            Err(error) => component.not_ready(error.to_string()),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    component.ready();
    Ok(())
}

async fn publisher(settings: &Settings, client: &Client, topic: &str) -> Result<DeadLetterPublisher, kafka::Error> {
    // The headers of letters are nearly all alike: a flood of them is a tenth of its size.
    let config = ProducerConfig { compression: Compression::Lz4, ..ProducerConfig::standard() };
    let producer = Producer::new(client.clone(), config);
    let config = DeadLetterConfig {
        topic: Arc::from(topic),
        group: settings.policy.group.clone(),
        service: settings.service.to_owned(),
        version: settings.version.to_owned(),
    };
    let publisher = DeadLetterPublisher::new(producer, config);
    publisher.warm().await?;
    Ok(publisher)
}

/// Tries until Kafka answers; what waiting does not help with is handed on.
async fn wait_for_kafka<T, F>(component: &Component, attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, kafka::Error>>,
{
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if error.kind() == ErrorKind::Fatal => return Err(error.into()),
            Err(error) => component.not_ready(error.to_string()),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        batch_records: settings.policy.batch_max,
        batch_bytes: settings.policy.batch_bytes,
        pause_above: settings.pause_above,
        resume_below: settings.resume_below,
        buffer_bytes: settings.buffer_bytes,
    }
}
