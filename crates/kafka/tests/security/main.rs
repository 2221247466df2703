//! TLS, SASL and rights on a real broker, one for all tests of this binary: what works, and what each mistake is told.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod broker;
mod foreign;
mod refused;
mod rights;
mod work;
