//! Flags of location-ingest.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::Parser;
use hyper::header::HeaderValue;
use kafka::topics::Mode;
use service::{CommonArgs, Config, Usage};

const ACK_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const ACK_TIMEOUT_MAX: Duration = Duration::from_mins(2);
const LINGER_MAX: Duration = Duration::from_secs(1);
const CLIENT_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const CLIENT_TIMEOUT_MAX: Duration = Duration::from_mins(10);
/// The smallest buffer that hyper reads into.
const HEADER_MIN: u64 = 8 << 10;
const HEADER_MAX: u64 = 1 << 20;
const BODY_MIN: u64 = 256;
const BODY_MAX: u64 = 64 << 20;
const BUFFER_MIN: u64 = 1 << 20;
const BUFFER_MAX: u64 = 4 << 30;
const COUNT_MAX: usize = 1_000_000;
const PARTITIONS_MAX: i32 = 10_000;
const DRIVERS_MAX: usize = 1 << 24;
const GROUP_NAME_MAX: usize = 255;

/// Flags of location-ingest.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// Address for drivers' requests; port 0 takes any free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080", value_parser = service::listen_address)]
    pub listen: SocketAddr,

    /// What to do about topics at the start: create what is missing (auto), insist that they are as expected (check),
    /// or take them as they are (off)
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = Mode::from_str)]
    pub topic_create: Mode,

    /// Partitions that the topic is created with and expected to have, 1 to 10000
    #[arg(long, value_name = "COUNT", default_value = "48", value_parser = service::number(1..=PARTITIONS_MAX))]
    pub topic_partitions: i32,

    /// Dead letter topic, created beside the topic [default: the topic's name with .DLT]
    #[arg(long, value_name = "TOPIC", value_parser = service::topic_name)]
    pub dead_letter_topic: Option<String>,

    /// How long Kafka may take to acknowledge an event before the answer is 503, 100ms to 2m
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = service::duration(ACK_TIMEOUT_MIN..=ACK_TIMEOUT_MAX))]
    pub ack_timeout: Duration,

    /// How long an event waits for others to share its request to Kafka while there is little to do, 0ms to 1s
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = service::duration(Duration::ZERO..=LINGER_MAX))]
    pub linger: Duration,

    /// The same at 50,000 events/s to a broker; in between it grows with the load, 0ms to 1s
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = service::duration(Duration::ZERO..=LINGER_MAX))]
    pub linger_max: Duration,

    /// Memory for events that Kafka has not acknowledged yet, 1MiB to 4GiB; when it is used up the answer is 503
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = service::bytes(BUFFER_MIN..=BUFFER_MAX))]
    pub producer_buffer: usize,

    /// Open connections, 1 to 1000000, of about 20 KiB each; further ones wait in the system's backlog
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = service::number(1..=COUNT_MAX))]
    pub max_connections: usize,

    /// Requests waiting for Kafka at once, 1 to 1000000; further ones get 503
    #[arg(long, value_name = "COUNT", default_value = "8192", value_parser = service::number(1..=COUNT_MAX))]
    pub max_requests_in_flight: usize,

    /// Largest body of one position, 256B to 64MiB; larger ones get 413
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = service::bytes(BODY_MIN..=BODY_MAX))]
    pub max_body: usize,

    /// Largest body of a batch, 256B to 64MiB; larger ones get 413
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = service::bytes(BODY_MIN..=BODY_MAX))]
    pub max_batch_body: usize,

    /// Most positions in a batch, 1 to 100000; larger ones get 413
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = service::number(1..=100_000_usize))]
    pub max_batch_positions: usize,

    /// Largest header of a request, 8KiB to 1MiB; larger ones get 431
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = service::bytes(HEADER_MIN..=HEADER_MAX))]
    pub max_header: usize,

    /// Memory for bodies that arrive in pieces, all clients together, 1MiB to 4GiB; when it is used up they get 503
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = service::bytes(BUFFER_MIN..=BUFFER_MAX))]
    pub max_body_bytes_in_flight: usize,

    /// How long a connection may take to send a request's header, and may idle between requests, 100ms to 10m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = service::duration(CLIENT_TIMEOUT_MIN..=CLIENT_TIMEOUT_MAX))]
    pub header_timeout: Duration,

    /// How long a body may take to arrive before the answer is 408, 100ms to 10m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = service::duration(CLIENT_TIMEOUT_MIN..=CLIENT_TIMEOUT_MAX))]
    pub body_timeout: Duration,

    /// Groups whose time lag stretches the interval at which drivers are told to send, separated by commas; none for none
    #[arg(long, value_name = "GROUP,…", default_value = "driver-location-redis", value_parser = parse_groups)]
    pub admission_groups: Groups,

    /// Drivers that are remembered to refine whose turn it is, 8 bytes each, 1024 to 16777216; the memory never grows
    #[arg(long, value_name = "COUNT", default_value = "131072", value_parser = service::number(1_024..=DRIVERS_MAX))]
    pub admission_drivers: usize,

    /// Positions a second that one driver may send, with a burst of as many as a batch may have, 0 to 100000; 0 for no
    /// limit; further ones get 429
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = service::number(0..=100_000_u32))]
    pub max_driver_rate: u32,

    /// PEM file of the certificate chain to serve HTTPS with; read again when it changes; with --tls-key
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,

    /// PEM file of the certificate's private key, unencrypted
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// PEM file of the CA certificates whose clients are let in (mTLS); others end at the handshake
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// File of tokens that clients must show: on each line the SHA-256 of one in hex, and the prefix of the driver ids
    /// it is good for, if not all; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub auth_tokens: Option<PathBuf>,

    /// Origins whose pages may post from a browser (CORS), separated by commas, or * for all
    #[arg(long, value_name = "ORIGIN,…", value_delimiter = ',', value_parser = parse_origin)]
    pub cors_origins: Vec<HeaderValue>,

    /// The flags that every service has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Names of groups, none of them twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups(pub(crate) Vec<String>);

