//! Who may not do a thing is told at once which right is missing.

use std::time::Duration;

use kafka::{
    Client, Consumer, ConsumerConfig, Error, ErrorKind, GroupEvent, ProduceError, Producer, ProducerConfig,
    SaslMechanism, TopicSpec,
};
use kafka_protocol::error::ResponseError;

use crate::broker::{NOBODY, READER, broker};
use crate::work::{create, record};

const DEADLINE: Duration = Duration::from_secs(30);

fn client_of(user: (&str, &str)) -> Client {
    broker().client("SASL", broker().secured("SASL", SaslMechanism::ScramSha256, user))
}

#[track_caller]
fn assert_forbidden(error: &Error, code: ResponseError, parts: &[&str]) {
    assert_eq!((error.kind(), error.code()), (ErrorKind::Fatal, Some(code)), "{error}");
    for part in parts.iter().chain(&["grant this user the right"]) {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
}

#[tokio::test]
async fn a_topic_without_rights_is_named() {
    create(&broker().admin(), "forbidden").await;
    let error = client_of(NOBODY).topic("forbidden").await.unwrap_err();
    assert_forbidden(&error, ResponseError::TopicAuthorizationFailed, &["topic forbidden (--topic)"]);
    let spec = TopicSpec { name: "more".to_owned(), partitions: 1, replication: None, settings: Vec::new() };
    let error = client_of(NOBODY).create_topic(&spec).await.unwrap_err();
    assert_forbidden(&error, ResponseError::TopicAuthorizationFailed, &["more"]);
}

#[tokio::test]
async fn a_group_without_rights_ends_the_member_by_name() {
    let mut member =
        Consumer::join(client_of(NOBODY), ConsumerConfig::new("secret-group", vec!["forbidden-too".into()]));
    let failed = async {
        loop {
            match member.events.recv().await.unwrap() {
                GroupEvent::Failed(error) => return error,
                event => assert!(!matches!(event, GroupEvent::Assigned { .. }), "{event:?}"),
            }
        }
    };
    let error = tokio::time::timeout(DEADLINE, failed).await.unwrap();
    assert_forbidden(&error, ResponseError::GroupAuthorizationFailed, &["group secret-group"]);
    let error = client_of(NOBODY).committed_offsets("secret-group", None).await.unwrap_err();
    assert_forbidden(&error, ResponseError::GroupAuthorizationFailed, &["group secret-group"]);
}

#[tokio::test]
async fn a_producer_that_may_only_look_is_refused_for_good() {
    create(&broker().admin(), "read-only").await;
    let bootstrap = broker().stack.kafka.bootstrap();
    let rights = ["--add", "--allow-principal", "User:reader", "--operation", "Describe", "--topic", "read-only"];
    let args = [&["--bootstrap-server", &bootstrap][..], &rights].concat();
    tokio::task::spawn_blocking({
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            broker().stack.kafka.tool("org.apache.kafka.tools.AclCommand", &args, "").unwrap();
        }
    })
    .await
    .unwrap();
    let producer = Producer::new(client_of(READER), ProducerConfig::standard());
    producer.warm("read-only").await.unwrap();
    let delivery = producer.send(record("read-only", 1)).await.unwrap();
    let outcome = tokio::time::timeout(DEADLINE, delivery).await.unwrap();
    let Err(ProduceError::Refused { code, .. }) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(*code, ResponseError::ClusterAuthorizationFailed);
    producer.close(DEADLINE).await;
}
