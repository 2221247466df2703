//! TLS and users on real servers: who is trusted, who is not, and what the one line says.

use std::fs;

use native::{Authority, Issued, Launch, Port, Process, Validity, Wish};
use pipeline::{Sink, WriteError};
use redis_writer::{RedisSink, Security, SinkConfig};
use tls::{Authorities, CertificateChain, PrivateKey, Tls};

use crate::resp;
use crate::users::Sentinel;
use crate::world::*;

/// A server with a plain port, through which a test looks, and one for TLS.
struct Secured {
    redis: SpecialRedis,
    tls_port: Port,
    authority: Authority,
}

impl Secured {
    /// Its certificate is for `names`; `clients` is Redis's `tls-auth-clients`.
    fn start(name: &str, names: &[&str], clients: &str) -> Self {
        Self::of(SpecialRedis::new(name), names, clients)
    }

    fn of(redis: SpecialRedis, names: &[&str], clients: &str) -> Self {
        Self::with(redis, clients, |authority| authority.issue(names))
    }

    fn with(redis: SpecialRedis, clients: &str, issue: impl Fn(&Authority) -> Issued) -> Self {
        let authority = Authority::new("an authority");
        let Issued { certificate, key } = issue(&authority);
        let tls_port = Port::lease(Wish::Any).unwrap();
        let file = |name: &str, content: &str| {
            let path = redis.dir.join(name);
            fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let files = [file("ca.pem", authority.pem()), file("server.pem", &certificate), file("server.key", &key)];
        let redis = redis
            .with("tls-port", &tls_port.number().to_string())
            .with("tls-ca-cert-file", &files[0])
            .with("tls-cert-file", &files[1])
            .with("tls-key-file", &files[2])
            .with("tls-auth-clients", clients)
            .start();
        Self { redis, tls_port, authority }
    }

    fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}", self.tls_port.number())
    }

    /// Of a client that trusts `authority` and shows `identity`.
    fn config(&self, authority: &Authority, identity: Option<Issued>) -> SinkConfig {
        let identity = identity.map(|Issued { certificate, key }| {
            let chain = CertificateChain::from_pem(certificate.as_bytes()).unwrap();
            (chain, PrivateKey::from_pem(key.as_bytes()).unwrap())
        });
        let tls = Tls::new(Authorities::from_pem(authority.pem().as_bytes()).unwrap(), identity).unwrap();
        let security = Security { tls: Some(tls), username: None, password: None };
        SinkConfig { url: self.url("rediss", "localhost"), security, ..config(self.redis.port()) }
    }
}

