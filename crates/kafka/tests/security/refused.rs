//! Each mistake is one clear error, at once and for good, that names what to check.

use std::time::Duration;

use kafka::{Authorities, Client, Error, ErrorKind, SaslMechanism, Security, Tls};
use native::Authority;
use tokio::time::Instant;

use crate::broker::{ADMIN, MECHANISMS, broker, sasl};

/// Far more than an answer takes: a bound for a condition, not a measure.
const DEADLINE: Duration = Duration::from_secs(60);

/// The error that a client gets at `listener`: of the lasting kind, in one line, and the same each time.
async fn refusal(listener: &str, security: Security) -> Error {
    let client = broker().client(listener, security);
    let error = lasting_error(&client).await;
    assert!(!error.to_string().contains('\n'), "{error}");
    assert_eq!(lasting_error(&client).await.to_string(), error.to_string());
    error
}

/// On a machine that is too busy to connect in time, a client tries again, as a service does.
async fn lasting_error(client: &Client) -> Error {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let error = client.broker_count().await.unwrap_err();
        if error.kind() == ErrorKind::Fatal {
            return error;
        }
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[track_caller]
fn assert_names(error: &Error, parts: &[&str]) {
    for part in parts {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
}

fn only(tls: Tls) -> Security {
    Security { tls: Some(tls), sasl: None }
}

#[tokio::test]
async fn a_wrong_password_or_user_is_told_with_the_flags_and_without_the_password() {
    for mechanism in MECHANISMS {
        for user in [("admin", "a wrong guess"), ("stranger", "a wrong guess")] {
            for listener in ["SASL", "SASL_TLS"] {
                let error = refusal(listener, broker().secured(listener, mechanism, user)).await;
                assert!(matches!(error, Error::Authentication { .. }), "{error:?}");
                let flags = ["--kafka-sasl-username and the password", "user ", user.0, mechanism.name()];
                assert_names(&error, &flags);
                assert!(!error.to_string().contains("guess") && !format!("{error:?}").contains("guess"));
            }
        }
    }
}

#[tokio::test]
async fn a_mechanism_that_the_broker_does_not_take_is_told_with_those_that_it_takes() {
    let error = refusal("SHORT", broker().secured("SHORT", SaslMechanism::ScramSha256, ADMIN)).await;
    assert_names(&error, &["SCRAM-SHA-256: it takes SCRAM-SHA-512; check --kafka-sasl-mechanism"]);
}

#[tokio::test]
async fn a_broker_of_another_authority_is_not_trusted() {
    let other = Authority::new("another authority");
    let tls = Tls::new(Authorities::from_pem(other.pem().as_bytes()).unwrap(), None).unwrap();
    for listener in ["TLS", "SASL_TLS"] {
        let error = refusal(listener, only(tls.clone())).await;
        assert_names(&error, &["its certificate is of no CA that we trust; check --kafka-tls-ca", "localhost:"]);
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_by_name() {
    let error = refusal("ELSEWHERE", only(broker().tls())).await;
    assert_names(
        &error,
        &["kafka.example", "not for localhost", "check --brokers and the broker's advertised.listeners"],
    );
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_told() {
    let error = refusal("EXPIRED", only(broker().tls())).await;
    assert_names(&error, &["its certificate has expired; check the broker's certificate and this machine's clock"]);
}

#[tokio::test]
async fn a_broker_that_wants_a_certificate_says_so_and_takes_none_of_strangers() {
    let error = refusal("MTLS", only(broker().tls())).await;
    assert_names(&error, &["it wants a certificate", "--kafka-tls-certificate and --kafka-tls-key"]);
    let stranger = broker().mutual_tls(&Authority::new("another authority"));
    let error = refusal("MTLS", only(stranger)).await;
    assert_names(&error, &["it does not take our certificate", "--kafka-tls-certificate and --kafka-tls-key"]);
}

#[tokio::test]
async fn a_port_of_another_protocol_is_told_by_what_it_wants() {
    let plain = Security::default;
    let tls = || only(broker().tls());
    let with_sasl = |tls: Option<Tls>| Security { tls, sasl: Some(sasl(SaslMechanism::Plain, ADMIN)) };
    let cases = [
        ("TLS", plain(), "TLS"),
        ("MTLS", plain(), "TLS"),
        ("SASL_TLS", plain(), "TLS"),
        ("SASL_TLS", with_sasl(None), "TLS"),
        ("PLAINTEXT", tls(), "no TLS"),
        ("SASL", tls(), "no TLS"),
        ("PLAINTEXT", with_sasl(Some(broker().tls())), "no TLS"),
        ("SASL", plain(), "SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512)"),
        ("SASL_TLS", tls(), "SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512)"),
        ("PLAINTEXT", with_sasl(None), "no SASL"),
        ("TLS", with_sasl(Some(broker().tls())), "no SASL"),
    ];
    for (listener, security, wants) in cases {
        let ours = format!("{security:?}");
        let error = refusal(listener, security).await;
        let Error::WrongListener { expects, .. } = &error else { panic!("{listener} by {ours}: {error}") };
        assert_eq!(sorted(expects), sorted(wants), "{listener} by {ours}: {error}");
        assert_names(&error, &["check --kafka-security and the port in --brokers"]);
    }
}

/// The broker lists its mechanisms in any order.
fn sorted(expects: &str) -> Vec<&str> {
    let mut words: Vec<_> = expects.split([' ', ',', '(', ')']).filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words
}

#[tokio::test]
async fn what_waiting_does_not_help_with_is_told_although_other_brokers_are_away() {
    let mut config = broker().config("SASL", broker().secured("SASL", SaslMechanism::Plain, ("admin", "wrong")));
    config.brokers.push("127.0.0.1:1".to_owned());
    let client = Client::new(config);
    for _either_first in 0..2 {
        let error = lasting_error(&client).await;
        assert!(matches!(error, Error::Authentication { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_broker_that_is_away_is_waited_for_whatever_the_security() {
    let tls = only(broker().tls());
    for security in [tls, broker().secured("SASL_TLS", SaslMechanism::Plain, ADMIN), Security::default()] {
        let config = kafka::ClientConfig::new(vec!["127.0.0.1:1".to_owned()], "security-test").secured(security);
        let error = Client::new(config).broker_count().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        assert_names(&error, &["127.0.0.1:1", "--brokers"]);
    }
}
