//! Every kind of malformed record from Kafka's own Java client: one letter of each group about each, and its partition goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::{Scene, event, now_ms, shared};

const PARTITIONS: i32 = 3;
/// Far more than any letter's bound.
const NOISE_BYTES: usize = 900_000;
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/java/Poison.java");

/// A malformed record: why, its key and value as `Poison.java` reads them, its headers.
struct Kind {
    reason: &'static str,
    key: String,
    value: String,
    headers: usize,
    header_bytes: usize,
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A right event with a field behind it: protobuf takes the last of a repeated one.
fn with(now: i64, field: &[&[u8]]) -> String {
    hex(&[&event("driver-p", now), field.concat().as_slice()].concat())
}

fn kinds(now: i64) -> Vec<Kind> {
    let kind = |reason, value: String| Kind { reason, key: hex(b"driver-p"), value, headers: 0, header_bytes: 0 };
    let good = event("driver-p", now);
    let far_ahead = zigzag_free_varint(now + 25 * 3_600_000);
    vec![
        kind("null_value", "null".to_owned()),
        kind("missing_driver_id", hex(b"")),
        kind("undecodable", hex(&good[..good.len() - 3])),
        kind("undecodable", hex(&good[..20])),
        // latitude as a varint: the wrong wire type.
        kind("undecodable", hex(&[0x10, 7])),
        kind("undecodable", hex(b"{\"latitude\": 40.7}")),
        kind("invalid_driver_id", with(now, &[&[0x0a, 1, 0x07]])),
        kind("invalid_driver_id", with(now, &[&[0x0a, 0]])),
        kind("missing_latitude", hex(&[0x0a, 1, b'd'])),
        kind("missing_longitude", hex(&[&[0x0a, 1, b'd', 0x11][..], &1_f64.to_le_bytes()].concat())),
        kind("invalid_latitude", with(now, &[&[0x11], &90.5_f64.to_le_bytes()])),
        kind("invalid_latitude", with(now, &[&[0x11], &f64::NAN.to_le_bytes()])),
        kind("invalid_longitude", with(now, &[&[0x19], &(-180.1_f64).to_le_bytes()])),
        kind("invalid_heading", with(now, &[&[0x25], &361_f32.to_le_bytes()])),
        kind("invalid_speed", with(now, &[&[0x2d], &f32::INFINITY.to_le_bytes()])),
        kind("timestamp_too_old", with(now, &[&[0x30, 0]])),
        kind("timestamp_too_far_ahead", with(now, &[&[0x30], &far_ahead])),
        kind("undecodable", format!("noise:{NOISE_BYTES}")),
        Kind { headers: 3_000, header_bytes: 100, ..kind("null_value", "null".to_owned()) },
        Kind { headers: 1, header_bytes: 500_000, ..kind("undecodable", hex(&[0xff])) },
        Kind { key: hex(&[0xff, 0xfe, 0x00, 0x80]), ..kind("undecodable", hex(&[0x0a, 0xff])) },
        Kind { key: "null".to_owned(), ..kind("undecodable", hex(&[0x0a, 0xff])) },
    ]
}

fn zigzag_free_varint(value: i64) -> Vec<u8> {
    let mut rest = value.cast_unsigned();
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// Produces `lines` with `Poison.java`; returns the offsets.
fn produce(bootstrap: &str, topic: &str, lines: &str) -> Vec<i64> {
    let tools = native::ensure_tools().unwrap();
    let jars = format!("{}/*", tools.kafka_lib.display());
    let log_settings = Path::new(SOURCE).parent().unwrap().join("log4j2.xml");
    let mut java = Command::new(&tools.java)
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xmx192m"])
        .arg(format!("-Dlog4j2.configurationFile={}", log_settings.display()))
        .args(["-cp", &jars, SOURCE, bootstrap, topic])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // All lines fit into the pipe's buffers and the program's heap; it answers while it reads.
    let mut input = java.stdin.take().unwrap();
    let lines = lines.to_owned();
    let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = java.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_malformed_record_of_a_java_client_is_one_letter_a_group_and_its_partition_goes_on() {
    let stack = shared().await;
    let scene = Scene::set(stack, "java-poison", PARTITIONS).await;
    scene.create_topics().await;
    let services = [scene.redis_writer(&[]), scene.timescale_writer(&[])];
    for service in &services {
        service.becomes_ready().await;
    }
    let now = now_ms();
    let (mut lines, mut good) = (String::new(), Vec::new());
    for (number, kind) in kinds(now).iter().enumerate() {
        let partition = number % usize::try_from(PARTITIONS).unwrap();
        for driver in [format!("before-{number}"), format!("behind-{number}")] {
            good.push((driver, now));
        }
        let [before, behind] = [0, 1].map(|last| hex(&event(&good[2 * number + last].0, now)));
        let Kind { key, value, headers, header_bytes, .. } = kind;
        let _ = writeln!(lines, "{partition} {now} {key} {before} 0 0");
        let _ = writeln!(lines, "{partition} {now} {key} {value} {headers} {header_bytes}");
        // A key that is no text is no fault of the event.
        let _ = writeln!(lines, "{partition} {now} fffe {behind} 0 0");
    }
    let (bootstrap, topic) = (stack.kafka.bootstrap(), scene.topic().to_owned());
    let offsets = tokio::task::spawn_blocking(move || produce(&bootstrap, &topic, &lines)).await.unwrap();
    assert_eq!(offsets.len(), 3 * kinds(now).len());

    let newest: BTreeMap<_, _> = good.iter().cloned().collect();
    scene.map().await.shows(&newest).await;
    scene.history().becomes(&good).await;
    scene.drains().await;
    let expected: BTreeSet<_> = kinds(now)
        .iter()
        .enumerate()
        .flat_map(|(number, kind)| {
            let partition = i32::try_from(number).unwrap() % PARTITIONS;
            let groups = [scene.redis_group(), scene.analytics_group()];
            groups.map(|group| (group, partition, offsets[3 * number + 1], kind.reason.to_owned()))
        })
        .collect();
    let letters = scene.letters().await;
    let told: BTreeSet<_> = letters
        .iter()
        .map(|letter| {
            let offset: [u8; 8] = letter.header("kafka_dlt-original-offset").unwrap().try_into().unwrap();
            let text = |name| letter.text(name).unwrap().to_owned();
            let (group, reason) = (text("kafka_dlt-original-consumer-group"), text("driver-location-reason"));
            (group, letter.partition, i64::from_be_bytes(offset), reason)
        })
        .collect();
    assert_eq!(told, expected);
    assert_eq!(letters.len(), expected.len(), "one each");
    let noise = letters.iter().filter(|letter| letter.record.value.as_ref().is_some_and(|v| v.len() == NOISE_BYTES));
    assert_eq!(noise.count(), 2, "kept whole, since the topic takes it");
}
