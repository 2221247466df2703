//! The commands as an operator runs them: the binary itself, on a real broker, with letters of our publisher and of others.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod foreign;
mod input;
mod looking;
mod redrive;
mod repair;
mod stops;
mod world;
