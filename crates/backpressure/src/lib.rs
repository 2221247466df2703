//! Pure state machines that bound and slow a flow (admission, gate, in-flight budget, circuit breaker, flood gate, retry
//! policy) or judge it (progress).
//!
//! None of them reads a clock or opens a socket: time comes in as an argument, so that a test decides what time it is.
//! The budget alone can be waited for, because memory that is used up comes back without any time passing.

pub mod admission;
pub mod breaker;
pub mod budget;
pub mod flood;
pub mod gate;
pub mod progress;
pub mod retry;

pub use breaker::{Admission, Breaker, BreakerState};
pub use budget::{Amount, Budget, BudgetFull, Permit};
pub use flood::{Flood, FloodState, ShareError, Tally};
pub use gate::{Gate, GateState, MarksError};
pub use progress::{Progress, Sight, Verdict};
pub use retry::{Backoff, RetryPolicy, RetryPolicyError};
