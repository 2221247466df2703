//! The steps that scenarios are made of: start, offer, watch, break, wait, drain, count. What is seen goes into the evidence.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, sleep_until, timeout};

use crate::audit;
use crate::clock::{Clock, unix_ms};
use crate::cluster::{Cluster, Lags, partition_of};
use crate::config::DemoArgs;
use crate::error::RunError;
use crate::evidence::Evidence;
use crate::generator::{self, GeneratorConfig, Handle};
use crate::plan::Plan;
use crate::poison;
use crate::prober::{self, DRIVERS_PER_PARTITION, Prober, ProberConfig};
use crate::recovery::Look;
use crate::redis::Redis;
use crate::roster::Roster;
use crate::sampler::{Sample, SamplerTask, Watched};
use crate::screen::{self, Screen};
use crate::system::{GROUPS, PARTITIONS, System, TOPIC};
use crate::tuning;
use crate::witness::{Place, Witness, WitnessError};

/// How often a service that ended is noticed.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often the pipeline is looked at while it recovers.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often Redis is asked whether it answers again.
const PING_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for a fresh map; the limit of the specification is far below.
const RECOVERY_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait for Redis to answer after it was started.
const REDIS_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait for both groups to reach the end of the log.
const DRAIN_WITHIN: Duration = Duration::from_secs(300);
/// Looks in a row without lag that count as drained.
const DRAINED_LOOKS: u32 = 2;
/// After the last position, the time that it has to show in Redis.
const LAST_PROBES_WITHIN: Duration = Duration::from_secs(3);
/// Longest wait for a start that was cut off; an installation under way is not waited for.
const START_ENDS_WITHIN: Duration = Duration::from_secs(15);
/// What follows the stages that the report is about, roughly; for the progress bar alone.
const AFTERWARDS: Duration = Duration::from_secs(25);

/// A run in progress.
pub struct Run {
    /// Everything seen so far.
    pub evidence: Evidence,
    positions_per_post: u32,
    screen: Screen,
    phase: Phase,
    /// The start of the system; still there when the run is cut off meanwhile.
    starting: Option<JoinHandle<Result<System, native::Error>>>,
    system: Option<Arc<System>>,
    load: Option<Load>,
    samples: Arc<Mutex<Vec<Sample>>>,
}

/// What the run does at the moment, for the line of each second.
#[derive(Clone, Default)]
struct Phase(Arc<Mutex<String>>);

