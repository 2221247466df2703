//! A Redis Cluster of real servers: slots that move and masters that die, under load.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pipeline::{Sink, WriteError};
use redis_writer::{RedisSink, SinkConfig};

use crate::load::{Load, time_of};
use crate::servers::{RedisCluster, Shape, THREE_MASTERS, key, role};
use crate::world::*;

fn config_of(cluster: &RedisCluster) -> SinkConfig {
    SinkConfig { url: cluster.url(), ..config(0) }
}

async fn sink_of(cluster: &RedisCluster) -> Arc<RedisSink> {
    sink(config_of(cluster)).await
}

fn drivers(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("d{index}")).collect()
}

fn total(cluster: &RedisCluster, word: &str) -> u64 {
    cluster.nodes.iter().map(|node| errors(node.port(), word)).sum()
}

/// What the owner of each driver's slot holds must be its newest position, with the expiry of that one.
fn assert_newest(cluster: &RedisCluster, asked: usize, newest: &HashMap<String, i64>) {
    for (driver, time) in newest {
        let port = cluster.port(cluster.owner(asked, driver));
        let held = value(port, driver).map(|value| time_of(&value));
        assert_eq!((held, expires_at(port, driver)), (Some(*time), time + 30_000), "{driver}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_of_all_masters_are_written_in_order_with_absolute_expiry() {
    let cluster = RedisCluster::start("cluster-spread", THREE_MASTERS).await;
    let sink = sink_of(&cluster).await;
    let (drivers, now) = (drivers(600), now_ms());
    let written = write(&sink, drivers.iter().map(|driver| position(driver, now, 2))).await.unwrap();
    assert_eq!(count(&written, "written"), 600);
    let older = drivers.iter().map(|driver| position(driver, now - 1, 1));
    let newer = drivers[..10].iter().map(|driver| position(driver, now + 1, 3));
    let written = write(&sink, newer).await.unwrap();
    assert_eq!(count(&written, "written"), 10);
    let written = write(&sink, older).await.unwrap();
    assert_eq!((count(&written, "written"), count(&written, "superseded")), (0, 600));
    let newest = drivers.iter().enumerate().map(|(index, driver)| (driver.clone(), now + i64::from(index < 10)));
    assert_newest(&cluster, 0, &newest.collect());
    for node in 0..3 {
        assert!(calls(cluster.port(node), "set") > 100, "every master has its share");
        assert_eq!(errors(cluster.port(node), "MOVED"), 0, "nobody is asked for what is not his");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_with_a_hash_tag_puts_the_map_on_one_master() {
    let cluster = RedisCluster::start("cluster-tag", THREE_MASTERS).await;
    let sink = sink(SinkConfig { key_prefix: "{map}:".to_owned(), ..config_of(&cluster) }).await;
    let written = write(&sink, drivers(2_500).iter().map(|driver| position(driver, now_ms(), 1))).await.unwrap();
    assert_eq!(count(&written, "written"), 2_500);
    let mut sizes = [0, 1, 2].map(|node| cluster.command(node, &["DBSIZE"]).integer());
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 0, 2_500]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_under_load_refuses_nothing_and_nothing_steps_back() {
    let cluster = Arc::new(RedisCluster::start("cluster-migration", THREE_MASTERS).await);
    let sink = sink_of(&cluster).await;
    // Half of them in one slot; from round to round there are more.
    let load = Load::start(&sink, |round| {
        let count = 100 + 2 * round.min(200);
        (0..count).flat_map(|index| [format!("{{zone}}{index}"), format!("d{index}")]).collect()
    });
    load.goes_on().await;
    let (slot, from) = (cluster.slot("{zone}"), cluster.owner(0, "{zone}"));
    let to = (from + 1) % 3;
    let watch = Watch::start(&cluster, from);
    cluster.open_slot(&slot, from, to);
    load.goes_on().await;
    loop {
        let keys = cluster.keys_in(from, &slot);
        if keys.is_empty() {
            break;
        }
        for key in keys {
            cluster.migrate(from, to, &key);
        }
        load.goes_on().await;
    }
    for node in [to, from] {
        cluster.ok(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &cluster.id(to)]);
        load.goes_on().await;
    }
    assert!(watch.end() > 0, "positions were seen to rise");
    until("the map is read anew", async || {
        let moved = errors(cluster.port(from), "MOVED");
        load.goes_on().await;
        errors(cluster.port(from), "MOVED") == moved
    })
    .await;
    assert_eq!(load.refusals(), [""; 0]);
    let newest = load.end().await;
    assert!(newest.len() > 220, "new drivers came: {}", newest.len());
    assert_newest(&cluster, to, &newest);
    let met = ["ASK", "MOVED", "TRYAGAIN"].map(|word| (word, total(&cluster, word)));
    assert!(met.iter().all(|(_, count)| *count > 0), "{met:?}");
}

/// Reads the map again and again, as an application would.
struct Watch {
    is_over: Arc<AtomicBool>,
    reader: std::thread::JoinHandle<u64>,
}

impl Watch {
    fn start(cluster: &Arc<RedisCluster>, asked: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, cluster) = (Arc::clone(&is_over), Arc::clone(cluster));
        let reader = std::thread::spawn(move || {
            let (mut seen, mut rises) = (HashMap::new(), 0);
            while !over.load(Ordering::Relaxed) {
                for driver in (0..120).step_by(7).map(|index| format!("{{zone}}{index}")) {
                    let time = cluster.value(asked, &driver).map(|value| time_of(&value));
                    let before = seen.insert(driver.clone(), time).flatten();
                    assert!(time >= before, "{driver}: {before:?}, then {time:?}");
                    rises += u64::from(before.is_some() && time > before);
                }
            }
            rises
        });
        Self { is_over, reader }
    }

    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.reader.join().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_keys_are_here_and_there_is_written_key_by_key() {
    let mut cluster = RedisCluster::start("cluster-tryagain", THREE_MASTERS).await;
    let to = cluster.join("cluster-tryagain-new").await;
    let sink = sink_of(&cluster).await;
    let now = now_ms();
    let at = |time| ["{t}stays", "{t}moves"].map(|driver| position(driver, time, 1));
    write(&sink, at(now)).await.unwrap();
    let (slot, from) = (cluster.slot("{t}"), cluster.owner(0, "{t}"));
    // To a server that owns no slot yet: no map knows it.
    cluster.open_slot(&slot, from, to);
    cluster.migrate(from, to, &key("{t}moves"));
    let written = write(&sink, at(now + 1).into_iter().chain([position("{t}new", now + 1, 1)])).await.unwrap();
    assert_eq!(count(&written, "written"), 3);
    assert_eq!((errors(cluster.port(from), "TRYAGAIN"), errors(cluster.port(from), "ASK")), (1, 2));
    let held = |node: usize, driver: &str| {
        let get: [&[&str]; 2] = [&["ASKING"], &["GET", &key(driver)]];
        crate::resp::conversation(cluster.port(node), &get).bytes().map(|value| time_of(&value))
    };
    assert_eq!(held(from, "{t}stays"), Some(now + 1));
    assert_eq!([held(to, "{t}moves"), held(to, "{t}new")], [Some(now + 1); 2]);
    // Older ones lose at both, and are counted.
    let written = write(&sink, at(now).into_iter().chain([position("{t}new", now + 2, 1)])).await.unwrap();
    assert_eq!((count(&written, "written"), count(&written, "superseded")), (1, 2));
    // Only new ones: all are sent on together, and not taken together there.
    let written = write(&sink, ["{t}x", "{t}y"].map(|driver| position(driver, now, 1))).await.unwrap();
    assert_eq!((count(&written, "written"), errors(cluster.port(to), "TRYAGAIN")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_dies_under_load_is_succeeded_by_its_replica() {
    let shape = Shape { has_replicas: true, ..THREE_MASTERS };
    let mut cluster = RedisCluster::start("cluster-failover", shape).await;
    let sink = sink_of(&cluster).await;
    let load = Load::start(&sink, |_| drivers(300));
    load.goes_on().await;
    // The one that the URL names.
    cluster.nodes[0].kill();
    load.until_refused().await;
    let successor = cluster.port(3);
    until("the replica is promoted", async || role(successor) == "master").await;
    load.goes_on().await;
    let dead = cluster.nodes.remove(0);
    cluster.nodes.insert(0, dead.stop().start());
    until("the dead one is back as a replica", async || {
        role(cluster.port(0)) == "slave" && cluster.info(0, "replication").contains("master_link_status:up")
    })
    .await;
    load.goes_on().await;
    let refusals = load.refusals();
    let newest = load.end().await;
    assert_newest(&cluster, 1, &newest);
    assert!(calls(successor, "set") > 0, "{refusals:?}");
    let scripts = |port| calls(port, "evalsha") + calls(port, "eval");
    assert_eq!((scripts(cluster.port(0)), cluster.clients(0)), (0, 0), "nobody writes to the replica");
}

/// It executes what is in its sockets when it wakes, without knowing yet that it has been succeeded.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_freezes_under_load_is_succeeded_and_joins_as_a_replica() {
    let shape = Shape { has_replicas: true, ..THREE_MASTERS };
    let cluster = RedisCluster::start("cluster-frozen", shape).await;
    let sink = sink(SinkConfig { timeout: Duration::from_millis(500), ..config_of(&cluster) }).await;
    let load = Load::start(&sink, |_| drivers(300));
    load.goes_on().await;
    cluster.nodes[1].freeze();
    load.until_refused().await;
    let successor = cluster.port(4);
    until("the replica is promoted", async || role(successor) == "master").await;
    load.goes_on().await;
    cluster.nodes[1].thaw();
    until("the thawed one is a replica", async || role(cluster.port(1)) == "slave").await;
    load.goes_on().await;
    assert_newest(&cluster, 0, &load.end().await);
    until("it is left alone", async || cluster.clients(1) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_url_for_a_server_that_is_none_is_said_clearly() {
    let redis = SpecialRedis::new("cluster-none").start();
    let url = format!("redis-cluster://127.0.0.1:{}", redis.port());
    let sink = RedisSink::start(SinkConfig { url, ..config(0) }).unwrap();
    until("it is said", async || {
        let said = sink.probe().await;
        matches!(said, Err(WriteError::SinkFault(said)) if said.contains("cluster support disabled"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_away_holds_up_the_positions_of_no_other() {
    let settings = &[("cluster-require-full-coverage", "no")];
    let cluster = RedisCluster::start("cluster-away", Shape { masters: 2, settings, has_replicas: false }).await;
    let sink = sink_of(&cluster).await;
    let (drivers, now) = (drivers(50), now_ms());
    let at = |time| drivers.iter().map(move |driver| position(driver, time, 1)).collect::<Vec<_>>();
    write(&sink, at(now)).await.unwrap();
    let (of_living, of_dead): (Vec<_>, Vec<_>) = drivers.iter().partition(|driver| cluster.owner(0, driver) == 0);
    cluster.nodes[1].kill();
    let refused = write(&sink, at(now + 1)).await.unwrap_err();
    let dead = format!("redis 127.0.0.1:{}: ", cluster.port(1));
    assert!(matches!(&refused, WriteError::SinkFault(said) if said.starts_with(&dead)), "{refused:?}");
    assert!(of_living.len() > 10 && of_dead.len() > 10);
    for driver in of_living {
        assert_eq!(value(cluster.port(0), driver).map(|value| time_of(&value)), Some(now + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_that_is_given_leads_to_the_others() {
    let shape = Shape { has_replicas: true, ..THREE_MASTERS };
    let cluster = RedisCluster::start("cluster-seeds", shape).await;
    let nobody = SpecialRedis::new("cluster-seeds-nobody");
    // The first is away, the second is a replica.
    let url = format!("redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}", nobody.port(), cluster.port(4));
    let sink = sink(SinkConfig { url, ..config(0) }).await;
    write(&sink, drivers(60).iter().map(|driver| position(driver, now_ms(), 1))).await.unwrap();
    let written = cluster.nodes.iter().map(|node| calls(node.port(), "set"));
    assert_eq!(written.take(3).sum::<u64>(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_takes_the_password_and_each_that_denies_it_is_named() {
    let settings = &[("requirepass", "secret"), ("masterauth", "secret")];
    let shape = Shape { settings, ..THREE_MASTERS };
    let cluster = RedisCluster::start("cluster-password", shape).await;
    let sink = sink_of(&cluster).await;
    let written = write(&sink, drivers(60).iter().map(|driver| position(driver, now_ms(), 1))).await.unwrap();
    assert_eq!(count(&written, "written"), 60);
    let wrong = SinkConfig { url: cluster.url().replace("secret", "wrong"), ..config(0) };
    let wrong = RedisSink::start(wrong).unwrap();
    until("it is denied", async || matches!(wrong.probe().await, Err(WriteError::Denied(_)))).await;
    cluster.ok(2, &["CONFIG", "SET", "requirepass", "other"]);
    let partly = RedisSink::start(config_of(&cluster)).unwrap();
    let third = format!("redis 127.0.0.1:{}: WRONGPASS", cluster.port(2));
    until(
        "the third denies it",
        async || matches!(partly.probe().await, Err(WriteError::Denied(said)) if said.starts_with(&third)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_right_to_read_the_slots_is_denied_at_the_start() {
    let cluster = RedisCluster::start("cluster-rights", THREE_MASTERS).await;
    let user = |node: usize, rights: &[&str]| {
        let user = ["ACL", "SETUSER", "writer", "reset", "on", ">secret", "~driver:loc:*"];
        cluster.ok(node, &[&user, rights].concat());
    };
    let enough = ["+eval", "+evalsha", "+set", "+cluster|slots", "+asking"];
    (0..3).for_each(|node| user(node, &enough[..3]));
    let url = cluster.url().replace("://", "://writer:secret@");
    let sink = RedisSink::start(SinkConfig { url, ..config(0) }).unwrap();
    until(
        "it is denied",
        async || matches!(sink.probe().await, Err(WriteError::Denied(said)) if said.contains("+cluster|slots +asking")),
    )
    .await;
    (0..3).for_each(|node| user(node, &enough));
    ready(&sink).await;
    write(&sink, drivers(60).iter().map(|driver| position(driver, now_ms(), 1))).await.unwrap();
    user(1, &enough[1..]);
    until("one master denies it", async || matches!(sink.probe().await, Err(WriteError::Denied(_)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_dropped_leaves_no_connection() {
    let cluster = RedisCluster::start("cluster-drop", THREE_MASTERS).await;
    let sink = sink_of(&cluster).await;
    write(&sink, drivers(60).iter().map(|driver| position(driver, now_ms(), 1))).await.unwrap();
    assert_eq!([0, 1, 2].map(|node| cluster.clients(node)), [1; 3]);
    drop(sink);
    until("the connections are closed", async || (0..3).all(|node| cluster.clients(node) == 0)).await;
}
