//! The prober: drivers of its own post through the same path as all others, and Redis is asked until each position can be read.
//!
//! What is posted when follows from a plan, so that the reader knows what to look for without being told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock::Clock;
use crate::generator::{self, GeneratorConfig, Handle, Target};
use crate::plan::{Cursor, Plan, Stage};
use crate::redis::Redis;
use crate::roster::Roster;
use crate::staleness::Tracker;

/// Probes per second: five rounds of 48 partitions.
pub const PROBES_PER_S: u32 = 240;
/// Probing drivers of each partition; with five rounds a second each of them posts every two seconds, as phones do.
pub const DRIVERS_PER_PARTITION: u32 = 10;
/// How often Redis is asked for probes not yet seen: the error of a figure, always to its disadvantage.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// The same while many are missing: asking must not load what is already slow.
const ASK_RARELY: Duration = Duration::from_millis(50);
/// From how many missing drivers on.
const MANY: usize = 200;
/// Pause between attempts to connect to Redis.
const RECONNECT_EVERY: Duration = Duration::from_millis(50);
/// Longest run of a prober.
const LONGEST: Duration = Duration::from_secs(2 * 3_600);
/// The prober's HTTP needs few connections, and looks at them less often than the surge.
const CONNECTIONS: usize = 256;
const TICK: Duration = Duration::from_millis(4);
/// A phone gives up after this; a probe that was never sent counts with its age.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running prober.
pub struct Prober {
    sender: Handle,
    tracker: Arc<Mutex<Tracker>>,
    posting: watch::Sender<Posting>,
    clock: Clock,
    reader: tokio::task::JoinHandle<()>,
}

/// Which probes are posted: the plan itself has no end.
#[derive(Debug, Clone, Copy)]
enum Posting {
    All,
    Until(Duration),
}

/// What the prober is to do.
pub struct ProberConfig {
    /// Where positions are posted.
    pub target: Target,
    /// Where they are to show.
    pub redis: SocketAddr,
    /// The probing drivers, by partition in turn.
    pub roster: Roster,
    /// How many they are.
    pub drivers: u32,
}

impl Prober {
    /// Starts to post and to read.
    pub fn start(config: ProberConfig, clock: Clock) -> std::io::Result<Self> {
        let stage = Stage { name: "probes".to_owned(), rate: PROBES_PER_S, length: LONGEST, drivers: config.drivers };
        let plan = Arc::new(Plan::new(vec![stage]));
        let tracker = Arc::new(Mutex::new(Tracker::new(config.drivers as usize)));
        let (posting, posted) = watch::channel(Posting::All);
        let reader = Reader {
            clock,
            plan: Arc::clone(&plan),
            cursor: Cursor::default(),
            keys: (0..config.drivers)
                .map(|slot| format!("driver:loc:{}", config.roster.id(slot)).into_bytes())
                .collect(),
            address: config.redis,
            redis: None,
            retry_at: clock.instant(Duration::ZERO),
            tracker: Arc::clone(&tracker),
            posting: posted,
        };
        let sender = GeneratorConfig {
            name: "probes",
            target: config.target,
            plan,
            roster: config.roster,
            positions_per_post: 1,
            connections: CONNECTIONS,
            tick: TICK,
            send_within: PATIENCE,
            answer_within: PATIENCE,
        };
        let sender = generator::spawn(sender, clock)?;
        Ok(Self { sender, tracker, posting, clock, reader: tokio::spawn(reader.run()) })
    }

    /// What is known of every probe.
    pub fn tracker(&self) -> MutexGuard<'_, Tracker> {
        lock(&self.tracker)
    }

    /// The tracker, for others to look at.
    #[must_use]
    pub fn shared_tracker(&self) -> Arc<Mutex<Tracker>> {
        Arc::clone(&self.tracker)
    }

    /// Ends the posting; reading goes on.
    pub fn stop_posting(&self) {
        // What is posted between these two lines is not looked for, which hides nothing: the load has ended.
        self.posting.send_replace(Posting::Until(self.clock.now()));
        self.sender.stop();
    }

    /// Whether all that was posted has been answered, after the posting was ended.
    #[must_use]
    pub fn has_posted(&self) -> bool {
        self.sender.is_finished()
    }

    /// Ends everything and gives the posting half, to be joined.
    #[must_use]
    pub fn finish(self) -> Handle {
        self.reader.abort();
        self.sender
    }
}

/// A tracker is never left half-changed, so that a panic elsewhere does not spoil it.
pub fn lock(tracker: &Mutex<Tracker>) -> MutexGuard<'_, Tracker> {
    tracker.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Reader {
    clock: Clock,
    plan: Arc<Plan>,
    cursor: Cursor,
    keys: Vec<Vec<u8>>,
    address: SocketAddr,
    redis: Option<Redis>,
    retry_at: Instant,
    tracker: Arc<Mutex<Tracker>>,
    posting: watch::Receiver<Posting>,
}

impl Reader {
    async fn run(mut self) {
        let mut tick = tokio::time::interval_at(self.clock.instant(Duration::ZERO), ASK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let missing = self.enter_due();
            if !missing.is_empty() {
                self.ask(&missing).await;
            }
            if missing.len() > MANY {
                tick.reset_after(ASK_RARELY);
            }
        }
    }

    /// Enters the probes whose moment has come and gives the drivers to ask for.
    fn enter_due(&mut self) -> Vec<usize> {
        let until = match *self.posting.borrow() {
            Posting::All => self.clock.now(),
            Posting::Until(end) => end.min(self.clock.now()),
        };
        let mut tracker = lock(&self.tracker);
        while let Some(post) = self.plan.post_at(self.cursor, 1).filter(|post| post.due < until) {
            tracker.sent(self.plan.driver(post.stage, post.index) as usize, post.due);
            self.cursor = Cursor::behind(&post);
        }
        tracker.outstanding().collect()
    }

    async fn ask(&mut self, missing: &[usize]) {
        let Some(redis) = self.connected().await else { return };
        let keys: Vec<Vec<u8>> = missing.iter().map(|slot| self.keys[*slot].clone()).collect();
        let mut redis = redis;
        // A connection that failed once is not used again: its answers may be those of another question.
        let Ok(values) = redis.mget(&keys).await else { return };
        self.redis = Some(redis);
        let now = self.clock.now();
        let mut tracker = lock(&self.tracker);
        for (slot, value) in missing.iter().zip(values) {
            if let Some(effective) = value.and_then(|value| self.moment_of(&value)) {
                tracker.read(*slot, effective, now);
            }
        }
    }

    async fn connected(&mut self) -> Option<Redis> {
        if let Some(redis) = self.redis.take() {
            return Some(redis);
        }
        if Instant::now() < self.retry_at {
            return None;
        }
        self.retry_at = Instant::now() + RECONNECT_EVERY;
        Redis::connect(self.address).await.ok()
    }

    fn moment_of(&self, value: &[u8]) -> Option<Duration> {
        let shown: Shown = serde_json::from_slice(value).ok()?;
        u64::try_from(shown.timestamp - self.clock.base_ms()).ok().map(Duration::from_millis)
    }
}

/// What is read of a value in Redis.
#[derive(Deserialize)]
struct Shown {
    timestamp: i64,
}
