//! The broker with a listener for every way in, and clients that come by one of them.

use std::sync::OnceLock;

use kafka::{
    Authorities, CertificateChain, Client, ClientConfig, PrivateKey, Sasl, SaslMechanism, Secret, Security, Tls,
};
use native::{Authority, Issued, KafkaOptions, Listener, Protocol, Stack, StackOptions, Validity};

/// A session on the listener `SHORT` ends after this time.
pub(crate) const SHORT_SESSION_MS: u64 = 4_000;
pub(crate) const MECHANISMS: [SaslMechanism; 3] =
    [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512];

/// May do everything.
pub(crate) const ADMIN: (&str, &str) = ("admin", "admin-secret");
/// May do nothing.
pub(crate) const NOBODY: (&str, &str) = ("nobody", "nobody-secret");
/// May look at topics.
pub(crate) const READER: (&str, &str) = ("reader", "reader-secret");

pub(crate) struct Broker {
    pub(crate) stack: Stack,
    authority: Authority,
}

/// The broker of all tests of this binary; its guard stops it when the test process ends.
pub(crate) fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(start)
}

fn start() -> Broker {
    let authority = Authority::new("the brokers' authority");
    let here = authority.issue(&["localhost", "127.0.0.1"]);
    let elsewhere = authority.issue(&["kafka.example"]);
    let expired = authority.issue_valid(Validity::Expired, &["localhost"]);
    let tls = |name: &str, protocol, Issued { certificate, key }: &Issued| {
        Listener::new(name, protocol).certificate(certificate, key)
    };
    let options = KafkaOptions::single()
        .set("num.network.threads", 1)
        .set("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        // Who comes without a name is the broker itself, or a client of a listener that asks for none.
        .set("super.users", "User:ANONYMOUS;User:admin;User:CN=a client")
        .user(ADMIN.0, ADMIN.1)
        .user(NOBODY.0, NOBODY.1)
        .user(READER.0, READER.1)
        .listener(tls("TLS", Protocol::Ssl, &here))
        .listener(tls("MTLS", Protocol::Ssl, &here).require_certificate_of(authority.pem()))
        .listener(tls("EXPIRED", Protocol::Ssl, &expired))
        .listener(tls("ELSEWHERE", Protocol::Ssl, &elsewhere))
        .listener(Listener::new("SASL", Protocol::SaslPlaintext))
        .listener(tls("SASL_TLS", Protocol::SaslSsl, &here))
        .listener(
            Listener::new("SHORT", Protocol::SaslPlaintext)
                .set("sasl.enabled.mechanisms", "SCRAM-SHA-512")
                .set("scram-sha-512.connections.max.reauth.ms", &SHORT_SESSION_MS.to_string()),
        );
    let dir = native::stack_dir("kafka-security");
    let stack = Stack::start(StackOptions { dir, kafka: Some(options), redis: false, postgres: false }).unwrap();
    Broker { stack, authority }
}

impl Broker {
    pub(crate) fn client(&self, listener: &str, security: Security) -> Client {
        Client::new(self.config(listener, security))
    }

    pub(crate) fn config(&self, listener: &str, security: Security) -> ClientConfig {
        let address = match listener {
            "PLAINTEXT" => self.stack.kafka.bootstrap(),
            name => self.stack.kafka.listener(name),
        };
        ClientConfig::new(vec![address], "security-test").secured(security)
    }

    /// Who may do everything, to set the scene.
    pub(crate) fn admin(&self) -> Client {
        self.client("PLAINTEXT", Security::default())
    }

    /// Trusts the broker's authority.
    pub(crate) fn tls(&self) -> Tls {
        Tls::new(Authorities::from_pem(self.authority.pem().as_bytes()).unwrap(), None).unwrap()
    }

    /// The same with a certificate of our own.
    pub(crate) fn mutual_tls(&self, of: &Authority) -> Tls {
        let Issued { certificate, key } = of.issue(&["a client"]);
        let identity = (
            CertificateChain::from_pem(certificate.as_bytes()).unwrap(),
            PrivateKey::from_pem(key.as_bytes()).unwrap(),
        );
        Tls::new(Authorities::from_pem(self.authority.pem().as_bytes()).unwrap(), Some(identity)).unwrap()
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What gets `user` in at a listener with SASL.
    pub(crate) fn secured(&self, listener: &str, mechanism: SaslMechanism, user: (&str, &str)) -> Security {
        let tls = (listener == "SASL_TLS").then(|| self.tls());
        Security { tls, sasl: Some(sasl(mechanism, user)) }
    }
}

pub(crate) fn sasl(mechanism: SaslMechanism, (username, password): (&str, &str)) -> Sasl {
    Sasl { mechanism, username: username.to_owned(), password: Secret::new(password) }
}
