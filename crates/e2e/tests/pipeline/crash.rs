//! Services killed in the middle of their work: rows equal records, none twice; no letter and no acknowledged event is
//! lost.

use std::collections::BTreeSet;

use e2e::{Load, Moment, Scene, Witness, event, eventually, load_turn, now_ms, shared};
use rand::RngExt as _;

const PARTITIONS: i32 = 12;
const RECORDS: usize = 100_000;
/// Each record whose number is divisible by this one is poison.
const POISON_EVERY: i64 = 97;
const KILLS: usize = 5;

/// What a backlog must become.
#[derive(Default)]
struct Expected {
    rows: Vec<Moment>,
    /// Partition and offset of each poison.
    letters: BTreeSet<(i32, i64)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timescale_writer_killed_in_a_drain_leaves_every_record_once() {
    let _turn = load_turn().await;
    let scene = Scene::set(shared().await, "crash", PARTITIONS).await;
    scene.create_topics().await;
    let expected = backlog(&scene).await;
    let history = scene.history();
    for kill in 0..KILLS {
        // Somewhere in this part of the backlog; small batches make many transactions to be killed in.
        let part = expected.rows.len() / KILLS;
        let goal = part * kill + rand::rng().random_range(1..part * 3 / 4);
        let writer = scene.timescale_writer(&["--batch-max", "500"]);
        eventually("the drain goes on", async || {
            let rows = history.count().await?;
            if rows >= goal { Ok(()) } else { Err(format!("{rows} of {goal} rows\n{}", writer.log())) }
        })
        .await;
        writer.kill();
        let left = history.count().await.unwrap();
        println!("kill {kill}: aimed at {goal} rows, left {left} of {}", expected.rows.len());
    }
    let survivor = scene.timescale_writer(&[]);
    history.becomes(&expected.rows).await;
    scene.reaches(&scene.analytics_group(), &scene.ends().await).await;
    assert!(survivor.is_running());
    // A letter may come twice, as its publication and the commit are two steps.
    assert_eq!(originals(&scene).await, expected.letters);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_ingest_has_kept_its_word() {
    let _turn = load_turn().await;
    let scene = Scene::set(shared().await, "word", 6).await;
    let ingest = scene.ingest(&[]);
    ingest.service.becomes_ready().await;
    let load = Load::start(ingest.address, "driver", 20);
    load.accept(1_000).await;
    ingest.service.kill();
    let posted = load.stop().await;
    assert!(posted.refused.is_empty(), "{:?}", posted.refused);
    assert!(scene.in_kafka(&posted).await.len() >= posted.accepted.len());
}

/// Puts the records in, evenly over the partitions.
async fn backlog(scene: &Scene<'_>) -> Expected {
    let (witness, now, mut expected) = (scene.witness().await, now_ms(), Expected::default());
    let per_partition = i64::try_from(RECORDS).unwrap() / i64::from(PARTITIONS);
    for partition in 0..PARTITIONS {
        let driver = format!("driver-{partition}");
        let mut records = Vec::new();
        // In a topic that is still empty, the number of a record is its offset.
        for number in 0..per_partition {
            let at = now - per_partition + number;
            if number % POISON_EVERY == 0 {
                expected.letters.insert((partition, number));
                records.push(Witness::record(&driver, Some(b"poison".to_vec()), at));
            } else {
                expected.rows.push((driver.clone(), at));
                records.push(Witness::record(&driver, Some(event(&driver, at)), at));
            }
        }
        witness.put(scene.topic(), partition, records).await;
    }
    expected
}

/// Partition and offset of every record that has a letter.
async fn originals(scene: &Scene<'_>) -> BTreeSet<(i32, i64)> {
    let place = |letter: &e2e::Found| {
        let partition = letter.header("kafka_dlt-original-partition")?.try_into().ok()?;
        let offset = letter.header("kafka_dlt-original-offset")?.try_into().ok()?;
        Some((i32::from_be_bytes(partition), i64::from_be_bytes(offset)))
    };
    scene.letters().await.iter().map(|letter| place(letter).expect("coordinates of the original")).collect()
}