/// Probes until the sink ends its attempts for want of trust; what it said.
async fn distrust(config: SinkConfig) -> String {
    let sink = RedisSink::start(config).unwrap();
    let mut said = String::new();
    until("the sink does not trust, or is not trusted", async || {
        let probed = sink.probe().await.unwrap_err();
        said = probed.to_string();
        matches!(probed, WriteError::Untrusted(_))
    })
    .await;
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_our_authority_and_of_this_name_is_written_to() {
    let secured = Secured::start("tls", &["localhost"], "no");
    let sink = sink(secured.config(&secured.authority, None)).await;
    write(&sink, [position("a", now_ms(), 7)]).await.unwrap();
    assert_eq!(mark(secured.redis.port(), "a"), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_authority_is_told() {
    let secured = Secured::start("tls-ca", &["localhost"], "no");
    let said = distrust(secured.config(&Authority::new("another"), None)).await;
    let expected = "its certificate is of no CA that we trust; check --redis-tls-ca";
    assert!(said.ends_with(expected), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_name_is_told() {
    let secured = Secured::start("tls-name", &["cache.example"], "no");
    let said = distrust(secured.config(&secured.authority, None)).await;
    assert!(
        said.contains("its certificate is for DnsName(cache.example), not for DnsName(localhost); check"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_certificate_has_expired_is_told() {
    let expired = |authority: &Authority| authority.issue_valid(Validity::Expired, &["localhost"]);
    let secured = Secured::with(SpecialRedis::new("tls-expired"), "no", expired);
    let said = distrust(secured.config(&secured.authority, None)).await;
    assert!(said.ends_with("its certificate has expired; check it and this machine's clock"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_certificate_gets_ours_or_is_told_of() {
    let secured = Secured::start("mtls", &["localhost"], "yes");
    let authority = &secured.authority;
    let certified = sink(secured.config(authority, Some(authority.issue(&["redis-writer"])))).await;
    write(&certified, [position("a", now_ms(), 8)]).await.unwrap();
    assert_eq!(mark(secured.redis.port(), "a"), Some(8));
    let strange = Authority::new("another").issue(&["redis-writer"]);
    for identity in [None, Some(strange)] {
        let said = distrust(secured.config(authority, identity)).await;
        assert!(said.contains("it wants a certificate") && said.contains("--redis-tls-certificate"), "{said}");
    }
}

/// The nodes of a cluster are addressed as the cluster names them: here by IP address, for which the certificate is too.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_written_to_over_tls() {
    let node = SpecialRedis::new("tls-cluster").in_a_cluster().with("cluster-announce-ip", "127.0.0.1");
    let secured = Secured::of(node.with("tls-cluster", "yes"), &["localhost", "127.0.0.1"], "no");
    let port = secured.redis.port();
    resp::ok(port, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let rights = ["~driver:loc:*", "+eval", "+evalsha", "+set", "+cluster|slots", "+asking"];
    resp::ok(port, &[&["ACL", "SETUSER", "writer", "on", ">secret"], &rights[..]].concat());
    let url = secured.url("rediss-cluster", "writer:secret@localhost");
    let sink = sink(SinkConfig { url, ..secured.config(&secured.authority, None) }).await;
    let written = write(&sink, (0..50).map(|index| position(&format!("d{index}"), now_ms(), 3))).await.unwrap();
    assert_eq!((count(&written, "written"), mark(port, "d49")), (50, Some(3)));
}

/// Sentinels are held to the same as servers, each by the name under which it is addressed.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_is_found_and_written_to_over_tls() {
    let secured = Secured::start("tls-sentinel", &["localhost", "127.0.0.1"], "no");
    let file = |name: &str| secured.redis.dir.join(name).display().to_string();
    let files = [("ca-cert", "ca.pem"), ("cert", "server.pem"), ("key", "server.key")];
    let files = files.map(|(setting, name)| format!("tls-{setting}-file \"{}\"\n", file(name))).concat();
    let sentinel = Sentinel::start("tls", secured.tls_port.number(), |own| {
        format!("port 0\ntls-port {own}\ntls-replication yes\ntls-auth-clients no\n{files}")
    });
    let url = format!("rediss-sentinel://localhost:{}?sentinelServiceName=main", sentinel.port.number());
    let with = |authority| SinkConfig { url: url.clone(), ..secured.config(authority, None) };
    let sink = sink(with(&secured.authority)).await;
    write(&sink, [position("a", now_ms(), 9)]).await.unwrap();
    assert_eq!(mark(secured.redis.port(), "a"), Some(9));
    let said = distrust(with(&Authority::new("another"))).await;
    assert!(said.contains("its certificate is of no CA that we trust; check --redis-tls-ca"), "{said}");
}

/// What waiting does not help with ends the start: exit code 69, one line, and Kafka was not even asked.
#[test]
fn a_server_that_is_not_trusted_is_the_end_of_the_process() {
    let secured = Secured::start("tls-process", &["localhost"], "no");
    let stranger = secured.redis.dir.join("stranger.pem");
    fs::write(&stranger, Authority::new("another").pem()).unwrap();
    let (url, ca) = (secured.url("rediss", "localhost"), stranger.display().to_string());
    let (code, output) = ended(&["--redis-url", &url, "--redis-tls-ca", &ca]);
    let last = output.lines().last().unwrap();
    assert_eq!(code, Some(69), "{output}");
    assert!(last.starts_with("error: redis localhost:") && last.ends_with("check --redis-tls-ca"), "{output}");
}

/// Runs redis-writer with `flags` on a broker that is not there until it ends; its exit code and what it said.
fn ended(flags: &[&str]) -> (Option<i32>, String) {
    let log = native::stack_dir("redis-writer-tls-process").join("writer.log");
    let launch = Launch::new("redis-writer", env!("CARGO_BIN_EXE_redis-writer"), &log);
    let launch =
        launch.args(["--brokers", "127.0.0.1:1", "--metrics-listen", "127.0.0.1:0"]).args(flags.iter().copied());
    let status = Process::spawn(&launch).unwrap().wait(PATIENCE).unwrap();
    (status.code(), fs::read_to_string(&log).unwrap())
}

/// Neither side can know it for sure, so it is waited for, and what to look at is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_speaks_the_other_protocol_is_told() {
    let secured = Secured::start("tls-or-not", &["localhost"], "no");
    let plain = SinkConfig { url: secured.url("redis", "localhost"), ..config(secured.redis.port()) };
    let over_tls = secured.config(&secured.authority, None);
    let url = format!("rediss://localhost:{}", secured.redis.port());
    for (config, hint) in [(plain, "rediss://"), (SinkConfig { url, ..over_tls }, "redis://")] {
        let sink = RedisSink::start(config).unwrap();
        let mut said = String::new();
        until("the sink says what to look at", async || {
            said = sink.probe().await.unwrap_err().to_string();
            said.contains("TLS") && said.contains(hint)
        })
        .await;
    }
}
