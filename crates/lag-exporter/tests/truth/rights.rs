//! A user that may not see everything: what it may not see is reported, the rest goes on.

use native::{KafkaOptions, Listener, Protocol, Stack, StackOptions};

use crate::scene::{Exporter, Timeline, commit, create};

const USER: (&str, &str) = ("watcher", "watcher-secret");
const NOT_AUTHORIZED: &str = "not_authorized";

fn start() -> Stack {
    let options = KafkaOptions::single()
        .set("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        // Who comes without a name is the broker itself, or the test.
        .set("super.users", "User:ANONYMOUS")
        .user(USER.0, USER.1)
        .listener(Listener::new("SASL", Protocol::SaslPlaintext));
    let dir = native::stack_dir("lag-exporter-rights");
    Stack::start(StackOptions { dir, kafka: Some(options), redis: false, postgres: false }).unwrap()
}

fn allow(stack: &Stack, resource: [&str; 2]) {
    let bootstrap = stack.kafka.bootstrap();
    let args =
        ["--bootstrap-server", &bootstrap, "--add", "--allow-principal", "User:watcher", "--operation", "Describe"];
    stack.kafka.tool("org.apache.kafka.tools.AclCommand", &[&args[..], &resource].concat(), "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_may_not_describe_is_reported_and_the_rest_goes_on() {
    let stack = tokio::task::spawn_blocking(start).await.unwrap();
    let brokers = stack.kafka.bootstrap();
    for topic in ["open", "closed"] {
        create(&brokers, topic, 1).await;
        Timeline::of(&brokers, topic, 0).await.put(10).await;
        commit(&brokers, "seen", topic, 0, 4, String::new()).await;
    }
    commit(&brokers, "hidden", "open", 0, 4, String::new()).await;
    tokio::task::block_in_place(|| {
        allow(&stack, ["--group", "seen"]);
        allow(&stack, ["--topic", "open"]);
    });

    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), USER.1).unwrap();
    let security = [
        "--kafka-security",
        "sasl-plaintext",
        "--kafka-sasl-mechanism",
        "scram-sha-256",
        "--kafka-sasl-username",
        USER.0,
        "--kafka-sasl-password-file",
        password.path().to_str().unwrap(),
    ];
    let flags = [&security[..], &["--topics", "open,closed"]].concat();
    let exporter = Exporter::start(&stack.kafka.listener("SASL"), "seen,hidden", &flags).await;
    let scrape = exporter.until("what it may see", |scrape| scrape.lag("open", 0, "seen") == Some(6.0)).await;
    let hidden = format!(r#"kafka_consumer_group_unknown{{group="hidden",reason="{NOT_AUTHORIZED}"}}"#);
    assert_eq!(scrape.value(&hidden), Some(1.0), "{}", scrape.text);
    let closed = format!(r#"kafka_lag_exporter_unread_topic{{topic="closed",reason="{NOT_AUTHORIZED}"}}"#);
    assert_eq!(scrape.value(&closed), Some(1.0), "{}", scrape.text);
    assert!(scrape.lag("open", 0, "hidden").is_none() && scrape.lag("closed", 0, "seen").is_none());
    assert_eq!(scrape.value("kafka_lag_exporter_up"), Some(1.0));
    assert!(exporter.context.health.is_ready());
    // Without the right to read it, the age of what waits from before is not known, and not guessed.
    let reason = r#"kafka_consumer_group_unknown{group="seen",reason="no_history"}"#;
    exporter.until("why the seconds are not there", |scrape| scrape.value(reason) == Some(1.0)).await;
    assert_eq!(exporter.scrape().seconds("open", 0, "seen"), None);
}
