//! timescale-writer killed in the middle of its work, again and again: rows equal records, none twice.

use e2e::{Moment, Scene, Witness, event, eventually, load_turn, now_ms, shared};
use rand::RngExt as _;

const PARTITIONS: i32 = 12;
const RECORDS: usize = 100_000;
const KILLS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_killed_in_a_drain_leaves_every_record_once() {
    let _turn = load_turn().await;
    let scene = Scene::set(shared().await, "crash", PARTITIONS).await;
    scene.create_topics().await;
    let expected = backlog(&scene).await;
    let history = scene.history();
    for kill in 0..KILLS {
        // Somewhere in this part of the backlog; small batches make many transactions to be killed in.
        let part = RECORDS / KILLS;
        let goal = part * kill + rand::rng().random_range(1..part);
        let writer = scene.timescale_writer(&["--batch-max", "500"]);
        eventually("the drain goes on", async || {
            let rows = history.count().await?;
            if rows >= goal { Ok(()) } else { Err(format!("{rows} of {goal} rows\n{}", writer.log())) }
        })
        .await;
        writer.kill();
        let left = history.count().await.unwrap();
        println!("kill {kill}: aimed at {goal} rows, left {left} of {RECORDS}");
    }
    let survivor = scene.timescale_writer(&[]);
    history.becomes(&expected).await;
    scene.reaches(&scene.analytics_group(), &scene.ends().await).await;
    assert!(survivor.is_running());
    assert_eq!(scene.letters().await.len(), 0);
}

/// Puts the records in, evenly over the partitions; returns what must become of them.
async fn backlog(scene: &Scene<'_>) -> Vec<Moment> {
    let (witness, now, mut expected) = (scene.witness().await, now_ms(), Vec::with_capacity(RECORDS));
    let per_partition = i64::try_from(RECORDS).unwrap() / i64::from(PARTITIONS);
    for partition in 0..PARTITIONS {
        let driver = format!("driver-{partition}");
        let moments = (0..per_partition).map(|number| now - per_partition + number);
        let records = moments.clone().map(|at| Witness::record(&driver, Some(event(&driver, at)), at)).collect();
        witness.put(scene.topic(), partition, records).await;
        expected.extend(moments.map(|at| (driver.clone(), at)));
    }
    expected
}
