//! A master behind real sentinels: it dies, it is demoted, and sentinels are silent or want a password of their own.

use pipeline::{Sink, WriteError};
use redis_writer::{RedisSink, SinkConfig};

use crate::load::{Load, time_of};
use crate::resp::{self, Answer};
use crate::servers::{Guarded, role};
use crate::world::*;

fn config_of(url: String) -> SinkConfig {
    SinkConfig { url, ..config(0) }
}

fn drivers() -> Vec<String> {
    (0..200).map(|index| format!("d{index}")).collect()
}

/// Ends the load; all of its newest positions must be at `port`.
async fn assert_newest(load: Load, port: u16) {
    for (driver, time) in load.end().await {
        let held = value(port, &driver).map(|value| time_of(&value));
        assert_eq!((held, expires_at(port, &driver)), (Some(time), time + 30_000), "{driver}");
    }
}

fn scripts(port: u16) -> u64 {
    calls(port, "evalsha") + calls(port, "eval")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_dies_under_load_is_succeeded_and_not_written_to_when_it_is_back() {
    let mut guarded = Guarded::start("sentinel-failover", &[], "").await;
    let sink = sink(config_of(guarded.url("", ""))).await;
    let load = Load::start(&sink, |_| drivers());
    load.goes_on().await;
    let [first, second] = [0, 1].map(|index| guarded.redis[index].port());
    guarded.redis[0].kill();
    load.until_refused().await;
    guarded.until_master(0, 1).await;
    load.goes_on().await;
    guarded.redis = guarded.redis.map(|redis| if redis.port() == first { redis.stop().start() } else { redis });
    until("the dead one is back as a replica", async || role(first) == "slave").await;
    load.goes_on().await;
    assert_newest(load, second).await;
    assert_eq!(scripts(first), 0, "nothing is written to the one that is back");
}

/// Usually it is demoted some ten seconds after its successor was promoted, and takes writes until then; this one for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_was_replaced_is_left_although_it_takes_writes_and_most_sentinels_are_frozen() {
    let guarded = Guarded::start("sentinel-replaced", &[], "").await;
    let sink = sink(config_of(guarded.url("", ""))).await;
    let load = Load::start(&sink, |_| drivers());
    load.goes_on().await;
    let [first, second] = [0, 1].map(|index| guarded.redis[index].port());
    resp::ok(first, &["ACL", "SETUSER", "default", "-slaveof", "-replicaof"]);
    guarded.sentinels[1..].iter().for_each(|sentinel| sentinel.process.freeze());
    assert_eq!(guarded.sentinels[0].command(&["SENTINEL", "FAILOVER", "main"]), Answer::Status("OK".to_owned()));
    guarded.until_master(0, 1).await;
    until("the old one is left alone", async || {
        let before = scripts(first);
        load.goes_on().await;
        scripts(first) == before
    })
    .await;
    assert_eq!(role(first), "master");
    assert_newest(load, second).await;
    guarded.sentinels[1..].iter().for_each(|sentinel| sentinel.process.thaw());
}

/// An operator demotes it by hand, and later promotes it: its sentinels never heard of another master.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_read_only_is_a_sink_fault_until_there_is_another() {
    let guarded = Guarded::start("sentinel-readonly", &[], "").await;
    let sink = sink(config_of(guarded.url("", ""))).await;
    let first = guarded.redis[0].port();
    for sentinel in &guarded.sentinels {
        sentinel.process.freeze();
    }
    resp::ok(first, &["REPLICAOF", "127.0.0.1", "1"]);
    let said = write(&sink, [position("a", now_ms(), 1)]).await.unwrap_err();
    assert!(matches!(&said, WriteError::SinkFault(said) if said.contains("READONLY")), "{said:?}");
    resp::ok(first, &["REPLICAOF", "NO", "ONE"]);
    ready(&sink).await;
    write(&sink, [position("a", now_ms(), 2)]).await.unwrap();
    assert_eq!(mark(first, "a"), Some(2));
    guarded.sentinels.iter().for_each(|sentinel| sentinel.process.thaw());
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_servers_have_passwords_of_their_own() {
    let settings = &[("requirepass", "secret"), ("masterauth", "secret")];
    let open = Guarded::start("sentinel-password", settings, "sentinel auth-pass main secret").await;
    let works = async |url: String| {
        let sink = sink(config_of(url)).await;
        write(&sink, [position("a", now_ms(), 1)]).await.unwrap();
    };
    works(open.url(":secret@", "")).await;
    let denied = async |url: String| {
        let sink = RedisSink::start(config_of(url)).unwrap();
        until("it is denied", async || matches!(sink.probe().await, Err(WriteError::Denied(_)))).await;
    };
    denied(open.url(":wrong@", "")).await;
    drop(open);
    let closed = "sentinel auth-pass main secret\nrequirepass sentinel-secret\nsentinel sentinel-pass sentinel-secret";
    let closed = Guarded::start("sentinel-passwords", settings, closed).await;
    works(closed.url(":secret@", "&sentinelPassword=sentinel-secret")).await;
    denied(closed.url(":secret@", "")).await;
    denied(closed.url(":secret@", "&sentinelPassword=wrong")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_sentinels_do_not_know_is_said_clearly() {
    let guarded = Guarded::start("sentinel-name", &[], "").await;
    let url = guarded.url("", "").replace("=main", "=other");
    let sink = RedisSink::start(config_of(url)).unwrap();
    until("the name is said", async || {
        let said = sink.probe().await;
        matches!(said, Err(WriteError::SinkFault(said)) if said.contains("No such master with that name"))
    })
    .await;
}
