//! The dead letter topic away under poison, and a flood of poison.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::{Scene, Witness, disturbable, event, eventually, now_ms, shared};
use tokio::time::Instant;

const PARTITIONS: i32 = 3;
const OUTAGE: Duration = Duration::from_secs(10);
/// What one attempt to publish may leave twice: a lane's batch.
const LAST_BATCH: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn while_the_dead_letter_topic_is_away_nothing_is_skipped() {
    let stack = disturbable().await;
    let scene = Scene::set(&stack, "letterless", PARTITIONS).await;
    scene.create_topics().await;
    let writer = scene.redis_writer(&[]);
    writer.becomes_ready().await;
    let witness = scene.witness().await;
    scene.client().delete_topic(&scene.dead_letter_topic()).await.unwrap();
    let (gone_at, now) = (Instant::now(), now_ms());
    let mut poison = 0;
    let mut newest = BTreeMap::new();
    while gone_at.elapsed() < OUTAGE {
        for partition in 0..PARTITIONS {
            let driver = format!("driver-{poison}");
            let bad = Witness::record(&driver, Some(b"no event".to_vec()), now);
            let good = Witness::record(&driver, Some(event(&driver, now)), now);
            witness.put(scene.topic(), partition, vec![bad, good]).await;
            newest.insert(driver, now);
            poison += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let group = scene.redis_group();
    assert!(
        scene.committed(&group).await.unwrap().values().all(|offset| *offset == 0),
        "no position has passed poison"
    );
    scene.create_topics().await;
    scene.reaches(&group, &scene.ends().await).await;
    let letters = scene.letters().await;
    let mut about = BTreeMap::<_, usize>::new();
    for letter in &letters {
        let offset: [u8; 8] = letter.header("kafka_dlt-original-offset").unwrap().try_into().unwrap();
        *about.entry((letter.partition, i64::from_be_bytes(offset))).or_default() += 1;
    }
    assert_eq!(about.len(), poison, "every one has its letter");
    assert!(letters.len() - poison <= LAST_BATCH, "{} letters about {poison}", letters.len());
    scene.map().await.shows(&newest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_poison_holds_its_partition_until_it_is_over() {
    let scene = Scene::set(shared().await, "flood", PARTITIONS).await;
    scene.create_topics().await;
    let writer = scene.timescale_writer(&["--dead-letter-max-share", "0.5"]);
    writer.becomes_ready().await;
    let (witness, now) = (scene.witness().await, now_ms());
    // A flood that began 45 s ago: it is in the last minute for a while yet, and then it is not.
    let poison = |n: i32| Witness::record(&format!("driver-{n}"), Some(b"another schema".to_vec()), now - 45_000);
    witness.put(scene.topic(), 0, (0..200).map(poison).collect()).await;
    let behind = Witness::record("behind", Some(event("behind", now - 45_000)), now - 45_000);
    witness.put(scene.topic(), 0, vec![behind]).await;
    let group = scene.analytics_group();
    let flooded = format!("pipeline_flooded_partitions{{group=\"{group}\"}}");
    let shows = async |expected: f64| {
        eventually("the metric of the flood", async || match writer.value(&flooded) {
            Some(value) if value == expected => Ok(()),
            seen => Err(format!("{seen:?}")),
        })
        .await;
    };
    shows(1.0).await;
    // The other partitions go on, few bad records included.
    witness.put(scene.topic(), 1, vec![poison(1_000), Witness::record("other", Some(event("other", now)), now)]).await;
    scene.history().becomes(&[("other".to_owned(), now)]).await;
    assert!(scene.letters().await.iter().all(|letter| letter.partition != 0), "no letter of the flood");
    assert_eq!(writer.log().matches("too many records would become dead letters").count(), 1, "said once");
    shows(0.0).await;
    scene.history().becomes(&[("other".to_owned(), now), ("behind".to_owned(), now - 45_000)]).await;
    scene.reaches(&group, &scene.ends().await).await;
    assert_eq!(scene.letters().await.len(), 201);
    assert!(writer.log().contains("the flood of dead letters is over"));
}
