//! A whole service, by its flags, against a broker with TLS and SCRAM: it works, and a mistake is one line and an exit code.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use lag_exporter::{Flags, INFO};
use native::{Authority, KafkaOptions, Listener, Protocol, Stack, StackOptions};
use tempfile::TempDir;
use tokio::time::Instant;

/// Far more than any step takes: a bound for a condition, not a measure.
const DEADLINE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "exporter-secret";
const EX_USAGE: i32 = 64;
const EX_UNAVAILABLE: i32 = 69;

struct Scene {
    stack: Stack,
    authority: Authority,
}

/// The broker of all tests of this binary; its guard stops it when the test process ends.
fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let authority = Authority::new("the brokers' authority");
        let issued = authority.issue(&["localhost"]);
        let listener = Listener::new("SASL_TLS", Protocol::SaslSsl).certificate(&issued.certificate, &issued.key);
        let options = KafkaOptions::single().listener(listener).user("exporter", PASSWORD);
        let dir = native::stack_dir("lag-exporter-secured");
        let stack = StackOptions { dir, kafka: Some(options), redis: false, postgres: false };
        Scene { stack: Stack::start(stack).unwrap(), authority }
    })
}

/// The files that the flags name, and the flags.
struct Files {
    dir: TempDir,
    args: Vec<String>,
}

impl Files {
    fn new(password: &str, ca: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Self { dir, args: Vec::new() };
        let (ca, password) = (files.write("ca.pem", ca), files.write("password", &format!("{password}\n")));
        let brokers = scene().stack.kafka.listener("SASL_TLS");
        let args = [
            ["--brokers", &brokers],
            ["--kafka-security", "sasl-tls"],
            ["--kafka-tls-ca", ca.to_str().unwrap()],
            ["--kafka-sasl-mechanism", "scram-sha-512"],
            ["--kafka-sasl-username", "exporter"],
            ["--kafka-sasl-password-file", password.to_str().unwrap()],
            ["--metrics-listen", "127.0.0.1:0"],
            ["--interval", "250ms"],
        ];
        Self { args: args.concat().into_iter().map(str::to_owned).collect(), ..files }
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// Runs the binary until it ends by itself.
async fn run_binary(args: Vec<String>, environment: &[(&str, &str)]) -> Output {
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let run = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lag-exporter"));
        command.args(args).envs(environment).stdin(Stdio::null()).output().unwrap()
    });
    tokio::time::timeout(DEADLINE, run).await.expect("it ends by itself").unwrap()
}

#[track_caller]
fn assert_one_line(output: &Output, code: i32, parts: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    let lines: Vec<_> = told.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(lines.len(), 1, "{told}");
    assert!(parts.iter().chain(&["error: "]).all(|part| lines[0].contains(part)), "{parts:?} are not all in: {told}");
}

#[tokio::test]
async fn by_tls_and_scram_it_exports_lag() {
    let files = Files::new(PASSWORD, scene().authority.pem());
    let args = [&["lag-exporter".to_owned()], &files.args[..]].concat();
    let flags: Flags = service::parse(&INFO, args).unwrap();
    let context = service::test_context().await;
    let running = tokio::spawn(lag_exporter::run(flags, context.clone()));
    let deadline = Instant::now() + DEADLINE;
    while !context.health.is_ready() {
        assert!(Instant::now() < deadline && !running.is_finished(), "{}", context.admin.render());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(context.admin.render().contains("kafka_lag_exporter_up 1"));
    context.shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wrong_password_ends_it_with_one_line_that_does_not_show_it() {
    let files = Files::new("a wrong guess", scene().authority.pem());
    let output = run_binary(files.args.clone(), &[]).await;
    let parts = ["does not let us in: user exporter by SCRAM-SHA-512", "check --kafka-sasl-username and the password"];
    assert_one_line(&output, EX_UNAVAILABLE, &parts);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("guess"));
}

#[tokio::test]
async fn a_wrong_ca_ends_it_with_one_line() {
    let files = Files::new(PASSWORD, Authority::new("another authority").pem());
    let output = run_binary(files.args.clone(), &[]).await;
    assert_one_line(&output, EX_UNAVAILABLE, &["its certificate is of no CA that we trust; check --kafka-tls-ca"]);
}

/// Two variables stand for the system's certificates, as in OpenSSL's programs.
#[tokio::test]
async fn without_a_ca_file_the_systems_authorities_are_trusted() {
    let files = Files::new("a wrong guess", scene().authority.pem());
    let ca = files.args.iter().position(|arg| arg == "--kafka-tls-ca").unwrap();
    let mut args = files.args.clone();
    let ours = args.remove(ca + 1);
    args.remove(ca);
    let theirs = files.write("theirs.pem", Authority::new("another authority").pem());
    let none = files.write("none.pem", "");
    let empty = tempfile::tempdir().unwrap();
    let system = |file| [("SSL_CERT_DIR", empty.path().to_str().unwrap()), ("SSL_CERT_FILE", file)];
    let output = run_binary(args.clone(), &system(&ours)).await;
    assert_one_line(&output, EX_UNAVAILABLE, &["check --kafka-sasl-username and the password"]);
    let output = run_binary(args.clone(), &system(theirs.to_str().unwrap())).await;
    assert_one_line(&output, EX_UNAVAILABLE, &["check --kafka-tls-ca"]);
    let output = run_binary(args, &system(none.to_str().unwrap())).await;
    assert_one_line(
        &output,
        EX_USAGE,
        &["--kafka-security sasl-tls: this system has no CA certificates", "--kafka-tls-ca"],
    );
}

#[tokio::test]
async fn flags_that_contradict_each_other_are_a_usage_error_before_anything_is_started() {
    let contradictions = [
        (&["--kafka-tls-key", "key.pem"][..], "--kafka-tls-key key.pem: has no use with --kafka-security plaintext"),
        (&["--kafka-security", "sasl-plaintext"], "--kafka-sasl-mechanism: is required with"),
        (
            &["--kafka-security", "tls", "--kafka-tls-ca", "/nowhere"],
            "--kafka-tls-ca /nowhere: cannot be read (No such file",
        ),
        (&["--kafka-security", "ssl"], "--kafka-security ssl: allowed: plaintext, tls, sasl-plaintext, sasl-tls"),
    ];
    for (args, line) in contradictions {
        let output = run_binary(args.iter().map(ToString::to_string).collect(), &[]).await;
        assert_one_line(&output, EX_USAGE, &[line]);
    }
    let output = run_binary(Vec::new(), &[("KAFKA_SASL_PASSWORD", "env-secret")]).await;
    assert_one_line(&output, EX_USAGE, &["KAFKA_SASL_PASSWORD: has no use with --kafka-security plaintext"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("env-secret"));
}
