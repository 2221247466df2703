//! Wrong flags, ports in use, servers that are not there, topics that are not as expected: one clear line each.

use std::net::TcpListener;

use e2e::{Ended, Scene, eventually, shared};

const SERVICES: [&str; 5] = ["location-ingest", "redis-writer", "dlt-monitor", "lag-exporter", "timescale-writer"];
/// Those that make sure of the topics when they start.
const TOPIC_KEEPERS: [&str; 4] = ["location-ingest", "redis-writer", "dlt-monitor", "timescale-writer"];

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;

fn assert_usage(service: &str, flag: &str, value: &str) {
    let ended = Ended::of(service, &[&format!("{flag}={value}")], &[]);
    assert_eq!(ended.code, USAGE, "{service} {flag}={value}: {}", ended.output);
    let named = if value.is_empty() { format!("{flag} '': ") } else { format!("{flag} {value}: ") };
    let line = ended.line();
    assert!(line.starts_with(&named) && line.len() > named.len(), "{service}: {line}");
    assert_eq!(ended.output.lines().count(), 1, "{service}: {}", ended.output);
}

#[test]
fn a_wrong_value_of_a_common_flag_is_told_by_every_service() {
    for service in SERVICES {
        for (flag, value) in [
            ("--brokers", "localhost"),
            ("--brokers", ""),
            ("--brokers", "kafka:0"),
            ("--topic", "a b"),
            ("--metrics-listen", "9101"),
            ("--log", "a=b=c"),
            ("--log-format", "xml"),
            ("--shutdown-timeout", "5"),
        ] {
            assert_usage(service, flag, value);
        }
    }
}

#[test]
fn a_wrong_value_of_a_services_own_flag_is_told() {
    for (service, flag, value) in [
        ("location-ingest", "--listen", "8080"),
        ("location-ingest", "--ack-timeout", "1m"),
        ("redis-writer", "--redis-url", "http://localhost"),
        ("redis-writer", "--batch-max", "0"),
        ("redis-writer", "--resume-below", "60000"),
        ("redis-writer", "--heartbeat-interval", "5s"),
        ("redis-writer", "--topic-create", "yes"),
        ("timescale-writer", "--topic-partitions", "0"),
        ("timescale-writer", "--session-timeout", "1ms"),
        ("dlt-monitor", "--group", ""),
        ("dlt-monitor", "--topic-create", ""),
        ("lag-exporter", "--interval", "1ms"),
        ("lag-exporter", "--stale-after", "1s"),
    ] {
        assert_usage(service, flag, value);
    }
}

#[test]
fn an_unknown_flag_is_told_by_every_service() {
    for service in SERVICES {
        let ended = Ended::of(service, &["--broker", "127.0.0.1:9092"], &[]);
        assert_eq!(ended.code, USAGE, "{}", ended.output);
        assert!(ended.line().starts_with("--broker: no such flag; did you mean --brokers? "), "{}", ended.output);
    }
}

#[test]
fn a_wrong_environment_variable_is_told_by_its_flag() {
    for service in SERVICES {
        let ended = Ended::of(service, &[], &[("SHUTDOWN_TIMEOUT", "soon")]);
        assert_eq!(ended.code, USAGE, "{}", ended.output);
        assert!(ended.line().starts_with("--shutdown-timeout soon: give 100ms to 10m"), "{}", ended.output);
    }
}

#[test]
fn help_names_an_environment_variable_for_every_flag() {
    for service in SERVICES {
        let help = Ended::of(service, &["--help"], &[]);
        assert_eq!(help.code, 0, "{}", help.output);
        let flags: Vec<_> = help.output.lines().filter_map(described_flag).collect();
        for flag in &flags {
            // Without its value, which may be a secret.
            let variable = format!("[env: {}]", flag.replace('-', "_").to_ascii_uppercase());
            assert!(help.output.contains(&variable), "{service}: {variable} is not in:\n{}", help.output);
        }
        assert!(flags.contains(&"brokers") && flags.len() >= 7, "{service}: {flags:?} found in:\n{}", help.output);
        let version = Ended::of(service, &["--version"], &[]);
        assert_eq!((version.code, version.output.split(' ').next()), (0, Some(service)));
    }
}

/// The flag that a line of a help text is about: `--flag <VALUE>` or `--flag`, and not a wrapped line of prose.
fn described_flag(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("--")?;
    let (flag, value) = rest.split_once(' ').unwrap_or((rest, "<"));
    let is_name = flag.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    (is_name && value.starts_with('<')).then_some(flag)
}

