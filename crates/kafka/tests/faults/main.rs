//! What a cluster and its members do on their worst days, on real brokers: killed, frozen, restarted, joining and
//! leaving at random. Every record is followed from the producer to the member that processed it.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[path = "../support/crew.rs"]
mod crew;
#[path = "../support/journal.rs"]
mod journal;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/member.rs"]
mod member;
#[path = "../support/paced.rs"]
mod paced;
#[path = "../support/tenure.rs"]
mod tenure;
#[path = "../support/witness.rs"]
mod witness;

mod churn;
mod cluster;
mod describe;
mod frozen;
mod sequences;
mod support;
