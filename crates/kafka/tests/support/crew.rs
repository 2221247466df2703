//! Members of a group, as tasks of the test and as processes: started, stopped, killed, frozen, and asked what they did.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use native::{Launch, Process, Signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::journal::{Entry, now_us};
use crate::member::{self, Journal, MemberOptions};
use crate::tenure::Told;

/// A member commits and says good-bye within a second; a broker that is just being restarted may hold that up.
const GRACE: Duration = Duration::from_secs(30);

/// A member that runs, or has run.
pub(crate) struct Hand {
    name: String,
    body: Body,
    killed_us: Option<i64>,
    left: bool,
}

enum Body {
    Task { journal: Arc<Mutex<Vec<Entry>>>, stop: CancellationToken, task: JoinHandle<()> },
    Process { process: Arc<Process>, log: PathBuf },
}

impl Hand {
    /// A member as a task of its own.
    pub(crate) fn task(options: MemberOptions) -> Self {
        let (journal, stop) = (Arc::<Mutex<Vec<Entry>>>::default(), CancellationToken::new());
        let name = options.client_id.clone();
        let task = tokio::spawn(member::run(options, Journal::Memory(Arc::clone(&journal)), stop.clone()));
        Self { name, body: Body::Task { journal, stop, task }, killed_us: None, left: false }
    }

    /// A member as a process of its own; its journal lies in `dir`, under its client id.
    pub(crate) async fn process(options: MemberOptions, dir: &Path) -> Self {
        let log = dir.join(format!("{}.journal", options.client_id));
        let (name, journal) = (options.client_id.clone(), log.clone());
        let start = move || {
            let binary = native::example_binary("member").expect("the member's binary");
            let launch = Launch::new(options.client_id.as_str(), binary, log).args(options.to_args());
            Process::spawn(&launch.stopped_by(Signal::SIGTERM, GRACE)).expect("a process")
        };
        let process = Arc::new(tokio::task::spawn_blocking(start).await.expect("no panic"));
        Self { name, body: Body::Process { process, log: journal }, killed_us: None, left: false }
    }

    pub(crate) fn was_killed(&self) -> bool {
        self.killed_us.is_some()
    }

    /// Whether it has neither left nor been killed.
    pub(crate) fn is_in(&self) -> bool {
        !self.left && self.killed_us.is_none()
    }

    /// Lets it leave in good order.
    pub(crate) async fn leave(&mut self) {
        self.left = true;
        match &mut self.body {
            Body::Task { stop, task, .. } => {
                stop.cancel();
                tokio::time::timeout(GRACE, task).await.expect("a member leaves").expect("no panic");
            }
            Body::Process { process, .. } => {
                let process = Arc::clone(process);
                let status = tokio::task::spawn_blocking(move || process.stop()).await.expect("no panic");
                assert!(status.success(), "{}: {status}", self.name);
            }
        }
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.on_process(|process| {
            process.kill();
        })
        .await;
        self.killed_us = Some(now_us());
    }

    /// SIGSTOP.
    pub(crate) async fn freeze(&self) {
        self.on_process(Process::freeze).await;
    }

    /// SIGCONT.
    pub(crate) async fn thaw(&self) {
        self.on_process(Process::thaw).await;
    }

    async fn on_process(&self, act: impl FnOnce(&Process) + Send + 'static) {
        let Body::Process { process, .. } = &self.body else { panic!("{} is a task", self.name) };
        let process = Arc::clone(process);
        tokio::task::spawn_blocking(move || act(&process)).await.expect("no panic");
    }

    /// What it wrote down so far.
    pub(crate) fn told(&self) -> Told {
        let entries = match &self.body {
            Body::Task { journal, .. } => journal.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Body::Process { log, .. } => read(log),
        };
        Told { member: self.name.clone(), entries, killed_us: self.killed_us }
    }
}

/// Whole lines only: the last one may be under way.
fn read(log: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(log).expect("a journal");
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("{}: {line}", log.display()))).collect()
}
