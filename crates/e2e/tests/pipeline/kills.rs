//! Each writer killed again and again (SIGKILL) in a throttled drain. Three kills in `make test`; with LONG=1 (`make
//! test-long`) all twenty, over 1,000,000 records.
#![allow(clippy::print_stdout, reason = "the random numbers of a run are part of what it shows")]

use std::env;

use std::collections::BTreeMap;

use e2e::{Scene, Service, Throttle, Witness, disturbable, event, eventually, load_turn, now_ms, shared};
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

/// Puts the records in; `position` says whose the one of this partition and number is, and of when.
async fn fill(scene: &Scene<'_>, plan: &Plan, position: impl Fn(i32, i64) -> (String, i64)) {
    let (witness, count) = (scene.witness().await, plan.per_partition());
    for partition in 0..PARTITIONS {
        let record = |number| {
            let (driver, at) = position(partition, number);
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
    // A driver for each partition, one position each millisecond.
    fill(&scene, &plan, |partition, number| (format!("driver-{partition}"), start_ms + number)).await;
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

/// Drivers of each partition.
const DRIVERS: i64 = 25;
/// So that nothing expires while the test runs: what is in Redis at the end is all that was left there.
const LIFE: (&str, i64) = ("1h", 3_600_000);

/// Whose a position is, and of when: a driver's positions are in the order of their time but for every third, which is up
/// to a second older than its place says.
fn disordered(start_ms: i64, partition: i32, number: i64) -> (String, i64) {
    let late_by = if number % 3 == 0 { number * 7_919 % 1_000 } else { 0 };
    (format!("driver-{partition}-{}", number % DRIVERS), start_ms + number - late_by)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_writer_leaves_the_newest_of_each_driver_and_no_key_beyond_its_life() {
    let stack = disturbable().await;
    let _turn = load_turn().await;
    let scene = Scene::set(&stack, "kills-map", PARTITIONS).await;
    scene.create_topics().await;
    let plan = Plan::draw();
    let start_ms = now_ms() - plan.per_partition();
    fill(&scene, &plan, |partition, number| disordered(start_ms, partition, number)).await;

    // Every position is written, a few hundred at a time, and each time Redis lets it wait.
    let throttle = Throttle::start(&stack.redis.url()).await;
    let flags = ["--conflate=off", "--batch-max=250", "--writers=1", "--position-ttl", LIFE.0];
    let group = scene.redis_group();
    let committed = async || {
        let committed = scene.committed(&group).await?;
        usize::try_from(committed.values().sum::<i64>()).map_err(|error| error.to_string())
    };
    let writer = drain(&plan, || scene.redis_writer(&flags), committed).await;
    drop(throttle);
    scene.reaches(&group, &scene.ends().await).await;
    assert!(writer.is_running());

    let mut newest = BTreeMap::new();
    for (partition, number) in (0..PARTITIONS).flat_map(|id| (0..plan.per_partition()).map(move |number| (id, number)))
    {
        let (driver, at) = disordered(start_ms, partition, number);
        newest.entry(driver).and_modify(|known: &mut i64| *known = at.max(*known)).or_insert(at);
    }
    let map = scene.map().await;
    let drivers: Vec<_> = newest.keys().cloned().collect();
    assert_eq!(map.keys().await, drivers.len(), "no key but the drivers'");
    let shown = map.timestamps(&drivers).await.unwrap();
    for ((driver, shown), expiry) in drivers.iter().zip(shown).zip(map.expiries(&drivers).await) {
        let expected = newest[driver];
        assert_eq!((shown, expiry), (Some(expected), expected + LIFE.1), "{driver}");
    }
    assert_eq!(scene.letters().await.len(), 0);
}
