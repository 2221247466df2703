//! location-ingest against a real Kafka; what is in the topic is read back by rskafka, the independent witness.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod abuse;
mod admission;
mod cluster;
mod drain;
mod encodings;
mod faults;
mod formats;
mod http;
mod limits;
mod openapi;
mod phone;
mod process;
mod secured;
mod times;
mod validation;
