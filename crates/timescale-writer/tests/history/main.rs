//! The sink alone against real PostgreSQL servers: rows and offsets stand or fall together, and which answer is which
//! fault; the whole service, with Kafka.
//!
//! With TIMESCALE_URL (`make test-timescale`) everything runs against that server, but for what stops, hangs, fills or
//! changes a server (`world::server`) and `timescaledb.rs`. Where it has no TimescaleDB, the tests of the hypertable fail.
#![allow(clippy::unwrap_used, reason = "a test ends where its ground is missing")]

mod batches;
mod disk;
mod exactly_once;
mod faults;
mod format;
mod letters;
mod outages;
mod owners;
mod proxy;
mod refusals;
mod refused;
mod schema;
mod service;
mod tasks;
mod timescaledb;
mod tls;
mod world;
