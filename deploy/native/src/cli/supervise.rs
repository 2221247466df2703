//! The process that holds a stack: in the foreground until Ctrl-C, or in the background until `down`.

use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use nix::unistd::setsid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::services::{self, Service};
use super::state::{Member, Phase, State};
use super::{Failure, What, read_line, say};
use crate::process::Identity;
use crate::stack::Home;
use crate::{Error, KafkaOptions, Ports, Stack, StackOptions, stop_everything};

/// What `up` waits for on our standard output.
pub(super) const READY: &str = "ready";
/// What `up` says on our standard input when it leaves us alone; its end without that means that it was interrupted.
pub(super) const DETACH: &[u8] = b"detach\n";

enum Event {
    Up(Box<Result<Running, Error>>),
    Stop,
}

/// Fields are dropped in this order: services first.
struct Running {
    services: Vec<Service>,
    stack: Stack,
}

/// Starts, prints the addresses, and waits for Ctrl-C.
pub(super) fn in_foreground(dir: &Path, what: &What) -> Result<(), Failure> {
    let stop = stop_signals()?;
    supervise(dir, what, stop, None, |state| say(format!("{}\nCtrl-C stops it", state.addresses())))
}

/// The same for `up`: out of its session, so that the end of its terminal does not reach us.
pub(super) fn in_background(dir: &Path, what: &What) -> Result<(), Failure> {
    let stop = stop_signals()?;
    setsid().map_err(|errno| Failure::Said(format!("cannot leave the session: {errno}")))?;
    let outcome = supervise(dir, what, stop, Some(io::stdin()), |_state| say(READY));
    outcome.inspect_err(|failure| drop(say(format!("error: {failure}"))))
}

/// Handled, not blocked: what we start would inherit a block.
fn stop_signals() -> Result<Signals, Failure> {
    Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| Failure::Said(format!("cannot handle signals: {error}")))
}

fn supervise(
    dir: &Path,
    what: &What,
    stop: Signals,
    starter: Option<io::Stdin>,
    announce: impl FnOnce(&State) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let home = Home::claim(dir)?;
    write_state(&home, Phase::Starting, Vec::new())?;
    let (sender, events) = sync_channel(4);
    watch_signals(stop, sender.clone());
    watch_starter(starter, sender.clone());
    bring_up(home.clone(), what.clone(), sender);
    // A closed channel means that a thread died of a panic: stop as well.
    let running = match events.recv() {
        Ok(Event::Up(running)) => (*running)?,
        Ok(Event::Stop) | Err(_) => return stop_all(&home),
    };
    let state = write_state(&home, Phase::Up, running.members())?;
    announce(&state)?;
    let _stop = events.recv();
    drop(running);
    stop_all(&home)
}

/// Whatever a start in another thread is at: nothing is left, and nothing new begins.
fn stop_all(home: &Home) -> Result<(), Failure> {
    stop_everything();
    State::remove(home.dir());
    Ok(())
}

fn watch_signals(mut signals: Signals, sender: SyncSender<Event>) {
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // Nobody listens when all is over already.
            let _over = sender.send(Event::Stop);
        }
    });
}

/// Ends with a word of the starter; its end without one is a reason to stop.
fn watch_starter(starter: Option<io::Stdin>, sender: SyncSender<Event>) {
    let Some(starter) = starter else { return };
    thread::spawn(move || {
        if read_line(starter).is_none() {
            let _over = sender.send(Event::Stop);
        }
    });
}

fn bring_up(home: Home, what: What, sender: SyncSender<Event>) {
    thread::spawn(move || {
        let running = Box::new(Running::start(home, &what));
        let _over = sender.send(Event::Up(running));
    });
}

impl Running {
    fn start(home: Home, what: &What) -> Result<Self, Error> {
        let kafka = KafkaOptions { brokers: usize::from(what.kafka_brokers), ..KafkaOptions::single() };
        let options = StackOptions { dir: home.dir().to_owned(), kafka: Some(kafka), redis: true, postgres: true };
        let stack = Stack::start_in(home, Ports::Default, options)?;
        let services = if what.with_services { services::start(&stack)? } else { Vec::new() };
        Ok(Self { services, stack })
    }

    fn members(&self) -> Vec<Member> {
        let server =
            |name: &str, address: String, process| Member { name: name.to_owned(), address, metrics: None, process };
        let (redis, postgres) = (&self.stack.redis, &self.stack.postgres);
        let brokers = self.stack.kafka.brokers().iter();
        brokers
            .map(|broker| server(broker.name(), broker.address(), broker.identity()))
            .chain([server(redis.name(), redis.url(), redis.identity())])
            .chain([server(postgres.name(), postgres.url(), postgres.identity())])
            .chain(self.services.iter().map(Service::member))
            .collect()
    }
}

fn write_state(home: &Home, phase: Phase, members: Vec<Member>) -> Result<State, Failure> {
    let dir = home.dir();
    let supervisor = Identity::of_self().map_err(Error::io("look at", Path::new("/proc/self")))?;
    let state = State { phase, supervisor, members };
    state.write(dir).map_err(Error::io("write", dir))?;
    Ok(state)
}