impl Phase {
    fn set(&self, name: &str) {
        name.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Everything that goes on while load is offered.
struct Load {
    clock: Clock,
    plan: Arc<Plan>,
    generator: Handle,
    prober: Prober,
    cluster: Arc<Cluster>,
    watched: Watched,
    sampler: JoinHandle<()>,
}

impl Run {
    /// A run that has not begun.
    #[must_use]
    pub fn new(args: &DemoArgs, screen: Screen) -> Self {
        let evidence = Evidence {
            scenario: args.scenario.name(),
            positions_per_post: args.positions_per_post,
            machine: audit::hardware(),
            ..Evidence::default()
        };
        Self {
            evidence,
            positions_per_post: args.positions_per_post,
            screen,
            phase: Phase::default(),
            starting: None,
            system: None,
            load: None,
            samples: Arc::default(),
        }
    }

    /// Starts servers and services.
    pub async fn start_system(&mut self) -> Result<(), RunError> {
        self.screen.line("starting Kafka, Redis, PostgreSQL and the five services");
        let starting = self.starting.insert(spawn_blocking(System::start));
        let started = starting.await;
        self.starting = None;
        let system = started.map_err(|_| RunError::Panicked("the start of the stack"))??;
        self.evidence.machine = audit::machine(&system).await;
        self.screen.line(&format!("everything runs; logs are in {}", system.logs().display()));
        self.system = Some(Arc::new(system));
        Ok(())
    }

    /// Begins to offer `plan`, whose stages `judged` the report is about, and to watch.
    pub async fn begin(&mut self, plan: Plan, judged: Range<usize>) -> Result<(), RunError> {
        let system = self.system();
        let plan = Arc::new(plan);
        let whole = plan.window(judged.end - 1).1 + AFTERWARDS;
        (self.evidence.plan, self.evidence.judged) = (Some(Arc::clone(&plan)), judged);
        let cluster = Arc::new(Cluster::new(&system.bootstrap(), TOPIC, GROUPS));
        check_partitions(&cluster).await?;
        let clock = Clock::starting_in(tuning::START_IN);
        let generator = generator::spawn(self.generator_config(&system, &plan), clock)?;
        let prober = Prober::start(prober_config(&system), clock)?;
        let watched = Watched::default();
        system.watch(&watched);
        let sampler = SamplerTask {
            clock,
            cluster: Arc::clone(&cluster),
            tracker: prober.shared_tracker(),
            load: generator.counters(),
            watched: watched.clone(),
        };
        let sampler = tokio::spawn(sampler.run(self.look(whole)));
        self.load = Some(Load { clock, plan, generator, prober, cluster, watched, sampler });
        Ok(())
    }

    fn generator_config(&self, system: &System, plan: &Arc<Plan>) -> GeneratorConfig {
        GeneratorConfig {
            name: "generator",
            target: system.target(),
            plan: Arc::clone(plan),
            roster: Roster::Crowd,
            positions_per_post: self.positions_per_post,
            connections: tuning::CONNECTIONS,
            tick: tuning::TICK,
            send_within: tuning::SEND_WITHIN,
            answer_within: tuning::ANSWER_WITHIN,
        }
    }

    /// Keeps each sample and shows it.
    fn look(&self, whole: Duration) -> impl FnMut(Sample) + Send + use<> {
        let (samples, screen, phase) = (Arc::clone(&self.samples), self.screen.clone(), self.phase.clone());
        let mut before = Sample::default();
        move |sample| {
            let doing = phase.get();
            screen.progress(sample.at.min(whole), whole, &doing);
            screen.line(&screen::second(&sample, &before, &doing));
            before = sample.clone();
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        }
    }

    /// Moment of the run.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.load.as_ref().map_or(Duration::ZERO, |load| load.clock.now())
    }

    /// Names what follows.
    pub fn enter(&self, phase: &str) {
        self.phase.set(phase);
    }

    /// Waits for a moment of the run, or ends early when a service has ended.
    pub async fn until(&self, moment: Duration) -> Result<(), RunError> {
        let clock = self.load().clock;
        while clock.now() < moment {
            sleep_until(clock.instant(moment.min(clock.now() + CHECK_EVERY))).await;
            self.check_services()?;
        }
        Ok(())
    }

    fn check_services(&self) -> Result<(), RunError> {
        self.system().fallen().map_or(Ok(()), |fallen| Err(RunError::Fallen(fallen)))
    }

    /// Puts the malformed records into the topic, each into a partition of its own. The run goes on without them.
    pub async fn put_poison(&mut self) {
        match put_poison(&self.system().bootstrap()).await {
            Ok(places) => self.evidence.poison = places,
            Err(error) => self.evidence.troubles.push(error.to_string()),
        }
        let (sent, kinds) = (self.evidence.poison.len(), poison::Kind::ALL.len());
        self.screen
            .line(&format!("        {sent} malformed records of {kinds} kinds were put into as many partitions"));
    }

    /// Waits until map and Redis group have caught up, at most until `latest`.
    pub async fn settle(&self, latest: Duration) -> Result<(), RunError> {
        while self.now() < latest && !self.take_look().await.is_fresh() {
            sleep(LOOK_EVERY).await;
            self.check_services()?;
        }
        Ok(())
    }

    async fn take_look(&self) -> Look {
        let load = self.load();
        let lags = load.cluster.lags().await;
        let at = load.clock.now();
        let staleness_p99_ms = load.prober.tracker().p99_ms(at);
        Look { at, staleness_p99_ms, lag: lags.redis }
    }

    /// Stops Redis for `away`, starts it again, and watches until the map is fresh.
    pub async fn redis_outage(&mut self, away: Duration) -> Result<(), RunError> {
        let system = self.system();
        self.screen.line(&format!("        Redis is stopped for {} s", away.as_secs()));
        blocking(Arc::clone(&system), System::stop_redis).await?;
        let stopped = self.now();
        self.until(stopped + away).await?;
        let starting = spawn_blocking({
            let system = Arc::clone(&system);
            move || system.start_redis()
        });
        let answering = self.redis_answers(self.now() + REDIS_WITHIN).await;
        starting.await.map_err(|_| RunError::Panicked("the start of Redis"))??;
        system.watch(&self.load().watched);
        self.screen.line("        Redis answers again");
        self.evidence.outage = Some((stopped, answering));
        self.watch_recovery(answering + RECOVERY_WITHIN).await
    }

    async fn redis_answers(&self, latest: Duration) -> Duration {
        let address = self.system().redis();
        while self.now() < latest && Redis::connect(address).await.is_err() {
            sleep(PING_EVERY).await;
        }
        self.now()
    }

    async fn watch_recovery(&mut self, latest: Duration) -> Result<(), RunError> {
        loop {
            let look = self.take_look().await;
            self.evidence.looks.push(look);
            if look.is_fresh() || look.at >= latest {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
            self.check_services()?;
        }
    }

    /// Ends the offer, and waits until all that was offered is answered and both groups are at the end of the log.
    pub async fn drain(&mut self) -> Result<(), RunError> {
        let load = self.load();
        load.generator.stop();
        load.prober.stop_posting();
        while !(load.generator.is_finished() && load.prober.has_posted()) {
            sleep(LOOK_EVERY).await;
        }
        let latest = self.now() + DRAIN_WITHIN;
        let mut drained = 0;
        while drained < DRAINED_LOOKS {
            let lags = self.load().cluster.lags().await;
            drained = if is_drained(&lags) { drained + 1 } else { 0 };
            if self.now() > latest {
                let left = format!("{lags:?} after {} s", DRAIN_WITHIN.as_secs());
                self.evidence.troubles.push(format!("the groups did not reach the end of the log: {left}"));
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
            self.check_services()?;
        }
        self.await_last_probes().await;
        Ok(())
    }

    async fn await_last_probes(&self) {
        let latest = self.now() + LAST_PROBES_WITHIN;
        while self.now() < latest && self.load().prober.tracker().outstanding().next().is_some() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends what still goes on, and takes what it knows into the evidence.
    pub async fn collect(&mut self) -> Option<Clock> {
        let load = self.load.take()?;
        let now = load.clock.now();
        self.evidence.played = now;
        let windows = (0..self.evidence.judged.end).map(|stage| load.plan.window(stage));
        let tracker = load.prober.shared_tracker();
        self.evidence.staleness =
            windows.map(|(from, until)| prober::lock(&tracker).summary(from, until, now)).collect();
        load.sampler.abort();
        let probes = load.prober.finish();
        load.generator.abort();
        probes.abort();
        self.evidence.surge = tuning::join(load.generator).await;
        self.evidence.probes = tuning::join(probes).await;
        self.evidence.samples = std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner));
        Some(load.clock)
    }

    /// Counts every record. The load has ended.
    pub async fn count(&mut self) -> Result<(), RunError> {
        let system = self.system();
        let Some(clock) = self.collect().await else { return Ok(()) };
        Ok(audit::audit(&system, &mut self.evidence, clock.base_ms(), &self.screen).await?)
    }

    /// Stops services and servers, and notes what did not end as it should.
    pub async fn stop_system(&mut self) {
        if let Some(system) = self.system.take() {
            self.screen.line("stopping the services and the servers");
            let troubles = blocking(system, System::stop).await.unwrap_or_default();
            self.evidence.troubles.extend(troubles);
        }
        // A start that was cut off finds that nothing more may be started, and ends.
        let _stopped = spawn_blocking(native::stop_everything).await;
        if let Some(starting) = self.starting.take() {
            let _ended = timeout(START_ENDS_WITHIN, starting).await;
        }
    }

    fn system(&self) -> Arc<System> {
        Arc::clone(self.system.as_ref().expect("a scenario starts the system first"))
    }

    fn load(&self) -> &Load {
        self.load.as_ref().expect("a scenario begins its load before it watches it")
    }
}

async fn blocking<T: Send + 'static>(system: Arc<System>, work: fn(&System) -> T) -> Result<T, RunError> {
    spawn_blocking(move || work(&system)).await.map_err(|_| RunError::Panicked("a step on the stack"))
}

async fn put_poison(bootstrap: &str) -> Result<BTreeSet<Place>, WitnessError> {
    Witness::connect(bootstrap).await?.put(TOPIC, poison::records(unix_ms())).await
}

fn prober_config(system: &System) -> ProberConfig {
    let roster = Roster::probes(PARTITIONS, DRIVERS_PER_PARTITION, |id| partition_of(id, PARTITIONS));
    ProberConfig { target: system.target(), redis: system.redis(), roster, drivers: PARTITIONS * DRIVERS_PER_PARTITION }
}

async fn check_partitions(cluster: &Cluster) -> Result<(), RunError> {
    match cluster.partitions().await {
        Ok(PARTITIONS) => Ok(()),
        Ok(other) => Err(RunError::Topic(format!("{TOPIC} has {other} partitions, and {PARTITIONS} are specified"))),
        Err(error) => Err(RunError::Topic(error)),
    }
}

fn is_drained(lags: &Lags) -> bool {
    lags.redis == Some(0) && lags.analytics == Some(0)
}
