//! The in-flight budget: how many records and bytes may be in the process at once.
//!
//! ```text
//!     free ── acquire ──▶ Permit ── dropped ──▶ free
//!       │                   ▲
//!       └── not enough: try_acquire hands the amount back, acquire waits its turn (first come, first served)
//! ```
//!
//! An amount larger than the whole budget counts as the whole budget: such a record passes alone instead of blocking
//! its partition for ever.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Records and bytes, the two sizes that memory is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Number of records.
    pub records: u32,
    /// Bytes those records occupy.
    pub bytes: u32,
}

/// There is no room for this amount now. It is handed back, so that the caller keeps what it wanted to put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for {} records of {} bytes", .0.records, .0.bytes)]
pub struct BudgetFull(pub Amount);

/// A budget shared by everyone who holds a clone.
#[derive(Debug, Clone)]
pub struct Budget {
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    capacity: Amount,
}

/// A share of the budget; dropping it gives the share back.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once bounds nothing"]
pub struct Permit {
    records: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

impl Permit {
    /// What this permit holds.
    pub fn amount(&self) -> Amount {
        Amount { records: narrow(self.records.num_permits()), bytes: narrow(self.bytes.num_permits()) }
    }
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(capacity: Amount) -> Self {
        Self { records: semaphore(capacity.records), bytes: semaphore(capacity.bytes), capacity }
    }

    /// Takes a share if there is room now.
    ///
    /// # Errors
    /// [`BudgetFull`] with the amount when there is no room; nothing was taken.
    pub fn try_acquire(&self, amount: Amount) -> Result<Permit, BudgetFull> {
        let fitted = self.fit(amount);
        let full = |_: TryAcquireError| BudgetFull(amount);
        let records = self.records.clone().try_acquire_many_owned(fitted.records).map_err(full)?;
        let bytes = self.bytes.clone().try_acquire_many_owned(fitted.bytes).map_err(full)?;
        Ok(Permit { records, bytes })
    }

    /// Waits for a share. Cancelling the wait takes nothing.
    pub async fn acquire(&self, amount: Amount) -> Permit {
        // Everyone takes records before bytes; with one order for all, no two waiters can hold what the other needs.
        let fitted = self.fit(amount);
        let records = self.records.clone().acquire_many_owned(fitted.records).await;
        let records = records.expect("the semaphore is never closed");
        let bytes = self.bytes.clone().acquire_many_owned(fitted.bytes).await;
        let bytes = bytes.expect("the semaphore is never closed");
        Permit { records, bytes }
    }

    /// What is taken now, shares that waiters already hold included.
    pub fn used(&self) -> Amount {
        Amount {
            records: self.capacity.records - narrow(self.records.available_permits()),
            bytes: self.capacity.bytes - narrow(self.bytes.available_permits()),
        }
    }

    /// The whole budget.
    pub fn capacity(&self) -> Amount {
        self.capacity
    }

    fn fit(&self, amount: Amount) -> Amount {
        Amount { records: amount.records.min(self.capacity.records), bytes: amount.bytes.min(self.capacity.bytes) }
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits as usize))
}

fn narrow(permits: usize) -> u32 {
    u32::try_from(permits).expect("a semaphore never holds more permits than the u32 it was made with")
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn amount(records: u32, bytes: u32) -> Amount {
        Amount { records, bytes }
    }

    #[test]
    fn a_dropped_permit_gives_its_share_back() {
        let budget = Budget::new(amount(10, 1000));
        let permit = budget.try_acquire(amount(4, 900)).unwrap();
        assert_eq!(permit.amount(), amount(4, 900));
        assert_eq!(budget.used(), amount(4, 900));
        drop(permit);
        assert_eq!(budget.used(), Amount::default());
    }

    #[test]
    fn either_limit_alone_refuses_and_hands_the_amount_back() {
        let budget = Budget::new(amount(10, 1000));
        let _held = budget.try_acquire(amount(1, 600)).unwrap();
        assert_eq!(budget.try_acquire(amount(1, 500)).unwrap_err(), BudgetFull(amount(1, 500)));
        assert_eq!(budget.try_acquire(amount(10, 1)).unwrap_err(), BudgetFull(amount(10, 1)));
        assert_eq!(budget.used(), amount(1, 600), "a refused amount must leave nothing behind");
    }

    #[test]
    fn an_amount_larger_than_the_budget_passes_alone() {
        let budget = Budget::new(amount(10, 1000));
        let giant = budget.try_acquire(amount(1, 1_000_000)).unwrap();
        assert_eq!(giant.amount(), amount(1, 1000));
        assert!(budget.try_acquire(amount(1, 1)).is_err());
        drop(giant);
        assert!(budget.try_acquire(amount(1, 1)).is_ok());
    }

    #[tokio::test]
    async fn waiters_are_served_in_the_order_they_came() {
        let budget = Budget::new(amount(10, 1000));
        let held = budget.try_acquire(amount(1, 900)).unwrap();
        let mut large = Box::pin(budget.acquire(amount(1, 800)));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(budget.acquire(amount(1, 300)));
        assert!(small.as_mut().now_or_never().is_none(), "a small amount must not overtake a large one for ever");
        drop(held);
        let large = large.await;
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        assert_eq!(small.await.amount(), amount(1, 300));
    }

    #[tokio::test]
    async fn a_cancelled_wait_takes_nothing() {
        let budget = Budget::new(amount(10, 1000));
        let held = budget.try_acquire(amount(1, 900)).unwrap();
        assert!(budget.acquire(amount(1, 800)).now_or_never().is_none());
        drop(held);
        assert_eq!(budget.used(), Amount::default());
    }

    proptest! {
        #[test]
        fn never_gives_out_more_than_it_has(
            capacity in (1..50u32, 1..5000u32), wanted in prop::collection::vec((0..60u32, 0..6000u32), 0..200),
        ) {
            let capacity = amount(capacity.0, capacity.1);
            let budget = Budget::new(capacity);
            let mut held: VecDeque<Permit> = VecDeque::new();
            for (records, bytes) in wanted {
                match budget.try_acquire(amount(records, bytes)) {
                    Ok(permit) => held.push_back(permit),
                    Err(BudgetFull(back)) => {
                        prop_assert_eq!(back, amount(records, bytes));
                        held.pop_front();
                    }
                }
                let records: u32 = held.iter().map(|permit| permit.amount().records).sum();
                let bytes: u32 = held.iter().map(|permit| permit.amount().bytes).sum();
                prop_assert_eq!(budget.used(), amount(records, bytes));
                prop_assert!(records <= capacity.records && bytes <= capacity.bytes);
            }
        }
    }
}