#[test]
fn a_port_in_use_is_told_by_flag_address_and_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ports =
        SERVICES.map(|service| (service, "--metrics-listen")).into_iter().chain([("location-ingest", "--listen")]);
    for (service, flag) in ports {
        let mut flags = vec![flag, &address];
        if flag == "--listen" {
            flags.extend(["--metrics-listen", "127.0.0.1:0"]);
        }
        let ended = Ended::of(service, &flags, &[]);
        let code = if service == "lag-exporter" { USAGE } else { UNAVAILABLE };
        assert_eq!(ended.code, code, "{}", ended.output);
        let expected = format!("{flag} {address}: the port is in use; stop the other process or give another port");
        assert!(ended.line().starts_with(&expected), "{}", ended.output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_resolve_is_told_and_waited_for() {
    let scene = Scene::set(shared().await, "unresolved", 2).await;
    let lost = scene.on_brokers("nowhere.invalid:9092");
    for service in SERVICES.map(|service| lost.start(service, &[])) {
        service.becomes_unready().await;
        eventually(&format!("{} names the broker", service.name()), async || {
            let (_, body) = service.readiness()?;
            if body.contains("nowhere.invalid:9092") { Ok(()) } else { Err(body) }
        })
        .await;
        assert!(service.is_running() && !service.log().contains("panicked"), "{}", service.log());
        service.terminate();
        assert_eq!(service.ended().code(), Some(0), "{}", service.log());
        assert!(service.log().contains("nowhere.invalid:9092"), "{}", service.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_too_few_partitions_is_a_warning_or_the_end() {
    let scene = Scene::set(shared().await, "narrow", 2).await;
    scene.create_topics().await;
    let expected = "--topic-partitions 6: topic narrow has 2 partitions; ";
    let wide = scene.expecting(6);
    for service in TOPIC_KEEPERS.map(|service| wide.start(service, &[])) {
        service.becomes_ready().await;
        let warnings = service.log().lines().filter(|line| line.contains(" WARN ") && line.contains(expected)).count();
        assert_eq!(warnings, 1, "{}", service.log());
    }
    for service in TOPIC_KEEPERS {
        let ended = wide.run(service, &["--topic-create=check"]);
        assert_eq!(ended.code, UNAVAILABLE, "{service}: {}", ended.output);
        assert!(ended.line().starts_with(expected), "{service}: {}", ended.output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_the_end_where_it_must_be_there() {
    let scene = Scene::set(shared().await, "absent", 2).await;
    for service in TOPIC_KEEPERS {
        let ended = scene.run(service, &["--topic-create=check"]);
        assert_eq!(ended.code, UNAVAILABLE, "{service}: {}", ended.output);
        assert!(ended.line().starts_with("--topic absent: the topic does not exist; create it"), "{}", ended.output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_the_end() {
    let scene = Scene::set(shared().await, "unusable", 2).await;
    scene.history().execute("CREATE TABLE driver_locations (driver_id text, lat real)").await;
    let ended = scene.run("timescale-writer", &[]);
    assert_eq!(ended.code, UNAVAILABLE, "{}", ended.output);
    assert!(
        ended.line().contains("driver_locations has column lat as real, not as double precision"),
        "{}",
        ended.output
    );

    let url = scene.database_url();
    let nowhere = url.replace("/unusable", "/nowhere");
    let ended = Ended::of("timescale-writer", &["--metrics-listen=127.0.0.1:0"], &[("DATABASE_URL", &nowhere)]);
    assert_eq!(ended.code, UNAVAILABLE, "{}", ended.output);
    assert!(ended.line().contains("\"nowhere\" does not exist"), "{}", ended.output);

    let stranger = url.replace("driver:", "driver:wrong");
    let ended = Ended::of("timescale-writer", &["--metrics-listen=127.0.0.1:0"], &[("DATABASE_URL", &stranger)]);
    assert_eq!(ended.code, 77, "{}", ended.output);
    assert!(ended.line().contains("password") && !ended.output.contains(&stranger), "{}", ended.output);

    let ended = Ended::of("timescale-writer", &["--database-url=postgres://u:secret@host"], &[]);
    assert_eq!(ended.code, USAGE, "{}", ended.output);
    assert!(ended.line().starts_with("--database-url ") && !ended.output.contains("secret"), "{}", ended.output);
}
