//! The sink alone against real Redis servers: order, expiry, and which answer is which fault.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod cluster;
mod faults;
mod load;
mod map;
mod order;
mod resp;
mod sentinel;
mod servers;
mod tls;
mod users;
mod world;
mod writer;
