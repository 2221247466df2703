//! A letter that cannot be published pauses its partition, which says so; it is never skipped, and goes on once it is mended.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kafka::topics::{Mode, Plan};
use kafka::{
    ClassicConfig, Client, ClientConfig, GroupProtocol, Offset, OffsetSpec, OutRecord, PartitionId, Producer,
    ProducerConfig, Record, Sasl, SaslMechanism, Secret, Security, TopicPartition, TopicSpec,
};
use native::{KafkaOptions, Listener, Protocol, Stack, StackOptions};
use pipeline::{Batch, Membership, Policy, RecordFault, Settings, Sink, WriteError, Written};
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);
const WRITER: (&str, &str) = ("writer", "writer-secret");
/// Records of partition 0, the middle one poison; those of partition 1 are good.
const RECORDS: i64 = 3;

/// Refuses what says that it is poison.
fn poisonous(record: &Record) -> Result<(), RecordFault> {
    let is_poison = record.value.as_ref().is_some_and(|value| value.starts_with(b"poison"));
    let fault = RecordFault { reason: "undecodable", detail: "poison".to_owned() };
    if is_poison { Err(fault) } else { Ok(()) }
}

struct Anywhere;

impl Sink for Anywhere {
    type Event = ();

    const KEEPS_OFFSETS: bool = false;

    async fn write(&self, _batch: &Batch<()>) -> Result<Written, WriteError> {
        Ok(Written::default())
    }

    async fn positions(&self, _: &[TopicPartition]) -> Result<HashMap<TopicPartition, Offset>, WriteError> {
        Ok(HashMap::new())
    }

    async fn probe(&self) -> Result<(), WriteError> {
        Ok(())
    }
}

fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| {
        let options = KafkaOptions::single()
            .set("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            // Who comes without a name is the broker itself, or a client of the listener that asks for none.
            .set("super.users", "User:ANONYMOUS")
            .user(WRITER.0, WRITER.1)
            .listener(Listener::new("SASL", Protocol::SaslPlaintext));
        let dir = native::stack_dir("pipeline-unpublishable");
        Stack::start(StackOptions { dir, kafka: Some(options), redis: false, postgres: false }).unwrap()
    })
}

/// A tool of Kafka, which takes seconds.
async fn tool(class: &'static str, args: &[&str]) {
    let bootstrap = stack().kafka.bootstrap();
    let own: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let done = tokio::task::spawn_blocking(move || {
        let args: Vec<_> =
            ["--bootstrap-server", &bootstrap].into_iter().chain(own.iter().map(String::as_str)).collect();
        stack().kafka.tool(class, &args, "")
    });
    done.await.unwrap().unwrap();
}

async fn allow(operation: &str, kind: &str, name: &str) {
    let user = format!("User:{}", WRITER.0);
    let args = ["--add", "--allow-principal", &user, "--operation", operation, kind, name];
    tool("org.apache.kafka.tools.AclCommand", &args).await;
}

fn admin() -> Client {
    Client::new(ClientConfig::new(vec![stack().kafka.bootstrap()], "unpublishable-test"))
}

/// A topic and its dead letter topic, with records in the former.
async fn prepare(topic: &str, letter_settings: &[(&str, &str)]) {
    tokio::task::spawn_blocking(stack).await.unwrap();
    let client = admin();
    for (name, settings) in [(topic.to_owned(), &[][..]), (format!("{topic}.DLT"), letter_settings)] {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        client
            .create_topic(&TopicSpec { name: name.clone(), partitions: 2, replication: None, settings })
            .await
            .unwrap();
        until("the topic is there", async || client.topic(&name).await.is_ok()).await;
    }
    let producer = Producer::new(client, ProducerConfig::standard());
    for partition in 0..2 {
        for number in 0..RECORDS {
            let text = if partition == 0 && number == 1 { "poison" } else { "good" };
            let record = OutRecord {
                topic: Arc::from(topic),
                partition: Some(PartitionId(partition)),
                key: None,
                value: Some([text.as_bytes(), &noise()].concat().into()),
                headers: vec![],
                timestamp_ms: 1_795_441_689_633,
            };
            producer.send(record).await.unwrap().await.unwrap();
        }
    }
}

