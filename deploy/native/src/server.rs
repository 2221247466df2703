//! One server of a stack: the same port and the same data through any number of stops, kills and starts.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::process::{Identity, Launch, Probe, Process};
use crate::{Error, wait};

/// From the start to the first answer. Kafka needs two seconds on an idle machine; a busy one gets the rest.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A server that can be stopped and started again.
pub struct Server {
    launch: Launch,
    port: u16,
    probe: Box<dyn Fn() -> Probe + Send + Sync>,
    process: Mutex<Option<Process>>,
}

impl Server {
    /// `probe` tells whether the server answers; it is asked until it does.
    pub(crate) fn new(launch: Launch, port: u16, probe: impl Fn() -> Probe + Send + Sync + 'static) -> Self {
        Self { launch, port, probe: Box::new(probe), process: Mutex::new(None) }
    }

    /// The first start: a port that somebody else took meanwhile is an error at once, so that another can be drawn.
    pub(crate) fn start_first(&self) -> Result<(), Error> {
        let mut process = self.lock();
        if process.as_ref().is_some_and(|process| process.status().is_none()) {
            return Ok(());
        }
        let started = Process::spawn(&self.launch)?;
        started.wait_until_ok(START_LIMIT, &self.probe)?;
        *process = Some(started);
        Ok(())
    }

    /// Starts it on its port and its data, and waits until it answers. Nothing happens when it is running.
    ///
    /// # Errors
    /// What its process said when it ended early, or the last answer after 90 s.
    pub fn start(&self) -> Result<(), Error> {
        // What a killed server leaves behind (a port, shared memory) is freed within moments.
        let mut taken = Ok(());
        let outcome = wait::poll_until(START_LIMIT, || match self.start_first() {
            Err(error) if error.is_conflict() => {
                taken = Err(error);
                None
            }
            outcome => Some(outcome),
        });
        outcome.unwrap_or(taken)
    }

    /// Stops it in good order and waits for its end.
    pub fn stop(&self) {
        if let Some(process) = self.lock().take() {
            process.stop();
        }
    }

    /// Kills it (SIGKILL), with its children, and waits for its end.
    pub fn kill(&self) {
        if let Some(process) = self.lock().take() {
            process.kill();
        }
    }

    /// Stops the time for it (SIGSTOP): its connections stay open and nobody answers.
    pub fn freeze(&self) {
        if let Some(process) = &*self.lock() {
            process.freeze();
        }
    }

    /// Lets the time go on for it (SIGCONT).
    pub fn thaw(&self) {
        if let Some(process) = &*self.lock() {
            process.thaw();
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &*self.lock() {
            process.signal(signal);
        }
    }

    /// Its process number while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.identity().map(|identity| identity.pid)
    }

    /// Its process while it runs, in a form that never means another one.
    pub fn identity(&self) -> Option<Identity> {
        self.lock().as_ref().filter(|process| process.status().is_none()).map(Process::identity)
    }

    /// Whether its process runs, frozen or not.
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// Its port on 127.0.0.1, the same after each start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its log file, which all its starts share.
    pub fn log_path(&self) -> &Path {
        self.launch.log_path()
    }

    /// Its name in the stack: `kafka-1`, `redis`, `postgres`.
    pub fn name(&self) -> &str {
        self.launch.name()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name()).field("port", &self.port).finish_non_exhaustive()
    }
}
