//! A process of ours that cannot outlive us: started behind a gate, watched by a guard that hangs on a life line (a
//! pipe), signalled only while its number is certainly its own, stopped when dropped.
//!
//! ```text
//! us ──"go"──▶ gate ──exec──▶ the program        (its own process group: a Ctrl-C for us does not reach it)
//!  └─life line─▶ guard.sh ──TERM, then KILL──▲    (only when the life line closes without a word)
//! ```

mod guard;
mod proc_fs;
mod registry;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use self::guard::Guard;
pub use self::proc_fs::Identity;
pub use self::registry::stop_everything;
use crate::{Error, http, wait};

/// How long a service may drain after its stop signal before it is killed, unless its launch says otherwise: longer than
/// the limit that the services set themselves (25 s).
const SERVICE_GRACE: Duration = Duration::from_secs(30);
/// A killed process is gone as soon as the kernel has freed its memory.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// How long a probe rests between two looks; an early end of the process wakes it at once.
const PROBE_INTERVAL: Duration = Duration::from_millis(25);
/// How much of a log an error shows.
const TAIL_LINES: usize = 15;
const TAIL_BYTES: u64 = 16 << 10;
/// How much of it is searched for the reason of an early end: all of a start that failed.
const LOG_BYTES: u64 = 1 << 20;
/// How the servers say that somebody else has their port, or PostgreSQL its memory.
const TAKEN_SIGNS: [&str; 2] = ["Address already in use", "pre-existing shared memory block"];
/// Waits for the word that the guard is in place, then becomes the program; ends when the starter does.
const GATE: &str = r#"read -r word && [ "$word" = go ] || exit 125; exec "$@" < /dev/null"#;

/// When a process is stopped as everything ends: those that use the servers first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Service,
    Server,
}

/// What to start, and how to stop it.
#[derive(Debug, Clone)]
pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: PathBuf,
    stop_signal: Signal,
    grace: Duration,
    role: Role,
    dir_lock: Option<Arc<File>>,
}

impl Launch {
    /// `program` under `name`, its output appended to `log`; stopped by SIGTERM with 30 s to drain.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: log.into(),
            stop_signal: Signal::SIGTERM,
            grace: SERVICE_GRACE,
            role: Role::Service,
            dir_lock: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Stops it by `signal`, and by SIGKILL when it is still there after `grace`.
    #[must_use]
    pub fn stopped_by(mut self, signal: Signal, grace: Duration) -> Self {
        (self.stop_signal, self.grace) = (signal, grace);
        self
    }

    /// Marks a server: stopped after the services that use it.
    pub(crate) fn server(mut self) -> Self {
        self.role = Role::Server;
        self
    }

    /// Keeps `dir_lock` held until its guard has ended as well.
    pub(crate) fn holding(mut self, dir_lock: &Arc<File>) -> Self {
        self.dir_lock = Some(Arc::clone(dir_lock));
        self
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// What a look at a starting process found.
pub(crate) type Probe = Result<(), String>;

#[derive(Debug, Clone, Copy)]
enum State {
    Running,
    Ended(ExitStatus),
}

/// A running process, or one that has ended and whose status is kept. Dropping it stops it.
#[derive(Debug)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    identity: Identity,
    log: PathBuf,
    /// Where this start begins in the log.
    log_start: u64,
    stop_signal: Signal,
    grace: Duration,
    role: Role,
    state: Mutex<State>,
    ended: Condvar,
}

impl Process {
    /// Starts what `launch` says; it is guarded from its first instruction on.
    ///
    /// # Errors
    /// When its log cannot be opened, the program is not there, or everything is being stopped.
    pub fn spawn(launch: &Launch) -> Result<Self, Error> {
        let program = find_program(&launch.program)
            .ok_or_else(|| Error::Missing(format!("{}: no such program", launch.program.display())))?;
        registry::admit(|| Inner::spawn(launch, &program)).map(|inner| Self { inner })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its process number. It belongs to another process some time after this one has ended.
    pub fn pid(&self) -> i32 {
        self.inner.identity.pid
    }

    /// Its number and the moment it was born: together they never mean another process.
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.inner.log
    }

    /// The last lines of its output since it was started.
    pub fn log_tail(&self) -> String {
        tail(&self.inner.log, self.inner.log_start)
    }

    /// How it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        match *self.inner.lock() {
            State::Running => None,
            State::Ended(status) => Some(status),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when it is still running after `limit`.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus, Error> {
        self.inner
            .wait(limit)
            .ok_or_else(|| Error::TimedOut { what: format!("{} (process {}) ends", self.name(), self.pid()), limit })
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        self.inner.signal(signal);
    }

    /// Stops it in good order: its stop signal, its grace, then SIGKILL. Returns how it ended.
    pub fn stop(&self) -> ExitStatus {
        self.inner.stop()
    }

    /// Kills it and its children (SIGKILL), and returns when it is gone.
    pub fn kill(&self) -> ExitStatus {
        self.inner.kill()
    }

    /// Stops the time for it and its children (SIGSTOP).
    pub fn freeze(&self) {
        self.inner.freeze();
    }

    /// Lets the time go on for it and its children (SIGCONT).
    pub fn thaw(&self) {
        self.inner.thaw();
    }

    /// Waits until `url` (its `/readyz`) answers 200.
    ///
    /// # Errors
    /// [`Error::Ended`] as soon as it ends, [`Error::NotReady`] with the last answer after `limit`.
    pub fn wait_ready(&self, url: &str, limit: Duration) -> Result<(), Error> {
        self.wait_until_ok(limit, || match http::get(url) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{url} answered {} {}", answer.status, answer.body.trim())),
            Err(error) => Err(format!("{url}: {error}")),
        })
    }

