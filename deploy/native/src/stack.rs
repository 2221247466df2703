//! A stack: the servers that a test, the demo or a developer wants, in one directory of their own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::kafka::{self, Kafka, KafkaOptions};
use crate::ports::Wish;
use crate::postgres::{self, Postgres};
use crate::process::Launch;
use crate::redis::{self, Redis};
use crate::tools::{self, Tools};
use crate::{Error, binaries, wait};

/// How long a start waits for the guards of an earlier stack in the same directory that was killed.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(40);
/// How often another set of ports is drawn when somebody was faster.
const MAX_PORT_DRAWS: usize = 5;

/// Which servers, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackOptions {
    /// The stack's directory, see [`crate::stack_dir`]. What an earlier stack left in it is removed.
    pub dir: PathBuf,
    /// Kafka, if wanted.
    pub kafka: Option<KafkaOptions>,
    /// Whether Redis is wanted.
    pub redis: bool,
    /// Whether PostgreSQL is wanted.
    pub postgres: bool,
}

impl StackOptions {
    /// One broker, Redis and PostgreSQL in `target/native/NAME`.
    pub fn all(name: &str) -> Self {
        Self { dir: crate::stack_dir(name), kafka: Some(KafkaOptions::single()), redis: true, postgres: true }
    }
}

/// Which ports a stack would like to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Free ones: any number of stacks side by side.
    Free,
    /// 9092, 6379 and 5432, where the services look for them by default; a free one instead of each that is taken.
    Default,
}

impl Ports {
    fn wish(self, default: u16) -> Wish {
        match self {
            Self::Free => Wish::Any,
            Self::Default => Wish::Rather(default),
        }
    }
}

/// A server that a stack may have been started without.
#[derive(Debug)]
pub struct Part<T> {
    name: &'static str,
    server: Option<T>,
}

impl<T> Part<T> {
    /// The server, if the stack has it.
    pub fn get(&self) -> Option<&T> {
        self.server.as_ref()
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    /// # Panics
    /// When the stack was started without this server: a mistake in the options, not a condition of the machine.
    fn deref(&self) -> &T {
        self.server.as_ref().unwrap_or_else(|| panic!("the stack was started without {}", self.name))
    }
}

/// Running servers. Dropping it stops them; so does the end of this process, however it comes.
#[derive(Debug)]
pub struct Stack {
    /// Apache Kafka.
    pub kafka: Part<Kafka>,
    /// Redis.
    pub redis: Part<Redis>,
    /// PostgreSQL.
    pub postgres: Part<Postgres>,
    home: Home,
}

impl Stack {
    /// Starts the servers side by side on free ports and waits until each answers.
    ///
    /// # Errors
    /// What is missing on the machine, a directory in use, or a server that does not start. Nothing is left running.
    pub fn start(options: StackOptions) -> Result<Self, Error> {
        Self::start_on(Ports::Free, options)
    }

    /// The same on the ports of choice.
    ///
    /// # Errors
    /// See [`Stack::start`].
    pub fn start_on(ports: Ports, options: StackOptions) -> Result<Self, Error> {
        let home = Home::claim(&options.dir)?;
        Self::start_in(home, ports, options)
    }

    /// In a directory that is already ours.
    pub(crate) fn start_in(home: Home, ports: Ports, options: StackOptions) -> Result<Self, Error> {
        let tools = tools::ensure()?;
        let (kafka, redis, postgres) = thread::scope(|scope| {
            let starter = Starter { home: &home, tools: &tools, ports };
            let kafka = scope.spawn(move || options.kafka.as_ref().map(|kafka| starter.kafka(kafka)).transpose());
            let redis = scope.spawn(move || options.redis.then(|| starter.redis()).transpose());
            let postgres = scope.spawn(move || options.postgres.then(|| starter.postgres()).transpose());
            (joined(kafka), joined(redis), joined(postgres))
        });
        Ok(Self {
            kafka: Part { name: "Kafka", server: kafka? },
            redis: Part { name: "Redis", server: redis? },
            postgres: Part { name: "PostgreSQL", server: postgres? },
            home,
        })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.home.dir
    }

    /// Where the process `name` of this stack writes its log.
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.home.log_path(name)
    }

    /// One of our services, to be started with [`crate::Process::spawn`] once its arguments are added.
    ///
    /// # Errors
    /// When its binary cannot be built.
    pub fn service(&self, name: &str) -> Result<Launch, Error> {
        Ok(Launch::new(name, binaries::service_binary(name)?, self.log_path(name)).holding(self.home.lock()))
    }

    /// Stops all servers in good order.
    pub fn stop(&self) {
        self.stop_with(Kafka::stop);
    }

