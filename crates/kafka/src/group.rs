//! Membership in a consumer group, by either of Kafka's two protocols.
//!
//! ```text
//!   member ── feeds what happens, carries out what is decided ──▶ classic | consumer_protocol   (pure machines)
//!     │
//!     ├──▶ wire      every exchange with the coordinator
//!     └──▶ leader    shares out by an assignor, watches for growth and drift                   (classic protocol)
//! ```

pub(crate) mod assignor;
pub(crate) mod claim;
pub(crate) mod classic;
pub(crate) mod codec;
mod consumer_protocol;
mod drift;
#[cfg(test)]
mod golden;
mod leader;
mod machine;
pub(crate) mod member;
mod rates;
pub(crate) mod wire;
