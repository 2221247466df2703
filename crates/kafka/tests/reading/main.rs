//! Reading what others wrote, on a real broker: Java's batches in every codec, transactions, compacted logs, logs cut
//! from the front, and bytes that have gone bad on the disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod compacted;
mod damaged;
mod gone;
#[path = "../support/java.rs"]
mod java;
mod java_batches;
mod reader;
mod scene;
mod transactions;
