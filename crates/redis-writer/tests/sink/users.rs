//! Users and passwords beside the URL, and those of Sentinels.

use native::{Launch, Port, Process, Wish};
use redis_writer::{RedisSink, Security, SinkConfig};

use crate::resp::ok;
use crate::world::*;

/// User and password as the flags beside the URL give them.
fn user(name: &str, password: &str) -> Security {
    Security { tls: None, username: Some(name.to_owned()), password: Some(kafka::Secret::new(password)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_and_a_password_beside_the_url_are_ours() {
    let redis = redis("user");
    let port = redis.redis.port();
    ok(port, &["ACL", "SETUSER", "writer", "on", ">se#c@ret", "~driver:loc:*", "+eval", "+evalsha", "+set"]);
    // Without a user of its own it could write nothing.
    ok(port, &["ACL", "SETUSER", "default", "-eval", "-evalsha"]);
    let sink = sink(SinkConfig { security: user("writer", "se#c@ret"), ..config(port) }).await;
    write(&sink, [position("a", now_ms(), 5)]).await.unwrap();
    assert_eq!(mark(port, "a"), Some(5));
}

/// A Sentinel that watches a server as `main`.
pub(crate) struct Sentinel {
    pub(crate) port: Port,
    _process: Process,
}

impl Sentinel {
    /// Watches the server at `port` of this machine; `settings` says how it listens at the port that it is given.
    pub(crate) fn start(name: &str, port: u16, settings: impl Fn(u16) -> String) -> Self {
        let dir = native::stack_dir(&format!("redis-writer-{name}-sentinel"));
        std::fs::create_dir_all(&dir).unwrap();
        let own = Port::lease(Wish::Any).unwrap();
        let settings = format!(
            "bind 127.0.0.1\ndir \"{}\"\n{}\nsentinel monitor main 127.0.0.1 {port} 1\n",
            dir.display(),
            settings(own.number())
        );
        let file = dir.join("sentinel.conf");
        std::fs::write(&file, settings).unwrap();
        let launch = Launch::new("sentinel", "redis-server", dir.join("sentinel.log")).arg(file).arg("--sentinel");
        Self { port: own, _process: Process::spawn(&launch).unwrap() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_is_asked_with_its_own_password_and_the_server_with_ours() {
    let redis = redis("sentinel-auth");
    let port = redis.redis.port();
    ok(port, &["ACL", "SETUSER", "writer", "on", ">secret", "~driver:loc:*", "+eval", "+evalsha", "+set"]);
    let sentinel = Sentinel::start("auth", port, |own| format!("port {own}\nrequirepass sentinel-secret"));
    let url = |password: &str| {
        let place = format!("127.0.0.1:{}", sentinel.port.number());
        format!("redis-sentinel://{place}?sentinelServiceName=main&sentinelPassword={password}")
    };
    let with = |password| SinkConfig { url: url(password), security: user("writer", "secret"), ..config(port) };
    let right = sink(with("sentinel-secret")).await;
    write(&right, [position("a", now_ms(), 6)]).await.unwrap();
    assert_eq!(mark(port, "a"), Some(6));
    let wrong = RedisSink::start(with("another")).unwrap();
    let said = write(&wrong, [position("a", now_ms(), 7)]).await.unwrap_err().to_string();
    assert!(!said.contains("another"), "{said}");
    assert_eq!(mark(port, "a"), Some(6));
}
