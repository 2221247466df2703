//! The whole pipeline on real servers, faults included; every record is counted.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod absent;
mod alerting;
mod circle;
mod crash;
mod dead_letters;
mod freeze;
mod freshness;
mod groups;
mod growth;
mod java_poison;
mod journey;
mod kills;
mod lag;
mod misuse;
mod observed;
mod outages;
mod poison;
mod refused;
mod shutdown;
mod thaw;
