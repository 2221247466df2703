//! Every process that this one has started, so that all can be stopped when it has to end at once.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Inner, Role};
use crate::Error;

static STARTED: Mutex<Registry> = Mutex::new(Registry { stopping: false, processes: Vec::new() });

struct Registry {
    stopping: bool,
    processes: Vec<Weak<Inner>>,
}

/// Starts a process under the lock: either it is seen by [`stop_everything`], or it is not started any more.
pub(super) fn admit(start: impl FnOnce() -> Result<Arc<Inner>, Error>) -> Result<Arc<Inner>, Error> {
    let mut registry = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if registry.stopping {
        return Err(Error::Stopping);
    }
    let inner = start()?;
    registry.processes.retain(|process| process.strong_count() > 0);
    registry.processes.push(Arc::downgrade(&inner));
    Ok(inner)
}

/// Stops every process that this one has started, services before servers, and starts no other from now on. For the
/// way out on a signal: whatever a [`crate::Stack`] is doing in another thread meanwhile, nothing is left running.
pub fn stop_everything() {
    let processes: Vec<Arc<Inner>> = {
        let mut registry = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        registry.stopping = true;
        registry.processes.iter().filter_map(Weak::upgrade).collect()
    };
    for role in [Role::Service, Role::Server] {
        let of_role = || processes.iter().filter(|process| process.role == role);
        of_role().for_each(|process| process.ask_to_stop());
        for process in of_role() {
            process.stop();
        }
    }
}
