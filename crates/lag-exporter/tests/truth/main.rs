//! Truth by construction: producers with a known timeline, groups that commit at known offsets, and what the exporter says.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../../../kafka/tests/support/java.rs"]
mod java;

mod changes;
mod commits;
mod members;
mod once;
mod outage;
mod rights;
mod scene;
