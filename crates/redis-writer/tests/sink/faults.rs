//! Which answer is which fault: a real server is brought into each state, and out of it again.

use std::time::Duration;

use pipeline::{Sink, WriteError};
use redis_writer::{RedisSink, SinkConfig};

use crate::resp::{self, ok};
use crate::servers::clients;
use crate::world::*;

/// What the sink says of a batch that does not get through.
async fn sink_fault(sink: &RedisSink) -> String {
    match write(sink, [position("a", now_ms(), 1)]).await {
        Err(WriteError::SinkFault(text)) => text,
        other => panic!("not a sink fault: {other:?}"),
    }
}

/// Writes until the sink names `part` as the reason for not having written; what it said then.
async fn until_said(sink: &RedisSink, part: &str) -> WriteError {
    let mut last = None;
    let asking = async {
        loop {
            match write(sink, [position("a", now_ms(), 1)]).await {
                Err(said) if said.to_string().contains(part) => return said,
                other => last = Some(other),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(said) => said,
        Err(_) => panic!("no {part} within {PATIENCE:?}, last {last:?}"),
    }
}

/// Writes until the sink names `part` as a fault of its own.
async fn until_sink_fault(sink: &RedisSink, part: &str) {
    let said = until_said(sink, part).await;
    assert!(matches!(said, WriteError::SinkFault(_)), "{said:?}");
}

/// Writes until the sink names `part` as the reason for not being let in.
async fn until_denied(sink: &RedisSink, part: &str) {
    let said = until_said(sink, part).await;
    assert!(matches!(said, WriteError::Denied(_)), "{said:?}");
}

/// The sink must name `code` in answer to a write and to a probe.
async fn assert_fault(sink: &RedisSink, code: &str) {
    let said = sink_fault(sink).await;
    assert!(said.contains(code), "{said}");
    let probed = sink.probe().await.unwrap_err();
    assert!(matches!(&probed, WriteError::SinkFault(text) if text.contains(code)), "{probed:?}");
}

async fn assert_works_again(sink: &RedisSink, port: u16) {
    ready(sink).await;
    let at = now_ms();
    write(sink, [position("again", at, 9)]).await.unwrap();
    assert_eq!((mark(port, "again"), expires_at(port, "again")), (Some(9), at + 30_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_is_a_sink_fault() {
    let redis = redis("oom");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    ok(port, &["CONFIG", "SET", "maxmemory", "1"]);
    assert_fault(&sink, "OOM").await;
    assert_eq!(value(port, "a"), None, "nothing of the batch is written");
    ok(port, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_works_again(&sink, port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_a_sink_fault() {
    let redis = redis("readonly");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    ok(port, &["REPLICAOF", "127.0.0.1", "1"]);
    let said = sink_fault(&sink).await;
    assert!(said.contains("READONLY"), "{said}");
    ok(port, &["REPLICAOF", "NO", "ONE"]);
    assert_works_again(&sink, port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_master_is_a_sink_fault() {
    let redis = redis("masterdown");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    // A replica that may be written to; any other says READONLY first.
    ok(port, &["CONFIG", "SET", "replica-read-only", "no"]);
    ok(port, &["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    ok(port, &["REPLICAOF", "127.0.0.1", "1"]);
    assert_fault(&sink, "MASTERDOWN").await;
    ok(port, &["REPLICAOF", "NO", "ONE"]);
    assert_works_again(&sink, port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_are_a_sink_fault() {
    let redis = redis("noreplicas");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    ok(port, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert_fault(&sink, "NOREPLICAS").await;
    ok(port, &["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert_works_again(&sink, port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_snapshot_is_a_sink_fault() {
    let redis = SpecialRedis::new("misconf").start();
    let port = redis.port();
    let sink = sink(config(port)).await;
    ok(port, &["CONFIG", "SET", "save", "3600 1"]);
    std::fs::remove_dir_all(redis.dir.join("data")).unwrap();
    ok(port, &["BGSAVE"]);
    until("the snapshot has failed", async || {
        let answer = resp::command(port, &["INFO", "persistence"]).bytes().unwrap();
        String::from_utf8(answer).unwrap().contains("rdb_last_bgsave_status:err")
    })
    .await;
    assert_fault(&sink, "MISCONF").await;
    ok(port, &["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    assert_works_again(&sink, port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loads_its_data_is_a_sink_fault() {
    let redis = SpecialRedis::new("loading").start();
    let port = redis.port();
    let filling = "for i = 1, 3000 do redis.call('SET', 'k' .. i, i) end";
    ok(port, &["EVAL", filling, "0"]);
    ok(port, &["SAVE"]);
    let redis =
        redis.stop().with("key-load-delay", "1000").with("loading-process-events-interval-bytes", "1024").start();
    let sink = RedisSink::start(config(port)).unwrap();
    until_sink_fault(&sink, "LOADING").await;
    assert_works_again(&sink, redis.port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_its_slots_is_a_sink_fault() {
    let redis = SpecialRedis::new("clusterdown").in_a_cluster().start();
    let sink = RedisSink::start(config(redis.port())).unwrap();
    until_sink_fault(&sink, "CLUSTERDOWN").await;
    ok(redis.port(), &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    assert_works_again(&sink, redis.port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_busy_with_a_script_is_a_sink_fault() {
    let redis = redis("busy");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    ok(port, &["CONFIG", "SET", "busy-reply-threshold", "10"]);
    let endless = resp::send(port, &["EVAL", "while true do end", "0"]);
    until_sink_fault(&sink, "BUSY").await;
    ok(port, &["SCRIPT", "KILL"]);
    drop(endless);
    assert_works_again(&sink, port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_clearly_until_it_is_mended() {
    let redis = redis("password");
    let port = redis.redis.port();
    ok(port, &["CONFIG", "SET", "requirepass", "right"]);
    let url = format!("redis://:wrong@127.0.0.1:{port}");
    let sink = RedisSink::start(SinkConfig { url, ..config(port) }).unwrap();
    until_denied(&sink, "WRONGPASS").await;
    let said = sink.probe().await.unwrap_err().to_string();
    assert!(said.contains("check user and password in --redis-url") && !said.contains("wrong@"), "{said}");
    set_password(port, "right", "wrong");
    ready(&sink).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_password_is_said_clearly() {
    let redis = redis("no-password");
    let port = redis.redis.port();
    ok(port, &["CONFIG", "SET", "requirepass", "right"]);
    let sink = RedisSink::start(config(port)).unwrap();
    until_denied(&sink, "NOAUTH").await;
}

fn set_password(port: u16, old: &str, new: &str) {
    use std::io::{Read, Write};
    let mut stream = resp::send(port, &["AUTH", old]);
    stream.write_all(format!("CONFIG SET requirepass {new}\r\n").as_bytes()).unwrap();
    let mut answers = [0; 10];
    stream.read_exact(&mut answers).unwrap();
    assert_eq!(&answers, b"+OK\r\n+OK\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let redis = redis("absent");
    let port = redis.redis.port();
    redis.redis.stop();
    let sink = RedisSink::start(config(port)).unwrap();
    until_sink_fault(&sink, "Connection refused").await;
    let said = sink_fault(&sink).await;
    let expected =
        format!("redis 127.0.0.1:{port}: not connected: Connection refused; is Redis running at --redis-url?");
    assert_eq!(said, expected);
    redis.redis.start().unwrap();
    assert_works_again(&sink, port).await;
}

/// While Redis was frozen for longer than a position lives, a batch of expired positions went through without a word
/// from Redis, and the sink was taken for working.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_has_expired_does_not_pass_for_an_answer() {
    let redis = redis("frozen-expired");
    let port = redis.redis.port();
    let sink = sink(SinkConfig { timeout: Duration::from_millis(300), ..config(port) }).await;
    redis.redis.freeze();
    let expired = || position("a", now_ms() - 30_000, 1);
    assert!(matches!(write(&sink, [expired()]).await, Err(WriteError::SinkFault(_))));
    redis.redis.thaw();
    until("expired positions are skipped", async || write(&sink, [expired()]).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_found_again() {
    let redis = redis("dies");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    for _ in 0..3 {
        redis.redis.kill();
        let begun = tokio::time::Instant::now();
        let said = sink_fault(&sink).await;
        assert!(said.contains("not connected"), "{said}");
        assert!(begun.elapsed() < TIMEOUT, "a lost connection is known at once");
        redis.redis.start().unwrap();
        assert_works_again(&sink, port).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_dropped_leaves_no_connection() {
    let redis = redis("dropped");
    let port = redis.redis.port();
    let sink = sink(config(port)).await;
    let connections = || clients(&resp::command(port, &["CLIENT", "LIST", "TYPE", "NORMAL"]).text());
    assert_eq!(connections(), 1);
    drop(sink);
    until("the connection is closed", async || connections() == 0).await;
}

/// What a frozen server holds in its socket it executes when it wakes, long after the writer gave up and wrote newer
/// positions: Redis must not step back.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_times_out_and_never_steps_back_when_it_wakes() {
    let redis = redis("frozen");
    let port = redis.redis.port();
    let timeout = Duration::from_millis(300);
    let sink = sink(SinkConfig { timeout, ..config(port) }).await;
    redis.redis.freeze();
    let old = now_ms();
    let said = match write(&sink, [position("a", old, 1)]).await {
        Err(WriteError::SinkFault(text)) => text,
        other => panic!("not a sink fault: {other:?}"),
    };
    assert!(said.ends_with("no answer within --redis-timeout 300ms"), "{said}");
    redis.redis.thaw();
    ready(&sink).await;
    write(&sink, [position("a", old + 1, 2)]).await.unwrap();
    write(&sink, [position("a", old, 1)]).await.unwrap();
    assert_eq!(mark(port, "a"), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_the_user_may_not_run_is_a_denial() {
    let redis = redis("noperm");
    let port = redis.redis.port();
    ok(port, &["ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+@connection", "+info"]);
    let url = format!("redis://reader:secret@127.0.0.1:{port}");
    let sink = RedisSink::start(SinkConfig { url, ..config(port) }).unwrap();
    until_denied(&sink, "NOPERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_does_not_cover_the_prefix_is_a_denial_before_the_first_record() {
    let redis = redis("other-keys");
    let port = redis.redis.port();
    let user = |keys: &str, rights: &[&str]| {
        ok(port, &[&["ACL", "SETUSER", "writer", "reset", "on", ">secret", keys], rights].concat());
    };
    let enough = ["+eval", "+evalsha", "+set"];
    user("~other:*", &enough);
    let url = format!("redis://writer:secret@127.0.0.1:{port}");
    let sink = RedisSink::start(SinkConfig { url, ..config(port) }).unwrap();
    for (keys, rights) in [("~other:*", &enough[..]), ("~driver:loc:*", &enough[..2])] {
        user(keys, rights);
        until("the probe is denied", async || matches!(sink.probe().await, Err(WriteError::Denied(_)))).await;
    }
    user("~driver:loc:*", &enough);
    ready(&sink).await;
    write(&sink, [position("a", now_ms(), 4)]).await.unwrap();
    assert_eq!(mark(port, "a"), Some(4));
}
