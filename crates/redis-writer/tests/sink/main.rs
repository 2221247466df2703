//! The sink alone against real Redis servers: order, expiry, and which answer is which fault.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod faults;
mod map;
mod order;
mod resp;
mod tls;
mod users;
mod world;
