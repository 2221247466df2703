//! The whole service while its database goes wrong in every way: nothing is a dead letter, nothing is lost, nothing is
//! there twice, and it goes on by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use kafka::OffsetSpec;
use native::Stack;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::disk::SmallDisk;
use crate::service::{PARTITIONS, Running, client, committed, produce, producer};
use crate::world::{self, connect, nth, until};

/// Rows that are written between two faults.
const SOME: i64 = 2_000;
/// Of the database, for the service: so that what hangs is soon noticed.
const TIMEOUT: &str = "1s";
/// From one record of a partition to the next: about 8,000 records/s.
const PACE: Duration = Duration::from_millis(5);
const A_TIME: i64 = 10;

/// Ends the service's connections.
const TERMINATE: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'timescale-writer'";

/// Connections of others.
#[derive(Default)]
struct Others(Vec<Client>);

impl Others {
    /// Connects until the server takes nobody any more.
    async fn take_every_slot(&mut self, scene: &Scene) {
        let url = scene.stack.postgres.url();
        let refused = loop {
            match tokio_postgres::connect(&url, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    self.0.push(client);
                }
                Err(error) => break error,
            }
        };
        assert_eq!(refused.code().map(SqlState::code), Some("53300"), "{refused}");
    }
}

/// Records that keep coming.
struct Load {
    stop: Arc<AtomicBool>,
    produced: Arc<AtomicI64>,
    task: JoinHandle<()>,
}

impl Load {
    fn start(topic: &str) -> Self {
        let (stop, produced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (stopped, count, topic) = (Arc::clone(&stop), Arc::clone(&produced), topic.to_owned());
        let task = tokio::spawn(async move {
            let producer = producer();
            let mut ticks = tokio::time::interval(PACE);
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let from = count.load(Ordering::Relaxed);
                for offset in from..from + A_TIME {
                    for partition in 0..PARTITIONS {
                        produce(&producer, &topic, partition, Some(nth(partition, offset))).await;
                    }
                }
                count.store(from + A_TIME, Ordering::Relaxed);
            }
        });
        Self { stop, produced, task }
    }

    async fn stop(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.produced.load(Ordering::Relaxed) * i64::from(PARTITIONS)
    }
}

/// The service under load on a server of its own.
struct Scene {
    stack: Stack,
    topic: String,
    running: Running,
    load: Load,
}

impl Scene {
    async fn set(name: &str) -> Self {
        let stack = world::server(name);
        let url = stack.postgres.url();
        world::prepare(&url, world::schema()).await.unwrap();
        let topic = format!("outage_{name}_{}", std::process::id());
        let running = Running::with(&topic, &url, &["--database-timeout", TIMEOUT, "--batch-max", "500"]).await;
        until("the service is ready", async || running.context.health.is_ready()).await;
        let load = Load::start(&topic);
        let scene = Self { stack, topic, running, load };
        scene.goes_on().await;
        scene
    }

    async fn admin(&self) -> Client {
        connect(&self.stack.postgres.admin_url()).await
    }

    async fn execute(&self, statements: &str) {
        self.admin().await.batch_execute(statements).await.unwrap();
    }

    /// One statement at a time: neither can be part of a transaction with another.
    async fn set_system(&self, change: &str) {
        self.execute(&format!("ALTER SYSTEM {change}")).await;
        self.execute("SELECT pg_reload_conf()").await;
    }

    /// Some more rows come in, and the service says that all is well.
    async fn goes_on(&self) {
        let admin = self.admin().await;
        let goal = world::rows(&admin).await + SOME;
        until("rows come in", async || world::rows(&admin).await >= goal).await;
        until("the service is ready", async || self.running.context.health.is_ready()).await;
    }

    /// What `/readyz` tells.
    fn says(&self) -> String {
        native::http::get(&format!("http://{}/readyz", self.running.context.admin.local_addr())).unwrap().body
    }

    async fn notices(&self) {
        until("the service says what is wrong", async || !self.running.context.health.is_ready()).await;
    }

