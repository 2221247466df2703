//! Admission: how often each driver may send, decided from how far behind the map is and how full this process is.
//!
//! ```text
//!   time lag of the groups ─┐                  share of the       ┌─▶ told    when to send next: 2 s … 10 s
//!   Kafka's ack time ───────┼─▶ Controller ─▶ full load ─▶ Valve ─┤
//!   bytes, requests ────────┘  (once a second)  0.1 … 1           └─▶ early   in turn, or refused: the slot rule
//! ```
//!
//! The [`Controller`] is a plain state machine over readings; the [`Valve`] is what requests touch: a few atomic loads and
//! a hash. Nothing here knows other replicas: all of them read the same lag and apply the same rule to the same clock.

mod controller;
mod memory;
mod rate;
mod slot;
mod valve;

pub use controller::{Controller, GroupLag, Signals, Steps};
pub use memory::DriverMemory;
pub use rate::DriverRate;
pub use slot::{DriverHash, SLOT_MS, STRETCH_MAX, retry_after_s};
pub use valve::{Decision, Valve};