fn parse_groups(text: &str) -> Result<Groups, String> {
    if text == "none" {
        return Ok(Groups(Vec::new()));
    }
    let mut groups: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
    groups.sort();
    groups.dedup();
    let is_right = |name: &String| !name.is_empty() && name.len() <= GROUP_NAME_MAX && !name.contains(char::is_control);
    if groups.iter().all(is_right) {
        return Ok(Groups(groups));
    }
    Err(format!("give names of groups of 1 to {GROUP_NAME_MAX} characters, separated by commas, or none"))
}

fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = text
        .split_once("://")
        .is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty() && !host.contains('/'));
    let value = (text == "*" || is_origin).then(|| HeaderValue::from_str(text).ok()).flatten();
    value.ok_or_else(|| "give origins such as https://app.example, separated by commas, or *".to_owned())
}

/// A certificate is of no use without its key, nor the other way round, nor clients' CAs without both.
fn check_tls(args: &Args) -> Result<(), Usage> {
    match (&args.tls_certificate, &args.tls_key, &args.tls_client_ca) {
        (Some(certificate), None, _) => Err(Usage::new(
            "--tls-certificate",
            certificate.display(),
            "is of no use without its key; give --tls-key as well",
        )),
        (None, Some(key), _) => Err(Usage::new(
            "--tls-key",
            key.display(),
            "is of no use without its certificate; give --tls-certificate as well",
        )),
        (None, None, Some(ca)) => Err(Usage::new(
            "--tls-client-ca",
            ca.display(),
            "is of no use without TLS; give --tls-certificate and --tls-key as well",
        )),
        _ => Ok(()),
    }
}

