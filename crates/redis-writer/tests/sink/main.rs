//! The sink alone against real Redis servers: order, expiry, and which answer is which fault.

mod faults;
mod map;
mod order;
mod resp;
mod world;