    /// Waits until `probe` finds it ready.
    pub(crate) fn wait_until_ok(&self, limit: Duration, mut probe: impl FnMut() -> Probe) -> Result<(), Error> {
        let deadline = wait::Deadline::after(limit);
        loop {
            let last_look = deadline.has_passed();
            let Err(last) = probe() else { return Ok(()) };
            // The status is asked for after the probe: an end between the two must not look like "not ready".
            if let Some(status) = self.inner.wait(PROBE_INTERVAL.min(deadline.remaining())) {
                return Err(self.ended(status));
            }
            if last_look {
                let (name, log) = (self.name().to_owned(), self.inner.log.clone());
                return Err(Error::NotReady { name, limit, last, log, tail: self.log_tail() });
            }
        }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        let (name, log) = (self.name().to_owned(), self.inner.log.clone());
        let said = read_end(&log, self.inner.log_start, LOG_BYTES);
        let tail = self.log_tail();
        match TAKEN_SIGNS.iter().any(|sign| said.contains(sign)) {
            true => Error::Taken { name, log, tail },
            false => Error::Ended { name, status, log, tail },
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

impl Inner {
    fn spawn(launch: &Launch, program: &Path) -> Result<Arc<Self>, Error> {
        let (log, log_start) = open_log(&launch.log)?;
        let mut child = start_gate(launch, program, log).map_err(Error::io("start", program))?;
        let gate = child.stdin.take();
        let identity = Identity::of_child(&child).map_err(Error::io("look at", program))?;
        let inner = Arc::new(Self {
            name: launch.name.clone(),
            identity,
            log: launch.log.clone(),
            log_start,
            stop_signal: launch.stop_signal,
            grace: launch.grace,
            role: launch.role,
            state: Mutex::new(State::Running),
            ended: Condvar::new(),
        });
        let guard = Guard::start(&inner, launch.dir_lock.as_deref()).map_err(Error::io("guard", program))?;
        watch(Arc::clone(&inner), child, guard).map_err(Error::io("watch", program))?;
        open_gate(gate).map_err(Error::io("start", program))?;
        Ok(inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let running = |state: &mut State| matches!(state, State::Running);
        let (state, _) =
            self.ended.wait_timeout_while(self.lock(), limit, running).unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Running => None,
            State::Ended(status) => Some(status),
        }
    }

    /// Runs `act` only while the number is still this process's: it is reaped under the same lock.
    fn while_running(&self, act: impl FnOnce(Pid)) {
        let state = self.lock();
        if matches!(*state, State::Running) {
            act(Pid::from_raw(self.identity.pid));
        }
    }

    fn signal(&self, signal: Signal) {
        self.while_running(|pid| send(pid, signal));
    }

    fn ask_to_stop(&self) {
        self.signal(self.stop_signal);
        // A frozen process would not see it.
        self.thaw();
    }

    fn stop(&self) -> ExitStatus {
        self.ask_to_stop();
        self.wait(self.grace).unwrap_or_else(|| self.kill())
    }

    /// The parent is stopped first and killed last: until then no child's number can pass to somebody else.
    fn kill(&self) -> ExitStatus {
        self.while_running(|pid| {
            send(pid, Signal::SIGSTOP);
            proc_fs::children(pid).into_iter().for_each(|child| send(child, Signal::SIGKILL));
            send(pid, Signal::SIGKILL);
        });
        self.wait(KILL_LIMIT).expect("the kernel ends a process that got SIGKILL")
    }

    fn freeze(&self) {
        self.while_running(|pid| {
            send(pid, Signal::SIGSTOP);
            proc_fs::children(pid).into_iter().for_each(|child| send(child, Signal::SIGSTOP));
        });
    }

    fn thaw(&self) {
        self.while_running(|pid| {
            proc_fs::children(pid).into_iter().for_each(|child| send(child, Signal::SIGCONT));
            send(pid, Signal::SIGCONT);
        });
    }
}

/// A process that has just ended has nothing to be told.
fn send(pid: Pid, signal: Signal) {
    let _gone = kill(pid, signal);
}

/// One thread sleeps in the kernel until the process ends, releases the guard, and only then gives the number back.
fn watch(inner: Arc<Inner>, mut child: Child, guard: Guard) -> io::Result<()> {
    let body = move || {
        let pid = Pid::from_raw(inner.identity.pid);
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        let mut state = inner.lock();
        let guard = guard.release();
        if let Ok(status) = child.wait() {
            *state = State::Ended(status);
        }
        drop(state);
        inner.ended.notify_all();
        guard.reap();
    };
    thread::Builder::new().name("native-watch".to_owned()).spawn(body).map(drop)
}

fn start_gate(launch: &Launch, program: &Path, log: File) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", GATE])
        .arg(&launch.name)
        .arg(program)
        .args(&launch.args)
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
}

fn open_gate(gate: Option<ChildStdin>) -> io::Result<()> {
    gate.ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"go\n")
}

/// The log, open at its end, and where that is.
fn open_log(path: &Path) -> Result<(File, u64), Error> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    }
    let file = File::options().create(true).append(true).open(path).map_err(Error::io("write", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    Ok((file, length))
}

/// The last lines of `log` behind `start`.
fn tail(log: &Path, start: u64) -> String {
    let text = read_end(log, start, TAIL_BYTES);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// The last `limit` bytes of `log` behind `start`; nothing where it cannot be read.
fn read_end(log: &Path, start: u64, limit: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let from = file.metadata()?.len().saturating_sub(limit).max(start);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// As the shell would find it: a path is taken as it is, a bare name is looked for in `PATH`.
pub(crate) fn find_program(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin").to_owned());
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}
