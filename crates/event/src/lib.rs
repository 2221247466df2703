//! One driver position: protobuf schema, validated domain type, JSON form and reason codes.
//!
//! request body ──[`Submission::from_json`]──▶ [`Submission`] ──[`Submission::accept`]──▶ [`DriverLocation`] ──`encode`──▶ Kafka
//! Kafka ──[`DriverLocation::of_record`]──▶ [`DriverLocation`] ──`to_json`──▶ Redis

mod clock;
mod driver_id;
mod json;
mod location;
mod reason;
mod submission;
mod wire;

pub use clock::{ClockNote, EARLIEST_MS, FARTHEST_AHEAD_MS, POSITION_LIFE_MS, SENT_AT_TOLERANCE_MS};
pub use driver_id::DriverId;
pub use location::DriverLocation;
pub use reason::{Invalid, Reason, UnknownReason};
pub use submission::{BatchFault, Submission};
