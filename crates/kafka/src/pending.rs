//! Requests of one connection that wait for their answer, and what becomes of them when it ends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

/// Requests that wait for their answer, by correlation id; `None` once the connection is over.
#[derive(Default)]
pub(crate) struct Pending {
    state: Mutex<PendingState>,
    /// Nothing is waiting any more.
    emptied: Notify,
}

#[derive(Default)]
struct PendingState {
    closed: bool,
    waiting: HashMap<i32, oneshot::Sender<Bytes>>,
}

impl Pending {
    fn lock(&self) -> std::sync::MutexGuard<'_, PendingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(&self, id: i32) -> Option<oneshot::Receiver<Bytes>> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        state.waiting.insert(id, tx);
        Some(rx)
    }

    pub(crate) fn complete(&self, id: i32, body: Bytes) {
        // A caller that has given up is no longer waiting: its answer is dropped here.
        if let Some(waiter) = self.remove(id) {
            let _ = waiter.send(body);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn remove(&self, id: i32) -> Option<oneshot::Sender<Bytes>> {
        let mut state = self.lock();
        let waiter = state.waiting.remove(&id);
        if state.waiting.is_empty() {
            self.emptied.notify_waiters();
        }
        waiter
    }

    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        self.emptied.notify_waiters();
    }

    /// Waits until nothing is waiting.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().waiting.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

/// A request that is waited for, until the waiting ends one way or the other: also by a caller that stops asking.
pub(crate) struct Waiting<'a> {
    pending: &'a Pending,
    id: i32,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(pending: &'a Pending, id: i32) -> Self {
        Self { pending, id }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pending.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_finds_its_caller_and_the_end_finds_all_others() {
        let pending = Pending::default();
        let (first, second) = (pending.register(1).unwrap(), pending.register(2).unwrap());
        pending.complete(1, Bytes::from_static(b"one"));
        assert_eq!(first.await.unwrap(), "one");
        pending.close();
        assert!(second.await.is_err() && pending.register(3).is_none() && pending.is_closed());
    }

    #[tokio::test]
    async fn a_caller_that_stops_asking_holds_nobody_up() {
        let pending = Pending::default();
        let answer = pending.register(1).unwrap();
        let waiting = Waiting::new(&pending, 1);
        let emptied = pending.emptied();
        tokio::pin!(emptied);
        assert!(futures::poll!(emptied.as_mut()).is_pending());
        drop(waiting);
        emptied.await;
        assert!(answer.await.is_err());
    }
}