    /// Ends the load and accounts for every record.
    async fn account(self) {
        let all = self.load.stop().await;
        until("everything is settled", async || committed(&self.topic).await == all).await;
        self.running.stop().await;
        let query = "SELECT count(*), count(DISTINCT driver_id) FROM driver_locations";
        let row = connect(&self.stack.postgres.url()).await.query_one(query, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (all, all));
        let letters = client().topic(&format!("{}.DLT", self.topic)).await.unwrap().topic_partitions();
        let letters = client().list_offsets(&letters, OffsetSpec::Latest).await.unwrap();
        assert!(letters.into_iter().all(|(_, end)| end.unwrap().offset.0 == 0), "a fault of the sink is no letter");
    }
}

/// Holds back what writes, so that the next thing happens in the middle of a transaction.
async fn hold(admin: &Client) {
    admin.batch_execute("BEGIN; LOCK TABLE driver_locations IN SHARE MODE").await.unwrap();
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'timescale-writer' AND wait_event_type = 'Lock')";
    until("a transaction waits", async || admin.query_one(waiting, &[]).await.unwrap().get(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outage_is_waited_for_and_nothing_is_lost() {
    let scene = Scene::set("outages").await;
    let postgres = &scene.stack.postgres;
    {
        // Backends terminated in the middle of a transaction.
        let admin = scene.admin().await;
        hold(&admin).await;
        assert!(admin.query_one(TERMINATE, &[]).await.unwrap().get::<_, i64>(0) > 0);
        admin.batch_execute("ROLLBACK").await.unwrap();
        scene.goes_on().await;
    }
    {
        // A statement that takes too long.
        let admin = scene.admin().await;
        hold(&admin).await;
        scene.notices().await;
        admin.batch_execute("ROLLBACK").await.unwrap();
        scene.goes_on().await;
    }
    // The server stopped and started, killed and started, in the middle of a transaction.
    for kill in [false, true] {
        let admin = scene.admin().await;
        hold(&admin).await;
        if kill {
            postgres.kill();
        } else {
            postgres.stop();
        }
        scene.notices().await;
        postgres.start().unwrap();
        scene.goes_on().await;
    }
    {
        // Read-only mode in the middle of a transaction: that one still ends, the next is refused.
        let admin = scene.admin().await;
        hold(&admin).await;
        scene.set_system("SET default_transaction_read_only = on").await;
        admin.batch_execute("ROLLBACK").await.unwrap();
        until("the service says that it may not write", async || scene.says().contains("SQLSTATE 25006")).await;
        scene.set_system("RESET default_transaction_read_only").await;
        scene.goes_on().await;
    }
    {
        // Every slot taken by others while a transaction is under way, and its own connection lost.
        let admin = scene.admin().await;
        hold(&admin).await;
        let mut others = Others::default();
        others.take_every_slot(&scene).await;
        admin.query_one(TERMINATE, &[]).await.unwrap();
        until("the service finds no slot", async || {
            others.take_every_slot(&scene).await;
            // What was quicker than the others has a slot again.
            admin.query_one(TERMINATE, &[]).await.unwrap();
            scene.says().contains("SQLSTATE 53300")
        })
        .await;
        admin.batch_execute("ROLLBACK").await.unwrap();
        drop(others);
        scene.goes_on().await;
    }
    scene.account().await;
}

/// The table lies on a file system of its own that is really full.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let scene = Scene::set("full-disk").await;
    let disk = SmallDisk::mount("full-disk", &native::stack_dir("timescale-writer-full-disk").join("postgres"));
    scene.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.tablespace().display())).await;
    scene.execute("ALTER TABLE driver_locations SET TABLESPACE small").await;
    scene.goes_on().await;
    for _ in 0..2 {
        disk.fill();
        until("the service says that the disk is full", async || scene.says().contains("SQLSTATE 53100")).await;
        disk.make_room();
        scene.goes_on().await;
    }
    scene.account().await;
}
