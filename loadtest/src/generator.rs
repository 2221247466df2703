//! The open-loop generator: every event has its intended moment, and a slow server does not slow the offer.
//!
//! One thread sends what is due in small ticks over many keep-alive connections. What finds no free connection waits;
//! what has waited too long is never sent and counts as failed. Latency counts from the intended moment.

mod pace;
mod pool;
mod told;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use self::pace::Pace;
use self::pool::{Flight, Pool};
pub use self::told::{Counts, StageTold, Told};
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::ledger::EventKey;
use crate::plan::{Cursor, Plan, Post};
use crate::request::{RequestWriter, Shape};
use crate::roster::Roster;

/// How often connections are searched for flights that take too long.
const EXPIRY_EVERY: Duration = Duration::from_millis(100);

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Address to connect to.
    pub address: SocketAddr,
    /// Value of the `host` field.
    pub host: String,
}

/// What a generator is to do.
#[derive(Debug, Clone)]
pub struct GeneratorConfig {
    /// Name of its thread.
    pub name: &'static str,
    /// Where requests go.
    pub target: Target,
    /// What to offer and when.
    pub plan: Arc<Plan>,
    /// Who drives.
    pub roster: Roster,
    /// Positions in a POST; 1 takes the path for single positions.
    pub positions_per_post: u32,
    /// Most connections at a time.
    pub connections: usize,
    /// How often due events are sent and answers taken in.
    pub tick: Duration,
    /// An event that could not be sent this long after its moment is never sent.
    pub send_within: Duration,
    /// A request that has no answer after this time has an unknown outcome.
    pub answer_within: Duration,
}

/// Counters of a running generator, written once a tick.
#[derive(Debug, Default)]
pub struct Live {
    offered: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    connections: AtomicU64,
}

/// A reading of [`Live`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveCounts {
    /// Events whose moment has come.
    pub offered: u64,
    /// Events accepted.
    pub accepted: u64,
    /// Events refused.
    pub refused: u64,
    /// Events never sent or of unknown outcome.
    pub failed: u64,
    /// Open connections.
    pub connections: u64,
}

impl Live {
    /// The counters as they stand.
    #[must_use]
    pub fn read(&self) -> LiveCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LiveCounts {
            offered: get(&self.offered),
            accepted: get(&self.accepted),
            refused: get(&self.refused),
            failed: get(&self.failed),
            connections: get(&self.connections),
        }
    }
}

const GO: u8 = 0;
const STOP: u8 = 1;
const ABORT: u8 = 2;

/// A running generator. Dropping it aborts it.
#[derive(Debug)]
pub struct Handle {
    live: Arc<Live>,
    order: Arc<AtomicU8>,
    thread: Option<JoinHandle<Told>>,
}

impl Handle {
    /// The counters as they stand.
    #[must_use]
    pub fn live(&self) -> LiveCounts {
        self.live.read()
    }

