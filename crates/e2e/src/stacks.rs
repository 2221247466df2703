//! The servers: one stack that tests share, and one for tests that stop its servers.

use std::sync::OnceLock;

use native::{Error, KafkaOptions, Stack, StackOptions};
use tokio::sync::{Mutex, MutexGuard};

/// The broker's bound for `--session-timeout`, far below its default of 6 s: tests kill members and wait for the rest.
const MIN_SESSION_MS: u32 = 1_000;

/// A stack that many tests use at a time, each with names of its own, and none disturbs.
pub async fn shared() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    blocking(|| STACK.get_or_init(|| start("e2e-shared"))).await
}

/// A stack that one test at a time has for itself; every server of it runs.
pub async fn disturbable() -> MutexGuard<'static, Stack> {
    static STACK: OnceLock<Mutex<Stack>> = OnceLock::new();
    let stack = blocking(|| STACK.get_or_init(|| Mutex::new(start("e2e-disturbable")))).await.lock().await;
    // The test before may have failed in the middle of its outage.
    stack.kafka.thaw();
    stack.redis.thaw();
    stack.postgres.thaw();
    stack.kafka.start().expect("Kafka starts again");
    stack.redis.start().expect("Redis starts again");
    stack.postgres.start().expect("PostgreSQL starts again");
    stack
}

/// The turn of a test that drives load: two of them at once would only measure how small the machine is. Taken after
/// [`disturbable`], if both are wanted.
pub async fn load_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Under a name that the next run uses again, so that it clears up what this one leaves; beside a run of the same
/// checkout under a name of its own.
fn start(name: &str) -> Stack {
    let options = |name: &str| StackOptions {
        kafka: Some(KafkaOptions::single().set("group.min.session.timeout.ms", MIN_SESSION_MS)),
        ..StackOptions::all(name)
    };
    let started = match Stack::start(options(name)) {
        Err(Error::DirInUse { .. }) => Stack::start(options(&format!("{name}-{}", std::process::id()))),
        other => other,
    };
    started.unwrap_or_else(|error| panic!("the servers of the tests: {error}"))
}

/// Starting a server blocks its thread for seconds.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