    fn stop_with(&self, stop_kafka: fn(&Kafka)) {
        thread::scope(|scope| {
            scope.spawn(|| self.kafka.get().map(stop_kafka));
            scope.spawn(|| self.redis.get().map(|redis| redis.stop()));
            scope.spawn(|| self.postgres.get().map(|postgres| postgres.stop()));
        });
    }
}

impl Drop for Stack {
    /// The data is of no use without its server and may be large; the logs stay until the next start. After a panic
    /// everything stays, for whoever looks into it.
    fn drop(&mut self) {
        self.stop_with(Kafka::discard);
        if !thread::panicking() {
            self.home.remove_data();
        }
    }
}

fn joined<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[derive(Clone, Copy)]
struct Starter<'a> {
    home: &'a Home,
    tools: &'a Tools,
    ports: Ports,
}

impl Starter<'_> {
    fn kafka(self, options: &KafkaOptions) -> Result<Kafka, Error> {
        self.draw(|ports| Kafka::start_new(self.home, self.tools, options, ports.wish(kafka::DEFAULT_PORT)))
    }

    fn redis(self) -> Result<Redis, Error> {
        self.draw(|ports| Redis::start_new(self.home, self.tools, ports.wish(redis::DEFAULT_PORT)))
    }

    fn postgres(self) -> Result<Postgres, Error> {
        self.draw(|ports| Postgres::start_new(self.home, self.tools, ports.wish(postgres::DEFAULT_PORT)))
    }

    /// Draws other ports when a stranger took one between our look and the server's.
    fn draw<T>(self, start: impl Fn(Ports) -> Result<T, Error>) -> Result<T, Error> {
        let mut outcome = start(self.ports);
        for _ in 1..MAX_PORT_DRAWS {
            match outcome {
                Err(error) if error.is_conflict() => outcome = start(Ports::Free),
                done => return done,
            }
        }
        outcome
    }
}

/// The directory of a stack, locked for as long as the stack or a guard of one of its servers is there.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    dir: PathBuf,
    lock: Arc<File>,
}

impl Home {
    /// Takes the directory, waiting for the guards of a stack that was killed, and empties it.
    pub(crate) fn claim(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        // Servers change their directory, so none of the paths may be relative.
        let dir = fs::canonicalize(dir).map_err(Error::io("look at", dir))?;
        refuse_foreign(&dir)?;
        let path = dir.join("lock");
        let mut lock =
            File::options().create(true).append(true).read(true).open(&path).map_err(Error::io("lock", &path))?;
        if wait::poll_until(limit_for(&mut lock), || lock.try_lock().ok()).is_none() {
            return Err(Error::DirInUse { dir, holder: holder(&mut lock) });
        }
        lock.set_len(0).map_err(Error::io("write", &path))?;
        lock.write_all(std::process::id().to_string().as_bytes()).map_err(Error::io("write", &path))?;
        let home = Self { dir, lock: Arc::new(lock) };
        home.empty()?;
        Ok(home)
    }

    /// An empty directory inside; what an earlier try left there is removed.
    pub(crate) fn fresh_dir(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.dir.join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(Error::io("remove", &dir))?;
        }
        fs::create_dir(&dir).map_err(Error::io("create", &dir))?;
        Ok(dir)
    }

    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    pub(crate) fn lock(&self) -> &Arc<File> {
        &self.lock
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether a stack, or a guard of one, is in the directory.
    pub(crate) fn is_taken(dir: &Path) -> bool {
        File::open(dir.join("lock")).is_ok_and(|lock| lock.try_lock_shared().is_err())
    }

    fn empty(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.dir).map_err(Error::io("read", &self.dir))?.flatten() {
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = match entry.file_name().to_str() {
                Some("lock") => Ok(()),
                _ if is_dir => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            removed.map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Everything but the logs; what cannot be removed now is removed at the next start.
    pub(crate) fn remove_data(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != "logs" {
                let _next_time = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A directory with files in it is a stack's only if a stack's lock is among them.
fn refuse_foreign(dir: &Path) -> Result<(), Error> {
    let mut entries = fs::read_dir(dir).map_err(Error::io("read", dir))?;
    if entries.next().is_some() && !dir.join("lock").exists() {
        return Err(Error::ForeignDir { dir: dir.to_owned() });
    }
    Ok(())
}

/// A stack whose process lives is not waited for; after a kill only its guards hold the lock, and not for long.
fn limit_for(lock: &mut File) -> Duration {
    let is_alive = Path::new("/proc").join(holder(lock)).exists();
    if is_alive { Duration::from_secs(2) } else { TAKE_OVER_LIMIT }
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.read_to_string(&mut text) {
        Ok(1..) => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