    /// The counters, for others to read.
    #[must_use]
    pub fn counters(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Ends the offer at this moment; what was offered is still sent and awaited.
    pub fn stop(&self) {
        self.order.fetch_max(STOP, Ordering::Relaxed);
    }

    /// Ends at once; what is unanswered has an unknown outcome.
    pub fn abort(&self) {
        self.order.fetch_max(ABORT, Ordering::Relaxed);
    }

    /// Whether the thread has ended, so that [`Self::join`] does not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end. `None` when the thread panicked.
    #[must_use]
    pub fn join(mut self) -> Option<Told> {
        self.thread.take()?.join().ok()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.abort();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

/// Starts a generator on a thread of its own.
pub fn spawn(config: GeneratorConfig, clock: Clock) -> io::Result<Handle> {
    let live = Arc::new(Live::default());
    let order = Arc::new(AtomicU8::new(GO));
    let name = config.name.to_owned();
    let generator = Generator::new(config, clock, Arc::clone(&live), Arc::clone(&order))?;
    let thread = std::thread::Builder::new().name(name).spawn(|| generator.run())?;
    Ok(Handle { live, order, thread: Some(thread) })
}

struct Generator {
    config: GeneratorConfig,
    clock: Clock,
    live: Arc<Live>,
    order: Arc<AtomicU8>,
    shape: Shape,
    writer: RequestWriter,
    fleet: Fleet,
    pool: Pool,
    pace: Pace,
    cursor: Cursor,
    told: Told,
    /// No event due later than this is offered.
    offer_until: Duration,
}

impl Generator {
    fn new(config: GeneratorConfig, clock: Clock, live: Arc<Live>, order: Arc<AtomicU8>) -> io::Result<Self> {
        let shape = if config.positions_per_post == 1 { Shape::Single } else { Shape::Batch };
        let drivers = config.plan.stages().map(|stage| stage.drivers).max().unwrap_or(1);
        Ok(Self {
            shape,
            writer: RequestWriter::new(&config.target.host, shape),
            fleet: Fleet::new(drivers),
            pool: Pool::new(config.target.address, config.connections)?,
            pace: Pace::of(&config.plan, config.positions_per_post),
            cursor: Cursor::default(),
            told: Told::new(Arc::clone(&config.plan), shape),
            offer_until: config.plan.end(),
            config,
            clock,
            live,
            order,
        })
    }

    fn run(mut self) -> Told {
        let mut tick = self.clock.instant(Duration::ZERO);
        let mut expiry = Duration::ZERO;
        pause_until(tick);
        while !self.done() {
            self.take_answers();
            let now = self.clock.now();
            self.send_due(now);
            if now >= expiry {
                expiry = now + EXPIRY_EVERY;
                self.give_up_before(now.saturating_sub(self.config.answer_within));
                self.pool.close_idle(now);
            }
            self.publish(now);
            tick = (tick + self.config.tick).max(Instant::now());
            pause_until(tick);
        }
        self.give_up_before(Duration::MAX);
        self.publish(self.clock.now());
        self.told
    }

    fn done(&mut self) -> bool {
        match self.order.load(Ordering::Relaxed) {
            ABORT => return true,
            STOP => self.offer_until = self.offer_until.min(self.clock.now()),
            _ => {}
        }
        self.pool.busy() == 0 && self.next_post(self.offer_until).is_none() && self.clock.now() >= self.offer_until
    }

    /// The next POST, if it is due by `now` and offered at all.
    fn next_post(&self, now: Duration) -> Option<Post> {
        let post = self.config.plan.post_at(self.cursor, self.config.positions_per_post)?;
        (post.due <= now.min(self.offer_until)).then_some(post)
    }

    fn take_answers(&mut self) {
        let (told, clock) = (&mut self.told, self.clock);
        self.pool.turn(&clock, &mut |flight, heard| told.hear(&flight, &heard, clock.now()));
    }

    fn give_up_before(&mut self, deadline: Duration) {
        let (told, clock) = (&mut self.told, self.clock);
        self.pool.give_up_before(deadline, &mut |flight, heard| told.hear(&flight, &heard, clock.now()));
    }

    fn send_due(&mut self, now: Duration) {
        let mut allowed = self.pace.allowance(now);
        while let Some(post) = self.next_post(now) {
            if now.saturating_sub(post.first_due) > self.config.send_within {
                let first = self.enter(&post);
                self.told.never_sent(first, &post, now);
            } else if allowed == 0 {
                break;
            } else if self.send(&post).is_some() {
                self.enter(&post);
                allowed -= 1;
            } else {
                self.pool.widen(self.waiting(now), now);
                break;
            }
            self.cursor = Cursor::behind(&post);
        }
        self.pace.give_back(allowed);
    }

    fn send(&mut self, post: &Post) -> Option<()> {
        self.writer.begin(self.shape);
        for item in 0..post.events {
            let (slot, at) = self.turn_of(post, item);
            let position = self.fleet.advance(slot, millis(at));
            self.writer.position(&self.config.roster, slot, &position, self.clock.wall_ms(at));
        }
        let request = self.writer.finish(self.shape);
        let flight = Flight { first: self.told.ledger.len(), post: *post, sent_at: self.clock.now() };
        self.pool.send(request, flight)
    }

    fn enter(&mut self, post: &Post) -> usize {
        let first = self.told.ledger.len();
        for item in 0..post.events {
            let (slot, at) = self.turn_of(post, item);
            self.told.ledger.enter(EventKey::new(self.config.roster.tag(slot), millis(at)));
        }
        first
    }

    fn turn_of(&self, post: &Post, item: u32) -> (u32, Duration) {
        let index = post.index + u64::from(item);
        (self.config.plan.driver(post.stage, index), self.config.plan.moment(post.stage, index))
    }

    /// POSTs that are due and not yet sent.
    fn waiting(&self, now: Duration) -> usize {
        let events = self.config.plan.events_before(now).saturating_sub(self.told.ledger.len() as u64);
        usize::try_from(events.div_ceil(u64::from(self.config.positions_per_post))).unwrap_or(usize::MAX)
    }

    fn publish(&self, now: Duration) {
        let totals = self.told.totals;
        let put = |counter: &AtomicU64, value| counter.store(value, Ordering::Relaxed);
        put(&self.live.offered, self.config.plan.events_before(now.min(self.offer_until)));
        put(&self.live.accepted, totals.accepted);
        put(&self.live.refused, totals.refused);
        put(&self.live.failed, totals.unknown + totals.never_sent);
        put(&self.live.connections, self.pool.open() as u64);
    }
}

fn millis(at: Duration) -> u32 {
    u32::try_from(at.as_millis()).expect("a run is shorter than 49 days")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the passing of a tick is the condition: waking for every answer would cost more than the answer"
)]
fn pause_until(tick: Instant) {
    std::thread::sleep(tick.saturating_duration_since(Instant::now()));
}
