//! The consumer runtime: what a group is assigned is fetched, decoded, written to a sink and committed.
//!
//! ```text
//!                      ┌────────────────────────── Runtime (decides, never waits for a sink) ─────────────────────────┐
//!  Kafka ──fetched──▶  │ Backlog: a queue a partition, gate on records and bytes ──take──▶ lanes (N at a time)        │
//!        ◀─pause/resume│    ▲ put back (blocked)                                  decode → dead letters → sink.write  │
//!        ◀──commit──── │ Commits ◀──────────────── settled ◀────────────────────────────────┘  ▲                      │
//!                      └───────────────────────────────────────────────────────────────────────┼──────────────────────┘
//!                                                                        SinkGuard: circuit breaker of all lanes
//! ```
//!
//! A *record fault* sends the record to the dead letter topic and the rest goes on. A *sink fault* moves nothing: the
//! batch is kept, fetching pauses, and the write is tried until the sink is back.

mod backlog;
mod batch;
mod commits;
mod error;
mod flood;
mod freshness;
mod guard;
mod lane;
mod letters;
mod membership;
pub mod metrics;
mod runtime;
mod settings;
mod sink;
mod start;

pub use batch::{BatchArgs, BatchProfile, FlagText};
pub use error::Error;
pub use flood::FloodArgs;
pub use freshness::Freshness;
pub use membership::{Membership, MembershipArgs, ProtocolName};
pub use settings::{PipelineArgs, Policy, Settings};
pub use sink::{Batch, Decode, Item, RecordFault, Refused, Sink, Slice, WriteError, Written};
pub use start::run;
