//! The subcommands, as an operator runs them: the binary itself, its output and exit code.

use std::process::{Command, Output, Stdio};

use event::DriverLocation;
use kafka::{Created, Offset, OffsetSpec, PartitionId, Producer, TopicPartition, TopicSpec};
use native::{Launch, Process};

use crate::service::{PARTITIONS, Running, client, committed, counts, flags, produce, producer};
use crate::world::{NOW, World, nth, until};

const RECORDS: i64 = 400;

/// Runs the binary with the flags of a service and `task`; nobody is there to be asked.
fn run(world: &World, task: &[&str]) -> (i32, String, String) {
    let mut all = flags(&world.name, &world.url, &[]);
    all.extend(task.iter().map(|word| (*word).to_owned()));
    let command = Command::new(env!("CARGO_BIN_EXE_timescale-writer")).args(all).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = command.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// The one line that says why not.
fn refused(world: &World, task: &[&str], code: i32) -> String {
    let (ended, stdout, stderr) = run(world, task);
    let lines: Vec<_> = stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert!(ended == code && stdout.is_empty() && lines.len() == 1, "{task:?}: {ended}\n{stdout}\n{stderr}");
    lines[0].to_owned()
}

fn done(world: &World, task: &[&str]) -> String {
    let (code, stdout, stderr) = run(world, task);
    assert_eq!(code, 0, "{task:?}\n{stdout}\n{stderr}");
    stdout
}

/// Record `offset` of a partition was received at `NOW` + 1 s × offset. Each tenth was uploaded late: it was true a
/// long time before.
fn event(partition: i32, offset: i64) -> DriverLocation {
    let received_at_ms = NOW + offset * 1_000;
    let effective_at_ms = if offset % 10 == 9 { NOW - 3_600_000 + offset } else { received_at_ms };
    DriverLocation { timestamp_ms: effective_at_ms, received_at_ms, effective_at_ms, ..nth(partition, offset) }
}

async fn produce_all(world: &World, producer: &Producer, offsets: std::ops::Range<i64>) {
    for offset in offsets {
        for partition in 0..PARTITIONS {
            produce(producer, &world.name, partition, Some(event(partition, offset))).await;
        }
    }
}

/// All records in Kafka and in the table, no writer running.
async fn stored() -> (World, Producer) {
    let world = World::bare().await;
    let producer = producer();
    let writer = Running::start(&world, &[]).await;
    until("the writer is ready", async || writer.context.health.is_ready()).await;
    produce_all(&world, &producer, 0..RECORDS).await;
    let all = RECORDS * i64::from(PARTITIONS);
    until("all are written", async || world.rows().await == all).await;
    writer.stop().await;
    (world, producer)
}

/// Lets a writer run until it has read everything.
async fn catch_up(world: &World) {
    let writer = Running::start(world, &[]).await;
    until("everything is read", async || {
        let ends = client().topic(&world.name).await.unwrap().topic_partitions();
        let ends = client().list_offsets(&ends, OffsetSpec::Latest).await.unwrap();
        let ends: i64 = ends.into_iter().map(|(_, listed)| listed.unwrap().offset.0).sum();
        let query = "SELECT coalesce(sum(next_offset), 0)::bigint FROM driver_location_offsets";
        world.client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == ends
            && committed(&world.name).await == ends
    })
    .await;
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_stores_each_record_once_late_uploads_too() {
    let (world, producer) = stored().await;
    let all = RECORDS * i64::from(PARTITIONS);
    // Half of it; of the rows before, those of late uploads were received after this.
    let from = "2026-11-23T13:51:29.633Z";
    let cut = 200;
    assert_eq!(from.parse::<timescale_writer::Timestamp>().unwrap().0, NOW + cut * 1_000);
    let told = done(&world, &["offsets", "set", "--truncate-from", from, "--yes"]);
    for partition in 0..PARTITIONS {
        assert!(told.contains(&format!("partition {partition}: goes on at offset {cut}\n")), "{told}");
    }
    let removed = i64::from(PARTITIONS) * (RECORDS - cut) * 9 / 10;
    assert!(told.contains(&format!("{removed} rows removed\n")), "{told}");
    assert_eq!(world.rows().await, all - removed);
    assert_eq!(committed(&world.name).await, i64::from(PARTITIONS) * cut, "Kafka is told as well");
    let shown = done(&world, &["offsets", "show"]);
    assert_eq!(shown.lines().filter(|line| line.ends_with("0..400  is read again")).count(), 4, "{shown}");
    let again = done(&world, &["offsets", "set", "--truncate-from", from, "--yes"]);
    assert!(again.contains("goes on at offset 200\n") && again.contains("\n0 rows removed\n"), "{again}");

    produce_all(&world, &producer, RECORDS..RECORDS + 10).await;
    catch_up(&world).await;
    let all = all + 10 * i64::from(PARTITIONS);
    assert_eq!(counts(&world).await, (all, all));
    let shown = done(&world, &["offsets", "show"]);
    let caught_up = |line: &&str| line.split_whitespace().skip(1).eq(["410", "410", "0..410"]);
    assert_eq!(shown.lines().filter(caught_up).count(), 4, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_set_as_told_and_not_while_a_member_lives() {
    let (world, _) = stored().await;
    let writer = Running::start(&world, &[]).await;
    until("the writer is a member", async || writer.context.health.is_ready()).await;
    let line = refused(&world, &["offsets", "set", "--to", "earliest"], 69);
    assert!(line.contains("has live members (1, one of them timescale-writer at "), "{line}");
    writer.stop().await;

    done(&world, &["offsets", "set", "--to", "390", "--partitions", "0,2"]);
    done(&world, &["offsets", "set", "--to", "latest", "--partitions", "1"]);
    done(&world, &["offsets", "set", "--to", "2026-11-23T13:54:48.633Z", "--partitions", "3"]);
    let offsets = [world_offset(&world, 0).await, world_offset(&world, 1).await, world_offset(&world, 3).await];
    assert_eq!(offsets, [390, 400, 399]);
    // Without --truncate-from the rows of what is read again are there twice.
    catch_up(&world).await;
    let all = RECORDS * i64::from(PARTITIONS);
    assert_eq!(counts(&world).await, (all + 21, all));
}

async fn world_offset(world: &World, partition: i32) -> i64 {
    let query = "SELECT next_offset FROM driver_location_offsets WHERE consumer_group = $1 AND partition = $2";
    world.client.query_one(query, &[&world.name, &partition]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_do_harm_is_refused_in_one_line() {
    let (world, _) = stored().await;
    for (task, code, part) in [
        (&["offsets"][..], 64, "requires a subcommand"),
        (&["offsets", "set"], 64, "--to"),
        (&["offsets", "set", "--to", "soon"], 64, "--to soon: give earliest, latest, an offset or a time"),
        (&["offsets", "set", "--to", "401"], 69, "offset 401 is not in Kafka's log of partition"),
        (&["offsets", "set", "--to", "1", "--partitions", "7"], 69, "--partitions 7: topic"),
        (&["offsets", "set", "--truncate-from", "yesterday"], 64, "--truncate-from yesterday: give YYYY-MM-DD"),
        (&["offsets", "set", "--truncate-from", "2026-11-23T13:51:29Z"], 64, "--yes: is needed"),
        (&["erase", "--driver", "driver-0-1"], 64, "--yes: is needed"),
        (&["erase", "--driver", ""], 64, "--driver '': "),
        (&["erase"], 64, "--driver"),
    ] {
        let line = refused(&world, task, code);
        assert!(line.contains(part), "{task:?}: {line}");
    }
    world
        .execute("INSERT INTO driver_location_offsets VALUES ('other', 'topic', '00000000-0000-0000-0000-000000000001', 0, 5)")
        .await;
    let line = refused(&world, &["offsets", "set", "--truncate-from", "2026-11-23T13:51:29Z", "--yes"], 69);
    assert!(line.contains("holds rows of group other and topic topic"), "{line}");
    let all = RECORDS * i64::from(PARTITIONS);
    assert_eq!(counts(&world).await, (all, all), "nothing was removed");
    assert_eq!(world_offset(&world, 0).await, RECORDS);
    let empty = World::bare().await;
    let line = refused(&empty, &["erase", "--driver", "x", "--yes"], 69);
    assert!(line.contains("there is no table driver_locations"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_is_erased_and_no_other() {
    let world = World::new().await;
    world
        .execute(
            "INSERT INTO driver_locations SELECT 'driver-' || n % 3, 1, 2, NULL, NULL, now() FROM generate_series(1, 30) AS n",
        )
        .await;
    assert_eq!(done(&world, &["erase", "--driver", "driver-1", "--yes"]), "10 rows removed\n");
    assert_eq!(done(&world, &["erase", "--yes", "--driver", "driver-1"]), "0 rows removed\n");
    let left = "SELECT string_agg(DISTINCT driver_id, ',') FROM driver_locations";
    assert_eq!(world.client.query_one(left, &[]).await.unwrap().get::<_, String>(0), "driver-0,driver-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_starts_anew() {
    let (world, producer) = stored().await;
    client().delete_topic(&world.name).await.unwrap();
    until("the topic is gone", async || client().topic(&world.name).await.is_err()).await;
    let writer = Running::start(&world, &[]).await;
    until("the topic is there again", async || writer.context.health.is_ready()).await;
    drop(producer);
    let producer = crate::service::producer();
    produce_all(&world, &producer, RECORDS..RECORDS + 5).await;
    let all = (RECORDS + 5) * i64::from(PARTITIONS);
    until("what is new is written", async || world.rows().await == all).await;
    writer.stop().await;
    let ids = "SELECT count(DISTINCT topic_id), min(next_offset) FROM driver_location_offsets";
    let row = world.client.query_one(ids, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 5), "each topic has its own offsets");
    let shown = done(&world, &["offsets", "show"]);
    assert!(shown.contains("4 partitions of an earlier topic of this name, id "), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_under_a_running_writer_starts_anew() {
    let (world, producer) = stored().await;
    drop(producer);
    let writer = Running::start(&world, &[]).await;
    until("the writer is ready", async || writer.context.health.is_ready()).await;
    client().delete_topic(&world.name).await.unwrap();
    let spec = TopicSpec { name: world.name.clone(), partitions: PARTITIONS, replication: None, settings: Vec::new() };
    until("the topic is there again", async || {
        client().create_topic(&spec).await.is_ok_and(|made| made == Created::Created)
    })
    .await;
    until("the new topic is known", async || client().topic(&world.name).await.is_ok()).await;
    let producer = crate::service::producer();
    produce_all(&world, &producer, RECORDS..RECORDS + 5).await;
    let all = (RECORDS + 5) * i64::from(PARTITIONS);
    until("what is new is written", async || world.rows().await == all).await;
    writer.stop().await;
    let ids = "SELECT count(*), min(next_offset), max(next_offset) FROM driver_location_offsets";
    let row = world.client.query_one(ids, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (8, 5, RECORDS));
    assert_eq!(counts(&world).await, (all, all));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_kafka_differs_the_table_wins_and_the_log_says_so() {
    let (world, _) = stored().await;
    let elsewhere = TopicPartition::new(world.name.as_str(), PartitionId(2));
    client().alter_offsets(&world.name, &[(elsewhere, Offset(5), String::new())]).await.unwrap();
    let shown = done(&world, &["offsets", "show"]);
    let line = shown.lines().find(|line| line.contains("differs in Kafka; the database decides")).unwrap();
    assert_eq!(line.split_whitespace().take(3).collect::<Vec<_>>(), ["2", "400", "5"]);
    let log = native::target_dir().join("native").join(format!("{}.log", world.name));
    let launch = Launch::new("timescale-writer", env!("CARGO_BIN_EXE_timescale-writer"), &log);
    let writer = Process::spawn(&launch.args(flags(&world.name, &world.url, &[]))).unwrap();
    let all = RECORDS * i64::from(PARTITIONS);
    until("Kafka is told", async || committed(&world.name).await == all).await;
    assert!(writer.stop().success());
    let log = std::fs::read_to_string(log).unwrap();
    let said = log.lines().filter(|line| line.contains("the sink's offset wins over the group's")).collect::<Vec<_>>();
    assert!(said.len() == 1 && said[0].contains("sink=400 kafka=5"), "{log}");
    assert_eq!(counts(&world).await, (all, all));
}
