//! The client against a real broker, one for all tests of this binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod admin;
mod group;
mod growth;
mod lag;
mod load;
mod member;
mod protocols;
mod support;
