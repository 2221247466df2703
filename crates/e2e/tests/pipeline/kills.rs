//! A writer killed again and again (SIGKILL) in a throttled drain. Three kills in `make test`; with LONG=1 (`make
//! test-long`) all twenty, over 1,000,000 records.
#![allow(clippy::print_stdout, reason = "the random numbers of a run are part of what it shows")]

use std::env;

use e2e::{Scene, Service, Witness, event, eventually, load_turn, now_ms, shared};
use rand::RngExt as _;

const PARTITIONS: i32 = 10;

/// How much is drained, and after how many records the writer is killed.
#[derive(Debug, Clone)]
struct Plan {
    records: usize,
    kills: Vec<usize>,
}

impl Plan {
    /// Random numbers of records, printed: what fails is to be seen again.
    fn draw() -> Self {
        let (records, count) = if env::var_os("LONG").is_some() { (1_000_000, 20) } else { (150_000, 3) };
        // None so late that the writer may have finished before it is hit.
        let mut kills: Vec<_> = (0..count).map(|_| rand::rng().random_range(1..records * 9 / 10)).collect();
        kills.sort_unstable();
        println!("{records} records, killed after {kills:?}");
        Self { records, kills }
    }

    /// Records of each partition.
    fn per_partition(&self) -> i64 {
        i64::try_from(self.records).unwrap() / i64::from(PARTITIONS)
    }
}

/// Starts a writer and kills it as soon as `progress` has reached each of the plan's numbers; the last one lives.
async fn drain(plan: &Plan, start: impl Fn() -> Service, progress: impl AsyncFn() -> Result<usize, String>) -> Service {
    let mut writer = start();
    for goal in &plan.kills {
        eventually("the drain goes on", async || {
            let done = progress().await?;
            if done >= *goal { Ok(()) } else { Err(format!("{done} of {goal} records\n{}", writer.log())) }
        })
        .await;
        writer.kill();
        println!("aimed at {goal}, killed at {:?}", progress().await);
        writer = start();
    }
    writer
}

/// Puts the records in: a driver for each partition, one position each millisecond from `start_ms` on.
async fn fill(scene: &Scene<'_>, plan: &Plan, start_ms: i64) {
    let (witness, count) = (scene.witness().await, plan.per_partition());
    for partition in 0..PARTITIONS {
        let driver = format!("driver-{partition}");
        let record = |number| {
            let at = start_ms + number;
            Witness::record(&driver, Some(event(&driver, at)), at)
        };
        witness.put(scene.topic(), partition, (0..count).map(record).collect()).await;
    }
}

/// A statement of the table's own holds each COPY up, so that a kill hits the middle of a drain.
const THROTTLE: &str = "
    CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN NULL; END $$;
    CREATE TRIGGER hold_up BEFORE INSERT ON driver_locations FOR EACH STATEMENT EXECUTE FUNCTION hold_up()";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_timescale_writer_has_stored_every_record_exactly_once() {
    let _turn = load_turn().await;
    let scene = Scene::set(shared().await, "kills-history", PARTITIONS).await;
    scene.create_topics().await;
    let (plan, start_ms) = (Plan::draw(), now_ms() - 3_600_000);
    fill(&scene, &plan, start_ms).await;
    let migrated = scene.run("timescale-writer", &["--migrate=only"]);
    assert_eq!(migrated.code, 0, "{}", migrated.output);
    let history = scene.history();
    history.execute(THROTTLE).await;
    let writer =
        drain(&plan, || scene.timescale_writer(&["--batch-max", "1000"]), async || history.count().await).await;
    scene.reaches(&scene.analytics_group(), &scene.ends().await).await;
    assert!(writer.is_running());
    let drivers = history.by_driver().await.unwrap();
    assert_eq!(drivers.len(), usize::try_from(PARTITIONS).unwrap());
    let (count, last) = (plan.per_partition(), start_ms + plan.per_partition() - 1);
    for (driver, rows) in drivers {
        // As many as were sent, all different, from the first to the last: each exactly once.
        assert_eq!(
            (rows.count, rows.distinct, rows.first_ms, rows.last_ms),
            (count, count, start_ms, last),
            "{driver}"
        );
    }
    assert_eq!(scene.letters().await.len(), 0);
}
