//! What the tests of the whole pipeline stand on: real servers, our services as processes of their own, and witnesses
//! that look at the outcome without our code.
//!
//! ```text
//! Load ──HTTP──▶ Scene: location-ingest ─▶ Kafka ─▶ redis-writer, timescale-writer ─▶ Map (Redis), History (PostgreSQL)
//!                                            ▲ │
//!                              poison ── Witness (rskafka) ── what is really there, dead letters
//! ```
//!
//! Tests only: whatever goes wrong in here panics with what was seen last.

mod events;
mod history;
mod http;
mod load;
mod map;
mod scene;
mod service;
mod stacks;
mod stream;
mod throttle;
mod wait;
mod witness;

pub use events::{Moment, event, now_ms, position};
pub use history::{History, Row, Rows};
pub use http::{Answer, Phone};
pub use load::{Load, Posted};
pub use map::{Map, Seen, Watch};
pub use scene::Scene;
pub use service::{Ended, Ingest, Memory, Service};
pub use stacks::{disturbable, load_turn, shared};
pub use stream::Stream;
pub use throttle::Throttle;
pub use wait::{LIMIT, eventually, eventually_within};
pub use witness::{Found, Witness};