/// Two thousand bytes that no codec makes smaller: xorshift (Marsaglia 2003).
fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..250).flat_map(|_| next()).collect()
}

fn settings(topic: &str, kafka: ClientConfig) -> Settings {
    let dead_letter_topic = Some(format!("{topic}.DLT"));
    Settings {
        service: "unpublishable-test",
        version: "0",
        kafka,
        topic: Arc::from(topic),
        dead_letter_topic: dead_letter_topic.clone(),
        topic_create: Mode::Off,
        topics: Plan { topic: topic.to_owned(), dead_letter_topic, partitions: 2 },
        pause_above: 1_000,
        resume_below: 100,
        buffer_bytes: 1 << 20,
        membership: Membership { protocol: GroupProtocol::Classic(ClassicConfig::default()), instance_id: None },
        commit_interval: Duration::from_millis(50),
        dead_letter_max_share: None,
        policy: Policy {
            group: format!("{topic}-group"),
            batch_max: 100,
            batch_bytes: 1 << 20,
            linger_max: Duration::from_millis(10),
            writers: 1,
            fetch_min_bytes: 1,
            freshness: None,
        },
    }
}

async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn committed(topic: &str) -> Vec<i64> {
    let committed = admin().committed_offsets(&format!("{topic}-group"), None).await.unwrap_or_default();
    let mut offsets: Vec<_> = committed.into_iter().map(|(place, at)| (place.partition, at.offset.0)).collect();
    offsets.sort_unstable();
    offsets.into_iter().map(|(_, offset)| offset).collect()
}

async fn letters(topic: &str) -> i64 {
    let place = TopicPartition::new(format!("{topic}.DLT"), PartitionId(0));
    let ends = admin().list_offsets(std::slice::from_ref(&place), OffsetSpec::Latest).await.unwrap();
    ends[0].1.as_ref().unwrap().offset.0
}

/// The partition with the poison waits and says so, the other one goes on; after `mend` everything is settled.
async fn waits_until_mended(topic: &str, kafka: ClientConfig, mend: impl Future<Output = ()>) {
    let context = service::test_context().await;
    let running = tokio::spawn(pipeline::run(settings(topic, kafka), poisonous, Arc::new(Anywhere), context.clone()));
    let blocked = format!("pipeline_blocked_partitions{{group=\"{topic}-group\"}} 1");
    until("the partition says that it waits", async || {
        assert!(!running.is_finished(), "the pipeline ended");
        context.admin.render().lines().any(|line| line == blocked)
    })
    .await;
    until("the other one is settled", async || committed(topic).await.contains(&RECORDS)).await;
    assert_eq!(letters(topic).await, 0);
    assert_eq!(committed(topic).await.into_iter().filter(|offset| *offset > 1).count(), 1, "no position passed poison");
    mend.await;
    until("everything is settled", async || committed(topic).await == [RECORDS, RECORDS]).await;
    assert_eq!(letters(topic).await, 1);
    context.shutdown.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_too_large_even_when_it_is_cut_waits_for_the_topic_to_take_it() {
    prepare("large", &[("max.message.bytes", "1000")]).await;
    let kafka = ClientConfig::new(vec![stack().kafka.bootstrap()], "unpublishable-test");
    let setting = [
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        "large.DLT",
        "--add-config",
        "max.message.bytes=100000",
    ];
    waits_until_mended("large", kafka, tool("kafka.admin.ConfigCommand", &setting)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_may_not_be_written_waits_for_the_right_to() {
    prepare("guarded", &[]).await;
    allow("All", "--topic", "guarded").await;
    allow("All", "--group", "guarded-group").await;
    allow("Describe", "--topic", "guarded.DLT").await;
    let (username, password) = (WRITER.0.to_owned(), Secret::new(WRITER.1));
    let sasl = Some(Sasl { mechanism: SaslMechanism::ScramSha256, username, password });
    let kafka = ClientConfig::new(vec![stack().kafka.listener("SASL")], "unpublishable-test");
    let kafka = kafka.secured(Security { tls: None, sasl });
    waits_until_mended("guarded", kafka, allow("Write", "--topic", "guarded.DLT")).await;
}
