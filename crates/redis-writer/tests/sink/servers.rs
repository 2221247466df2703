//! Several Redis servers that know of each other: a cluster, and a master with replica and sentinels.

use std::collections::HashMap;

use native::{Launch, Port, Process, Signal, Wish};

use crate::resp::{self, Answer};
use crate::world::{PATIENCE, SpecialRedis, until};

/// After this long without a sign of life a server is held for dead by the others of its cluster.
const NODE_TIMEOUT_MS: &str = "1500";
const SLOTS: usize = 16_384;
/// Redirections that a reader follows.
const HOPS: usize = 5;

/// A Redis Cluster: masters first, then a replica of each if it has any.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<SpecialRedis>,
    password: Option<&'static str>,
}

/// What a cluster is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub(crate) masters: usize,
    pub(crate) has_replicas: bool,
    pub(crate) settings: &'a [(&'a str, &'a str)],
}

pub(crate) const THREE_MASTERS: Shape<'_> = Shape { masters: 3, has_replicas: false, settings: &[] };

impl RedisCluster {
    /// Starts its servers, divides the slots among the masters, and waits until all of them agree.
    pub(crate) async fn start(name: &str, shape: Shape<'_>) -> Self {
        let count = shape.masters * if shape.has_replicas { 2 } else { 1 };
        let nodes: Vec<_> = (0..count).map(|index| node(&format!("{name}-{index}"), shape.settings)).collect();
        let password = shape.settings.iter().find(|(setting, _)| *setting == "requirepass").map(|_| "secret");
        let cluster = Self { nodes, password };
        cluster.divide_slots(shape.masters);
        cluster.introduce().await;
        if shape.has_replicas {
            cluster.replicate(shape.masters).await;
        }
        until("the cluster is whole", async || (0..count).all(|node| cluster.sees_itself_whole(node, shape))).await;
        cluster
    }

