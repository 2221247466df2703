//! The whole circle: a bug in the rules makes letters of good records; the rules are mended; the letters are sent back and
//! become rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use e2e::{Scene, Witness, event, now_ms, shared};
use event::DriverLocation;
use kafka::topics::{Mode, Plan};
use kafka::{ClassicConfig, ClientConfig, GroupProtocol, Offset, Record, TopicPartition};
use pipeline::{Batch, Membership, Policy, RecordFault, Settings, Sink, WriteError, Written};

const PARTITIONS: i32 = 3;
const RECORDS: usize = 12;

/// The rules as they were: whoever drives east is refused.
fn old_rules(record: &Record) -> Result<DriverLocation, RecordFault> {
    let fault = |reason, detail: &str| RecordFault { reason, detail: detail.to_owned() };
    let location = DriverLocation::of_record(record.value.as_deref(), record.timestamp_ms)
        .map_err(|_| fault("undecodable", "no event"))?;
    match location.heading {
        Some(heading) if heading >= 90.0 => Err(fault("invalid_heading", "heading must be below 90")),
        _ => Ok(location),
    }
}

/// Where the old version's good records went does not matter here.
struct Gone;

impl Sink for Gone {
    type Event = DriverLocation;

    const KEEPS_OFFSETS: bool = false;

    async fn write(&self, _batch: &Batch<DriverLocation>) -> Result<Written, WriteError> {
        Ok(Written::default())
    }

    async fn positions(&self, _: &[TopicPartition]) -> Result<HashMap<TopicPartition, Offset>, WriteError> {
        Ok(HashMap::new())
    }

    async fn probe(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

fn old_version(scene: &Scene<'_>, bootstrap: &str, group: String) -> Settings {
    Settings {
        service: "old-writer",
        version: "0.0.1",
        kafka: ClientConfig::new(vec![bootstrap.to_owned()], "old-writer"),
        topic: Arc::from(scene.topic()),
        dead_letter_topic: Some(scene.dead_letter_topic()),
        topic_create: Mode::Off,
        topics: Plan {
            topic: scene.topic().to_owned(),
            dead_letter_topic: Some(scene.dead_letter_topic()),
            partitions: PARTITIONS,
        },
        pause_above: 1_000,
        resume_below: 100,
        buffer_bytes: 1 << 20,
        membership: Membership { protocol: GroupProtocol::Classic(ClassicConfig::default()), instance_id: None },
        commit_interval: Duration::from_millis(20),
        dead_letter_max_share: None,
        policy: Policy {
            group,
            batch_max: 100,
            batch_bytes: 1 << 20,
            linger_max: Duration::from_millis(10),
            writers: 1,
            fetch_min_bytes: 1,
            freshness: None,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_of_a_bug_becomes_rows_once_it_is_mended_and_sent_back() {
    let stack = shared().await;
    let scene = Scene::set(stack, "circle", PARTITIONS).await;
    scene.create_topics().await;
    let (now, witness) = (now_ms(), scene.witness().await);
    let mut moments = Vec::new();
    for number in 0..RECORDS {
        let driver = format!("eastbound-{number}");
        let record = Witness::record(&driver, Some(event(&driver, now)), now);
        witness.put(scene.topic(), i32::try_from(number).unwrap() % PARTITIONS, vec![record]).await;
        moments.push((driver, now));
    }

    // The old version of both writers.
    let groups = [scene.redis_group(), scene.analytics_group()];
    let bootstrap = stack.kafka.bootstrap();
    let mut running = Vec::new();
    for group in groups {
        let context = service::test_context().await;
        let settings = old_version(&scene, &bootstrap, group);
        let work = pipeline::run(settings, old_rules, Arc::new(Gone), context.clone());
        running.push((context.shutdown, tokio::spawn(Box::pin(work))));
    }
    scene.drains().await;
    assert_eq!(scene.letters().await.len(), 2 * RECORDS, "two letters about each record");
    for (shutdown, work) in running {
        shutdown.cancel();
        work.await.unwrap().unwrap();
    }

    // The version with the mended rules, and the letters sent back.
    let writer = scene.timescale_writer(&[]);
    writer.becomes_ready().await;
    assert_eq!(scene.history().count().await.unwrap(), 0, "what became a letter is no row");
    let redrive = ["redrive", "--yes", "--reason", "invalid_heading", "--name", "mended"];
    let ended = tokio::task::block_in_place(|| scene.run("dlt-monitor", &redrive));
    assert_eq!(ended.code, 0, "{}", ended.output);
    assert!(ended.output.contains(&format!("sent        {RECORDS}")), "{}", ended.output);
    scene.history().becomes(&moments).await;
    assert_eq!(
        scene.letters().await.len(),
        2 * RECORDS,
        "the letters stay until they are purged, and no new ones came"
    );
}
