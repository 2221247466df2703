//! A store that goes away under load and comes back: nothing is dead-lettered, nothing is lost, nobody dies of it.

use e2e::{Ingest, Load, Map, Scene, Service, disturbable, eventually, load_turn, now_ms};
use native::Server;

const PARTITIONS: i32 = 6;
const DRIVERS: usize = 20;
/// Positions that travel during each part of the story.
const SOME: usize = 800;

/// How a server goes, or comes back.
type Act = fn(&Server);

struct Running {
    ingest: Ingest,
    redis_writer: Service,
    timescale_writer: Service,
    load: Load,
}

impl Running {
    /// The pipeline under load, everything ready. Short limits, so that a server that hangs is soon noticed.
    async fn start(scene: &Scene<'_>) -> Self {
        let ingest = scene.ingest(&[]);
        let redis_writer = scene.redis_writer(&["--redis-timeout", "500ms"]);
        let timescale_writer = scene.timescale_writer(&["--database-timeout", "1s"]);
        for service in [&ingest.service, &redis_writer, &timescale_writer] {
            service.becomes_ready().await;
        }
        let load = Load::start(ingest.address, "driver", DRIVERS);
        load.accept(SOME).await;
        Self { ingest, redis_writer, timescale_writer, load }
    }

    fn services(&self) -> [&Service; 3] {
        [&self.ingest.service, &self.redis_writer, &self.timescale_writer]
    }

    /// Ends the load and accounts for every position: in the history once, the newest of each driver on the map,
    /// no letter about any.
    async fn account(self, scene: &Scene<'_>) {
        let posted = self.load.stop().await;
        assert!(posted.refused.is_empty() && posted.unknown.is_empty(), "{:?} {:?}", posted.refused, posted.unknown);
        scene.map().await.shows(&posted.newest()).await;
        scene.history().becomes(&posted.accepted).await;
        scene.drains().await;
        assert_eq!(scene.letters().await.len(), 0, "a fault of a sink is no fault of a record");
        all_live([&self.ingest.service, &self.redis_writer, &self.timescale_writer]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_stop_and_hang_under_load() {
    let stack = disturbable().await;
    let _turn = load_turn().await;
    let scene = Scene::set(&stack, "redis-outage", PARTITIONS).await;
    let running = Running::start(&scene).await;
    let redis: &Server = &stack.redis;
    for (go, come) in [(Server::stop as Act, start as Act), (Server::freeze, Server::thaw)] {
        go(redis);
        running.redis_writer.becomes_unready().await;
        running.load.accept(SOME).await;
        assert!(matches!(running.timescale_writer.readiness(), Ok((200, _))), "the other group is not concerned");
        come(redis);
        let back_at = now_ms();
        running.redis_writer.becomes_ready().await;
        is_fresh(&scene.map().await, back_at).await;
    }
    running.account(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_may_stop_and_hang_under_load() {
    let stack = disturbable().await;
    let _turn = load_turn().await;
    let scene = Scene::set(&stack, "postgres-outage", PARTITIONS).await;
    let running = Running::start(&scene).await;
    let map = scene.map().await;
    let postgres: &Server = &stack.postgres;
    let kinds: [(Act, Act); 3] = [(Server::stop, start), (Server::kill, start), (Server::freeze, Server::thaw)];
    for (go, come) in kinds {
        go(postgres);
        running.timescale_writer.becomes_unready().await;
        let gone_at = now_ms();
        running.load.accept(SOME).await;
        is_fresh(&map, gone_at).await;
        come(postgres);
        running.timescale_writer.becomes_ready().await;
    }
    running.account(&scene).await;
}

/// The broker keeps what it acknowledged; what it did not is refused, or left open in the answer.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_may_stop_die_and_hang_under_load() {
    let stack = disturbable().await;
    let _turn = load_turn().await;
    let scene = Scene::set(&stack, "kafka-outage", PARTITIONS).await;
    let running = Running::start(&scene).await;
    let broker = stack.kafka.broker(1);
    let kinds: [(Act, Act); 3] = [(Server::stop, start), (Server::kill, start), (Server::freeze, Server::thaw)];
    for (go, come) in kinds {
        go(broker);
        running.ingest.service.becomes_unready().await;
        come(broker);
        for service in running.services() {
            service.becomes_ready().await;
        }
        running.load.accept(SOME).await;
    }
    let Running { ingest, redis_writer, timescale_writer, load } = running;
    let posted = load.stop().await;
    scene.history().becomes(&scene.in_kafka(&posted).await).await;
    scene.drains().await;
    assert_eq!(scene.letters().await.len(), 0, "a fault of Kafka is no fault of a record");
    all_live([&ingest.service, &redis_writer, &timescale_writer]);
}

fn all_live(services: [&Service; 3]) {
    for service in services {
        assert!(service.is_running() && !service.log().contains("panicked"), "{}", service.log());
    }
}

fn start(server: &Server) {
    server.start().unwrap();
}

/// Every driver is on the map with a position taken since `since`.
async fn is_fresh(map: &Map, since: i64) {
    for number in 0..DRIVERS {
        let driver = format!("driver-{number}");
        eventually("the map is fresh", async || match map.timestamp(&driver).await? {
            taken_at if taken_at >= since => Ok(()),
            old => Err(format!("{driver} {} ms before", since - old)),
        })
        .await;
    }
}