    fn divide_slots(&self, masters: usize) {
        for master in 0..masters {
            let (first, end) = (SLOTS * master / masters, SLOTS * (master + 1) / masters);
            self.ok(master, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
            self.ok(master, &["CLUSTER", "SET-CONFIG-EPOCH", &(master + 1).to_string()]);
        }
    }

    async fn introduce(&self) {
        for node in &self.nodes[1..] {
            self.ok(0, &["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &node.bus().to_string()]);
        }
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        let knows_all = |node: usize| {
            // Until both have met, a name is a made-up one.
            let nodes = self.command(node, &["CLUSTER", "NODES"]).text();
            self.command(node, &["CLUSTER", "INFO"]).text().contains(&known) && !nodes.contains("handshake")
        };
        until("all have met", async || (0..self.nodes.len()).all(knows_all)).await;
    }

    async fn replicate(&self, masters: usize) {
        for master in 0..masters {
            let id = self.id(master);
            self.ok(masters + master, &["CLUSTER", "REPLICATE", &id]);
        }
        let is_linked = |node: &usize| self.info(*node, "replication").contains("master_link_status:up");
        until("the replicas follow", async || (masters..2 * masters).all(|node| is_linked(&node))).await;
    }

    fn sees_itself_whole(&self, node: usize, shape: Shape<'_>) -> bool {
        let ranges = self.command(node, &["CLUSTER", "SLOTS"]).list();
        let servers = if shape.has_replicas { 4 } else { 3 };
        self.command(node, &["CLUSTER", "INFO"]).text().contains("cluster_state:ok")
            && ranges.len() == shape.masters
            && ranges.into_iter().all(|range| range.list().len() == servers)
    }

    /// Adds a master without slots.
    pub(crate) async fn join(&mut self, name: &str) -> usize {
        self.nodes.push(node(name, &[]));
        self.introduce().await;
        let new = self.nodes.len() - 1;
        let is_up = || self.command(new, &["CLUSTER", "INFO"]).text().contains("cluster_state:ok");
        until("the new one is up", async || is_up()).await;
        new
    }

    pub(crate) fn url(&self) -> String {
        let password = self.password.map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis-cluster://{password}127.0.0.1:{}", self.port(0))
    }

    pub(crate) fn port(&self, node: usize) -> u16 {
        self.nodes[node].port()
    }

    pub(crate) fn id(&self, node: usize) -> String {
        self.command(node, &["CLUSTER", "MYID"]).text()
    }

    pub(crate) fn info(&self, node: usize, section: &str) -> String {
        self.command(node, &["INFO", section]).text()
    }

    pub(crate) fn slot(&self, driver: &str) -> String {
        self.command(0, &["CLUSTER", "KEYSLOT", &key(driver)]).integer().to_string()
    }

    pub(crate) fn command(&self, node: usize, words: &[&str]) -> Answer {
        match self.password {
            Some(password) => resp::conversation(self.port(node), &[&["AUTH", password], words]),
            None => resp::command(self.port(node), words),
        }
    }

    pub(crate) fn ok(&self, node: usize, words: &[&str]) {
        let answer = self.command(node, words);
        assert!(!matches!(answer, Answer::Error(_)), "{words:?}: {answer:?}");
    }

    /// The node that owns a driver's slot, by what `asked` says.
    pub(crate) fn owner(&self, asked: usize, driver: &str) -> usize {
        let slot: i64 = self.slot(driver).parse().unwrap();
        let ranges = self.command(asked, &["CLUSTER", "SLOTS"]).list().into_iter().map(Answer::list);
        let mut owning =
            ranges.filter(|range| (range[0].clone().integer()..=range[1].clone().integer()).contains(&slot));
        let port = owning.next().unwrap().swap_remove(2).list().swap_remove(1).integer();
        self.nodes.iter().position(|node| i64::from(node.port()) == port).unwrap()
    }

    /// The value of a driver, by whoever has it; redirections are followed, from `asked` on.
    pub(crate) fn value(&self, asked: usize, driver: &str) -> Option<Vec<u8>> {
        let (mut port, mut asking) = (self.port(asked), false);
        for _ in 0..HOPS {
            let get = ["GET", &key(driver)];
            let answer = match asking {
                true => resp::conversation(port, &[&["ASKING"], &get]),
                false => resp::command(port, &get),
            };
            let Answer::Error(said) = &answer else { return answer.bytes() };
            asking = said.starts_with("ASK ");
            assert!(asking || said.starts_with("MOVED "), "{said}");
            port = said.rsplit(':').next().unwrap().parse().unwrap();
        }
        panic!("{driver}: redirected without end");
    }

    /// Moves one key to another node, in the middle of the migration of its slot.
    pub(crate) fn migrate(&self, from: usize, to: usize, key: &str) {
        self.ok(from, &["MIGRATE", "127.0.0.1", &self.port(to).to_string(), key, "0", "5000"]);
    }

    /// Begins to move a slot.
    pub(crate) fn open_slot(&self, slot: &str, from: usize, to: usize) {
        self.ok(to, &["CLUSTER", "SETSLOT", slot, "IMPORTING", &self.id(from)]);
        self.ok(from, &["CLUSTER", "SETSLOT", slot, "MIGRATING", &self.id(to)]);
    }

    pub(crate) fn keys_in(&self, node: usize, slot: &str) -> Vec<String> {
        let keys = self.command(node, &["CLUSTER", "GETKEYSINSLOT", slot, "10"]).list();
        keys.into_iter().map(Answer::text).collect()
    }

    /// Connections of clients to a node, besides the one that asks.
    pub(crate) fn clients(&self, node: usize) -> usize {
        clients(&self.command(node, &["CLIENT", "LIST", "TYPE", "NORMAL"]).text())
    }
}

/// Lines of a list of clients, without the one that asks.
pub(crate) fn clients(list: &str) -> usize {
    list.lines().filter(|line| !line.contains("cmd=client|list")).count()
}

fn node(name: &str, settings: &[(&str, &str)]) -> SpecialRedis {
    let node = SpecialRedis::new(name)
        .in_a_cluster()
        .with("cluster-announce-ip", "127.0.0.1")
        .with("cluster-node-timeout", NODE_TIMEOUT_MS)
        // A replica that lost sight of its master long ago may still take over.
        .with("cluster-replica-validity-factor", "0")
        .with("repl-diskless-sync-delay", "0")
        // A replica is named in the map once it has heard something of its master.
        .with("repl-ping-replica-period", "1");
    settings.iter().fold(node, |node, (setting, value)| node.with(setting, value)).start()
}

pub(crate) fn key(driver: &str) -> String {
    format!("driver:loc:{driver}")
}

/// A process that watches a master.
pub(crate) struct Sentinel {
    pub(crate) process: Process,
    port: Port,
}

/// A master, its replica, and three sentinels of which two must agree.
pub(crate) struct Guarded {
    pub(crate) redis: [SpecialRedis; 2],
    pub(crate) sentinels: Vec<Sentinel>,
}

impl Guarded {
    pub(crate) async fn start(name: &str, settings: &[(&str, &str)], sentinel_settings: &str) -> Self {
        let redis = ["a", "b"].map(|which| {
            let redis = SpecialRedis::new(&format!("{name}-{which}")).with("repl-diskless-sync-delay", "0");
            settings.iter().fold(redis, |redis, (setting, value)| redis.with(setting, value))
        });
        let master = redis[0].port().to_string();
        let [first, second] = redis;
        let redis = [first.start(), second.with("replicaof", &format!("127.0.0.1 {master}")).start()];
        let replication: [&[&str]; 2] = [&["AUTH", "secret"], &["INFO", "replication"]];
        // Sentinels that come too early look again only after ten seconds.
        until("the replica follows", async || {
            resp::conversation(redis[1].port(), &replication).text().contains("master_link_status:up")
        })
        .await;
        let sentinels = (0..3).map(|index| Sentinel::start(&redis[0], index, sentinel_settings)).collect();
        let guarded = Self { redis, sentinels };
        until("the sentinels know each other and the replica", async || guarded.is_complete()).await;
        guarded
    }

    fn is_complete(&self) -> bool {
        self.sentinels.iter().all(|sentinel| {
            let master = sentinel.master();
            let count = |field: &str| master.get(field).map(String::as_str);
            let replicates = sentinel
                .command(&["SENTINEL", "REPLICAS", "main"])
                .list()
                .into_iter()
                .any(|replica| fields(replica).get("master-link-status").is_some_and(|status| status == "ok"));
            (count("num-other-sentinels"), count("num-slaves"), replicates) == (Some("2"), Some("1"), true)
        })
    }

    pub(crate) fn url(&self, credentials: &str, parameters: &str) -> String {
        let [first, others @ ..] = self.sentinels.as_slice() else { panic!("no sentinels") };
        let nodes: String = others.iter().map(|other| format!("&node=127.0.0.1:{}", other.port())).collect();
        format!("redis-sentinel://{credentials}127.0.0.1:{}?sentinelServiceName=main{nodes}{parameters}", first.port())
    }

    /// Waits until the sentinel says that `redis` is the master, and it says so itself.
    pub(crate) async fn until_master(&self, sentinel: usize, redis: usize) {
        let port = self.redis[redis].port();
        until("the replica is promoted", async || {
            self.sentinels[sentinel].master()["port"] == port.to_string() && role(port) == "master"
        })
        .await;
    }
}

/// `master` or `slave`.
pub(crate) fn role(port: u16) -> String {
    resp::command(port, &["ROLE"]).list().swap_remove(0).text()
}

impl Sentinel {
    fn start(master: &SpecialRedis, index: usize, settings: &str) -> Self {
        let port = Port::lease(Wish::Any).unwrap();
        let dir = master.dir.join(format!("sentinel-{index}"));
        std::fs::create_dir_all(&dir).unwrap();
        let config = dir.join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor main 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 5000\n{settings}\n",
            port.number(),
            dir.display(),
            master.port()
        );
        std::fs::write(&config, text).unwrap();
        let launch = Launch::new("sentinel", "redis-server", dir.join("sentinel.log"));
        let launch = launch.stopped_by(Signal::SIGKILL, PATIENCE).arg(config).arg("--sentinel");
        let process = Process::spawn(&launch).unwrap();
        let number = port.number();
        native::wait_until(PATIENCE, "the sentinel listens", || {
            std::net::TcpStream::connect(("127.0.0.1", number)).is_ok()
        })
        .unwrap();
        Self { process, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Answer {
        resp::conversation(self.port(), &[&["AUTH", "sentinel-secret"], words])
    }

    fn master(&self) -> HashMap<String, String> {
        fields(self.command(&["SENTINEL", "MASTER", "main"]))
    }
}

fn fields(answer: Answer) -> HashMap<String, String> {
    let words: Vec<_> = answer.list().into_iter().map(Answer::text).collect();
    words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}
