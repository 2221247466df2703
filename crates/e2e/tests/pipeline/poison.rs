//! Records that can never succeed: those behind them arrive, and their letters tell everything about them.

use std::collections::BTreeMap;

use e2e::{Found, Scene, Witness, event, eventually, now_ms, shared};

const PARTITIONS: i32 = 3;

/// A kind of poison: why it is refused, and its value.
type Poison = (&'static str, Option<Vec<u8>>);

/// Protobuf takes the last of a repeated field, so a right event with a field behind it has that field's value.
fn with(timestamp_ms: i64, field: &[&[u8]]) -> Option<Vec<u8>> {
    Some([&event("driver-p", timestamp_ms), field.concat().as_slice()].concat())
}

fn kinds(now: i64) -> Vec<Poison> {
    vec![
        ("null_value", None),
        ("undecodable", Some(b"{\"latitude\":1}".to_vec())),
        ("undecodable", Some(event("driver-p", now)[..20].to_vec())),
        ("missing_driver_id", Some(Vec::new())),
        ("invalid_driver_id", with(now, &[&[0x0a, 1, 0x07]])),
        ("missing_latitude", Some(vec![0x0a, 1, b'd'])),
        ("invalid_latitude", with(now, &[&[0x11], &90.5_f64.to_le_bytes()])),
        ("invalid_longitude", with(now, &[&[0x19], &f64::NAN.to_le_bytes()])),
        ("invalid_heading", with(now, &[&[0x25], &361_f32.to_le_bytes()])),
        ("invalid_speed", with(now, &[&[0x2d], &(-1_f32).to_le_bytes()])),
        ("timestamp_too_old", with(now, &[&[0x30, 0]])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_leaves_a_letter_for_each_group_and_holds_nobody_up() {
    let scene = Scene::set(shared().await, "poison", PARTITIONS).await;
    scene.create_topics().await;
    let services = [scene.redis_writer(&[]), scene.timescale_writer(&[]), scene.dlt_monitor(&[])];
    for service in &services {
        service.becomes_ready().await;
    }
    let now = now_ms();
    let (good, bad) = put_in(&scene, now).await;

    let newest: BTreeMap<_, _> = good.iter().cloned().collect();
    scene.map().await.shows(&newest).await;
    scene.history().becomes(&good).await;
    scene.drains().await;
    let letters = scene.letters().await;
    assert_eq!(letters.len(), 2 * bad.len());
    for group in [scene.redis_group(), scene.analytics_group()] {
        for (reason, original) in &bad {
            is_told(&scene, &letters, &group, reason, original);
        }
    }
    are_counted(&scene, &services[2], letters.len(), &bad).await;
}

/// Poison in each partition, a good record before and behind each. Returns the good ones' moments, and the bad records.
async fn put_in(scene: &Scene<'_>, now: i64) -> (Vec<(String, i64)>, Vec<(&'static str, Found)>) {
    let (witness, mut good, mut bad) = (scene.witness().await, Vec::new(), Vec::new());
    for (number, (reason, value)) in (0..).zip(kinds(now)) {
        let partition = number % PARTITIONS;
        let drivers = [format!("before-{number}"), format!("behind-{number}")];
        let [before, behind] = drivers.each_ref().map(|driver| Witness::record(driver, Some(event(driver, now)), now));
        let mut poison = Witness::record("driver-p", value, now - i64::from(number));
        poison.headers.insert("trace".to_owned(), b"abc".to_vec());
        let offsets = witness.put(scene.topic(), partition, vec![before, poison.clone(), behind]).await;
        good.extend(drivers.map(|driver| (driver, now)));
        bad.push((reason, Found { partition, offset: offsets[1], record: poison }));
    }
    (good, bad)
}

/// There is one letter of `group` about `original`, and it tells all about it.
fn is_told(scene: &Scene<'_>, letters: &[Found], group: &str, reason: &str, original: &Found) {
    let about = |letter: &&Found| {
        letter.text("kafka_dlt-original-consumer-group") == Some(group)
            && letter.header("kafka_dlt-original-partition") == Some(&original.partition.to_be_bytes())
            && letter.header("kafka_dlt-original-offset") == Some(&original.offset.to_be_bytes())
    };
    let found: Vec<_> = letters.iter().filter(about).collect();
    assert_eq!(found.len(), 1, "letters of {group} about {reason}");
    let letter = found[0];
    assert_eq!(letter.partition, original.partition, "the partition is kept");
    assert_eq!((&letter.record.key, &letter.record.value), (&original.record.key, &original.record.value), "{reason}");
    assert_eq!(letter.text("trace"), Some("abc"), "the original's headers are kept");
    assert_eq!(letter.text("kafka_dlt-original-topic"), Some(scene.topic()));
    let made_at = original.record.timestamp.timestamp_millis();
    assert_eq!(letter.header("kafka_dlt-original-timestamp"), Some(&made_at.to_be_bytes()[..]));
    assert_eq!(letter.text("kafka_dlt-original-timestamp-type"), Some("CreateTime"));
    assert_eq!(letter.text("driver-location-reason"), Some(reason));
    for name in ["kafka_dlt-exception-fqcn", "kafka_dlt-exception-message", "kafka_dlt-exception-stacktrace"] {
        assert!(letter.text(name).is_some_and(|text| !text.is_empty() && text.len() < 2_000), "{name}");
    }
}

/// dlt-monitor has counted every letter and written a line about each.
async fn are_counted(scene: &Scene<'_>, monitor: &e2e::Service, letters: usize, bad: &[(&'static str, Found)]) {
    let series = format!("kafka_dlt_events_total{{topic=\"{}\"}}", scene.topic());
    eventually("every letter is counted", async || {
        let counted = monitor.value(&series);
        if counted == Some(letters as f64) { Ok(()) } else { Err(format!("{counted:?}")) }
    })
    .await;
    let log = monitor.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("ERROR") && line.contains("dead letter")).collect();
    assert_eq!(lines.len(), letters, "{log}");
    for (reason, original) in bad {
        let coordinates = [
            format!("topic={}", scene.topic()),
            format!("partition={} ", original.partition),
            format!("offset={} ", original.offset),
            format!("reason={reason} "),
        ];
        let told = lines.iter().filter(|line| coordinates.iter().all(|part| line.contains(part))).count();
        assert_eq!(told, 2, "lines about {coordinates:?} in\n{log}");
    }
}
