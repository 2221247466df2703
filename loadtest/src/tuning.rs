//! The generator's bounds, in one place, and what the process needs from the system for them.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::generator::{Handle, Told};

/// Drivers of a run: `driver-1` … `driver-50000`.
pub const FLEET: u32 = 50_000;
/// How often due events are sent: at 50,000/s that is 50 at a time, and the mean delay of half a tick is in every latency.
pub const TICK: Duration = Duration::from_millis(1);
/// Most connections of the surge. Each carries one request at a time, so that 50,000/s need an answer within 61 ms on average;
/// where answers take longer, events wait here, which their latency shows, and the service is not buried in sockets.
pub const CONNECTIONS: usize = 3_072;
/// An event that finds no free connection for so long is never sent: its driver has posted newer ones meanwhile.
pub const SEND_WITHIN: Duration = Duration::from_secs(5);
/// Longer than the service itself waits for Kafka, so that a refusal is heard and not cut off.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Time for threads to start before the first event is due.
pub const START_IN: Duration = Duration::from_millis(100);

/// Allows as many open files as the system lets us have; the services, started from here, inherit it.
pub fn raise_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Refused only where the limit is already as high; connections beyond it would show as never sent.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Waits for the end of a generator without holding up the runtime.
pub async fn join(handle: Handle) -> Option<Told> {
    tokio::task::spawn_blocking(move || handle.join()).await.ok().flatten()
}