impl Config for Args {
    fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn check(&self) -> Result<(), Usage> {
        check_tls(self)?;
        if self.dead_letter_topic.as_ref() == Some(&self.common.topic) {
            let remedy = "is the topic of the events itself (--topic); give another one";
            return Err(Usage::new("--dead-letter-topic", &self.common.topic, remedy));
        }
        if self.linger > self.linger_max {
            let (linger, max) = (service::format_duration(self.linger), service::format_duration(self.linger_max));
            return Err(Usage::new("--linger", linger, format!("give at most --linger-max {max}")));
        }
        if self.ack_timeout >= self.common.shutdown_timeout {
            let (ack, drain) = (self.ack_timeout, self.common.shutdown_timeout);
            let remedy = format!(
                "a drain waits for acknowledgements; give less than --shutdown-timeout {}",
                service::format_duration(drain)
            );
            return Err(Usage::new("--ack-timeout", service::format_duration(ack), remedy));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use service::{Stop, parse};

    use super::*;
    use crate::INFO;

    fn usage(args: &[&str]) -> String {
        match parse::<Args>(&INFO, [&["location-ingest"], args].concat()) {
            Err(Stop::Usage(usage)) => usage.to_string(),
            other => panic!("no usage error: {other:?}"),
        }
    }

    #[test]
    fn defaults_are_right_by_themselves() {
        let args = parse::<Args>(&INFO, ["location-ingest"]).unwrap();
        assert_eq!((args.listen.port(), args.common.metrics_listen.port()), (8080, 9101));
        assert_eq!((args.topic_partitions, args.max_batch_positions), (48, 1_000));
    }

    #[test]
    fn groups_are_a_list_or_none() {
        let groups = |text| parse_groups(text).unwrap().0;
        assert_eq!(groups("driver-location-redis"), ["driver-location-redis"]);
        assert_eq!(groups("b, a,b"), ["a", "b"]);
        assert!(groups("none").is_empty());
    }

    #[test]
    fn flags_are_checked_together() {
        let line = usage(&["--ack-timeout", "30s"]);
        assert_eq!(
            line,
            "--ack-timeout 30s: a drain waits for acknowledgements; give less than --shutdown-timeout 25s"
        );
        let line = usage(&["--tls-key", "key.pem"]);
        assert_eq!(line, "--tls-key key.pem: is of no use without its certificate; give --tls-certificate as well");
        let line = usage(&["--tls-client-ca", "ca.pem"]);
        assert!(line.starts_with("--tls-client-ca ca.pem: is of no use without TLS"), "{line}");
        let line = usage(&["--linger", "20ms"]);
        assert_eq!(line, "--linger 20ms: give at most --linger-max 10ms");
        let line = usage(&["--topic", "t", "--dead-letter-topic", "t"]);
        assert!(line.starts_with("--dead-letter-topic t: is the topic of the events itself"), "{line}");
    }

    #[test]
    fn each_bad_value_names_its_range() {
        for (flag, value) in [
            ("--listen", "8080"),
            ("--topic-create", "yes"),
            ("--topic-partitions", "0"),
            ("--ack-timeout", "5"),
            ("--linger", "2s"),
            ("--linger-max", "fast"),
            ("--producer-buffer", "1KiB"),
            ("--max-connections", "0"),
            ("--max-requests-in-flight", "-1"),
            ("--max-body", "1"),
            ("--max-batch-body", "1GiB"),
            ("--max-batch-positions", "0"),
            ("--max-header", "1KiB"),
            ("--max-body-bytes-in-flight", "lots"),
            ("--header-timeout", "0s"),
            ("--body-timeout", "1h"),
            ("--cors-origins", "app.example"),
            ("--admission-groups", "a,,b"),
            ("--admission-drivers", "7"),
            ("--max-driver-rate", "fast"),
        ] {
            let line = usage(&[&format!("{flag}={value}")]);
            assert!(line.starts_with(&format!("{flag} {value}: ")) && line.lines().count() == 1, "{line}");
        }
    }
}
